//! A lens that another process captures, on this process's socket.
//!
//! The other process, a worker of the recorder, publishes by the same protocol on a socket of its own ([`behind`]), with this
//! relay as its one reader: descriptors come once, then a number for each frame. What readers hold here is leased there.
//!
//! Promises:
//! - R1: the other process is asked for frames only while somebody subscribes here, and for a second after: a reader that
//!   connects anew does not make buffers change once more.
//! - R2: its buffers go back to it when their last reader here is done or was revoked; it takes none back by itself.
//! - R3: when it ends in any way, readers hear that buffers change, as at every opening; their sockets stay.
//! - R4: nothing that it sends can harm this process or a reader: sizes and rates are bounded, and memory that could shrink
//!   below a mapping is refused.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mos_frame::{
    BufferId, Frame, Memory, MemoryKind, Pixels, Received, ReceivedFrame, Settings, Subscriber, Wish, sys,
};

use super::layout::USUAL_FPS;
use super::{Feed, Kept, LensFrames, Pool, lendable};

/// Most buffers that readers of a lens in another process may hold in all: the leases of one reader there, but two that are
/// on their way.
pub(super) const MOST_LENT: usize = 6;
/// Frames that may be on their way besides those that readers hold.
const ON_THE_WAY: usize = 2;
/// How often the other process is tried while it does not publish yet.
const RETRY: Duration = Duration::from_millis(100);
/// How often it is looked whether anybody still subscribes, while no frame comes, and how long nobody does before frames are no
/// longer asked for.
const LOOK: Duration = Duration::from_millis(500);
/// Frames in a second; more are no camera's.
const FASTEST: u32 = 1000;
/// Bytes of a buffer; more are no camera's (a picture of 8192x4320 in NV12 has 51 MiB).
const LARGEST: u64 = 64 << 20;
/// How far in the past a capture time may lie, in ns.
const OLDEST: u64 = 60_000_000_000;

/// How the other process is to publish at `socket`, so that up to `budget` frames may be held here.
#[must_use]
pub(super) fn behind(socket: PathBuf, budget: usize) -> Settings {
    let leases = budget.min(MOST_LENT) + ON_THE_WAY;
    let mut settings = Settings::new(socket);
    settings.mode = 0o600;
    // One that waits and the next one beside all leases: the books there never take a frame back (R2).
    settings.lease_budget = if budget == 0 { 0 } else { leases + 2 };
    settings.copy_budget = leases + 2;
    settings.lease_time = Duration::from_hours(24);
    // An old connection may not have been noticed yet.
    settings.max_peers = 2;
    settings.max_others = 0;
    settings.max_leases = leases as u32;
    settings.max_waiting = 1;
    settings
}

/// Where the other process publishes the lens of a socket.
#[must_use]
pub fn socket_behind(public: &Path) -> PathBuf {
    public.with_extension("worker")
}

/// Relays until it is dropped.
#[derive(Debug)]
pub struct Relay {
    frames: Arc<LensFrames>,
    over: Arc<AtomicBool>,
    socket: PathBuf,
}

impl Relay {
    /// Starts; the other process may begin to publish later. The lens's frames were renewed before.
    pub fn start(frames: &Arc<LensFrames>) -> std::io::Result<Self> {
        let (over, socket) = (Arc::new(AtomicBool::new(false)), socket_behind(frames.socket()));
        let line =
            Line { frames: Arc::clone(frames), feed: frames.feed(), over: Arc::clone(&over), socket: socket.clone() };
        std::thread::Builder::new().name("mos-relay".into()).stack_size(256 << 10).spawn(move || line.run())?;
        Ok(Self { frames: Arc::clone(frames), over, socket })
    }
}

impl Drop for Relay {
    /// Nobody waits for the thread: what it still reads counts no more once the lens is renewed.
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.frames.demand.tell();
        // A process that was killed leaves it behind.
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// The relay's thread.
struct Line {
    frames: Arc<LensFrames>,
    feed: Feed,
    over: Arc<AtomicBool>,
    socket: PathBuf,
}

/// Why a connection ended.
enum Over {
    /// It may be tried again.
    Again,
    /// What came cannot come from a worker.
    Nonsense(&'static str),
}

impl Line {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn run(&self) {
        while !self.is_over() {
            self.frames.demand.wait(None, || self.is_over() || self.frames.publisher.wanted());
            let leases = (self.frames.budget as usize).min(MOST_LENT) + ON_THE_WAY;
            let wish = Wish { waiting: 1, leases: leases as u32, max_rate: 0 };
            let Ok(mut subscriber) = Subscriber::connect(&self.socket, wish) else {
                self.frames.demand.wait(Some(RETRY), || self.is_over());
                continue;
            };
            let ended = self.serve(&mut subscriber);
            drop(subscriber);
            // R3; and the descriptors of buffers that nobody reads would keep their memory.
            self.frames.forget_of(self.feed);
            if let Err(Over::Nonsense(why)) = ended {
                log::error!("{}: no raw frames of its worker any more: {why}", self.socket.display());
                return;
            }
        }
    }

