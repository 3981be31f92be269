//! A bounded pool of frames in memfds: what a camera or a codec owns and gets back.
//!
//! Promises at most as many buffers as asked for, each with a `GstVideoMeta` that says where its planes lie, and that a buffer
//! comes back only when nobody holds it or a buffer made from it.

use std::sync::{Mutex, OnceLock, PoisonError};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use gstreamer_video as video;

use crate::data::Output;
use crate::memory::{self, Key};

/// How a picture lies in its memory. Rows are aligned to 64 bytes.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) format: video::VideoFormat,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) offsets: Vec<usize>,
    pub(crate) strides: Vec<i32>,
    pub(crate) size: usize,
    pub(crate) memory: Output,
}

impl Layout {
    /// The layout of raw video of these caps.
    pub(crate) fn of(caps: &gst::CapsRef, memory: Output) -> Option<Self> {
        let info = video::VideoInfo::from_caps(caps).ok()?;
        let (format, width, height) = (info.format(), info.width(), info.height());
        let (mut offsets, mut strides, mut size) = (Vec::new(), Vec::new(), 0_usize);
        for plane in 0..info.n_planes() {
            let stride = info.stride().get(plane as usize).map_or(0, |s| (*s as usize).next_multiple_of(64));
            let rows =
                (0..info.n_components()).filter(|c| format.info_plane(*c) == plane).map(|c| info.comp_height(c as u8));
            offsets.push(size);
            strides.push(stride as i32);
            size += stride * rows.max().unwrap_or(height) as usize;
        }
        Some(Self { format, width, height, offsets, strides, size, memory })
    }
}

/// Which plane a component of a format lies in.
trait InfoPlane {
    fn info_plane(self, component: u32) -> u32;
}

impl InfoPlane for video::VideoFormat {
    fn info_plane(self, component: u32) -> u32 {
        video::VideoFormatInfo::from_format(self).plane().get(component as usize).copied().unwrap_or(0)
    }
}

glib::wrapper! {
    pub(crate) struct Pool(ObjectSubclass<imp::Pool>) @extends gst::BufferPool, gst::Object;
}

impl Pool {
    /// An active pool of at most `max` buffers (0: as many as needed).
    pub(crate) fn start(caps: &gst::Caps, layout: Layout, max: u32) -> Result<Self, String> {
        let pool: Self = glib::Object::new();
        let mut config = pool.config();
        config.set_params(Some(caps), layout.size as u32, 0, max);
        let _ = pool.imp().layout.set(layout);
        pool.set_config(config).map_err(|e| e.to_string())?;
        pool.set_active(true).map_err(|e| e.to_string())?;
        Ok(pool)
    }

    /// A buffer that is free now.
    pub(crate) fn take(&self) -> Result<gst::Buffer, gst::FlowError> {
        let now = gst::BufferPoolAcquireParams::with_flags(gst::BufferPoolAcquireFlags::DONTWAIT);
        self.acquire_buffer(Some(&now))
    }

    /// The layout of its buffers.
    pub(crate) fn layout(&self) -> &Layout {
        self.imp().layout.get().expect("set by start")
    }
}

mod imp {
    use super::{Key, Layout, Mutex, OnceLock, PoisonError, glib, gst, memory, video};
    use gstreamer::subclass::prelude::*;

    #[derive(Default)]
    pub(crate) struct Pool {
        pub(crate) layout: OnceLock<Layout>,
        keys: Mutex<Vec<Key>>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Pool {
        const NAME: &'static str = "MosDoublePool";
        type Type = super::Pool;
        type ParentType = gst::BufferPool;
    }

    impl ObjectImpl for Pool {}
    impl GstObjectImpl for Pool {}

    impl BufferPoolImpl for Pool {
        fn alloc_buffer(&self, _: Option<&gst::BufferPoolAcquireParams>) -> Result<gst::Buffer, gst::FlowError> {
            let layout = self.layout.get().ok_or(gst::FlowError::Error)?;
            let made = memory::allocate(layout.size, layout.memory);
            let (key, memory) = made.inspect_err(|e| log::error!("{e}")).map_err(|_| gst::FlowError::Error)?;
            self.keys.lock().unwrap_or_else(PoisonError::into_inner).push(key);
            let mut buffer = gst::Buffer::new();
            let new = buffer.make_mut();
            new.append_memory(memory);
            let flags = video::VideoFrameFlags::empty();
            let (offsets, strides) = (&layout.offsets, &layout.strides);
            video::VideoMeta::add_full(new, flags, layout.format, layout.width, layout.height, offsets, strides)
                .map_err(|_| gst::FlowError::Error)?;
            Ok(buffer)
        }
    }

    impl Drop for Pool {
        fn drop(&mut self) {
            memory::forget(&self.keys.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}
