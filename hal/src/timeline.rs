//! A source's media clock, mapped to `CLOCK_MONOTONIC`.
//!
//! Promises presentation times that follow the media clock's own spacing, keep its order, stay near the arrival of the data
//! and agree between the tracks of one source. Used for clocks that have nothing to do with ours (RTP). Reads no clock.
//!
//! Invariants:
//! 1. The first unit of a source is placed at its arrival.
//! 2. Units of one track that are ordered in media time are ordered in the result, across corrections and jumps.
//! 3. A correction never stretches or shrinks media time by more than [`CATCH_UP`].
//! 4. A result lies at most [`JUMP`] after the arrival.

use crate::clock::Mono;

/// Disagreement between clock and arrival that is a jump of the camera's clock and not network delay, in ns.
const JUMP: i64 = 2_000_000_000;
/// How far two tracks may disagree at their first units and still be on one clock, in ns.
const SAME_CLOCK: i64 = 500_000_000;
/// Time over which the least delay is taken as the truth, in ns: longer than any burst, shorter than drift matters.
const WINDOW: i64 = 8_000_000_000;
/// Correction while units seem to come from the future: at most 1/200 of the time that passed, so that a server that sends
/// reordered pictures ahead of their time does not make the spacing wobble visibly.
const CATCH_UP: i64 = 200;
/// Correction of slow drift: at most 1/2000 of the time that passed, five times what bad crystals need.
const DRIFT: i64 = 2000;

/// The mapping of one source.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    /// Monotonic minus media time, common to all tracks.
    offset: i64,
    /// Where `offset` is heading: the least delay of the last whole window.
    target: Option<i64>,
    window: Option<Window>,
    tracks: Vec<Option<Track>>,
    /// The track that drives `offset`.
    lead: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    start: Mono,
    least: i64,
}

#[derive(Debug, Clone, Copy)]
struct Track {
    /// What this track adds to the common offset.
    skew: i64,
    /// Latest media time seen.
    media: i64,
    /// Latest result.
    placed: i64,
}

impl Timeline {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Places a unit of `track` with media time `media` (ns, any origin) that arrived at `arrival`.
    pub(crate) fn place(&mut self, track: usize, media: i64, arrival: Mono) -> Mono {
        if self.tracks.len() <= track {
            self.tracks.resize(track + 1, None);
        }
        let Some(mut t) = self.tracks[track] else {
            let skew = self.join(track, media, arrival);
            let placed = media.saturating_add(self.offset).saturating_add(skew);
            self.tracks[track] = Some(Track { skew, media, placed });
            return Mono(placed);
        };
        let ahead = media.saturating_sub(t.media);
        let naive = media.saturating_add(self.offset).saturating_add(t.skew);
        let late = arrival.0.saturating_sub(naive);
        if late < -JUMP || (late > JUMP && !(-JUMP..=JUMP).contains(&ahead)) {
            // The camera's clock was set. Late data with an unbroken clock is a stalled network and keeps its times.
            self.jump(&mut t, track, media, arrival);
        } else if ahead > 0 {
            if self.lead == Some(track) {
                self.follow(ahead, arrival, arrival.0.saturating_sub(media).saturating_sub(t.skew));
            }
            t.media = media;
        }
        let placed = media.saturating_add(self.offset).saturating_add(t.skew);
        t.placed = t.placed.max(placed);
        self.tracks[track] = Some(t);
        Mono(placed)
    }

    /// The skew of a track at its first unit: none if it agrees with the others' clock.
    fn join(&mut self, track: usize, media: i64, arrival: Mono) -> i64 {
        let own = arrival.0.saturating_sub(media);
        if self.lead.is_none() {
            self.lead = Some(track);
            self.offset = own;
            return 0;
        }
        let apart = own.saturating_sub(self.offset);
        if apart.abs() <= SAME_CLOCK { 0 } else { apart }
    }

    /// Anchors one track anew: at the arrival, but after all that it placed before.
    fn jump(&mut self, t: &mut Track, track: usize, media: i64, arrival: Mono) {
        let at = arrival.0.max(t.placed.saturating_add(1_000_000));
        t.skew = at.saturating_sub(media).saturating_sub(self.offset);
        t.media = media;
        if self.lead == Some(track) {
            self.target = None;
            self.window = None;
        }
    }

