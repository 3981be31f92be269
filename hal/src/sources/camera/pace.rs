//! Keeps a camera that runs faster than it was asked to at the rate that was asked for: an HDMI input has the rate of its
//! signal, whatever it is told.
//!
//! Promises that pictures of a camera which keeps to its rate, jitter and crystals allowed for, all pass; that what is left
//! out was not asked for, so it is no gap; and that caps behind it tell the rate that is left. Never holds a picture.

use std::sync::{Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;

/// Intervals that are averaged over; and so many pictures pass before anything is judged.
const AVERAGED: u64 = 8;
/// A pause, in ns, that says nothing of the rate.
const PAUSE: u64 = 1_000_000_000;

/// Which pictures are taken, by their capture times in ns.
struct Pace {
    /// Between pictures as asked for, in ns.
    period: u64,
    last: Option<u64>,
    /// Between pictures as they come.
    interval: u64,
    seen: u64,
    /// When the next is due, while there are too many.
    due: u64,
}

impl Pace {
    fn new(fps: u32) -> Self {
        Self { period: 1_000_000_000 / u64::from(fps.max(1)), last: None, interval: 0, seen: 0, due: 0 }
    }

    fn takes(&mut self, at: u64) -> bool {
        let step = self.last.replace(at).map_or(0, |last| at.saturating_sub(last));
        if step > 0 && step < PAUSE {
            self.seen += 1;
            let known = self.seen.min(AVERAGED);
            self.interval = (self.interval * (known - 1) + step) / known;
        }
        // An eighth faster than asked for is no crystal's fault.
        let hurries = self.seen >= AVERAGED && self.interval * 9 / 8 <= self.period;
        if hurries && at + self.interval / 2 < self.due {
            return false;
        }
        let next = self.due + self.period;
        self.due = if hurries && next > at { next } else { at + self.period };
        true
    }
}

/// Leaves out at a pad what was not asked for.
pub(super) fn keep(pad: &gst::Pad, fps: u32) {
    let pace = Mutex::new(Pace::new(fps));
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let Some(at) = info.buffer().and_then(|buffer| buffer.pts()) else { return gst::PadProbeReturn::Ok };
        let taken = pace.lock().unwrap_or_else(PoisonError::into_inner).takes(at.nseconds());
        if taken { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Drop }
    });
    let asked = gst::Fraction::new(fps.cast_signed(), 1);
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let slower = info.event().and_then(|event| match event.view() {
            gst::EventView::Caps(caps) => {
                let told = caps.caps().structure(0)?.get::<gst::Fraction>("framerate").ok()?;
                let mut caps = caps.caps_owned();
                // 29.97 stays what it is.
                (told > asked).then(|| caps.make_mut().set("framerate", asked))?;
                Some(caps)
            }
            _ => None,
        });
        if let Some(caps) = slower {
            info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&caps)));
        }
        gst::PadProbeReturn::Ok
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn taken(fps: u32, times: impl Iterator<Item = u64>) -> Vec<u64> {
        let mut pace = Pace::new(fps);
        times.filter(|at| pace.takes(*at)).collect()
    }

    #[test]
    fn a_camera_that_keeps_to_its_rate_loses_nothing() {
        // One in a hundred too fast, one too slow, and one that jitters by a third of a frame; for ten minutes.
        for period in [33_000_000, 33_700_000] {
            assert_eq!(taken(30, (0..18_000).map(|n| 5 + n * period)).len(), 18_000);
        }
        let jitter = (0..18_000u64).map(|n| 1_000 * MS + n * 33_333_333 + n * 7919 % 11 * MS);
        assert_eq!(taken(30, jitter).len(), 18_000);
        assert_eq!(taken(30, (0..900).map(|n| n * 66 * MS)).len(), 900, "slow in the dark");
    }

    #[test]
    fn a_camera_that_hurries_is_left_at_the_rate_that_was_asked_for() {
        for (rate, fps) in [(60, 30), (50, 25), (60, 25), (30, 25), (120, 15)] {
            let seconds = 60;
            let came = (0..rate * seconds).map(|n| 7 + n * 1_000_000_000 / rate);
            let left = taken(u32::try_from(fps).unwrap_or(1), came);
            let expected = (fps * seconds) as usize;
            assert!(left.len() >= expected && left.len() <= expected + 8, "{rate} to {fps}: {}", left.len());
        }
        // A broadcast's 59.94: every second one, but for a step now and then.
        let left = taken(30, (0..3600).map(|n| n * 16_683_333));
        assert!((1800..1812).contains(&left.len()), "{}", left.len());
    }

    #[test]
    fn a_pause_changes_nothing() {
        let came = (0..600).map(|n| n * 16 * MS).chain((0..600).map(|n| 100_000 * MS + n * 16 * MS));
        let left = taken(30, came);
        let after = left.iter().filter(|at| **at >= 100_000 * MS).count();
        assert!((285..300).contains(&after), "{after}");
    }
}
