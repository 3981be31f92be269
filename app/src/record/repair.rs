//! Repairs capture times of one track: missing, equal, backward and jumping ones.
//!
//! Promises that every unit gets a time, that it is new (never equal to a recent one), lies after the last IDR picture, and
//! is the source's own (`pts` unchanged) as long as the source keeps to that. A time that makes no sense costs no picture: it
//! is replaced by one that follows the latest at the pace of the arrivals. Arrival times, which come from our own clock,
//! judge the source's; they are never used in place of a sound capture time.

use mos_hal::clock::Mono;
use mos_hal::media::{AccessUnit, FrameKind, TrackFormat, VideoCodec};

use super::intake::is_entry;
use super::timing::MAX_REORDER;

/// A forward step that arrival does not confirm is a jump from here on.
const JUMP: i64 = 2_000_000_000;
/// Further than this from its arrival no capture time is believed.
const FAR: i64 = 10_000_000_000;
/// No capture time is beyond this (73 years); keeps arithmetic on hostile input from overflowing.
const ABSURD: i64 = 1 << 61;
/// Distance of frames assumed until the stream has shown its own.
const DEFAULT_STEP: i64 = 40_000_000;
/// Smallest difference that survives rounding to 90 kHz ticks.
pub(crate) const TICK: i64 = 11_112;
const RECENT: usize = MAX_REORDER + 1;

/// What was wrong with a capture time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimeFault {
    /// The source gave none.
    Missing,
    /// Equal to an earlier one, or a little before what may still come.
    NotIncreasing,
    /// Far from where it should be; the source's time was anchored anew.
    Jump,
}

/// The judgement on one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The capture time to record.
    pub pts: Mono,
    /// What had to be mended.
    pub fault: Option<TimeFault>,
}

/// The repairer of one track.
#[derive(Debug)]
pub struct Repair {
    /// Latest admitted times, ascending.
    recent: heapless::Vec<i64, RECENT>,
    /// Added to the source's times since the last jump.
    shift: i64,
    /// Nothing later may come before this.
    floor: i64,
    /// Arrival of the unit with the latest time.
    max_arrival: i64,
    fresh: bool,
    /// How far behind the latest time a picture out of output order was seen.
    reach: i64,
    equal_run: bool,
}

impl Default for Repair {
    fn default() -> Self {
        Self {
            recent: heapless::Vec::new(),
            shift: 0,
            floor: i64::MIN,
            max_arrival: 0,
            fresh: true,
            reach: 0,
            equal_run: false,
        }
    }
}

impl Repair {
    /// The source was opened anew: its time may have another origin, but still may not run back.
    pub fn source_changed(&mut self) {
        self.floor = self.floor.max(self.max().unwrap_or(i64::MIN));
        self.fresh = true;
        self.shift = 0;
        self.reach = 0;
    }

    /// Distance of two frames in nanoseconds, as observed or as the format says.
    #[must_use]
    pub fn step(&self, format: &TrackFormat) -> i64 {
        let told = match format {
            TrackFormat::Video(v) => v.frame_duration.and_then(|d| i64::try_from(d).ok()),
            TrackFormat::Audio(a) => Some(a.unit_duration()),
        };
        let mut apart: heapless::Vec<i64, RECENT> = self.recent.windows(2).map(|w| w[1] - w[0]).collect();
        apart.sort_unstable();
        // The median: pauses and losses do not make the frames' distance longer.
        let seen = apart.get(apart.len() / 2).filter(|_| apart.len() >= RECENT / 2).copied();
        // Of few, some are not there yet that belong between them.
        let least = || apart.first().filter(|_| apart.len() >= 2).copied();
        // What is seen goes before what is told: cameras halve their rate at night and tell the old one.
        let told = told.filter(|d| (100_000..FAR).contains(d));
        seen.or(told).or_else(least).unwrap_or(DEFAULT_STEP).clamp(TICK, JUMP)
    }

    /// Judges the next unit in decoding order.
    pub fn admit(&mut self, unit: &AccessUnit) -> Admitted {
        let arrival = unit.arrival.0;
        let step = self.step(&unit.format);
        let Some(raw) = unit.pts else {
            return self.keep(unit, self.after_max(step, arrival), Some(TimeFault::Missing));
        };
        let raw = raw.0.clamp(-ABSURD, ABSURD);
        let mut shifted = (raw + self.shift).clamp(-ABSURD, ABSURD);
        // Within a group of reordered pictures all keep to one shift, or they would lose their order.
        let closed = self.reach == 0 || is_entry(unit.kind);
        if self.shift != 0 && self.plausible(raw, unit, step) && (closed || !self.plausible(shifted, unit, step)) {
            self.shift = 0;
            shifted = raw;
        }
        if self.plausible(shifted, unit, step) {
            self.equal_run = false;
            return self.keep(unit, shifted, None);
        }
        if let Some(near) = self.nudged(shifted, unit, step) {
            return self.keep(unit, near, Some(TimeFault::NotIncreasing));
        }
        // Pictures that belong before this one are still to come: they get room.
        let anchor = self.after_max(step, arrival).saturating_add(self.reach.min(step * MAX_REORDER as i64));
        self.shift = anchor - raw;
        self.keep(unit, anchor, Some(TimeFault::Jump))
    }

