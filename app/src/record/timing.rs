//! Decode times for one track of one segment, from capture times alone and without waiting for later units.
//!
//! Let R be the reorder depth. When a unit has arrived, at most R units that follow it in output order precede it in
//! decoding order, so the (R+1)-th largest capture time seen so far is final: no later unit can come before it. That value,
//! moved by R frame steps so that the first unit decodes at the segment's start, is the unit's decode time. For a constant
//! frame rate it equals the n-th smallest capture time, the value a fragment cut where reordering is closed would give, but
//! nothing is held back, so a power cut costs no frame that reordering kept in memory. Composition offsets are signed.
//!
//! Invariants: T1 decode times strictly increase over a whole segment; T2 capture times are kept to one tick; T3 every unit
//! gets a time: a depth that proves too small costs even steps, never a unit.

use mos_hal::clock::Mono;
use mos_mp4::Ticks;

/// Most frames that may precede a frame in decoding order and follow it in output order: the largest decoded picture buffer
/// of both codecs (ITU-T H.264 A.3.1, H.265 A.4.2).
pub const MAX_REORDER: usize = 16;

/// The times of one sample, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleTimes {
    /// Decode time.
    pub dts: Ticks,
    /// Capture time.
    pub pts: Ticks,
}

/// Gives decode times to the units of one track of one segment, in decoding order.
#[derive(Debug)]
pub struct DecodeTimes {
    depth: usize,
    step: Ticks,
    /// The `depth + 1` largest capture times so far, ascending.
    top: heapless::Vec<Ticks, { MAX_REORDER + 2 }>,
    count: Ticks,
    next_free: Ticks,
}

impl DecodeTimes {
    /// For a stream of reorder depth `depth` whose frames are about `step` ticks apart; the first decodes at `first`.
    #[must_use]
    pub fn new(depth: usize, step: Ticks, first: Ticks) -> Self {
        let step = step.max(1);
        Self { depth: depth.min(MAX_REORDER), step, top: heapless::Vec::new(), count: 0, next_free: first }
    }

    /// Times of the next unit, whose capture time is `pts`.
    pub fn next(&mut self, pts: Ticks) -> SampleTimes {
        let place = self.top.iter().position(|t| *t > pts).unwrap_or(self.top.len());
        // Cannot fail: the window has one place more than it ever keeps.
        let _ = self.top.insert(place, pts);
        if self.top.len() > self.depth + 1 {
            self.top.remove(0);
        }
        let ideal = if self.top.len() == self.depth + 1 {
            self.top[0] + self.depth as i64 * self.step
        } else {
            self.next_free + if self.count == 0 { 0 } else { self.step - 1 }
        };
        let dts = ideal.max(self.next_free);
        self.count += 1;
        self.next_free = dts + 1;
        SampleTimes { dts, pts }
    }

    /// Keeps the next decode time at or after `at`, the end of what was written (ISO/IEC 14496-12, 8.8.12).
    pub fn not_before(&mut self, at: Ticks) {
        self.next_free = self.next_free.max(at);
    }

    /// Places in output order before the latest unit that are still empty because what belongs there is decoded later: from
    /// the end of one frame to the next one. If the stream ends here, those frames are missing.
    pub fn open_places(&self) -> impl Iterator<Item = (Ticks, Ticks)> + '_ {
        let apart = |pair: &[Ticks]| (pair[0] + self.step, pair[1]);
        self.top.windows(2).map(apart).filter(|(from, to)| 2 * (to - from) > self.step)
    }

    /// Frame step in ticks.
    #[must_use]
    pub fn step(&self) -> Ticks {
        self.step
    }
}

/// Learns how far a stream reorders, for sources whose parameter sets do not say.
#[derive(Clone, Debug, Default)]
pub struct Learner {
    recent: heapless::Vec<i64, { MAX_REORDER + 1 }>,
    now: usize,
    before: usize,
}

