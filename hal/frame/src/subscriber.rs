//! The reader's side of the bus: connect, map every buffer once, take frames, look whether they were still intact, return them.
//!
//! Trusts the publisher no further than it must: what it sends is checked before it is used, and nothing it sends panics.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::generation;
use crate::picture::Picture;
use crate::sync::AtomicU64;
use crate::sys::{self, Mapping};
use crate::wire::{
    Announce, Class, Farewell, FrameNote, Hello, MAX_BUFFERS, MAX_MEMORIES, MAX_MESSAGE, Message, PAGE_GENERATIONS,
    PAGE_SIZE, Reason, Welcome, WireError,
};

/// Why there are no frames.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// Nobody publishes there, or this user may not read it.
    #[error("cannot connect to {}: {source}; is the lens captured, and may this user read its socket?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What came is no message of this protocol.
    #[error("the publisher sent what is no message: {0}")]
    Wire(#[from] WireError),
    /// A message that must not come here, or whose parts do not fit each other.
    #[error("the publisher broke the protocol: {0}")]
    Protocol(&'static str),
    /// The publisher ended the connection. After [`Farewell::Reconfigured`] connect again.
    #[error("the publisher said goodbye: {0:?}")]
    Goodbye(Farewell),
    /// The connection is closed.
    #[error("the publisher has gone")]
    Closed,
}

/// How long a publisher may take to answer: one that lives does so within 50 ms.
const PATIENCE: Duration = Duration::from_secs(30);
/// How soon one that has too many waiting is tried again: the kernel does not tell when there is room.
const AGAIN: Duration = Duration::from_millis(20);

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Frames that may wait for this reader; the newest are kept.
    pub waiting: u32,
    /// Frames that it may hold at once.
    pub leases: u32,
    /// Frames in 1000 s at most; 0 for all.
    pub max_rate: u32,
}

impl Default for Wish {
    /// Every frame, one waiting, two held.
    fn default() -> Self {
        Self { waiting: 1, leases: 2, max_rate: 0 }
    }
}

struct Buffer {
    announce: Announce,
    fds: sys::Descriptors,
    /// Made when a frame's bytes are first asked for, and kept. A reader for a GPU never maps.
    mapped: heapless::Vec<Mapping, MAX_MEMORIES>,
}

/// What is needed to check a frame and to give it back.
struct Link {
    socket: OwnedFd,
    page: Mapping,
}

impl Link {
    fn is_intact(&self, index: u8, generation: u64) -> bool {
        let at = PAGE_GENERATIONS + 8 * (usize::from(index) % MAX_BUFFERS);
        // SAFETY: the index is below MAX_BUFFERS, so this lies within the page, aligned to 8; the publisher writes it
        // atomically.
        let cell = unsafe { AtomicU64::from_ptr(self.page.start().add(at).cast()) };
        generation::holds(cell, generation)
    }

    fn release(&self, index: u8, generation: u64) -> io::Result<()> {
        let message = Message::Release { index, generation }.encode();
        // Never waits: a publisher that cannot take as many releases as it gave frames is not one.
        sys::send(self.socket.as_fd(), message.as_slice(), &[], libc::MSG_DONTWAIT)
    }
}

/// A leased frame on its way through other threads, independent of its subscriber. Its drop gives the frame back.
pub struct Lease {
    link: Arc<Link>,
    index: u8,
    generation: u64,
}

impl Lease {
    /// See [`Subscriber::is_intact`].
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.link.is_intact(self.index, self.generation)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.link.release(self.index, self.generation).is_err() {
            // The connection is over, or the publisher reads nothing: without this return its books would be wrong for good.
            let _ = nix::sys::socket::shutdown(self.link.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        }
    }
}

/// A connection to one lens. It ends when it and all its [`Lease`]s are dropped.
pub struct Subscriber {
    link: Arc<Link>,
    welcome: Welcome,
    buffers: [Option<Buffer>; MAX_BUFFERS],
}

/// What [`Subscriber::next`] gives.
#[derive(Debug)]
pub enum Received {
    /// A frame, leased.
    Frame(ReceivedFrame),
    /// A lease was taken back; its frame is no longer valid. It is still to be released.
    Revoked(Reason),
}

