//! The archive: the only room that creates, renames or deletes media.
//!
//! The files are the truth (see DESIGN, "The archive"). [`Archive`] is the shared handle: the recorder begins segments
//! and commits ticks, the API asks the catalog, protects, removes and reads. Opening is fast; recovery and the index
//! load beside a live capture.

mod beside;
pub mod catalog;
pub mod check;
pub mod clock_file;
pub mod disk;
pub mod error;
pub mod gaps;
pub mod ids;
mod keep;
pub(crate) mod line;
mod listing;
mod load;
pub mod paths;
pub mod pins;
pub mod quarantine;
pub mod quota;
mod reach;
mod recover;
mod remove;
mod reserve;
pub(crate) mod run;
pub mod segment;
pub mod sync;
mod tail;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod way;
mod yielding;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use mos_hal::clock::{BootId, Clock};
use mos_hal::media::LensId;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::beside::Beside;
pub(crate) use self::catalog::RunSpan;
pub use self::catalog::{Catalog, Counts, GapRow, LensRoom, Row, SegmentRow, SegmentState, Window};
pub use self::clock_file::Mapping;
pub use self::error::ArchiveError;
pub use self::gaps::{Gap, GapCause};
pub use self::keep::{KeepNote, Kept};
pub use self::load::Health;
pub use self::pins::{Pin, Pins};
pub use self::quota::Quota;
pub(crate) use self::recover::Stored;
pub use self::segment::{NewSegment, OpenSegment, Progress, SegmentHeader, SegmentIdentity};
pub use self::sync::TickReport;

use self::catalog::RunInfo;
use self::clock_file::RunClock;
use self::disk::{Disk, DiskFile, OpenMode, Space};
use self::error::at;
use self::gaps::{GapLog, GapRecord};
use self::ids::{RunId, SegmentId};
use self::run::{LensRun, folders_above};
use self::sync::{Dirty, SyncPool};
use self::yielding::Yielding;

/// Folders under the archive's root.
pub(crate) const FOLDERS: [&str; 5] = ["segments", "clips", "snapshots", "quarantine", "index"];

/// How to open an archive.
#[derive(Clone, Debug)]
pub struct ArchiveOptions {
    /// Threads that sync in parallel; 0 syncs in the caller's thread, in order (simulated disks).
    pub sync_threads: usize,
    /// Threads that look at files when the index has to be rebuilt.
    pub load_threads: usize,
    /// Most bytes of allocated blocks that protected segments may take.
    pub protected_max_bytes: u64,
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        Self { sync_threads: 8, load_threads: 2, protected_max_bytes: u64::MAX }
    }
}

/// The archive's shared handle.
#[derive(Clone)]
pub struct Archive {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) run: RunId,
    pub(crate) boot: BootId,
    pub(crate) dirty: Dirty,
    pool: SyncPool,
    load_threads: usize,
    lenses: Mutex<BTreeMap<LensId, Arc<LensRun>>>,
    /// The run's mapping with its revision, from 1.
    mapping: Mutex<(Mapping, u32)>,
    pub(crate) catalog: Catalog,
    pub(crate) pins: Pins,
    /// Serialises keep, unkeep, remove and retention.
    pub(crate) changes: Mutex<()>,
    protected_max_bytes: u64,
    yielding: Mutex<Option<Yielding>>,
    health: Mutex<Health>,
    health_changed: Condvar,
    noted: reach::Noted,
    /// A folder of this run that somebody took away.
    vanished: OnceLock<PathBuf>,
}

/// A stored segment opened for reading; its file stays as long as this lives.
pub struct SegmentReader {
    /// The row as it was at opening.
    pub segment: SegmentRow,
    /// The file.
    pub file: Arc<dyn DiskFile>,
    /// Bytes that may be read: all of a closed file, of an open one up to its last durable fragment.
    pub readable: u64,
    _pin: Pin,
}

/// The gap log of one lens in the present run.
#[derive(Clone)]
pub struct LensGaps {
    inner: Arc<Inner>,
    lens_run: Arc<LensRun>,
}

impl LensGaps {
    /// Notes an absence; listed at once, durable with the next group commit.
    pub fn append(&self, gap: Gap) {
        if gap.end <= gap.start {
            return;
        }
        self.record(GapRecord::Gap { gap, seq: None });
    }

    /// Notes that the recorder stopped this lens in order; what follows until the next run is `stopped`.
    pub fn stop(&self, at: mos_hal::clock::Mono) {
        self.record(GapRecord::Stop { at });
    }

    fn record(&self, record: GapRecord) {
        self.lens_run.gaps.append(&self.inner.dirty, record);
        self.inner.catalog.note(&self.lens_run.lens, self.lens_run.run, record);
    }
}

