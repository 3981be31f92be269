//! Keeps clips and pictures, which anybody may make at any time, within their own quota and lifetime.
//!
//! Promises: only files that MOS made in `clips/` and `snapshots/` go, never a segment, never a file of somebody else; what
//! an upload still needs stays, and so does the newest. Files do not tell when they were made (the wall clock may have been
//! wrong): their age counts from when this run first saw them, so a restart makes them live longer, never shorter.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mos_hal::clock::{Clock, Mono};

use crate::archive::Archive;
use crate::archive::error::{ArchiveError, at};
use crate::clip::ClipId;
use crate::snapshot::SnapshotId;

/// The folders, relative to the archive's root.
const FOLDERS: [&str; 2] = ["clips", "snapshots"];

/// How much may stay, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of allocated blocks of clips and pictures together.
    pub max_bytes: u64,
    /// How long each is held.
    pub max_age: Duration,
}

/// The keeper of both folders. Call [`Outputs::step`] now and then, from a thread that may wait for the disk.
pub struct Outputs {
    archive: Archive,
    clock: Arc<dyn Clock>,
    limits: Limits,
    seen: HashMap<PathBuf, Mono>,
}

/// A file that MOS made; the order is that of their making, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Output {
    seen: Mono,
    run: u32,
    number: u32,
    path: PathBuf,
    allocated: u64,
}

impl Outputs {
    /// A keeper that has seen nothing yet.
    #[must_use]
    pub fn new(archive: Archive, clock: Arc<dyn Clock>, limits: Limits) -> Self {
        Self { archive, clock, limits, seen: HashMap::new() }
    }

    /// Removes what is too old or too much, except the paths `in_use` (relative to the archive's root). Returns how many
    /// files went.
    pub fn step(&mut self, in_use: &BTreeSet<PathBuf>) -> Result<usize, ArchiveError> {
        let now = self.clock.mono();
        let mut outputs = self.list(now)?;
        outputs.sort();
        self.seen = outputs.iter().map(|output| (output.path.clone(), output.seen)).collect();
        let mut bytes: u64 = outputs.iter().map(|output| output.allocated).sum();
        let newest = outputs.pop();
        let age = i64::try_from(self.limits.max_age.as_nanos()).unwrap_or(i64::MAX);
        let old = |output: &Output| now.since(output.seen) >= age;
        let mut gone = 0;
        for output in &outputs {
            if (bytes > self.limits.max_bytes || old(output)) && !in_use.contains(&output.path) {
                self.remove(&output.path)?;
                bytes -= output.allocated;
                gone += 1;
            }
        }
        if let Some(newest) = newest.filter(|newest| old(newest) && !in_use.contains(&newest.path)) {
            self.remove(&newest.path)?;
            gone += 1;
        }
        Ok(gone)
    }

    fn list(&self, now: Mono) -> Result<Vec<Output>, ArchiveError> {
        let disk = self.archive.disk();
        let mut outputs = Vec::new();
        for folder in FOLDERS.map(Path::new) {
            for entry in disk.read_dir(folder).map_err(at("list", folder))? {
                let Some((run, number)) = made_by_us(&entry.name).filter(|_| !entry.is_dir) else { continue };
                let path = folder.join(&entry.name);
                let allocated = match disk.size(&path) {
                    Ok(size) => size.allocated,
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(at("ask the size of", &path)(e)),
                };
                let seen = self.seen.get(&path).copied().unwrap_or(now);
                outputs.push(Output { seen, run, number, path, allocated });
            }
        }
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

    struct Rig {
        folder: tempfile::TempDir,
        clock: Arc<SimClock>,
        outputs: Outputs,
    }

    fn rig(limits: Limits) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(SimClock::new(BootId([1; 16]), UtcMicros(0)));
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(folder.path()).unwrap());
        let archive = Archive::open(disk, clock.clone(), &ArchiveOptions::default()).unwrap();
        let outputs = Outputs::new(archive, clock.clone(), limits);
        Rig { folder, clock, outputs }
    }

    impl Rig {
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
        let mut rig = rig(Limits { max_bytes: 2 * 8192, max_age: Duration::from_hours(1) });
        for path in ["clips/clip-2-1.mp4", "clips/clip-1-7.mp4", "clips/clip-1-10.mp4", "snapshots/snapshot-3-1.jpg"] {
            rig.put(path);
        }
        for stranger in ["clips/mine.mp4", "clips/.clip-1-1.mp4.part", "snapshots/clip-1-01.mp4"] {
            rig.put(stranger);
        }
        let in_use = BTreeSet::from([PathBuf::from("clips/clip-1-7.mp4")]);
        assert_eq!(rig.outputs.step(&in_use).unwrap(), 2);
        let strangers = ["mine.mp4", ".clip-1-1.mp4.part", "clip-1-01.mp4"];
        let expected: Vec<&str> = strangers.iter().copied().chain(["clip-1-7.mp4", "snapshot-3-1.jpg"]).collect();
        assert_eq!(rig.left(), set(&expected));
    }

    #[test]
    fn each_goes_when_its_time_is_over() {
        let mut rig = rig(Limits { max_bytes: u64::MAX, max_age: Duration::from_secs(10) });
        rig.put("clips/clip-1-1.mp4");
        rig.outputs.step(&BTreeSet::new()).unwrap();
        rig.clock.advance(Duration::from_secs(6));
        rig.put("snapshots/snapshot-1-1.jpg");
        rig.outputs.step(&BTreeSet::new()).unwrap();
        rig.clock.advance(Duration::from_secs(4));
        rig.outputs.step(&BTreeSet::new()).unwrap();
        assert_eq!(rig.left(), set(&["snapshot-1-1.jpg"]));
        rig.clock.advance(Duration::from_secs(6));
        assert_eq!(rig.outputs.step(&BTreeSet::new()).unwrap(), 1);
        assert!(rig.left().is_empty());
    }

    #[test]
    fn the_newest_stays_even_if_it_alone_is_too_much() {
        let mut rig = rig(Limits { max_bytes: 1, max_age: Duration::from_hours(1) });
        rig.put("clips/clip-1-1.mp4");
        rig.put("clips/clip-1-2.mp4");
        rig.outputs.step(&BTreeSet::new()).unwrap();
        assert_eq!(rig.left(), set(&["clip-1-2.mp4"]));
    }
}
