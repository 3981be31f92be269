//! Pins: segments in use by a clip, a snapshot or an upload. What is pinned is not removed.
//!
//! Promises:
//! - P1: while a [`Pin`] lives, its segment's file stays.
//! - P2: once a removal has begun, no new pin is given; the removal waits for the pins that are there.
//! - P3: pins are memory only; none outlives the process.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::ArchiveError;
use super::ids::SegmentId;

/// Counts who uses which segment.
#[derive(Clone, Debug, Default)]
pub struct Pins(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<HashMap<SegmentId, Count>>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Count {
    pins: u32,
    removing: bool,
}

/// Keeps a segment's file from being removed until dropped.
#[derive(Debug)]
pub struct Pin {
    pins: Pins,
    id: SegmentId,
}

/// Keeps new pins away until dropped.
#[derive(Debug)]
pub(crate) struct Removing {
    pins: Pins,
    id: SegmentId,
}

impl Pins {
    /// Pins a segment. Fails with `NotFound` if its removal has begun.
    pub fn pin(&self, id: &SegmentId) -> Result<Pin, ArchiveError> {
        let mut state = self.lock();
        let count = state.entry(id.clone()).or_default();
        if count.removing {
            return Err(ArchiveError::NotFound(id.clone()));
        }
        count.pins += 1;
        Ok(Pin { pins: self.clone(), id: id.clone() })
    }

    /// Whether anybody uses the segment now.
    #[must_use]
    pub fn is_pinned(&self, id: &SegmentId) -> bool {
        self.lock().get(id).is_some_and(|c| c.pins > 0)
    }

    /// Bars new pins and waits until the last one is gone; `InUse` after `patience`.
    pub(crate) fn begin_removal(&self, id: &SegmentId, patience: Duration) -> Result<Removing, ArchiveError> {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        let count = state.entry(id.clone()).or_default();
        if count.removing {
            return Err(ArchiveError::InUse(id.clone()));
        }
        count.removing = true;
        let removing = Removing { pins: self.clone(), id: id.clone() };
        while state.get(id).is_some_and(|c| c.pins > 0) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                return Err(ArchiveError::InUse(id.clone()));
            }
            state = self.0.freed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        Ok(removing)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SegmentId, Count>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, id: &SegmentId, f: impl FnOnce(&mut Count)) {
        let mut state = self.lock();
        if let Some(count) = state.get_mut(id) {
            f(count);
            if count.pins == 0 && !count.removing {
                state.remove(id);
            }
        }
        drop(state);
        self.0.freed.notify_all();
    }
}

impl Removing {
    pub(crate) fn id(&self) -> &SegmentId {
        &self.id
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pins.change(&self.id, |c| c.pins = c.pins.saturating_sub(1));
    }
}

impl Drop for Removing {
    fn drop(&mut self) {
        self.pins.change(&self.id, |c| c.removing = false);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn p1_p2_removal_waits_for_pins_and_bars_new_ones() {
        let pins = Pins::default();
        let id: SegmentId = "road-1-0".parse().unwrap();
        let pin = pins.pin(&id).unwrap();
        assert!(matches!(pins.begin_removal(&id, Duration::ZERO), Err(ArchiveError::InUse(_))));
        let second = pins.pin(&id).unwrap();
        drop(pin);
        assert!(pins.is_pinned(&id));
        let waiting = {
            let (pins, id) = (pins.clone(), id.clone());
            std::thread::spawn(move || pins.begin_removal(&id, Duration::from_mins(1)))
        };
        while pins.pin(&id).is_ok() {
            std::thread::yield_now();
        }
        drop(second);
        let removing = waiting.join().unwrap().unwrap();
        assert!(matches!(pins.pin(&id), Err(ArchiveError::NotFound(_))));
        drop(removing);
        assert!(pins.pin(&id).is_ok());
        assert!(pins.lock().is_empty());
    }
}
