//! The ledger of one lens: which moments of a run are covered by footage, and why the others are not.
//!
//! Promises (A1) that covered spans and emitted gaps follow one another without hole or overlap from the start of the run
//! to its last moment accounted for, and (A2) that a long absence is put on record in pieces while it lasts, so that a
//! power cut in the middle of it does not turn a dead camera into a power loss. While a source is being opened nothing is
//! added, for what it delivers first may have been captured since. Pure: times in, gaps out.

use std::collections::VecDeque;

use mos_hal::clock::Mono;

use crate::archive::gaps::{Gap, GapCause};

/// Footage of a moment may still arrive this long after it, from a source that is up and from one that is down; a piece on
/// record ends that much before now.
const LATE_UP: i64 = 2_000_000_000;
const LATE_DOWN: i64 = 250_000_000;
/// What a source delivers at first may have been captured since it was opened; later than this it does not begin.
const OPENING: i64 = 12_000_000_000;
/// No frame is captured so much before another that is decoded before it.
const REORDERED: i64 = 1_000_000_000;
/// Longest piece of an absence put on record while it lasts.
const PIECE_MAX: i64 = 60_000_000_000;
/// Gaps on record that are remembered: more are not told between two commits.
const TOLD: usize = 64;

/// The ledger of one lens in one run.
#[derive(Debug)]
pub struct Absence {
    state: State,
    gaps: Vec<Gap>,
    /// The last gaps that were taken.
    told: VecDeque<Gap>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// From the end of what is accounted for; where it ends is a guess until the frame behind it comes.
    Covered {
        from: Mono,
        until: Mono,
    },
    Absent {
        begun: Mono,
        since: Mono,
        cause: GapCause,
        source: Source,
    },
}

/// What is known of the source of an absent lens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Up,
    Down,
    /// It is being opened since then.
    Opened(Mono),
}

impl Absence {
    /// A lens without footage since `start`, because it is starting.
    #[must_use]
    pub fn starting(start: Mono) -> Self {
        let state = State::Absent { begun: start, since: start, cause: GapCause::Starting, source: Source::Up };
        Self { state, gaps: Vec::new(), told: VecDeque::new() }
    }

    /// Footage begins at `at`, if the lens was absent.
    pub fn footage_from(&mut self, at: Mono) {
        if let State::Absent { since, cause, .. } = self.state {
            self.emit(since, at, cause);
            let from = at.max(since);
            self.state = State::Covered { from, until: from };
        }
    }

    /// Footage reaches to `until` now, which may be before what was thought of it: the last frame of a segment lasts as long as
    /// frames did so far, until the next segment shows how long it was.
    pub fn footage_to(&mut self, until: Mono) {
        if let State::Covered { from, until: u } = &mut self.state {
            *u = until.max(*from);
        }
    }

    /// Footage is missing from `from` on (or from where it ended, if nothing better is known) because of `cause`. `from` may
    /// be what a source says: only as far back as reordering goes is it believed.
    /// If the lens is absent already, the reason it is absent for stays.
    pub fn hole(&mut self, from: Option<Mono>, cause: GapCause) {
        if let State::Covered { until, .. } = self.state {
            let since = from.map_or(until, |f| f.min(until).max(Mono(until.0.saturating_sub(REORDERED))));
            self.state = State::Absent { begun: since, since, cause, source: Source::Up };
        }
    }

    /// What was thought to be footage from `from` on was lost on its way to the disk. What is on record of that time stays as it is.
    pub fn lost_from(&mut self, from: Mono, cause: GapCause) {
        self.gaps.retain(|g| g.start < from);
        if let Some(last) = self.gaps.last_mut() {
            last.end = last.end.min(from);
        }
        match self.state {
            State::Absent { since, .. } if since <= from => {}
            _ => {
                let mut told: Vec<Gap> = self.told.iter().filter(|gap| gap.end > from).copied().collect();
                told.sort_by_key(|gap| gap.start);
                let mut since = from;
                for gap in told {
                    self.emit(since, gap.start, cause);
                    since = since.max(gap.end);
                }
                self.state = State::Absent { begun: from, since, cause, source: Source::Up };
            }
        }
    }

