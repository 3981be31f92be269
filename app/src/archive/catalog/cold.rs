//! The part of the catalog that queries work on: the index of closed segments, the runs and their mappings, the gaps.

use std::collections::BTreeMap;

use mos_hal::clock::{BootId, ClockQuality, Mono, UtcMicros};
use mos_hal::media::LensId;

use super::{GapRow, Row, SegmentRow, Window};
use crate::archive::clock_file::Mapping;
use crate::archive::gaps::{Gap, GapCause, GapRecord, TOLERANCE_NS, summed};
use crate::archive::ids::{RunId, SegmentId};
use crate::index::{Hole, Index};

/// A lens whose footage ends this much before its run demonstrably did was silent: frames of a source that is up reach the
/// disk within less.
const SILENT_NS: i64 = 2_000_000_000;

/// A failed or full disk is in order again when a lens that it cost footage has this much behind it: a commit has followed.
const SETTLED_NS: i64 = 1_000_000_000;

/// What the disk cost a lens is on record, if it can be, when this much has gone by since its footage ended.
const TOLD_NS: i64 = 3_000_000_000;

/// Pictures that reordering still owed at the end of a segment lie no further before it.
const REORDERED_NS: i64 = 1_000_000_000;

/// The end of a last frame as the file has it and as a gap that follows was told may differ by this much.
const ROUNDED_NS: i64 = 50_000_000;

/// What is known of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RunInfo {
    pub(crate) boot: Option<BootId>,
    pub(crate) mapping: Option<Mapping>,
}

/// What `gaps.jsonl` of a lens and run says.
#[derive(Clone, Debug, Default)]
struct LensGaps {
    /// By start.
    gaps: Vec<Gap>,
    stopped: bool,
    /// At how many they are summed up next, as in the file; 0: at [`SUM_AT`].
    sum_at: usize,
}

/// A gap of a lens in a run.
pub(crate) type LensGap = (LensId, RunId, Gap);

/// A stretch of time without footage of which no account tells.
pub(crate) struct Unaccounted {
    pub(crate) at: LensGap,
    /// What was not durable when a run was cut off explains itself; else lines of `gaps.jsonl` were lost.
    pub(crate) may_be_of_a_cut: bool,
}

/// So many gaps of a lens and run are summed up.
const SUM_AT: usize = 8192;

pub(crate) struct Cold {
    pub(crate) index: Index,
    pub(crate) runs: BTreeMap<RunId, RunInfo>,
    gaps: BTreeMap<(LensId, RunId), LensGaps>,
    /// The index differs from its last snapshot.
    pub(crate) changed: bool,
    /// Allocated bytes of each lens's last closed segment.
    sizes: BTreeMap<LensId, u64>,
}

impl Cold {
    pub(crate) fn new(index: Index) -> Self {
        Self { index, runs: BTreeMap::new(), gaps: BTreeMap::new(), changed: false, sizes: BTreeMap::new() }
    }

    pub(crate) fn put(&mut self, row: &Row) -> rusqlite::Result<()> {
        self.changed = true;
        self.saved(row);
        self.sizes.insert(row.id.lens.clone(), row.allocated);
        self.index.put(row)
    }

    /// Of a segment that recovery saved after all, only the rest is missing.
    fn saved(&mut self, row: &Row) {
        let Some(known) = self.gaps.get_mut(&(row.id.lens.clone(), row.id.run)) else { return };
        for gap in &mut known.gaps {
            // One that ends within it is a hole that it has.
            let to_the_end = gap.start >= row.start && gap.start < row.end && gap.end >= row.end;
            if to_the_end && gap.cause == GapCause::DiskError {
                gap.start = row.end;
            }
        }
        known.gaps.retain(|g| g.end > g.start);
        known.gaps.sort_by_key(|g| g.start);
    }

    /// Bytes that a segment of this lens is likely to take.
    pub(crate) fn likely_size(&self, lens: &LensId) -> u64 {
        let totals = self.index.totals();
        let mean = totals.allocated.checked_div(totals.segments).unwrap_or(0);
        self.sizes.get(lens).copied().unwrap_or(mean)
    }