impl Learner {
    /// Sees a capture time in decoding order; `keyframe` at an entry point, where old knowledge starts to fade.
    pub fn see(&mut self, pts: Mono, keyframe: bool) {
        if keyframe {
            self.before = self.now;
            self.now = 0;
        }
        let later = self.recent.iter().filter(|r| **r > pts.0).count();
        self.now = self.now.max(later).min(MAX_REORDER);
        if self.recent.is_full() {
            self.recent.remove(0);
        }
        // Cannot fail: one place was just made free.
        let _ = self.recent.push(pts.0);
    }

    /// The depth seen in this group of pictures and the one before.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.now.max(self.before)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::testing::order;
    use super::*;

    fn depth_of(order: &[i64]) -> usize {
        let mut learner = Learner::default();
        for i in order {
            learner.see(Mono(*i), false);
        }
        learner.depth()
    }

    #[test]
    fn constant_rate_decodes_in_even_steps() {
        for (b, pyramid) in [(0, false), (1, false), (2, false), (3, true), (7, true)] {
            let order = order(60, b, pyramid);
            let mut times = DecodeTimes::new(depth_of(&order), 3600, 0);
            for (n, i) in order.iter().enumerate() {
                let t = times.next(i * 3600);
                assert_eq!(t.dts, n as i64 * 3600, "b={b} frame {n}");
                assert_eq!(t.pts, i * 3600);
            }
        }
    }

    #[test]
    fn what_reordering_still_owes_is_known() {
        let mut times = DecodeTimes::new(2, 3600, 0);
        let mut owed = Vec::new();
        for i in [0, 4, 2, 1, 3, 8] {
            times.next(i * 3600);
            owed.push(times.open_places().map(|(from, to)| (from / 3600, to / 3600)).collect::<Vec<_>>());
        }
        assert_eq!(owed, [vec![], vec![(1, 4)], vec![(1, 2), (3, 4)], vec![(3, 4)], vec![], vec![(5, 8)]]);
    }

    proptest! {
        /// T1, T2 and T3, also with a variable rate and a depth that is wrong.
        #[test]
        fn times_increase_and_nothing_is_lost(
            b in 0usize..5, pyramid: bool,
            gaps in proptest::collection::vec(12_000i64..900_000_000, 80),
            wrong in 0usize..4,
        ) {
            let order = order(60, b, pyramid);
            let scale = mos_mp4::VIDEO_TIMESCALE;
            let mut output = vec![77];
            for g in &gaps { output.push(output[output.len() - 1] + g); }
            let right = depth_of(&order);
            let depth = if wrong == 0 { right } else { right.saturating_sub(wrong) };
            let mut times = DecodeTimes::new(depth, scale.ticks(40_000_000), 0);
            let mut last = -1;
            for (n, i) in order.iter().enumerate() {
                let pts = Mono(output[*i as usize]);
                let t = times.next(scale.ticks(pts.0 - 77));
                prop_assert!(t.dts > last);
                last = t.dts;
                let back = i128::from(t.pts) * 1_000_000_000 / 90_000 + 77;
                prop_assert!((back - i128::from(pts.0)).abs() <= 11_112);
                if n == 0 { prop_assert_eq!(t, SampleTimes { dts: 0, pts: 0 }); }
            }
        }

        /// Decode times never run far ahead of output when the depth is right.
        #[test]
        fn decode_stays_near_output(b in 0usize..5, pyramid: bool, jitter in proptest::collection::vec(-300i64..300, 80)) {
            let order = order(60, b, pyramid);
            let depth = depth_of(&order);
            let mut times = DecodeTimes::new(depth, 3600, 0);
            for i in &order {
                let pts = i * 3600 + if *i == 0 { 0 } else { jitter[*i as usize] };
                let t = times.next(pts);
                prop_assert!(t.dts - t.pts <= depth as i64 * 3600 + 600, "{t:?}");
            }
        }
    }
}
