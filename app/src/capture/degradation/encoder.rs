//! What the encoder lacks, by what it leaves out and by what it has no room for.
//!
//! Promises:
//! - E1: only what lenses delivered of late is judged: one that delivers nothing, or whose pictures are counted anew, leaves
//!   nothing behind, and neither do pictures from before a step.
//! - E2: a picture or two that are left out are no lack.
//! - E3: nobody is pressed for a lens that could not have its part even then.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mos_hal::clock::Mono;
use mos_hal::media::LensId;
use mos_hal::source::Share;

use super::super::ladder::{Encoding, Step};
use super::super::lens::{Load, Place};

/// Pictures of so long are judged together.
const WINDOW: Duration = Duration::from_secs(20);
/// The part of a lens's pictures that are left out from which on its encoder does not suffice, and up to which it does.
const TOO_MANY: f64 = 0.1;
const FEW: f64 = 0.01;
/// Fewest pictures of which such a part is taken.
const COUNTED: u64 = 10;
/// So many pictures that are left out in [`WINDOW`] mean nothing.
const ODD: u64 = 2;

/// What encoders did of late.
#[derive(Debug, Default)]
pub(super) struct Encoders {
    seen: BTreeMap<LensId, Window>,
}

impl Encoders {
    /// Judges lenses, in the order in which they give way; in words as well.
    pub(super) fn judge(&mut self, lenses: &[Load], now: Mono) -> (Encoding, String) {
        self.seen.retain(|lens, _| lenses.iter().any(|load| load.lens == *lens && load.place == Place::Delivers));
        let mut worst = (Encoding::Suffices, String::new());
        for (at, load) in lenses.iter().enumerate() {
            let delivers = load.place == Place::Delivers;
            let part = if delivers { self.seen.entry(load.lens.clone()).or_default().see(load, now) } else { 0.0 };
            let lens = &load.lens;
            if load.exhausted {
                // Half of its pictures would do.
                if load.share.is_none_or(|share| fits(lenses, at, share.needs / 2, share)) {
                    worst = (Encoding::Lacks(at), format!("the encoder has no part left for {lens}"));
                }
            } else if delivers && load.share.is_some_and(|share| share.is_short() && may_grow(lenses, at, share)) {
                worst = (Encoding::Lacks(at), format!("the encoder has no room for all pictures of {lens}"));
            } else if part >= TOO_MANY {
                let words = format!("the encoder leaves out {:.0} % of the pictures of {lens}", part * 100.0);
                worst = (Encoding::Lacks(at), words);
            } else if part > FEW && worst.0 == Encoding::Suffices {
                worst.0 = Encoding::Between;
            }
        }
        worst
    }

    /// A step was taken: what was before says nothing of what is now.
    pub(super) fn forget(&mut self) {
        self.seen.values_mut().for_each(Window::forget);
    }
}

/// Whether there is so much for a lens beside those that matter more, if the others had nothing.
fn fits(lenses: &[Load], at: usize, needs: u64, share: Share) -> bool {
    let more = lenses[at + 1..].iter().filter(|load| matches!(load.place, Place::Delivers | Place::Silent));
    let taken = more.filter_map(|load| load.share).fold(0_u64, |sum, share| sum.saturating_add(share.taken()));
    needs.saturating_add(taken) <= share.budget
}

/// Whether it makes sense that others give way for all pictures of a lens that has half of them, or that it does itself,
/// because none of them is left.
fn may_grow(lenses: &[Load], at: usize, share: Share) -> bool {
    let others = lenses[..at].iter().any(|load| load.coded && load.step != Step::Stopped);
    share.needs <= share.budget && (!others || fits(lenses, at, share.needs, share))
}

/// Pictures of a lens that were coded and left out so far, look by look; the first is from before the window.
#[derive(Debug, Default)]
struct Window(VecDeque<(Mono, u64, u64)>);

impl Window {
    fn forget(&mut self) {
        self.0.drain(..self.0.len().saturating_sub(1));
    }

