//! Who holds which frame: waiting frames, leases, budgets and revocation. Pure: no clock, no socket, no descriptor.
//!
//! The publisher calls it under one lock and passes the time in; what is to be sent goes out through [`Post`]. A frame
//! occupies a *slot* from its publication until nobody waits for it, leases it or copies it; then its generation is raised
//! and only then the camera's buffer is given back (dropped).
//!
//! - L1: a slot's buffer is given back exactly once, after its generation was raised.
//! - L2: at most `budget` slots of a pool are in use; a new frame takes the place of the oldest, so that a lease lives at
//!   least as long as `budget - 1` further frames, whatever other peers do.
//! - L3: at most N frames wait for a peer, in the order of capture, and they are the newest.
//! - L4: a peer holds at most its leases. A revoked one counts until the peer returns it; one that owes all it may hold is
//!   given nothing and pins nothing.
//! - L5: a lease older than the lease time is revoked.

use heapless::{Deque, Vec};

use crate::generation::Generations;
use crate::wire::{Class, Encoded, MAX_BUFFERS, Reason};

/// Peers of one publisher, at most: a bit each. (The model checker has little room for stacks.)
pub(crate) const MAX_PEERS: usize = if cfg!(loom) { 2 } else { 64 };
/// Frames in use at once, at most.
pub(crate) const MAX_SLOTS: usize = if cfg!(loom) { 3 } else { 32 };
/// Frames that may wait for a peer, at most.
pub(crate) const MAX_WAITING: usize = 8;
/// Frames that a peer may hold, at most.
pub(crate) const MAX_LEASES: usize = 8;

/// Which buffers a frame is in; each kind has its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    /// The camera's own.
    Camera,
    /// Copies.
    Copy,
}

/// Whom a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// One class of peers.
    Only(Class),
    /// Every peer.
    All,
}

impl Audience {
    fn includes(self, class: Class) -> bool {
        match self {
            Self::Only(only) => only == class,
            Self::All => true,
        }
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is on its way.
    Done,
    /// The peer's socket is full.
    Later,
    /// The peer is gone.
    Gone,
}

/// How messages leave.
pub(crate) trait Post {
    /// Sends a frame, preceded by its buffer if the peer does not know it yet.
    fn frame(&mut self, peer: u8, buffer: u8, message: &Encoded) -> Sent;
    /// Tells that a lease is revoked.
    fn revoked(&mut self, peer: u8, buffer: u8, generation: u64, reason: Reason) -> Sent;
}

/// A peer did what the protocol forbids: it returned what it was not given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotLeased;

/// What a peer has seen. Frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) delivered: u64,
    pub(crate) replaced: u64,
    pub(crate) revoked: u64,
    pub(crate) thinned: u64,
}

/// What a peer was granted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) class: Class,
    pub(crate) waiting: usize,
    pub(crate) leases: usize,
    /// ns between frames at least; 0 for all of them.
    pub(crate) interval: u64,
}

struct Slot<H> {
    pool: Pool,
    buffer: u8,
    generation: u64,
    /// Rises from slot to slot.
    order: u64,
    captured: u64,
    message: Encoded,
    /// A bit per peer.
    leased: u64,
    waiting: u64,
    /// Somebody of ours reads it outside of the lock; it stays.
    copying: bool,
    /// The camera's buffer; none for a copy.
    #[expect(dead_code, reason = "kept for its drop")]
    hold: Option<H>,
}

struct Lease {
    buffer: u8,
    generation: u64,
    /// None once revoked.
    slot: Option<u8>,
    since: u64,
    /// Revoked, and the peer was not told yet.
    untold: Option<Reason>,
}

struct Account {
    terms: Terms,
    due: u64,
    waiting: Deque<u8, MAX_WAITING>,
    leases: Vec<Lease, MAX_LEASES>,
    counters: Counters,
}

impl Account {
    /// Whether everything it may hold was taken back from it (L4).
    fn starved(&self) -> bool {
        self.leases.len() >= self.terms.leases && self.leases.iter().all(|lease| lease.slot.is_none())
    }

    fn may_lease(&self) -> bool {
        self.leases.len() < self.terms.leases
    }

    /// Whether a frame of this time is wanted by its rate. A quarter of the interval is granted to jitter; the grid stays.
    fn takes(&mut self, captured: u64) -> bool {
        let interval = self.terms.interval;
        if interval == 0 {
            return true;
        }
        if captured.saturating_add(interval / 4) < self.due {
            return false;
        }
        let next = self.due.saturating_add(interval);
        self.due = if next <= captured { captured.saturating_add(interval) } else { next };
        true
    }
}

