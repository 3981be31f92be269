//! Quarantine: where files go that MOS does not understand. Nothing in it is ever deleted by MOS; it is counted and shown.
//!
//! Promise Q1: a file that is not ours, or whose header cannot be read, is moved, never deleted.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::disk::{Disk, DiskFile, OpenMode};
use super::error::{ArchiveError, at};
use super::ids::SegmentId;

const FOLDER: &str = "quarantine";

/// Moves a file or folder below `segments` to the quarantine; durable on return. Returns its new path.
pub(crate) fn put_away(disk: &dyn Disk, path: &Path) -> Result<PathBuf, ArchiveError> {
    let to = free_name(disk, path);
    disk.rename(path, &to).map_err(at("move to quarantine", path))?;
    let dir = path.parent().unwrap_or(Path::new(""));
    for dir in [Path::new(FOLDER), dir] {
        disk.sync_dir(dir).map_err(at("sync", dir))?;
    }
    Ok(to)
}

/// Keeps a copy of a file below `segments` in quarantine; durable on return. Returns its path.
pub(crate) fn keep_copy(disk: &dyn Disk, file: &dyn DiskFile, path: &Path) -> Result<PathBuf, ArchiveError> {
    let to = free_name(disk, path);
    let len = file.len().map_err(at("read", path))?;
    let copy = disk.open(&to, OpenMode::CreateNew).map_err(at("create", &to))?;
    let copied = file.copy_to(0, len, copy.as_ref(), 0).and_then(|()| copy.sync());
    if let Err(error) = copied {
        // Half a copy helps nobody; the original is untouched.
        let _ = disk.remove_file(&to);
        return Err(at("copy to quarantine", path)(error));
    }
    disk.sync_dir(Path::new(FOLDER)).map_err(at("sync", Path::new(FOLDER)))?;
    Ok(to)
}

fn free_name(disk: &dyn Disk, path: &Path) -> PathBuf {
    let name = flat_name(path);
    let mut to = Path::new(FOLDER).join(&name);
    let mut n = 1;
    while taken(disk, &to) {
        to = Path::new(FOLDER).join(format!("{name}~{n}"));
        n += 1;
    }
    to
}

/// `segments/road/7/x.mp4` becomes `road-7-x.mp4`.
fn flat_name(path: &Path) -> String {
    let parts: Vec<_> = path.components().skip(1).map(|c| c.as_os_str().to_string_lossy()).collect();
    parts.join("-")
}

fn taken(disk: &dyn Disk, path: &Path) -> bool {
    let missing = |e: &std::io::Error| e.kind() == ErrorKind::NotFound;
    !disk.open(path, OpenMode::Read).is_err_and(|e| missing(&e))
}

/// How many things are in quarantine, and the segments among them that can be told by their names.
pub(crate) fn contents(disk: &dyn Disk) -> Result<(u64, Vec<SegmentId>), ArchiveError> {
    let entries = disk.read_dir(Path::new(FOLDER)).map_err(at("list", Path::new(FOLDER)))?;
    let segment = |name: &str| name.split_once(".mp4").and_then(|(id, _)| id.parse().ok());
    Ok((entries.len() as u64, entries.iter().filter_map(|e| segment(&e.name)).collect()))
}
