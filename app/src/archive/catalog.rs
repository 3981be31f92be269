//! What lies where: every segment that is stored, with its times in UTC as the run's mapping now says.
//!
//! Promises:
//! - K1: only durable footage is listed; an open segment is listed up to its last durable frame.
//! - K2: windows are half-open: a segment `[s, e)` is in `[from, to)` if `s < to && e > from`.
//! - K3: the recorder's thread never waits for a query: what it reports goes to a small list of its own (`Hot`), which
//!   the next query takes over into the index (`Cold`).
//!
//! Only the archive changes it; anybody may ask.

mod cold;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mos_hal::clock::{BootId, ClockQuality, Mono, UtcMicros};
use mos_hal::media::{LensId, VideoCodec};
use tokio::sync::watch;

use super::clock_file::Mapping;
use super::error::ArchiveError;
use super::gaps::{Gap, GapCause, GapRecord};
use super::ids::{RunId, SegmentId};
use crate::index::{Index, Place, Totals, snapshot};

pub(crate) use self::cold::{Cold, RunInfo, Unaccounted};

/// Where a segment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentState {
    /// Being written.
    Open,
    /// Given up in this run after an error. What is durable of it is listed; the next start closes what is intact.
    Unfinished,
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
            Self::Unfinished => "unfinished",
            Self::Closed => "closed",
            Self::Recovered => "recovered",
            Self::Newer => "newer",
        }
    }

    /// Whether the file stays as it is in this run.
    #[must_use]
    pub fn is_settled(self) -> bool {
        !matches!(self, Self::Open | Self::Unfinished)
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
    /// Locked before `hot` where both are needed.
    cold: Mutex<Cold>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Hot {
    open: BTreeMap<SegmentId, Row>,
    news: Vec<News>,
    /// Bytes that became durable in this run.
    written: u64,
}

/// What `Cold` has not heard yet.
enum News {
    Closed(Row),
    Gap(LensId, RunId, GapRecord),
    Run(RunId, RunInfo),
}

/// Counts for health and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Segments that are no longer written.
    pub stored: Totals,
    /// Segments with durable footage that are open.
    pub open: u64,
    /// Durable bytes of these.
    pub open_bytes: u64,
    /// Bytes that the index takes in memory.
    pub index_bytes: u64,
    /// Bytes of footage that became durable in this run.
    pub written: u64,
}

/// The room that a lens's segments take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LensRoom {
    /// Bytes of allocated blocks, those of open segments by what is durable of them.
    pub used: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes of protected segments; open ones count as what they are likely to become.
    pub protected: u64,
    /// Protected segments.
    pub protected_segments: u64,
    /// Bytes that its open segments and one more are likely to take beyond `used`.
    pub to_come: u64,
}

/// What is known of a run in which anything is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunSpan {
    pub(crate) run: RunId,
    pub(crate) boot: Option<BootId>,
    pub(crate) mapping: Option<Mapping>,
    /// Start of the first and end of the last segment, over all lenses.
    pub(crate) start: Mono,
    pub(crate) end: Mono,
}

impl Catalog {
    pub(crate) fn new() -> Result<Self, ArchiveError> {
        let cold = Cold::new(Index::new().map_err(index_failed)?);
        let shared = Shared { hot: Mutex::default(), cold: Mutex::new(cold), changed: watch::channel(0).0 };
        Ok(Self(Arc::new(shared)))
    }

    /// Segments of a lens (of all lenses if `None`) that overlap the window, ordered by UTC start and id; at most `limit`,
    /// after skipping `skip`.
    #[must_use]
    pub fn segments(&self, lens: Option<&LensId>, window: Window, skip: usize, limit: usize) -> Vec<SegmentRow> {
        let (cold, open) = self.both(lens);
        let most = skip.saturating_add(limit);
        let mut rows: Vec<SegmentRow> =
            open.into_iter().map(|row| cold.with_utc(row)).filter(|row| window.overlaps(row)).collect();
        let lenses = lens.map_or_else(|| cold.index.lenses().cloned().collect(), |l| vec![l.clone()]);
        for lens in &lenses {
            if let Err(error) = cold.segments(lens, window, most, &mut rows) {
                log::error!("cannot list the segments of {lens}: {error}");
            }
        }
        drop(cold);
        rows.sort_by(|a, b| (a.start_ts, &a.row.id).cmp(&(b.start_ts, &b.row.id)));
        rows.truncate(most);
        rows.drain(..skip.min(rows.len()));
        rows
    }