    pub(crate) fn note(&mut self, lens: &LensId, run: RunId, record: GapRecord) {
        let known = self.gaps.entry((lens.clone(), run)).or_default();
        match record {
            GapRecord::Stop { .. } => known.stopped = true,
            GapRecord::Recovered { seq } => {
                let id = SegmentId { lens: lens.clone(), run, seq };
                if let Ok(Some(row)) = self.index.get(&id) {
                    self.saved(&row);
                }
            }
            GapRecord::Gap { gap, .. } => {
                self.changed = true;
                // Behind a stop this is the lens's return: it was taken out and added again within the run.
                known.stopped &= gap.cause != GapCause::CaptureStopped;
                let at = known.gaps.partition_point(|g| g.start < gap.start);
                // The recorder writes a long absence in pieces, and retention goes through a run from its start: such gaps
                // grow together instead of growing in number. What is known already adds nothing.
                let near = if gap.cause == GapCause::Retention { TOLERANCE_NS } else { 1 };
                // Of a failed disk's gap, recovery may save a part, but not the holes in it.
                let is_hole = |g: &Gap| gap.cause == GapCause::DiskError && gap.end < g.end;
                let grows = |g: &&mut Gap| g.cause == gap.cause && gap.start.since(g.end) < near && !is_hole(g);
                let same = |g: &&mut Gap| g.start == gap.start && g.cause == gap.cause && !is_hole(g);
                if let Some(same) = known.gaps.get_mut(at).filter(same) {
                    same.end = same.end.max(gap.end);
                    return;
                }
                if let Some(before) = at.checked_sub(1).and_then(|i| known.gaps.get_mut(i)).filter(grows) {
                    before.end = before.end.max(gap.end);
                    return;
                }
                known.gaps.insert(at, gap);
                if known.gaps.len() >= known.sum_at.max(SUM_AT) {
                    known.gaps = summed(std::mem::take(&mut known.gaps));
                    known.sum_at = known.gaps.len() * 2;
                }
            }
        }
    }

    pub(crate) fn has_run(&self, lens: &LensId, run: RunId) -> bool {
        self.gaps.contains_key(&(lens.clone(), run)) || self.index.span(lens, run).is_some()
    }

    pub(crate) fn forget_run(&mut self, lens: &LensId, run: RunId) {
        self.gaps.remove(&(lens.clone(), run));
        let used = self.gaps.keys().any(|(_, r)| *r == run)
            || self.index.lenses().any(|lens| self.index.runs(lens).any(|(r, _)| r == run));
        if !used {
            self.runs.remove(&run);
        }
    }

    /// Adds what another catalog knows of runs that this one has not loaded.
    pub(crate) fn take_over(&mut self, live: &Cold) -> rusqlite::Result<()> {
        self.changed = true;
        self.sizes.clone_from(&live.sizes);
        self.runs.extend(live.runs.iter().map(|(run, info)| (*run, *info)));
        for (key, gaps) in &live.gaps {
            self.gaps.insert(key.clone(), gaps.clone());
        }
        self.index.add_all(&live.index.all()?)
    }

    pub(crate) fn mapping(&self, run: RunId) -> Mapping {
        let unknown = Mapping { mono: Mono(0), utc: UtcMicros(0), quality: ClockQuality::Unset };
        self.runs.get(&run).and_then(|info| info.mapping).unwrap_or(unknown)
    }

    fn has_mapping(&self, run: RunId) -> bool {
        self.runs.get(&run).is_some_and(|info| info.mapping.is_some())
    }

    pub(crate) fn with_utc(&self, row: Row) -> SegmentRow {
        let mapping = self.mapping(row.id.run);
        derive(&mapping, row)
    }