    /// Takes note of a delay and moves the offset by what `ahead` ns of media time allow.
    fn follow(&mut self, ahead: i64, arrival: Mono, delay: i64) {
        let window = self.window.get_or_insert(Window { start: arrival, least: delay });
        window.least = window.least.min(delay);
        // What comes from the future shows at once; that something is late only a whole window can tell.
        if delay < self.offset {
            self.target = Some(self.target.map_or(delay, |t| t.min(delay)));
        }
        if arrival.since(window.start) >= WINDOW {
            self.target = Some(window.least);
            self.window = None;
        }
        if let Some(target) = self.target {
            let missing = target.saturating_sub(self.offset);
            let ahead = ahead.min(JUMP);
            self.offset += missing.clamp(-(ahead / CATCH_UP), ahead / DRIFT);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: i64 = 1_000_000;
    const S: i64 = 1_000 * MS;

    #[test]
    fn invariant_1_the_first_unit_is_at_its_arrival_and_spacing_is_the_medias() {
        let mut t = Timeline::new();
        assert_eq!(t.place(0, 77 * S, Mono(5 * S)), Mono(5 * S));
        assert_eq!(t.place(0, 77 * S + 40 * MS, Mono(5 * S + 95 * MS)), Mono(5 * S + 40 * MS));
    }

    #[test]
    fn drift_is_followed_and_jitter_is_not() {
        let mut t = Timeline::new();
        let mut worst = 0;
        // A camera whose clock is 100 ppm slow, for an hour, with 0 to 80 ms of delay.
        for i in 0..90_000i64 {
            let truth = i * 40 * MS;
            let media = truth - truth / 10_000;
            let arrival = truth + i * 7919 % 80 * MS;
            let placed = t.place(0, media, Mono(arrival));
            worst = worst.max((placed.0 - truth).abs());
        }
        assert!(worst < 5 * MS, "{worst} ns away");
    }

    #[test]
    fn a_burst_at_the_start_is_caught_up() {
        let mut t = Timeline::new();
        for i in 0..25 {
            t.place(0, i * 40 * MS, Mono(0));
        }
        let mut last = Mono(0);
        for i in 25..7500i64 {
            last = t.place(0, i * 40 * MS, Mono((i - 24) * 40 * MS));
        }
        assert!((last.0 - (7499 - 24) * 40 * MS).abs() < MS, "{last:?}");
    }

    #[test]
    fn a_stall_of_the_network_moves_nothing() {
        let mut t = Timeline::new();
        for i in 0..1000i64 {
            let arrival = if (100..300).contains(&i) { 300 * 40 * MS } else { i * 40 * MS };
            assert!((t.place(0, i * 40 * MS, Mono(arrival)).0 - i * 40 * MS).abs() < MS, "unit {i}");
        }
    }

    #[test]
    fn a_jump_anchors_anew() {
        for by in [-3600 * S, -3 * S, 3 * S, 3600 * S] {
            let mut t = Timeline::new();
            for i in 0..50 {
                t.place(0, i * 40 * MS, Mono(i * 40 * MS));
                t.place(1, i * 40 * MS, Mono(i * 40 * MS));
            }
            for i in 50..100i64 {
                for track in 0..2 {
                    let placed = t.place(track, i * 40 * MS + by, Mono(i * 40 * MS));
                    assert_eq!(placed, Mono(i * 40 * MS), "jump of {by}, unit {i}");
                }
            }
        }
    }

    #[test]
    fn tracks_share_their_anchor_unless_their_clocks_have_nothing_in_common() {
        let mut t = Timeline::new();
        t.place(0, 0, Mono(S));
        assert_eq!(t.place(1, 10 * MS, Mono(S + 200 * MS)), Mono(S + 10 * MS));
        assert_eq!(t.place(2, 9_999 * S, Mono(S + 200 * MS)), Mono(S + 200 * MS));
    }

    proptest! {
        #[test]
        fn invariants_2_and_4_order_is_kept_and_nothing_is_from_the_future(
            steps in proptest::collection::vec((1i64..200, 0i64..3000, prop::option::weighted(0.02, -10_000i64..10_000)), 1..400),
        ) {
            let mut t = Timeline::new();
            let (mut media, mut now, mut jump) = (0i64, 0i64, 0i64);
            let mut last = None;
            for (step, delay, jumped) in steps {
                media += step * MS;
                now = (now + step * MS).max(now + delay * MS / 10);
                jump += jumped.unwrap_or(0) * MS;
                let placed = t.place(0, media + jump, Mono(now));
                if let Some(last) = last {
                    // A clock that was set back by less than a jump is out of order in the media itself.
                    if jumped.is_none_or(|j| j >= 0) {
                        prop_assert!(placed > last, "{placed:?} after {last:?}");
                    }
                }
                prop_assert!(placed.0 <= now + JUMP + S);
                last = Some(placed);
            }
        }

        #[test]
        fn invariant_2_reordered_pictures_keep_their_order(ahead in 1usize..8, delays in proptest::collection::vec(0i64..400, 64)) {
            // Each group is decoded as its last picture first, then the others.
            let mut t = Timeline::new();
            let mut placed = Vec::new();
            for (group, delay) in delays.iter().enumerate() {
                let first = group * ahead;
                let order = std::iter::once(first + ahead - 1).chain(first..first + ahead - 1);
                let arrival = Mono(((first + ahead) as i64 * 40 + delay) * MS);
                placed.extend(order.map(|i| (i, t.place(0, i as i64 * 40 * MS, arrival))));
            }
            placed.sort();
            prop_assert!(placed.windows(2).all(|w| w[0].1 < w[1].1));
        }
    }
}
