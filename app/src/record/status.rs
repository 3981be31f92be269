//! What the recorder tells about itself.

use std::collections::BTreeMap;
use std::time::Duration;

use mos_hal::clock::Mono;
use mos_hal::media::LensId;

use crate::archive::gaps::GapCause;
use crate::archive::ids::SegmentId;

use super::repair::TimeFault;

/// The recorder at one tick.
#[derive(Clone, Debug, Default)]
pub struct RecorderStatus {
    /// Each lens.
    pub lenses: BTreeMap<LensId, LensRecording>,
    /// How long the writes and syncs of the last tick took.
    pub last_sync: Duration,
    /// How long the slowest one took.
    pub worst_sync: Duration,
    /// Syncs take so long that a power cut may cost more than a second.
    pub durability_degraded: bool,
    /// Ticks so far.
    pub ticks: u64,
    /// Group commits above 300 ms so far.
    pub slow_syncs: u64,
    /// How long all of them took.
    pub sync_times: SyncTimes,
}

/// A histogram of group commits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncTimes {
    /// Of all of them.
    pub sum: Duration,
    /// How many took at most the bound at the same place of [`SyncTimes::BOUNDS`] and more than the one before; the last
    /// counts those above all bounds.
    pub counts: [u64; SyncTimes::BOUNDS.len() + 1],
}

impl SyncTimes {
    /// Bounds in milliseconds.
    pub const BOUNDS: [u64; 11] = [1, 2, 5, 10, 20, 50, 100, 200, 300, 1000, 3000];

    pub(super) fn add(&mut self, took: Duration) {
        self.sum += took;
        let place = Self::BOUNDS.iter().position(|bound| took <= Duration::from_millis(*bound));
        self.counts[place.unwrap_or(Self::BOUNDS.len())] += 1;
    }
}

/// One lens in the recorder. Counts are access units of all tracks.
///
/// Invariant R1: `captured = stored + pending + Σ dropped`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LensRecording {
    /// Delivered by the source.
    pub captured: u64,
    /// Bytes of those.
    pub captured_bytes: u64,
    /// Durable on disk.
    pub stored: u64,
    /// On the way: queued, held, or written and not synced yet.
    pub pending: u64,
    /// Left out, by cause; each is covered by a gap of that cause, or lies before the segment it came too late for.
    pub dropped: BTreeMap<GapCause, u64>,
    /// Capture times that had to be mended.
    pub repaired: BTreeMap<TimeFault, u64>,
    /// The segment being written.
    pub open: Option<SegmentId>,
    /// Why there is no footage at present, if there is none.
    pub absent: Option<GapCause>,
    /// What the storage refused last and why, with when; kept after it works again.
    pub refused: Option<(String, Mono)>,
    /// Segments given up because a write or sync failed.
    pub abandoned: u64,
    /// When the first fragment since the source was last down became durable.
    pub first_durable: Option<Mono>,
    /// From the capture of the oldest picture of the newest durable fragment until it was durable.
    pub latency: Option<Duration>,
}

/// What the end of a recording took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopReport {
    /// From the request to the last sync: the hold-up time used.
    pub took: Duration,
    /// Segments closed by it.
    pub closed: usize,
    /// Segments that could not be closed; recovery does it at the next start.
    pub left_open: usize,
}
