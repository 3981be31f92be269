//! How far lenses of the same frame rate are from capturing at the same moment.
//!
//! Pure. It is the phase between their newest pictures' capture times, so it is as good as these: start of frame where the source
//! tells that, else when the picture came.

use mos_hal::clock::Mono;

use super::{CaptureState, LensStatus};

/// Rates that differ by more than this part have no phase.
const SAME: f64 = 0.02;

/// The newest picture's capture time of a lens, and its pictures per second.
type Phase = (Mono, f64);

fn phase(lens: &LensStatus) -> Option<Phase> {
    let streams = lens.state == CaptureState::Streaming && lens.frame_rate > 0.0;
    lens.newest.filter(|_| streams).map(|newest| (newest, lens.frame_rate))
}

/// The skew of `lens` against `reference` in seconds, from minus to plus half a frame; `None` unless both have the same rate.
fn between(lens: Phase, reference: Phase) -> Option<f64> {
    let period = 1e9 / reference.1;
    let same = (lens.1 / reference.1 - 1.0).abs() < SAME;
    let apart = lens.0.since(reference.0) as f64;
    (period.is_finite() && same).then(|| (apart - (apart / period).round() * period) / 1e9)
}

/// Notes the skew of every lens against the first that streams.
pub(super) fn note(lenses: &mut [LensStatus]) {
    let Some(reference) = lenses.iter().find_map(phase) else { return };
    for lens in lenses.iter_mut() {
        lens.skew = phase(lens).and_then(|lens| between(lens, reference));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_skew_is_the_shorter_way_to_the_next_picture() {
        let at = |ms: i64, fps: f64| (Mono(ms * 1_000_000), fps);
        let skew = |lens, reference| between(lens, reference).map(|s| (s * 1e3).round() as i64);
        assert_eq!(skew(at(1_000, 25.0), at(1_000, 25.0)), Some(0));
        assert_eq!(skew(at(1_045, 25.0), at(1_000, 25.1)), Some(5));
        assert_eq!(skew(at(1_000, 25.0), at(1_090, 25.0)), Some(-10));
        assert_eq!(skew(at(1_000, 25.0), at(1_000, 30.0)), None, "other rates have no phase");
    }
}