    /// Adds the first `most` segments of a lens in a window to `rows`.
    pub(crate) fn segments(
        &self,
        lens: &LensId,
        window: Window,
        most: usize,
        rows: &mut Vec<SegmentRow>,
    ) -> rusqlite::Result<()> {
        let mut runs: Vec<(UtcMicros, RunId, Mapping)> = Vec::new();
        for (run, span) in self.index.runs(lens) {
            let mapping = self.mapping(run);
            let (start, end) = (mapping.utc_of(span.start), mapping.utc_of(span.end));
            if start < window.to && end > window.from {
                runs.push((start, run, mapping));
            }
        }
        // Runs follow one another in UTC too, unless a clock was wrong: then they are merged by the caller's sort.
        runs.sort_by_key(|r| (r.0, r.1));
        let mut found: Vec<SegmentRow> = Vec::new();
        for (start, run, mapping) in runs {
            if found.len() >= most {
                found.sort_by(|a, b| (a.start_ts, &a.row.id).cmp(&(b.start_ts, &b.row.id)));
                found.truncate(most);
                if found.last().is_none_or(|last| last.start_ts < start) {
                    break;
                }
            }
            // In whole microseconds `end_ts > from` is the same as `end >= the first instant of from + 1 µs`.
            let from = Mono(mapping.mono_of(UtcMicros(window.from.0.saturating_add(1))).0.saturating_sub(1));
            let to = mapping.mono_of(window.to);
            let in_run = self.index.overlapping(lens, run, (from, to), most)?;
            found.extend(in_run.into_iter().map(|row| derive(&mapping, row)));
        }
        rows.append(&mut found);
        Ok(())
    }

    /// Gaps in a window, in no order. `open` are segments that are not in the index yet.
    ///
    /// Between two runs lies a gap only where footage is missing: a recorder that is killed and records again before its
    /// last frame's time is over leaves none, as it has lost nothing. That there were two runs is told by the segments.
    /// A camera that fell silent before the recorder ended was stalled for as long as others show that the run went on (G6).
    pub(crate) fn gaps(&self, lens: Option<&LensId>, window: Window, open: &[Row]) -> Vec<GapRow> {
        let mut rows = Vec::new();
        let mut runs: BTreeMap<&LensId, BTreeMap<RunId, (Mono, Mono)>> = BTreeMap::new();
        let mut covers = |lens, run, start: Mono, end: Mono| {
            let span = runs.entry(lens).or_default().entry(run).or_insert((start, end));
            *span = (span.0.min(start), span.1.max(end));
        };
        let wanted = |l: &LensId| lens.is_none_or(|wanted| wanted == l);
        for ((lens, run), known) in self.gaps.iter().filter(|((l, _), _)| wanted(l)) {
            let mapping = self.mapping(*run);
            if self.index.span(lens, *run).is_none() && !self.has_mapping(*run) {
                // Its clock went with what was not durable yet: nothing tells when it was.
                continue;
            }
            for gap in &known.gaps {
                covers(lens, *run, gap.start, gap.end);
                let (start_ts, end_ts) = (mapping.utc_of(gap.start), mapping.utc_of(gap.end));
                if start_ts < window.to && end_ts > window.from {
                    let cause = self.cause_in(lens, *run, gap);
                    rows.push(GapRow { lens: lens.clone(), start_ts, end_ts, cause });
                }
            }
        }
        for lens in self.index.lenses().filter(|l| wanted(l)) {
            for (run, span) in self.index.runs(lens) {
                covers(lens, run, span.start, span.end);
            }
        }
        for row in open {
            covers(&row.id.lens, row.id.run, row.start, row.end);
        }
        for (lens, runs) in runs {
            let mut before: Option<(RunId, Mono)> = None;
            for (run, (start, end)) in runs {
                if let Some((last, last_end)) = before {
                    let end_ts = self.mapping(run).utc_of(start);
                    self.between_runs(lens, (last, last_end), end_ts, window, &mut rows);
                }
                before = Some((run, end));
            }
        }
        rows.retain(|g| g.start_ts < g.end_ts && g.start_ts < window.to && g.end_ts > window.from);
        rows
    }

    /// The cause of a gap within a run. Recovery knows a segment by itself: whether it was the last of its run, and whether the
    /// run lived on, is told by what else there is.
    fn cause_in(&self, lens: &LensId, run: RunId, gap: &Gap) -> GapCause {
        if !matches!(gap.cause, GapCause::RecorderKilled | GapCause::PowerLoss) {
            return gap.cause;
        }
        if self.went_on(lens, run, gap.end, None) {
            return GapCause::DiskError;
        }
        let footage_end = match self.index.span(lens, run) {
            Some(span) if span.end > gap.end && self.is_owed(lens, run, gap, span.end) => span.end,
            // A camera of which there is more was not silent.
            Some(span) if span.end > gap.end => return gap.cause,
            _ => gap.end,
        };
        let is_silent = self.silent_until(run, footage_end, gap.cause).is_some();
        if is_silent { GapCause::CameraStalled } else { gap.cause }
    }