/// A new frame.
pub(crate) struct Entry<H> {
    pub(crate) pool: Pool,
    pub(crate) audience: Audience,
    pub(crate) buffer: u8,
    pub(crate) captured: u64,
    pub(crate) hold: Option<H>,
    /// With the generation that [`Ledger::generation`] gives.
    pub(crate) message: Encoded,
}

/// The books of one publisher. `H` is what the camera lends, `G` the generations.
pub(crate) struct Ledger<H, G> {
    slots: [Option<Slot<H>>; MAX_SLOTS],
    accounts: [Option<Account>; MAX_PEERS],
    generations: G,
    budgets: [usize; 2],
    lease_time: u64,
    orders: u64,
}

impl<H, G: Generations> Ledger<H, G> {
    /// `budgets` are those of the camera's buffers and of copies; times in ns.
    pub(crate) fn new(generations: G, budgets: [usize; 2], lease_time: u64) -> Self {
        debug_assert!(budgets.iter().sum::<usize>() <= MAX_SLOTS, "a slot for every frame of both budgets");
        Self {
            slots: std::array::from_fn(|_| None),
            accounts: std::array::from_fn(|_| None),
            generations,
            budgets,
            lease_time,
            orders: 0,
        }
    }

    /// Changes the budget of a pool, never beyond what [`Ledger::new`] was given; the next frame makes the room.
    pub(crate) fn limit(&mut self, pool: Pool, budget: usize) {
        self.budgets[pool as usize] = budget;
    }

    /// The generation that a frame in `buffer` will have, once no frame is in it any more.
    pub(crate) fn generation(&self, buffer: u8) -> u64 {
        self.generations.current(buffer)
    }

    /// Takes a peer in.
    pub(crate) fn admit(&mut self, peer: u8, terms: Terms) {
        let terms =
            Terms { waiting: terms.waiting.clamp(1, MAX_WAITING), leases: terms.leases.clamp(1, MAX_LEASES), ..terms };
        let counters = Counters::default();
        let account = Account { terms, due: 0, waiting: Deque::new(), leases: Vec::new(), counters };
        self.accounts[usize::from(peer)] = Some(account);
    }

    /// Forgets a peer; what it held goes back.
    pub(crate) fn dismiss(&mut self, peer: u8) -> Option<Counters> {
        let account = self.accounts[usize::from(peer)].take()?;
        for slot in 0..MAX_SLOTS as u8 {
            if let Some(used) = self.slot(slot) {
                used.leased &= !bit(peer);
                used.waiting &= !bit(peer);
                self.settle(slot);
            }
        }
        Some(account.counters)
    }

    pub(crate) fn counters(&self, peer: u8) -> Option<Counters> {
        Some(self.accounts[usize::from(peer)].as_ref()?.counters)
    }

    /// Whether a frame of this time would reach anybody of its audience.
    pub(crate) fn wanted(&self, audience: Audience, captured: u64) -> bool {
        self.accounts.iter().flatten().any(|account| {
            audience.includes(account.terms.class)
                && !account.starved()
                && captured.saturating_add(account.terms.interval / 4) >= account.due
        })
    }

    /// Accounts for a frame that nobody of its audience takes; see [`Self::wanted`].
    pub(crate) fn pass_by(&mut self, audience: Audience, captured: u64) {
        for account in self.accounts.iter_mut().flatten().filter(|a| audience.includes(a.terms.class)) {
            if account.takes(captured) {
                account.counters.replaced += 1;
            } else {
                account.counters.thinned += 1;
            }
        }
    }

    /// Frees what a frame in `buffer` needs (L2): false if that cannot be, because everything is being copied.
    pub(crate) fn make_room(&mut self, pool: Pool, buffer: u8, post: &mut impl Post) -> bool {
        // A camera that hands a buffer over again has taken it back before: the frame that was in it is no more.
        for slot in 0..MAX_SLOTS as u8 {
            if self.slot(slot).is_some_and(|used| used.buffer == buffer) && !self.evict(slot, post) {
                return false;
            }
        }
        while self.used(pool) >= self.budgets[pool as usize] {
            if !self.oldest(pool).is_some_and(|slot| self.evict(slot, post)) {
                return false;
            }
        }
        true
    }

