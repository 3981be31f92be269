//! A small disk of its own: a tmpfs or an ext4 of fixed size, so that a test can fill it without filling the machine, or let it be
//! as it is when the kernel or somebody made it read-only.
//!
//! Mounting needs root, ext4 a loop device. Where that is impossible the test fails and says so: such a disk must be tried, not assumed.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted disk; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: tempfile::TempDir,
    /// The file that an ext4 lies in.
    image: Option<tempfile::NamedTempFile>,
}

impl SmallDisk {
    /// Mounts a tmpfs of `megabytes`.
    #[must_use]
    pub fn mount(megabytes: u32) -> Self {
        let folder = folder();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "mos-test"]).arg(folder.path());
        must(&mut command);
        Self { folder, image: None }
    }

    /// Makes and mounts an ext4 of `megabytes`, without blocks that only root may use.
    #[must_use]
    pub fn mount_ext4(megabytes: u32) -> Self {
        let folder = folder();
        let image = tempfile::Builder::new().prefix("mos-disk-").suffix(".img").tempfile().unwrap();
        image.as_file().set_len(u64::from(megabytes) << 20).unwrap();
        must(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(image.path()));
        let disk = Self { folder, image: Some(image) };
        disk.mount_image();
        disk
    }

    /// The kernel's own answer to an error of an ext4: its journal ends, and whatever would change it is refused with EROFS until
    /// [`Self::repair`].
    pub fn abort(&self) {
        must(Command::new("mount").args(["-o", "remount,abort"]).arg(self.path()));
    }

    /// What is to be done about that: unmounts it (nobody may have a file of it open), checks it and mounts it again.
    pub fn repair(&self) {
        must(Command::new("umount").arg(self.path()));
        let image = self.image.as_ref().expect("an ext4").path();
        let check = Command::new("e2fsck").args(["-f", "-p"]).arg(image).output().expect("e2fsck(8) exists");
        // 1: errors were found and mended.
        assert!(matches!(check.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&check.stdout));
        self.mount_image();
    }

    /// Mounts it read-only, or writable again, while nobody has a file of it open for writing.
    pub fn set_read_only(&self, read_only: bool) {
        let how = if read_only { "remount,ro" } else { "remount,rw" };
        must(Command::new("mount").args(["-o", how]).arg(self.path()));
    }

    fn mount_image(&self) {
        let image = self.image.as_ref().expect("an ext4").path();
        must(Command::new("mount").args(["-o", "loop"]).arg(image).arg(self.path()));
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Free bytes.
    #[must_use]
    pub fn free(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(self.path()).unwrap();
        stat.blocks_available() * stat.fragment_size()
    }

    /// Fills what is free with a foreign file, up to the last block; gives the file.
    #[must_use]
    pub fn fill(&self) -> PathBuf {
        let path = self.path().join("somebody-elses-file");
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        let block = vec![1_u8; 4096];
        while file.write_all(&block).is_ok() {}
        path
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("mos-disk-").tempdir().unwrap()
}

fn must(command: &mut Command) {
    let done = command.output().expect("mount(8) and mkfs.ext4 exist");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "this test needs a disk of its own: run as root where one may be mounted: {said}");
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).output();
    }
}
