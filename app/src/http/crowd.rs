//! Who is connected: a bounded crowd, in which those who have said who they are cannot be kept out by those who have not, nor
//! one user of this machine by another.
//!
//! Promises, once all places are taken:
//! - C1: over TCP a connection that has not shown a token gives its place to the next: the oldest one of the address with the
//!   most of them. Who has shown one stays.
//! - C2: over the Unix socket the user with the most connections gives one up, the oldest that no request is served on, and if
//!   there is none, to somebody else any. Users without a role come first. Who would have to give way to itself is turned away.
//!
//! Whoever opens connections and says nothing costs descriptors for a moment, never the service.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

/// Whether a connection has shown who it belongs to. Handed to the guard as an extension of the request.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Arc<AtomicBool>);

impl Known {
    /// Notes that it has.
    pub(super) fn yes(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
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

    /// Resolves when there is a place for somebody from there, made if it can be (C1, C2); `None`: turned away.
    pub(super) async fn place(&mut self, from: From) -> Option<OwnedSemaphorePermit> {
        self.present.retain(|present| !present.task.is_finished());
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Some(place);
        }
        let victim = self.victim(from);
        if victim.is_none() && matches!(from, From::User(..)) {
            return None;
        }
        if let Some(victim) = victim.and_then(|at| self.present.remove(at)) {
            victim.task.abort();
        }
        self.places.clone().acquire_owned().await.ok()
    }

    /// Whose place somebody from there gets.
    fn victim(&self, from: From) -> Option<usize> {
        let local = matches!(from, From::User(..));
        let may = |present: &Present| local || !present.known.get();
        let mut counts: BTreeMap<From, usize> = BTreeMap::new();
        for present in self.present.iter().filter(|present| may(present)) {
            *counts.entry(present.from).or_default() += 1;
        }
        let (most, _) = counts.into_iter().max_by_key(|(of, count)| (of.is_stranger(), *count))?;
        if from.is_stranger() && !most.is_stranger() {
            return None;
        }
        let mut theirs = self.present.iter().enumerate().filter(|(_, present)| present.from == most && may(present));
        let oldest = theirs.clone().next().map(|(at, _)| at);
        let idle = theirs.find(|(_, present)| !present.busy.get()).map(|(at, _)| at);
        if local && most == from { idle } else { idle.or(oldest) }
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
            rig.marks[0].0.yes();
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
