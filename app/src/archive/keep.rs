//! Protection: `{seq}.keep` beside a segment says who wants it kept, when and why.
//!
//! Promises:
//! - E1: when Protect or Unprotect has answered, it survives a power cut.
//! - E2: both are idempotent; repeating a Protect changes nothing.
//! - E3: the mere presence of the file protects: damage to its text never lifts a protection.
//! - E4: Protect never answers yes when the protected segments would take more than their quota; it fails loudly and
//!   changes nothing. A quota that was lowered lifts no protection. (What events protected gives way first: `yielding.rs`.)
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
    /// An event's, which gives way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gives_way: bool,
}

impl Archive {
    /// Protects a segment, open ones too. An existing protection stays as it is and is returned, unless it gives way: then
    /// this one takes its place, with its reason if it has none of its own.
    pub fn keep(&self, id: &SegmentId, note: &KeepNote) -> Result<Kept, ArchiveError> {
        let _changes = lock(&self.inner.changes);
        let row = self.lookup(id)?;
        if row.row.protected {
            let mut known = self.yielding()?;
            let kept = self.read_keep(id);
            if !kept.gives_way {
                return Ok(kept);
            }
            let why = if note.why.is_empty() { kept.why } else { note.why.clone() };
            let kept = self.write_keep(id, &KeepNote { who: note.who.clone(), why }, false)?;
            if let Some(known) = known.as_mut() {
                known.forget(&row.row);
            }
            return Ok(kept);
        }
        self.make_way(id)?;
        self.write_keep(id, note, false)
    }

    pub(super) fn write_keep(&self, id: &SegmentId, note: &KeepNote, gives_way: bool) -> Result<Kept, ArchiveError> {
        let UtcMicros(when_ts) = self.inner.clock.utc();
        let kept = Kept { who: note.who.clone(), when_ts, why: note.why.clone(), gives_way };
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
        self.lift(id)?;
        if let Some(known) = lock(&self.inner.yielding).as_mut() {
            known.forget(&row.row);
        }
        Ok(())
    }

    pub(super) fn lift(&self, id: &SegmentId) -> Result<(), ArchiveError> {
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

    pub(super) fn read_keep(&self, id: &SegmentId) -> Kept {
        let stored = read_whole(self.inner.disk.as_ref(), &id.keep_path()).ok();
        stored.and_then(|text| line::unseal(&text)).unwrap_or_else(|| Kept {
            who: String::from("unknown"),
            when_ts: 0,
            why: String::from("the protection's text cannot be read"),
            gives_way: false,
        })
    }
}

fn tmp_path(id: &SegmentId) -> PathBuf {
    id.keep_path().with_extension("keep.tmp")
}
