//! Who is next: pure decisions in the caller's time, so that hours of a bad road are tested in no time.
//!
//! Promises:
//! - Q1: a server is served one job at a time; at most `servers` are served together.
//! - Q2: a higher priority goes first; among equals the older one, but a job that got no further three times in a row lets
//!   the others pass.
//! - Q3: after a fault of the road its server rests for a growing, jittered, bounded time, for all of its jobs; the first
//!   success ends that. Asking for a retry ends the rest at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use mos_hal::clock::Mono;

use super::destination::Endpoint;
use super::job::Priority;

/// First waiting time.
pub(super) const FIRST: Duration = Duration::from_secs(1);
/// Longest waiting time before jitter: a vehicle that comes back into coverage is not kept waiting for long.
pub(super) const LONGEST: Duration = Duration::from_mins(2);
/// Tries without progress after which a job lets others pass.
const STUCK: u32 = 3;

/// What the schedule knows of a job that waits.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub(super) priority: Priority,
    pub(super) endpoint: Endpoint,
    /// Tries in a row that got no further.
    pub(super) stuck: u32,
}

/// How a try ended, as far as the road is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Road {
    /// The server was reached; whatever it said.
    Open,
    /// It was not, or it broke off, or there is no room.
    Blocked,
}

/// The jobs that wait, by number, and the servers.
#[derive(Debug)]
pub(super) struct Schedule {
    waiting: BTreeMap<i64, Turn>,
    busy: HashSet<Endpoint>,
    resting: HashMap<Endpoint, Rest>,
    servers: usize,
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Rest {
    until: Mono,
    faults: u32,
}

impl Schedule {
    /// `seed` makes the jitter differ between boxes.
    pub(super) fn new(servers: usize, seed: u64) -> Self {
        let seed = seed | 1;
        Self { waiting: BTreeMap::new(), busy: HashSet::new(), resting: HashMap::new(), servers, seed }
    }

    /// A job waits for its turn.
    pub(super) fn wait(&mut self, number: i64, turn: Turn) {
        self.waiting.insert(number, turn);
    }

    /// A job does not wait any more.
    pub(super) fn leave(&mut self, number: i64) {
        self.waiting.remove(&number);
    }

    /// Ends the rest of a server: somebody asked for a retry.
    pub(super) fn wake_up(&mut self, endpoint: &Endpoint) {
        self.resting.remove(endpoint);
    }

    /// Takes the next job; its server is busy until [`Schedule::over`].
    pub(super) fn next(&mut self, now: Mono) -> Option<i64> {
        if self.busy.len() >= self.servers {
            return None;
        }
        let free = self.waiting.iter().filter(|(_, turn)| {
            !self.busy.contains(&turn.endpoint) && self.resting.get(&turn.endpoint).is_none_or(|r| r.until <= now)
        });
        let order = |(number, turn): &(&i64, &Turn)| (std::cmp::Reverse(turn.priority), turn.stuck / STUCK, **number);
        let number = *free.min_by_key(order)?.0;
        let turn = self.waiting.remove(&number)?;
        self.busy.insert(turn.endpoint);
        Some(number)
    }

    /// When a resting server is to be tried again; none while nothing waits for time alone.
    pub(super) fn wake(&self) -> Option<Mono> {
        let waiting = self.waiting.values().filter(|turn| !self.busy.contains(&turn.endpoint));
        waiting.filter_map(|turn| Some(self.resting.get(&turn.endpoint)?.until)).min()
    }

    /// The server of a job is free again; when it will be tried next, if the road was to blame.
    pub(super) fn over(&mut self, endpoint: &Endpoint, road: Road, now: Mono) -> Option<Mono> {
        self.busy.remove(endpoint);
        if road == Road::Open {
            self.resting.remove(endpoint);
            return None;
        }
        let faults = self.resting.get(endpoint).map_or(0, |rest| rest.faults);
        let until = now + self.jittered(FIRST.saturating_mul(1 << faults.min(16)).min(LONGEST));
        self.resting.insert(endpoint.clone(), Rest { until, faults: faults.saturating_add(1) });
        Some(until)
    }

