//! What may be sent: files under `segments/`, `clips/` and `snapshots/` of the archive, and nothing else.
//!
//! The archive confines paths and opens files without following links; this room adds what only an upload asks: a segment must
//! be whole, unfinished files (names with a leading dot) do not leave, and the segment is pinned while its job lives.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure::{Failure, FailureKind, Refused};
use super::subject;
use super::template::Values;
use crate::archive::disk::{DiskFile, OpenMode};
use crate::archive::ids::SegmentId;
use crate::archive::paths::confine;
use crate::archive::{Archive, ArchiveError, Pin, SegmentState};

/// The folders that files are sent from.
pub struct Outbox {
    /// As configured, and without links: both are used in absolute paths.
    roots: [PathBuf; 2],
    archive: Archive,
}

/// A file that may be sent; a segment stays where it is while this lives.
pub struct Outgoing {
    /// Relative to the archive's root.
    pub path: PathBuf,
    /// The name that it gets at the destination unless the URI names one.
    pub name: String,
    /// The values of its tokens.
    pub values: Values,
    _pin: Option<Pin>,
}

impl Outbox {
    /// The outbox of the archive at `root`.
    #[must_use]
    pub fn new(root: &Path, archive: Archive) -> Self {
        let plain = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        Self { roots: [root.to_owned(), plain], archive }
    }

    /// Checks what a caller named, absolute or relative to the archive's root, and pins it.
    pub fn take(&self, asked: &str) -> Result<Outgoing, Refused> {
        let shown = || asked.escape_debug().to_string();
        let refuse = |why: &str| Refused::Path { path: shown(), why: why.to_owned() };
        let confined = self.roots.iter().find_map(|root| confine(root, asked).ok());
        let path = confined.ok_or_else(|| {
            refuse("only files under segments/, clips/ and snapshots/ of the archive may be sent, named without '..'")
        })?;
        // In one spelling only: no `//`, no `.` on the way.
        let path: PathBuf = path.components().collect();
        let Some(text) = path.to_str().filter(|p| !p.chars().any(char::is_control)) else {
            return Err(refuse("the name holds control characters"));
        };
        if text.split('/').any(|part| part.starts_with('.')) {
            return Err(refuse("names with a leading dot are unfinished files, which are not sent"));
        }
        let segment = segment_of(&path);
        let (name, pin) = match &segment {
            Some(id) => (format!("{id}.mp4"), Some(self.pin(id, asked)?)),
            None if path.starts_with("segments") => return Err(refuse("of segments/ only the segments are sent")),
            None => (path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()), None),
        };
        match self.archive.disk().open(&path, OpenMode::Read) {
            Ok(_) => {
                let values = subject::values(&self.archive, &path, &name, segment.as_ref());
                Ok(Outgoing { path, name, values, _pin: pin })
            }
            Err(e) => Err(match e.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => Refused::NotFound { path: shown() },
                Some(libc::ELOOP | libc::EXDEV) => refuse("links are not followed"),
                _ => refuse(&e.to_string()),
            }),
        }
    }

    /// Takes again what a job of an earlier life had taken, before anything is listed or removed. That it is still there is
    /// seen when it is opened.
    #[must_use]
    pub fn retake(&self, path: &Path) -> Outgoing {
        let pin = segment_of(path).and_then(|id| self.archive.pins().pin(&id).ok());
        let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        Outgoing { path: path.to_owned(), name, values: Values::new(), _pin: pin }
    }

    /// Opens what was taken.
    pub fn open(&self, outgoing: &Outgoing) -> Result<Arc<dyn DiskFile>, Failure> {
        self.archive.disk().open(&outgoing.path, OpenMode::Read).map_err(|e| {
            Failure::new(FailureKind::SourceError, format!("cannot open {}: {e}", outgoing.path.display()))
        })
    }

    fn pin(&self, id: &SegmentId, asked: &str) -> Result<Pin, Refused> {
        let path = || asked.escape_debug().to_string();
        let look_up = || {
            let pin = self.archive.pins().pin(id)?;
            Ok((pin, self.archive.lookup(id)?))
        };
        match look_up() {
            Ok((pin, segment)) => match segment.row.state {
                SegmentState::Open => Err(Refused::Open { path: path() }),
                SegmentState::Unfinished => Err(Refused::Unfinished { path: path() }),
                SegmentState::Closed | SegmentState::Recovered | SegmentState::Newer => Ok(pin),
            },
            Err(ArchiveError::NotFound(_)) => Err(Refused::NotFound { path: path() }),
            Err(ArchiveError::StillListing(_)) => Err(Refused::StillListing { path: path() }),
            Err(e) => Err(Refused::Path { path: path(), why: e.to_string() }),
        }
    }
}

/// The segment that lies at `segments/{lens}/{run}/{seq}.mp4`.
fn segment_of(path: &Path) -> Option<SegmentId> {
    let parts: Vec<&str> = path.iter().map(|p| p.to_str()).collect::<Option<_>>()?;
    let ["segments", lens, run, file] = parts.as_slice() else { return None };
    let id: SegmentId = format!("{lens}-{run}-{}", file.strip_suffix(".mp4")?).parse().ok()?;
    (id.media_path() == path).then_some(id)
}