/// A leased frame. To be given back with [`Subscriber::release`]; it does so not by itself.
#[derive(Debug)]
#[must_use = "a frame that is not released is a lease that is lost"]
pub struct ReceivedFrame {
    note: FrameNote,
}

impl ReceivedFrame {
    /// Its number from the camera; gaps are frames that did not come here.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.note.sequence
    }

    /// Capture time, ns of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn captured(&self) -> u64 {
        self.note.captured
    }

    /// What the pixels are.
    #[must_use]
    pub fn picture(&self) -> &Picture {
        &self.note.picture
    }

    /// Number of its buffer: the same for every frame in the same memory, so that an import can be kept.
    #[must_use]
    pub fn buffer(&self) -> usize {
        usize::from(self.note.index)
    }
}

impl Subscriber {
    /// Connects to a lens; gives up after 30 s.
    pub fn connect(path: &Path, wish: Wish) -> Result<Self, SubscribeError> {
        Self::connect_unless(path, wish, None)
    }

    /// Connects to a lens, unless `stop` becomes readable first: that is [`SubscribeError::Connect`] with
    /// [`io::ErrorKind::Interrupted`].
    pub fn connect_unless(path: &Path, wish: Wish, stop: Option<BorrowedFd<'_>>) -> Result<Self, SubscribeError> {
        let connecting = |source| SubscribeError::Connect { path: path.to_owned(), source };
        let end = Instant::now() + PATIENCE;
        let socket = loop {
            match sys::connect(path) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => pause(stop, end).map_err(connecting)?,
                connected => break connected.map_err(connecting)?,
            }
        };
        let Wish { waiting, leases, max_rate } = wish;
        let hello = Message::Hello(Hello { waiting: waiting.max(1), leases: leases.max(1), max_rate }).encode();
        // A refusal may be on its way already: it is read below and says more than a broken pipe.
        match sys::send(socket.as_fd(), hello.as_slice(), &[], 0) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(connecting(e)),
            _ => {}
        }
        await_answer(socket.as_fd(), stop, end).map_err(connecting)?;
        let mut fds = sys::Descriptors::new();
        let Message::Welcome(welcome) = read(socket.as_fd(), &mut fds)? else {
            return Err(SubscribeError::Protocol("its first message is no welcome"));
        };
        let page = fds.pop().filter(|_| fds.is_empty()).ok_or(SubscribeError::Protocol("welcome without its page"))?;
        let enough =
            sys::size(page.as_fd()).is_ok_and(|size| size >= PAGE_SIZE as u64) && !sys::may_shrink(page.as_fd());
        let page = Mapping::new(page.as_fd(), PAGE_SIZE, false).ok().filter(|_| enough);
        let page = page.ok_or(SubscribeError::Protocol("its generation page cannot be mapped"))?;
        let link = Arc::new(Link { socket, page });
        Ok(Self { link, welcome, buffers: std::array::from_fn(|_| None) })
    }

    /// What was granted.
    #[must_use]
    pub fn welcome(&self) -> Welcome {
        self.welcome
    }

    /// Whether frames are the camera's own buffers.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.welcome.class == Class::Trusted
    }

    /// Waits for what comes next, at most `time`; `None` if nothing came.
    pub fn next(&mut self, time: Option<Duration>) -> Result<Option<Received>, SubscribeError> {
        loop {
            if time.is_some() {
                let ready = sys::wait(&[self.link.socket.as_fd()], time);
                if !ready.map_err(|source| SubscribeError::System { what: "cannot wait for frames", source })? {
                    return Ok(None);
                }
            }
            let mut fds = sys::Descriptors::new();
            match read(self.link.socket.as_fd(), &mut fds)? {
                Message::Announce(announce) => self.take_buffer(announce, fds)?,
                Message::Frame(note) => {
                    let buffer = self.buffers[usize::from(note.index)].as_ref();
                    let buffer =
                        buffer.ok_or(SubscribeError::Protocol("a frame in a buffer that was not announced"))?;
                    let sizes = &buffer.announce.sizes[..usize::from(buffer.announce.memories)];
                    if !note.picture.fits(sizes) {
                        return Err(SubscribeError::Protocol("a plane beyond its buffer"));
                    }
                    return Ok(Some(Received::Frame(ReceivedFrame { note })));
                }
                Message::Revoked { reason, .. } => return Ok(Some(Received::Revoked(reason))),
                Message::Goodbye(farewell) => return Err(SubscribeError::Goodbye(farewell)),
                _ => return Err(SubscribeError::Protocol("a message that only subscribers send")),
            }
        }
    }

    fn take_buffer(&mut self, announce: Announce, fds: sys::Descriptors) -> Result<(), SubscribeError> {
        if fds.len() != usize::from(announce.memories) {
            return Err(SubscribeError::Protocol("a buffer without all its descriptors"));
        }
        let large = fds.iter().zip(announce.sizes).all(|(fd, size)| sys::size(fd.as_fd()).is_ok_and(|s| s >= size));
        if !large {
            return Err(SubscribeError::Protocol("a buffer smaller than announced"));
        }
        // What it calls a dmabuf need not be one.
        if !fds.iter().all(|fd| sys::is_lasting(fd.as_fd())) {
            return Err(SubscribeError::Protocol("a buffer that may shrink"));
        }
        let place = &mut self.buffers[usize::from(announce.index)];
        if place.is_some() {
            return Err(SubscribeError::Protocol("a buffer announced twice"));
        }
        *place = Some(Buffer { announce, fds, mapped: heapless::Vec::new() });
        Ok(())
    }

    /// Whether a frame is still what it was when it was given: to be asked *after* the work on it (B2). If not, the result
    /// of that work is worth nothing.
    #[must_use]
    pub fn is_intact(&self, frame: &ReceivedFrame) -> bool {
        self.link.is_intact(frame.note.index, frame.note.generation)
    }

    /// Lets a frame go its own way.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "a frame has one lease")]
    pub fn lease(&self, frame: ReceivedFrame) -> Lease {
        Lease { link: Arc::clone(&self.link), index: frame.note.index, generation: frame.note.generation }
    }

    /// Leases that are on their way.
    #[must_use]
    pub fn leases_out(&self) -> usize {
        Arc::strong_count(&self.link) - 1
    }

    /// Bytes of each of a frame's memories.
    #[must_use]
    pub fn sizes(&self, frame: &ReceivedFrame) -> &[u64] {
        self.buffers[frame.buffer()]
            .as_ref()
            .map_or(&[], |buffer| &buffer.announce.sizes[..usize::from(buffer.announce.memories)])
    }

    /// The descriptors of a frame's memories, to import them elsewhere.
    #[must_use]
    pub fn descriptors(&self, frame: &ReceivedFrame) -> &[OwnedFd] {
        self.buffers[frame.buffer()].as_ref().map_or(&[], |buffer| &buffer.fds)
    }

    /// Whether a frame's memories are dmabufs.
    #[must_use]
    pub fn is_dmabuf(&self, frame: &ReceivedFrame) -> bool {
        self.buffers[frame.buffer()].as_ref().is_some_and(|buffer| buffer.announce.dmabuf)
    }

    /// Where a plane lies in memory, for readers that can do with bytes that change below them; mapped at the first call
    /// for its buffer. Valid as long as this subscriber. A dmabuf is to be bracketed with [`sys::sync_dmabuf`].
    pub fn plane(&mut self, frame: &ReceivedFrame, plane: usize) -> Result<*const [u8], SubscribeError> {
        let layout = frame.note.picture.planes.get(plane).ok_or(SubscribeError::Protocol("no such plane"))?;
        let buffer = self.buffers[frame.buffer()].as_mut().ok_or(SubscribeError::Protocol("no such buffer"))?;
        if buffer.mapped.is_empty() {
            let map = |(fd, size): (&OwnedFd, u64)| Mapping::new(fd.as_fd(), size as usize, false);
            let mapped: io::Result<heapless::Vec<Mapping, MAX_MEMORIES>> =
                buffer.fds.iter().zip(buffer.announce.sizes).map(map).collect();
            buffer.mapped = mapped.map_err(|source| SubscribeError::System { what: "cannot map a frame", source })?;
        }
        let memory = buffer.mapped.get(layout.memory as usize).ok_or(SubscribeError::Protocol("no such memory"))?;
        let offset = (layout.offset as usize).min(memory.len());
        let len = (frame.note.picture.bytes(plane) as usize).min(memory.len() - offset);
        // SAFETY: offset is within the mapping.
        Ok(ptr::slice_from_raw_parts(unsafe { memory.start().add(offset) }, len))
    }

    /// Copies a plane out. False if the frame was taken back meanwhile, and what was copied is worth nothing.
    pub fn copy_plane(
        &mut self,
        frame: &ReceivedFrame,
        plane: usize,
        to: &mut Vec<u8>,
    ) -> Result<bool, SubscribeError> {
        let bytes = self.plane(frame, plane)?;
        to.clear();
        to.reserve(bytes.len());
        let fds = self.descriptors(frame);
        let bracket = self.is_dmabuf(frame);
        let memory = frame.note.picture.planes.get(plane).map_or(0, |plane| plane.memory as usize);
        let sync = |begin| match fds.get(memory).filter(|_| bracket) {
            Some(fd) => sys::sync_dmabuf(fd.as_fd(), begin),
            None => Ok(()),
        };
        let failed = |source| SubscribeError::System { what: "cannot read a dmabuf", source };
        sync(true).map_err(failed)?;
        // SAFETY: the mapping is that long and lives as long as we; the room was reserved. The copy goes through raw
        // pointers, as its source may change below it.
        unsafe {
            ptr::copy_nonoverlapping(bytes.cast::<u8>(), to.as_mut_ptr(), bytes.len());
            to.set_len(bytes.len());
        }
        sync(false).map_err(failed)?;
        Ok(self.is_intact(frame))
    }

    /// Gives a frame back.
    #[expect(clippy::needless_pass_by_value, reason = "a frame that was given back must not be used")]
    pub fn release(&mut self, frame: ReceivedFrame) -> Result<(), SubscribeError> {
        let sent = self.link.release(frame.note.index, frame.note.generation);
        sent.map_err(|source| match source.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => SubscribeError::Closed,
            _ => SubscribeError::System { what: "cannot return a frame", source },
        })
    }
}