    /// Up to a quarter longer or shorter, so that a fleet does not come back all at once.
    fn jittered(&mut self, plain: Duration) -> Duration {
        // xorshift64 (Marsaglia 2003): jitter needs spread, not secrecy.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        plain * (750 + (self.seed % 501) as u32) / 1000
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn server(n: u16) -> Endpoint {
        Endpoint { host: "h".to_owned(), port: n, user: "u".to_owned() }
    }

    fn turn(priority: Priority, n: u16) -> Turn {
        Turn { priority, endpoint: server(n), stuck: 0 }
    }

    /// Q1 and Q2.
    #[test]
    fn events_go_first_and_each_server_has_one_job() {
        let mut s = Schedule::new(2, 1);
        s.wait(1, turn(Priority::Background, 1));
        s.wait(2, turn(Priority::Normal, 1));
        s.wait(3, turn(Priority::Normal, 1));
        s.wait(4, turn(Priority::Event, 1));
        s.wait(5, turn(Priority::Background, 2));
        s.wait(6, turn(Priority::Event, 3));
        let now = Mono(0);
        assert_eq!(s.next(now), Some(4));
        assert_eq!(s.next(now), Some(6));
        assert_eq!(s.next(now), None, "two servers at a time");
        s.over(&server(3), Road::Open, now);
        assert_eq!(s.next(now), Some(5));
        s.over(&server(1), Road::Open, now);
        let mut order = Vec::new();
        while let Some(n) = s.next(now) {
            order.push(n);
            s.over(&server(1), Road::Open, now);
        }
        assert_eq!(order, [2, 3, 1]);
    }

    /// Q2: whoever gets no further lets others pass, within its priority.
    #[test]
    fn a_stuck_job_does_not_hold_up_the_others() {
        let mut s = Schedule::new(1, 1);
        s.wait(1, Turn { stuck: 3, ..turn(Priority::Normal, 1) });
        s.wait(2, Turn { stuck: 2, ..turn(Priority::Normal, 1) });
        s.wait(3, turn(Priority::Background, 1));
        let mut order = Vec::new();
        while let Some(n) = s.next(Mono(0)) {
            order.push(n);
            s.over(&server(1), Road::Open, Mono(0));
        }
        assert_eq!(order, [2, 1, 3]);
    }

    /// Q3: a day without coverage, in simulated time.
    #[test]
    fn a_bad_road_is_tried_rarely_but_soon_enough_and_never_in_step() {
        let (mut a, mut b) = (Schedule::new(4, 11), Schedule::new(4, 12));
        let day = Mono(0) + Duration::from_hours(24);
        let mut tries = [0, 0];
        let mut times = [Vec::new(), Vec::new()];
        for (s, (tries, times)) in [&mut a, &mut b].into_iter().zip(tries.iter_mut().zip(&mut times)) {
            let mut now = Mono(0);
            s.wait(1, turn(Priority::Normal, 1));
            s.wait(2, turn(Priority::Event, 1));
            s.wait(3, turn(Priority::Normal, 2));
            assert_eq!(s.next(now), Some(2));
            assert_eq!(s.next(now), Some(3), "another server is not held up");
            assert_eq!(s.over(&server(2), Road::Open, now), None);
            s.wait(2, turn(Priority::Event, 1));
            let mut last = Duration::ZERO;
            while now < day {
                let until = s.over(&server(1), Road::Blocked, now).unwrap();
                let rest = Duration::from_nanos(until.since(now) as u64);
                assert!(rest <= LONGEST * 5 / 4 && rest >= FIRST * 3 / 4, "{rest:?}");
                assert!(*tries > 6 || rest >= last, "it grows: {rest:?} after {last:?}");
                last = rest;
                assert_eq!(s.wake(), Some(until));
                assert_eq!(s.next(until - Duration::from_nanos(1)), None, "the rest holds for all of its jobs");
                now = until;
                assert_eq!(s.next(now), Some(2), "and the event is still first");
                s.wait(2, turn(Priority::Event, 1));
                *tries += 1;
                times.push(now);
            }
            assert!((700..1100).contains(tries), "{tries} tries in a day");
            // Coverage again: the next fault begins with a short rest.
            s.over(&server(1), Road::Open, now);
            assert_eq!(s.next(now), Some(2));
            let until = s.over(&server(1), Road::Blocked, now).unwrap();
            assert!(until.since(now) <= (FIRST * 5 / 4).as_nanos() as i64);
            assert_eq!(s.next(now), None);
            s.wake_up(&server(1));
            assert_eq!(s.next(now), Some(1), "asked for: at once");
        }
        assert!(times[0].iter().filter(|t| times[1].contains(t)).count() < 3, "boxes must not try in step");
    }
}
