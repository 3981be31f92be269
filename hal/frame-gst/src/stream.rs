//! One connection to a lens, and how its frames become buffers of a pipeline.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video::{VideoFrame, VideoFrameFlags, VideoMeta};
use mos_frame::{Modifier, Picture, Received, ReceivedFrame, SubscribeError, Subscriber, Wish};

use crate::format::Layout;
use crate::memory::{self, Held};

/// What frames are at present, as negotiated with downstream.
pub(crate) struct Kind {
    picture: Picture,
    dmabuf: bool,
    /// None if there are no rows that could be read.
    layout: Option<Layout>,
    /// Downstream heeds where planes lie.
    heeds: bool,
    /// Memory for copies.
    pool: Option<gst::BufferPool>,
}

/// A frame as a buffer.
pub(crate) struct Taken {
    pub(crate) buffer: gst::Buffer,
    pub(crate) copied: bool,
}

/// A connection.
pub(crate) struct Stream {
    subscriber: Subscriber,
    /// By buffer of the bus.
    memories: HashMap<usize, Vec<gst::Memory>>,
    kind: Option<Kind>,
    stale: Arc<AtomicU64>,
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.subscriber.as_fd()
    }
}

impl Stream {
    /// Connects, unless `stop` becomes readable first.
    pub(crate) fn connect(
        socket: &Path,
        wish: Wish,
        stale: Arc<AtomicU64>,
        stop: BorrowedFd<'_>,
    ) -> Result<Self, SubscribeError> {
        let subscriber = Subscriber::connect_unless(socket, wish, Some(stop))?;
        Ok(Self { subscriber, memories: HashMap::new(), kind: None, stale })
    }

