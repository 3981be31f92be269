//! What is installed and attached around the program, as far as the choice of a stack depends on it.
//!
//! Promises to ask only: no device is opened. SoC modules decide by what is present here, never by the SoC's name alone, for
//! one SoC runs vendor and mainline software in different firmware.

use std::fs;
use std::path::{Path, PathBuf};

use crate::gst as common;

/// A V4L2 device as the kernel names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its node, `/dev/video0`.
    pub node: PathBuf,
    /// Its name, which drivers set to the card's name.
    pub name: String,
}

/// What can be asked of the surroundings. Object-safe, so that tests describe a board in a few lines.
pub trait Surroundings: Send + Sync {
    /// Whether a GStreamer element of this name is installed.
    fn element(&self, name: &str) -> bool;
    /// V4L2 devices, in order of their numbers.
    fn cards(&self) -> Vec<Card>;
    /// Models and drivers of the media controller devices.
    fn media(&self) -> Vec<String>;
    /// Whether a device node is there.
    fn node(&self, path: &Path) -> bool;
}

/// Where the kernel describes the devices.
pub const SYSFS: &str = "/sys";

/// This machine.
#[derive(Clone, Debug)]
pub struct Here {
    sys: PathBuf,
}

impl Here {
    /// The running system.
    #[must_use]
    pub fn new() -> Self {
        Self::at(Path::new(SYSFS))
    }

    /// The running system with another description of its devices, as tests and rigs need it.
    #[must_use]
    pub fn at(sysfs: &Path) -> Self {
        Self { sys: sysfs.into() }
    }
}

impl Default for Here {
    fn default() -> Self {
        Self::new()
    }
}

impl Surroundings for Here {
    fn element(&self, name: &str) -> bool {
        common::init().is_ok() && common::has(name)
    }

    fn cards(&self) -> Vec<Card> {
        // Documentation/ABI/stable/sysfs-class-video4linux is silent on `name`; every driver has it (v4l2-dev.c, name_show).
        let number = |name: &str| name.strip_prefix("video")?.parse::<u32>().ok();
        let mut cards: Vec<(u32, Card)> = entries(&self.sys.join("class/video4linux"))
            .into_iter()
            .filter_map(|(name, path)| {
                let card = Card { node: Path::new("/dev").join(&name), name: text(&path.join("name"))? };
                Some((number(&name)?, card))
            })
            .collect();
        cards.sort_by_key(|(number, _)| *number);
        cards.into_iter().map(|(_, card)| card).collect()
    }

    fn media(&self) -> Vec<String> {
        let devices = entries(&self.sys.join("bus/media/devices"));
        let driver = |path: &Path| {
            let link = fs::read_link(path.join("device/driver")).ok()?;
            Some(link.file_name()?.to_str()?.to_owned())
        };
        let mut media: Vec<String> =
            devices.iter().flat_map(|(_, path)| [text(&path.join("model")), driver(path)]).flatten().collect();
        media.sort();
        media.dedup();
        media
    }

    fn node(&self, path: &Path) -> bool {
        path.exists()
    }
}

fn entries(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| Some((e.file_name().into_string().ok()?, e.path()))).collect()
}

/// A one-line attribute; what is no printable text is not there.
fn text(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let text = text.trim();
    (!text.is_empty() && text.chars().all(|c| !c.is_control())).then(|| text.to_owned())
}

/// Surroundings that a test writes down.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub(crate) struct Described {
    pub(crate) elements: Vec<&'static str>,
    pub(crate) cards: Vec<&'static str>,
    pub(crate) media: Vec<&'static str>,
    pub(crate) nodes: Vec<&'static str>,
}

#[cfg(test)]
impl Surroundings for Described {
    fn element(&self, name: &str) -> bool {
        self.elements.contains(&name)
    }
    fn cards(&self) -> Vec<Card> {
        let card = |(n, name): (usize, &&str)| Card { node: format!("/dev/video{n}").into(), name: (*name).to_owned() };
        self.cards.iter().enumerate().map(card).collect()
    }
    fn media(&self) -> Vec<String> {
        self.media.iter().map(|m| (*m).to_owned()).collect()
    }
    fn node(&self, path: &Path) -> bool {
        self.nodes.iter().any(|n| Path::new(n) == path)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn cards_and_media_devices_are_read_from_sysfs() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &[u8]| {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        put("class/video4linux/video10/name", b"vsi_v4l2dec\n");
        put("class/video4linux/video2/name", b"VIV\n");
        put("class/video4linux/video3/name", b"\xff\xfe");
        put("class/video4linux/v4l-subdev0/name", b"imx219 1-0010\n");
        put("bus/media/devices/media0/model", b"mxc-isi\n");
        put("bus/platform/drivers/imx8-isi/bind", b"");
        fs::create_dir_all(dir.path().join("bus/media/devices/media0/device")).unwrap();
        let link = dir.path().join("bus/media/devices/media0/device/driver");
        symlink("../../../../platform/drivers/imx8-isi", link).unwrap();
        let here = Here { sys: dir.path().into() };
        let cards = here.cards();
        let cards: Vec<_> = cards.iter().map(|c| (c.node.to_str().unwrap(), c.name.as_str())).collect();
        assert_eq!(cards, [("/dev/video2", "VIV"), ("/dev/video10", "vsi_v4l2dec")]);
        assert_eq!(here.media(), ["imx8-isi", "mxc-isi"]);
        assert!(Here { sys: "/none".into() }.cards().is_empty());
    }
}