    fn max(&self) -> Option<i64> {
        self.recent.last().copied()
    }

    /// Whether the time may be taken as it is.
    fn plausible(&self, t: i64, unit: &AccessUnit, step: i64) -> bool {
        let arrival = unit.arrival.0;
        if (t - arrival).abs() > FAR || t <= self.floor {
            return false;
        }
        let Some(max) = self.max() else { return true };
        if self.fresh {
            return t > max;
        }
        if t > max {
            // A step to what is not in the future is the end of a pause, or of a delay.
            let elapsed = (arrival - self.max_arrival).max(0);
            return t <= arrival || t - max <= elapsed + JUMP.max(2 * step);
        }
        // Only pictures out of output order may lie before the latest time, and only so many of them.
        let later = self.recent.iter().filter(|r| **r > t).count();
        let new = !self.recent.iter().any(|r| (r - t).abs() < TICK);
        let may_reorder = matches!(unit.kind, FrameKind::Delta | FrameKind::Rasl);
        new && may_reorder && later <= reorder_limit(&unit.format)
    }

    /// A time close to an implausible one that is equal or a little too early; `None` if it is not of that kind.
    fn nudged(&mut self, t: i64, unit: &AccessUnit, step: i64) -> Option<i64> {
        let max = self.max()?;
        if self.fresh || t > max || max - t > 4 * step || (t - unit.arrival.0).abs() > FAR {
            return None;
        }
        let reorders = reorder_limit(&unit.format) > 0 && unit.kind == FrameKind::Delta && t > self.floor;
        if reorders && t < max {
            let mut free = t;
            while self.recent.iter().any(|r| (r - free).abs() < TICK) {
                free += TICK;
            }
            return (free < max).then_some(free);
        }
        // Half a step leaves room for a source that goes on as if nothing had been; a run of them goes on at full steps.
        let ahead = if self.equal_run { step } else { step / 2 };
        self.equal_run = true;
        Some(max + ahead.max(TICK))
    }

    fn after_max(&self, step: i64, arrival: i64) -> i64 {
        let Some(max) = self.max() else { return arrival };
        let elapsed = arrival - self.max_arrival;
        let lowest = max.max(self.floor) + TICK.max(if self.fresh { TICK } else { step });
        if self.fresh || elapsed > 2 * step { lowest.max(arrival.min(max.saturating_add(elapsed))) } else { lowest }
    }

    fn keep(&mut self, unit: &AccessUnit, t: i64, fault: Option<TimeFault>) -> Admitted {
        match self.max() {
            Some(max) if t < max && fault.is_none() => self.reach = self.reach.max(max - t),
            Some(max) if t < max => {}
            _ => self.max_arrival = unit.arrival.0,
        }
        self.fresh = false;
        if closes_output(unit) {
            self.floor = t;
        }
        if self.recent.is_full() {
            self.recent.remove(0);
        }
        let place = self.recent.iter().position(|r| *r > t).unwrap_or(self.recent.len());
        // Cannot fail: one place was just made free.
        let _ = self.recent.insert(place, t);
        Admitted { pts: Mono(t), fault }
    }
}

/// Nothing decoded after an H.264 IDR picture is shown before it (7.4.1.2.4); H.265 may have leading pictures there. Sound has
/// no reordering.
fn closes_output(unit: &AccessUnit) -> bool {
    match &*unit.format {
        TrackFormat::Video(v) => unit.kind == FrameKind::Idr && v.codec == VideoCodec::H264,
        TrackFormat::Audio(_) => true,
    }
}