    /// A span that counted as footage was lost, and footage goes on behind it.
    pub fn lost_between(&mut self, from: Mono, to: Mono, cause: GapCause) {
        self.emit(from, to, cause);
    }

    /// The source is down since `at` because of `cause`; replaces the reason of an absence from then on. What was silent
    /// before `at` is part of the same trouble.
    pub fn down(&mut self, at: Mono, cause: GapCause) {
        match self.state {
            State::Covered { until, .. } => {
                self.state = State::Absent { begun: until, since: until, cause, source: Source::Down };
            }
            State::Absent { begun, since, cause: old, .. } => {
                let at = if old == cause { since } else { at.max(since) };
                self.emit(since, at, old);
                self.state = State::Absent { begun, since: at, cause, source: Source::Down };
            }
        }
    }

    /// A source is being opened from `at` on; nothing that it delivers was captured before.
    pub fn opened(&mut self, at: Mono) {
        if let State::Absent { source, .. } = &mut self.state {
            *source = Source::Opened(at);
        }
    }

    /// Puts a piece of a lasting absence on record if one is due.
    pub fn keep_record(&mut self, now: Mono) {
        let State::Absent { begun, since, cause, source } = self.state else { return };
        let end = match source {
            Source::Opened(at) if now.since(at) <= OPENING => at.min(Mono(now.0 - LATE_DOWN)),
            Source::Up | Source::Opened(_) => Mono(now.0 - LATE_UP),
            Source::Down => Mono(now.0 - LATE_DOWN),
        };
        let due = (end.since(begun) / 8).clamp(1, PIECE_MAX);
        if end.since(since) >= due {
            self.emit(since, end, cause);
            self.state = State::Absent { begun, since: end, cause, source };
        }
    }

    /// The run ends at `at`: whatever is open is put on record.
    pub fn finish(&mut self, at: Mono) {
        if let State::Absent { begun, since, cause, source } = self.state {
            self.emit(since, at, cause);
            self.state = State::Absent { begun, since: at.max(since), cause, source };
        }
    }

    /// Gaps that came up since the last call, in order.
    pub fn take(&mut self) -> Vec<Gap> {
        let gaps = std::mem::take(&mut self.gaps);
        self.told.extend(&gaps);
        self.told.drain(..self.told.len().saturating_sub(TOLD));
        gaps
    }

    /// Why the lens is absent now, if it is.
    #[must_use]
    pub fn cause(&self) -> Option<GapCause> {
        match self.state {
            State::Covered { .. } => None,
            State::Absent { cause, .. } => Some(cause),
        }
    }

    /// Up to where the lens is covered, if it is.
    #[must_use]
    pub fn covered_until(&self) -> Option<Mono> {
        match self.state {
            State::Covered { until, .. } => Some(until),
            State::Absent { .. } => None,
        }
    }

    /// Since when the lens has been absent, all reasons together.
    #[must_use]
    pub fn absent_since(&self) -> Option<Mono> {
        match self.state {
            State::Covered { .. } => None,
            State::Absent { begun, .. } => Some(begun),
        }
    }

