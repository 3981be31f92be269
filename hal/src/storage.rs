//! The block device that carries a folder: what it is, how worn it is, and how much has been written to it.
//!
//! Reads sysfs and nothing else; never opens a device. Sources of the facts: JEDEC JESD84-B51 (eMMC, EXT_CSD 267 to 269)
//! as Linux shows it (`Documentation/driver-api/mmc/mmc-dev-attrs.rst`), JESD220 (UFS health descriptor,
//! `Documentation/ABI/testing/sysfs-driver-ufs`), `Documentation/block/stat.rst`.
//!
//! What a device does not tell is unknown, never guessed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::libc;

/// What carries the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageKind {
    /// Soldered flash behind an MMC bus.
    Emmc,
    /// A card behind an MMC bus; it tells nothing of its wear.
    Sd,
    /// Universal flash storage.
    Ufs,
    /// Any other block device.
    Other,
}

impl StorageKind {
    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Emmc => "emmc",
            Self::Sd => "sd",
            Self::Ufs => "ufs",
            Self::Other => "other",
        }
    }
}

/// How far the reserved blocks of a flash device are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PreEol {
    /// As it should be.
    Normal,
    /// Four fifths are used (eMMC).
    Warning,
    /// Nine tenths are used (eMMC): the device may stop taking writes soon.
    Urgent,
}

impl PreEol {
    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Warning => "warning",
            Self::Urgent => "urgent",
        }
    }

    fn from_register(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Normal),
            2 => Some(Self::Warning),
            3 => Some(Self::Urgent),
            _ => None,
        }
    }
}

/// An estimate of used life in steps of ten per cent, as the register has it: 1 is 0 to 10 %, 10 is 90 to 100 %, 11 is
/// beyond what the device was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LifeUsed(u8);

impl LifeUsed {
    /// From the register; 0 and reserved values tell nothing.
    #[must_use]
    pub fn from_register(value: u8) -> Option<Self> {
        (1..=11).contains(&value).then_some(Self(value))
    }

    /// The step, 1 to 11.
    #[must_use]
    pub fn step(self) -> u8 {
        self.0
    }

    /// At most so many per cent are used; above 100 the end is passed.
    #[must_use]
    pub fn percent_at_most(self) -> u8 {
        self.0 * 10
    }
}

/// What a device tells of itself at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageState {
    /// Used life of the blocks of type A (often the small, single-level part).
    pub life_a: Option<LifeUsed>,
    /// Used life of the blocks of type B (most of the device).
    pub life_b: Option<LifeUsed>,
    /// How far the reserved blocks are used up.
    pub pre_eol: Option<PreEol>,
    /// Bytes written to it by anybody since the machine was switched on.
    pub written: Option<u64>,
}

impl StorageState {
    /// The part that is worn most.
    #[must_use]
    pub fn life(&self) -> Option<LifeUsed> {
        self.life_a.max(self.life_b)
    }
}

/// The device that carries a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageDevice {
    folder: PathBuf,
    name: String,
    kind: StorageKind,
    identity: String,
    health: Option<PathBuf>,
}

/// Devices stacked on one another that are followed down.
const STACK: usize = 8;
/// The sector of `stat`, whatever the device's own is (`Documentation/block/stat.rst`).
const SECTOR: u64 = 512;

