//! Removal of a segment on request.
//!
//! Promises:
//! - D1: a protected or open segment is never removed; a pinned one only after its last pin is gone.
//! - D2: the `removed` gap is durable before the file goes, so that a power cut in between is finished at the next start
//!   and what was removed stays removed.
//! - D3: removing twice succeeds.

use std::time::Duration;

use super::error::{ArchiveError, at};
use super::gaps::{Gap, GapCause, GapRecord};
use super::ids::SegmentId;
use super::{Archive, SegmentState, lock};

/// How long Remove waits for pins.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

impl Archive {
    /// Removes a segment for good. Waits up to [`PATIENCE`] for its pins.
    pub fn remove(&self, id: &SegmentId) -> Result<(), ArchiveError> {
        let removing = self.inner.pins.begin_removal(id, PATIENCE)?;
        let _changes = lock(&self.inner.changes);
        let row = self.lookup(id)?.row;
        if row.protected {
            return Err(ArchiveError::Protected(id.clone()));
        }
        if row.state == SegmentState::Open {
            return Err(ArchiveError::StillOpen(id.clone()));
        }
        let gap = Gap { start: row.start, end: row.end, cause: GapCause::Removed };
        let lens_run = self.inner.lens_run(&id.lens)?;
        lens_run.gaps.append_durable(&self.inner.dirty, GapRecord::Gap { gap, seq: Some(id.seq) })?;
        let path = id.media_path();
        self.inner.disk.remove_file(&path).map_err(at("remove", &path))?;
        let dir = SegmentId::run_dir(&id.lens, id.run);
        self.inner.disk.sync_dir(&dir).map_err(at("sync", &dir))?;
        self.inner.catalog.remove(id);
        self.inner.catalog.add_gap(&id.lens, id.run, gap);
        drop(removing);
        Ok(())
    }
}
