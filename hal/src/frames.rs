//! The raw frames of a lens on the frame bus.
//!
//! Promises that frames leave a source by a probe on its fixed raw branch, which costs next to nothing while nobody
//! subscribes and never waits; that a picture in dmabufs is published where it lies, and is the camera's own again when its
//! last reader is done; that encoders' buffers never leave; and that a source may come and go while readers wait.
//!
//! A lens whose camera codes by itself is decoded for the bus in [`decoder`], only while somebody subscribes.

mod decoder;
mod layout;

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_allocators::{DmaBufMemory, FdMemory};
use gstreamer_video::{VideoInfo, VideoMeta};
use mos_frame::{BufferId, Frame, Lent, MemoryKind, Picture, Pixels, Publisher};

pub use decoder::Decoders;
pub use mos_frame::{PublishError, Report, Settings, Totals};

use crate::media::AccessUnit;
use crate::platform::Platform;
use crate::source::{SourceError, UnitSink};

/// What the bus holds of a frame: the buffer itself, so that its pool gets it back when it is dropped.
enum Loan {
    Kept { _buffer: gst::Buffer },
    Mapped(gst::MappedBuffer<gst::buffer::Readable>),
}

impl Lent for Loan {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Kept { .. } => None,
            Self::Mapped(map) => Some(map.as_slice()),
        }
    }
}

/// A published lens. Outlives the sources that feed it.
pub struct LensFrames {
    socket: PathBuf,
    publisher: Publisher<Loan>,
    /// Buffers of the camera that the bus may hold.
    budget: u32,
    /// Buffers of the camera's pool that the bus knows, by their memories' identities.
    known: Mutex<HashMap<[(u64, u64); 4], BufferId>>,
    sequence: AtomicU64,
    /// Whether the source has a raw branch.
    raw: AtomicBool,
    /// A layout that cannot be published was told of.
    told: AtomicBool,
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
    /// Opens the socket of a lens.
    pub fn open(settings: Settings) -> Result<Arc<Self>, PublishError> {
        let (budget, socket) = (settings.lease_budget, settings.socket.clone());
        let budget = if budget > 0 { (budget + mos_frame::HANDOVER) as u32 } else { 0 };
        let publisher = Publisher::open(settings, None)?;
        Ok(Arc::new(Self {
            socket,
            publisher,
            budget,
            known: Mutex::default(),
            sequence: AtomicU64::new(0),
            raw: AtomicBool::new(false),
            told: AtomicBool::new(false),
        }))
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

    /// Before a source is opened: it has new buffers.
    pub fn renew(&self) {
        self.raw.store(false, Ordering::Relaxed);
        self.forget();
    }

    /// A sink in the place of `sink` that also feeds the bus, where the camera codes by itself.
    pub fn beside(self: &Arc<Self>, platform: &dyn Platform, sink: Arc<dyn UnitSink>) -> Arc<dyn UnitSink> {
        Arc::new(Beside { decoding: decoder::Decoding::new(self, platform.decoders()), sink })
    }

    /// Publishes what passes a pad.
    pub(crate) fn tap(self: &Arc<Self>, pad: &gst::Pad) {
        self.raw.store(true, Ordering::Relaxed);
        self.pass(pad);
    }

    fn pass(self: &Arc<Self>, pad: &gst::Pad) {
        let this = Arc::clone(self);
        let format: Mutex<Option<(gst::Caps, Option<VideoInfo>)>> = Mutex::default();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            if !this.publisher.wanted() {
                return gst::PadProbeReturn::Ok;
            }
            let (Some(buffer), Some(caps)) = (info.buffer(), pad.current_caps()) else {
                return gst::PadProbeReturn::Ok;
            };
            let mut format = format.lock().unwrap_or_else(PoisonError::into_inner);
            if format.as_ref().is_none_or(|(known, _)| *known != caps) {
                // Another size or layout means another pool.
                if format.is_some() {
                    this.forget();
                }
                let info = VideoInfo::from_caps(&caps).ok();
                if info.as_ref().and_then(layout::fourcc).is_none() && !this.told.swap(true, Ordering::Relaxed) {
                    log::warn!("frames in {caps} cannot be published");
                }
                *format = Some((caps, info));
            }
            if let Some((_, Some(info))) = &*format {
                this.publish(buffer, info);
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

    fn known(&self) -> MutexGuard<'_, HashMap<[(u64, u64); 4], BufferId>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) {
        let mut known = self.known();
        if !known.is_empty() {
            known.clear();
            self.publisher.reconfigure();
        }
    }

    fn publish(&self, buffer: &gst::Buffer, info: &VideoInfo) {
        let Some(mut picture) = layout::picture(info, buffer.meta::<VideoMeta>().as_deref()) else { return };
        // The running time of every pipeline is CLOCK_MONOTONIC itself.
        let captured = buffer.pts().map_or_else(mos_frame::sys::monotonic, gst::ClockTime::nseconds);
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let (pixels, hold) = match self.place(buffer, &mut picture) {
            Some(id) => (Pixels::Buffer(id), Loan::Kept { _buffer: buffer.clone() }),
            None => match buffer.clone().into_mapped_buffer_readable() {
                Ok(map) => (Pixels::System, Loan::Mapped(map)),
                Err(_) => return,
            },
        };
        self.publisher.publish(Frame { pixels, sequence, captured, picture, hold });
    }

    /// The bus' number of a buffer that lies in dmabufs, and the picture's planes in their memories. `None`: it is to be
    /// copied.
    fn place(&self, buffer: &gst::BufferRef, picture: &mut Picture) -> Option<BufferId> {
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
        let mut known = self.known();
        if let Some(id) = known.get(&identity) {
            return Some(*id);
        }
        let memories: Option<Vec<mos_frame::Memory>> = buffer.iter_memories().map(owned).collect();
        let memories = memories?;
        let id = match self.publisher.add_buffer(MemoryKind::Dmabuf, memories) {
            Ok(id) => id,
            Err(PublishError::TooManyBuffers(_)) => {
                known.clear();
                self.publisher.reconfigure();
                let memories: Option<Vec<mos_frame::Memory>> = buffer.iter_memories().map(owned).collect();
                self.publisher.add_buffer(MemoryKind::Dmabuf, memories?).ok()?
            }
            Err(_) => return None,
        };
        known.insert(identity, id);
        Some(id)
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

fn owned(memory: &gst::MemoryRef) -> Option<mos_frame::Memory> {
    let fd = descriptor(memory)?.as_fd().try_clone_to_owned().ok()?;
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
}

#[cfg(test)]
mod tests;