    /// A frame that is there and still intact; one that is not is given back and counted in `void`.
    pub(crate) fn next(&mut self, void: &mut u64) -> Result<Option<ReceivedFrame>, SubscribeError> {
        match self.subscriber.next(Some(std::time::Duration::ZERO))? {
            Some(Received::Frame(frame)) if self.subscriber.is_intact(&frame) => Ok(Some(frame)),
            Some(Received::Frame(frame)) => {
                *void += 1;
                self.subscriber.release(frame)?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Whether a frame is of another kind than those before.
    pub(crate) fn is_news(&self, frame: &ReceivedFrame) -> bool {
        let dmabuf = self.subscriber.is_dmabuf(frame);
        self.kind.as_ref().is_none_or(|kind| kind.picture != *frame.picture() || kind.dmabuf != dmabuf)
    }

    pub(crate) fn is_dmabuf(&self, frame: &ReceivedFrame) -> bool {
        self.subscriber.is_dmabuf(frame)
    }

    /// Takes up what was negotiated for a frame; says what is wrong if the frame is not to be had that way.
    pub(crate) fn settle(&mut self, frame: &ReceivedFrame, caps: &gst::Caps, heeds: bool) -> Result<(), String> {
        let picture = frame.picture();
        let layout = Layout::of(picture);
        let plain = caps.features(0).is_none_or(|features| !features.contains("memory:DMABuf"));
        let pool = match &layout {
            None if plain => return Err(format!("planes of {} do not fit together", picture.fourcc)),
            None => None,
            Some(layout) => Some(pool(caps, layout).map_err(|e| e.to_string())?),
        };
        let dmabuf = self.subscriber.is_dmabuf(frame);
        // Where plain pictures will not do a copy in ordinary memory will not either.
        let pool = pool.filter(|_| plain);
        self.kind = Some(Kind { picture: picture.clone(), dmabuf, layout, heeds: heeds || !plain, pool });
        Ok(())
    }

    /// A frame as a buffer; none if it became void while it was copied.
    pub(crate) fn take(&mut self, frame: ReceivedFrame, void: &mut u64) -> Result<Option<Taken>, String> {
        let Some(kind) = &self.kind else { return Err("a frame before its kind".into()) };
        let number = frame.buffer();
        if !self.memories.contains_key(&number) {
            let fds = self.subscriber.descriptors(&frame).iter().zip(self.subscriber.sizes(&frame));
            let made = fds.map(|(fd, size)| {
                let fd = fd.try_clone().map_err(|e| e.to_string())?;
                memory::memory(fd, *size, kind.dmabuf).map_err(|e| e.to_string())
            });
            self.memories.insert(number, made.collect::<Result<_, String>>()?);
        }
        let Some(memories) = self.memories.get(&number) else { return Err("a buffer without memory".into()) };
        let sequence = frame.sequence();
        let lease = self.subscriber.lease(frame);
        let scarce = self.subscriber.leases_out() >= self.subscriber.welcome().leases as usize;
        let held = Arc::new(Held { lease, stale: Arc::clone(&self.stale) });

        let mut buffer = gst::Buffer::new();
        let lent = buffer.make_mut();
        let mut starts = Vec::new();
        let mut start = 0;
        for (at, memory) in memories.iter().enumerate() {
            // Memory goes on behind the picture, at least to the end of a page: who writes buffers as they are must not see it.
            let used = extent(&kind.picture, at).map_or(memory.size(), |end| end.min(memory.size()));
            starts.push(start);
            start += used;
            lent.append_memory(memory::lend(memory, used, Arc::clone(&held)));
        }
        let offset = |plane: &mos_frame::Plane| {
            let start = starts.get(plane.memory as usize).copied();
            Some(start? + usize::try_from(plane.offset).ok()?)
        };
        let offsets: Option<Vec<usize>> = kind.picture.planes.iter().map(offset).collect();
        let offsets = offsets.ok_or("a plane without memory")?;
        let Some(layout) = &kind.layout else {
            return Ok(Some(Taken { buffer: numbered(buffer, sequence), copied: false }));
        };
        let info = &layout.packed;
        let (width, height) = (info.width(), info.height());
        VideoMeta::add_full(lent, VideoFrameFlags::empty(), info.format(), width, height, &offsets, &layout.strides)
            .map_err(|e| e.to_string())?;
        let told = kind.heeds || (layout.is_packed(&offsets) && start == info.size());
        match kind.pool.as_ref().filter(|_| scarce || !told) {
            None => Ok(Some(Taken { buffer: numbered(buffer, sequence), copied: false })),
            Some(pool) => {
                let copy = copy(pool, buffer, layout)?;
                if held.lease.is_intact() {
                    return Ok(Some(Taken { buffer: numbered(copy, sequence), copied: true }));
                }
                *void += 1;
                Ok(None)
            }
        }
    }
}

/// Bytes of a memory up to the end of the last plane in it; none if that is not known.
fn extent(picture: &Picture, memory: usize) -> Option<usize> {
    let planes = picture.planes.iter().enumerate().filter(|(_, plane)| plane.memory as usize == memory);
    let linear = picture.modifier == Modifier::LINEAR;
    let ends = planes.map(|(number, plane)| plane.offset.checked_add(picture.bytes(number)));
    ends.max().flatten().filter(|_| linear).and_then(|end| usize::try_from(end).ok())
}

/// A pool of ordinary memory.
fn pool(caps: &gst::Caps, layout: &Layout) -> Result<gst::BufferPool, gst::glib::BoolError> {
    let pool = gst::BufferPool::new();
    let mut config = pool.config();
    config.set_params(Some(caps), layout.packed.size() as u32, 0, 0);
    pool.set_config(config)?;
    pool.set_active(true)?;
    Ok(pool)
}

fn copy(pool: &gst::BufferPool, from: gst::Buffer, layout: &Layout) -> Result<gst::Buffer, String> {
    let to = pool.acquire_buffer(None).map_err(|_| "no memory for a copy")?;
    let from = VideoFrame::from_buffer_readable(from, &layout.packed).map_err(|_| "a frame cannot be mapped")?;
    let mut to = VideoFrame::from_buffer_writable(to, &layout.packed).map_err(|_| "a copy cannot be mapped")?;
    from.copy(&mut to).map_err(|e| e.to_string())?;
    Ok(to.into_buffer())
}

fn numbered(mut buffer: gst::Buffer, sequence: u64) -> gst::Buffer {
    let changed = buffer.make_mut();
    changed.set_offset(sequence);
    changed.set_offset_end(sequence.saturating_add(1));
    buffer
}
