//! The promises of the books under any order of events that peers and camera may bring about.

#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::picture::Picture;
use crate::wire::{FrameNote, Message};

const PEERS: u8 = 4;
const CAMERAS: u8 = 6;
const COPIES: [u8; 4] = [60, 61, 62, 63];
const LEASE_TIME: u64 = 100;

struct Shelf(Rc<[Cell<u64>; MAX_BUFFERS]>);

impl Generations for Shelf {
    fn current(&self, buffer: u8) -> u64 {
        self.0[usize::from(buffer)].get()
    }

    fn raise(&self, buffer: u8) {
        self.0[usize::from(buffer)].set(self.current(buffer) + 1);
    }
}

/// A loan that knows what generation its buffer had; its drop is the return (L1).
struct Loan {
    buffer: u8,
    generation: u64,
    shelf: Rc<[Cell<u64>; MAX_BUFFERS]>,
    lent: Rc<RefCell<Vec<u8>>>,
}

impl Drop for Loan {
    fn drop(&mut self) {
        let now = self.shelf[usize::from(self.buffer)].get();
        assert!(now > self.generation, "L1: given back before its generation was raised");
        let mut lent = self.lent.borrow_mut();
        let at = lent.iter().position(|buffer| *buffer == self.buffer).expect("L1: given back twice");
        lent.remove(at);
    }
}

/// What the peers have: frames by peer in the order they came.
#[derive(Default)]
struct Peers {
    got: BTreeMap<u8, Vec<FrameNote>>,
    full: u8,
    gone: u8,
}

impl Post for Peers {
    fn frame(&mut self, peer: u8, _: u8, message: &Encoded) -> Sent {
        if self.gone & 1 << peer != 0 {
            return Sent::Gone;
        }
        if self.full & 1 << peer != 0 {
            return Sent::Later;
        }
        let Ok(Message::Frame(note)) = Message::decode(message.as_slice()) else { panic!("a frame") };
        let got = self.got.entry(peer).or_default();
        assert!(got.last().is_none_or(|last| last.sequence < note.sequence), "L3: out of order");
        got.push(note);
        Sent::Done
    }

