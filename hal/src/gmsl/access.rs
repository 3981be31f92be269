//! What may be done with a chip of the tree: who drives it, and how it is reached.
//!
//! Promises to open nothing: it reads names and links of sysfs (Linux Documentation/ABI/testing/sysfs-bus-i2c; every device
//! made from a tree has a link `of_node`).

use std::fs;
use std::path::{Path, PathBuf};

use crate::device_tree::Chip;
use crate::platform::Stack;

/// What may be done with a chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nobody else drives it: it may be read and set up.
    Full,
    /// It may be read only, for this reason.
    ReadOnly(String),
    /// It cannot be reached, for this reason.
    None(String),
}

impl Access {
    /// The name in the API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::ReadOnly(_) => "read_only",
            Self::None(_) => "none",
        }
    }

    /// Why not more.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Full => None,
            Self::ReadOnly(why) | Self::None(why) => Some(why),
        }
    }
}

/// What may be done with the chip, and the device node of its bus.
#[must_use]
pub fn access(chip: &Chip, sysfs: &Path, stack: &Stack) -> (Access, Option<PathBuf>) {
    let parent = chip.path.rsplit_once('/').map_or("/", |(parent, _)| parent);
    let devices = devices(sysfs);
    let of_camx = stack.name == "camx";
    let bus = devices.iter().find(|(name, d)| name.starts_with("i2c-") && node(d).as_deref() == Some(parent));
    let Some((bus, _)) = bus else {
        let why = if of_camx {
            format!("the camera service has {parent} to itself: the kernel shows no I2C bus of it")
        } else {
            format!("the kernel shows no I2C bus of {parent}")
        };
        return (Access::None(why), None);
    };
    let device = Path::new("/dev").join(bus);
    let driver = devices.iter().find(|(_, d)| node(d).as_deref() == Some(&chip.path)).and_then(|(_, d)| driver(d));
    let access = match driver {
        Some(driver) => Access::ReadOnly(format!("the kernel's driver {driver} sets it up")),
        None if of_camx => Access::ReadOnly(format!("the camera service sets it up ({})", stack.why)),
        None if !chip.enabled => Access::ReadOnly("the device tree disables it".into()),
        None => Access::Full,
    };
    (access, Some(device))
}

fn devices(sysfs: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(sysfs.join("bus/i2c/devices")).into_iter().flatten().flatten();
    entries.filter_map(|e| Some((e.file_name().into_string().ok()?, e.path()))).collect()
}

/// Path in the tree of what a device was made from.
fn node(device: &Path) -> Option<String> {
    let target = fs::read_link(device.join("of_node")).ok()?;
    let (_, path) = target.to_str()?.split_once("firmware/devicetree/base")?;
    Some(path.to_owned())
}

fn driver(device: &Path) -> Option<String> {
    let target = fs::read_link(device.join("driver")).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const BUS: &str = "/soc@0/cci@ac4a000/i2c-bus@0";

    fn chip(enabled: bool) -> Chip {
        let path = format!("{BUS}/deserializer@29");
        Chip { path, compatible: vec!["maxim,max96712".into()], address: 0x29, enabled }
    }

    fn sysfs(driver: Option<&str>) -> tempfile::TempDir {
        let sysfs = tempfile::tempdir().unwrap();
        let device = |name: &str, of_node: &str| {
            let dir = sysfs.path().join("bus/i2c/devices").join(name);
            fs::create_dir_all(&dir).unwrap();
            symlink(format!("../../../firmware/devicetree/base{of_node}"), dir.join("of_node")).unwrap();
            dir
        };
        device("i2c-3", "/soc@0/i2c@980000");
        device("i2c-7", BUS);
        let chip = device("7-0029", &chip(true).path);
        if let Some(driver) = driver {
            symlink(format!("../../../../bus/i2c/drivers/{driver}"), chip.join("driver")).unwrap();
        }
        sysfs
    }

    /// G1.
    #[test]
    fn only_a_chip_that_nobody_drives_may_be_written() {
        let stack = |name| Stack { name, why: "GStreamer element qticamsrc".into() };
        let told = |sysfs: &Path, enabled, name| {
            let (access, bus) = access(&chip(enabled), sysfs, &stack(name));
            (access.name(), access.why().unwrap_or_default().to_owned(), bus)
        };
        let free = sysfs(None);
        assert_eq!(told(free.path(), true, "mainline"), ("full", String::new(), Some("/dev/i2c-7".into())));
        let (name, why, bus) = told(sysfs(Some("max96712")).path(), true, "mainline");
        assert_eq!((name, why.as_str()), ("read_only", "the kernel's driver max96712 sets it up"));
        assert_eq!(bus, Some("/dev/i2c-7".into()));
        let (name, why, _) = told(free.path(), true, "camx");
        assert_eq!((name, why.as_str()), ("read_only", "the camera service sets it up (GStreamer element qticamsrc)"));
        let (name, why, _) = told(free.path(), false, "none");
        assert_eq!((name, why.as_str()), ("read_only", "the device tree disables it"));
        for (stack, words) in
            [("camx", "the camera service has /soc@0"), ("none", "the kernel shows no I2C bus of /soc@0")]
        {
            let (name, why, bus) = told(Path::new("/nowhere"), true, stack);
            assert!((name, bus) == ("none", None) && why.starts_with(words), "{why}");
        }
    }
}
