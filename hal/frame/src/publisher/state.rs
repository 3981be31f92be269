//! Everything behind the publisher's lock: books, connections, buffers, and the frame that is to be copied next.
//!
//! Nothing here waits. What peers send is taken in [`State::serve`], which only the thread of the bus calls, and only a
//! bounded amount at a time.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::buffers::{Buffer, Copy, Page};
use super::links::{Link, Links, Over, Place};
use super::{BufferId, Frame, Lent, Pixels, PublishError, Report, Settings, Totals};
use crate::ledger::{Audience, Counters, Entry, Ledger, Pool, Sent, Terms};
use crate::picture::Picture;
use crate::sys::{self, Epoll};
use crate::wire::{Class, Farewell, FrameNote, Hello, MAX_BUFFERS, MAX_MESSAGE, Message, Welcome, WireError};

/// Epoll's name of the listening socket; peers have their number.
const LISTENER: u64 = u64::MAX;
/// New peers taken in at a time.
const ACCEPTS: usize = 8;
/// Messages of one peer taken in at a time.
const MESSAGES: usize = 16;

/// Cuts are told of no more often, in ns.
const SILENCE: u64 = 10_000_000_000;

/// A frame whose copy was asked for.
pub(super) struct Job<H> {
    pub(super) source: Source<H>,
    sequence: u64,
    captured: u64,
    picture: Picture,
}

pub(super) enum Source<H> {
    /// A frame in a buffer of the camera; its slot is held for us.
    Slot(u8, Arc<Buffer>),
    /// A frame that no peer reads but by its copy.
    Held(H),
    /// The same, in a buffer of the camera.
    HeldBuffer(H, Arc<Buffer>),
}

/// A job with the copy that it goes into.
pub(super) struct Work<H> {
    pub(super) job: Job<H>,
    pub(super) index: u8,
    pub(super) copy: Arc<Copy>,
}

impl<H: Lent> Work<H> {
    /// Copies, outside of the lock. Gives the picture as it is in the copy; none if the frame cannot be read.
    pub(super) fn copy(&self) -> Option<Picture> {
        match &self.job.source {
            Source::Slot(_, buffer) | Source::HeldBuffer(_, buffer) => buffer.copy(&self.job.picture, &self.copy).ok(),
            Source::Held(hold) => {
                let bytes = hold.bytes()?;
                self.job.picture.fits(&[bytes.len() as u64]).then(|| self.copy.fill(bytes))?;
                Some(self.job.picture.clone())
            }
        }
    }
}

/// What the bus thread is to do next about copies.
pub(super) enum Copying<H> {
    Nothing,
    /// Make this many buffers of this size and install them, first.
    Allocate(usize, u64),
    Work(Work<H>),
}

pub(super) struct State<H> {
    settings: Settings,
    listener: OwnedFd,
    pub(super) epoll: Epoll,
    page: OwnedFd,
    ledger: Ledger<H, Page>,
    links: Links,
    job: Option<Job<H>>,
    /// Camera buffers registered, and since which configuration.
    cameras: u8,
    configuration: u32,
    /// When the last frame was published, and the time to the one before.
    pub(super) last: u64,
    pub(super) interval: u64,
    totals: Totals,
    /// Cuts that were not told of yet, and when one was last.
    untold: Option<Cuts>,
    told: Option<u64>,
    events: sys::Events,
}

/// Peers that were cut for breaking a rule: the last of them, and how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cuts {
    pub(super) pid: i32,
    pub(super) uid: u32,
    pub(super) why: Farewell,
    pub(super) count: u64,
}

