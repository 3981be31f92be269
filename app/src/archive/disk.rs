//! The seam to the file system. Everything that the archive stores goes through [`Disk`].
//!
//! Paths are relative to the archive's root, without `..`. The real implementation is `RealDisk`, the simulated
//! one, which forgets and tears what was not synced, is `SimDisk`.

use std::io;
use std::path::Path;
use std::sync::Arc;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; reading only.
    Read,
    /// Must exist; reading and writing.
    ReadWrite,
    /// Must not exist.
    CreateNew,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name; entries whose name is not UTF-8 are listed lossily and never opened.
    pub name: String,
    /// Whether it is a directory (not following links).
    pub is_dir: bool,
}

/// Size of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSize {
    /// Bytes that can be read.
    pub len: u64,
    /// Bytes of allocated blocks; what retention counts.
    pub allocated: u64,
}

/// Room on the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes of the whole file system.
    pub total: u64,
    /// Bytes that this process may still write.
    pub free: u64,
}

/// A file system rooted at the archive.
pub trait Disk: Send + Sync {
    /// Opens or creates a file. A created name is durable only after [`Disk::sync_dir`] of its directory.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates one directory; an existing one is no error. Durable after [`Disk::sync_dir`] of its parent.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory, in no order.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Makes the names in a directory durable (`""` is the root).
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Replaces `to` atomically. Durable after [`Disk::sync_dir`] of both directories.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a name. Durable after [`Disk::sync_dir`].
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Size of a file without opening it.
    fn size(&self, path: &Path) -> io::Result<FileSize>;
    /// Room left.
    fn space(&self) -> io::Result<Space>;
}

/// An open file. All calls may come from any thread.
pub trait DiskFile: Send + Sync {
    /// Fills `buf` from `offset`; returns how much there was before the end.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `parts`, one after another, from `offset`.
    fn write_at(&self, offset: u64, parts: &[io::IoSlice<'_>]) -> io::Result<()>;
    /// Makes contents and length durable (`fdatasync`). Not to be repeated after a failure: the kernel forgets.
    fn sync(&self) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Length and allocated blocks.
    fn size(&self) -> io::Result<FileSize>;
    /// Whether there is nothing in it.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reserves blocks up to `len` without changing the length (`FALLOC_FL_KEEP_SIZE`); best effort.
    fn reserve(&self, len: u64) -> io::Result<()>;
    /// Evicts cached pages, so that the next read shows what the device holds; best effort.
    fn evict(&self) -> io::Result<()>;
    /// Appends `len` bytes of this file from `offset` to `to` at `to_offset`, inside the kernel where it can.
    fn copy_to(&self, offset: u64, len: u64, to: &dyn DiskFile, to_offset: u64) -> io::Result<()>;
    /// The descriptor, for copies inside the kernel; the simulated disk has none.
    fn raw_fd(&self) -> Option<std::os::fd::RawFd> {
        None
    }
}

#[cfg(test)]
mod conformance;
mod real;
mod sim;
mod sim_store;

pub use self::real::RealDisk;
pub use self::sim::{SimDisk, SimOp};