    /// The part that was left out of late.
    fn see(&mut self, load: &Load, now: Mono) -> f64 {
        let (frames, left_out) = (load.frames, load.left_out);
        if self.0.back().is_some_and(|(_, before, before_left_out)| frames < *before || left_out < *before_left_out) {
            // Counted anew.
            self.0.clear();
        }
        while self.0.get(1).is_some_and(|(at, ..)| now.since(*at) >= WINDOW.as_nanos() as i64) {
            self.0.pop_front();
        }
        self.0.push_back((now, frames, left_out));
        let (_, first, first_left_out) = self.0[0];
        let (frames, left_out) = (frames - first, left_out - first_left_out);
        let all = frames + left_out;
        if all < COUNTED || left_out <= ODD { 0.0 } else { left_out as f64 / all as f64 }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;
    const HD30: u64 = 1920 * 1080 * 30;

    fn load(lens: &str, frames: u64, left_out: u64) -> Load {
        Load {
            lens: LensId::new(lens).unwrap(),
            place: Place::Delivers,
            coded: true,
            exhausted: false,
            step: Step::Full,
            share: None,
            frames,
            left_out,
        }
    }

    /// What is found of one lens that delivers 30 pictures a second and has left out so many after each look of 2 s.
    fn found(left_out: &[u64]) -> Vec<Encoding> {
        let mut encoders = Encoders::default();
        let mut found = |(n, left_out): (usize, &u64)| {
            let frames = 60 * n as u64 - left_out.min(&(60 * n as u64));
            encoders.judge(&[load("road", frames, *left_out)], Mono(n as i64 * 2 * S)).0
        };
        left_out.iter().enumerate().map(&mut found).collect()
    }

    #[test]
    fn e2_a_picture_now_and_then_is_no_lack_and_many_are() {
        // One in 20 s, for ten minutes.
        let seldom: Vec<u64> = (0..300).map(|look| look / 10).collect();
        assert!(found(&seldom).iter().all(|found| *found == Encoding::Suffices));
        // Two in a hundred.
        let some: Vec<u64> = (0..60).map(|look| look * 6 / 5).collect();
        assert_eq!(found(&some)[20..], [Encoding::Between; 40]);
        let many: Vec<u64> = (0..60).map(|look| look * 9).collect();
        assert_eq!(found(&many)[1..], [Encoding::Lacks(0); 59]);
        // Over: after the window nothing is left of it.
        let over: Vec<u64> = (0..60).map(|look| look.min(20) * 9).collect();
        assert_eq!(found(&over)[31..], [Encoding::Suffices; 29]);
    }

    #[test]
    fn e1_who_delivers_nothing_or_is_counted_anew_leaves_nothing_behind() {
        let mut encoders = Encoders::default();
        let slow = |n: u64| load("road", 50 * n, 10 * n);
        encoders.judge(&[slow(1)], Mono(0));
        assert_eq!(encoders.judge(&[slow(2)], Mono(2 * S)).0, Encoding::Lacks(0));
        for place in [Place::Silent, Place::GivesWay] {
            assert_eq!(encoders.judge(&[Load { place, ..slow(2) }], Mono(4 * S)).0, Encoding::Suffices, "{place:?}");
        }
        encoders.judge(&[slow(3)], Mono(6 * S));
        assert_eq!(encoders.judge(&[slow(4)], Mono(8 * S)).0, Encoding::Lacks(0));
        // Taken out and added again between two looks.
        assert_eq!(encoders.judge(&[load("road", 7, 0)], Mono(10 * S)).0, Encoding::Suffices);
        assert_eq!(encoders.judge(&[load("road", 67, 0)], Mono(12 * S)).0, Encoding::Suffices);
        encoders.judge(&[slow(5)], Mono(14 * S));
        encoders.forget();
        let better = encoders.judge(&[load("road", 310, 50)], Mono(16 * S)).0;
        assert_eq!(better, Encoding::Suffices, "only what comes after a step");
    }

    fn sharing(lens: &str, one_in: u32, needs: u64) -> Load {
        let share = Some(Share { one_in, wanted: 1, needs, budget: 2 * HD30 });
        Load { share, exhausted: one_in == 0, ..load(lens, 0, 0) }
    }

    #[test]
    fn e3_nobody_is_pressed_in_vain() {
        let judged = |lenses: &[Load]| Encoders::default().judge(lenses, Mono(0)).0;
        let (cabin, road) = (sharing("cabin", 1, HD30 / 2), sharing("road", 1, HD30 * 3 / 2));
        // Beside the road there is half a lens at most.
        let rear = Load { place: Place::GivesWay, ..sharing("rear", 0, HD30) };
        assert_eq!(judged(&[cabin.clone(), rear.clone(), road.clone()]), Encoding::Lacks(1));
        let large = Load { place: Place::GivesWay, ..sharing("rear", 0, HD30 + HD30 / 4) };
        assert_eq!(judged(&[cabin.clone(), large, road.clone()]), Encoding::Suffices);
        // One that does not deliver has nothing, and of what is not known the best is hoped for.
        let absent = Load { place: Place::GivesWay, ..road.clone() };
        assert_eq!(judged(&[rear.clone(), absent]), Encoding::Lacks(0));
        assert_eq!(judged(&[Load { share: None, ..rear }]), Encoding::Lacks(0));

        // A lens that has half of its pictures and wants all.
        let half = |needs| sharing("rear", 2, needs);
        assert_eq!(judged(&[cabin.clone(), half(HD30 / 2), road.clone()]), Encoding::Lacks(1));
        assert_eq!(judged(&[cabin.clone(), half(HD30), road.clone()]), Encoding::Suffices, "not at the cabin's cost");
        let stopped = Load { step: Step::Stopped, place: Place::GivesWay, ..cabin };
        assert_eq!(judged(&[stopped, half(HD30), road.clone()]), Encoding::Lacks(1), "it gives way itself again");
        assert_eq!(judged(&[half(HD30), road]), Encoding::Lacks(0));
        assert_eq!(judged(&[half(3 * HD30)]), Encoding::Suffices, "there is nothing to wait for");
    }
}
