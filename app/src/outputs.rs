//! Keeps clips and pictures, which anybody may make at any time, within their own quota and lifetime.
//!
//! Promises:
//! - O1: only files that MOS made in `clips/` and `snapshots/` go, never a segment, never a file of somebody else.
//! - O2: what an upload still needs stays, and of what is within its lifetime the newest stays.
//! - O3: files do not tell when they were made (the wall clock may have been wrong): what an earlier run made is as old as
//!   that run's end at least, what this run made counts from when it was first seen. Never shorter than the lifetime.
//! - O4: when the disk is short and no segment may go, they give way before recording stops, the oldest first, but not in
//!   their first ten minutes: whoever asked for one can fetch it.
//!
//! Called by [`crate::retention`], which decides when.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mos_hal::clock::{Clock, Mono};

use crate::archive::error::{ArchiveError, at};
use crate::archive::ids::RunId;
use crate::archive::{Archive, Quota};
use crate::clip::ClipId;
use crate::retention::age::Ages;
use crate::snapshot::SnapshotId;

/// The folders, relative to the archive's root.
const FOLDERS: [&str; 2] = ["clips", "snapshots"];
/// What is younger never gives way to a short disk.
const FETCH_WITHIN: Duration = Duration::from_mins(10);

/// What there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// Clips and snapshots.
    pub files: u64,
    /// Bytes of their allocated blocks.
    pub bytes: u64,
    /// Files removed in this run.
    pub removed: u64,
}

/// The keeper of both folders.
pub(crate) struct Outputs {
    archive: Archive,
    clock: Arc<dyn Clock>,
    quota: Quota,
    seen: HashMap<PathBuf, Mono>,
    stock: Stock,
}

/// A file that MOS made; the order is that of their making, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Output {
    /// Negative: the oldest first.
    age: std::cmp::Reverse<Duration>,
    run: u32,
    number: u32,
    path: PathBuf,
    allocated: u64,
}

impl Outputs {
    /// A keeper that has seen nothing yet.
    pub(crate) fn new(archive: Archive, clock: Arc<dyn Clock>, quota: Quota) -> Self {
        Self { archive, clock, quota, seen: HashMap::new(), stock: Stock::default() }
    }

    /// What there was after the last step.
    pub(crate) fn stock(&self) -> Stock {
        self.stock
    }

    /// Removes what is too old or too much, except the paths `in_use` (relative to the archive's root). Returns how many
    /// files went.
    pub(crate) fn step(&mut self, ages: &Ages, in_use: &BTreeSet<PathBuf>) -> Result<usize, ArchiveError> {
        let mut outputs = self.list(ages)?;
        let max_bytes = self.quota.max_bytes;
        let newest = outputs.pop();
        let gone = self.remove_some(&outputs, in_use, |stock, output, quota| {
            stock.bytes > max_bytes || output.age.0 >= quota.max_age
        })?;
        let newest = newest.filter(|newest| newest.age.0 >= self.quota.max_age);
        Ok(gone + self.remove_some(newest.as_slice(), in_use, |_, _, _| true)?)
    }

    /// Makes room for `bytes` on a short disk. Returns how many bytes went.
    pub(crate) fn give_way(
        &mut self,
        bytes: u64,
        ages: &Ages,
        in_use: &BTreeSet<PathBuf>,
    ) -> Result<u64, ArchiveError> {
        let outputs = self.list(ages)?;
        let all = self.stock.bytes;
        let enough = all.saturating_sub(bytes);
        self.remove_some(&outputs, in_use, |stock, output, _| stock.bytes > enough && output.age.0 >= FETCH_WITHIN)?;
        Ok(all - self.stock.bytes)
    }

    fn remove_some(
        &mut self,
        outputs: &[Output],
        in_use: &BTreeSet<PathBuf>,
        goes: impl Fn(&Stock, &Output, &Quota) -> bool,
    ) -> Result<usize, ArchiveError> {
        let before = self.stock.removed;
        for output in outputs {
            if goes(&self.stock, output, &self.quota) && !in_use.contains(&output.path) {
                self.remove(&output.path)?;
                self.stock.files -= 1;
                self.stock.bytes -= output.allocated;
                self.stock.removed += 1;
            }
        }
        Ok((self.stock.removed - before) as usize)
    }

    /// All of them, oldest first.
    fn list(&mut self, ages: &Ages) -> Result<Vec<Output>, ArchiveError> {
        let now = self.clock.mono();
        let disk = self.archive.disk();
        let mut outputs = Vec::new();
        let mut seen = HashMap::new();
        for folder in FOLDERS.map(Path::new) {
            for entry in disk.read_dir(folder).map_err(at("list", folder))? {
                let Some((run, number)) = made_by_us(&entry.name).filter(|_| !entry.is_dir) else { continue };
                let path = folder.join(&entry.name);
                let allocated = match disk.size(&path) {
                    Ok(size) => size.allocated,
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(at("ask the size of", &path)(e)),
                };
                let first = self.seen.get(&path).copied().unwrap_or(now);
                seen.insert(path.clone(), first);
                let held = Duration::from_nanos(u64::try_from(now.since(first)).unwrap_or(0));
                let of_run = if run < self.archive.run().0 { ages.of_all_in(RunId(run)) } else { Duration::ZERO };
                let age = std::cmp::Reverse(held.max(of_run));
                outputs.push(Output { age, run, number, path, allocated });
            }
        }
        outputs.sort();
        self.seen = seen;
        self.stock.files = outputs.len() as u64;
        self.stock.bytes = outputs.iter().map(|output| output.allocated).sum();
        Ok(outputs)
    }

