//! A source's media clock, mapped to `CLOCK_MONOTONIC`.
//!
//! Promises presentation times that follow the media clock's own spacing, keep its order, stay near the arrival of the data
//! and agree between the tracks of one source. Used for clocks that have nothing to do with ours (RTP). Reads no clock.
//!
//! The mapping is a function of media time alone, made of straight pieces that are never changed behind the latest unit. So
//! pictures that are decoded out of the order of display keep their places whatever is corrected meanwhile. Servers send
//! what they gathered during the handshake at once, seconds of it if the machine is busy: that is a clock that runs ahead of
//! the arrivals and not one that was set, and is caught up with piece by piece.
//!
//! Invariants:
//! 1. The first unit of a source is placed at its arrival, or where [`Timeline::anchor`] says.
//! 2. Units of one track that are ordered in media time are ordered in the result, across corrections, and units on both
//!    sides of a jump are ordered as they came.
//! 3. Media time is shrunk by at most [`CATCH_UP`] and stretched by at most [`DRIFT`], unless units come from the future by
//!    more than [`GENTLE`]; then it is shrunk the more, the further they do.
//! 4. A result lies at most [`GENTLE`] + [`STEEP`] + [`JUMP`] after the arrival, and a thousandth of the media time that came
//!    at once.

use std::collections::VecDeque;

use crate::clock::Mono;

/// A step of media time back, or forward with a disagreement with the arrival, that means that the camera's clock was set,
/// in ns.
const JUMP: i64 = 2_000_000_000;
/// How far two tracks may disagree at their first units and still be on one clock, in ns.
const SAME_CLOCK: i64 = 500_000_000;
/// Time over which the least delay is taken as the truth, in ns: longer than any burst, shorter than drift matters.
const WINDOW: i64 = 8_000_000_000;
/// Rates of the mapping are in millionths; this one keeps media time as it is.
const EVEN: i64 = 1_000_000;
/// Correction while units seem to come from the future: at most 1/200 of the time that passes, so that a server that sends
/// reordered pictures ahead of their time does not make the spacing wobble visibly.
const CATCH_UP: i64 = EVEN / 200;
/// Correction of slow drift: at most 1/2000 of the time that passes, five times what bad crystals need.
const DRIFT: i64 = EVEN / 2000;
/// So far into the future reordering and jitter may place a unit, in ns; beyond it the correction grows.
const GENTLE: i64 = 500_000_000;
/// As far beyond [`GENTLE`] media time nearly stands still, in ns.
const STEEP: i64 = 6_000_000_000;
/// The strongest correction: a thousandth of the spacing is left, so that order survives.
const STRONGEST: i64 = EVEN - EVEN / 1000;
/// Time in which a small disagreement is worked off, in ns.
const HORIZON: i64 = 1_000_000_000;
/// Pieces remembered behind the latest unit: more than pictures are reordered or tracks are interleaved.
const PIECES: usize = 64;
/// Least room between the unit before a jump and the one that jumped, for pictures that belong between them, in ns.
const ROOM: i64 = 20_000_000;

/// The mapping of one source.
#[derive(Debug, Default)]
pub struct Timeline {
    tracks: Vec<Option<Track>>,
}

#[derive(Debug)]
struct Track {
    /// The clock that this track drives; without one it follows that of another track.
    clock: Result<Clock, usize>,
    /// Latest media time seen.
    media: i64,
    /// Latest result.
    placed: i64,
    /// How long after its result the latest unit arrived.
    late: i64,
    jumped: Option<Jumped>,
}

/// Where a track was anchored anew.
#[derive(Debug, Clone, Copy)]
struct Jumped {
    to: i64,
    /// Between the anchor and the latest result before it.
    room: i64,
}

#[derive(Debug, Clone)]
struct Clock {
    /// In order, at least one.
    pieces: VecDeque<Piece>,
    /// The rate before the first piece: no more than that of any piece forgotten, so that what comes from there comes behind
    /// all that they placed.
    before: i64,
    /// Where monotonic minus media time is heading: the least delay of the last whole window.
    target: Option<i64>,
    window: Option<Window>,
}

/// The mapping from `media` on, up to the next piece.
#[derive(Debug, Clone, Copy)]
struct Piece {
    media: i64,
    /// Millionths of a ns, so that no rounding of pieces upon pieces changes an order.
    placed: i128,
    /// Millionths.
    rate: i64,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    start: Mono,
    least: i64,
}

