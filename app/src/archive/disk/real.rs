//! The real file system under the archive's root.
//!
//! Promises:
//! - B1: no call leaves the root: paths are resolved beneath it and no symbolic link is followed (`openat2`, Linux 5.6).
//! - B2: one process at a time: the root is locked with `flock` while a [`RealDisk`] lives.
//! - B3: contents are synced with `fdatasync`, which also makes a changed length durable; names with `fsync` of the folder. A file
//!   that somebody deleted while it was written is not durable, however well it syncs.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{
    AtFlags, FallocateFlags, OFlag, OpenHow, PosixFadviseAdvice, ResolveFlag, fallocate, openat2, posix_fadvise,
    renameat,
};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{DirEntry, Disk, DiskFile, FileSize, OpenMode, Space};

const FILE_MODE: Mode = Mode::from_bits_truncate(0o640);
const DIR_MODE: Mode = Mode::from_bits_truncate(0o750);
const LOCK: &str = "lock";
/// `st_blocks` counts 512-byte units whatever the file system's block size is (stat(3type)).
const STAT_BLOCK: u64 = 512;
/// At most so many parts go into one `pwritev` (`IOV_MAX` of Linux).
const MAX_PARTS: usize = 1024;

/// The file system beneath one folder.
pub struct RealDisk {
    root: OwnedFd,
    root_path: PathBuf,
    _lock: File,
}

impl RealDisk {
    /// Opens the archive's root, which is made if it is missing, and locks it. `WouldBlock` if another process has it.
    pub fn open(root: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let root_path = root.canonicalize()?;
        let dir = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC).open(&root_path)?;
        let root: OwnedFd = dir.into();
        let flags = OFlag::O_RDWR | OFlag::O_CREAT;
        let lock = File::from(openat2(&root, LOCK, how(flags, FILE_MODE))?);
        lock.try_lock().map_err(|e| match e {
            std::fs::TryLockError::Error(error) => error,
            std::fs::TryLockError::WouldBlock => io::Error::from(io::ErrorKind::WouldBlock),
        })?;
        Ok(Self { root, root_path, _lock: lock })
    }

    /// The root, without symbolic links.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root_path
    }

    fn open_at(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let mode = if flags.contains(OFlag::O_CREAT) { FILE_MODE } else { Mode::empty() };
        Ok(openat2(&self.root, check(path)?, how(flags, mode))?)
    }

    fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { check(path)? };
        Ok(openat2(&self.root, path, how(OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()))?)
    }

    /// The folder that holds the last name of `path`, and that name.
    fn above<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a Path)> {
        let name = check(path)?.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.open_dir(path.parent().unwrap_or(Path::new("")))?, Path::new(name)))
    }
}

fn how(flags: OFlag, mode: Mode) -> OpenHow {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve)
}

/// Refuses what is not plainly relative; the kernel checks again.
pub(super) fn check(path: &Path) -> io::Result<&Path> {
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    if plain && !path.as_os_str().is_empty() { Ok(path) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        // O_NONBLOCK: a FIFO put into the archive must not hang the opener; it is refused below.
        let flags = match mode {
            OpenMode::Read => OFlag::O_RDONLY | OFlag::O_NONBLOCK,
            OpenMode::ReadWrite => OFlag::O_RDWR | OFlag::O_NONBLOCK,
            OpenMode::CreateNew => OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL,
        };
        let file = File::from(self.open_at(path, flags)?);
        if mode != OpenMode::CreateNew && !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        // Not every file system counts names.
        let counts_names = file.metadata()?.nlink() > 0;
        Ok(Arc::new(RealFile { file, counts_names }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.above(path)?;
        match mkdirat(&dir, name, DIR_MODE) {
            Err(Errno::EEXIST) => {
                let stat = fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
                if kind == SFlag::S_IFDIR { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
            }
            other => Ok(other?),
        }
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let dir = self.open_dir(path)?;
        // By way of the descriptor, so that what is listed is what was resolved beneath the root.
        let listing = std::fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))?;
        let mut entries = Vec::new();
        for entry in listing {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.as_os_str().is_empty() && name == LOCK {
                continue;
            }
            entries.push(DirEntry { name, is_dir: entry.file_type()?.is_dir() });
        }
        Ok(entries)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::from(self.open_dir(path)?).sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from_name) = self.above(from)?;
        let (to_dir, to_name) = self.above(to)?;
        Ok(renameat(&from_dir, from_name, &to_dir, to_name)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.above(path)?;
        Ok(unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir)?)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.above(path)?;
        Ok(unlinkat(&dir, name, UnlinkatFlags::RemoveDir)?)
    }

    fn size(&self, path: &Path) -> io::Result<FileSize> {
        let (dir, name) = self.above(path)?;
        let stat = fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let (len, blocks) = (u64::try_from(stat.st_size), u64::try_from(stat.st_blocks));
        Ok(FileSize { len: len.unwrap_or(0), allocated: blocks.unwrap_or(0) * STAT_BLOCK })
    }

    fn space(&self) -> io::Result<Space> {
        let stat = fstatvfs(&self.root)?;
        // Widths differ between C libraries.
        #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
        let (unit, total, free) = (stat.fragment_size() as u64, stat.blocks() as u64, stat.blocks_available() as u64);
        Ok(Space { total: total * unit, free: free * unit })
    }
}

