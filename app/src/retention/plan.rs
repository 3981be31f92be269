//! Which segments go: decided on paper, from sums and the oldest few of each lens, before anything is touched.
//!
//! Costs time by the segments that go, not by those there are. Never looks at files.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use mos_hal::media::LensId;

use super::age::Ages;
use super::place;
use crate::archive::{Archive, ArchiveError, LensRoom, Row};
use crate::index::Place;

/// A part of what segments may take, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// All of it.
    pub const ALL: u32 = 1_000_000;

    /// A part above 0 and up to 1; `None` for other numbers.
    #[must_use]
    pub fn new(part: f64) -> Option<Self> {
        let millionths = (part * f64::from(Self::ALL)).round();
        (1.0..=f64::from(Self::ALL)).contains(&millionths).then_some(Self(millionths as u32))
    }

    /// In millionths.
    #[must_use]
    pub fn millionths(self) -> u32 {
        self.0
    }

    fn of(millionths: u32, bytes: u64) -> u64 {
        (u128::from(bytes) * u128::from(millionths) / u128::from(Self::ALL)) as u64
    }
}

/// What is asked of the plan.
pub(crate) struct Demand<'a> {
    /// What segments may take in all.
    pub(crate) budget: u64,
    pub(crate) shares: &'a BTreeMap<LensId, Share>,
    pub(crate) max_age: Option<Duration>,
    /// Most segments that go.
    pub(crate) most: usize,
}

/// The segments of a lens that may go, oldest first, fetched a few at a time.
pub(crate) struct Queue<'a> {
    archive: &'a Archive,
    lens: &'a LensId,
    rows: VecDeque<Row>,
    fetched: Option<Place>,
    over: bool,
}

/// Segments fetched in one go.
const BATCH: usize = 16;

impl<'a> Queue<'a> {
    pub(crate) fn new(archive: &'a Archive, lens: &'a LensId) -> Self {
        Self { archive, lens, rows: VecDeque::new(), fetched: None, over: false }
    }

    fn head(&mut self) -> Result<Option<&Row>, ArchiveError> {
        while self.rows.is_empty() && !self.over {
            let rows = self.archive.catalog().oldest_of(self.lens, self.fetched, BATCH)?;
            self.over = rows.len() < BATCH;
            self.fetched = rows.last().map(place).or(self.fetched);
            // What is in use now is looked at again in the next step.
            let pins = self.archive.pins();
            self.rows.extend(rows.into_iter().filter(|row| !pins.is_pinned(&row.id)));
        }
        Ok(self.rows.front())
    }
}

/// The segments that go, in order; those of one lens and run side by side where the order allows it.
pub(crate) fn plan(
    demand: &Demand<'_>,
    rooms: &BTreeMap<LensId, LensRoom>,
    mut queues: BTreeMap<LensId, Queue<'_>>,
    ages: &Ages,
) -> Result<Vec<Row>, ArchiveError> {
    let mut going = Vec::new();
    let mut room = Room::new(demand, rooms);
    if let Some(max_age) = demand.max_age {
        for queue in queues.values_mut() {
            while going.len() < demand.most
                && let Some(row) = queue.head()?.filter(|row| ages.at_least(row.id.run, row.end) > max_age)
            {
                room.take(row);
                going.extend(queue.rows.pop_front());
            }
        }
    }
    while going.len() < demand.most && room.is_short() {
        let givers = room.givers();
        let mut oldest: Option<(bool, Place, LensId)> = None;
        for (lens, queue) in &mut queues {
            if let Some(head) = queue.head()? {
                // Those above their share first, and of these the oldest.
                let candidate = (!givers.contains(lens), place(head), lens.clone());
                if oldest.as_ref().is_none_or(|o| candidate < *o) {
                    oldest = Some(candidate);
                }
            }
        }
        let Some(queue) = oldest.and_then(|(_, _, lens)| queues.get_mut(&lens)) else { break };
        if let Some(row) = queue.rows.pop_front() {
            room.take(&row);
            going.push(row);
        }
    }
    Ok(going)
}

/// Who takes what, as it will be when the plan is carried out.
struct Room<'a> {
    budget: u64,
    shares: &'a BTreeMap<LensId, Share>,
    /// Bytes of each lens, those to come included.
    taken: BTreeMap<LensId, u64>,
}

impl<'a> Room<'a> {
    fn new(demand: &Demand<'a>, rooms: &BTreeMap<LensId, LensRoom>) -> Self {
        // Where the budget is small against one segment of each lens, not everything is thrown away for what is to come.
        let to_come: u64 = rooms.values().map(|room| room.to_come).sum();
        let ahead = to_come.min(demand.budget / 4);
        let part = |bytes: u64| (u128::from(bytes) * u128::from(ahead) / u128::from(to_come.max(1))) as u64;
        let taken = rooms.iter().map(|(lens, room)| (lens.clone(), room.used + part(room.to_come))).collect();
        Self { budget: demand.budget, shares: demand.shares, taken }
    }

    fn is_short(&self) -> bool {
        self.taken.values().sum::<u64>() > self.budget
    }

    fn take(&mut self, row: &Row) {
        if let Some(taken) = self.taken.get_mut(&row.id.lens) {
            // At least something, so that a plan over rows of unknown size ends.
            *taken = taken.saturating_sub(row.allocated.max(1));
        }
    }

    /// Lenses that take more than their own part.
    fn givers(&self) -> BTreeSet<LensId> {
        let left = Share::ALL - self.shares.values().map(|share| share.0).sum::<u32>().min(Share::ALL);
        let (shared, others): (Vec<_>, Vec<_>) =
            self.taken.iter().partition(|(lens, _)| self.shares.contains_key(*lens));
        let above = |lens: &LensId, taken: u64| {
            self.shares.get(lens).is_some_and(|share| taken > Share::of(share.0, self.budget))
        };
        let mut givers: BTreeSet<LensId> =
            shared.iter().filter(|(lens, taken)| above(lens, **taken)).map(|(lens, _)| (*lens).clone()).collect();
        if others.iter().map(|(_, taken)| **taken).sum::<u64>() > Share::of(left, self.budget) {
            givers.extend(others.iter().map(|(lens, _)| (*lens).clone()));
        }
        givers
    }
}
