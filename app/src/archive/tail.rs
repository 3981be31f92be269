//! The end of a segment that nobody closed: pictures that are missing between pictures that are there, or in front of the next segment.
//!
//! A stream with B-frames delivers a picture before those that are shown in front of it. When the recorder or the power dies
//! between them, the file ends with a picture whose predecessors in the order of display are neither in it nor behind its
//! end. And where the power goes in the tick that ends a segment and begins the next one, the end of the one may be lost and the
//! beginning of the other not. Promises to name exactly those places. Pure.

use mos_hal::clock::Mono;
use mos_hal::media::VideoCodec;
use mos_hal::nal;
use mos_mp4::read::SegmentFile;
use mos_mp4::{SampleEntry, Ticks};

/// Samples at the end that are looked at: several times the largest decoded picture buffer (ITU-T H.264 A.3.1).
const LOOKED_AT: usize = 64;

/// From the end of one picture to the next one, for each place that is still empty, in the run's monotonic time.
pub(crate) fn open_places(file: &SegmentFile) -> Vec<(Mono, Mono)> {
    let Some(track) = file.movie.video() else { return Vec::new() };
    let first = track.table.len().saturating_sub(LOOKED_AT);
    let (shown, decoded): (Vec<Ticks>, Vec<Ticks>) = track.table.iter_from(first).map(|s| (s.pts(), s.dts)).unzip();
    let at = |ticks| Mono(file.identity.mono_start.saturating_add(track.timescale.nanos(ticks)));
    let told = track.entries.first().map_or(0, reorder);
    places(&shown, step(&decoded), told).into_iter().map(|(from, to)| (at(from), at(to))).collect()
}

/// What is missing between the last picture and the next segment, which begins at `behind`. The write that began that one had ended
/// this one, and told how long its last picture lasts.
pub(crate) fn border(file: &SegmentFile, behind: Mono) -> Option<(Mono, Mono)> {
    let track = file.movie.video()?;
    let first = track.table.len().saturating_sub(LOOKED_AT);
    let end = track.table.presentation_end();
    let last = track.table.iter_from(first).map(|s| s.pts()).max()?;
    let at = |ticks| Mono(file.identity.mono_start.saturating_add(track.timescale.nanos(ticks)));
    (behind > at(end + (end - last) / 2)).then_some((at(end), behind))
}

/// Pictures that may be decoded before one that is shown in front of them, as the parameter sets tell.
fn reorder(entry: &SampleEntry) -> usize {
    let SampleEntry::Video { codec, config, .. } = entry else { return 0 };
    let codec = match codec {
        mos_mp4::VideoCodec::H264 => VideoCodec::H264,
        mos_mp4::VideoCodec::H265 => VideoCodec::H265,
    };
    nal::picture(codec, config).and_then(|picture| picture.reorder).map_or(0, usize::from)
}

/// The frames' distance: decode times go on evenly, also before pictures that belong between others have come.
fn step(decoded: &[Ticks]) -> Ticks {
    let mut apart: Vec<Ticks> = decoded.windows(2).map(|w| w[1] - w[0]).collect();
    apart.sort_unstable();
    apart.get(apart.len() / 2).copied().unwrap_or(Ticks::MAX)
}

/// The same in ticks, of times in decoding order.
fn places(times: &[Ticks], step: Ticks, told: usize) -> Vec<(Ticks, Ticks)> {
    let later = |(n, time): (usize, &Ticks)| times[..n].iter().filter(|t| *t > time).count();
    let depth = times.iter().enumerate().map(later).max().unwrap_or(0).max(told);
    let mut shown = times.to_vec();
    shown.sort_unstable();
    let end = &shown[shown.len().saturating_sub(depth + 1)..];
    let pairs = end.windows(2).filter(|w| (w[1] - w[0]).saturating_sub(step) > step / 2);
    pairs.map(|w| (w[0] + step, w[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::{places, step};

    /// Decoding order of groups of four with a pyramid, cut after `n`, as output places.
    fn cut_after(n: usize) -> Vec<i64> {
        let order = (0..10).flat_map(|group| [4, 2, 1, 3].map(|i| group * 4 + i));
        std::iter::once(0).chain(order).take(n).map(|i| i * 3600).collect()
    }

    #[test]
    fn what_reordering_owes_is_named_exactly() {
        let steps = |places: Vec<(i64, i64)>| places.iter().map(|(a, b)| (a / 3600, b / 3600)).collect::<Vec<_>>();
        assert_eq!(steps(places(&cut_after(21), 3600, 2)), []);
        assert_eq!(steps(places(&cut_after(22), 3600, 2)), [(21, 24)]);
        assert_eq!(steps(places(&cut_after(23), 3600, 2)), [(21, 22), (23, 24)]);
        assert_eq!(steps(places(&cut_after(24), 3600, 2)), [(23, 24)]);
    }

    #[test]
    fn without_reordering_a_pause_is_a_pause() {
        let times: Vec<i64> = (0..20).map(|n| n * 3600 + if n > 17 { 9000 } else { 0 }).collect();
        assert_eq!(places(&times, 3600, 0), []);
        assert_eq!(places(&[], step(&[]), 2), []);
        assert_eq!(places(&[0], step(&[0]), 2), []);
        assert_eq!(places(&[0, 4 * 3600], step(&[0, 3600]), 2), [(3600, 4 * 3600)]);
    }
}
