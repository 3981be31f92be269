//! Recognising the machine by its device tree.
//!
//! Promises an answer for every machine and every tree: the first entry of the root's `compatible` that a SoC module knows
//! decides, and all else is [`crate::generic::Generic`], with what was seen in the evidence. Reads two small files; starts and
//! opens nothing. Whose cameras and codecs then run is judged later, by what is present (see [`crate::board::Soc::stack`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::board::{Board, Soc};
use crate::device_tree::{self, LensOverride};
use crate::generic::Generic;
use crate::gmsl::bring_up::SetUp;
use crate::imx8mp::Imx8mp;
use crate::platform::Platform;
use crate::qcs6490::Qcs6490;
use crate::shared::Shared;
use crate::surroundings::{Here, SYSFS, Surroundings};

/// Every SoC that has a module. A new one is entered here.
pub(crate) static SOCS: [&dyn Soc; 2] = [&Imx8mp, &Qcs6490];

/// How to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Root of the live tree, [`device_tree::LIVE`] on real machines.
    pub device_tree: PathBuf,
    /// Root of sysfs, [`crate::surroundings::SYSFS`] on real machines.
    pub sysfs: PathBuf,
    /// What the configuration says of lenses that the tree describes.
    pub lenses: Vec<LensOverride>,
    /// How GMSL chips are set up that nobody else drives; `None`: they are not.
    pub gmsl: Option<SetUp>,
    /// The program that runs what must not share a process with the recorder; it answers to `libcamera::COMMAND`. `None`:
    /// libcamera is not asked.
    pub worker: Option<PathBuf>,
    /// Refuse lenses whose frames pass through CPU memory, which on a board is a mistake in its set-up.
    pub production: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device_tree: device_tree::LIVE.into(),
            sysfs: SYSFS.into(),
            lenses: Vec::new(),
            gmsl: None,
            worker: None,
            production: false,
        }
    }
}

/// Recognises the machine.
#[must_use]
pub fn probe(options: &Options) -> Arc<dyn Platform> {
    Arc::new(board(options, Arc::new(Here::at(&options.sysfs)), None))
}

/// The same for a process whose lenses share with those of another.
#[must_use]
pub fn probe_sharing(options: &Options, shared: Arc<dyn Shared>) -> Arc<dyn Platform> {
    Arc::new(board(options, Arc::new(Here::at(&options.sysfs)), Some(shared)))
}

/// The same in given surroundings.
pub(crate) fn board(options: &Options, here: Arc<dyn Surroundings>, shared: Option<Arc<dyn Shared>>) -> Board {
    let (soc, evidence) = recognise(&options.device_tree);
    Board::new(soc, evidence, options, here, shared)
}

/// The SoC, and what it was recognised by.
fn recognise(root: &Path) -> (&'static dyn Soc, String) {
    let identity = match device_tree::identity(root) {
        Ok(identity) => identity,
        Err(e) => return (&Generic, e.to_string()),
    };
    let model = identity.model.map_or_else(String::new, |m| format!(" ({m})"));
    let found = SOCS.into_iter().find_map(|soc| Some((soc, identity.compatible.iter().find(|c| soc.matches(c))?)));
    let seen = if identity.compatible.is_empty() { "nothing".to_owned() } else { identity.compatible.join(", ") };
    match found {
        Some((soc, by)) => (soc, format!("{by} among compatible {seen} at {}{model}", root.display())),
        None => (&Generic, format!("no supported SoC among compatible {seen} at {}{model}", root.display())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    fn recognised(compatible: &[u8]) -> (String, String) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("compatible"), compatible).unwrap();
        fs::write(dir.path().join("model"), b"A board\0").unwrap();
        let board = probe(&Options { device_tree: dir.path().into(), ..Options::default() });
        (board.name().to_owned(), board.evidence())
    }

    #[test]
    fn any_entry_of_compatible_decides() {
        for (compatible, name) in [
            (&b"fsl,imx8mp-evk\0fsl,imx8mp\0"[..], "imx8mp"),
            (b"toradex,verdin-imx8mp-wifi-dahlia\0toradex,verdin-imx8mp\0fsl,imx8mp\0", "imx8mp"),
            (b"qcom,qcs6490-rb3gen2\0qcom,qcm6490\0", "qcs6490"),
            (b"fairphone,fp5\0qcom,qcm6490\0", "qcs6490"),
            (b"qcom,qcs6490\0", "qcs6490"),
            (b"fsl,imx8mm-evk\0fsl,imx8mm\0", "generic"),
            (b"fsl,imx8mp-evk\0", "generic"),
            (b"google,herobrine\0qcom,sc7280\0", "generic"),
            (b"qcom,qcs64900\0", "generic"),
            (b"fsl,imx8mp", "generic"),
            (b"\xff\xfe\0fsl,imx8mp\0", "generic"),
            (b"", "generic"),
        ] {
            let (found, evidence) = recognised(compatible);
            assert_eq!(found, name, "{evidence}");
            assert!(!evidence.is_empty() && evidence.chars().all(|c| !c.is_control()), "{evidence:?}");
        }
    }

    #[test]
    fn the_evidence_says_what_was_seen() {
        let (_, evidence) = recognised(b"acme,rocket\0acme,soc\0");
        assert!(evidence.starts_with("no supported SoC among compatible acme,rocket, acme,soc at "), "{evidence}");
        assert!(evidence.ends_with("(A board)"));
        let (_, evidence) = recognised(b"fsl,imx8mp\0");
        assert!(evidence.starts_with("fsl,imx8mp among compatible fsl,imx8mp at "), "{evidence}");
        let none = probe(&Options { device_tree: "/none".into(), ..Options::default() });
        assert_eq!((none.name(), none.evidence()), ("generic", "no device tree at /none".to_owned()));
    }
}
