//! Buffers: the camera's, which are only passed on, and the copies, which are written here and nowhere else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;

use super::{Memory, MemoryKind};
use crate::generation::{self, Generations};
use crate::picture::{Picture, Plane};
use crate::sync::AtomicU64;
use crate::sys::{self, Mapping};
use crate::wire::{Announce, MAGIC, MAX_BUFFERS, MAX_MEMORIES, PAGE_GENERATIONS, PAGE_SIZE, VERSION};

/// Where a memory begins in a copy of its buffer: at a multiple of this.
const ALIGN: u64 = 64;

/// A buffer of the camera.
pub(super) struct Buffer {
    kind: MemoryKind,
    memories: heapless::Vec<Memory, MAX_MEMORIES>,
    /// Made when the first copy is wanted; none if the memory cannot be mapped.
    mapped: OnceLock<Option<heapless::Vec<Mapping, MAX_MEMORIES>>>,
}

impl Buffer {
    pub(super) fn new(kind: MemoryKind, memories: Vec<Memory>) -> Option<Self> {
        let whole =
            |memory: &Memory| memory.size > 0 && sys::size(memory.fd.as_fd()).is_ok_and(|size| memory.size <= size);
        if memories.is_empty() || memories.len() > MAX_MEMORIES || !memories.iter().all(whole) {
            return None;
        }
        Some(Self { kind, memories: memories.into_iter().collect(), mapped: OnceLock::new() })
    }

    pub(super) fn announce(&self, index: u8) -> Announce {
        let sizes = std::array::from_fn(|i| self.memories.get(i).map_or(0, |memory| memory.size));
        Announce { index, memories: self.memories.len() as u8, dmabuf: self.kind == MemoryKind::Dmabuf, sizes }
    }

    pub(super) fn descriptors(&self) -> heapless::Vec<BorrowedFd<'_>, MAX_MEMORIES> {
        self.memories.iter().map(|memory| memory.fd.as_fd()).collect()
    }

    /// Bytes in all.
    pub(super) fn size(&self) -> u64 {
        self.memories.iter().map(|memory| memory.size).sum()
    }

    /// Whether a picture lies within.
    pub(super) fn carries(&self, picture: &Picture) -> bool {
        let sizes: heapless::Vec<u64, MAX_MEMORIES> = self.memories.iter().map(|memory| memory.size).collect();
        picture.fits(&sizes)
    }

    /// Bytes that a copy takes.
    pub(super) fn copy_size(&self) -> u64 {
        self.memories.iter().map(|memory| memory.size.next_multiple_of(ALIGN)).sum()
    }

    /// Copies the whole buffer.
    pub(super) fn copy(&self, picture: &Picture, to: &Copy) -> io::Result<Picture> {
        let mapped = self.mapped.get_or_init(|| {
            let map = |memory: &Memory| Mapping::new(memory.fd.as_fd(), memory.size as usize, false).ok();
            let mapped: Option<heapless::Vec<Mapping, MAX_MEMORIES>> = self.memories.iter().map(map).collect();
            mapped
        });
        let mapped = mapped.as_ref().ok_or(io::ErrorKind::PermissionDenied)?;
        let mut base = 0;
        let mut picture = picture.clone();
        for (number, (memory, mapping)) in self.memories.iter().zip(mapped).enumerate() {
            if self.kind == MemoryKind::Dmabuf {
                sys::sync_dmabuf(memory.fd.as_fd(), true)?;
            }
            to.write(base, mapping.start(), mapping.len());
            if self.kind == MemoryKind::Dmabuf {
                sys::sync_dmabuf(memory.fd.as_fd(), false)?;
            }
            for plane in picture.planes.iter_mut().filter(|plane| plane.memory as usize == number) {
                *plane = Plane { memory: 0, stride: plane.stride, offset: plane.offset + base };
            }
            base += memory.size.next_multiple_of(ALIGN);
        }
        Ok(picture)
    }
}

/// A buffer for copies (B6): other processes get a descriptor that they can neither write to nor map for writing.
pub(super) struct Copy {
    fd: OwnedFd,
    mapping: Mapping,
}

impl Copy {
    pub(super) fn new(size: u64) -> io::Result<Self> {
        let fd = sys::memory("mos-frame", size)?;
        let mapping = Mapping::new(fd.as_fd(), size as usize, true)?;
        sys::seal(fd.as_fd())?;
        // Every page is touched now: a page fault for each would cost the first frames 2 ms.
        // SAFETY: the mapping is ours alone, and this long.
        unsafe { ptr::write_bytes(mapping.start(), 0, mapping.len()) };
        Ok(Self { fd, mapping })
    }

    pub(super) fn size(&self) -> u64 {
        self.mapping.len() as u64
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn announce(&self, index: u8) -> Announce {
        Announce { index, memories: 1, dmabuf: false, sizes: [self.size(), 0, 0, 0] }
    }

    /// Copies memory of this process.
    pub(super) fn fill(&self, bytes: &[u8]) {
        self.write(0, bytes.as_ptr(), bytes.len());
    }

    /// Writes `len` bytes at an offset; what does not fit is left out.
    fn write(&self, offset: u64, from: *const u8, len: usize) {
        let room = self.mapping.len().saturating_sub(offset as usize);
        // SAFETY: source and target are mappings of at least these lengths, and never the same memory. The target is
        // written by the thread of the bus alone; readers of an earlier frame learn by its generation.
        unsafe { ptr::copy_nonoverlapping(from, self.mapping.start().add(offset as usize), len.min(room)) };
    }
}

/// The generation page: every subscriber may read it.
pub(super) struct Page {
    fd: OwnedFd,
    mapping: Mapping,
}

impl Page {
    pub(super) fn new() -> io::Result<Self> {
        let fd = sys::memory("mos-frame-generations", PAGE_SIZE as u64)?;
        let mapping = Mapping::new(fd.as_fd(), PAGE_SIZE, true)?;
        sys::seal(fd.as_fd())?;
        let mut head = [0; 16];
        head[..8].copy_from_slice(&MAGIC);
        head[8..10].copy_from_slice(&VERSION.to_le_bytes());
        head[12..].copy_from_slice(&(MAX_BUFFERS as u32).to_le_bytes());
        // SAFETY: the page is ours, larger than its head, and nobody else has it yet.
        unsafe { ptr::copy_nonoverlapping(head.as_ptr(), mapping.start(), head.len()) };
        Ok(Self { fd, mapping })
    }

    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    fn cell(&self, buffer: u8) -> &AtomicU64 {
        let at = PAGE_GENERATIONS + 8 * (usize::from(buffer) % MAX_BUFFERS);
        // SAFETY: within the page, aligned to 8, and only ever used as an atomic.
        unsafe { AtomicU64::from_ptr(self.mapping.start().add(at).cast()) }
    }
}

impl Generations for Page {
    fn current(&self, buffer: u8) -> u64 {
        self.cell(buffer).load(crate::sync::Ordering::Relaxed)
    }

    fn raise(&self, buffer: u8) {
        generation::raise(self.cell(buffer));
    }
}

const _: () = assert!(PAGE_GENERATIONS + 8 * MAX_BUFFERS <= PAGE_SIZE);
