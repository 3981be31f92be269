//! Fewer gaps that say as much as anybody will ask, so that a ledger does not grow without end where pictures are missing without end.
//!
//! Promises:
//! - S1: no moment that was in a gap is in none afterwards. What is new in a gap lies between two gaps of its cause, or went with the
//!   footage around it.
//! - S2: pieces of one absence become one gap, which says the same.
//! - S3: what lies in footage that retention took goes with it; so do absences between such footage that are shorter than [`SHORT`] with
//!   all that touches them, whatever the causes. Longer ones stay: that a camera was dead is worth to be known for longer than what it saw.
//! - S4: of what is older than [`EXACT`], at most [`PER_HOUR`] gaps of an hour are left, and one for each cause if that is more. The
//!   nearest of one cause are joined, with the footage between them, which stays where it is: such a gap says that pictures are
//!   missing in it, not that none are there. The newest stay as they are.
//! - S5: a failed disk's gap does not swallow those that lie in it: recovery may save a part of it, but not the holes in that part.
//!
//! Pure: gaps in, gaps out.

use std::collections::BTreeMap;

use mos_hal::clock::Mono;

use super::{Gap, GapCause, TOLERANCE_NS};

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3600 * SECOND;
/// Absences between footage that has gone go with it if they are shorter.
const SHORT: i64 = 60 * SECOND;
/// What ended so long before the newest is summed up.
const EXACT: i64 = 120 * SECOND;
/// Most gaps of an hour, if they have less causes.
pub(crate) const PER_HOUR: usize = 120;

/// The same accounts in fewer gaps, in order.
pub(crate) fn summed(mut gaps: Vec<Gap>) -> Vec<Gap> {
    gaps.sort_unstable();
    thinned(joined(without_what_went(joined(gaps, 1)), 1))
}

/// S2 and S4: gaps of one cause that are nearer than this to one another become one.
fn joined(gaps: impl IntoIterator<Item = Gap>, near: i64) -> Vec<Gap> {
    let mut fewer: Vec<Gap> = Vec::new();
    // Where the last one of each cause is in `fewer`.
    let mut last: BTreeMap<GapCause, usize> = BTreeMap::new();
    for gap in gaps {
        let before = last.get(&gap.cause).and_then(|at| fewer.get_mut(*at));
        // Between what retention took there is what it left.
        let near = if gap.cause == GapCause::Retention { TOLERANCE_NS } else { near };
        if let Some(before) = before.filter(|before| gap.start.since(before.end) < near) {
            if gap.cause == GapCause::DiskError && gap.end < before.end {
                fewer.push(gap);
            } else {
                before.end = before.end.max(gap.end);
            }
        } else {
            last.insert(gap.cause, fewer.len());
            fewer.push(gap);
        }
    }
    fewer
}

/// S3.
fn without_what_went(gaps: Vec<Gap>) -> Vec<Gap> {
    let mut left: Vec<Gap> = Vec::new();
    // Where the footage is in `left` that went last, and how far that and what may go with it reaches.
    let mut gone: Option<(usize, Mono)> = None;
    for gap in gaps {
        let Some((at, reach)) = gone.filter(|(_, reach)| gap.start.since(*reach) < TOLERANCE_NS) else {
            gone = (gap.cause == GapCause::Retention).then_some((left.len(), gap.end));
            left.push(gap);
            continue;
        };
        if gap.cause == GapCause::Retention {
            // What waited behind the footage before lies between the two.
            left.truncate(at + 1);
            left[at].end = reach.max(gap.end);
            gone = Some((at, left[at].end));
        } else if gap.cause == GapCause::Removed || gap.end.since(left[at].end) >= SHORT {
            // What lies between it and the footage before stays with it.
            gone = None;
            left.push(gap);
        } else if gap.end > left[at].end {
            gone = Some((at, reach.max(gap.end)));
            left.push(gap);
        }
    }
    left
}

