//! The raw frames of a lens on the frame bus.
//!
//! Promises that frames leave a source by a probe on its fixed raw branch, which costs next to nothing while nobody
//! subscribes and never waits; that a picture in dmabufs is published where it lies, and is the camera's own again when its
//! last reader is done; that encoders' buffers never leave; and that a source may come and go while readers wait.
//!
//! A lens whose camera codes by itself is decoded for the bus in [`decoder`], only while somebody subscribes; one that is
//! captured by another process is relayed from there ([`Relay`]).

mod budget;
mod decoder;
mod layout;
mod relay;

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_allocators::{DmaBufMemory, FdMemory};
use gstreamer_video::VideoMeta;
use mos_frame::{BufferId, Frame, Lease, Lent, MemoryKind, Modifier, Picture, Pixels, Publisher};

pub use budget::Budget;
pub use decoder::Decoders;
pub use mos_frame::{PublishError, Report, Settings, Totals};
pub use relay::{Relay, socket_behind};

use self::layout::Layout;
use crate::media::AccessUnit;
use crate::platform::Platform;
use crate::source::{SourceError, UnitSink};

/// What the bus holds of a frame, and that it does.
struct Loan {
    kept: Kept,
    /// Frames that the bus holds.
    lent: Arc<AtomicUsize>,
}

/// What goes back to its pool when it is dropped.
enum Kept {
    Buffer { _buffer: gst::Buffer },
    Mapped(gst::MappedBuffer<gst::buffer::Readable>),
    Leased { _frame: Lease },
}

impl Lent for Loan {
    fn bytes(&self) -> Option<&[u8]> {
        match &self.kept {
            Kept::Buffer { .. } | Kept::Leased { .. } => None,
            Kept::Mapped(map) => Some(map.as_slice()),
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.lent.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Of a camera's pool: one that is being filled, one that waits for that, one that is being coded.
const CAMERAS_OWN: usize = 3;

/// How many of a pool's buffers may be lent: what the camera really has counts, not what it was asked for.
fn lendable(pool: usize) -> usize {
    pool.saturating_sub(CAMERAS_OWN).max(1)
}

/// A published lens. Outlives the sources that feed it.
pub struct LensFrames {
    socket: PathBuf,
    publisher: Publisher<Loan>,
    /// Buffers of the camera that the bus may hold.
    budget: u32,
    /// Published for the recorder, which lends it on: what it holds is never taken back, so it is not given too much.
    behind: bool,
    pool: Mutex<Pool>,
    sequence: AtomicU64,
    lent: Arc<AtomicUsize>,
    /// Whether the source has a raw branch.
    raw: AtomicBool,
    /// A layout that cannot be published was told of.
    told: AtomicBool,
    decoding: Mutex<decoder::Run>,
    demand: Arc<Demand>,
    /// What all lenses may move together, and what of it is this one's; 0 while nobody subscribes.
    all: Arc<Budget>,
    claim: AtomicU64,
    /// Bytes of pictures that were given to the bus.
    moved: AtomicU64,
    /// There was no room for this lens.
    denied: AtomicBool,
}

/// Buffers that the bus knows.
#[derive(Default)]
struct Pool {
    /// Rises with every opening: what an earlier one still delivers counts no more.
    opening: u64,
    /// The numbers of a camera's buffers, by their memories' identities.
    known: HashMap<[(u64, u64); 4], BufferId>,
    /// Any was registered.
    used: bool,
}

/// One opening of a lens, as somebody who feeds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Feed(u64);

impl Pool {
    fn is_fed_by(&self, feed: Feed) -> bool {
        self.opening == feed.0
    }
}

/// Wakes who waits for subscribers.
#[derive(Debug, Default)]
struct Demand {
    asked: Mutex<()>,
    changed: Condvar,
}

impl Demand {
    fn tell(&self) {
        drop(self.asked.lock());
        self.changed.notify_all();
    }

    /// Waits, at most that long if a time is given.
    fn wait(&self, at_most: Option<Duration>, until: impl Fn() -> bool) {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        // A day is without end here.
        let at_most = at_most.unwrap_or(Duration::from_hours(24));
        drop(self.changed.wait_timeout_while(asked, at_most, |()| !until()));
    }
}

impl fmt::Debug for LensFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LensFrames").field("totals", &self.publisher.totals()).finish_non_exhaustive()
    }
}

/// A published lens is itself and no other.
impl PartialEq for LensFrames {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for LensFrames {}

impl LensFrames {
    /// Opens the socket of a lens that shares `all` with the others.
    pub fn open(settings: Settings, all: &Arc<Budget>) -> Result<Arc<Self>, PublishError> {
        Self::published(settings, false, Arc::clone(all))
    }