struct RealFile {
    file: File,
    counts_names: bool,
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.file.read_at(&mut buf[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut offset = offset;
        for chunk in parts.chunks(MAX_PARTS) {
            let written = pwritev(&self.file, chunk, offset)?;
            // A short write is rare (a signal, the last blocks of a full disk): the rest goes part by part.
            let mut skip = written;
            offset += written as u64;
            for part in chunk {
                let rest = &part[skip.min(part.len())..];
                skip -= skip.min(part.len());
                self.file.write_all_at(rest, offset)?;
                offset += rest.len() as u64;
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        if self.counts_names && self.file.metadata()?.nlink() == 0 {
            return Err(io::Error::new(io::ErrorKind::NotFound, "somebody deleted the file while it was written"));
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.size())
    }

    fn size(&self) -> io::Result<FileSize> {
        let meta = self.file.metadata()?;
        Ok(FileSize { len: meta.size(), allocated: meta.blocks() * STAT_BLOCK })
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let len = i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, len)?)
    }

    fn evict(&self) -> io::Result<()> {
        Ok(posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
    }

    fn copy_to(&self, offset: u64, len: u64, to: &dyn DiskFile, to_offset: u64) -> io::Result<()> {
        let Some(to_fd) = to.raw_fd() else { return copy_through(self, offset, len, to, to_offset) };
        let bad = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let (mut from, mut into) = (i64::try_from(offset).map_err(bad)?, i64::try_from(to_offset).map_err(bad)?);
        let mut left = len;
        while left > 0 {
            let chunk = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
            // SAFETY: both descriptors outlive the call and the offsets are valid pointers to `off64_t`.
            let copied =
                unsafe { libc::copy_file_range(self.file.as_raw_fd(), &raw mut from, to_fd, &raw mut into, chunk, 0) };
            match Errno::result(copied) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => left -= n as u64,
                Err(Errno::EINTR) => {}
                // Not between these files or not on this file system.
                Err(Errno::EXDEV | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                    let done = len - left;
                    return copy_through(self, offset + done, left, to, to_offset + done);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn raw_fd(&self) -> Option<RawFd> {
        Some(self.file.as_raw_fd())
    }
}

fn pwritev(file: &File, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let count = libc::c_int::try_from(parts.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    loop {
        // SAFETY: `IoSlice` has the layout of `iovec` (its documentation guarantees it) and the slices live through the call.
        let written = unsafe { libc::pwritev(file.as_raw_fd(), parts.as_ptr().cast(), count, offset) };
        if let Ok(written) = usize::try_from(written) {
            return Ok(written);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Copies through memory.
pub(super) fn copy_through(
    from: &dyn DiskFile,
    offset: u64,
    len: u64,
    to: &dyn DiskFile,
    to_offset: u64,
) -> io::Result<()> {
    let mut buf = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(1 << 20)];
    let mut done = 0;
    while done < len {
        let want = usize::try_from(len - done).unwrap_or(usize::MAX).min(buf.len());
        let n = from.read_at(offset + done, &mut buf[..want])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_at(to_offset + done, &[IoSlice::new(&buf[..n])])?;
        done += n as u64;
    }
    Ok(())
}