    /// Gaps of a lens (of all lenses if `None`) that overlap the window, ordered by UTC start: those noted, and those
    /// between two runs.
    #[must_use]
    pub fn gaps(&self, lens: Option<&LensId>, window: Window) -> Vec<GapRow> {
        let (cold, open) = self.both(lens);
        let mut rows = cold.gaps(lens, window, &open);
        drop(cold);
        rows.sort_by(|a, b| (a.start_ts, &a.lens, a.end_ts).cmp(&(b.start_ts, &b.lens, b.end_ts)));
        rows
    }

    /// A segment by its id.
    #[must_use]
    pub fn get(&self, id: &SegmentId) -> Option<SegmentRow> {
        let (cold, _) = self.both(Some(&id.lens));
        let open = self.hot().open.get(id).cloned();
        let row = match open {
            Some(row) => (row.end > row.start).then_some(row),
            None => cold.index.get(id).unwrap_or_else(|error| {
                log::error!("cannot look up {id}: {error}");
                None
            }),
        };
        Some(cold.with_utc(row?))
    }

    /// Counts up whenever something changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Counts for health and metrics.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (cold, open) = self.both(None);
        let index_bytes = cold.index.memory().unwrap_or(0);
        let stored = cold.index.totals();
        drop(cold);
        let open_bytes = open.iter().map(|r| r.bytes).sum();
        let written = self.hot().written;
        Counts { stored, open: open.len() as u64, open_bytes, index_bytes, written }
    }

    /// The room that each lens takes.
    #[must_use]
    pub fn rooms(&self) -> BTreeMap<LensId, LensRoom> {
        let (cold, open) = self.both(None);
        let of_stored = |lens: &LensId| {
            let stored = cold.index.totals_of(lens);
            LensRoom {
                used: stored.allocated,
                segments: stored.segments,
                protected: stored.protected_allocated,
                protected_segments: stored.protected,
                to_come: 0,
            }
        };
        let mut rooms: BTreeMap<LensId, LensRoom> =
            cold.index.lenses().map(|lens| (lens.clone(), of_stored(lens))).collect();
        for row in &open {
            let room = rooms.entry(row.id.lens.clone()).or_default();
            let likely = cold.likely_size(&row.id.lens);
            room.used += row.bytes;
            room.segments += 1;
            room.to_come += likely.saturating_sub(row.bytes) + likely;
            if row.protected {
                room.protected += likely.max(row.bytes);
                room.protected_segments += 1;
            }
        }
        rooms.retain(|_, room| room.segments > 0);
        rooms
    }

    /// Bytes that the protected segments count, and those that `id` would add; open ones as what they are likely to
    /// become.
    pub(crate) fn protected_with(&self, id: &SegmentId) -> (u64, u64) {
        let (cold, open) = self.both(None);
        let likely = |r: &Row| cold.likely_size(&r.id.lens).max(r.bytes);
        let of_open: u64 = open.iter().filter(|r| r.protected && r.id != *id).map(likely).sum();
        let more = match open.iter().find(|r| r.id == *id) {
            Some(row) => likely(row),
            None => cold.index.get(id).ok().flatten().map_or(0, |r| r.allocated),
        };
        (cold.index.totals().protected_allocated + of_open, more)
    }

    /// The protected segments, and the bytes that each of them counts; open ones as what they are likely to become.
    pub(crate) fn protected(&self) -> Result<Vec<(Row, u64)>, ArchiveError> {
        let (cold, open) = self.both(None);
        let likely = |row: Row| {
            let bytes = cold.likely_size(&row.id.lens).max(row.bytes);
            (row, bytes)
        };
        let mut rows: Vec<(Row, u64)> = open.into_iter().filter(|row| row.protected).map(likely).collect();
        let stored = cold.index.protected().map_err(index_failed)?;
        rows.extend(stored.into_iter().map(|row| (row.allocated, row)).map(|(bytes, row)| (row, bytes)));
        Ok(rows)
    }

    /// The runs in which anything is stored, by number.
    pub(crate) fn runs(&self) -> Vec<RunSpan> {
        let (cold, open) = self.both(None);
        let mut spans: BTreeMap<RunId, (Mono, Mono)> = BTreeMap::new();
        let stored = cold.index.lenses().flat_map(|lens| cold.index.runs(lens)).map(|(run, s)| (run, s.start, s.end));
        for (run, start, end) in stored.chain(open.iter().map(|r| (r.id.run, r.start, r.end))) {
            let span = spans.entry(run).or_insert((start, end));
            *span = (span.0.min(start), span.1.max(end));
        }
        let of_run = |(run, (start, end))| {
            let info = cold.runs.get(&run).copied().unwrap_or_default();
            RunSpan { run, boot: info.boot, mapping: info.mapping, start, end }
        };
        spans.into_iter().map(of_run).collect()
    }

    /// The mapping of a run as now known.
    #[must_use]
    pub fn mapping(&self, run: RunId) -> Mapping {
        self.both(None).0.mapping(run)
    }

    pub(crate) fn begin(&self, row: Row) {
        self.hot().open.insert(row.id.clone(), row);
    }

    pub(crate) fn durable(&self, id: &SegmentId, end: Mono, frames: u32, bytes: u64) {
        let mut hot = self.hot();
        if let Some(row) = hot.open.get_mut(id) {
            let more = bytes.saturating_sub(row.bytes);
            (row.end, row.frames, row.bytes) = (end, frames, bytes);
            hot.written += more;
        }
        drop(hot);
        self.notify();
    }

    pub(crate) fn closed(&self, id: &SegmentId, bytes: u64, allocated: u64) {
        let mut hot = self.hot();
        if let Some(row) = hot.open.remove(id) {
            hot.news.push(News::Closed(Row { state: SegmentState::Closed, bytes, allocated, ..row }));
        }
        drop(hot);
        self.notify();
    }

    /// The segment will not be finished in this run; what is durable of it stays listed.
    pub(crate) fn abandon(&self, id: &SegmentId) {
        let mut hot = self.hot();
        if hot.open.get(id).is_some_and(|r| r.end <= r.start) {
            hot.open.remove(id);
        } else if let Some(row) = hot.open.get_mut(id) {
            row.state = SegmentState::Unfinished;
        }
        drop(hot);
        self.notify();
    }

    pub(crate) fn map_run(&self, run: RunId, info: RunInfo) {
        self.hot().news.push(News::Run(run, info));
        self.notify();
    }

    /// Adds what a segment's header says of its run, unless more is known.
    pub(crate) fn learn_run(&self, run: RunId, info: RunInfo) {
        self.both(None).0.runs.entry(run).or_insert(info);
    }

    /// See [`Cold::gaps_at_end`].
    pub(crate) fn gaps_at_end(
        &self,
        id: &SegmentId,
        is_last: bool,
        later: Option<Mono>,
        missing: &[(Mono, Mono)],
        border: Option<(Mono, Mono)>,
    ) -> Vec<Gap> {
        self.both(None).0.gaps_at_end(id, is_last, later, missing, border)
    }

    /// See [`Cold::account_for_holes`].
    pub(crate) fn account_for_holes(
        &self,
        lost: &[SegmentId],
        present: RunId,
    ) -> Result<Vec<cold::LensGap>, ArchiveError> {
        self.both(None).0.account_for_holes(lost, present).map_err(index_failed)
    }

    /// How far the listed footage of a lens reaches in a run.
    pub(crate) fn reaches(&self, lens: &LensId, run: RunId) -> Option<Mono> {
        let (cold, open) = self.both(Some(lens));
        let stored = cold.index.span(lens, run).map(|span| span.end);
        open.iter().filter(|row| row.id.run == run).map(|row| row.end).chain(stored).max()
    }

    /// Whether anything is known of a lens in a run.
    pub(crate) fn has_run(&self, lens: &LensId, run: RunId) -> bool {
        self.both(Some(lens)).0.has_run(lens, run)
    }

    pub(crate) fn note(&self, lens: &LensId, run: RunId, record: GapRecord) {
        self.hot().news.push(News::Gap(lens.clone(), run, record));
        self.notify();
    }

    pub(crate) fn set_protected(&self, id: &SegmentId, protected: bool) -> Result<(), ArchiveError> {
        let mut cold = self.both(Some(&id.lens)).0;
        let open = self.hot().open.get_mut(id).map(|row| row.protected = protected).is_some();
        if !open {
            cold.index.set_protected(id, protected).map_err(index_failed)?;
        }
        drop(cold);
        self.notify();
        Ok(())
    }

    /// The segment is gone and a gap stands in its place.
    pub(crate) fn replace(&self, id: &SegmentId, gap: GapRecord) -> Result<(), ArchiveError> {
        let mut cold = self.both(Some(&id.lens)).0;
        cold.note(&id.lens, id.run, gap);
        let done = cold.index.remove(id).map_err(index_failed);
        drop(cold);
        self.notify();
        done
    }

    /// A row that recovery made.
    pub(crate) fn put(&self, row: &Row) -> Result<(), ArchiveError> {
        let mut cold = self.both(None).0;
        let done = cold.put(row).map_err(index_failed);
        drop(cold);
        self.notify();
        done
    }

    /// Takes over what was loaded from disk; what the present run added in the meantime stays.
    pub(crate) fn adopt(&self, mut loaded: Cold) -> Result<(), ArchiveError> {
        let mut cold = self.both(None).0;
        loaded.take_over(&cold).map_err(index_failed)?;
        *cold = loaded;
        drop(cold);
        self.notify();
        Ok(())
    }

    /// Oldest closed segments of a lens that nobody protects; see [`Index::oldest_of`].
    pub(crate) fn oldest_of(
        &self,
        lens: &LensId,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Row>, ArchiveError> {
        self.both(Some(lens)).0.index.oldest_of(lens, after, limit).map_err(index_failed)
    }

    /// Whether a lens has segments or anything open in a run.
    pub(crate) fn has_segments(&self, lens: &LensId, run: RunId) -> bool {
        let (cold, open) = self.both(Some(lens));
        open.iter().any(|r| r.id.run == run) || cold.index.runs(lens).any(|(r, _)| r == run)
    }

    /// A lens has nothing left in a run, not even gaps.
    pub(crate) fn forget_run(&self, lens: &LensId, run: RunId) {
        self.both(None).0.forget_run(lens, run);
        self.notify();
    }

    /// The index as it goes into a snapshot, if it changed since the last one.
    pub(crate) fn serialize(&self) -> Result<Option<Vec<u8>>, ArchiveError> {
        let mut cold = self.both(None).0;
        if !std::mem::take(&mut cold.changed) {
            return Ok(None);
        }
        snapshot::serialize(&mut cold.index).map(Some)
    }

    pub(crate) fn mark_changed(&self) {
        self.both(None).0.changed = true;
    }

    /// The cold part, up to date, and the open segments with footage of a lens or all.
    fn both(&self, lens: Option<&LensId>) -> (MutexGuard<'_, Cold>, Vec<Row>) {
        let mut cold = self.0.cold.lock().unwrap_or_else(PoisonError::into_inner);
        let (news, open) = {
            let mut hot = self.hot();
            let wanted = |r: &&Row| r.end > r.start && lens.is_none_or(|l| *l == r.id.lens);
            (std::mem::take(&mut hot.news), hot.open.values().filter(wanted).cloned().collect())
        };
        for one in news {
            let done = match one {
                News::Closed(row) => cold.put(&row),
                News::Run(run, info) => {
                    cold.runs.insert(run, info);
                    Ok(())
                }
                News::Gap(lens, run, record) => {
                    cold.note(&lens, run, record);
                    Ok(())
                }
            };
            if let Err(error) = done {
                log::error!("the index cannot take a segment: {error}; it is on disk and listed after a restart");
            }
        }
        (cold, open)
    }

    fn hot(&self) -> MutexGuard<'_, Hot> {
        self.0.hot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.0.changed.send_modify(|n| *n += 1);
    }
}

impl Window {
    /// Whether a segment lies in it, at least in part.
    #[must_use]
    pub fn overlaps(&self, row: &SegmentRow) -> bool {
        row.start_ts < self.to && row.end_ts > self.from
    }
}

// By value, as `map_err` hands it over.
#[allow(clippy::needless_pass_by_value)]
fn index_failed(error: rusqlite::Error) -> ArchiveError {
    ArchiveError::Index(error.to_string())
}