impl Archive {
    /// Opens the archive and begins a run: folders and run number, nothing else. Listing and recovery of what earlier
    /// runs left is [`Archive::load`], to be run beside the capture.
    pub fn open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, options: &ArchiveOptions) -> Result<Self, ArchiveError> {
        for folder in FOLDERS {
            let folder = Path::new(folder);
            way::folder(disk.as_ref(), folder).map_err(at("create", folder))?;
        }
        let boot = clock.boot_id();
        let mapping = Mapping { mono: clock.mono(), utc: clock.utc(), quality: clock.quality() };
        let run = run::begin_run(disk.as_ref(), boot, mapping)?;
        let catalog = Catalog::new()?;
        catalog.map_run(run, RunInfo { boot: Some(boot), mapping: Some(mapping) });
        let inner = Inner {
            disk,
            clock,
            run,
            boot,
            dirty: Dirty::default(),
            pool: SyncPool::new(options.sync_threads),
            load_threads: options.load_threads,
            lenses: Mutex::default(),
            mapping: Mutex::new((mapping, 1)),
            catalog,
            pins: Pins::default(),
            changes: Mutex::default(),
            protected_max_bytes: options.protected_max_bytes,
            yielding: Mutex::default(),
            health: Mutex::default(),
            health_changed: Condvar::new(),
            noted: reach::Noted::default(),
            vanished: OnceLock::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The present run.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.inner.run
    }

    /// The folder of this run that somebody took away, if one did. Nothing more can be recorded into it; a new run makes a new
    /// one, and finds out what else is gone.
    #[must_use]
    pub fn vanished(&self) -> Option<&Path> {
        self.inner.vanished.get().map(PathBuf::as_path)
    }

    /// The present boot.
    pub(crate) fn boot(&self) -> BootId {
        self.inner.boot
    }

    /// Lenses that have a folder.
    pub(crate) fn lens_folders(&self) -> Result<Vec<LensId>, ArchiveError> {
        let segments = Path::new("segments");
        let names = self.inner.disk.read_dir(segments).map_err(at("list", segments))?;
        Ok(names.iter().filter(|e| e.is_dir).filter_map(|e| LensId::new(&e.name).ok()).collect())
    }

    /// Lenses of the present run, each with the number that its next segment gets.
    pub(crate) fn next_numbers(&self) -> Vec<(LensId, u32)> {
        lock(&self.inner.lenses).iter().map(|(lens, run)| (lens.clone(), run.numbers())).collect()
    }

    /// Whether anything may be deleted. Waits until everything is listed.
    pub(crate) fn may_delete(&self) -> Result<(), ArchiveError> {
        self.inner.may_delete()
    }

    /// Makes everything written since the last call durable; see [`sync`]. Called by one thread, once a tick.
    pub fn commit(&self) -> TickReport {
        let inner = &self.inner;
        let (disk, dirty) = (inner.disk.as_ref(), &inner.dirty);
        let lenses: Vec<Arc<LensRun>> = lock(&inner.lenses).values().cloned().collect();
        let (mapping, revision) = *lock(&inner.mapping);
        let clock = RunClock { run: inner.run, boot: inner.boot, mapping, revision };
        for lens in &lenses {
            if let Err(error) = lens.clock.before_sync(disk, dirty, &clock) {
                log::warn!("cannot write the clock file of {}: {error}", lens.lens);
            }
        }
        let mut report = dirty.commit(&inner.disk, &inner.pool, inner.clock.as_ref());
        let begin = inner.clock.mono();
        // One a tick: lenses that lose pictures alike are due in the same one.
        let mut compacted = false;
        for lens in &lenses {
            compacted |= lens.gaps.after_sync(disk, dirty, &report, !compacted);
            if let Err(error) = lens.clock.after_sync(disk, dirty, &report) {
                log::warn!("cannot replace the clock file of {}: {error}", lens.lens);
            }
        }
        if compacted {
            report.duration += Duration::from_nanos(inner.clock.mono().since(begin).unsigned_abs());
        }
        report
    }

    /// Commits until nothing is left to be made durable; for an orderly stop. Gives up when the disk keeps failing.
    pub fn flush(&self) {
        for _ in 0..4 {
            self.commit();
            if self.inner.dirty.is_clean() {
                return;
            }
        }
    }

    /// The gap log of a lens.
    pub fn gaps(&self, lens: &LensId) -> Result<LensGaps, ArchiveError> {
        Ok(LensGaps { lens_run: self.inner.lens_run(lens)?, inner: self.inner.clone() })
    }

    /// The run's present mapping to UTC.
    #[must_use]
    pub fn mapping(&self) -> Mapping {
        self.inner.mapping()
    }

    /// Corrects the mapping of the whole run; listed at once, durable with the next group commits.
    pub fn set_mapping(&self, mapping: Mapping) {
        let mut current = lock(&self.inner.mapping);
        if current.0 == mapping {
            return;
        }
        *current = (mapping, current.1 + 1);
        drop(current);
        let info = RunInfo { boot: Some(self.inner.boot), mapping: Some(mapping) };
        self.inner.catalog.map_run(self.inner.run, info);
    }

    /// What is stored.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// What is in use.
    #[must_use]
    pub fn pins(&self) -> &Pins {
        &self.inner.pins
    }

    /// The clocks that it was opened with.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// The disk, for `clips/` and `snapshots/`.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.inner.disk
    }

    /// Room on the file system.
    pub fn space(&self) -> Result<Space, ArchiveError> {
        self.inner.disk.space().map_err(at("ask the room of", Path::new("")))
    }

    /// Holds blocks in reserve for a full disk, if `free` bytes allow it; see [`reserve`].
    pub(crate) fn lay_in_reserve(&self, free: u64) {
        reserve::lay_in(self.inner.disk.as_ref(), free);
    }

    /// Reads a note in the archive's root; `None` if there is none, or it is torn.
    pub(crate) fn read_note<T: DeserializeOwned>(&self, path: &Path) -> Option<T> {
        line::unseal(&run::read_whole(self.inner.disk.as_ref(), path).ok()?)
    }

    /// Replaces a note in the archive's root; durable on return.
    pub(crate) fn write_note<T: Serialize>(&self, path: &Path, note: &T) -> Result<(), ArchiveError> {
        let text = line::seal(note) + "\n";
        run::write_whole(self.inner.disk.as_ref(), &path.with_extension("tmp"), path, text.as_bytes())
    }

    /// Whether there is a note, readable or not.
    pub(crate) fn has_note(&self, path: &Path) -> bool {
        self.inner.disk.size(path).is_ok()
    }

    /// Renames a note that cannot be read to `….broken`, so that it is not overwritten; durable on return.
    pub(crate) fn set_note_aside(&self, path: &Path) -> Result<(), ArchiveError> {
        let aside = path.with_extension("broken");
        self.inner.disk.rename(path, &aside).map_err(at("rename", path))?;
        self.inner.disk.sync_dir(Path::new("")).map_err(at("sync", Path::new("")))
    }

    /// Removes from `clips/` or `snapshots/` what was being written when an earlier run ended.
    pub(crate) fn sweep(&self, folder: &Path, is_unfinished: fn(&str) -> bool) -> Result<(), ArchiveError> {
        let disk = self.inner.disk.as_ref();
        for entry in disk.read_dir(folder).map_err(at("list", folder))? {
            if !entry.is_dir && is_unfinished(&entry.name) {
                let path = folder.join(&entry.name);
                disk.remove_file(&path).map_err(at("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Most bytes that protected segments may take.
    #[must_use]
    pub fn protected_max_bytes(&self) -> u64 {
        self.inner.protected_max_bytes
    }

    /// A segment by its id.
    pub fn lookup(&self, id: &SegmentId) -> Result<SegmentRow, ArchiveError> {
        // Asked first: what is complete now stays so.
        let complete = self.health().loaded || id.run >= self.inner.run;
        let missing = if complete { ArchiveError::NotFound } else { ArchiveError::StillListing };
        self.inner.catalog.get(id).ok_or_else(|| missing(id.clone()))
    }

    /// Opens a segment's file and pins it.
    pub fn open_for_read(&self, id: &SegmentId) -> Result<SegmentReader, ArchiveError> {
        let pin = self.inner.pins.pin(id)?;
        let segment = self.lookup(id)?;
        let path = id.media_path();
        let file = self.inner.disk.open(&path, OpenMode::Read).map_err(at("open", &path))?;
        let readable = segment.row.bytes;
        Ok(SegmentReader { segment, file, readable, _pin: pin })
    }
}

impl Inner {
    pub(crate) fn mapping(&self) -> Mapping {
        lock(&self.mapping).0
    }

    /// The lens's folder in this run; made on first use.
    pub(crate) fn lens_run(&self, lens: &LensId) -> Result<Arc<LensRun>, ArchiveError> {
        let mut lenses = lock(&self.lenses);
        if let Some(lens_run) = lenses.get(lens) {
            return Ok(lens_run.clone());
        }
        let dir = SegmentId::run_dir(lens, self.run);
        let folders = folders_above(&dir);
        for folder in &folders[1..] {
            self.disk.create_dir(folder).map_err(at("create", folder))?;
        }
        for folder in folders {
            self.dirty.dir(folder);
        }
        let gaps = GapLog::create(self.disk.as_ref(), &self.dirty, &dir, lens)?;
        let lens_run = Arc::new(LensRun::new(lens.clone(), self.run, gaps));
        lenses.insert(lens.clone(), lens_run.clone());
        Ok(lens_run)
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