impl<H: Lent> State<H> {
    pub(super) fn new(settings: Settings, listener: OwnedFd) -> io::Result<Self> {
        let page = Page::new()?;
        let shared = page.share()?;
        let epoll = Epoll::new()?;
        epoll.add(listener.as_fd(), LISTENER)?;
        let budgets = [settings.lease_budget, settings.copy_budget];
        let lease_time = u64::try_from(settings.lease_time.as_nanos()).unwrap_or(u64::MAX);
        Ok(Self {
            ledger: Ledger::new(page, budgets, lease_time),
            links: Links::new(settings.max_pinned),
            settings,
            listener,
            epoll,
            page: shared,
            job: None,
            cameras: 0,
            configuration: 0,
            last: 0,
            interval: 0,
            totals: Totals::default(),
            untold: None,
            told: None,
            events: sys::events(),
        })
    }

    /// Numbers from here on are copies.
    fn first_copy(&self) -> usize {
        MAX_BUFFERS - self.copies()
    }

    /// One more than may be in use: the one that is being written.
    fn copies(&self) -> usize {
        self.settings.copy_budget + 1
    }

    pub(super) fn add_buffer(&mut self, buffer: Buffer) -> Result<BufferId, PublishError> {
        let index = usize::from(self.cameras);
        if index >= self.first_copy() {
            return Err(PublishError::TooManyBuffers(index));
        }
        self.links.places[index] = Some(Place::Camera(Arc::new(buffer)));
        self.cameras += 1;
        Ok(BufferId(index as u8, self.configuration))
    }

    /// Sends a frame to whom it is for; true if a copy of it is to be made, which is for the bus thread.
    pub(super) fn deliver(&mut self, frame: Frame<H>) -> bool {
        let now = sys::monotonic();
        self.interval = now.saturating_sub(self.last);
        self.last = now;
        self.totals.published += 1;
        let buffer = match frame.pixels {
            Pixels::System => None,
            Pixels::Buffer(BufferId(index, configuration)) => {
                match self.links.places.get(usize::from(index)).and_then(Option::as_ref) {
                    Some(Place::Camera(buffer))
                        if configuration == self.configuration && buffer.carries(&frame.picture) =>
                    {
                        Some((index, Arc::clone(buffer)))
                    }
                    _ => {
                        self.totals.refused += 1;
                        return false;
                    }
                }
            }
        };
        let Frame { sequence, captured, picture, hold, .. } = frame;
        let job = |source, picture| Some(Job { source, sequence, captured, picture });
        match buffer {
            Some((index, buffer)) if self.settings.lease_budget > 0 => {
                let copying = self.ledger.wanted(Audience::Only(Class::Other), captured);
                if !copying {
                    self.ledger.pass_by(Audience::Only(Class::Other), captured);
                }
                if !copying && !self.ledger.wanted(Audience::Only(Class::Trusted), captured) {
                    self.ledger.pass_by(Audience::Only(Class::Trusted), captured);
                    return false;
                }
                if !self.ledger.make_room(Pool::Camera, index, &mut self.links) {
                    self.totals.refused += 1;
                    return false;
                }
                let generation = self.ledger.generation(index);
                let note = FrameNote { index, generation, sequence, captured, picture };
                let message = Message::Frame(note);
                let audience = Audience::Only(Class::Trusted);
                let encoded = message.encode();
                let entry =
                    Entry { pool: Pool::Camera, audience, buffer: index, captured, hold: Some(hold), message: encoded };
                let slot = self.ledger.publish(entry, copying, now, &mut self.links);
                if let (Some(slot), Message::Frame(note)) = (slot.filter(|_| copying), message) {
                    self.replace_job(job(Source::Slot(slot, buffer), note.picture));
                    return true;
                }
                false
            }
            held => {
                if !self.ledger.wanted(Audience::All, captured) {
                    self.ledger.pass_by(Audience::All, captured);
                    return false;
                }
                let source = match held {
                    Some((_, buffer)) => Source::HeldBuffer(hold, buffer),
                    None => Source::Held(hold),
                };
                self.replace_job(job(source, picture));
                true
            }
        }
    }

    /// A newer frame takes the place of one whose copy was not begun.
    fn replace_job(&mut self, job: Option<Job<H>>) {
        if let Some(Job { source: Source::Slot(slot, _), .. }) = std::mem::replace(&mut self.job, job) {
            self.ledger.copied(slot);
        }
    }

