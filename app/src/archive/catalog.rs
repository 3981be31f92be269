//! What lies where: every segment that is stored, with its times in UTC as the run's mapping now says.
//!
//! Promises:
//! - K1: only durable footage is listed; an open segment is listed up to its last durable frame.
//! - K2: windows are half-open: a segment `[s, e)` is in `[from, to)` if `s < to && e > from`.
//! - K3: the recorder's thread never waits for a query.
//!
//! Only the archive changes it; anybody may ask.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mos_hal::clock::{ClockQuality, Mono, UtcMicros};
use mos_hal::media::{LensId, VideoCodec};
use tokio::sync::watch;

use super::clock_file::Mapping;
use super::gaps::{Gap, GapCause};
use super::ids::{RunId, SegmentId};

/// Where a segment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentState {
    /// Being written, or abandoned in this run after a failed sync.
    Open,
    /// Closed in order.
    Closed,
    /// Closed by recovery.
    Recovered,
    /// Written by a newer version of MOS; plays as MP4, is not touched.
    Newer,
}

impl SegmentState {
    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Recovered => "recovered",
            Self::Newer => "newer",
        }
    }
}

/// A stored segment, in the run's monotonic time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its id.
    pub id: SegmentId,
    /// Capture time of its first frame.
    pub start: Mono,
    /// Where its last durable frame ends.
    pub end: Mono,
    /// Durable length of the file in bytes.
    pub bytes: u64,
    /// Bytes of allocated blocks; 0 while open.
    pub allocated: u64,
    /// Durable video frames.
    pub frames: u32,
    /// Codec of the video track, if known.
    pub codec: Option<VideoCodec>,
    /// Displayed width in pixels.
    pub width: u32,
    /// Displayed height in pixels.
    pub height: u32,
    /// Where it stands.
    pub state: SegmentState,
    /// Whether it is protected.
    pub protected: bool,
}

/// A [`Row`] with its times in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRow {
    /// Everything that does not depend on the mapping.
    pub row: Row,
    /// UTC of `row.start`.
    pub start_ts: UtcMicros,
    /// UTC of `row.end`.
    pub end_ts: UtcMicros,
    /// How far the UTC times may be believed.
    pub quality: ClockQuality,
}

impl SegmentRow {
    /// Path of the file relative to the archive's root.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.row.id.media_path()
    }

    /// The mapping by which UTC was derived.
    #[must_use]
    pub fn mapping(&self) -> Mapping {
        Mapping { mono: self.row.start, utc: self.start_ts, quality: self.quality }
    }
}

/// A gap with its times in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GapRow {
    /// The lens.
    pub lens: LensId,
    /// Start, UTC.
    pub start_ts: UtcMicros,
    /// End, UTC, exclusive.
    pub end_ts: UtcMicros,
    /// Why.
    pub cause: GapCause,
}

/// A half-open window of UTC time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First moment.
    pub from: UtcMicros,
    /// First moment after it.
    pub to: UtcMicros,
}

impl Window {
    /// All time.
    pub const ALL: Self = Self { from: UtcMicros(i64::MIN), to: UtcMicros(i64::MAX) };
}

/// The list of stored segments. Clones share it.
#[derive(Clone)]
pub struct Catalog(Arc<Shared>);

struct Shared {
    hot: Mutex<Hot>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Hot {
    rows: BTreeMap<SegmentId, Row>,
    mappings: BTreeMap<RunId, Mapping>,
    gaps: Vec<(LensId, RunId, Gap)>,
}

impl Catalog {
    pub(crate) fn new() -> Self {
        let shared = Shared { hot: Mutex::default(), changed: watch::channel(0).0 };
        Self(Arc::new(shared))
    }