fn reorder_limit(format: &TrackFormat) -> usize {
    match format {
        TrackFormat::Video(v) if v.reorder > 0 => usize::from(v.reorder).min(MAX_REORDER),
        TrackFormat::Video(_) => MAX_REORDER,
        TrackFormat::Audio(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use mos_hal::media::VideoFormat;
    use proptest::prelude::*;

    use super::super::segment_file::video_of;
    use super::super::testing::{MS, unit_at, video_format};
    use super::*;

    fn run(times: &[(Option<i64>, FrameKind)]) -> Vec<(i64, Option<TimeFault>)> {
        let format = video_format(0);
        let mut repair = Repair::default();
        times
            .iter()
            .enumerate()
            .map(|(n, (pts, kind))| {
                let unit = unit_at(&format, pts.map(|p| p * MS), n as i64 * 40 * MS, *kind);
                let Admitted { pts, fault } = repair.admit(&unit);
                (pts.0 / MS, fault)
            })
            .collect()
    }

    #[test]
    fn sound_times_pass_unchanged() {
        let got = run(&[
            (Some(0), FrameKind::Idr),
            (Some(120), FrameKind::Delta),
            (Some(40), FrameKind::Delta),
            (Some(80), FrameKind::Delta),
            (Some(160), FrameKind::Idr),
        ]);
        assert_eq!(got, [(0, None), (120, None), (40, None), (80, None), (160, None)]);
    }

    #[test]
    fn missing_and_equal_times_are_filled_in() {
        use TimeFault::{Missing, NotIncreasing};
        let got = run(&[
            (Some(0), FrameKind::Idr),
            (None, FrameKind::Delta),
            (Some(80), FrameKind::Delta),
            (Some(80), FrameKind::Idr),
            (Some(160), FrameKind::Delta),
        ]);
        assert_eq!(got[1], (40, Some(Missing)));
        assert_eq!(got[3], (100, Some(NotIncreasing)));
        assert_eq!(got[4], (160, None));
    }

    #[test]
    fn a_jump_is_anchored_and_undone() {
        use TimeFault::Jump;
        let got = run(&[
            (Some(0), FrameKind::Idr),
            (Some(40), FrameKind::Delta),
            (Some(3_600_000), FrameKind::Delta),
            (Some(120), FrameKind::Delta),
            (Some(160), FrameKind::Delta),
            (Some(-3_600_000), FrameKind::Delta),
            (Some(-3_599_960), FrameKind::Delta),
        ]);
        assert_eq!(got[2], (80, Some(Jump)));
        assert_eq!(got[3], (120, None));
        assert_eq!(got[4], (160, None));
        assert_eq!(got[5], (200, Some(Jump)));
        assert_eq!(got[6], (240, None));
    }

    #[test]
    fn the_step_is_what_is_seen_and_outages_do_not_stretch_it() {
        let told = Arc::new(TrackFormat::Video(VideoFormat {
            frame_duration: Some(40 * MS as u64),
            ..video_of(&video_format(0)).unwrap().clone()
        }));
        let mut repair = Repair::default();
        assert_eq!(repair.step(&told), 40 * MS);
        for n in 0..30 {
            let pause = if n >= 20 { 9_000 } else { 0 };
            let at = (n * 80 + pause) * MS;
            repair.admit(&unit_at(&told, Some(at), at, FrameKind::Delta));
        }
        assert_eq!(repair.step(&told), 80 * MS);
    }

    #[test]
    fn a_pause_of_the_camera_is_no_jump() {
        let format = video_format(0);
        let mut repair = Repair::default();
        for (pts, arrival) in [(0, 0), (40, 50), (8_000, 8_010)] {
            let unit = unit_at(&format, Some(pts * MS), arrival * MS, FrameKind::Delta);
            assert_eq!(repair.admit(&unit), Admitted { pts: Mono(pts * MS), fault: None });
        }
    }

    proptest! {
        /// Whatever the source says: no stop, never twice the same tick among neighbours, and nothing before the last IDR.
        #[test]
        fn nothing_stops_it(
            plan in proptest::collection::vec((prop_oneof![
                Just(None),
                (-100i64..400).prop_map(Some),
                any::<i32>().prop_map(|v| Some(i64::from(v))),
                Just(Some(i64::MAX / 1_000_000)), Just(Some(i64::MIN / 1_000_000)),
            ], 0u8..10), 1..200),
            reorder in 0u8..4,
        ) {
            let format = video_format(reorder);
            let mut repair = Repair::default();
            let mut floor = i64::MIN;
            let mut recent: Vec<i64> = Vec::new();
            for (n, (offset, kind)) in plan.iter().enumerate() {
                let arrival = n as i64 * 40 * MS;
                let kind = if *kind == 0 { FrameKind::Idr } else { FrameKind::Delta };
                let pts = offset.map(|o| if o.abs() < 1000 { arrival + o * MS } else { o.saturating_mul(MS) });
                let Admitted { pts, .. } = repair.admit(&unit_at(&format, pts, arrival, kind));
                prop_assert!(pts.0 > floor, "{} before {floor}", pts.0);
                prop_assert!(recent.iter().all(|r| (r - pts.0).abs() >= TICK - 1));
                if kind == FrameKind::Idr { floor = pts.0; }
                recent.push(pts.0);
                if recent.len() > MAX_REORDER { recent.remove(0); }
            }
        }
    }
}