impl Timeline {
    /// The mapping of a source that has not delivered anything yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Anchors `track`, of which nothing was placed yet: its media time `media`, that arrived at `arrival`, is `at`.
    pub fn anchor(&mut self, track: usize, media: i64, at: Mono, arrival: Mono) {
        if self.tracks.len() <= track {
            self.tracks.resize_with(track + 1, || None);
        }
        let clock = Ok(Clock::anchored(media, at.0));
        let late = arrival.since(at);
        self.tracks[track].get_or_insert(Track { clock, media, placed: i64::MIN, late, jumped: None });
    }

    /// Places a unit of `track` with media time `media` (ns, any origin) that arrived at `arrival`.
    pub fn place(&mut self, track: usize, media: i64, arrival: Mono) -> Mono {
        if self.tracks.len() <= track {
            self.tracks.resize_with(track + 1, || None);
        }
        let Some(t) = &self.tracks[track] else {
            let clock = match self.clock_shared(track, media, arrival, i64::MIN) {
                Some(other) => Err(other),
                None => Ok(Clock::anchored(media, arrival.0)),
            };
            self.tracks[track] = Some(Track { clock, media, placed: i64::MIN, late: 0, jumped: None });
            return self.placed(track, media, arrival);
        };
        let ahead = media.saturating_sub(t.media);
        let late = arrival.0.saturating_sub(self.at(track, media));
        // No picture is reordered that far. A step forward alone is a pause of the camera, and a disagreement with the
        // arrivals alone is data that the network held up or that came all at once.
        if ahead < -JUMP || (ahead > JUMP && late.saturating_abs() > JUMP) {
            self.jump(track, media, arrival);
        } else if ahead > 0 {
            let latest = self.latest_by(track);
            if let Some(t) = &mut self.tracks[track] {
                t.media = media;
                if let Ok(clock) = &mut t.clock {
                    clock.follow(media, arrival, latest);
                }
            }
        }
        self.placed(track, media, arrival)
    }

    /// The result for a unit, with what is to be remembered of it.
    fn placed(&mut self, track: usize, media: i64, arrival: Mono) -> Mono {
        let mapped = self.at(track, media);
        let Some(t) = &mut self.tracks[track] else { return Mono(mapped) };
        let placed = t.jumped.map_or(mapped, |jumped| jumped.squeeze(mapped));
        t.placed = t.placed.max(placed);
        t.late = arrival.0.saturating_sub(mapped);
        Mono(placed)
    }

    fn clock(&self, track: usize) -> Option<&Clock> {
        match &self.tracks.get(track)?.as_ref()?.clock {
            Ok(own) => Some(own),
            Err(other) => self.tracks.get(*other)?.as_ref()?.clock.as_ref().ok(),
        }
    }

    /// The latest media time of the tracks that follow this one's clock.
    fn latest_by(&self, driver: usize) -> i64 {
        let followers = self.tracks.iter().flatten().filter(|t| t.clock.as_ref().err() == Some(&driver));
        followers.map(|t| t.media).max().unwrap_or(i64::MIN)
    }

    fn at(&self, track: usize, media: i64) -> i64 {
        self.clock(track).map_or(media, |clock| clock.at(media))
    }

    /// A track whose clock this unit agrees with, and by which it comes after `floor`.
    fn clock_shared(&self, track: usize, media: i64, arrival: Mono, floor: i64) -> Option<usize> {
        let drivers = self.tracks.iter().enumerate().filter_map(|(n, t)| Some((n, t.as_ref()?)));
        let mut drivers = drivers.filter(|(n, _)| *n != track);
        let agrees = drivers.find(|(_, driver)| {
            let Ok(clock) = &driver.clock else { return false };
            let at = clock.at(media);
            let late = arrival.0.saturating_sub(at);
            // As late as the other track is: both are part of the same burst.
            let apart = late.saturating_abs().min(late.saturating_sub(driver.late).saturating_abs());
            apart <= SAME_CLOCK && at > floor
        });
        agrees.map(|(n, _)| n)
    }

    /// Anchors one track anew: as long before the arrival as the unit before it, but after all that it placed before.
    fn jump(&mut self, track: usize, media: i64, arrival: Mono) {
        let (floor, late) = self.tracks[track].as_ref().map_or((i64::MIN, 0), |t| (t.placed, t.late.clamp(0, WINDOW)));
        let after = floor.saturating_add(ROOM);
        let (clock, to) = if let Some(other) = self.clock_shared(track, media, arrival, after) {
            (Err(other), self.at(other, media))
        } else {
            let to = arrival.0.saturating_sub(late).max(after);
            (Ok(Clock::anchored(media, to)), to)
        };
        let Some(t) = &mut self.tracks[track] else { return };
        let old = std::mem::replace(&mut t.clock, clock);
        t.media = media;
        t.jumped = Some(Jumped { to, room: to.saturating_sub(floor) });
        if let Ok(old) = old {
            self.hand_over(track, old);
        }
    }