impl StorageDevice {
    /// The device that carries `path`; `None` if no single block device does (tmpfs, overlays, network).
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        let device = fs::metadata(path)?.dev();
        Ok(Self::find(Path::new("/sys"), libc::major(device), libc::minor(device)))
    }

    /// As [`StorageDevice::of`], by number, in a tree like `/sys`.
    #[must_use]
    pub fn find(sys: &Path, major: u32, minor: u32) -> Option<Self> {
        let mut folder = fs::canonicalize(sys.join(format!("dev/block/{major}:{minor}"))).ok()?;
        for _ in 0..STACK {
            if folder.join("partition").exists() {
                folder.pop();
            }
            // What lies on several devices at once has no wear of its own.
            let mut below = fs::read_dir(folder.join("slaves")).into_iter().flatten().flatten();
            match (below.next(), below.next()) {
                (Some(one), None) => folder = fs::canonicalize(one.path()).ok()?,
                _ => return Self::describe(folder),
            }
        }
        None
    }

    fn describe(folder: PathBuf) -> Option<Self> {
        let name = folder.file_name()?.to_str()?.to_owned();
        let device = folder.join("device");
        let ufs = fs::canonicalize(&folder).ok()?;
        let ufs = ufs.ancestors().map(|above| above.join("health_descriptor")).find(|health| health.is_dir());
        let (kind, health) = match (text(&device.join("type")).as_deref(), ufs) {
            (Some("MMC"), _) => (StorageKind::Emmc, Some(device.clone())),
            (Some("SD"), _) => (StorageKind::Sd, None),
            (_, Some(health)) => (StorageKind::Ufs, Some(health)),
            _ => (StorageKind::Other, None),
        };
        let told = ["cid", "wwid", "serial"].iter().find_map(|file| text(&device.join(file)));
        let identity = told.unwrap_or_else(|| name.clone());
        Some(Self { folder, name, kind, identity, health })
    }

    /// The kernel's name, e.g. `mmcblk2`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> StorageKind {
        self.kind
    }

    /// What tells it from another one of its kind, as far as it says so; else its name.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// What it tells now.
    #[must_use]
    pub fn read(&self) -> StorageState {
        let health = |file: &str| self.health.as_ref().and_then(|health| text(&health.join(file)));
        let (a, b, eol) = if self.kind == StorageKind::Ufs {
            (health("life_time_estimation_a"), health("life_time_estimation_b"), health("eol_info"))
        } else {
            let both = health("life_time").unwrap_or_default();
            let mut both = both.split_whitespace().map(str::to_owned);
            (both.next(), both.next(), health("pre_eol_info"))
        };
        let register = |text: Option<String>| byte(text?.trim());
        StorageState {
            life_a: register(a).and_then(LifeUsed::from_register),
            life_b: register(b).and_then(LifeUsed::from_register),
            pre_eol: register(eol).and_then(PreEol::from_register),
            written: self.written(),
        }
    }

    /// The seventh figure of `stat`: sectors written.
    fn written(&self) -> Option<u64> {
        let stat = text(&self.folder.join("stat"))?;
        stat.split_whitespace().nth(6)?.parse::<u64>().ok()?.checked_mul(SECTOR)
    }
}

fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// `0x02`, as the kernel prints registers.
fn byte(text: &str) -> Option<u8> {
    u8::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(tree.0.path().join("dev/block")).unwrap();
            tree
        }

        fn put(&self, path: &str, text: &str) -> &Self {
            let path = self.0.path().join("devices").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn link(&self, from: &str, to: &str) -> &Self {
            let from = self.0.path().join(from);
            fs::create_dir_all(from.parent().unwrap()).unwrap();
            symlink(self.0.path().join("devices").join(to), from).unwrap();
            self
        }

        fn find(&self, major: u32, minor: u32) -> Option<StorageDevice> {
            StorageDevice::find(self.0.path(), major, minor)
        }
    }

    const STAT: &str = "  149535    13751 27098746   198990  1212995   730846 218155728  1476790        0   190792\n";

    /// An eMMC as `sdhci-esdhc-imx` shows it, its third partition mounted.
    fn emmc(life: &str, eol: &str) -> Tree {
        let tree = Tree::new();
        let card = "soc@0/30b60000.mmc/mmc_host/mmc2/mmc2:0001";
        tree.put(&format!("{card}/type"), "MMC\n")
            .put(&format!("{card}/cid"), "13014e47314a39355220a1b2c3d45e00\n")
            .put(&format!("{card}/life_time"), life)
            .put(&format!("{card}/pre_eol_info"), eol)
            .put(&format!("{card}/block/mmcblk2/stat"), STAT)
            .put(&format!("{card}/block/mmcblk2/mmcblk2p3/partition"), "3\n")
            .link(&format!("devices/{card}/block/mmcblk2/device"), card)
            .link("dev/block/179:3", &format!("{card}/block/mmcblk2/mmcblk2p3"));
        tree
    }

    #[test]
    fn an_emmc_tells_its_wear_from_a_partition_on_it() {
        let tree = emmc("0x02 0x04\n", "0x01\n");
        let device = tree.find(179, 3).unwrap();
        assert_eq!((device.name(), device.kind()), ("mmcblk2", StorageKind::Emmc));
        assert_eq!(device.identity(), "13014e47314a39355220a1b2c3d45e00");
        let state = device.read();
        assert_eq!(state.life().unwrap().percent_at_most(), 40);
        assert_eq!(state.life_a, LifeUsed::from_register(2));
        assert_eq!(state.pre_eol, Some(PreEol::Normal));
        assert_eq!(state.written, Some(218_155_728 * 512));
    }

    #[test]
    fn what_a_register_does_not_tell_is_unknown() {
        for (life, eol) in [("0x00 0x00\n", "0x00\n"), ("0xff 0x0c", "0x07"), ("", ""), ("two", "0x1g")] {
            let state = emmc(life, eol).find(179, 3).unwrap().read();
            assert_eq!((state.life(), state.pre_eol), (None, None), "{life:?} {eol:?}");
        }
        assert_eq!(emmc("0x0b 0x01", "0x03").find(179, 3).unwrap().read().life().unwrap().percent_at_most(), 110);
        assert_eq!(emmc("0x0b 0x01", "0x03").find(179, 3).unwrap().read().pre_eol, Some(PreEol::Urgent));
    }

    #[test]
    fn an_encrypted_volume_on_ufs_is_followed_down() {
        let tree = Tree::new();
        let host = "platform/soc@0/1d84000.ufshc";
        let disk = format!("{host}/host0/target0:0:0/0:0:0:0/block/sda");
        tree.put(&format!("{host}/health_descriptor/life_time_estimation_a"), "0x01\n")
            .put(&format!("{host}/health_descriptor/life_time_estimation_b"), "0x03\n")
            .put(&format!("{host}/health_descriptor/eol_info"), "0x02\n")
            .put(&format!("{disk}/stat"), STAT)
            .put(&format!("{disk}/sda9/partition"), "9\n")
            .put("virtual/block/dm-0/stat", "0\n")
            .link("devices/virtual/block/dm-0/slaves/sda9", &format!("{disk}/sda9"))
            .link("dev/block/253:0", "virtual/block/dm-0");
        let device = tree.find(253, 0).unwrap();
        assert_eq!((device.name(), device.kind()), ("sda", StorageKind::Ufs));
        let state = device.read();
        assert_eq!((state.life(), state.pre_eol), (LifeUsed::from_register(3), Some(PreEol::Warning)));
    }

    #[test]
    fn other_disks_say_that_they_do_not_know() {
        let tree = Tree::new();
        tree.put("pci0000:00/virtio3/block/vda/stat", STAT)
            .put("pci0000:00/virtio3/device", "0x1042\n")
            .link("devices/pci0000:00/virtio3/block/vda/device", "pci0000:00/virtio3")
            .link("dev/block/254:0", "pci0000:00/virtio3/block/vda");
        let device = tree.find(254, 0).unwrap();
        assert_eq!((device.name(), device.kind(), device.identity()), ("vda", StorageKind::Other, "vda"));
        let state = device.read();
        assert_eq!((state.life(), state.pre_eol), (None, None));
        assert!(state.written.is_some());
        assert_eq!(tree.find(0, 42), None, "a tmpfs has no device");
    }

    #[test]
    fn the_machine_that_this_runs_on_can_be_asked() {
        let folder = tempfile::tempdir().unwrap();
        if let Some(device) = StorageDevice::of(folder.path()).unwrap() {
            assert!(!device.name().is_empty());
            let _ = device.read();
        }
        assert!(StorageDevice::of(Path::new("/nowhere/at/all")).is_err());
    }
}
