//! The one thread of a publisher: when it looks at its peers, and the copies that it makes.
//!
//! Releases need no answer, so they are collected: peers are looked at no more often than every [`GATHER`], which also
//! bounds what a flood of messages can cost; and while frames flow and nobody holds one for long, once per frame, shortly
//! after it was sent. A thread that is woken by every release would cost more than all the sending.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::buffers::Copy;
use super::state::{Copying, Cuts, State};
use super::{Demand, Lent, Shared};
use crate::sys;

/// Peers are looked at no more often, in ns.
const GATHER: u64 = 2_000_000;
/// A new peer waits no longer than this for an answer while frames flow, in ns.
const PATIENCE: u64 = 50_000_000;
/// While peers are connected, leases and hellos are looked after this often, in ns.
const ROUND: u64 = 250_000_000;

pub(super) fn run<H: Lent>(shared: &Arc<Shared<H>>, demand: Option<Demand>) {
    let mut demanded = false;
    let mut served = 0;
    // The set of peers, to be polled without the lock.
    let Ok(peers) = shared.books.lock().epoll.as_fd().try_clone_to_owned() else {
        log::error!("frame bus: no descriptor is left for its thread; this lens has no subscribers");
        return;
    };
    while !shared.stop.load(Ordering::Relaxed) {
        shared.bell.hush();
        let now = sys::monotonic();
        let (work, rest, subscribers, cuts) = {
            let mut state = shared.books.lock();
            if let Some(frame) = shared.books.take() {
                state.deliver(frame);
            }
            if now.saturating_sub(served) >= GATHER {
                served = now;
                state.serve(now);
                state.tidy(now);
            }
            (state.take_job(), Rest::after(&state, now, served), state.subscribers(), state.cuts(now))
        };
        if let Some(Cuts { pid, uid, why, count }) = cuts {
            let more = if count > 1 { format!(", and {} others lately", count - 1) } else { String::new() };
            log::warn!("frame bus: peer with pid {pid} of user {uid} was cut: {why:?}{more}");
        }
        shared.subscribers.store(subscribers, Ordering::Relaxed);
        if demanded != (subscribers > 0) {
            demanded = subscribers > 0;
            if let Some(tell) = &demand {
                tell(demanded);
            }
        }
        match work {
            Copying::Nothing => rest.take(shared, &peers),
            Copying::Allocate(count, size) => allocate(shared, count, size),
            Copying::Work(work) => {
                let picture = work.copy();
                shared.books.lock().finish(work, picture);
            }
        }
    }
    let mut state = shared.books.lock();
    drop(shared.books.take());
    state.shut_down();
    drop(state);
    shared.subscribers.store(0, Ordering::Relaxed);
    if let Some(tell) = demand.filter(|_| demanded) {
        tell(false);
    }
}

/// Memory for copies takes milliseconds, so it is made outside of the lock.
fn allocate<H: Lent>(shared: &Shared<H>, count: usize, size: u64) {
    let copies: std::io::Result<Vec<Copy>> = (0..count).map(|_| Copy::new(size)).collect();
    let mut state = shared.books.lock();
    match copies {
        Ok(copies) => state.install(copies),
        Err(e) => {
            log::error!("frame bus: no memory for copies of {size} bytes: {e}");
            state.give_up();
        }
    }
}

/// How long the thread may sleep, and what may wake it. The bell always may.
#[derive(Debug, PartialEq, Eq)]
enum Rest {
    /// This long, in ns; then peers are to be looked at.
    Deaf(u64),
    /// After this many ns peers may wake it too.
    Listening(u64),
    /// Nobody is connected: after this many ns a new peer may wake it, and nothing else does.
    Idle(u64),
}

impl Rest {
    fn after<H: Lent>(state: &State<H>, now: u64, served: u64) -> Self {
        if state.connected() {
            Self::plan(now, served, state.last, state.interval, state.any_leased())
        } else {
            Self::alone(now, served)
        }
    }

    /// Peers that come and are gone at once are looked at no more often than others.
    fn alone(now: u64, served: u64) -> Self {
        Self::Idle((served + GATHER).saturating_sub(now))
    }

    /// `last` is when the last frame was published, `interval` the time to the one before.
    fn plan(now: u64, served: u64, last: u64, interval: u64, leased: bool) -> Self {
        let gathered = (served + GATHER).saturating_sub(now);
        let returned = last.saturating_add(GATHER);
        if served < returned && now < returned {
            // The leases of the last frame are on their way back.
            return Self::Deaf(gathered.max(returned - now));
        }
        let next = returned.saturating_add(interval);
        if !leased && interval <= PATIENCE && now < next {
            // Nothing is owed to the camera: the next frame's leases will do.
            return Self::Deaf(gathered.max(next - now));
        }
        Self::Listening(gathered)
    }

    fn take<H>(&self, shared: &Shared<H>, peers: &impl AsFd) {
        let bell = shared.bell.as_fd();
        let deaf = |time| sys::wait(&[bell], Some(Duration::from_nanos(time)));
        match *self {
            Self::Deaf(time) => drop(deaf(time)),
            Self::Listening(first) => {
                if first == 0 || matches!(deaf(first), Ok(false)) {
                    let _ = sys::wait(&[bell, peers.as_fd()], Some(Duration::from_nanos(ROUND)));
                }
            }
            Self::Idle(first) => {
                if first == 0 || matches!(deaf(first), Ok(false)) {
                    let _ = sys::wait(&[bell, peers.as_fd()], None);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn b5_a_flood_of_connections_gets_no_more_looks_than_peers_that_stay() {
        assert_eq!(Rest::alone(1000 * MS, 998 * MS), Rest::Idle(0));
        // And it sleeps without end behind that: a lens that nobody reads wakes nobody.
        assert_eq!(Rest::alone(1000 * MS, 999 * MS), Rest::Idle(MS));
    }

    #[test]
    fn one_look_per_frame_while_readers_are_quick() {
        let (last, interval) = (1000 * MS, 16 * MS);
        // Just after a frame: its leases are collected 2 ms later, in one go.
        assert_eq!(Rest::plan(last, last - 14 * MS, last, interval, true), Rest::Deaf(2 * MS));
        // All are back: the next look is 2 ms after the next frame.
        assert_eq!(Rest::plan(last + 2 * MS, last + 2 * MS, last, interval, false), Rest::Deaf(16 * MS));
        // A reader takes its time: its release wakes the thread, but not at once.
        assert_eq!(Rest::plan(last + 2 * MS, last + 2 * MS, last, interval, true), Rest::Listening(2 * MS));
        assert_eq!(Rest::plan(last + 9 * MS, last + 2 * MS, last, interval, true), Rest::Listening(0));
        // The camera has stopped.
        assert_eq!(Rest::plan(last + 900 * MS, last + 800 * MS, last, interval, false), Rest::Listening(0));
    }
}
