//! What may be sent: files under `segments/`, `clips/` and `snapshots/` of the archive, and nothing else.
//!
//! Paths are checked by their text first and then opened by the kernel beneath the archive's root with links forbidden
//! (`openat2(2)`, `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`), so that nobody can swap a directory in between. While a job lives,
//! its file is pinned against Remove and retention.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use super::failure::{Failure, FailureKind, Refused};

/// The folders that hold what may leave.
const FOLDERS: [&str; 3] = ["segments", "clips", "snapshots"];

/// A pin; the file stays where it is until this is dropped.
pub type PinGuard = Box<dyn Send + Sync>;

/// Why a file cannot be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSendable {
    /// The archive knows no such file.
    Absent,
    /// The segment is still being recorded.
    Open,
}

/// Who keeps files from being deleted while they are sent, and knows which segments are whole. The archive, in the daemon.
pub trait Pinning: Send + Sync {
    /// Pins a file, given relative to the archive's root. `Ok` for segments only if they are closed or recovered.
    fn pin(&self, path: &Path) -> Result<PinGuard, NotSendable>;
}

/// The folders that files are sent from.
pub struct Outbox {
    root: PathBuf,
    root_fd: OwnedFd,
    pinning: Arc<dyn Pinning>,
}

/// A file that may be sent, pinned.
pub struct Outgoing {
    /// Relative to the archive's root.
    pub path: PathBuf,
    /// The name that it gets at the destination unless the URI names one.
    pub name: String,
    /// Bytes when it was looked at.
    pub bytes: u64,
    _pin: PinGuard,
}

impl Outbox {
    /// The outbox of the archive at `root`.
    pub fn new(root: &Path, pinning: Arc<dyn Pinning>) -> std::io::Result<Self> {
        let root = root.canonicalize()?;
        let root_fd = open(&root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { root, root_fd, pinning })
    }

    /// Checks and pins what a caller named, absolute or relative to the archive's root.
    pub fn take(&self, asked: &str) -> Result<Outgoing, Refused> {
        let refuse = |why: &str| Refused::Path { path: asked.escape_default().to_string(), why: why.to_owned() };
        let path = self.relative(asked).ok_or_else(|| {
            refuse("only files under segments/, clips/ and snapshots/ of the archive may be sent, named without '.' or '..'")
        })?;
        let file = self.open_beneath(&path).map_err(|e| match e {
            Errno::ENOENT | Errno::ENOTDIR => Refused::NotFound { path: asked.to_owned() },
            Errno::ELOOP | Errno::EXDEV => refuse("links are not followed"),
            other => refuse(other.desc()),
        })?;
        let meta = file.metadata().map_err(|e| refuse(&e.to_string()))?;
        if !meta.is_file() {
            return Err(refuse("it is no regular file"));
        }
        let pin = self.pinning.pin(&path).map_err(|e| match e {
            NotSendable::Absent => Refused::NotFound { path: asked.to_owned() },
            NotSendable::Open => Refused::Open { path: asked.to_owned() },
        })?;
        let name = remote_name(&path);
        Ok(Outgoing { path, name, bytes: meta.len(), _pin: pin })
    }

    /// Opens what was taken.
    pub fn open(&self, outgoing: &Outgoing) -> Result<File, Failure> {
        self.open_beneath(&outgoing.path).map_err(|e| {
            let message = format!("cannot read {}: {}", outgoing.path.display(), e.desc());
            Failure::new(FailureKind::SourceError, message)
        })
    }

    fn relative(&self, asked: &str) -> Option<PathBuf> {
        let asked = Path::new(asked);
        let path = if asked.is_absolute() { asked.strip_prefix(&self.root).ok()? } else { asked };
        let plain = |c: Component<'_>| match c {
            Component::Normal(part) => part.to_str().is_some_and(|p| !p.chars().any(char::is_control)),
            _ => false,
        };
        let folder = path.components().next()?.as_os_str().to_str()?;
        // `components` swallows `.` and `//`; comparing with what it yields refuses them.
        let canonical: PathBuf = path.components().collect();
        let ok = FOLDERS.contains(&folder)
            && path.components().count() >= 2
            && path.components().all(plain)
            && canonical.as_os_str() == path.as_os_str()
            && !is_private(path);
        ok.then_some(canonical)
    }

    fn open_beneath(&self, path: &Path) -> Result<File, Errno> {
        let how =
            OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY).resolve(
                ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS,
            );
        openat2(&self.root_fd, path, how).map(File::from)
    }
}

/// Names that begin with a dot are the archive's unfinished files.
fn is_private(path: &Path) -> bool {
    path.components().any(|c| c.as_os_str().as_encoded_bytes().starts_with(b"."))
}

/// `segments/road/3/7.mp4` becomes `road-3-7.mp4`, as segments are known by; all others keep their name.
fn remote_name(path: &Path) -> String {
    let parts: Vec<&str> = path.iter().filter_map(|p| p.to_str()).collect();
    match parts.as_slice() {
        ["segments", lens, run, file] => format!("{lens}-{run}-{file}"),
        _ => parts.last().map_or_else(String::new, |p| (*p).to_owned()),
    }
}
