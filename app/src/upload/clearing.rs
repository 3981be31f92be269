//! Removes what jobs left at servers that were called off while they waited.
//!
//! Promises: (C1) over one connection at a time, whatever was called off, and over one for all that lies at a server; (C2) one try,
//! and none for the rest of what lies at a server that cannot be reached; (C3) what is not known to be gone is named in the log,
//! also when the daemon ends first; (C4) what waits is bounded.
//!
//! Told by `queue.rs` and `courier.rs`; runs beside the courier on its thread, and lets no job wait.

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::book::Remains;
use super::courier::{Kept, way_in_of};
use super::destination::Endpoint;
use super::failure::{Failure, FailureKind};
use super::queue::Shared;
use super::sftp::partial_path;

/// How long connecting may take, and removing one file.
const CLEAR_AWAY: Duration = Duration::from_mins(1);
/// How long a connection waits for more.
const LINGER: Duration = Duration::from_secs(5);
/// Why what was not removed is named at the end.
pub(super) const ENDED: &str = "the daemon ended before it was removed";
/// Most that waits.
const MOST: usize = 1000;

/// What is to be removed, the oldest first; it stays in here until it is gone or named.
#[derive(Default)]
pub(super) struct Clearing {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    waiting: Vec<Remains>,
    ended: bool,
}

impl Clearing {
    /// Has it removed.
    pub(super) fn leave(&self, remains: Remains) {
        let mut state = self.state();
        if state.ended || state.waiting.len() >= MOST {
            let why = if state.ended { ENDED } else { "too many were called off" };
            drop(state);
            return remains.may_lie_there(why);
        }
        state.waiting.push(remains);
        drop(state);
        self.changed.notify_one();
    }

    /// The daemon ends: what is left is named. (C3)
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.name(|_| true, ENDED);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes next: rather at this server.
    fn next(&self, at: Option<&Endpoint>) -> Option<Remains> {
        let waiting = &self.state().waiting;
        let here = at.and_then(|at| waiting.iter().find(|remains| remains.to.endpoint() == *at));
        here.or(waiting.first()).cloned()
    }

    /// Takes out what is done with.
    fn take(&self, done: impl Fn(&Remains) -> bool) -> Vec<Remains> {
        self.state().waiting.extract_if(.., |remains| done(remains)).collect()
    }

    /// Names what is given up.
    fn name(&self, given_up: impl Fn(&Remains) -> bool, why: &str) {
        for remains in self.take(given_up) {
            remains.may_lie_there(why);
        }
    }
}

impl Remains {
    fn is_gone(&self) {
        log::info!("upload {} was called off, and {} is gone", self.id, self.place());
    }

    pub(super) fn may_lie_there(&self, why: &str) {
        log::warn!("upload {} was called off, but {} may still be there: {why}", self.id, self.place());
    }

    fn place(&self) -> String {
        format!("{} at {}", partial_path(&self.to, &self.id), self.to.endpoint())
    }
}

/// Removes what is left, for ever.
pub(super) async fn serve(shared: &Shared) -> Infallible {
    let clearing = &shared.clearing;
    let mut open: Option<Kept> = None;
    loop {
        let Some(next) = clearing.next(open.as_ref().map(|(access, _)| &access.endpoint)) else {
            let more = clearing.changed.notified();
            if open.is_none() {
                more.await;
            } else if timeout(LINGER, more).await.is_err()
                && let Some((_, session)) = open.take()
            {
                let _ = timeout(CLEAR_AWAY, session.close()).await;
            }
            continue;
        };
        let (this, there) = (next.id.clone(), next.to.endpoint());
        match clear(shared, &next, &mut open).await {
            Ok(()) => clearing.take(|waiting| waiting.id == this).iter().for_each(Remains::is_gone),
            Err(NotCleared::This(e)) => clearing.name(|waiting| waiting.id == this, &e.to_string()),
            Err(NotCleared::Server(e)) => {
                open = None;
                clearing.name(|waiting| waiting.to.endpoint() == there, &e.to_string());
            }
        }
    }
}

enum NotCleared {
    /// One that says nothing of others.
    This(Failure),
    /// The server lets nobody in, or does not answer.
    Server(Failure),
}

/// Removes what one job left, over the connection that is open if it is the right one, else over a new one.
async fn clear(shared: &Shared, next: &Remains, open: &mut Option<Kept>) -> Result<(), NotCleared> {
    let access = way_in_of(shared, &next.way_in).await.map_err(NotCleared::This)?;
    let kept = open.take_if(|(of, session)| **of == *access && !session.is_closed());
    if let Some((_, other)) = open.take() {
        let _ = timeout(CLEAR_AWAY, other.close()).await;
    }
    let mut session = match kept {
        Some((_, session)) => session,
        None => timeout(CLEAR_AWAY, shared.backend.connect(&access))
            .await
            .unwrap_or_else(|_| Err(no_answer()))
            .map_err(NotCleared::Server)?,
    };
    let cleared = timeout(CLEAR_AWAY, session.discard(&next.to, &next.id)).await;
    *open = Some((access, session));
    cleared
        .unwrap_or_else(|_| Err(no_answer()))
        .map_err(|e| if e.kind.is_road_fault() { NotCleared::Server(e) } else { NotCleared::This(e) })
}

fn no_answer() -> Failure {
    Failure::new(FailureKind::TimedOut, "no answer")
}