    /// Opens the socket at which the recorder's [`Relay`] takes the frames of a lens that this process captures for it. What all
    /// lenses may move is the relay's business.
    pub fn open_behind(socket: PathBuf, budget: usize) -> Result<Arc<Self>, PublishError> {
        Self::published(relay::behind(socket, budget), true, Arc::default())
    }

    fn published(settings: Settings, behind: bool, all: Arc<Budget>) -> Result<Arc<Self>, PublishError> {
        let (budget, socket) = (settings.lease_budget, settings.socket.clone());
        let budget = if budget > 0 { (budget + mos_frame::HANDOVER) as u32 } else { 0 };
        let demand: Arc<Demand> = Arc::default();
        let changed = Arc::clone(&demand);
        let publisher = Publisher::open(settings, Some(Box::new(move |_| changed.tell())))?;
        Ok(Arc::new(Self {
            socket,
            publisher,
            budget,
            behind,
            pool: Mutex::default(),
            sequence: AtomicU64::new(0),
            lent: Arc::default(),
            raw: AtomicBool::new(false),
            told: AtomicBool::new(false),
            decoding: Mutex::default(),
            demand,
            all,
            claim: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            denied: AtomicBool::new(false),
        }))
    }

    /// Buffers of the camera that readers may hold in all.
    #[must_use]
    pub fn budget(&self) -> u32 {
        self.budget
    }

    /// Where it is published.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Every subscriber.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        self.publisher.reports()
    }

    /// Sums since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.publisher.totals()
    }

    /// Bytes of pictures that were given to the bus so far.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Bytes per second that it has claimed of what all lenses may move; 0 while nobody subscribes.
    #[must_use]
    pub fn claimed(&self) -> u64 {
        self.claim.load(Ordering::Relaxed)
    }

    /// Whether somebody wants its pictures and gets none, because all lenses together would move more than they may.
    #[must_use]
    pub fn denied(&self) -> bool {
        self.denied.load(Ordering::Relaxed)
    }

    /// Whether a lens that moves so many bytes per second fits beside the others; claims them. For the present opening only,
    /// and under the lock that shows it: what an earlier one claimed would never be given back.
    fn admitted(&self, _: &mut Pool, rate: u64) -> bool {
        if self.claim.load(Ordering::Relaxed) > 0 {
            return true;
        }
        let claim = rate.max(1);
        let fits = self.all.claim(claim);
        if fits {
            self.claim.store(claim, Ordering::Relaxed);
            self.denied.store(false, Ordering::Relaxed);
        } else if !self.denied.swap(true, Ordering::Relaxed) {
            log::warn!(
                "{}: nobody gets pictures: {claim} bytes/s do not fit beside the {} of other lenses, frames.max_rate is {}",
                self.socket.display(),
                self.all.claimed(),
                self.all.limit().unwrap_or(u64::MAX)
            );
        }
        fits
    }

    /// Gives back what was claimed, under the lock that claims take.
    fn release(&self, _: &mut Pool) {
        self.all.release(self.claim.swap(0, Ordering::Relaxed));
        self.denied.store(false, Ordering::Relaxed);
    }

    /// Gives back what an opening has claimed, unless there is a newer one.
    fn release_of(&self, feed: Feed) {
        if self.claimed() == 0 && !self.denied() {
            return;
        }
        let mut pool = self.kept();
        if pool.is_fed_by(feed) {
            self.release(&mut pool);
        }
    }

    /// Before a source is opened, and when it is gone: its buffers go back, and what it may still deliver counts no more.
    pub fn renew(&self) {
        self.raw.store(false, Ordering::Relaxed);
        self.decoding().stop();
        let mut pool = self.kept();
        pool.opening += 1;
        self.release(&mut pool);
        self.forget(&mut pool);
    }

    /// A sink in the place of `sink` that also feeds the bus: with the source's raw pictures, or with what is decoded where
    /// the camera codes by itself.
    pub fn beside(self: &Arc<Self>, platform: &dyn Platform, sink: Arc<dyn UnitSink>) -> Arc<dyn UnitSink> {
        Arc::new(Beside { decoding: decoder::Decoding::new(self, platform.decoders()), sink })
    }

