//! Removal of segments: on request, and what retention decided.
//!
//! Promises:
//! - D1: a protected or open segment is never removed; a pinned one only after its last pin is gone.
//! - D2: the gap is durable before the file goes, so that a power cut in between is finished at the next start: what was
//!   removed stays removed, and its time stays accounted for.
//! - D3: removing twice succeeds: the second time there is nothing left to do.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use super::disk::OpenMode;
use super::error::{ArchiveError, at};
use super::gaps::{Gap, GapCause, GapRecord, append_to_past};
use super::ids::SegmentId;
use super::run::read_whole;
use super::{Archive, Inner, Row, SegmentState, gaps, lock};

/// How long Remove waits for pins.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

impl Archive {
    /// Removes a segment for good. Waits up to 30 s for its pins. One that was removed before is no error.
    pub fn remove(&self, id: &SegmentId) -> Result<(), ArchiveError> {
        match self.remove_as(id, GapCause::Removed, PATIENCE) {
            Err(ArchiveError::NotFound(_)) if self.inner.was_removed(id) => Ok(()),
            other => other,
        }
    }

    /// Removes a segment and leaves a gap of this cause.
    pub(crate) fn remove_as(&self, id: &SegmentId, cause: GapCause, patience: Duration) -> Result<(), ArchiveError> {
        self.inner.may_delete()?;
        // Refused at once, without waiting for pins.
        removable(&self.lookup(id)?.row)?;
        let removing = self.inner.pins.begin_removal(id, patience)?;
        let _changes = lock(&self.inner.changes);
        let row = self.lookup(id)?.row;
        removable(&row)?;
        let gap = Gap { start: row.start, end: row.end, cause };
        let record = GapRecord::Gap { gap, seq: Some(id.seq) };
        self.inner.log_durably(id, record)?;
        // From here on it is gone, whatever happens to the file: the next start finishes what fails now.
        self.inner.catalog.replace(id, record)?;
        let path = id.media_path();
        self.inner.disk.remove_file(&path).map_err(at("remove", &path))?;
        let dir = SegmentId::run_dir(&id.lens, id.run);
        self.inner.disk.sync_dir(&dir).map_err(at("sync", &dir))?;
        drop(removing);
        Ok(())
    }

    /// Removes the folder of a past run of a lens in which nothing but accounts is left, if it is the lens's oldest: the
    /// horizon of what can be asked for moves on. Returns whether it did.
    pub(crate) fn remove_oldest_run_dir(&self, lens: &mos_hal::media::LensId) -> Result<bool, ArchiveError> {
        self.inner.may_delete()?;
        let _changes = lock(&self.inner.changes);
        let disk = self.inner.disk.as_ref();
        let above = Path::new("segments").join(lens.as_str());
        let names = disk.read_dir(&above).map_err(at("list", &above))?;
        let runs = names.iter().filter_map(|e| super::ids::number(&e.name));
        let Some(run) = runs.min().map(super::ids::RunId).filter(|run| *run < self.inner.run) else {
            return Ok(false);
        };
        if self.inner.catalog.has_segments(lens, run) {
            return Ok(false);
        }
        let dir = SegmentId::run_dir(lens, run);
        let ours = [gaps::FILE_NAME, super::clock_file::FILE_NAME];
        let left = disk.read_dir(&dir).map_err(at("list", &dir))?;
        if left.iter().any(|e| !ours.contains(&e.name.as_str())) {
            return Ok(false);
        }
        for entry in left {
            let path = dir.join(&entry.name);
            disk.remove_file(&path).map_err(at("remove", &path))?;
        }
        disk.sync_dir(&dir).map_err(at("sync", &dir))?;
        disk.remove_dir(&dir).map_err(at("remove", &dir))?;
        disk.sync_dir(&above).map_err(at("sync", &above))?;
        self.inner.catalog.forget_run(lens, run);
        Ok(true)
    }
}

fn removable(row: &Row) -> Result<(), ArchiveError> {
    if row.protected {
        return Err(ArchiveError::Protected(row.id.clone()));
    }
    match row.state {
        SegmentState::Open => Err(ArchiveError::StillOpen(row.id.clone())),
        SegmentState::Closed | SegmentState::Recovered | SegmentState::Newer => Ok(()),
    }
}

impl Inner {
    /// Nothing is deleted before everything is listed, nor while state beside the segments cannot be read.
    pub(crate) fn may_delete(&self) -> Result<(), ArchiveError> {
        self.wait_listed();
        match lock(&self.health).frozen.first() {
            Some(why) => Err(ArchiveError::Frozen(why.clone())),
            None => Ok(()),
        }
    }

    fn log_durably(&self, id: &SegmentId, record: GapRecord) -> Result<(), ArchiveError> {
        let disk = self.disk.as_ref();
        if id.run == self.run {
            self.lens_run(&id.lens)?.gaps.append_durable(disk, &self.dirty, &[record])
        } else {
            append_to_past(disk, &SegmentId::run_dir(&id.lens, id.run), &id.lens, &[record])
        }
    }

    /// Whether the log says that this segment was removed, and its file is gone.
    fn was_removed(&self, id: &SegmentId) -> bool {
        let log = SegmentId::run_dir(&id.lens, id.run).join(gaps::FILE_NAME);
        let Ok(bytes) = read_whole(self.disk.as_ref(), &log) else { return false };
        let decided = gaps::parse(&bytes).records.iter().any(|r| match r {
            GapRecord::Gap { gap, seq } => gap.cause == GapCause::Removed && *seq == Some(id.seq),
            _ => false,
        });
        let gone = |e: &std::io::Error| e.kind() == ErrorKind::NotFound;
        decided && self.disk.open(&id.media_path(), OpenMode::Read).is_err_and(|e| gone(&e))
    }
}