    /// Takes up the waiting copy.
    pub(super) fn take_job(&mut self) -> Copying<H> {
        let Some(job) = &self.job else { return Copying::Nothing };
        let size = match &job.source {
            Source::Slot(_, buffer) | Source::HeldBuffer(_, buffer) => buffer.copy_size(),
            Source::Held(hold) => hold.bytes().map_or(0, |bytes| bytes.len() as u64),
        };
        if size == 0 {
            self.totals.unreadable += 1;
            self.replace_job(None);
            return Copying::Nothing;
        }
        let free = (self.first_copy()..MAX_BUFFERS).find(|index| !self.ledger.is_used(*index as u8));
        match free.and_then(|index| Some((index as u8, self.links.places.get(index)?.as_ref()))) {
            Some((index, Some(Place::Copy(copy)))) if copy.size() >= size => {
                let copy = Arc::clone(copy);
                self.job.take().map_or(Copying::Nothing, |job| Copying::Work(Work { job, index, copy }))
            }
            _ => Copying::Allocate(self.copies(), size),
        }
    }

    /// Takes new copies in. Peers that know the old ones are cut, as at every change of buffers.
    pub(super) fn install(&mut self, copies: Vec<Copy>) {
        let first = self.first_copy();
        if self.links.places[first].is_some() {
            self.say_goodbye(Farewell::Reconfigured);
        }
        for (place, copy) in self.links.places[first..].iter_mut().zip(copies) {
            *place = Some(Place::Copy(Arc::new(copy)));
        }
    }

    /// No memory for copies: the frame is given up.
    pub(super) fn give_up(&mut self) {
        self.totals.refused += 1;
        self.replace_job(None);
    }

    /// Publishes a copy that was made; `None` if the frame could not be read.
    pub(super) fn finish(&mut self, work: Work<H>, picture: Option<Picture>) {
        let Work { job, index, copy } = work;
        let Job { source, sequence, captured, .. } = job;
        let audience = match source {
            Source::Slot(..) => Audience::Only(Class::Other),
            Source::Held(_) | Source::HeldBuffer(..) => Audience::All,
        };
        let current = matches!(
            &self.links.places[usize::from(index)], Some(Place::Copy(here)) if Arc::ptr_eq(here, &copy)
        );
        match picture {
            Some(picture) if current && self.ledger.make_room(Pool::Copy, index, &mut self.links) => {
                let generation = self.ledger.generation(index);
                let note = FrameNote { index, generation, sequence, captured, picture };
                let message = Message::Frame(note).encode();
                let entry = Entry { pool: Pool::Copy, audience, buffer: index, captured, hold: None, message };
                self.ledger.publish(entry, false, sys::monotonic(), &mut self.links);
                self.totals.copied += 1;
            }
            Some(_) => self.totals.refused += 1,
            None => self.totals.unreadable += 1,
        }
        if let Source::Slot(slot, _) = source {
            self.ledger.copied(slot);
        }
    }

    /// Takes in what has arrived: new peers, hellos, releases.
    pub(super) fn serve(&mut self, now: u64) {
        let mut events = self.events;
        if let Ok(ready) = self.epoll.ready(&mut events) {
            for token in ready {
                match u8::try_from(token) {
                    Ok(peer) => self.hear(peer, now),
                    Err(_) => self.accept(now),
                }
            }
        }
    }

    /// Revokes what is overdue and closes what is over.
    pub(super) fn tidy(&mut self, now: u64) {
        self.ledger.expire(now, &mut self.links);
        let patience = u64::try_from(self.settings.hello_time.as_nanos()).unwrap_or(u64::MAX);
        for peer in 0..self.links.peers.len() as u8 {
            let Some(link) = self.links.peer(peer) else { continue };
            if !link.greeted && now.saturating_sub(link.since) > patience {
                link.over.get_or_insert(Over::Farewell(Farewell::Violation));
            }
            if let Some(over) = link.over {
                self.close(peer, over);
            }
        }
    }

