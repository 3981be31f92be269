//! Protection: `{seq}.keep` beside a segment says who wants it kept, when and why.
//!
//! Promises:
//! - E1: when Protect or Unprotect has answered, it survives a power cut.
//! - E2: both are idempotent; repeating a Protect changes nothing.
//! - E3: the mere presence of the file protects: damage to its text never lifts a protection.
//! - E4: Protect never answers yes when the protected segments would take more than their quota; it fails loudly and
//!   changes nothing. A quota that was lowered lifts no protection.
//! - E5: Protect works on a full disk, from the blocks that are held in reserve.

use std::path::PathBuf;

use mos_hal::clock::UtcMicros;
use serde::{Deserialize, Serialize};

use super::error::{ArchiveError, at};
use super::ids::SegmentId;
use super::run::{read_whole, write_whole};
use super::{Archive, line, lock, reserve};

/// Who protects and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepNote {
    /// User, service or `anonymous`.
    pub who: String,
    /// Reason as given; may be empty.
    pub why: String,
}

/// A protection as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Who asked for it.
    pub who: String,
    /// When it was given, UTC microseconds as then known.
    pub when_ts: i64,
    /// Why.
    pub why: String,
}

impl Archive {
    /// Protects a segment, open ones too. An existing protection stays as it is and is returned.
    pub fn keep(&self, id: &SegmentId, note: &KeepNote) -> Result<Kept, ArchiveError> {
        let _changes = lock(&self.inner.changes);
        let row = self.lookup(id)?;
        if row.row.protected {
            return Ok(self.read_keep(id));
        }
        let quota = self.inner.protected_max_bytes;
        let (used, more) = self.inner.catalog.protected_with(id);
        if used.saturating_add(more) > quota {
            return Err(ArchiveError::ProtectedQuota { id: id.clone(), used, more, quota });
        }
        let UtcMicros(when_ts) = self.inner.clock.utc();
        let kept = Kept { who: note.who.clone(), when_ts, why: note.why.clone() };
        let mut text = line::seal(&kept);
        text.push('\n');
        let disk = self.inner.disk.as_ref();
        reserve::with(disk, || write_whole(disk, &tmp_path(id), &id.keep_path(), text.as_bytes()))?;
        self.inner.catalog.set_protected(id, true)?;
        Ok(kept)
    }

    /// Lifts a protection; one that is not there is no error.
    pub fn unkeep(&self, id: &SegmentId) -> Result<(), ArchiveError> {
        let _changes = lock(&self.inner.changes);
        let row = self.lookup(id)?;
        let path = id.keep_path();
        match self.inner.disk.remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !row.row.protected => return Ok(()),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(at("remove", &path)(error)),
            _ => {}
        }
        let dir = SegmentId::run_dir(&id.lens, id.run);
        self.inner.disk.sync_dir(&dir).map_err(at("sync", &dir))?;
        self.inner.catalog.set_protected(id, false)
    }

    /// The protection of a segment, if it has one.
    pub fn protection(&self, id: &SegmentId) -> Result<Option<Kept>, ArchiveError> {
        Ok(self.lookup(id)?.row.protected.then(|| self.read_keep(id)))
    }

    fn read_keep(&self, id: &SegmentId) -> Kept {
        let stored = read_whole(self.inner.disk.as_ref(), &id.keep_path()).ok();
        stored.and_then(|text| line::unseal(&text)).unwrap_or_else(|| Kept {
            who: String::from("unknown"),
            when_ts: 0,
            why: String::from("the protection's text cannot be read"),
        })
    }
}

fn tmp_path(id: &SegmentId) -> PathBuf {
    id.keep_path().with_extension("keep.tmp")
}