    fn revoked(&mut self, peer: u8, _: u8, _: u64, _: Reason) -> Sent {
        if self.gone & 1 << peer != 0 {
            Sent::Gone
        } else if self.full & 1 << peer != 0 {
            Sent::Later
        } else {
            Sent::Done
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Admit {
        peer: u8,
        trusted: bool,
        waiting: usize,
        leases: usize,
        interval: u64,
    },
    Dismiss(u8),
    Camera {
        copying: bool,
    },
    Copied,
    Copy,
    /// Of the n-th frame that it was given and has not returned.
    Release(u8, usize),
    Nonsense(u8, u8, u64),
    Full(u8),
    Gone(u8),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let peer = || 0..PEERS;
    prop_oneof![
        2 => (peer(), any::<bool>(), 0..10usize, 0..10usize, prop_oneof![Just(0), 1..30u64]).prop_map(
            |(peer, trusted, waiting, leases, interval)| Event::Admit { peer, trusted, waiting, leases, interval }
        ),
        1 => peer().prop_map(Event::Dismiss),
        8 => any::<bool>().prop_map(|copying| Event::Camera { copying }),
        3 => Just(Event::Copied),
        4 => Just(Event::Copy),
        8 => (peer(), 0..4usize).prop_map(|(peer, which)| Event::Release(peer, which)),
        1 => (peer(), 0..64u8, any::<u64>()).prop_map(|(peer, buffer, generation)| Event::Nonsense(peer, buffer, generation)),
        1 => any::<u8>().prop_map(Event::Full),
        1 => any::<u8>().prop_map(|gone| Event::Gone(gone & 0b1000)),
        4 => (1..60u64).prop_map(Event::Pass),
    ]
}

struct World {
    ledger: Ledger<Loan, Shelf>,
    shelf: Rc<[Cell<u64>; MAX_BUFFERS]>,
    lent: Rc<RefCell<Vec<u8>>>,
    peers: Peers,
    budgets: [usize; 2],
    copying: Option<u8>,
    now: u64,
    sequence: u64,
}

impl World {
    fn new(budgets: [usize; 2]) -> Self {
        let shelf = Rc::new(std::array::from_fn(|_| Cell::new(0)));
        let ledger = Ledger::new(Shelf(Rc::clone(&shelf)), budgets, LEASE_TIME);
        let (lent, peers) = (Rc::default(), Peers::default());
        Self { ledger, shelf, lent, peers, budgets, copying: None, now: 1000, sequence: 0 }
    }

    fn entry(&mut self, pool: Pool, buffer: u8, audience: Audience) -> Entry<Loan> {
        self.sequence += 1;
        let generation = self.ledger.generation(buffer);
        let picture = Picture::nv12(2, 2, 2);
        let (index, sequence, captured) = (buffer, self.sequence, self.now);
        let message = Message::Frame(FrameNote { index, generation, sequence, captured, picture }).encode();
        let hold = (pool == Pool::Camera).then(|| {
            self.lent.borrow_mut().push(buffer);
            Loan { buffer, generation, shelf: Rc::clone(&self.shelf), lent: Rc::clone(&self.lent) }
        });
        Entry { pool, audience, buffer, captured, hold, message }
    }

    fn step(&mut self, event: &Event) {
        match *event {
            Event::Admit { peer, trusted, waiting, leases, interval } => {
                self.peers.got.remove(&peer);
                self.ledger.dismiss(peer);
                let class = if trusted { Class::Trusted } else { Class::Other };
                self.ledger.admit(peer, Terms { class, waiting, leases, interval });
            }
            Event::Dismiss(peer) => {
                self.ledger.dismiss(peer);
                self.peers.got.remove(&peer);
            }
            Event::Camera { copying } => {
                // A camera has more buffers than the bus may hold, so one is free (L2, B3).
                let free = (0..CAMERAS).find(|buffer| !self.lent.borrow().contains(buffer));
                let buffer = free.expect("L2: the camera finds a free buffer");
                if !self.ledger.make_room(Pool::Camera, buffer, &mut self.peers) {
                    assert!(self.copying.is_some() && self.budgets[0] == 1, "L2: only what is being copied stays");
                    return;
                }
                let entry = self.entry(Pool::Camera, buffer, Audience::Only(Class::Trusted));
                let copying = copying && self.copying.is_none();
                let slot = self.ledger.publish(entry, copying, self.now, &mut self.peers);
                if copying {
                    self.copying = Some(slot.expect("a frame that is being copied stays"));
                }
            }
            Event::Copied => {
                if let Some(slot) = self.copying.take() {
                    self.ledger.copied(slot);
                }
            }
            Event::Copy => {
                let free = COPIES.into_iter().find(|buffer| !self.ledger.is_used(*buffer));
                let buffer = free.expect("one copy more than may be in use");
                assert!(self.ledger.make_room(Pool::Copy, buffer, &mut self.peers));
                let entry = self.entry(Pool::Copy, buffer, Audience::Only(Class::Other));
                self.ledger.publish(entry, false, self.now, &mut self.peers);
            }
            Event::Release(peer, which) => {
                let Some(got) = self.peers.got.get_mut(&peer).filter(|got| which < got.len()) else { return };
                let note = got.remove(which);
                let known = self.ledger.counters(peer).is_some();
                let done = self.ledger.release(peer, note.index, note.generation, self.now, &mut self.peers);
                assert_eq!(done.is_ok(), known, "a lease can be returned once, revoked or not");
            }
            Event::Nonsense(peer, buffer, generation) => {
                let held = self.peers.got.get(&peer).into_iter().flatten();
                if !held.into_iter().any(|note| (note.index, note.generation) == (buffer, generation)) {
                    let done = self.ledger.release(peer, buffer, generation, self.now, &mut self.peers);
                    assert_eq!(done, Err(NotLeased));
                }
            }
            Event::Full(full) => self.peers.full = full,
            Event::Gone(gone) => self.peers.gone = gone,
            Event::Pass(time) => {
                self.now += time;
                self.ledger.expire(self.now, &mut self.peers);
                self.nothing_overdue();
            }
        }
        self.check();
    }

    fn nothing_overdue(&self) {
        for account in self.ledger.accounts.iter().flatten() {
            let live = account.leases.iter().filter(|lease| lease.slot.is_some());
            assert!(live.into_iter().all(|lease| self.now - lease.since < LEASE_TIME), "L5");
        }
    }

    /// What holds after every event.
    fn check(&self) {
        let slots = &self.ledger.slots;
        for (pool, budget) in [Pool::Camera, Pool::Copy].into_iter().zip(self.budgets) {
            assert!(self.ledger.used(pool) <= budget, "L2");
        }
        assert_eq!(self.lent.borrow().len(), self.ledger.used(Pool::Camera), "L1: what is lent is in a slot");
        let (mut leased, mut waiting) = ([0u64; MAX_SLOTS], [0u64; MAX_SLOTS]);
        for (peer, account) in self.ledger.accounts.iter().enumerate() {
            let Some(account) = account else { continue };
            assert!(account.leases.len() <= account.terms.leases, "L4");
            assert!(account.waiting.len() <= account.terms.waiting, "L3");
            assert!(!account.starved() || account.waiting.is_empty(), "L4: a starved peer pins nothing");
            for slot in &account.waiting {
                waiting[usize::from(*slot)] |= 1 << peer;
            }
            for lease in &account.leases {
                if let Some(slot) = lease.slot {
                    leased[usize::from(slot)] |= 1 << peer;
                    let used = slots[usize::from(slot)].as_ref().expect("a live lease has its slot");
                    assert_eq!((used.buffer, used.generation), (lease.buffer, lease.generation));
                    assert_eq!(self.ledger.generation(lease.buffer), lease.generation, "a live lease is intact");
                }
            }
        }
        for (slot, used) in slots.iter().enumerate() {
            let bits = used.as_ref().map_or((0, 0), |used| (used.leased, used.waiting));
            assert_eq!(bits, (leased[slot], waiting[slot]), "slot {slot} and accounts agree");
            if let Some(used) = used {
                assert!(used.leased | used.waiting != 0 || used.copying, "a frame that nobody needs is given back");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn l1_to_l5_hold_whatever_happens(
        budget in 1..5usize,
        events in prop::collection::vec(event(), 0..200),
    ) {
        let mut world = World::new([budget, COPIES.len() - 1]);
        for event in &events {
            world.step(event);
        }
        // In the end everything comes back (B3).
        world.step(&Event::Copied);
        for peer in 0..PEERS {
            world.step(&Event::Dismiss(peer));
        }
        prop_assert!(world.lent.borrow().is_empty());
    }
}

#[test]
fn a_rate_keeps_its_grid() {
    let mut world = World::new([4, 3]);
    let third = Event::Admit { peer: 0, trusted: true, waiting: 1, leases: 8, interval: 30 };
    world.step(&third);
    for frame in 0..90u64 {
        // A frame every 10, with jitter of 2.
        world.now = 1000 + frame * 10 + frame % 3;
        world.step(&Event::Camera { copying: false });
        if world.peers.got.get(&0).is_some_and(|got| !got.is_empty()) {
            world.step(&Event::Release(0, 0));
        }
    }
    let counters = world.ledger.counters(0).unwrap();
    assert_eq!((counters.delivered, counters.thinned, counters.replaced), (30, 60, 0));
}
