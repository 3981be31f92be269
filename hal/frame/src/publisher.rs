//! The camera's side of the bus.
//!
//! [`Publisher::publish`] is called by the thread that has the frame. It tries the lock of the books; as a rule it gets it
//! and sends the frame to every subscriber itself, with calls that never wait. If the one thread of the bus holds the lock
//! just then, the frame waits in one place, a newer one instead of an older, and that thread sends it
//! ([`crate::handover`]). Everything that depends on what peers do
//! (accepting, reading, revoking, copying for peers that are not trusted) happens in that thread: one per lens, however
//! many peers there are.
//!
//! The publisher never waits for a peer, never allocates for a frame, and keeps nothing of a peer that has gone.

mod buffers;
mod links;
mod state;
mod thread;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::handover::Handover;
use crate::ledger::{MAX_LEASES, MAX_PEERS, MAX_SLOTS, MAX_WAITING};
use crate::picture::Picture;
use crate::sys;
use crate::wire::Class;
use buffers::Buffer;
use state::State;

/// What the camera lends for a frame. Its drop is the release: the camera may have the buffer back. It may be dropped by
/// any thread and should be quick about it.
pub trait Lent: Send + 'static {
    /// The pixels, for a frame of [`Pixels::System`].
    fn bytes(&self) -> Option<&[u8]> {
        None
    }
}

/// A buffer that was registered with [`Publisher::add_buffer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferId(pub(crate) u8, pub(crate) u32);

/// What a descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// A dmabuf.
    Dmabuf,
    /// Anonymous memory.
    Memfd,
}

/// One memory of a buffer.
#[derive(Debug)]
pub struct Memory {
    /// Its descriptor; kept until the buffers change.
    pub fd: OwnedFd,
    /// Bytes.
    pub size: u64,
}

/// Where the pixels of a frame are.
#[derive(Clone, Copy, Debug)]
pub enum Pixels {
    /// In a registered buffer: trusted peers read it there.
    Buffer(BufferId),
    /// In memory of this process, see [`Lent::bytes`]: every peer reads a copy.
    System,
}

/// A frame to publish.
pub struct Frame<H> {
    /// Where its pixels are.
    pub pixels: Pixels,
    /// Its number from the camera.
    pub sequence: u64,
    /// Capture time, ns of `CLOCK_MONOTONIC`.
    pub captured: u64,
    /// What the pixels are.
    pub picture: Picture,
    /// Dropped when no peer reads the frame any more.
    pub hold: H,
}

/// How a lens is published.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Path of the socket; at most 107 bytes.
    pub socket: PathBuf,
    /// Permissions of the socket file.
    pub mode: u32,
    /// Buffers of the camera that peers may hold in all, 0 to 16. With none every peer gets copies. The bus itself may hold
    /// one more ([`HANDOVER`]).
    pub lease_budget: usize,
    /// Copies that peers may hold in all, 1 to 15; the memory is allocated when the first such peer wants a frame.
    pub copy_budget: usize,
    /// A lease older than this is revoked, within another 250 ms.
    pub lease_time: Duration,
    /// A peer that has not said hello after this time is cut.
    pub hello_time: Duration,
    /// Peers, 1 to 64.
    pub max_peers: usize,
    /// Peers among them that are not trusted.
    pub max_others: usize,
    /// Frames a peer may hold, 1 to 8.
    pub max_leases: u32,
    /// Frames that may wait for a peer, 1 to 8.
    pub max_waiting: u32,
    /// Bytes of buffers that one peer may get descriptors of; a peer that would need more is cut.
    pub max_pinned: u64,
    /// Users whose peers get the camera's own buffers. Only for users that may do harm to the picture: a dmabuf cannot be
    /// made read-only.
    pub trusted: Vec<u32>,
}

impl Settings {
    /// Settings for a lens at `socket`; the user that this process runs as, and root, are trusted.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            mode: 0o660,
            lease_budget: 4,
            copy_budget: 4,
            lease_time: Duration::from_secs(1),
            hello_time: Duration::from_secs(5),
            max_peers: 32,
            max_others: 16,
            max_leases: 4,
            max_waiting: 4,
            max_pinned: 512 << 20,
            trusted: vec![0, nix::unistd::geteuid().as_raw()],
        }
    }

    fn check(&self) -> Result<(), PublishError> {
        let limits: [(&'static str, usize, usize, usize); 6] = [
            ("lease_budget", self.lease_budget, 0, 16),
            ("copy_budget", self.copy_budget, 1, MAX_SLOTS - 17),
            ("max_peers", self.max_peers, 1, MAX_PEERS),
            ("max_others", self.max_others, 0, MAX_PEERS),
            ("max_leases", self.max_leases as usize, 1, MAX_LEASES),
            ("max_waiting", self.max_waiting as usize, 1, MAX_WAITING),
        ];
        match limits.into_iter().find(|(_, value, least, most)| !(least..=most).contains(&value)) {
            Some((setting, value, least, most)) => Err(PublishError::Setting { setting, value, least, most }),
            None => Ok(()),
        }
    }
}

/// Why a lens cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The socket could not be made.
    #[error("cannot publish frames at {}: {source}; is another process publishing there, and may this one write to the folder?", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A setting is out of range.
    #[error("{setting} is {value}, allowed are {least} to {most}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What it is.
        value: usize,
        /// The least.
        least: usize,
        /// The most.
        most: usize,
    },
    /// No number is left for another buffer.
    #[error("the camera has more than {0} buffers; call `reconfigure` when its pool changes")]
    TooManyBuffers(usize),
    /// A buffer has no memory, too many, or less than it tells.
    #[error("a buffer must have 1 to 4 memories, each as large as it tells")]
    Memory,
}