    /// Whether a gap is what reordering still owed where footage ends at `end`: what lies behind it was decoded before it, so it went
    /// for the reason for which that footage ends.
    fn is_owed(&self, lens: &LensId, run: RunId, gap: &Gap, end: Mono) -> bool {
        let holds_it = |row: &Row| row.start < gap.start && row.end > gap.end;
        end.since(gap.end) <= REORDERED_NS
            && self.index.overlapping(lens, run, (gap.start, gap.end), 1).is_ok_and(|rows| rows.iter().any(holds_it))
    }

    /// Whether the run lived on when a lens's footage had ended at `at`: that the disk failed there is on record, or there is
    /// footage so long after it that it would be, or was until it was removed. Less may be what the power left of a long tick.
    /// `later` is the end of footage that is not in the index yet.
    fn went_on(&self, lens: &LensId, run: RunId, at: Mono, later: Option<Mono>) -> bool {
        let known = self.gaps.get(&(lens.clone(), run)).map_or(&[][..], |known| &known.gaps);
        let failed = |g: &Gap| matches!(g.cause, GapCause::DiskError | GapCause::DiskFull);
        let is_behind = |g: &Gap| g.start >= at && g.start.since(at) <= REORDERED_NS;
        if known.iter().any(|g| failed(g) && is_behind(g)) {
            return true;
        }
        let removed =
            known.iter().filter(|g| matches!(g.cause, GapCause::Retention | GapCause::Removed)).map(|g| g.end);
        let last = self.index.span(lens, run).map(|span| span.end).into_iter().chain(later).chain(removed).max();
        last.is_some_and(|last| last.since(at) > TOLD_NS)
    }

    /// What a lens is missing between the end of a run's footage and the next run, as far as it lies in the window.
    fn between_runs(
        &self,
        lens: &LensId,
        (run, end): (RunId, Mono),
        end_ts: UtcMicros,
        window: Window,
        rows: &mut Vec<GapRow>,
    ) {
        let mapping = self.mapping(run);
        let mut start_ts = mapping.utc_of(end);
        if start_ts >= end_ts || start_ts >= window.to || end_ts <= window.from {
            return;
        }
        let cause = self.end_of(lens, run);
        if let Some(lived) = self.silent_until(run, end, cause) {
            let lived = mapping.utc_of(lived).min(end_ts);
            rows.push(GapRow { lens: lens.clone(), start_ts, end_ts: lived, cause: GapCause::CameraStalled });
            start_ts = lived;
        }
        rows.push(GapRow { lens: lens.clone(), start_ts, end_ts, cause });
    }

    /// Where a run ended at the earliest, if a lens whose footage ends at `end` was silent by then and `cause` says only that
    /// the recorder came to its end. So long it lived that any lens has footage or an account; but from where the disk was in
    /// trouble on, another lens's footage says nothing of this one's camera. What came before was of an earlier commit, which is
    /// one for all lenses.
    fn silent_until(&self, run: RunId, end: Mono, cause: GapCause) -> Option<Mono> {
        if !matches!(cause, GapCause::RecorderKilled | GapCause::PowerLoss) {
            return None;
        }
        let footage = self.index.lenses().filter_map(|lens| self.index.span(lens, run)).map(|span| span.end);
        let mut lived = footage.max()?;
        let mut trouble = Mono(i64::MAX);
        for ((lens, _), known) in self.gaps.iter().filter(|((_, of), _)| *of == run) {
            let last = self.index.span(lens, run).map(|span| span.end).filter(|last| last.since(end) > TOLD_NS);
            for gap in &known.gaps {
                lived = lived.max(gap.end);
                let is_trouble = match gap.cause {
                    // What waited behind it is written all at once, however long it waited.
                    GapCause::DiskSlow => true,
                    GapCause::DiskFull | GapCause::DiskError => {
                        last.is_none_or(|last| last.since(gap.end) <= SETTLED_NS)
                    }
                    _ => false,
                };
                if is_trouble && gap.end >= end {
                    trouble = trouble.min(gap.start);
                }
            }
        }
        let lived = lived.min(trouble);
        (lived.since(end) > SILENT_NS).then_some(lived)
    }