    fn accept(&mut self, now: u64) {
        for _ in 0..ACCEPTS {
            let Ok(socket) = sys::accept(self.listener.as_fd()) else { return };
            let Ok((uid, pid)) = sys::peer(socket.as_fd()) else { continue };
            let class = if self.settings.trusted.contains(&uid) { Class::Trusted } else { Class::Other };
            let connected = self.links.peers.iter().flatten();
            let others = connected.clone().filter(|link| !link.class.is_trusted()).count();
            let room = connected.count() < self.settings.max_peers
                && (class.is_trusted() || others < self.settings.max_others);
            let free = self.links.peers.iter().position(Option::is_none).filter(|_| room);
            let taken = free.filter(|peer| self.epoll.add(socket.as_fd(), *peer as u64).is_ok());
            let Some(peer) = taken else {
                part(socket.as_fd(), Farewell::Full);
                continue;
            };
            let link =
                Link { socket, uid, pid, class, since: now, greeted: false, announced: 0, pinned: 0, over: None };
            self.links.peers[peer] = Some(link);
        }
    }

    /// Takes in what a peer has sent (B4).
    fn hear(&mut self, peer: u8, now: u64) {
        for _ in 0..MESSAGES {
            let Some(link) = self.links.peer(peer).filter(|link| link.over.is_none()) else { return };
            let greeted = link.greeted;
            let mut room = [0; MAX_MESSAGE];
            let over = match sys::receive(link.socket.as_fd(), &mut room, None, libc::MSG_DONTWAIT) {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return,
                Err(_) => Over::Left,
                Ok(got) if got.truncated || got.stray_descriptors => Over::Farewell(Farewell::Violation),
                Ok(got) if got.len == 0 => Over::Left,
                Ok(got) => match Message::decode(room.get(..got.len).unwrap_or_default()) {
                    Ok(Message::Hello(hello)) if !greeted => {
                        if self.greet(peer, hello) {
                            continue;
                        }
                        Over::Left
                    }
                    Ok(Message::Release { index, generation }) if greeted => {
                        if self.ledger.release(peer, index, generation, now, &mut self.links).is_ok() {
                            if self.ledger.owed(peer) == 0 {
                                // It has nothing more to return; if it sends all the same, the next look finds it.
                                return;
                            }
                            continue;
                        }
                        Over::Farewell(Farewell::Violation)
                    }
                    Ok(Message::Goodbye(_)) => Over::Left,
                    Err(WireError::Version(_)) => Over::Farewell(Farewell::Version),
                    _ => Over::Farewell(Farewell::Violation),
                },
            };
            if let Some(link) = self.links.peer(peer) {
                link.over.get_or_insert(over);
            }
        }
    }

    fn greet(&mut self, peer: u8, hello: Hello) -> bool {
        let Some(link) = self.links.peer(peer) else { return false };
        let class = link.class;
        // One buffer of the budget is always left for the next frame.
        let budget = if class.is_trusted() { self.settings.lease_budget } else { self.settings.copy_budget };
        let waiting = hello.waiting.min(self.settings.max_waiting);
        let leases = hello.leases.min(self.settings.max_leases).min(budget.saturating_sub(1).max(1) as u32);
        link.greeted = true;
        let lease_ms = u32::try_from(self.settings.lease_time.as_millis()).unwrap_or(u32::MAX);
        let welcome = Message::Welcome(Welcome { waiting, leases, class, lease_ms });
        if self.links.send(peer, &welcome, &[self.page.as_fd()]) != Sent::Done {
            return false;
        }
        let interval = if hello.max_rate == 0 { 0 } else { 1_000_000_000_000 / u64::from(hello.max_rate) };
        self.ledger.admit(peer, Terms { class, waiting: waiting as usize, leases: leases as usize, interval });
        true
    }