/// What one peer has done and holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its process when it connected.
    pub pid: i32,
    /// Its user when it connected.
    pub uid: u32,
    /// Whether it gets the camera's own buffers.
    pub trusted: bool,
    /// Frames sent to it.
    pub delivered: u64,
    /// Frames that newer ones took the place of while they waited.
    pub replaced: u64,
    /// Leases taken back from it.
    pub revoked: u64,
    /// Frames left out because of the rate it asked for.
    pub thinned: u64,
    /// Leases that it has not returned, revoked ones among them.
    pub leased: usize,
    /// Bytes of the buffers that it has descriptors of.
    pub pinned: u64,
}

/// What a publisher has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Frames given to [`Publisher::publish`].
    pub published: u64,
    /// Frames that nobody got, because all buffers were being copied or a newer frame was there before the bus had time.
    pub refused: u64,
    /// Those among the refused that a newer frame overtook: the thread of the bus had no time, as on a busy machine.
    pub overtaken: u64,
    /// Frames copied for peers that are not trusted.
    pub copied: u64,
    /// Frames that could not be copied, because their memory cannot be read.
    pub unreadable: u64,
    /// Peers that were cut for breaking the protocol or a limit.
    pub cut: u64,
    /// Sums over all peers, those that have gone among them.
    pub delivered: u64,
    /// See [`Report::replaced`].
    pub replaced: u64,
    /// See [`Report::revoked`].
    pub revoked: u64,
}

/// What the threads share.
struct Shared<H> {
    books: Handover<State<H>, Frame<H>>,
    bell: sys::Bell,
    /// Peers that have said hello.
    subscribers: AtomicUsize,
    stop: AtomicBool,
}

/// Tells whether anybody subscribes, whenever that changes; called by the thread of the bus.
pub type Demand = Box<dyn Fn(bool) + Send>;

/// A published lens. Dropping it says goodbye to all peers and takes every frame back.
pub struct Publisher<H: Lent> {
    shared: Arc<Shared<H>>,
    thread: Option<JoinHandle<()>>,
    socket: PathBuf,
    /// Device and number of the socket's file.
    file: Option<(u64, u64)>,
}

/// Frames that may wait for the thread of the bus when it holds the lock, each in a buffer of the camera.
pub const HANDOVER: usize = 1;

impl<H: Lent> Publisher<H> {
    /// Opens the socket and starts the thread.
    pub fn open(settings: Settings, demand: Option<Demand>) -> Result<Self, PublishError> {
        settings.check()?;
        let system = |what| move |source| PublishError::System { what, source };
        let socket = settings.socket.clone();
        let listener = sys::listen(&socket, settings.mode, 64)
            .map_err(|source| PublishError::Socket { path: socket.clone(), source })?;
        let file = identity(&socket);
        let state = State::new(settings, listener).map_err(system("cannot set up the frame bus"))?;
        let bell = sys::Bell::new().map_err(system("cannot make an eventfd"))?;
        let (subscribers, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let shared = Arc::new(Shared { books: Handover::new(state), bell, subscribers, stop });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("mos-frames".into());
        let thread = thread.spawn(move || thread::run(&for_thread, demand)).map_err(system("cannot start a thread"))?;
        Ok(Self { shared, thread: Some(thread), socket, file })
    }

    /// Registers a buffer of the camera's pool, once. Its memory is not touched.
    pub fn add_buffer(&self, kind: MemoryKind, memories: Vec<Memory>) -> Result<BufferId, PublishError> {
        let buffer = Buffer::new(kind, memories).ok_or(PublishError::Memory)?;
        self.shared.books.lock().add_buffer(buffer)
    }

    /// Publishes a frame (B1). Its `hold` is dropped at once if nobody wants it.
    pub fn publish(&self, frame: Frame<H>) {
        let wake = self.shared.books.publish(frame, State::deliver);
        if wake {
            self.shared.bell.ring();
        }
    }

    /// Whether anybody subscribes just now.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.shared.subscribers.load(Ordering::Relaxed) > 0
    }

    /// The camera's buffers change: takes all frames back, forgets the buffers and cuts all peers, who may connect again.
    pub fn reconfigure(&self) {
        self.shared.books.lock().reconfigure();
        self.shared.bell.ring();
    }

    /// Peers may hold no more than this many of the camera's buffers in all, nor more than the lease budget: its pool has
    /// turned out to be smaller or larger than was thought.
    pub fn lend_at_most(&self, buffers: usize) {
        self.shared.books.lock().lend_at_most(buffers);
    }

    /// Every peer that has said hello.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        self.shared.books.lock().reports()
    }

    /// Sums since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let totals = self.shared.books.lock().totals();
        let overtaken = self.shared.books.overtaken();
        Totals { published: totals.published + overtaken, refused: totals.refused + overtaken, overtaken, ..totals }
    }
}

impl<H: Lent> Drop for Publisher<H> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Its name may be another's by now. The number is nobody else's as long as the socket is open, which it is here.
        if self.file.is_some() && identity(&self.socket) == self.file {
            let _ = std::fs::remove_file(&self.socket);
        }
    }
}

/// Device and number of what is at a path, itself and not what it leads to.
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

impl Class {
    fn is_trusted(self) -> bool {
        self == Self::Trusted
    }
}
