//! Linking what this run closes, lens by lens and in order.
//!
//! Promises: (P1) a number that stays open while later ones are closed is skipped, however many there are; (P2) a segment that
//! is none is tried [`TRIES`] times with growing delay, one that the disk does not give [`PATIENT_TRIES`] times, then it is given up
//! and told; (P3) a disk that takes no links, and a lack of descriptors or memory, cost no segment its link as long as this run lasts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mos_hal::media::LensId;

use super::chain::{Made, PART, Tail, part_of, root};
use super::keeper::{Keeper, Unlinked};
use super::ledger::{Ledger, Row};
use crate::archive::ids::{SegmentId, Seq};

/// How many segments after one that does not close may be closed before that one is skipped; a later start links it.
const PATIENCE: u32 = 4;
/// How far it looks for them at a time.
const LOOK: u32 = 256;
/// How often a segment that cannot be read is tried.
const TRIES: u32 = 4;
/// How often one is tried that the disk does not give: about a minute.
const PATIENT_TRIES: u32 = 7;
/// Until the first repetition; doubled each time.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// Longest delay.
const LONGEST_DELAY: Duration = Duration::from_mins(1);

/// The lenses of this run.
#[derive(Default)]
pub(super) struct Present(BTreeMap<LensId, Lens>);

struct Lens {
    next: u32,
    tail: Tail,
    failed: u32,
    again: Option<Instant>,
}

impl Present {
    /// The file that a lens is in.
    pub(super) fn part(&self, lens: &LensId) -> Option<u32> {
        self.0.get(lens).map(|lens| lens.tail.part)
    }

    /// Links what was closed since the last look.
    pub(super) fn look(&mut self, keeper: &Keeper, ledger: &mut Ledger) {
        let run = keeper.archive.run().0;
        let recorded: Vec<(LensId, u32)> = keeper.archive.next_numbers();
        for (id, _) in &recorded {
            self.0.entry(id.clone()).or_insert_with(|| {
                let tail = Tail::begin(0, root(id.as_str(), run));
                // Told before the first link is made, so that a cut right behind it is known for one.
                ledger.set(Row::new(id.as_str(), run, &tail));
                Lens { next: 0, tail, failed: 0, again: None }
            });
        }
        keeper.write(ledger);
        for (id, end) in recorded {
            let Some(lens) = self.0.get_mut(&id) else { continue };
            lens.look(keeper, &id, end);
            ledger.set(Row::new(id.as_str(), run, &lens.tail));
        }
        keeper.write(ledger);
    }
}

impl Lens {
    fn look(&mut self, keeper: &Keeper, lens: &LensId, end: u32) {
        let id = |seq| SegmentId { lens: lens.clone(), run: keeper.archive.run(), seq: Seq(seq) };
        while self.next < end {
            if self.again.is_some_and(|again| Instant::now() < again) {
                return;
            }
            if !keeper.is_closed(&id(self.next)) {
                let Some(next) = next_closed(self.next, end, |seq| keeper.is_closed(&id(seq))) else { return };
                log::warn!("{}: {} numbers that were not closed are not linked", id(self.next), next - self.next);
                keeper.count(|counts| counts.skipped += u64::from(next - self.next));
                self.next = next;
                continue;
            }
            let part = part_of(self.next);
            if part != self.tail.part {
                self.tail = Tail::begin(part, self.tail.head);
            }
            match keeper.link(&id(self.next), &mut self.tail, Made::Closed) {
                Ok(()) => self.go_on(keeper, lens, self.next + 1),
                Err(why) => self.failed(keeper, &id(self.next), &why),
            }
        }
    }

    fn go_on(&mut self, keeper: &Keeper, lens: &LensId, next: u32) {
        if self.failed > 0 {
            keeper.trouble(lens.as_str(), None);
        }
        (self.next, self.failed, self.again) = (next, 0, None);
    }

    fn failed(&mut self, keeper: &Keeper, id: &SegmentId, why: &Unlinked) {
        if self.failed == 0 {
            log::warn!("{id} is not linked to its chain: {why}");
        }
        self.failed = self.failed.saturating_add(1);
        let tries = if matches!(why, Unlinked::Reading(_)) { PATIENT_TRIES } else { TRIES };
        match why {
            Unlinked::Segment(_) | Unlinked::Reading(_) if self.failed >= tries => {
                keeper.given_up(id, why);
                self.go_on(keeper, &id.lens, self.next + 1);
            }
            Unlinked::Harmed(_) => {
                let next = (part_of(self.next) + 1).saturating_mul(PART);
                keeper.given_up(id, why);
                self.go_on(keeper, &id.lens, next);
            }
            Unlinked::Segment(_) | Unlinked::Reading(_) | Unlinked::Storage(_) => {
                keeper.trouble(id.lens.as_str(), Some(format!("{id} is not linked to its chain yet: {why}")));
                let delay = FIRST_DELAY.saturating_mul(1 << self.failed.min(6).saturating_sub(1)).min(LONGEST_DELAY);
                self.again = Instant::now().checked_add(delay);
            }
        }
    }
}

/// Where to go on behind `open`, which is not closed; nowhere while it may still be. (P1)
fn next_closed(open: u32, end: u32, is_closed: impl Fn(u32) -> bool) -> Option<u32> {
    let far = open.saturating_add(LOOK);
    let ahead = open.saturating_add(1)..end.min(far);
    let (mut first, mut closed) = (None, 0);
    for seq in ahead {
        if is_closed(seq) {
            first = first.or(Some(seq));
            closed += 1;
            if closed >= PATIENCE {
                return first;
            }
        }
    }
    // So many were begun since that it will not close any more.
    (end > far).then(|| first.unwrap_or(far))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn p1_numbers_that_stay_open_are_skipped_once_later_ones_are_closed() {
        let closed = |list: &'static [u32]| move |seq: u32| list.contains(&seq);
        assert_eq!(next_closed(7, 8, closed(&[])), None, "being recorded");
        assert_eq!(next_closed(7, 12, closed(&[8, 9, 10])), None, "it may still close");
        assert_eq!(next_closed(7, 12, closed(&[8, 9, 10, 11])), Some(8));
        // Not in a row: the one after the next is abandoned too.
        assert_eq!(next_closed(7, 20, closed(&[9, 11, 12, 15])), Some(9));
        // Some were closed before a full disk burned all numbers that are looked at: too few for patience, and no more will come.
        assert_eq!(next_closed(7, 7 + LOOK, closed(&[8, 9, 10])), None, "it may still close");
        assert_eq!(next_closed(7, 8 + LOOK, closed(&[8, 9, 10])), Some(8));
        // A full disk for an hour: thousands of numbers that no segment has.
        let mut at = 7;
        let mut looks = 0;
        while let Some(next) = next_closed(at, 9_000, |seq| seq >= 8_990) {
            assert!(next > at);
            (at, looks) = (next, looks + 1);
            if at == 8_990 {
                break;
            }
        }
        assert_eq!(at, 8_990);
        assert!(looks < 50);
    }
}
