//! Protections that give way: what events of cameras protect, for as long as nobody else wants the room.
//!
//! A camera on a moving vehicle reports motion all day. Promises:
//! - E6: events protect at most [`PART`] of what may be protected, and of their footage the newest.
//! - E7: what they protect gives way, the oldest first, before Protect is refused to anybody; nothing is lifted in vain for
//!   one that is refused all the same.
//! - E8: what somebody protects by Protect stays so, also if an event had protected it before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::MutexGuard;

use mos_hal::media::LensId;

use super::error::ArchiveError;
use super::ids::SegmentId;
use super::{Archive, Catalog, KeepNote, Row, SegmentState, lock};
use crate::index::Place;

/// Events may protect one part of so many.
const PART: u64 = 2;

/// What gives way, the oldest first, with the bytes that it counts.
#[derive(Default)]
pub(crate) struct Yielding {
    counts: BTreeMap<Key, u64>,
    /// Those that were open when last counted: they may become smaller or larger than was likely.
    open: BTreeSet<Key>,
}

type Key = (Place, LensId);

impl Yielding {
    pub(super) fn forget(&mut self, row: &Row) {
        self.remove(&key(row));
    }

    fn insert(&mut self, row: &Row, bytes: u64) {
        self.counts.insert(key(row), bytes);
        if row.state == SegmentState::Open {
            self.open.insert(key(row));
        }
    }

    fn remove(&mut self, key: &Key) {
        self.counts.remove(key);
        self.open.remove(key);
    }

    fn bytes(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Counts those anew that were open.
    fn settle(&mut self, catalog: &Catalog) {
        for key in std::mem::take(&mut self.open) {
            let id = id(&key);
            match catalog.get(&id) {
                Some(found) => self.insert(&found.row, catalog.protected_with(&id).1),
                None => self.remove(&key),
            }
        }
    }

    /// The oldest that count `lack` bytes together; `None` if those that were captured before `before` do not.
    pub(super) fn oldest(&self, lack: u64, before: Option<Place>) -> Option<Vec<SegmentId>> {
        let mut found = Vec::new();
        let mut bytes = 0;
        let older = self.counts.iter().take_while(|((place, _), _)| before.is_none_or(|before| *place < before));
        for (key, counts) in older {
            if bytes >= lack {
                break;
            }
            bytes += counts;
            found.push(id(key));
        }
        (bytes >= lack).then_some(found)
    }
}

fn key(row: &Row) -> Key {
    ((row.id.run, row.start, row.id.seq), row.id.lens.clone())
}

fn id(((run, _, seq), lens): &Key) -> SegmentId {
    SegmentId { lens: lens.clone(), run: *run, seq: *seq }
}

impl Archive {
    /// Protects a segment for an event. Whether it is protected now: `false` if the room of events is taken by newer footage.
    pub fn keep_for_event(&self, id: &SegmentId, note: &KeepNote) -> Result<bool, ArchiveError> {
        let _changes = lock(&self.inner.changes);
        let row = self.lookup(id)?.row;
        if row.protected {
            return Ok(true);
        }
        let mut yielding = self.yielding()?;
        let (place, _) = key(&row);
        let (mut used, more) = self.inner.catalog.protected_with(id);
        let quota = self.inner.protected_max_bytes;
        let of_events = yielding.as_ref().map_or(0, Yielding::bytes);
        let lack = over(used, more, quota).max(over(of_events, more, quota / PART));
        if lack > 0 {
            let Some(older) = yielding.as_ref().and_then(|y| y.oldest(lack, Some(place))) else {
                let in_the_way = yielding.as_ref().is_some_and(|y| y.counts.keys().any(|(other, _)| *other > place));
                let (used, quota) = if over(used, more, quota) > 0 { (used, quota) } else { (of_events, quota / PART) };
                return if in_the_way { Ok(false) } else { Err(refusal(id, used, more, quota)) };
            };
            self.lift_all(&older, yielding.as_mut())?;
            used = self.inner.catalog.protected_with(id).0;
        }
        if over(used, more, quota) > 0 {
            return Err(refusal(id, used, more, quota));
        }
        self.write_keep(id, note, true)?;
        if let Some(yielding) = yielding.as_mut() {
            yielding.insert(&row, more);
        }
        Ok(true)
    }

    /// Makes room for a protection that does not give way (E7).
    pub(super) fn make_way(&self, id: &SegmentId) -> Result<(), ArchiveError> {
        let quota = self.inner.protected_max_bytes;
        loop {
            let (used, more) = self.inner.catalog.protected_with(id);
            let lack = over(used, more, quota);
            if lack == 0 {
                return Ok(());
            }
            let mut yielding = self.yielding()?;
            let oldest = yielding.as_ref().and_then(|y| y.oldest(lack, None));
            let oldest = oldest.ok_or_else(|| refusal(id, used, more, quota))?;
            self.lift_all(&oldest, yielding.as_mut())?;
        }
    }

    /// Bytes of protections that give way.
    pub(crate) fn yielding_bytes(&self) -> u64 {
        let known = self.yielding().inspect_err(|e| log::debug!("what gives way is not known: {e}"));
        known.ok().and_then(|known| known.as_ref().map(Yielding::bytes)).unwrap_or(0)
    }

    /// What gives way; read from disk at the first call behind the loading, `None` before.
    pub(super) fn yielding(&self) -> Result<MutexGuard<'_, Option<Yielding>>, ArchiveError> {
        let mut known = lock(&self.inner.yielding);
        if known.is_none() && self.health().loaded {
            let protected = self.inner.catalog.protected()?;
            let gives_way = |(row, _): &(Row, u64)| self.read_keep(&row.id).gives_way;
            let mut found = Yielding::default();
            protected.into_iter().filter(gives_way).for_each(|(row, bytes)| found.insert(&row, bytes));
            *known = Some(found);
        }
        if let Some(known) = known.as_mut() {
            known.settle(&self.inner.catalog);
        }
        Ok(known)
    }

    fn lift_all(&self, ids: &[SegmentId], mut yielding: Option<&mut Yielding>) -> Result<(), ArchiveError> {
        for id in ids {
            if self.lookup(id).is_ok() {
                self.lift(id)?;
                log::info!("{id} is not protected any more: what an event protected gives way");
            }
            if let Some(yielding) = yielding.as_deref_mut() {
                let lifted: Vec<Key> = yielding.counts.keys().filter(|key| self::id(key) == *id).cloned().collect();
                for key in &lifted {
                    yielding.remove(key);
                }
            }
        }
        Ok(())
    }
}

fn over(used: u64, more: u64, quota: u64) -> u64 {
    used.saturating_add(more).saturating_sub(quota)
}

fn refusal(id: &SegmentId, used: u64, more: u64, quota: u64) -> ArchiveError {
    ArchiveError::ProtectedQuota { id: id.clone(), used, more, quota }
}
