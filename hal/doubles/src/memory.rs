//! Memory of frames, and the guard over it.
//!
//! Frames lie in memfds. What leaves a camera is a descriptor that is open for writing only, so the kernel refuses every
//! mapping and every read of it: whoever but a double touches the pixels of a camera fails, whatever library it does it
//! with. Doubles find the pixels of a frame by the inode of its descriptor, which also proves that the very buffer of the
//! camera arrived and no copy of it.

#![allow(unsafe_code, reason = "descriptors and mappings")]

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer_allocators as allocators;
use gstreamer_allocators::prelude::*;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::data::Output;
use crate::events;

/// Device and inode of a memfd.
pub(crate) type Key = (u64, u64);

/// The pixels of one buffer, mapped for the doubles.
#[derive(Debug)]
pub(crate) struct Pixels {
    at: NonNull<u8>,
    len: usize,
    fd: OwnedFd,
}

// SAFETY: a shared mapping that lives as long as this; who may write is a matter of who holds the buffer.
unsafe impl Send for Pixels {}
// SAFETY: as above.
unsafe impl Sync for Pixels {}

impl AsRef<[u8]> for Pixels {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped at `at` until drop.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl Drop for Pixels {
    fn drop(&mut self) {
        // SAFETY: mapped by `Pixels::new`, not used after this.
        let _ = unsafe { munmap(self.at.cast(), self.len) };
    }
}

impl Pixels {
    fn new(len: usize) -> Result<Self, nix::Error> {
        let fd = memfd_create(c"mos-double", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        nix::unistd::ftruncate(&fd, len as i64)?;
        // As a dmabuf, it keeps its size.
        fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW))?;
        let size = NonZeroUsize::new(len).ok_or(nix::Error::EINVAL)?;
        // SAFETY: a new shared mapping of a file of that length, at an address of the kernel's choice.
        let at =
            unsafe { mmap(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, &fd, 0) }?;
        Ok(Self { at: at.cast(), len, fd })
    }

    /// Writes into the pixels. Only for who holds the buffer alone, fresh from its pool.
    pub(crate) fn write(&self, paint: impl FnOnce(&mut [u8])) {
        // SAFETY: `len` bytes are mapped; the caller holds the buffer alone, so nobody reads.
        paint(unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) });
    }

    fn key(&self) -> Result<Key, nix::Error> {
        let stat = nix::sys::stat::fstat(&self.fd)?;
        Ok((stat.st_dev, stat.st_ino))
    }
}

static KNOWN: LazyLock<Mutex<HashMap<Key, Arc<Pixels>>>> = LazyLock::new(Mutex::default);

/// Allocates pixels and a memory over them.
pub(crate) fn allocate(len: usize, kind: Output) -> Result<(Key, gst::Memory), String> {
    let pixels = Pixels::new(len).map_err(|e| format!("memfd: {e}"))?;
    let key = pixels.key().map_err(|e| format!("memfd: {e}"))?;
    let guarded = kind == Output::GuardedDmabuf;
    let path = format!("/proc/self/fd/{}", pixels.fd.as_raw_fd());
    let file = OpenOptions::new().write(true).read(!guarded).open(path).map_err(|e| format!("memfd: {e}"))?;
    let fd = OwnedFd::from(file);
    // SAFETY: the descriptor is ours to give, and the file is `len` bytes long.
    let memory = unsafe {
        match kind {
            Output::Fd => {
                use std::os::fd::IntoRawFd;
                let allocator = allocators::FdAllocator::new();
                allocator.alloc_fd(fd.into_raw_fd(), len, allocators::FdMemoryFlags::NONE)
            }
            Output::Dmabuf | Output::GuardedDmabuf => allocators::DmaBufAllocator::new().alloc_dmabuf(fd, len),
        }
    };
    let memory = memory.map_err(|e| e.to_string())?;
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::new(pixels));
    Ok((key, memory))
}

/// Forgets pixels whose buffers are gone.
pub(crate) fn forget(keys: &[Key]) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    for key in keys {
        known.remove(key);
    }
}

/// The pixels of a double's buffer behind this memory; `None` if it is no double's.
pub(crate) fn find(memory: &gst::MemoryRef) -> Option<(Key, Arc<Pixels>)> {
    let fd = memory.downcast_memory_ref::<allocators::FdMemory>()?.fd();
    // SAFETY: the memory keeps its descriptor open while it is borrowed.
    let stat = nix::sys::stat::fstat(unsafe { BorrowedFd::borrow_raw(fd) }).ok()?;
    let key = (stat.st_dev, stat.st_ino);
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.get(&key).map(|p| (key, Arc::clone(p)))
}

/// Writes down every mapping that the kernel refuses.
pub(crate) fn listen() {
    // The category exists once an allocator does.
    drop(allocators::DmaBufAllocator::new());
    if let Some(category) = gst::DebugCategory::get("fdmemory") {
        category.set_threshold(gst::DebugLevel::Debug);
        if std::env::var_os("GST_DEBUG").is_none() {
            // Else GStreamer itself would print the lines that are meant for the function below.
            gst::log::remove_default_log_function();
        }
    }
    let _ = gst::log::add_log_function(|category, _, _, _, _, _, message| {
        let text = if category.name() == "fdmemory" { message.get() } else { None };
        if let Some(text) = text.filter(|t| t.contains("mmap failed")) {
            events::fault("memory", "guard", &format!("somebody tried to map a camera's pixels: {text}"));
            events::event("mapping-refused", "memory", "guard", serde_json::json!({ "text": text.as_str() }));
        }
    });
}
