//! Time inside a file: ticks of a track's timescale, counted from the segment's monotonic start.
//!
//! Everything that turns nanoseconds into ticks does it here, so that recorder and clip round alike.

/// Ticks per second of every video track.
pub const VIDEO_TIMESCALE: Timescale = Timescale(90_000);

/// Ticks per second of `mvhd` and of every edit's duration.
pub const MOVIE_TIMESCALE: Timescale = VIDEO_TIMESCALE;

/// Audio access units that a clip starts early, so that the decoder has settled when sound is heard
/// (AAC's overlap is one frame, ISO/IEC 14496-3; G.711 needs none and is not hurt).
pub const AUDIO_PRIMING_UNITS: usize = 1;

const NANOS: i128 = 1_000_000_000;

/// A point in or a length of a track, in ticks of its timescale.
pub type Ticks = i64;

/// Ticks per second; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timescale(u32);

impl Timescale {
    /// A timescale, unless it is 0.
    #[must_use]
    pub fn new(per_second: u32) -> Option<Self> {
        (per_second > 0).then_some(Self(per_second))
    }

    /// Ticks per second.
    #[must_use]
    pub fn per_second(self) -> u32 {
        self.0
    }

    /// The tick nearest to `nanos`.
    #[must_use]
    pub fn ticks(self, nanos: i64) -> Ticks {
        narrow(round_div(i128::from(nanos) * i128::from(self.0), NANOS))
    }

    /// The nanosecond nearest to `ticks`.
    #[must_use]
    pub fn nanos(self, ticks: Ticks) -> i64 {
        narrow(round_div(i128::from(ticks) * NANOS, i128::from(self.0)))
    }

    /// `ticks` of this scale in ticks of `to`, rounded to nearest.
    #[must_use]
    pub fn rescale(self, ticks: Ticks, to: Timescale) -> Ticks {
        narrow(round_div(i128::from(ticks) * i128::from(to.0), i128::from(self.0)))
    }
}

/// When each unit of a reorder-closed run of video units is decoded, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Decode time in ticks.
    pub dts: Ticks,
    /// Ticks until the next unit's decode time.
    pub duration: u32,
    /// Presentation minus decode time, negative for units that are shown before their place in decoding order.
    pub cts: i32,
}

/// Decode times for units whose presentation times are given in decoding order: the sorted presentation times.
///
/// The units must be closed under reordering: everything after them is presented later. `next` is the presentation time of
/// what follows, or what the last unit's end is taken to be. Equal times are spread by one tick each, so that none is lost.
#[must_use]
pub fn order(presentation: &[Ticks], next: Ticks) -> Vec<Timing> {
    let mut sorted = presentation.to_vec();
    sorted.sort_unstable();
    for i in 1..sorted.len() {
        if sorted[i] <= sorted[i - 1] {
            sorted[i] = sorted[i - 1] + 1;
        }
    }
    let ends = sorted.iter().skip(1).copied().chain(std::iter::once(next));
    let ends: Vec<_> = ends.collect();
    presentation
        .iter()
        .zip(sorted.iter().zip(ends))
        .map(|(&pts, (&dts, end))| Timing {
            dts,
            duration: u32::try_from((end - dts).max(1)).unwrap_or(u32::MAX),
            cts: i32::try_from(pts - dts).unwrap_or(0),
        })
        .collect()
}

fn round_div(n: i128, d: i128) -> i128 {
    (n + d / 2).div_euclid(d)
}

fn narrow(v: i128) -> i64 {
    i64::try_from(v).unwrap_or(if v < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_survive_the_way_to_nanoseconds_and_back() {
        for ticks in [0, 1, 2999, 3000, 3_600 * 90_000, -1, -3003, i64::from(u32::MAX) * 4] {
            assert_eq!(VIDEO_TIMESCALE.ticks(VIDEO_TIMESCALE.nanos(ticks)), ticks);
        }
    }

    #[test]
    fn rounding_is_to_nearest_on_both_sides_of_zero() {
        assert_eq!(VIDEO_TIMESCALE.ticks(33_333_333), 3000);
        assert_eq!(VIDEO_TIMESCALE.ticks(-33_333_333), -3000);
        assert_eq!(VIDEO_TIMESCALE.ticks(i64::MAX), 830_103_483_316_930);
    }

    #[test]
    fn b_frames_get_negative_offsets_and_sorted_decode_times() {
        let t = order(&[0, 9000, 3000, 6000], 12_000);
        assert_eq!(t.iter().map(|t| t.dts).collect::<Vec<_>>(), [0, 3000, 6000, 9000]);
        assert_eq!(t.iter().map(|t| t.cts).collect::<Vec<_>>(), [0, 6000, -3000, -3000]);
        assert!(t.iter().all(|t| t.duration == 3000));
    }

    #[test]
    fn equal_presentation_times_still_give_growing_decode_times() {
        let t = order(&[5, 5, 5], 5);
        assert_eq!(t.iter().map(|t| t.dts).collect::<Vec<_>>(), [5, 6, 7]);
        assert!(t.iter().all(|t| t.duration >= 1));
    }
}
