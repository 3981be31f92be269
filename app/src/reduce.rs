//! Reducing files: carries out the plan of `mos-mp4` on real files, without a daemon and outside of any archive.
//!
//! Promises: the output appears under its name only when it is whole; until then it has no name where the file system allows
//! that, else a temporary one beside it, which the next reduction to the same name clears away if it was cut off. A file that
//! cannot be reduced leaves no output. In place, a file is replaced in one step after its successor is on the disk, or only cut
//! off at its end. Memory is bounded whatever the size of the file. Called by `mos reduce`; uploads read a reduced file without
//! writing it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mos_mp4::reduce::ReduceError;
use mos_mp4::{Piece, ReadAt, Reduction};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;
use serde::Serialize;

/// Bytes that are written at a time.
const BUFFER: usize = 256 << 10;
/// Only what keeps its place in a page is copied inside the kernel: moving bytes between pages costs it half as much again as
/// reading and writing them does (ext4, Linux 6.18).
const PAGE: u64 = 4096;

/// What came of it. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Reduced {
    /// Of the input.
    pub input_bytes: u64,
    /// Of the output.
    pub output_bytes: u64,
    /// What the output is shorter.
    pub saved_bytes: u64,
    /// Of that, `free` and `skip` boxes.
    pub free_bytes: u64,
    /// Of that, media bytes that no sample refers to.
    pub media_bytes: u64,
    /// How the output was made.
    pub how: How,
}

/// How the output was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// A file was written.
    Written,
    /// In place, by cutting off the end.
    Truncated,
    /// In place, and nothing was to be dropped.
    Unchanged,
}

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The input cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Input {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Output {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no plan for this file.
    #[error("{}: {source}", path.display())]
    Plan {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ReduceError,
    },
    /// Somebody wrote to the input meanwhile.
    #[error("{} changed while it was read; try again when nobody writes to it", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
}

/// Reduces the file at `from` into `to`, which is replaced if it exists; the two may be the same file.
pub fn reduce(from: &Path, to: &Path) -> Result<Reduced, Failure> {
    let unreadable = |source| Failure::Input { path: from.to_owned(), source };
    let unwritable = |source| Failure::Output { path: to.to_owned(), source };
    // Without O_NONBLOCK a pipe in the place of a file would hang the opening.
    let input = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(from).map_err(unreadable)?;
    let before = input.metadata().map_err(unreadable)?;
    if !before.is_file() {
        return Err(unreadable(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let plan = Reduction::plan(&Input(&input)).map_err(|e| match e {
        ReduceError::Io { source, .. } => unreadable(source),
        source => Failure::Plan { path: from.to_owned(), source },
    })?;
    let unchanged = || {
        let now = input.metadata().map_err(unreadable)?;
        if stamp(&now) == stamp(&before) { Ok(()) } else { Err(Failure::Changed { path: from.to_owned() }) }
    };
    // The file itself if the output's name is a link.
    let (to, there) = match fs::canonicalize(to) {
        Ok(real) => {
            let there = fs::metadata(&real).map_err(unwritable)?;
            (real, Some(there))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => (to.to_owned(), None),
        Err(e) => return Err(unwritable(e)),
    };
    if there.as_ref().is_some_and(|there| !there.is_file()) {
        return Err(unwritable(io::Error::new(
            io::ErrorKind::InvalidInput,
            "there is something that is no regular file",
        )));
    }
    let in_place = there.as_ref().is_some_and(|there| (there.dev(), there.ino()) == (before.dev(), before.ino()));
    let how = if in_place && plan.is_prefix() {
        unchanged()?;
        cut_off(&to, &plan).map_err(unwritable)?
    } else {
        let part = Part::begin(&to, before.mode() & 0o777).map_err(unwritable)?;
        write(&input, &plan, &part.file, there.is_some()).map_err(unwritable)?;
        unchanged()?;
        part.put_in_place(&to).map_err(unwritable)?;
        if there.is_some() {
            sync_folder(&to).map_err(unwritable)?;
        }
        How::Written
    };
    Ok(Reduced {
        input_bytes: plan.input_len(),
        output_bytes: plan.len(),
        saved_bytes: plan.input_len() - plan.len(),
        free_bytes: plan.free_bytes(),
        media_bytes: plan.media_bytes(),
        how,
    })
}

/// An open file for the plan.
struct Input<'a>(&'a File);

impl ReadAt for Input<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// What differs once somebody wrote to a file.
fn stamp(meta: &Metadata) -> (u64, i64, i64) {
    (meta.len(), meta.mtime(), meta.mtime_nsec())
}

/// In place: the end goes, nothing else moves.
fn cut_off(path: &Path, plan: &Reduction) -> io::Result<How> {
    if plan.len() == plan.input_len() {
        return Ok(How::Unchanged);
    }
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(plan.len())?;
    file.sync_all()?;
    Ok(How::Truncated)
}

/// The output before it has its name. Without a name it goes with the process, however that ends.
struct Part {
    file: File,
    name: PathBuf,
    /// It has that name.
    named: bool,
}

impl Part {
    fn begin(to: &Path, mode: u32) -> io::Result<Self> {
        let name = part_name(to, std::process::id())?;
        clear_away(to);
        let mut nameless = OpenOptions::new();
        nameless.write(true).mode(mode).custom_flags(libc::O_TMPFILE);
        let part = match nameless.open(folder_of(to)) {
            Ok(file) if own_path(&file).exists() => Self { file, name, named: false },
            // Not every file system has files without a name, and they get one by way of /proc.
            _ => Self::begin_named(name, mode)?,
        };
        // Held while it is written; where the file system has no locks, nothing is taken for cut off either.
        let _ = part.file.try_lock();
        Ok(part)
    }

    fn begin_named(name: PathBuf, mode: u32) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&name)?;
        Ok(Self { file, name, named: true })
    }

    /// Gives it its name, in the place of what has it.
    fn put_in_place(mut self, to: &Path) -> io::Result<()> {
        if !self.named {
            linkat(AT_FDCWD, &own_path(&self.file), AT_FDCWD, &self.name, AtFlags::AT_SYMLINK_FOLLOW)?;
            self.named = true;
        }
        fs::rename(&self.name, to)?;
        self.named = false;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.named {
            // Best effort: the failure that is reported is the first one.
            let _ = fs::remove_file(&self.name);
        }
    }
}

/// An open file that may have no name, as a path.
fn own_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Removes what reductions to the same name left that were cut off: nobody holds its lock. Best effort.
fn clear_away(to: &Path) {
    let is_part = |name: &std::ffi::OsStr| {
        let pid = name.to_str().and_then(|name| name.strip_suffix(".part")?.rsplit('.').next()?.parse().ok());
        pid.is_some_and(|pid| part_name(to, pid).is_ok_and(|part| part.file_name() == Some(name)))
    };
    let beside = fs::read_dir(folder_of(to)).into_iter().flatten().flatten();
    for entry in beside.filter(|entry| is_part(&entry.file_name())) {
        let part = entry.path();
        let plain = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(&part);
        if let Ok(file) = plain
            && file.try_lock().is_ok()
        {
            log::info!("{} was left by a reduction that was cut off: removed", part.display());
            let _ = fs::remove_file(&part);
        }
    }
}

/// A name beside the output that is hidden and not in use by another process.
fn part_name(to: &Path, pid: u32) -> io::Result<PathBuf> {
    let name = to.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "this names no file"))?;
    let mut part = std::ffi::OsString::from(".");
    part.push(name);
    part.push(format!(".{pid}.part"));
    Ok(to.with_file_name(part))
}