    /// Why a lens's footage of a run ended where it did.
    fn end_of(&self, lens: &LensId, run: RunId) -> GapCause {
        if self.gaps.get(&(lens.clone(), run)).is_some_and(|known| known.stopped) {
            return GapCause::Stopped;
        }
        let boot = |run: &RunId| self.runs.get(run).and_then(|info| info.boot);
        let next = self.runs.range(RunId(run.0.saturating_add(1))..).next().and_then(|(run, _)| boot(run));
        match (boot(&run), next) {
            (Some(this), Some(next)) if this == next => GapCause::RecorderKilled,
            (Some(_), Some(_)) => GapCause::PowerLoss,
            _ => GapCause::Unknown,
        }
    }

    /// Gaps for what is `missing` at the end of a segment that its run did not close, as far as none is known.
    /// `later` is the end of what was recovered behind it, `border` what is missing in front of that.
    pub(crate) fn gaps_at_end(
        &self,
        id: &SegmentId,
        is_last: bool,
        later: Option<Mono>,
        missing: &[(Mono, Mono)],
        border: Option<(Mono, Mono)>,
    ) -> Vec<Gap> {
        // A segment that is given up in the middle of a run is one that could not be written, also if the run was stopped later.
        let went_on = || missing.last().is_some_and(|(_, end)| self.went_on(&id.lens, id.run, *end, later));
        let cause = match self.end_of(&id.lens, id.run) {
            _ if !is_last => GapCause::DiskError,
            GapCause::Stopped if went_on() => GapCause::DiskError,
            cause => cause,
        };
        let known = self.gaps.get(&(id.lens.clone(), id.run)).map_or(&[][..], |k| &k.gaps);
        // Of a failed disk's gap recovery now saves a part.
        let covers =
            |g: &Gap, from, to| g.start < to && g.end > from && (g.cause != GapCause::DiskError || g.end <= to);
        let is_new = |(from, to): &&(Mono, Mono)| !known.iter().any(|g| covers(g, *from, *to));
        // What the power took is told here, however much of it there was. The rest shows in the index.
        let border = border.filter(|(from, to)| cause == GapCause::PowerLoss || to.since(*from) <= TOLERANCE_NS);
        let untold = |whole: (Mono, Mono)| {
            let mut parts = self.unexplained(&id.lens, id.run, whole.0, whole.1);
            parts.retain(|part| *part == whole || part.1.since(part.0) > ROUNDED_NS);
            parts
        };
        let border = border.map(untold).unwrap_or_default();
        let all = missing.iter().filter(is_new).chain(&border);
        all.map(|(start, end)| Gap { start: *start, end: *end, cause }).collect()
    }

    /// Accounts for every hole in the loaded runs that no gap explains. `lost` names segments that were there, at least in
    /// part; what is told of those is returned, to be put on record: nothing will tell of them once they went from quarantine.
    pub(crate) fn account_for_holes(&mut self, lost: &[SegmentId], present: RunId) -> rusqlite::Result<Vec<LensGap>> {
        let mut of_lost = Vec::new();
        for hole in self.index.holes(TOLERANCE_NS)? {
            if hole.run == present {
                continue;
            }
            let cause = self.cause_of(&hole, lost);
            let mut missing = self.unexplained(&hole.lens, hole.run, hole.start, hole.end);
            missing.retain(|(start, end)| end.since(*start) > TOLERANCE_NS);
            self.note_missing(&hole.lens, hole.run, &missing, cause);
            if cause == GapCause::DiskError {
                let gaps = missing.into_iter().map(|(start, end)| Gap { start, end, cause });
                of_lost.extend(gaps.map(|gap| (hole.lens.clone(), hole.run, gap)));
            }
        }
        let past: Vec<_> = self.gaps.keys().filter(|(_, run)| *run != present).cloned().collect();
        for (lens, run) in past {
            let (missing, cause) = (self.shortened(&lens, run), self.end_of(&lens, run));
            self.note_missing(&lens, run, &missing, cause);
        }
        Ok(of_lost)
    }