    /// Not made durable at once: after a power cut the file may be back, and goes again.
    fn remove(&self, path: &Path) -> Result<(), ArchiveError> {
        match self.archive.disk().remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(at("remove", path)(e)),
            _ => Ok(()),
        }
    }
}

/// Run and number of a file that is complete and has the name that MOS gives.
fn made_by_us(name: &str) -> Option<(u32, u32)> {
    if let Some(id) = name.strip_suffix(".mp4").and_then(ClipId::parse) {
        return Some((id.run.0, id.number));
    }
    let id = SnapshotId::parse(name.strip_suffix(".jpg")?)?;
    Some((id.run.0, id.number))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mos_hal::clock::{BootId, SimClock, UtcMicros};

    use super::*;
    use crate::archive::ArchiveOptions;
    use crate::archive::disk::{Disk, RealDisk};
    use crate::retention::age::Trust;

    struct Rig {
        folder: tempfile::TempDir,
        clock: Arc<SimClock>,
        outputs: Outputs,
    }

    fn rig(quota: Quota) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(SimClock::new(BootId([1; 16]), UtcMicros(0)));
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(folder.path()).unwrap());
        let archive = Archive::open(disk, clock.clone(), &ArchiveOptions::default()).unwrap();
        let outputs = Outputs::new(archive, clock.clone(), quota);
        Rig { folder, clock, outputs }
    }

    impl Rig {
        fn step(&mut self, in_use: &BTreeSet<PathBuf>) -> usize {
            self.outputs.step(&self.ages(), in_use).unwrap()
        }

        fn ages(&self) -> Ages {
            let archive = &self.outputs.archive;
            let runs = archive.catalog().runs();
            Ages::new(&runs, archive.mapping(), archive.boot(), self.clock.mono(), &mut Trust::default())
        }

        fn put(&self, path: &str) {
            std::fs::write(self.folder.path().join(path), vec![1; 8192]).unwrap();
        }

        fn left(&self) -> BTreeSet<String> {
            let names = |folder: &str| {
                let entries = std::fs::read_dir(self.folder.path().join(folder)).unwrap();
                entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
            };
            FOLDERS.iter().flat_map(|folder| names(folder)).collect()
        }
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_oldest_go_when_it_is_too_much_but_none_in_use_and_no_strangers() {
        let mut rig = rig(Quota { max_bytes: 2 * 8192, max_age: Duration::from_hours(1) });
        for path in ["clips/clip-2-1.mp4", "clips/clip-1-7.mp4", "clips/clip-1-10.mp4", "snapshots/snapshot-3-1.jpg"] {
            rig.put(path);
        }
        for stranger in ["clips/mine.mp4", "clips/.clip-1-1.mp4.part", "snapshots/clip-1-01.mp4"] {
            rig.put(stranger);
        }
        let in_use = BTreeSet::from([PathBuf::from("clips/clip-1-7.mp4")]);
        assert_eq!(rig.step(&in_use), 2);
        let strangers = ["mine.mp4", ".clip-1-1.mp4.part", "clip-1-01.mp4"];
        let expected: Vec<&str> = strangers.iter().copied().chain(["clip-1-7.mp4", "snapshot-3-1.jpg"]).collect();
        assert_eq!(rig.left(), set(&expected));
    }

    #[test]
    fn each_goes_when_its_time_is_over() {
        let mut rig = rig(Quota { max_bytes: u64::MAX, max_age: Duration::from_secs(10) });
        rig.put("clips/clip-1-1.mp4");
        rig.step(&BTreeSet::new());
        rig.clock.advance(Duration::from_secs(6));
        rig.put("snapshots/snapshot-1-1.jpg");
        rig.step(&BTreeSet::new());
        rig.clock.advance(Duration::from_secs(4));
        rig.step(&BTreeSet::new());
        assert_eq!(rig.left(), set(&["snapshot-1-1.jpg"]));
        rig.clock.advance(Duration::from_secs(6));
        assert_eq!(rig.step(&BTreeSet::new()), 1);
        assert!(rig.left().is_empty());
    }

    #[test]
    fn o4_on_a_short_disk_the_oldest_give_way_but_none_that_was_just_made_or_is_in_use() {
        let mut rig = rig(Quota::default());
        for path in ["clips/clip-1-1.mp4", "clips/clip-1-2.mp4", "clips/clip-1-3.mp4"] {
            rig.put(path);
        }
        rig.step(&BTreeSet::new());
        rig.clock.advance(FETCH_WITHIN);
        rig.put("snapshots/snapshot-1-1.jpg");
        let in_use = BTreeSet::from([PathBuf::from("clips/clip-1-1.mp4")]);
        let ages = rig.ages();
        assert_eq!(rig.outputs.give_way(1, &ages, &in_use).unwrap(), 8192);
        assert_eq!(rig.left(), set(&["clip-1-1.mp4", "clip-1-3.mp4", "snapshot-1-1.jpg"]));
        assert_eq!(rig.outputs.give_way(1 << 20, &ages, &in_use).unwrap(), 8192);
        assert_eq!(rig.left(), set(&["clip-1-1.mp4", "snapshot-1-1.jpg"]));
        assert_eq!(rig.outputs.stock(), Stock { files: 2, bytes: 2 * 8192, removed: 2 });
    }

    #[test]
    fn the_newest_stays_even_if_it_alone_is_too_much() {
        let mut rig = rig(Quota { max_bytes: 1, max_age: Duration::from_hours(1) });
        rig.put("clips/clip-1-1.mp4");
        rig.put("clips/clip-1-2.mp4");
        rig.step(&BTreeSet::new());
        assert_eq!(rig.left(), set(&["clip-1-2.mp4"]));
    }
}
