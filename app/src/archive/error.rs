//! What can go wrong in the archive, said so that the caller knows what, where and what to do.

use std::io;
use std::path::{Path, PathBuf};

use super::ids::SegmentId;

/// An error of the archive. Texts name the path and never hold credentials.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// No such segment, or it was removed.
    #[error("no segment {0}; `mos segments` lists what there is")]
    NotFound(SegmentId),
    /// Nothing is known of the segment, but what earlier runs left is not listed yet.
    #[error("nothing is known of segment {0} yet: what earlier runs left is still being listed; try again in a moment")]
    StillListing(SegmentId),
    /// The segment is protected; unprotect it first.
    #[error("segment {0} is protected; unprotect it first")]
    Protected(SegmentId),
    /// The segment is still being recorded.
    #[error("segment {0} is still open; wait until it is closed")]
    StillOpen(SegmentId),
    /// The segment was given up after an error, and recovery has not judged it yet.
    #[error(
        "segment {0} was given up after an error of the disk; the next start of the recorder closes what is intact of it"
    )]
    Unfinished(SegmentId),
    /// The segment is in use and did not become free in time.
    #[error("segment {0} is in use by a clip, snapshot or upload; try again")]
    InUse(SegmentId),
    /// What may be protected is used up; nothing was protected.
    #[error(
        "segment {id} is not protected: {used} of {quota} bytes are protected and it would add {more}; unprotect others or \
         raise storage.protected_max_bytes"
    )]
    ProtectedQuota {
        /// The segment.
        id: SegmentId,
        /// Bytes of protected segments.
        used: u64,
        /// Bytes that this one would add.
        more: u64,
        /// Bytes that may be protected.
        quota: u64,
    },
    /// State beside the segments cannot be read, so nothing is deleted.
    #[error("nothing is deleted because {0}; stop the recorder and run `mos check ROOT --repair`")]
    Frozen(String),
    /// Another process holds the archive.
    #[error("{0} is in use by another process (a running `mos`); stop it first")]
    Locked(PathBuf),
    /// A path given from outside that leaves the archive's folders.
    #[error("'{0}' is not inside the archive's folders segments, clips or snapshots")]
    Outside(String),
    /// The archive is being stopped.
    #[error("the archive is stopping")]
    Stopping,
    /// The index in memory failed.
    #[error("the segment index failed: {0}; restart rebuilds it from the files")]
    Index(String),
    /// A record beside the segments that cannot be understood.
    #[error("{path} cannot be read: {detail}; run `mos check ROOT --repair`")]
    Damaged {
        /// The file, relative to the archive's root.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The file system said no.
    #[error("cannot {what} {path}: {source}{}", remedy(.source))]
    Io {
        /// What was tried: `write`, `sync`, `create`.
        what: &'static str,
        /// Where, relative to the archive's root.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ArchiveError {
    /// Whether the cause is a full file system (`ENOSPC`, `EDQUOT`).
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
                    || source.kind() == io::ErrorKind::StorageFull
            }
            _ => false,
        }
    }
}

/// What to do about an error of the file system, to be put behind it, where that is not plain from its own words.
#[must_use]
pub(crate) fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EROFS) => {
            "; it was mounted so, or the kernel made it so after an error of the disk (its log tells): check the file system \
             and mount it writable again"
        }
        _ => "",
    }
}

/// Adds what and where to an I/O error.
pub(crate) fn at<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ArchiveError + 'a {
    move |source| ArchiveError::Io { what, path: path.to_owned(), source }
}