    /// Segments of a lens (of all lenses if `None`) that overlap the window, ordered by UTC start; at most `limit`, after
    /// skipping `skip`.
    #[must_use]
    pub fn segments(&self, lens: Option<&LensId>, window: Window, skip: usize, limit: usize) -> Vec<SegmentRow> {
        let hot = self.lock();
        let mut rows: Vec<SegmentRow> = hot
            .rows
            .values()
            .filter(|r| r.end > r.start && lens.is_none_or(|l| *l == r.id.lens))
            .filter_map(|r| hot.with_utc(r))
            .filter(|r| r.start_ts < window.to && r.end_ts > window.from)
            .collect();
        rows.sort_by(|a, b| (a.start_ts, &a.row.id).cmp(&(b.start_ts, &b.row.id)));
        rows.into_iter().skip(skip).take(limit).collect()
    }

    /// Gaps of a lens (of all lenses if `None`) that overlap the window, ordered by UTC start.
    #[must_use]
    pub fn gaps(&self, lens: Option<&LensId>, window: Window) -> Vec<GapRow> {
        let hot = self.lock();
        let mut rows: Vec<GapRow> = hot
            .gaps
            .iter()
            .filter(|(l, ..)| lens.is_none_or(|wanted| wanted == l))
            .filter_map(|(lens, run, gap)| {
                let mapping = hot.mappings.get(run)?;
                let (start_ts, end_ts) = (mapping.utc_of(gap.start), mapping.utc_of(gap.end));
                Some(GapRow { lens: lens.clone(), start_ts, end_ts, cause: gap.cause })
            })
            .filter(|g| g.start_ts < window.to && g.end_ts > window.from)
            .collect();
        rows.sort_by(|a, b| (a.start_ts, &a.lens).cmp(&(b.start_ts, &b.lens)));
        rows
    }

    /// A segment by its id.
    #[must_use]
    pub fn get(&self, id: &SegmentId) -> Option<SegmentRow> {
        let hot = self.lock();
        let row = hot.rows.get(id)?;
        if row.end > row.start { hot.with_utc(row) } else { None }
    }

    /// Counts up whenever something changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    pub(crate) fn begin(&self, row: Row) {
        self.lock().rows.insert(row.id.clone(), row);
    }

    pub(crate) fn durable(&self, id: &SegmentId, end: Mono, frames: u32, bytes: u64) {
        if let Some(row) = self.lock().rows.get_mut(id) {
            (row.end, row.frames, row.bytes) = (end, frames, bytes);
        }
        self.notify();
    }

    pub(crate) fn closed(&self, id: &SegmentId, bytes: u64, allocated: u64) {
        if let Some(row) = self.lock().rows.get_mut(id) {
            (row.state, row.bytes, row.allocated) = (SegmentState::Closed, bytes, allocated);
        }
        self.notify();
    }

    /// The segment will not be finished in this run.
    pub(crate) fn abandon(&self, id: &SegmentId) {
        let mut hot = self.lock();
        if hot.rows.get(id).is_some_and(|r| r.end <= r.start) {
            hot.rows.remove(id);
        }
        drop(hot);
        self.notify();
    }

    pub(crate) fn map_run(&self, run: RunId, mapping: Mapping) {
        self.lock().mappings.insert(run, mapping);
        self.notify();
    }

    pub(crate) fn add_gap(&self, lens: &LensId, run: RunId, gap: Gap) {
        self.lock().gaps.push((lens.clone(), run, gap));
        self.notify();
    }

    pub(crate) fn set_protected(&self, id: &SegmentId, protected: bool) {
        if let Some(row) = self.lock().rows.get_mut(id) {
            row.protected = protected;
        }
        self.notify();
    }

    pub(crate) fn remove(&self, id: &SegmentId) {
        self.lock().rows.remove(id);
        self.notify();
    }

    fn lock(&self) -> MutexGuard<'_, Hot> {
        self.0.hot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.0.changed.send_modify(|n| *n += 1);
    }
}

impl Hot {
    fn with_utc(&self, row: &Row) -> Option<SegmentRow> {
        let mapping = self.mappings.get(&row.id.run)?;
        Some(SegmentRow {
            row: row.clone(),
            start_ts: mapping.utc_of(row.start),
            end_ts: mapping.utc_of(row.end),
            quality: mapping.quality,
        })
    }
}