    /// Gives a frame to whom it is for, after [`Self::make_room`]. Gives the slot if the frame is still in use.
    pub(crate) fn publish(&mut self, entry: Entry<H>, copying: bool, now: u64, post: &mut impl Post) -> Option<u8> {
        let slot = self.slots.iter().position(Option::is_none)? as u8;
        self.orders += 1;
        self.slots[usize::from(slot)] = Some(Slot {
            pool: entry.pool,
            buffer: entry.buffer,
            generation: self.generations.current(entry.buffer),
            order: self.orders,
            captured: entry.captured,
            message: entry.message,
            leased: 0,
            waiting: 0,
            copying: true,
            hold: entry.hold,
        });
        for peer in 0..MAX_PEERS as u8 {
            if self.accounts[usize::from(peer)].as_ref().is_some_and(|a| entry.audience.includes(a.terms.class)) {
                self.offer(peer, slot, now, post);
            }
        }
        self.slot(slot)?.copying = copying;
        self.settle(slot);
        self.slot(slot).map(|_| slot)
    }

    /// The copier is done with a frame.
    pub(crate) fn copied(&mut self, slot: u8) {
        if let Some(used) = self.slot(slot) {
            used.copying = false;
            self.settle(slot);
        }
    }

    /// A peer returns a lease; the next frame that waits for it is sent.
    pub(crate) fn release(
        &mut self,
        peer: u8,
        buffer: u8,
        generation: u64,
        now: u64,
        post: &mut impl Post,
    ) -> Result<(), NotLeased> {
        let account = self.accounts[usize::from(peer)].as_mut().ok_or(NotLeased)?;
        let found = account.leases.iter().position(|lease| (lease.buffer, lease.generation) == (buffer, generation));
        let lease = account.leases.remove(found.ok_or(NotLeased)?);
        if let Some(slot) = lease.slot {
            if let Some(used) = self.slot(slot) {
                used.leased &= !bit(peer);
            }
            self.settle(slot);
        }
        self.pass_on(peer, now, post);
        Ok(())
    }

    /// Revokes what is overdue (L5), and sends what a full socket held up.
    pub(crate) fn expire(&mut self, now: u64, post: &mut impl Post) {
        for peer in 0..MAX_PEERS as u8 {
            let mut position = 0;
            while let Some(account) = self.accounts[usize::from(peer)].as_mut() {
                let Some(lease) = account.leases.get_mut(position) else { break };
                let overdue = now.saturating_sub(lease.since) >= self.lease_time;
                if let Some(slot) = lease.slot.filter(|_| overdue) {
                    self.revoke(peer, slot, Reason::Time, post);
                    self.settle(slot);
                } else if let Some(reason) = lease.untold {
                    let (buffer, generation) = (lease.buffer, lease.generation);
                    match post.revoked(peer, buffer, generation, reason) {
                        Sent::Done => lease.untold = None,
                        Sent::Later => {}
                        Sent::Gone => drop(self.dismiss(peer)),
                    }
                }
                position += 1;
            }
            self.pass_on(peer, now, post);
        }
    }

    /// Whether a peer holds a frame that is still valid.
    pub(crate) fn any_leased(&self) -> bool {
        self.slots.iter().flatten().any(|slot| slot.leased != 0)
    }

    /// Frames that a peer holds or owes.
    pub(crate) fn owed(&self, peer: u8) -> usize {
        self.accounts[usize::from(peer)].as_ref().map_or(0, |account| account.leases.len())
    }

    /// Frames of a pool that are in use.
    pub(crate) fn used(&self, pool: Pool) -> usize {
        self.slots.iter().flatten().filter(|slot| slot.pool == pool).count()
    }

    /// Whether a buffer holds a frame that is in use.
    pub(crate) fn is_used(&self, buffer: u8) -> bool {
        self.slots.iter().flatten().any(|slot| slot.buffer == buffer)
    }

    fn slot(&mut self, slot: u8) -> Option<&mut Slot<H>> {
        self.slots.get_mut(usize::from(slot))?.as_mut()
    }

    fn oldest(&self, pool: Pool) -> Option<u8> {
        let used = self.slots.iter().enumerate().filter_map(|(i, slot)| Some((i, slot.as_ref()?)));
        let movable = used.filter(|(_, slot)| slot.pool == pool && !slot.copying);
        movable.min_by_key(|(_, slot)| slot.order).map(|(i, _)| i as u8)
    }