    /// Publishes what passes a pad.
    pub(crate) fn tap(self: &Arc<Self>, pad: &gst::Pad) {
        self.raw.store(true, Ordering::Relaxed);
        self.pass(pad, self.feed());
    }

    fn pass(self: &Arc<Self>, pad: &gst::Pad, feed: Feed) {
        let this = Arc::clone(self);
        let format: Mutex<Option<(gst::Caps, Option<Layout>)>> = Mutex::default();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            if !this.publisher.wanted() {
                this.release_of(feed);
                return gst::PadProbeReturn::Ok;
            }
            let (Some(buffer), Some(caps)) = (info.buffer(), pad.current_caps()) else {
                return gst::PadProbeReturn::Ok;
            };
            let mut format = format.lock().unwrap_or_else(PoisonError::into_inner);
            if format.as_ref().is_none_or(|(known, _)| *known != caps) {
                // Another size or layout means another pool.
                if format.is_some() {
                    this.forget_of(feed);
                }
                let layout = Layout::of(&caps);
                if layout.is_none() && !this.told.swap(true, Ordering::Relaxed) {
                    log::warn!("frames in {caps} cannot be published");
                }
                *format = Some((caps, layout));
            }
            if let Some((_, Some(layout))) = &*format {
                this.publish(feed, buffer, layout);
            }
            gst::PadProbeReturn::Ok
        });
        // Answered, an allocation query tells how many buffers a pool is to have: the bus may hold some of them.
        let budget = self.budget;
        let answered = gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PULL;
        pad.add_probe(answered, move |_, info| {
            if let Some(gst::QueryViewMut::Allocation(query)) = info.query_mut().map(gst::QueryRef::view_mut) {
                ask_for(query, budget);
            }
            gst::PadProbeReturn::Ok
        });
    }

    fn kept(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decoding(&self) -> MutexGuard<'_, decoder::Run> {
        self.decoding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn feed(&self) -> Feed {
        Feed(self.kept().opening)
    }

    fn lend(&self, kept: Kept) -> Loan {
        self.lent.fetch_add(1, Ordering::Relaxed);
        Loan { kept, lent: Arc::clone(&self.lent) }
    }

    fn forget(&self, pool: &mut Pool) {
        if std::mem::take(&mut pool.used) {
            pool.known.clear();
            self.publisher.reconfigure();
        }
    }

    /// Forgets the buffers of an opening and gives back what it claimed, unless there is a newer one.
    fn forget_of(&self, feed: Feed) {
        let mut pool = self.kept();
        if pool.is_fed_by(feed) {
            self.release(&mut pool);
            self.forget(&mut pool);
        }
    }

    fn publish(&self, feed: Feed, buffer: &gst::Buffer, layout: &Layout) {
        let Some(mut picture) = layout.picture(buffer.meta::<VideoMeta>().as_deref()) else { return };
        // The running time of every pipeline is CLOCK_MONOTONIC itself.
        let captured = buffer.pts().map_or_else(mos_frame::sys::monotonic, gst::ClockTime::nseconds);
        let mut pool = self.kept();
        let bytes = buffer.size() as u64;
        if !pool.is_fed_by(feed) || !self.admitted(&mut pool, layout.rate(bytes)) {
            return;
        }
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let (pixels, hold) = match self.place(&mut pool, buffer, &mut picture) {
            Some(_) if self.behind && self.lent.load(Ordering::Relaxed) > lendable(pool.known.len()) => return,
            Some(id) => (Pixels::Buffer(id), Kept::Buffer { _buffer: buffer.clone() }),
            // What is not read as rows is worth nothing as a copy either.
            None if picture.modifier != Modifier::LINEAR => return,
            None => match buffer.clone().into_mapped_buffer_readable() {
                Ok(map) => (Pixels::System, Kept::Mapped(map)),
                Err(_) => return,
            },
        };
        self.publisher.publish(Frame { pixels, sequence, captured, picture, hold: self.lend(hold) });
    }

    /// The bus' number of a buffer that lies in dmabufs, and the picture's planes in their memories. `None`: it is to be
    /// copied.
    fn place(&self, pool: &mut Pool, buffer: &gst::BufferRef, picture: &mut Picture) -> Option<BufferId> {
        let count = buffer.n_memory();
        if !(1..=4).contains(&count) || self.budget == 0 {
            return None;
        }
        let mut identity = [(0, 0); 4];
        let mut starts = [0; 4];
        let mut start = 0;
        for (at, memory) in buffer.iter_memories().enumerate() {
            let (place, of) = (identity.get_mut(at)?, descriptor(memory)?);
            let found = nix::sys::stat::fstat(of).ok()?;
            *place = (found.st_dev, found.st_ino);
            *starts.get_mut(at)? = start;
            start += memory.size() as u64;
        }
        for plane in &mut picture.planes {
            // Offsets of GStreamer count through all memories.
            let memory = (0..count).rev().find(|at| plane.offset >= starts[*at])?;
            let within = buffer.peek_memory(memory).offset() as u64;
            (plane.memory, plane.offset) = (memory as u32, plane.offset - starts[memory] + within);
        }
        if let Some(id) = pool.known.get(&identity) {
            return Some(*id);
        }
        let memories: Option<Vec<mos_frame::Memory>> = buffer.iter_memories().map(owned).collect();
        let id = match self.publisher.add_buffer(MemoryKind::Dmabuf, memories?) {
            Ok(id) => id,
            Err(PublishError::TooManyBuffers(_)) => {
                self.forget(pool);
                let memories: Option<Vec<mos_frame::Memory>> = buffer.iter_memories().map(owned).collect();
                self.publisher.add_buffer(MemoryKind::Dmabuf, memories?).ok()?
            }
            Err(_) => return None,
        };
        pool.known.insert(identity, id);
        pool.used = true;
        if !self.behind {
            self.publisher.lend_at_most(lendable(pool.known.len()));
        }
        Some(id)
    }
}

