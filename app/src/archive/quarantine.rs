//! Quarantine: where files go that MOS does not understand. It is counted and shown.
//!
//! Promises:
//! - Q1: a file that is not ours, or whose header cannot be read, is moved, and never deleted.
//! - Q2: what is certainly a torn segment of ours (name and readable header say the same) is footage like any other: it has
//!   a quota and a lifetime. Without them a dying disk would fill itself up with what it tears, and footage that a lifetime
//!   bounds would live on here.
//! - Q3: what was protected is protected here too: its `.keep` comes along, and nothing that has one goes.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mos_mp4::summary::Summary;

use super::disk::{Disk, DiskFile, OpenMode};
use super::error::{ArchiveError, at};
use super::ids::{RunId, SegmentId};
use super::recover::{Stored, is_of};
use super::{Archive, Inner, Quota};

const FOLDER: &str = "quarantine";

/// What lies there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// Files and folders of any kind.
    pub things: u64,
    /// Bytes of the allocated blocks of files that are named like segments of ours.
    pub torn_bytes: u64,
    /// Torn segments that went in this run.
    pub expired: u64,
}

/// Moves a file or folder below `segments` to the quarantine; durable on return. Returns its new path.
pub(crate) fn put_away(disk: &dyn Disk, path: &Path) -> Result<PathBuf, ArchiveError> {
    let to = rename_away(disk, path)?;
    sync_folders(disk, [path])?;
    Ok(to)
}

/// Moves many, and calls `moved` with each and what became of it. Durable on return, with one sync of each folder: a million files
/// of somebody else must not keep retention from its work for hours.
pub(crate) fn put_all_away<'a>(
    disk: &dyn Disk,
    paths: impl Iterator<Item = &'a PathBuf> + Clone,
    mut moved: impl FnMut(&Path, Result<PathBuf, ArchiveError>),
) -> Result<(), ArchiveError> {
    for path in paths.clone() {
        moved(path, rename_away(disk, path));
    }
    sync_folders(disk, paths.map(PathBuf::as_path))
}

fn rename_away(disk: &dyn Disk, path: &Path) -> Result<PathBuf, ArchiveError> {
    let to = free_name(disk, path);
    disk.rename(path, &to).map_err(at("move to quarantine", path))?;
    Ok(to)
}

/// Makes the new names durable, then that the old ones are gone.
fn sync_folders<'a>(disk: &dyn Disk, paths: impl IntoIterator<Item = &'a Path>) -> Result<(), ArchiveError> {
    let from: BTreeSet<&Path> = paths.into_iter().filter_map(Path::parent).collect();
    if from.is_empty() {
        return Ok(());
    }
    for dir in std::iter::once(Path::new(FOLDER)).chain(from) {
        disk.sync_dir(dir).map_err(at("sync", dir))?;
    }
    Ok(())
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

/// The segment that a name in quarantine speaks of: `road-7-5.mp4`, `road-7-5.mp4~2`.
fn segment_of(name: &str) -> Option<SegmentId> {
    let (id, rest) = name.split_once(".mp4")?;
    let again = rest.strip_prefix('~').is_some_and(|n| super::ids::number(n).is_some());
    (rest.is_empty() || again).then(|| id.parse().ok()).flatten()
}

impl Archive {
    /// Q2: removes the oldest torn segments as far as they are too old or too much. `age` tells how old everything of a run
    /// is at least.
    pub(crate) fn expire_quarantine(
        &self,
        quota: &Quota,
        stock: &mut Stock,
        age: impl Fn(RunId) -> Duration,
    ) -> Result<(), ArchiveError> {
        let disk = self.inner.disk.as_ref();
        let folder = Path::new(FOLDER);
        let entries = disk.read_dir(folder).map_err(at("list", folder))?;
        stock.things = entries.len() as u64;
        let mut torn = Vec::new();
        for entry in entries.iter().filter(|e| !e.is_dir) {
            let Some(id) = segment_of(&entry.name) else { continue };
            let path = folder.join(&entry.name);
            let size = disk.size(&path).map_err(at("ask the size of", &path))?;
            torn.push((id.run, id, path, size.allocated));
        }
        torn.sort();
        stock.torn_bytes = torn.iter().map(|(.., allocated)| allocated).sum();
        let mut went = 0;
        for (run, id, path, allocated) in torn {
            let due = stock.torn_bytes > quota.max_bytes || age(run) > quota.max_age;
            if !due || self.inner.may_delete().is_err() || !self.inner.is_ours_and_free(&path, &id) {
                continue;
            }
            disk.remove_file(&path).map_err(at("remove", &path))?;
            log::info!("{} is torn and {} old or too much: removed", path.display(), age(run).as_secs());
            stock.torn_bytes -= allocated;
            stock.things -= 1;
            stock.expired += 1;
            went += 1;
        }
        if went > 0 {
            disk.sync_dir(folder).map_err(at("sync", folder))?;
        }
        self.inner.health(|h| h.quarantined = stock.things);
        Ok(())
    }
}

impl Inner {
    /// Q2, Q3: whether the header says what the name says, and nobody protects or protected it.
    fn is_ours_and_free(&self, path: &Path, id: &SegmentId) -> bool {
        let disk = self.disk.as_ref();
        let kept_here = Path::new(FOLDER).join(flat_name(&id.keep_path()));
        if taken(disk, &id.keep_path()) || taken(disk, &kept_here) {
            return false;
        }
        let Ok(file) = disk.open(path, OpenMode::Read) else { return false };
        let summary = Summary::read(&Stored(file.as_ref()));
        summary.is_ok_and(|summary| !summary.is_newer() && is_of(&summary.identity, id))
    }
}