impl AsFd for Subscriber {
    /// Readable when [`Subscriber::next`] has something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.socket.as_fd()
    }
}

/// Waits a moment for room among those that connect.
fn pause(stop: Option<BorrowedFd<'_>>, end: Instant) -> io::Result<()> {
    if Instant::now() >= end {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let Some(stop) = stop else {
        std::thread::sleep(AGAIN);
        return Ok(());
    };
    if sys::wait(&[stop], Some(AGAIN))? { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
}

/// Waits until there is something to read.
fn await_answer(socket: BorrowedFd<'_>, stop: Option<BorrowedFd<'_>>, end: Instant) -> io::Result<()> {
    let both = [socket, stop.unwrap_or(socket)];
    // A signal ends a wait early.
    while !sys::wait(&both, Some(end.saturating_duration_since(Instant::now())))? {
        if Instant::now() >= end {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    if sys::wait(&[socket], Some(Duration::ZERO))? { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
}

/// One message and its descriptors.
fn read(socket: BorrowedFd<'_>, fds: &mut sys::Descriptors) -> Result<Message, SubscribeError> {
    let mut room = [0; MAX_MESSAGE];
    let got = loop {
        match sys::receive(socket, &mut room, Some(fds), 0) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Err(SubscribeError::Closed),
            Err(source) => return Err(SubscribeError::System { what: "cannot read from the frame bus", source }),
            Ok(got) => break got,
        }
    };
    if got.truncated || got.stray_descriptors {
        return Err(SubscribeError::Protocol("a message that is too long"));
    }
    if got.len == 0 {
        return Err(SubscribeError::Closed);
    }
    let message = Message::decode(room.get(..got.len).unwrap_or_default())?;
    let carries = matches!(message, Message::Welcome(_) | Message::Announce(_));
    match message {
        Message::Goodbye(farewell) => Err(SubscribeError::Goodbye(farewell)),
        _ if !carries && !fds.is_empty() => Err(SubscribeError::Protocol("descriptors that belong to nothing")),
        message => Ok(message),
    }
}
