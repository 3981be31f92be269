//! What stands in the way of the archive's own files and folders in its root.
//!
//! Promises:
//! - Y1: something of another kind under a name that the archive needs (a folder where a file belongs, a file or a link where a
//!   folder belongs) stops no start: it is renamed to `….strange`, never deleted, never followed, and told in the log.
//! - Y2: what is of the right kind is not touched, whatever error the disk gives.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::Disk;

/// Other names that are tried.
const MOST: u32 = 100;

/// Makes a folder of the root, if it is not there.
pub(crate) fn folder(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            aside(disk, path)?;
            disk.create_dir(path)
        }
        other => other,
    }
}

/// Makes way for a file that is about to be made or replaced.
pub(crate) fn file(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    if disk.read_dir(path).is_ok() { aside(disk, path) } else { Ok(()) }
}

fn aside(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let others = (0..MOST).map(|n| path.with_file_name(format!("{name}.{n}.strange")));
    let is_free = |other: &PathBuf| disk.size(other).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    let other = others.into_iter().find(is_free).ok_or(io::ErrorKind::AlreadyExists)?;
    disk.rename(path, &other)?;
    log::error!("{} is not what the archive needs there; it is kept as {}", path.display(), other.display());
    disk.sync_dir(path.parent().unwrap_or(Path::new("")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use mos_hal::clock::{BootId, SimClock, UtcMicros};

    use crate::archive::disk::RealDisk;
    use crate::archive::{Archive, ArchiveOptions, FOLDERS};

    fn open(root: &std::path::Path) -> u32 {
        let disk = Arc::new(RealDisk::open(root).unwrap());
        let clock = Arc::new(SimClock::new(BootId([1; 16]), UtcMicros(0)));
        let archive = Archive::open(disk, clock, &ArchiveOptions::default()).unwrap();
        archive.load().unwrap();
        archive.snapshot_index().unwrap();
        archive.run().0
    }

    /// Y1: every name of the root, each taken by something else.
    #[test]
    fn y1_nothing_in_the_way_stops_a_start_or_is_lost() {
        for name in FOLDERS {
            let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let path = root.path().join(name);
            fs::write(&path, "precious").unwrap();
            assert_eq!(open(root.path()), 1, "{name} is a file");
            assert_eq!(fs::read(root.path().join(format!("{name}.0.strange"))).unwrap(), b"precious");
            fs::remove_dir_all(&path).unwrap();
            symlink(elsewhere.path(), &path).unwrap();
            open(root.path());
            assert_eq!(fs::read_link(root.path().join(format!("{name}.1.strange"))).unwrap(), elsewhere.path());
            assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0, "{name}: a link is not followed");
        }
        for name in ["run", "run.tmp", "index/segments.db", "index/segments.tmp"] {
            let root = tempfile::tempdir().unwrap();
            let path = root.path().join(name);
            fs::create_dir_all(path.join("inside")).unwrap();
            assert_eq!(open(root.path()), 1, "{name} is a folder");
            assert!(root.path().join(format!("{name}.0.strange/inside")).is_dir());
            assert_eq!(open(root.path()), 2, "{name}");
        }
    }
}