/// S4.
fn thinned(gaps: Vec<Gap>) -> Vec<Gap> {
    let Some(newest) = gaps.iter().map(|gap| gap.end).max() else { return gaps };
    let (old, mut left): (Vec<Gap>, Vec<Gap>) = gaps.into_iter().partition(|gap| newest.since(gap.end) >= EXACT);
    let hour = |gap: &Gap| gap.start.0.div_euclid(HOUR);
    for of_hour in old.chunk_by(|a, b| hour(a) == hour(b)) {
        let mut fewer = of_hour.to_vec();
        let mut near = SECOND;
        while fewer.len() > PER_HOUR && near <= HOUR {
            fewer = joined(fewer, near);
            near *= 2;
        }
        left.append(&mut fewer);
    }
    left.sort_unstable();
    left
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn gap(start: i64, end: i64, cause: GapCause) -> Gap {
        Gap { start: Mono(start), end: Mono(end), cause }
    }

    #[test]
    fn s2_pieces_of_one_absence_become_one() {
        let stalled = |n: i64| gap(n * SECOND, (n + 1) * SECOND, GapCause::CameraStalled);
        let loss = gap(50 * SECOND, 51 * SECOND, GapCause::PacketLoss);
        let pieces = (0..40).chain(60..90).map(stalled).chain([loss]).collect();
        let of = |from: i64, to: i64| gap(from * SECOND, to * SECOND, GapCause::CameraStalled);
        assert_eq!(summed(pieces), [of(0, 40), loss, of(60, 90)]);
    }

    #[test]
    fn s3_what_lies_in_footage_that_went_goes_with_it_and_long_absences_stay() {
        let gone = |from: i64, to: i64| gap(from * SECOND, to * SECOND, GapCause::Retention);
        let loss = |from: i64, to: i64| gap(from * SECOND, to * SECOND, GapCause::PacketLoss);
        let dead = gap(100 * SECOND, 180 * SECOND, GapCause::CameraAbsent);
        let removed = gap(230 * SECOND, 231 * SECOND, GapCause::Removed);
        // In a file that went, between two that went, behind the last that went, in one that is there.
        let (within, between, behind, there) = (loss(5, 6), loss(20, 22), loss(240, 241), loss(300, 301));
        let gaps =
            [gone(0, 20), within, between, gone(22, 100), dead, gone(180, 230), removed, gone(231, 240), behind, there];
        let expected = [gone(0, 100), dead, gone(180, 230), removed, gone(231, 240), behind, there];
        assert_eq!(summed(gaps.to_vec()), expected);
    }

    #[test]
    fn s3_a_dead_camera_in_pieces_of_many_causes_stays() {
        let gone = |from: i64, to: i64| gap(from * SECOND, to * SECOND, GapCause::Retention);
        let causes = [GapCause::CameraStalled, GapCause::CameraBrokeOff, GapCause::CameraAbsent];
        let piece = |n: i64| gap((20 + n * 7) * SECOND, (27 + n * 7) * SECOND, causes[n as usize % 3]);
        let dead: Vec<Gap> = (0..60).map(piece).collect();
        let gaps = [vec![gone(0, 20)], dead.clone(), vec![gone(440, 500)]].concat();
        assert_eq!(summed(gaps.clone()), gaps);
        // One that retention has gone through in several turns, too.
        let half: Vec<Gap> = gaps[..30].to_vec();
        assert_eq!(summed([summed(half), gaps[30..].to_vec()].concat()), gaps);
        // Less than a minute of it goes.
        let short = [vec![gone(0, 20)], dead[..8].to_vec(), vec![gone(76, 90)]].concat();
        assert_eq!(summed(short), [gone(0, 90)]);
    }

    #[test]
    fn s5_a_hole_in_a_failed_disks_gap_stays() {
        let failed = |from: i64, to: i64| gap(from * SECOND, to * SECOND, GapCause::DiskError);
        let gaps = [failed(0, 100), failed(10, 12), failed(20, 21), failed(100, 110)];
        assert_eq!(summed(gaps.to_vec()), [failed(0, 110), failed(10, 12), failed(20, 21)]);
    }

    #[test]
    fn s4_a_dense_hour_is_summed_up_a_thin_one_and_the_newest_stay() {
        let thin = (0..100).map(|n| gap(n * 30 * SECOND, n * 30 * SECOND + SECOND / 2, GapCause::PacketLoss));
        let dense = |from: i64| (from..from + HOUR).step_by(40_000_000).step_by(5);
        let slow = dense(2 * HOUR).map(|at| gap(at, at + 40_000_000, GapCause::EncoderSlow));
        let gaps: Vec<Gap> = thin.chain(slow).collect();
        let fewer = summed(gaps.clone());
        assert_eq!(fewer[..100], gaps[..100]);
        let exact = gaps.iter().rev().take_while(|g| gaps[gaps.len() - 1].end.since(g.end) < EXACT).count();
        assert_eq!(fewer[fewer.len() - exact..], gaps[gaps.len() - exact..]);
        assert!(fewer.len() <= 100 + PER_HOUR + exact, "{} gaps are left", fewer.len());
    }

    proptest! {
        #[test]
        fn s1_no_moment_leaves_its_gap_and_s4_holds(
            steps in proptest::collection::vec((0i64..20_000, 1i64..90_000, 0usize..6), 1..600),
        ) {
            let causes = [
                GapCause::PacketLoss, GapCause::EncoderSlow, GapCause::DiskSlow, GapCause::CameraStalled,
                GapCause::Retention, GapCause::Removed,
            ];
            let mut at = -HOUR / 2;
            let gaps: Vec<Gap> = steps.iter().map(|(pause, long, cause)| {
                // Some lie in one another.
                let start = at + (pause - 500) * 1_000_000;
                at = start + long * 1_000_000 / if *cause > 3 { 1 } else { 20 };
                gap(start, at, causes[*cause])
            }).collect();
            let fewer = summed(gaps.clone());
            for old in &gaps {
                let mut moment = old.start;
                for new in &fewer {
                    if new.start <= moment { moment = moment.max(new.end); }
                }
                prop_assert!(moment >= old.end, "{:?} is in no gap from {:?} on", old, moment);
            }
            let removed = |gaps: &[Gap]| gaps.iter().filter(|g| g.cause == GapCause::Removed).count();
            prop_assert!(removed(&fewer) <= removed(&gaps));
            prop_assert!(fewer.is_sorted());
            prop_assert!(summed(fewer.clone()).len() <= fewer.len());
        }
    }
}