/// Writes the output; synced if it is to replace something.
fn write(input: &File, plan: &Reduction, output: &File, sync: bool) -> io::Result<()> {
    let mut pages = Pages { output, buf: vec![0; BUFFER], filled: 0 };
    let mut end = 0_u64;
    for piece in plan.pieces() {
        match piece {
            Piece::Copy { offset, len } if *len >= BUFFER as u64 && offset % PAGE == end % PAGE => {
                pages.flush()?;
                copy_range(input, *offset, *len, output)?;
            }
            Piece::Copy { offset, len } => {
                let mut from = *offset;
                pages.fill(*len, |part| {
                    let at = from;
                    from += part.len() as u64;
                    input.read_exact_at(part, at)
                })?;
            }
            Piece::Bytes(bytes) => {
                let mut bytes = bytes.as_slice();
                pages.fill(bytes.len() as u64, |part| bytes.read_exact(part))?;
            }
        }
        end += piece.len();
    }
    pages.flush()?;
    if sync { output.sync_all() } else { Ok(()) }
}

/// What is to be written, in writes of one size that all begin at a page of the output, but after a copy inside the kernel.
struct Pages<'a> {
    output: &'a File,
    buf: Vec<u8>,
    filled: usize,
}

impl Pages<'_> {
    /// Appends `len` bytes that `read` gives part by part.
    fn fill(&mut self, mut len: u64, mut read: impl FnMut(&mut [u8]) -> io::Result<()>) -> io::Result<()> {
        while len > 0 {
            let room = self.buf.len() - self.filled;
            let take = usize::try_from(len).unwrap_or(usize::MAX).min(room);
            read(&mut self.buf[self.filled..self.filled + take])?;
            self.filled += take;
            len -= take as u64;
            if self.filled == self.buf.len() {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = &self.buf[..std::mem::take(&mut self.filled)];
        (&mut &*self.output).write_all(bytes)
    }
}

/// Appends a range of the input; between two files the standard library copies inside the kernel.
fn copy_range(mut input: &File, offset: u64, len: u64, mut output: &File) -> io::Result<()> {
    input.seek(SeekFrom::Start(offset))?;
    let copied = io::copy(&mut input.take(len), &mut output)?;
    if copied == len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Makes a name durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests;