    /// Tracks that followed a clock keep it when the track that drove it has jumped.
    fn hand_over(&mut self, from: usize, old: Clock) {
        let mut old = Some(old);
        let mut driver = from;
        for (n, t) in self.tracks.iter_mut().enumerate() {
            let Some(t) = t.as_mut().filter(|t| t.clock.as_ref().err() == Some(&from)) else { continue };
            if let Some(old) = old.take() {
                t.clock = Ok(old);
                driver = n;
            } else {
                t.clock = Err(driver);
            }
        }
    }
}

impl Clock {
    fn anchored(media: i64, placed: i64) -> Self {
        let placed = i128::from(placed) * i128::from(EVEN);
        Self { pieces: [Piece { media, placed, rate: EVEN }].into(), before: EVEN, target: None, window: None }
    }

    fn at(&self, media: i64) -> i64 {
        let placed = self.exactly(media).div_euclid(i128::from(EVEN));
        i64::try_from(placed).unwrap_or(if placed < 0 { i64::MIN } else { i64::MAX })
    }

    /// In millionths of a ns.
    fn exactly(&self, media: i64) -> i128 {
        let piece = self.pieces.iter().rev().find(|p| p.media <= media);
        let before = self.pieces.front().map(|first| Piece { rate: self.before, ..*first });
        let piece = piece.copied().or(before);
        piece.map_or(i128::from(media) * i128::from(EVEN), |p| p.at(media))
    }

    /// Takes note of the delay of a unit that is later than all before of its track, and decides how the mapping goes on behind it
    /// and behind `latest`, of the tracks that follow: sound may be a second ahead of its pictures.
    fn follow(&mut self, media: i64, arrival: Mono, latest: i64) {
        let placed = self.at(media);
        let (delay, offset) = (arrival.0.saturating_sub(media), placed.saturating_sub(media));
        let window = self.window.get_or_insert(Window { start: arrival, least: delay });
        window.least = window.least.min(delay);
        // What comes from the future shows at once; that something is late only a whole window can tell.
        if delay < offset {
            self.target = Some(self.target.map_or(delay, |t| t.min(delay)));
        }
        if arrival.since(window.start) >= WINDOW {
            self.target = Some(window.least);
            self.window = None;
        }
        let missing = self.target.map_or(0, |target| target.saturating_sub(offset)).clamp(-HORIZON, HORIZON);
        let mut correction = (missing * EVEN / HORIZON).clamp(-CATCH_UP, DRIFT);
        let beyond = placed.saturating_sub(arrival.0).saturating_sub(GENTLE).clamp(0, STEEP);
        if beyond > 0 {
            correction = correction.min(-(CATCH_UP + beyond * EVEN / STEEP).min(STRONGEST));
        }
        let rate = EVEN + correction;
        let from = media.max(latest);
        match self.pieces.back_mut() {
            Some(last) if last.rate == rate => {}
            // It has not begun: nobody's unit lies behind it.
            Some(last) if last.media >= from => last.rate = rate,
            _ => {
                if self.pieces.len() == PIECES {
                    let forgotten = self.pieces.pop_front();
                    self.before = forgotten.map_or(self.before, |forgotten| forgotten.rate.min(self.before));
                }
                self.pieces.push_back(Piece { media: from, placed: self.exactly(from), rate });
            }
        }
    }
}

impl Piece {
    /// In millionths of a ns.
    fn at(&self, media: i64) -> i128 {
        self.placed + (i128::from(media) - i128::from(self.media)) * i128::from(self.rate)
    }
}