    fn emit(&mut self, start: Mono, end: Mono, cause: GapCause) {
        if end <= start {
            return;
        }
        if let Some(last) = self.gaps.last_mut()
            && last.cause == cause
            && last.end == start
        {
            last.end = end;
            return;
        }
        self.gaps.push(Gap { start, end, cause });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const S: i64 = 1_000_000_000;

    #[test]
    fn each_reason_gets_its_own_span() {
        let mut a = Absence::starting(Mono(0));
        a.down(Mono(3), GapCause::CameraAbsent);
        a.down(Mono(5), GapCause::CameraRefused);
        a.footage_from(Mono(9));
        a.footage_to(Mono(20));
        a.hole(Some(Mono(18)), GapCause::PacketLoss);
        a.hole(None, GapCause::DiskSlow);
        a.footage_from(Mono(25));
        let got: Vec<_> = a.take().iter().map(|g| (g.start.0, g.end.0, g.cause)).collect();
        assert_eq!(
            got,
            [
                (0, 3, GapCause::Starting),
                (3, 5, GapCause::CameraAbsent),
                (5, 9, GapCause::CameraRefused),
                (18, 25, GapCause::PacketLoss)
            ]
        );
    }

    #[test]
    fn a1_what_an_opened_source_captured_first_is_in_no_gap() {
        let mut a = Absence::starting(Mono(0));
        a.footage_from(Mono(0));
        a.footage_to(Mono(S));
        a.down(Mono(2 * S), GapCause::CameraBrokeOff);
        a.keep_record(Mono(30 * S));
        a.opened(Mono(30 * S));
        for half in 60..80 {
            a.keep_record(Mono(half * S / 2));
        }
        // The server took its time, and all that was captured since the connection comes at once.
        a.footage_from(Mono(31 * S));
        let got: Vec<_> = a.take().iter().map(|g| (g.start.0, g.end.0)).collect();
        assert_eq!(got, [(S, 31 * S)]);
    }

    #[test]
    fn a1_what_is_on_record_is_not_told_again_where_the_footage_around_it_is_lost() {
        let mut a = Absence::starting(Mono(0));
        a.footage_from(Mono(0));
        a.footage_to(Mono(2 * S));
        a.down(Mono(3 * S), GapCause::CameraBrokeOff);
        a.footage_from(Mono(4 * S));
        let on_record: Vec<_> = a.take().iter().map(|g| (g.start.0, g.end.0, g.cause)).collect();
        assert_eq!(on_record, [(2 * S, 4 * S, GapCause::CameraBrokeOff)]);
        a.footage_to(Mono(5 * S));
        a.lost_from(Mono(S), GapCause::DiskFull);
        a.footage_from(Mono(7 * S));
        let got: Vec<_> = a.take().iter().map(|g| (g.start.0, g.end.0, g.cause)).collect();
        assert_eq!(got, [(S, 2 * S, GapCause::DiskFull), (4 * S, 7 * S, GapCause::DiskFull)]);
    }

    #[test]
    fn a2_a_lasting_absence_is_on_record_before_it_ends() {
        let mut a = Absence::starting(Mono(0));
        a.footage_from(Mono(0));
        a.footage_to(Mono(S));
        a.down(Mono(11 * S), GapCause::CameraStalled);
        let mut lines = 0;
        let mut until = Mono(S);
        for half in 22..7200 {
            let now = Mono(half * S / 2);
            a.keep_record(now);
            for g in a.take() {
                assert_eq!(g.start, until);
                until = g.end;
                lines += 1;
            }
            let late = (now.since(Mono(S)) / 8).min(PIECE_MAX) + S;
            assert!(now.since(until) <= late, "at {now:?} on record up to {until:?}");
        }
        assert!(lines < 120, "{lines} lines in an hour");
    }

    proptest! {
        /// A1, with whatever order of events.
        #[test]
        fn spans_follow_one_another(events in proptest::collection::vec((0u8..6, 0i64..3_000), 1..100)) {
            let mut a = Absence::starting(Mono(0));
            let mut now = 0;
            let mut covered: Vec<(i64, i64)> = Vec::new();
            let causes = [GapCause::CameraAbsent, GapCause::DiskSlow, GapCause::PacketLoss];
            for (kind, d) in events {
                now += d * 1_000_000;
                let cause = causes[(d % 3) as usize];
                match kind {
                    0 | 1 => {
                        if a.cause().is_some() { a.footage_from(Mono(now)); covered.push((now, now)); }
                        // How long the frame lasts is first thought wrongly.
                        a.footage_to(Mono(now + 700_000_000));
                        now += 40_000_000;
                        a.footage_to(Mono(now));
                        covered.last_mut().unwrap().1 = now;
                    }
                    2 => a.hole(None, cause),
                    3 => a.down(Mono(now), cause),
                    _ => a.keep_record(Mono(now)),
                }
            }
            now += 1;
            a.finish(Mono(now));
            let mut spans: Vec<(i64, i64)> = a.take().iter().map(|g| (g.start.0, g.end.0)).collect();
            spans.extend(covered.iter().filter(|c| c.1 > c.0));
            spans.sort_unstable();
            let mut at = 0;
            for (start, end) in spans {
                prop_assert_eq!(start, at);
                at = end;
            }
            let end = a.covered_until().map_or(now, |c| c.0);
            prop_assert_eq!(at, end);
        }
    }
}
