//! Removal of segments: on request, and what retention decided.
//!
//! Promises:
//! - D1: a protected or open segment is never removed; a pinned one only after its last pin is gone.
//! - D2: the gap is durable before the file goes, so that a power cut in between is finished at the next start: what was
//!   removed stays removed, and its time stays accounted for.
//! - D3: removing twice succeeds: the second time there is nothing left to do.
//! - D4: a full disk does not keep anything from being removed (see [`super::reserve`]). Where not even a reserve is left,
//!   what retention removes goes before its account: better an absence that may have lost its cause, if the power fails in
//!   that moment, than a recorder that never has room again.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use mos_hal::media::LensId;

use super::disk::OpenMode;
use super::error::{ArchiveError, at};
use super::gaps::{Gap, GapCause, GapRecord, append_to_past};
use super::ids::{RunId, SegmentId};
use super::run::read_whole;
use super::{Archive, Inner, Row, SegmentState, gaps, lock, reserve};

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
        let done = self.inner.drop_rows(std::slice::from_ref(&row), cause);
        drop(removing);
        done
    }

    /// Removes those of the given segments, all of one lens and run, that nobody protects or uses at this moment, with one
    /// account for all. Returns them.
    pub(crate) fn expire(&self, ids: &[SegmentId]) -> Result<Vec<Row>, ArchiveError> {
        self.inner.may_delete()?;
        let removing: Vec<_> =
            ids.iter().filter_map(|id| self.inner.pins.begin_removal(id, Duration::ZERO).ok()).collect();
        let _changes = lock(&self.inner.changes);
        let rows = removing.iter().filter_map(|r| Some(self.lookup(r.id()).ok()?.row));
        let rows: Vec<Row> = rows.filter(|row| removable(row).is_ok()).collect();
        let done = self.inner.drop_rows(&rows, GapCause::Retention);
        drop(removing);
        done.map(|()| rows)
    }

    /// Removes the folder of a past run of a lens in which nothing but accounts is left, if it is the lens's oldest: the
    /// horizon of what can be asked for moves on. With its last one goes the folder of a lens that this run does not
    /// record. Returns whether there was one.
    pub(crate) fn remove_oldest_run_dir(&self, lens: &LensId) -> Result<bool, ArchiveError> {
        self.inner.may_delete()?;
        self.remove_run_dir(lens, &[gaps::FILE_NAME, super::clock_file::FILE_NAME])
    }

    /// Finishes what [`Archive::remove_oldest_run_dir`] had begun when the power went: the accounts are gone already.
    pub(crate) fn finish_run_dirs(&self) -> Result<(), ArchiveError> {
        self.inner.may_delete()?;
        for lens in self.lens_folders()? {
            while self.remove_run_dir(&lens, &[super::clock_file::FILE_NAME])? {}
        }
        Ok(())
    }

    /// Removes the folder of the lens's oldest run if it is past and holds nothing but these.
    fn remove_run_dir(&self, lens: &LensId, ours: &[&str]) -> Result<bool, ArchiveError> {
        let _changes = lock(&self.inner.changes);
        let disk = self.inner.disk.as_ref();
        let above = Path::new("segments").join(lens.as_str());
        let names = match disk.read_dir(&above) {
            Err(e) if gone(&e) => return Ok(false),
            other => other.map_err(at("list", &above))?,
        };
        if names.is_empty() {
            self.remove_lens_dir(lens, &above)?;
        }
        let runs = names.iter().filter_map(|e| super::ids::number(&e.name));
        let Some(run) = runs.min().map(RunId).filter(|run| *run < self.inner.run) else {
            return Ok(false);
        };
        if self.inner.catalog.has_segments(lens, run) {
            return Ok(false);
        }
        let dir = SegmentId::run_dir(lens, run);
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
        self.inner.noted.forget_runs();
        if names.len() == 1 {
            self.remove_lens_dir(lens, &above)?;
        }
        Ok(true)
    }

    /// Removes the empty folder of a lens that this run does not record.
    fn remove_lens_dir(&self, lens: &LensId, dir: &Path) -> Result<(), ArchiveError> {
        // Held so that the recorder does not begin with the lens in between.
        let lenses = lock(&self.inner.lenses);
        if !lenses.contains_key(lens) {
            self.inner.disk.remove_dir(dir).map_err(at("remove", dir))?;
            let segments = Path::new("segments");
            self.inner.disk.sync_dir(segments).map_err(at("sync", segments))?;
        }
        drop(lenses);
        Ok(())
    }
}

fn removable(row: &Row) -> Result<(), ArchiveError> {
    if row.protected {
        return Err(ArchiveError::Protected(row.id.clone()));
    }
    match row.state {
        SegmentState::Open => Err(ArchiveError::StillOpen(row.id.clone())),
        SegmentState::Unfinished => Err(ArchiveError::Unfinished(row.id.clone())),
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

    /// Accounts for the removal of these segments of one lens and run, durably, then removes their files.
    fn drop_rows(&self, rows: &[Row], cause: GapCause) -> Result<(), ArchiveError> {
        let Some(SegmentId { lens, run, .. }) = rows.first().map(|row| &row.id) else { return Ok(()) };
        let gap = |row: &Row| Gap { start: row.start, end: row.end, cause };
        let record = |row: &Row| GapRecord::Gap { gap: gap(row), seq: Some(row.id.seq) };
        let records: Vec<GapRecord> = rows.iter().map(record).collect();
        let logged = reserve::with(self.disk.as_ref(), || self.log_durably(lens, *run, &records));
        let logged = match logged {
            Err(error) if error.is_disk_full() && cause == GapCause::Retention => {
                log::warn!("there is no block for the account of {}: it goes before that", rows[0].id);
                self.remove_media(&rows[..1])?;
                self.catalog.replace(&rows[0].id, records[0])?;
                self.log_durably(lens, *run, &records)
            }
            other => other,
        };
        logged?;
        // From here on they are gone, whatever happens to the files: the next start finishes what fails now.
        for (row, record) in rows.iter().zip(&records) {
            self.catalog.replace(&row.id, *record)?;
        }
        self.remove_media(rows)
    }

    /// Removes the files of these segments of one lens and run, durably. One that is gone is no error.
    fn remove_media(&self, rows: &[Row]) -> Result<(), ArchiveError> {
        let mut done = Ok(());
        for row in rows {
            let path = row.id.media_path();
            let removed = self.disk.remove_file(&path).or_else(|e| gone(&e).then_some(()).ok_or(e));
            done = done.and(removed.map_err(at("remove", &path)));
        }
        let Some(id) = rows.first().map(|row| &row.id) else { return done };
        let dir = SegmentId::run_dir(&id.lens, id.run);
        done.and(self.disk.sync_dir(&dir).map_err(at("sync", &dir)))
    }

    fn log_durably(&self, lens: &LensId, run: RunId, records: &[GapRecord]) -> Result<(), ArchiveError> {
        let disk = self.disk.as_ref();
        if run == self.run {
            self.lens_run(lens)?.gaps.append_durable(disk, &self.dirty, records)
        } else {
            append_to_past(disk, &SegmentId::run_dir(lens, run), lens, records)
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
        decided && self.disk.open(&id.media_path(), OpenMode::Read).is_err_and(|e| gone(&e))
    }
}

fn gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}