    fn close(&mut self, peer: u8, over: Over) {
        if let Some(Counters { delivered, replaced, revoked, .. }) = self.ledger.dismiss(peer) {
            self.totals.delivered += delivered;
            self.totals.replaced += replaced;
            self.totals.revoked += revoked;
        }
        let Some(link) = self.links.peers.get_mut(usize::from(peer)).and_then(Option::take) else { return };
        if let Over::Farewell(farewell) = over {
            part(link.socket.as_fd(), farewell);
            if matches!(farewell, Farewell::Violation | Farewell::Version | Farewell::Refused) {
                self.totals.cut += 1;
                let count = self.untold.map_or(0, |cuts| cuts.count) + 1;
                self.untold = Some(Cuts { pid: link.pid, uid: link.uid, why: farewell, count });
            }
        }
    }

    /// What is to be told of cuts, to be written without the lock: a peer that is cut for ever fills no log (B5).
    pub(super) fn cuts(&mut self, now: u64) -> Option<Cuts> {
        if self.told.is_some_and(|told| now.saturating_sub(told) < SILENCE) {
            return None;
        }
        let cuts = self.untold.take()?;
        self.told = Some(now);
        Some(cuts)
    }

    /// Ends every connection; what peers held goes back.
    pub(super) fn say_goodbye(&mut self, farewell: Farewell) {
        for peer in 0..self.links.peers.len() as u8 {
            self.close(peer, Over::Farewell(farewell));
        }
    }

    pub(super) fn reconfigure(&mut self) {
        self.say_goodbye(Farewell::Reconfigured);
        self.replace_job(None);
        let first = self.first_copy();
        self.links.places[..first].fill_with(|| None);
        self.cameras = 0;
        self.configuration = self.configuration.wrapping_add(1);
    }

    /// The end.
    pub(super) fn shut_down(&mut self) {
        self.say_goodbye(Farewell::Leaving);
        self.replace_job(None);
    }

    pub(super) fn subscribers(&self) -> usize {
        self.links.peers.iter().flatten().filter(|link| link.greeted && link.over.is_none()).count()
    }

    pub(super) fn connected(&self) -> bool {
        self.links.peers.iter().any(Option::is_some)
    }

    pub(super) fn any_leased(&self) -> bool {
        self.ledger.any_leased()
    }

    pub(super) fn lend_at_most(&mut self, buffers: usize) {
        if self.settings.lease_budget > 0 {
            self.ledger.limit(Pool::Camera, buffers.clamp(1, self.settings.lease_budget));
        }
    }

    pub(super) fn reports(&self) -> Vec<Report> {
        let report = |(peer, link): (usize, &Option<Link>)| {
            let link = link.as_ref()?;
            let counters = self.ledger.counters(peer as u8)?;
            Some(Report {
                pid: link.pid,
                uid: link.uid,
                trusted: link.class.is_trusted(),
                delivered: counters.delivered,
                replaced: counters.replaced,
                revoked: counters.revoked,
                thinned: counters.thinned,
                leased: self.ledger.owed(peer as u8),
                pinned: link.pinned,
            })
        };
        self.links.peers.iter().enumerate().filter_map(report).collect()
    }

    pub(super) fn totals(&self) -> Totals {
        self.reports().iter().fold(self.totals, |sum, peer| Totals {
            delivered: sum.delivered + peer.delivered,
            replaced: sum.replaced + peer.replaced,
            revoked: sum.revoked + peer.revoked,
            ..sum
        })
    }
}

/// Says goodbye. What the peer had sent is thrown away first: a socket that is closed with something unread in it resets the
/// connection, and the peer would not see why it ended.
fn part(socket: BorrowedFd<'_>, farewell: Farewell) {
    let message = Message::Goodbye(farewell).encode();
    let _ = sys::send(socket, message.as_slice(), &[], libc::MSG_DONTWAIT);
    let _ = nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Read);
    // Nothing can be added now, and a socket holds a few hundred messages.
    let mut room = [0; 8];
    while sys::receive(socket, &mut room, None, libc::MSG_DONTWAIT).is_ok_and(|got| got.len > 0) {}
}
