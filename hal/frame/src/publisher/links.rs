//! The connections of a publisher's peers, and what is sent to them: never waiting, never more than the books allow.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::buffers::{Buffer, Copy};
use crate::ledger::{MAX_PEERS, Post, Sent};
use crate::sys;
use crate::wire::{Class, Encoded, Farewell, MAX_BUFFERS, Message, Reason};

/// A connected peer.
pub(super) struct Link {
    pub(super) socket: OwnedFd,
    pub(super) uid: u32,
    pub(super) pid: i32,
    pub(super) class: Class,
    /// When it connected.
    pub(super) since: u64,
    /// Whether it has said hello.
    pub(super) greeted: bool,
    /// A bit per buffer that it has descriptors of.
    pub(super) announced: u64,
    /// Bytes of those.
    pub(super) pinned: u64,
    /// It is to be closed for this reason, if it is.
    pub(super) over: Option<Over>,
}

/// Why a connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// It is closed at the other end.
    Left,
    /// This side ends it and says so.
    Farewell(Farewell),
}

/// What a buffer number stands for.
#[derive(Clone)]
pub(super) enum Place {
    Camera(Arc<Buffer>),
    Copy(Arc<Copy>),
}

impl Place {
    fn size(&self) -> u64 {
        match self {
            Self::Camera(buffer) => buffer.size(),
            Self::Copy(copy) => copy.size(),
        }
    }

    fn announce(&self, socket: BorrowedFd<'_>, index: u8) -> io::Result<()> {
        let flags = libc::MSG_DONTWAIT;
        match self {
            Self::Camera(buffer) => {
                let message = Message::Announce(buffer.announce(index)).encode();
                sys::send(socket, message.as_slice(), &buffer.descriptors(), flags)
            }
            Self::Copy(copy) => {
                let message = Message::Announce(copy.announce(index)).encode();
                sys::send(socket, message.as_slice(), &[copy.descriptor()], flags)
            }
        }
    }
}

/// All connections and the buffers they may hear of.
pub(super) struct Links {
    pub(super) peers: [Option<Link>; MAX_PEERS],
    pub(super) places: [Option<Place>; MAX_BUFFERS],
    /// Bytes that one peer may pin (B5).
    pub(super) max_pinned: u64,
}

impl Links {
    pub(super) fn new(max_pinned: u64) -> Self {
        Self { peers: std::array::from_fn(|_| None), places: std::array::from_fn(|_| None), max_pinned }
    }

    pub(super) fn peer(&mut self, peer: u8) -> Option<&mut Link> {
        self.peers.get_mut(usize::from(peer))?.as_mut()
    }

    /// Sends one small message; a peer that cannot take it now has not taken what it was sent before.
    pub(super) fn send(&mut self, peer: u8, message: &Message, with: &[BorrowedFd<'_>]) -> Sent {
        let Some(link) = self.peer(peer).filter(|link| link.over.is_none()) else { return Sent::Gone };
        let sent = sys::send(link.socket.as_fd(), message.encode().as_slice(), with, libc::MSG_DONTWAIT);
        link.outcome(sent)
    }
}

impl Link {
    fn outcome(&mut self, sent: io::Result<()>) -> Sent {
        let Err(e) = sent else { return Sent::Done };
        // Full socket; too many descriptors on their way; no memory just now.
        let later = [libc::EAGAIN, libc::ETOOMANYREFS, libc::ENOBUFS, libc::ENOMEM, libc::EINTR];
        if e.raw_os_error().is_some_and(|code| later.contains(&code)) {
            return Sent::Later;
        }
        self.over = Some(Over::Left);
        Sent::Gone
    }
}

impl Post for Links {
    fn frame(&mut self, peer: u8, buffer: u8, message: &Encoded) -> Sent {
        let Some(link) = self.peers.get_mut(usize::from(peer)).and_then(Option::as_mut) else { return Sent::Gone };
        if link.over.is_some() {
            return Sent::Gone;
        }
        let bit = 1u64 << buffer;
        if link.announced & bit == 0 {
            let Some(place) = self.places.get(usize::from(buffer)).and_then(Option::as_ref) else { return Sent::Gone };
            let pinned = link.pinned.saturating_add(place.size());
            if pinned > self.max_pinned {
                link.over = Some(Over::Farewell(Farewell::Refused));
                return Sent::Gone;
            }
            let announced = place.announce(link.socket.as_fd(), buffer);
            match link.outcome(announced) {
                Sent::Done => {}
                other => return other,
            }
            link.announced |= bit;
            link.pinned = pinned;
        }
        let sent = sys::send(link.socket.as_fd(), message.as_slice(), &[], libc::MSG_DONTWAIT);
        link.outcome(sent)
    }

    fn revoked(&mut self, peer: u8, buffer: u8, generation: u64, reason: Reason) -> Sent {
        self.send(peer, &Message::Revoked { index: buffer, generation, reason }, &[])
    }
}
