//! Blocks held in reserve, so that a disk without a free block can still be put in order.
//!
//! Promises:
//! - B1: what makes room (the account of a removal) and what keeps footage (a protection) does not fail because the disk is
//!   full, as long as the reserve is there: it is given up, the work is done, and the reserve is laid in again once there
//!   is room.
//!
//! The reserve is the file `reserve` in the archive's root; it holds nothing. Only this folder uses it.

use std::io::{self, ErrorKind};
use std::path::Path;

use super::disk::{Disk, OpenMode};
use super::error::ArchiveError;
use crate::index::snapshot;

const FILE: &str = "reserve";
/// Some blocks for an account that grows, a file that is written anew, and the folders they lie in.
const BYTES: u64 = 256 << 10;
/// The reserve is only laid in where this many times its size is free.
const TIMES: u64 = 8;

/// Does `work`; if the disk is full, once more without the reserve.
pub(super) fn with<T>(disk: &dyn Disk, mut work: impl FnMut() -> Result<T, ArchiveError>) -> Result<T, ArchiveError> {
    match work() {
        Err(error) if error.is_disk_full() => {
            if give_up(disk).is_err() {
                return Err(error);
            }
            work()
        }
        other => other,
    }
}

/// Where there is no reserve (the disk was full from the start) the snapshot of the index is one: it is a cache.
fn give_up(disk: &dyn Disk) -> io::Result<()> {
    disk.remove_file(Path::new(FILE)).or_else(|_| disk.remove_file(Path::new(snapshot::FILE)))?;
    log::warn!("the disk is full: the blocks held in reserve are used");
    // The blocks of a removed file may be free only once its removal is durable.
    disk.sync_dir(Path::new(""))
}

/// Lays it in if it is not there and there is room; best effort.
pub(super) fn lay_in(disk: &dyn Disk, free: u64) {
    let path = Path::new(FILE);
    if free < TIMES * BYTES || disk.size(path).is_ok_and(|size| size.allocated >= BYTES) {
        return;
    }
    let laid = match disk.open(path, OpenMode::CreateNew) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => disk.open(path, OpenMode::ReadWrite),
        other => other,
    };
    let laid = laid.and_then(|file| file.reserve(BYTES).and_then(|()| file.sync()));
    if let Err(e) = laid.and_then(|()| disk.sync_dir(Path::new(""))) {
        log::debug!("no blocks can be held in reserve: {e}");
    }
}
