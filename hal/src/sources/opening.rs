//! The first moments of a session, until its media clock can be anchored.
//!
//! A server that took its time over the handshake has gathered pictures meanwhile and sends them at once: all but the last
//! are older than their arrival. Placed by the first one's arrival they would lie in the future by as much, and a recorder
//! that is killed then would have footage of moments that it did not live to see.
//!
//! Promises (O1) that units leave in the order in which they came, with the times that their own clock gives them; (O2) that
//! no unit is placed after its arrival by more than the bounds leave no choice, nor before the session was opened; (O3) that
//! nothing is held once units come at the pace at which they were captured, nor longer than [`LONGEST`] or beyond [`MOST`].
//! Used by RTSP over both transports and by WHEP. Reads no clock.

use std::time::Duration;

use crate::clock::Mono;
use crate::media::{AccessUnit, FrameKind};
use crate::timeline::Timeline;

/// Units that come at their pace for this long, or none for as long, end the opening.
pub(super) const PROBE: Duration = Duration::from_millis(100);
/// Nothing is held for longer.
const LONGEST: i64 = 2_000_000_000;
/// Nothing more is held than so many bytes.
const MOST: usize = 8 << 20;

/// A unit without its time.
pub(super) struct Raw {
    /// Which of the session's streams.
    pub(super) track: usize,
    /// Time by the stream's own clock, ns of any origin.
    pub(super) media: i64,
    pub(super) unit: AccessUnit,
}

/// The units of a session's beginning.
pub(super) struct Opening {
    opened: Mono,
    held: Vec<Raw>,
    bytes: usize,
    /// Where the present probe of the pace began: arrival, and the latest media time of a picture.
    probe: Option<(Mono, i64)>,
    latest: i64,
}

impl Opening {
    /// Of a session that was opened at `opened`.
    pub(super) fn new(opened: Mono) -> Self {
        Self { opened, held: Vec::new(), bytes: 0, probe: None, latest: i64::MIN }
    }

    /// How many units have come.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes a unit; whether the opening is over with it.
    pub(super) fn take(&mut self, raw: Raw) -> bool {
        let (arrival, media) = (raw.unit.arrival, raw.media);
        let is_picture = raw.unit.kind != FrameKind::Audio;
        self.bytes += raw.unit.data.len();
        self.held.push(raw);
        let first = self.held.first().map_or(arrival, |first| first.unit.arrival);
        if self.bytes > MOST || arrival.since(first) > LONGEST {
            return true;
        }
        if !is_picture {
            return false;
        }
        self.latest = self.latest.max(media);
        let (since, from) = *self.probe.get_or_insert((arrival, self.latest));
        let passed = arrival.since(since);
        if passed < PROBE.as_nanos() as i64 {
            return false;
        }
        self.probe = Some((arrival, self.latest));
        self.latest.saturating_sub(from) <= passed.saturating_mul(2)
    }

    /// The units in order, each with its time by `timeline`, which has placed nothing before.
    pub(super) fn place(self, timeline: &mut Timeline) -> impl Iterator<Item = AccessUnit> {
        let pictures = || self.held.iter().filter(|raw| raw.unit.kind != FrameKind::Audio);
        if let Some(first) = pictures().next() {
            // By the one that was the least late, as far as the session reaches back.
            let offset = pictures().map(|raw| raw.unit.arrival.0.saturating_sub(raw.media)).min().unwrap_or_default();
            let earliest = pictures().map(|raw| raw.media).min().unwrap_or(first.media);
            let offset = offset.max(self.opened.0.saturating_sub(earliest));
            timeline.anchor(first.track, first.media, Mono(first.media.saturating_add(offset)), first.unit.arrival);
        }
        self.held.into_iter().map(|Raw { track, media, unit }| {
            let pts = timeline.place(track, media, unit.arrival);
            AccessUnit { pts: Some(pts), ..unit }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::media::{Rotation, TrackFormat, VideoCodec, VideoFormat};

    const MS: i64 = 1_000_000;

    /// A small unit of a picture's track.
    pub(in crate::sources) fn unit(kind: FrameKind, pts: Option<Mono>, arrival: Mono) -> AccessUnit {
        let format = Arc::new(TrackFormat::Video(VideoFormat {
            codec: VideoCodec::H264,
            width: 64,
            height: 64,
            pixel_aspect: (1, 1),
            config: Bytes::new(),
            reorder: 0,
            frame_duration: None,
            rotation: Rotation::None,
        }));
        let data = Bytes::from_static(&[0; 100]);
        AccessUnit { format, kind, pts, duration: None, arrival, discontinuity: false, data }
    }

    fn raw(track: usize, media: i64, arrival: i64) -> Raw {
        let kind = if track == 0 { FrameKind::Delta } else { FrameKind::Audio };
        Raw { track, media: media * MS, unit: unit(kind, None, Mono(arrival * MS)) }
    }

    /// What was taken until the opening was over, as milliseconds.
    fn placed(opened: i64, units: impl Iterator<Item = Raw>) -> Vec<i64> {
        let mut opening = Opening::new(Mono(opened * MS));
        for unit in units {
            if opening.take(unit) {
                break;
            }
        }
        opening.place(&mut Timeline::new()).map(|unit| unit.pts.unwrap().0 / MS).collect()
    }

    #[test]
    fn o2_what_a_server_gathered_lies_in_the_past() {
        // Three seconds at once at 10 s, then at their pace.
        let times = placed(6_000, (0..200).map(|n| raw(0, n * 40, 10_000 + (n - 75).max(0) * 40)));
        assert_eq!(times[75], 10_000);
        assert_eq!(times[0], 7_000);
        assert!(times.windows(2).all(|w| w[1] - w[0] == 40), "{times:?}");
    }

    #[test]
    fn o2_nothing_lies_before_the_session() {
        let times = placed(9_000, (0..200).map(|n| raw(0, n * 40, 10_000 + (n - 75).max(0) * 40)));
        assert_eq!(times[0], 9_000);
    }

    #[test]
    fn o2_a_picture_that_waited_for_the_handshake_alone_is_old() {
        let stale = std::iter::once(raw(0, 0, 10_000));
        let times = placed(5_000, stale.chain((0..9).map(|n| raw(0, 1_500 + n * 40, 10_000 + n * 40))));
        assert_eq!(times[..3], [8_500, 10_000, 10_040]);
    }

    #[test]
    fn o3_what_comes_at_its_pace_is_held_for_one_probe_only() {
        let times = placed(0, (0..100).map(|n| raw(0, 77_000 + n * 40, 1_000 + n * 40)));
        assert_eq!(times, [1_000, 1_040, 1_080, 1_120]);
        // Reordered pictures come in groups.
        let order = [0, 4, 2, 1, 3, 8, 6, 5, 7];
        let times = placed(0, order.into_iter().map(|n| raw(0, n * 40, 1_000 + (n + 3) / 4 * 160)));
        assert_eq!(times, [1_000, 1_160]);
    }

    #[test]
    fn o3_a_burst_without_end_is_let_go() {
        let many = (0..100_000).map(|n| raw(0, n * 40, 1_000 + n * 5));
        assert_eq!(placed(0, many).len(), 402);
    }

    #[test]
    fn sound_keeps_its_distance_to_the_pictures() {
        let both = (0..400).map(|n| raw(n as usize % 2, n * 20, 10_000 + (n - 150).max(0) * 20));
        let sound_first = std::iter::once(raw(1, 0, 10_000)).chain(both.skip(1));
        let times = placed(1_000, sound_first);
        assert!(times.windows(2).all(|w| w[1] - w[0] == 20), "{times:?}");
    }
}
