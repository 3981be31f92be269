//! Memory of a frame in a pipeline: the bus' own, and the lease with it.
//!
//! A memory is made once per buffer of the bus and mapped once. For each frame a share of it is lent to the pipeline, with
//! the frame's lease attached; when the last share is freed, whoever frees it, the frame goes back.
#![allow(unsafe_code, reason = "memory over descriptors, and data that is attached to it")]

use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::glib::translate::IntoGlib;
use gstreamer_allocators::prelude::*;
use gstreamer_allocators::{DmaBufAllocator, FdAllocator, FdMemoryFlags};
use mos_frame::Lease;

/// A lease in the pipeline's hands.
pub(crate) struct Held {
    pub(crate) lease: Lease,
    /// Counts the frames that became void meanwhile.
    pub(crate) stale: Arc<AtomicU64>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.lease.is_intact() {
            self.stale.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Memory over a descriptor, mapped for reading at the first need and until it is freed.
pub(crate) fn memory(fd: OwnedFd, size: u64, dmabuf: bool) -> Result<gst::Memory, glib::BoolError> {
    let size = usize::try_from(size).map_err(|_| glib::bool_error!("memory of {size} bytes"))?;
    let (fd, flags) = (fd.into_raw_fd(), FdMemoryFlags::KEEP_MAPPED);
    // SAFETY: a descriptor of its own, of that size, which the memory closes.
    unsafe {
        if dmabuf {
            DmaBufAllocator::new().alloc_dmabuf_with_flags(fd, size, flags)
        } else {
            FdAllocator::new().alloc_fd(fd, size, flags)
        }
    }
}

/// A share of the first bytes of a memory that keeps a lease.
pub(crate) fn lend(memory: &gst::MemoryRef, bytes: usize, held: Arc<Held>) -> gst::Memory {
    unsafe extern "C" fn free(data: glib::ffi::gpointer) {
        // SAFETY: put there below, and freed once.
        drop(unsafe { Arc::from_raw(data.cast::<Held>().cast_const()) });
    }
    static NAME: std::sync::LazyLock<glib::Quark> =
        std::sync::LazyLock::new(|| glib::Quark::from_str("mos-frame-lease"));
    let share = memory.share(..bytes);
    // SAFETY: a memory is a mini object; it is ours alone so far. The data lives until GStreamer calls `free`.
    unsafe {
        let object = share.as_mut_ptr().cast::<gst::ffi::GstMiniObject>();
        let data = Arc::into_raw(held).cast_mut().cast();
        gst::ffi::gst_mini_object_set_qdata(object, NAME.into_glib(), data, Some(free));
    }
    share
}