impl Jumped {
    /// Puts what is mapped before the anchor into the room between it and what was placed before the jump, in order.
    fn squeeze(&self, mapped: i64) -> i64 {
        let half = self.room / 2;
        let beyond = self.to.saturating_sub(half).saturating_sub(mapped);
        if beyond <= 0 {
            return mapped;
        }
        let (half, beyond) = (i128::from(half), i128::from(beyond));
        let squeezed = half * beyond / (half + beyond);
        self.to - (half + squeezed) as i64
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
    fn what_a_server_gathered_during_the_handshake_keeps_its_spacing_and_is_caught_up() {
        let mut t = Timeline::new();
        let mut last = [Mono(0); 2];
        for i in 0..7500i64 {
            // Four seconds at once, with three pictures decoded before the one that is shown first.
            let arrival = Mono((i - 100).max(0) * 40 * MS);
            let picture = (i / 4 * 4 + [3, 1, 0, 2][i as usize % 4]) * 40 * MS;
            last = [t.place(0, picture, arrival), t.place(1, i * 40 * MS, arrival)];
            // The last picture of each four is shown one step before the sound that came with it.
            let apart = last[1].since(last[0]);
            assert!(i % 4 < 3 || (15 * MS..=41 * MS).contains(&apart), "unit {i}: {last:?}");
        }
        for (track, last) in last.iter().enumerate() {
            // The picture that is sent earliest comes at its time: three steps ahead of its place.
            let truth = (7499 - 100 - 3 - (1 - track as i64)) * 40 * MS;
            assert!((last.0 - truth).abs() < 2 * MS, "track {track}: {last:?} is not {truth}");
        }
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
    fn invariant_2_a_track_that_comes_from_before_all_that_is_remembered_keeps_its_order() {
        let mut t = Timeline::new();
        // Pictures that come in half the time they should, each with a correction of its own; sound is held up all the while.
        t.place(0, 0, Mono(0));
        let mut before = t.place(1, 0, Mono(0));
        for i in 1..4 * PIECES as i64 {
            t.place(0, i * 40 * MS, Mono(i * 20 * MS));
            if i % 16 == 15 {
                let placed = t.place(1, i * MS, Mono(i * 20 * MS));
                assert!(placed > before, "{placed:?} behind {before:?}, picture {i}");
                before = placed;
            }
        }
    }

    #[test]
    fn invariant_2_pictures_that_fall_far_behind_their_sound_keep_order_and_spacing() {
        let mut t = Timeline::new();
        // Sound that is caught up with drives the clock; reordered pictures fall behind it by more than is remembered.
        let mut placed = Vec::new();
        for i in 0..40 * PIECES as i64 {
            let arrival = Mono(i * 20 * MS - i.min(100) * MS);
            t.place(0, i * 20 * MS, arrival);
            let picture = placed.len() as i64;
            if i % 4 > 0 || i - picture > 2 * PIECES as i64 {
                let picture = picture / 4 * 4 + [3, 0, 1, 2][picture as usize % 4];
                placed.push((picture, t.place(1, picture * 20 * MS, arrival)));
            }
        }
        assert!(t.clock(0).unwrap().before < EVEN, "nothing was forgotten");
        placed.truncate(placed.len() / 4 * 4);
        placed.sort();
        for pair in placed.windows(2) {
            let apart = pair[1].1.since(pair[0].1);
            assert!((19 * MS..=21 * MS).contains(&apart), "{pair:?}");
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
                prop_assert!(placed.0 <= now + GENTLE + STEEP + JUMP + S);
                last = Some(placed);
            }
        }

        #[test]
        fn invariant_2_reordered_pictures_keep_their_order(
            ahead in 1usize..17,
            groups in proptest::collection::vec((1i64..100, prop_oneof![
                4 => 0i64..400, 1 => 0i64..20_000, // The network holds data up, for less or more.
            ]), 1..64),
            held in 0i64..12_000,
        ) {
            // Each group is decoded as its last picture first, then the others; what is held up comes at once.
            let mut t = Timeline::new();
            let mut placed = Vec::new();
            let (mut media, mut arrival) = (0, held);
            for (step, delay) in &groups {
                let times: Vec<i64> = (1..=ahead as i64).map(|i| media + i * step).collect();
                media += ahead as i64 * step;
                arrival = arrival.max(media).max(media + delay);
                let order = std::iter::once(ahead - 1).chain(0..ahead - 1);
                placed.extend(order.map(|i| (times[i], t.place(0, times[i] * MS, Mono(arrival * MS)))));
                prop_assert!(placed.iter().all(|p| p.1.0 <= arrival * MS + GENTLE + STEEP + JUMP + S));
            }
            placed.sort();
            // A thousandth of the spacing is left at least, but for rounding.
            let near = |w: &[(i64, Mono)]| w[1].1.since(w[0].1) >= (w[1].0 - w[0].0) * (MS / 1000) - 1;
            prop_assert!(placed.windows(2).all(near), "{placed:?}");
        }

        #[test]
        fn invariant_2_a_jump_keeps_reordered_pictures_between_its_sides(
            by in prop_oneof![-3_600_000i64..-3_000, 3_000i64..3_600_000], late in 0i64..300, at in 1i64..60,
        ) {
            let mut t = Timeline::new();
            let mut placed = Vec::new();
            for group in 0..60 {
                let jumped = if group >= at { by } else { 0 };
                for i in [4, 2, 1, 3] {
                    let n = group * 4 + i;
                    let arrival = Mono((n.max(group * 4 + 4) * 40 + late * (n % 3) / 2) * MS);
                    placed.push((n, t.place(0, (n * 40 + jumped) * MS, arrival)));
                }
            }
            placed.sort();
            prop_assert!(placed.windows(2).all(|w| w[0].1 < w[1].1), "{placed:?}");
        }
    }
}