    /// Stretches of time between segments that were there once for which nothing tells why nothing is there. `lost` as above.
    pub(crate) fn unaccounted(&self, lost: &[SegmentId]) -> rusqlite::Result<Vec<Unaccounted>> {
        let mut found = Vec::new();
        for hole in self.index.holes(TOLERANCE_NS)? {
            if is_within(&hole, lost) {
                continue;
            }
            let stopped = self.gaps.get(&(hole.lens.clone(), hole.run)).is_some_and(|known| known.stopped);
            let may_be_of_a_cut = is_at_the_end(&hole) && !stopped;
            let cause = if may_be_of_a_cut { self.end_of(&hole.lens, hole.run) } else { GapCause::Unknown };
            let missing = self.unexplained(&hole.lens, hole.run, hole.start, hole.end).into_iter();
            let missing = missing.filter(|(start, end)| end.since(*start) > TOLERANCE_NS);
            found.extend(missing.map(|(start, end)| Unaccounted {
                at: (hole.lens.clone(), hole.run, Gap { start, end, cause }),
                may_be_of_a_cut,
            }));
        }
        Ok(found)
    }

    /// Where the footage of a run ends before a gap that once followed it: a recovery that told the gap was itself cut off,
    /// and what it had read of a killed recorder's pages was not durable.
    fn shortened(&self, lens: &LensId, run: RunId) -> Vec<(Mono, Mono)> {
        let known = self.gaps.get(&(lens.clone(), run)).and_then(|known| known.gaps.iter().map(|g| g.start).max());
        let (Some(last), Some(span)) = (known, self.index.span(lens, run)) else { return Vec::new() };
        let mut missing = self.unexplained(lens, run, span.end, last);
        missing.retain(|(start, end)| end.since(*start) > ROUNDED_NS);
        missing
    }

    /// The parts of a stretch of time that no gap covers.
    fn unexplained(&self, lens: &LensId, run: RunId, from: Mono, to: Mono) -> Vec<(Mono, Mono)> {
        let known = self.gaps.get(&(lens.clone(), run)).map_or(&[][..], |k| &k.gaps);
        let mut at = from;
        let mut missing = Vec::new();
        for gap in known.iter().filter(|g| g.end > from && g.start < to) {
            missing.push((at, gap.start));
            at = at.max(gap.end);
        }
        missing.push((at, to));
        missing.retain(|(start, end)| start < end);
        missing
    }

    fn note_missing(&mut self, lens: &LensId, run: RunId, missing: &[(Mono, Mono)], cause: GapCause) {
        for (start, end) in missing {
            let gap = Gap { start: *start, end: *end, cause };
            self.note(lens, run, GapRecord::Gap { gap, seq: None });
        }
    }

    fn cause_of(&self, hole: &Hole, lost: &[SegmentId]) -> GapCause {
        if is_within(hole, lost) {
            return GapCause::DiskError;
        }
        match self.end_of(&hole.lens, hole.run) {
            GapCause::Stopped => GapCause::Unknown,
            cause if is_at_the_end(hole) => cause,
            _ => GapCause::Unknown,
        }
    }
}

/// One of these segments was there.
fn is_within(hole: &Hole, segments: &[SegmentId]) -> bool {
    let within =
        |id: &SegmentId| id.lens == hole.lens && id.run == hole.run && id.seq >= hole.seqs.0 && id.seq < hole.seqs.1;
    segments.iter().any(within)
}

/// What was not yet durable when a run ended may be lost before something that by chance was.
fn is_at_the_end(hole: &Hole) -> bool {
    // Segments stand by the time that they tell, which need not be that of their numbers.
    hole.follow <= 2 && hole.seqs.1.0.checked_sub(hole.seqs.0.0).is_some_and(|apart| apart <= 2)
}

fn derive(mapping: &Mapping, row: Row) -> SegmentRow {
    let (start_ts, end_ts) = (mapping.utc_of(row.start), mapping.utc_of(row.end));
    SegmentRow { row, start_ts, end_ts, quality: mapping.quality }
}