impl Drop for LensFrames {
    fn drop(&mut self) {
        self.release(&mut self.kept());
    }
}

/// Raises what a pool is to have at least.
fn ask_for(query: &mut gst::query::Allocation, budget: u32) {
    let pools: Vec<_> = query.allocation_pools().collect();
    for (at, (pool, size, min, max)) in pools.into_iter().enumerate() {
        let max = if max == 0 { 0 } else { max.saturating_add(budget) };
        query.set_nth_allocation_pool(at as u32, pool.as_ref(), size, min.saturating_add(budget), max);
    }
}

/// The descriptor of a memory that others may be given: a dmabuf, also one of a vendor that is not typed as such.
fn descriptor(memory: &gst::MemoryRef) -> Option<BorrowedFd<'_>> {
    let raw = if let Some(dmabuf) = memory.downcast_memory_ref::<DmaBufMemory>() {
        dmabuf.fd()
    } else {
        memory.downcast_memory_ref::<FdMemory>()?.fd()
    };
    // SAFETY: the memory owns it and outlives this.
    (raw >= 0).then(|| unsafe { BorrowedFd::borrow_raw(raw) })
}

/// Nothing if readers would refuse it: what is a descriptor's but no dmabuf is copied.
fn owned(memory: &gst::MemoryRef) -> Option<mos_frame::Memory> {
    let fd = descriptor(memory).filter(|fd| mos_frame::sys::is_lasting(*fd))?.as_fd().try_clone_to_owned().ok()?;
    let size = mos_frame::sys::size(fd.as_fd()).ok()?;
    Some(mos_frame::Memory { fd, size })
}

/// The recorder's sink, and the bus beside it.
struct Beside {
    decoding: decoder::Decoding,
    sink: Arc<dyn UnitSink>,
}

impl UnitSink for Beside {
    fn unit(&self, unit: AccessUnit) {
        self.decoding.unit(&unit);
        self.sink.unit(unit);
    }

    fn left_out(&self, from: crate::clock::Mono, to: crate::clock::Mono, pictures: u64, by: crate::source::LeftOutBy) {
        self.sink.left_out(from, to, pictures, by);
    }

    fn ended(&self, why: SourceError) {
        self.decoding.stop();
        self.sink.ended(why);
    }

    fn frames(&self) -> Option<Arc<LensFrames>> {
        self.decoding.frames()
    }

    fn coded(&self, share: crate::source::Share) {
        self.sink.coded(share);
    }

    fn one_in(&self) -> u32 {
        self.sink.one_in()
    }
}

#[cfg(test)]
mod tests;
