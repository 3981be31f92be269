//! What the configuration says of lenses that the tree describes.
//!
//! Promises that an override changes only what it names, and that one for a lens that the tree has not is told as a fault.

use std::path::PathBuf;

use super::{BoardLens, TreeError, lenses, read};
use crate::media::LensId;
use crate::pins::Line;

/// Replaces parts of what the tree says of one lens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LensOverride {
    /// The lens, by its name in the tree.
    pub name: LensId,
    /// What it looks at.
    pub role: Option<String>,
    /// Its number in the vendor's camera service, 0 to 32.
    pub camera_index: Option<u32>,
    /// 0, 90, 180 or 270.
    pub rotation: Option<u32>,
    /// The line that switches its power over coax, where MOS sets GMSL links up; high (or low, if active low) is on.
    pub power_line: Option<Line>,
    /// It is not there, whatever the tree says.
    pub disabled: bool,
}

/// Where lenses are described: a tree, and what changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LensTree {
    /// Root of the live tree.
    pub root: PathBuf,
    /// At most one for each lens.
    pub overrides: Vec<LensOverride>,
}

/// As the tree says.
impl From<&str> for LensTree {
    fn from(root: &str) -> Self {
        Self { root: root.into(), overrides: Vec::new() }
    }
}

impl LensTree {
    /// The lenses in order of their numbers, and what is wrong.
    #[must_use]
    pub fn lenses(&self) -> (Vec<BoardLens>, Vec<String>) {
        let (mut found, mut faults) = match read(&self.root) {
            Ok(root) => {
                let (lenses, faults) = lenses(&root);
                (lenses, faults.iter().map(ToString::to_string).collect())
            }
            // Said by the evidence already.
            Err(TreeError::Absent(_)) => (Vec::new(), Vec::new()),
            Err(e) => (Vec::new(), vec![e.to_string()]),
        };
        for change in &self.overrides {
            match found.iter_mut().find(|lens| lens.name == change.name) {
                Some(lens) => change.apply(lens),
                None => faults.push(format!(
                    "the configuration changes the lens {}, which the device tree at {} does not describe",
                    change.name,
                    self.root.display()
                )),
            }
        }
        found.retain(|lens| !self.overrides.iter().any(|change| change.disabled && change.name == lens.name));
        (found, faults)
    }
}

impl LensOverride {
    fn apply(&self, lens: &mut BoardLens) {
        if let Some(role) = &self.role {
            lens.role = Some(role.clone());
        }
        lens.camera_index = self.camera_index.or(lens.camera_index);
        lens.rotation = self.rotation.unwrap_or(lens.rotation);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_override_changes_what_it_names_and_a_stranger_is_told() {
        let tree = tempfile::tempdir().unwrap();
        for (number, name) in [(0, "road"), (1, "left")] {
            let dir = tree.path().join(format!("mos/lens@{number}"));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("mos,name"), format!("{name}\0")).unwrap();
            fs::write(dir.join("mos,transport"), b"mipi-csi2\0").unwrap();
            fs::write(dir.join("mos,role"), b"road\0").unwrap();
            fs::write(dir.join("mos,camera-index"), [0, 0, 0, number]).unwrap();
            fs::write(dir.join("rotation"), [0, 0, 0, 90]).unwrap();
        }
        fs::write(tree.path().join("mos/compatible"), b"mos,lenses\0").unwrap();
        let change = |name: &str| LensOverride {
            name: LensId::new(name).unwrap(),
            role: None,
            camera_index: None,
            rotation: None,
            power_line: None,
            disabled: false,
        };
        let with = |overrides| LensTree { root: tree.path().into(), overrides }.lenses();
        let (plain, _) = with(Vec::new());
        let (same, faults) = with(vec![change("left")]);
        assert_eq!((same, faults.len()), (plain, 0), "an empty override changes nothing");
        let left =
            LensOverride { role: Some("cabin".into()), camera_index: Some(4), rotation: Some(0), ..change("left") };
        let off = LensOverride { disabled: true, ..change("road") };
        let (lenses, faults) = with(vec![left, off, change("rear")]);
        let [left] = &lenses[..] else { panic!("{lenses:?}") };
        assert_eq!((left.role.as_deref(), left.camera_index, left.rotation), (Some("cabin"), Some(4), 0));
        assert!(faults.len() == 1 && faults[0].contains("the lens rear"), "{faults:?}");
    }
}
