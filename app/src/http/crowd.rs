//! Who is connected: a bounded crowd, in which those who have said who they are cannot be kept out by those who have not, nor
//! one user of this machine by another.
//!
//! Promises, once all places are taken:
//! - C1: over TCP a connection that has not shown a token gives its place to the next: the oldest one of the address with the
//!   most of them. Who has shown one stays as long as there are such.
//! - C2: over the Unix socket the user with the most connections gives one up, the oldest that no request is served on, and if
//!   there is none, to somebody else any. Users without a role come first. Who would have to give way to itself is turned away.
//! - C3: where all have shown a token, the token with the most connections gives one up, the oldest that no request is served
//!   on, else the oldest. Where each has one, the next waits.
//!
//! Whoever opens connections and says nothing costs descriptors for a moment, never the service.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

/// How often it is looked who has a place, while the next one waits for it.
const LOOK: Duration = Duration::from_secs(1);

/// Whose a connection has shown itself to be, by its last request: the name of a token. Handed to the guard as an extension of
/// the request.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Arc<Mutex<Option<Arc<str>>>>);

impl Known {
    /// Notes whose it is; `None`: nobody's.
    pub(super) fn is(&self, token: Option<Arc<str>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    fn get(&self) -> Option<Arc<str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Requests that are being served on a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Busy(Arc<AtomicUsize>);

/// Such a request, until its answer has been sent or is given up.
pub(super) struct Serving(Busy);

impl Busy {
    /// Begins one.
    pub(super) fn serve(&self) -> Serving {
        self.0.fetch_add(1, Ordering::Relaxed);
        Serving(self.clone())
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer, which ends the request with itself.
pub(super) struct Answer {
    body: Body,
    _serving: Serving,
}

impl Answer {
    pub(super) fn new(body: Body, serving: Serving) -> Self {
        Self { body, _serving: serving }
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// From where a connection comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum From {
    /// An address, of IPv6 its network: one machine has all addresses of that.
    Address(IpAddr),
    /// A user of this machine, and whether they have a role.
    User(u32, bool),
}

impl From {
    pub(super) fn address(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }

    fn is_stranger(self) -> bool {
        matches!(self, Self::User(_, false))
    }
}

/// A connection.
pub(super) struct Present {
    pub(super) from: From,
    pub(super) known: Known,
    pub(super) busy: Busy,
    pub(super) task: AbortHandle,
}

/// The places of a listener.
pub(super) struct Crowd {
    places: Arc<Semaphore>,
    present: VecDeque<Present>,
}

impl Crowd {
    pub(super) fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), present: VecDeque::new() }
    }

    /// Resolves when there is a place for somebody from there, made if it can be (C1, C2, C3); `None`: turned away.
    pub(super) async fn place(&mut self, from: From) -> Option<OwnedSemaphorePermit> {
        loop {
            self.present.retain(|present| !present.task.is_finished());
            if let Ok(place) = self.places.clone().try_acquire_owned() {
                return Some(place);
            }
            let victim = self.victim(from);
            if victim.is_none() && matches!(from, From::User(..)) {
                return None;
            }
            let free = self.places.clone().acquire_owned();
            if let Some(victim) = victim.and_then(|at| self.present.remove(at)) {
                victim.task.abort();
                return free.await.ok();
            }
            // Nobody has more than one: somebody leaves, or shows that it is nobody.
            if let Ok(place) = tokio::time::timeout(LOOK, free).await {
                return place.ok();
            }
        }
    }

    /// Whose place somebody from there gets.
    fn victim(&self, from: From) -> Option<usize> {
        if let From::User(..) = from {
            let (most, _) = self.most(|present| Some(present.from), From::is_stranger)?;
            if from.is_stranger() && !most.is_stranger() {
                return None;
            }
            let (idle, oldest) = self.of(|present| present.from == most);
            return if most == from { idle } else { idle.or(oldest) };
        }
        let unknown = |present: &Present| present.known.get().is_none().then_some(present.from);
        if let Some((most, _)) = self.most(unknown, |_| false) {
            let (idle, oldest) = self.of(|present| unknown(present) == Some(most));
            return idle.or(oldest);
        }
        let (most, count) = self.most(|present| present.known.get(), |_| false)?;
        let (idle, oldest) = self.of(|present| present.known.get().as_ref() == Some(&most));
        idle.or(oldest).filter(|_| count > 1)
    }

    /// Who has most connections, and how many; of several the one that was there first. `first` come before all others.
    fn most<T: Ord + Clone>(
        &self,
        whose: impl Fn(&Present) -> Option<T>,
        first: impl Fn(T) -> bool,
    ) -> Option<(T, usize)> {
        let owners: Vec<T> = self.present.iter().filter_map(whose).collect();
        let mut counts: BTreeMap<T, usize> = BTreeMap::new();
        for owner in &owners {
            *counts.entry(owner.clone()).or_default() += 1;
        }
        let weight = |owner: &T| (first(owner.clone()), counts.get(owner).copied().unwrap_or_default());
        // Reversed, for the last of several greatest is taken.
        let most = owners.iter().rev().max_by_key(|owner| weight(owner))?;
        Some((most.clone(), weight(most).1))
    }

    /// Their oldest connection that rests, and the oldest of all.
    fn of(&self, theirs: impl Fn(&Present) -> bool) -> (Option<usize>, Option<usize>) {
        let mut theirs = self.present.iter().enumerate().filter(|(_, present)| theirs(present));
        let oldest = theirs.clone().next().map(|(at, _)| at);
        (theirs.find(|(_, present)| !present.busy.get()).map(|(at, _)| at), oldest)
    }

    /// Notes a connection that has a place.
    pub(super) fn add(&mut self, present: Present) {
        self.present.push_back(present);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use super::*;

    struct Rig {
        crowd: Crowd,
        tasks: Vec<tokio::task::JoinHandle<()>>,
        marks: Vec<(Known, Busy)>,
        serving: Vec<Serving>,
    }

    impl Rig {
        fn new(places: usize) -> Self {
            Self { crowd: Crowd::new(places), tasks: Vec::new(), marks: Vec::new(), serving: Vec::new() }
        }

        /// Whether somebody from there gets in.
        async fn comes(&mut self, from: From) -> bool {
            let Some(place) = self.crowd.place(from).await else { return false };
            let task = tokio::spawn(async move {
                let _place = place;
                std::future::pending::<()>().await;
            });
            let (known, busy) = (Known::default(), Busy::default());
            self.marks.push((known.clone(), busy.clone()));
            self.crowd.add(Present { from, known, busy, task: task.abort_handle() });
            self.tasks.push(task);
            true
        }

        /// Those that were sent away so far.
        async fn gone(&mut self) -> Vec<usize> {
            tokio::task::yield_now().await;
            (0..self.tasks.len()).filter(|n| self.tasks[*n].is_finished()).collect()
        }
    }

    fn run(work: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
    }

    #[test]
    fn c1_the_unknown_make_way_and_the_known_stay() {
        run(async {
            let here = From::address(Ipv4Addr::LOCALHOST.into());
            let mut rig = Rig::new(2);
            assert!(rig.comes(here).await && rig.comes(here).await);
            rig.marks[0].0.is(Some("depot".into()));
            assert!(rig.comes(here).await);
            assert_eq!(rig.gone().await, [1]);
        });
    }

    #[test]
    fn c1_who_comes_from_elsewhere_keeps_its_place_however_many_come_from_one_address() {
        run(async {
            let crowd = From::address(Ipv4Addr::new(192, 0, 2, 1).into());
            let mut rig = Rig::new(8);
            for _ in 0..8 {
                assert!(rig.comes(crowd).await);
            }
            assert!(rig.comes(From::address(Ipv4Addr::new(192, 0, 2, 2).into())).await);
            for _ in 0..100 {
                assert!(rig.comes(crowd).await);
            }
            assert!(!rig.gone().await.contains(&8), "still agreeing on keys, and sent away");
            let v6 = |last| From::address(format!("2001:db8:0:1::{last}").parse().unwrap());
            assert_eq!(v6(1), v6(2), "one network is one machine's");
        });
    }

    #[test]
    fn c1_of_addresses_with_as_many_connections_the_first_one_makes_way() {
        run(async {
            let [low, high] = [1, 9].map(|last| From::address(Ipv4Addr::new(192, 0, 2, last).into()));
            for (first, second) in [(low, high), (high, low)] {
                let mut rig = Rig::new(2);
                assert!(rig.comes(first).await && rig.comes(second).await && rig.comes(second).await);
                assert_eq!(rig.gone().await, [0]);
            }
        });
    }

    #[test]
    fn c3_no_token_keeps_another_out() {
        run(async {
            let here = From::address(Ipv4Addr::LOCALHOST.into());
            let mut rig = Rig::new(4);
            for name in ["viewer", "viewer", "viewer", "admin"] {
                assert!(rig.comes(here).await);
                let (known, busy) = rig.marks.last().unwrap();
                known.is(Some(name.into()));
                let serving = busy.serve();
                rig.serving.push(serving);
            }
            drop(rig.serving.remove(1));
            assert!(rig.comes(here).await);
            assert_eq!(rig.gone().await, [1], "one that rests, of who has most");
            rig.marks[4].0.is(Some("operator".into()));
            assert!(rig.comes(here).await);
            assert_eq!(rig.gone().await, [0, 1], "or the oldest");
            // A crowd that shows no token takes one place of it and not another.
            assert!(rig.comes(here).await && rig.comes(here).await);
            assert_eq!(rig.gone().await, [0, 1, 5, 6]);
            // Whose token was revoked is nobody again.
            rig.marks[7].0.is(Some("depot".into()));
            rig.marks[3].0.is(None);
            assert!(rig.comes(here).await);
            assert_eq!(rig.gone().await, [0, 1, 3, 5, 6]);
        });
    }

    #[test]
    fn c3_where_everybody_has_one_place_the_next_waits_for_who_leaves() {
        run(async {
            let here = From::address(Ipv4Addr::LOCALHOST.into());
            let mut rig = Rig::new(2);
            for name in ["a", "b"] {
                assert!(rig.comes(here).await);
                rig.marks.last().unwrap().0.is(Some(name.into()));
            }
            let (leaving, known) = (rig.tasks[0].abort_handle(), rig.marks[1].0.clone());
            tokio::join!(async { assert!(rig.comes(here).await) }, async { leaving.abort() });
            rig.marks[2].0.is(Some("c".into()));
            // Or for who is found to be nobody, without leaving.
            tokio::join!(async { assert!(rig.comes(here).await) }, async { known.is(None) });
            assert_eq!(rig.gone().await, [0, 1]);
        });
    }

    #[test]
    fn c2_no_user_keeps_another_out() {
        run(async {
            let (crowd, admin, stranger) = (From::User(1000, true), From::User(0, true), From::User(1001, false));
            let mut rig = Rig::new(4);
            for _ in 0..4 {
                assert!(rig.comes(crowd).await);
                let serving = rig.marks.last().unwrap().1.serve();
                rig.serving.push(serving);
            }
            assert!(!rig.comes(crowd).await, "would have to end a request of its own");
            assert!(!rig.comes(stranger).await);
            assert!(rig.comes(admin).await);
            assert_eq!(rig.gone().await, [0]);
            // One of theirs rests: it gives way to their next.
            drop(rig.serving.remove(2));
            assert!(rig.comes(crowd).await);
            assert_eq!(rig.gone().await, [0, 2]);
            // Who has no role goes first, however few they are.
            let mut rig = Rig::new(3);
            assert!(rig.comes(crowd).await && rig.comes(crowd).await && rig.comes(stranger).await);
            assert!(rig.comes(crowd).await);
            assert_eq!(rig.gone().await, [2]);
        });
    }
}