    /// Takes a frame from everybody; false if it is being copied and so stays.
    fn evict(&mut self, slot: u8, post: &mut impl Post) -> bool {
        for peer in 0..MAX_PEERS as u8 {
            let Some(used) = self.slot(slot) else { return true };
            if used.waiting & bit(peer) != 0 {
                used.waiting &= !bit(peer);
                if let Some(account) = self.accounts[usize::from(peer)].as_mut() {
                    account.waiting.retain(|waiting| *waiting != slot);
                    account.counters.replaced += 1;
                }
            } else if used.leased & bit(peer) != 0 {
                self.revoke(peer, slot, Reason::Pressure, post);
            }
        }
        self.settle(slot);
        self.slot(slot).is_none()
    }

    /// Ends one lease. The peer still owes its return.
    fn revoke(&mut self, peer: u8, slot: u8, reason: Reason, post: &mut impl Post) {
        if let Some(used) = self.slot(slot) {
            used.leased &= !bit(peer);
        }
        let Some(account) = self.accounts[usize::from(peer)].as_mut() else { return };
        let Some(lease) = account.leases.iter_mut().find(|lease| lease.slot == Some(slot)) else { return };
        lease.slot = None;
        lease.untold = Some(reason);
        account.counters.revoked += 1;
        match post.revoked(peer, lease.buffer, lease.generation, reason) {
            Sent::Done => lease.untold = None,
            Sent::Later => {}
            Sent::Gone => {
                self.dismiss(peer);
                return;
            }
        }
        if account.starved() {
            while let Some(waiting) = self.next_waiting(peer) {
                if let Some(account) = self.accounts[usize::from(peer)].as_mut() {
                    account.counters.replaced += 1;
                }
                self.settle(waiting);
            }
        }
    }

    /// Leases a frame to a peer or lets it wait.
    fn offer(&mut self, peer: u8, slot: u8, now: u64, post: &mut impl Post) {
        let Some(used) = self.slots[usize::from(slot)].as_mut() else { return };
        let Some(account) = self.accounts[usize::from(peer)].as_mut() else { return };
        if !account.takes(used.captured) {
            account.counters.thinned += 1;
            return;
        }
        if account.starved() {
            account.counters.replaced += 1;
            return;
        }
        let replaced = if account.waiting.len() >= account.terms.waiting { account.waiting.pop_front() } else { None };
        account.counters.replaced += u64::from(replaced.is_some());
        let _ = account.waiting.push_back(slot);
        used.waiting |= bit(peer);
        if let Some(old) = replaced {
            if let Some(old) = self.slot(old) {
                old.waiting &= !bit(peer);
            }
            self.settle(old);
        }
        self.pass_on(peer, now, post);
    }

    /// Sends what waits, as far as the peer may hold it.
    fn pass_on(&mut self, peer: u8, now: u64, post: &mut impl Post) {
        while let Some(account) = self.accounts[usize::from(peer)].as_mut() {
            let Some(&slot) = account.waiting.front() else { return };
            let Some(used) = self.slots[usize::from(slot)].as_mut() else { return };
            if !account.may_lease() {
                return;
            }
            match post.frame(peer, used.buffer, &used.message) {
                Sent::Later => return,
                Sent::Gone => {
                    self.dismiss(peer);
                    return;
                }
                Sent::Done => {}
            }
            account.waiting.pop_front();
            used.waiting &= !bit(peer);
            used.leased |= bit(peer);
            account.counters.delivered += 1;
            let (buffer, generation) = (used.buffer, used.generation);
            let _ = account.leases.push(Lease { buffer, generation, slot: Some(slot), since: now, untold: None });
        }
    }

    /// Takes the first waiting frame from a peer.
    fn next_waiting(&mut self, peer: u8) -> Option<u8> {
        let slot = self.accounts[usize::from(peer)].as_mut()?.waiting.pop_front()?;
        if let Some(used) = self.slot(slot) {
            used.waiting &= !bit(peer);
        }
        Some(slot)
    }

    /// Gives a frame's buffer back if nobody needs it any more (L1).
    fn settle(&mut self, slot: u8) {
        let idle = |used: &Slot<H>| used.leased == 0 && used.waiting == 0 && !used.copying;
        let Some(place) = self.slots.get_mut(usize::from(slot)) else { return };
        if let Some(used) = place.take_if(|used| idle(used)) {
            self.generations.raise(used.buffer);
            drop(used);
        }
    }
}

const fn bit(peer: u8) -> u64 {
    1 << peer
}

const _: () = assert!(MAX_PEERS <= u64::BITS as usize && MAX_SLOTS < 256 && MAX_BUFFERS < 256);

#[cfg(all(test, not(loom)))]
mod tests;