    fn serve(&self, subscriber: &mut Subscriber) -> Result<(), Over> {
        let mut known = Known { ids: [None; 64], count: 0, bytes: 0, first: None };
        let (mut since, mut frames) = (Instant::now(), 0);
        let mut wanted = Instant::now();
        while !self.is_over() {
            if self.frames.publisher.wanted() {
                wanted = Instant::now();
            } else if wanted.elapsed() >= LOOK {
                break;
            }
            match subscriber.next(Some(LOOK)) {
                Ok(Some(Received::Frame(frame))) => {
                    if since.elapsed() >= Duration::from_secs(1) {
                        (since, frames) = (Instant::now(), 0);
                    }
                    frames += 1;
                    if frames > FASTEST {
                        return Err(Over::Nonsense("too many frames"));
                    }
                    self.pass_on(subscriber, frame, &mut known)?;
                }
                Ok(None) => {}
                // A frame that was taken back there is not whole here either.
                Ok(Some(Received::Revoked(_))) | Err(_) => return Err(Over::Again),
            }
        }
        Ok(())
    }

    fn pass_on(&self, subscriber: &Subscriber, frame: ReceivedFrame, known: &mut Known) -> Result<(), Over> {
        let mut kept = self.frames.kept();
        if !kept.is_fed_by(self.feed) {
            return Err(Over::Again);
        }
        let index = frame.buffer();
        let id = match known.ids.get(index).copied().flatten() {
            Some(id) => id,
            None => self.take_in(subscriber, &frame, known, &mut kept)?,
        };
        // The other process does not tell its rate.
        if !self.frames.admitted(&mut kept, known.bytes.saturating_mul(USUAL_FPS)) {
            // It does not go back by itself, and the other process may not have many out.
            drop(subscriber.lease(frame));
            return Ok(());
        }
        self.frames.moved.fetch_add(known.bytes, Ordering::Relaxed);
        let now = sys::monotonic();
        let captured = frame.captured().clamp(now.saturating_sub(OLDEST), now);
        // Numbers go on from opening to opening, with the gaps that they have there.
        let base = *known.first.get_or_insert_with(|| {
            let last = self.frames.sequence.load(Ordering::Relaxed);
            last.wrapping_add(1).wrapping_sub(frame.sequence())
        });
        let sequence = frame.sequence().wrapping_add(base);
        self.frames.sequence.store(sequence, Ordering::Relaxed);
        let picture = frame.picture().clone();
        let hold = self.frames.lend(Kept::Leased { _frame: subscriber.lease(frame) });
        self.frames.publisher.publish(Frame { pixels: Pixels::Buffer(id), sequence, captured, picture, hold });
        Ok(())
    }

    /// Registers a buffer that is seen first.
    fn take_in(
        &self,
        subscriber: &Subscriber,
        frame: &ReceivedFrame,
        known: &mut Known,
        kept: &mut Pool,
    ) -> Result<BufferId, Over> {
        let mut memories = Vec::new();
        for fd in subscriber.descriptors(frame) {
            if !sys::is_lasting(fd.as_fd()) {
                return Err(Over::Nonsense("memory that could shrink"));
            }
            let (Ok(size), Ok(fd)) = (sys::size(fd.as_fd()), fd.try_clone()) else { return Err(Over::Again) };
            memories.push(Memory { fd, size });
        }
        known.bytes = memories.iter().map(|memory| memory.size).sum();
        if known.bytes > LARGEST {
            return Err(Over::Nonsense("buffers larger than any camera's"));
        }
        let kind = if subscriber.is_dmabuf(frame) { MemoryKind::Dmabuf } else { MemoryKind::Memfd };
        let added = self.frames.publisher.add_buffer(kind, memories);
        let id = added.map_err(|_| Over::Nonsense("more buffers than a camera has"))?;
        if let Some(place) = known.ids.get_mut(frame.buffer()) {
            *place = Some(id);
        }
        known.count += 1;
        kept.used = true;
        // Of a camera's pool one more is left than by a lens of this process: it is on its way. Copies are nobody's but ours.
        let spare = if kind == MemoryKind::Dmabuf { lendable(known.count).saturating_sub(1).max(1) } else { MOST_LENT };
        self.frames.publisher.lend_at_most(spare.min(MOST_LENT));
        Ok(id)
    }
}

/// What a connection has told.
struct Known {
    ids: [Option<BufferId>; 64],
    count: usize,
    /// Of one buffer.
    bytes: u64,
    /// What is added to its numbers.
    first: Option<u64>,
}
