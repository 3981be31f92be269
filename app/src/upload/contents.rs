//! What is sent: a plan of ranges over an open file, read by offset. A whole file is one range; a sender that leaves bytes out
//! or puts others in gives another plan, and nothing after it knows.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mos_mp4::Reduction;

use super::failure::{Failure, FailureKind};
use crate::archive::Stored;
use crate::archive::disk::DiskFile;

/// One piece of what is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the file.
    Range {
        /// From where.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// Other bytes, such as a table that had to be changed.
    Bytes(Arc<[u8]>),
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Range { len, .. } => *len,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

/// The pieces in order, over an open file.
pub struct Contents {
    file: Arc<dyn DiskFile>,
    /// With the offset at which each begins.
    pieces: Vec<(u64, Piece)>,
    len: u64,
    /// The file's length when the plan was made.
    file_len: u64,
}

impl Contents {
    /// All of a file as it is now.
    pub fn whole(file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let len = file.len()?;
        Self::of(file, [Piece::Range { offset: 0, len }])
    }

    /// A file as `mos-mp4` plans to reduce it. Reads the boxes that describe samples; not to be called where nothing may wait.
    pub fn reduced(file: Arc<dyn DiskFile>) -> Result<Self, Failure> {
        let plan = Reduction::plan(&Stored(file.as_ref())).map_err(|e| {
            Failure::new(FailureKind::SourceError, format!("the file cannot be sent with `reduce`: {e}"))
        })?;
        log::info!("{} of {} bytes are sent: {} saved", plan.len(), plan.input_len(), plan.input_len() - plan.len());
        let pieces = plan.pieces().iter().map(|piece| match piece {
            mos_mp4::Piece::Copy { offset, len } => Piece::Range { offset: *offset, len: *len },
            mos_mp4::Piece::Bytes(bytes) => Piece::Bytes(bytes.as_slice().into()),
        });
        Self::of(file, pieces).map_err(|e| Failure::unreadable(&e))
    }

    /// These pieces.
    pub fn of(file: Arc<dyn DiskFile>, plan: impl IntoIterator<Item = Piece>) -> io::Result<Self> {
        let file_len = file.len()?;
        let mut pieces = Vec::new();
        let mut len = 0;
        for piece in plan {
            if let Piece::Range { offset, len } = piece
                && offset.checked_add(len).is_none_or(|end| end > file_len)
            {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let next = len + piece.len();
            if piece.len() > 0 {
                pieces.push((len, piece));
            }
            len = next;
        }
        Ok(Self { file, pieces, len, file_len })
    }

    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills all of `buf` from `offset`, or says that the file ended.
    pub fn read_at(&self, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
        let mut at = self.pieces.partition_point(|(start, _)| *start <= offset).saturating_sub(1);
        while !buf.is_empty() {
            let (start, piece) = self.pieces.get(at).ok_or(io::ErrorKind::UnexpectedEof)?;
            let within = offset - start;
            let here = buf.len().min(usize::try_from(piece.len() - within).unwrap_or(usize::MAX));
            let (now, rest) = buf.split_at_mut(here);
            match piece {
                Piece::Range { offset: from, .. } => read_exactly(self.file.as_ref(), from + within, now)?,
                Piece::Bytes(bytes) => {
                    let from = usize::try_from(within).unwrap_or(usize::MAX);
                    now.copy_from_slice(bytes.get(from..from + here).ok_or(io::ErrorKind::UnexpectedEof)?);
                }
            }
            offset += here as u64;
            buf = rest;
            at += 1;
        }
        Ok(())
    }

    /// Whether the file has still the length that the plan was made for.
    pub fn check(&self) -> io::Result<()> {
        let now = self.file.len()?;
        if now == self.file_len {
            return Ok(());
        }
        Err(io::Error::other(format!("the file changed from {} to {now} bytes", self.file_len)))
    }
}

fn read_exactly(file: &dyn DiskFile, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
    while !buf.is_empty() {
        match file.read_at(offset, buf)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                offset += n as u64;
                buf = &mut buf[n..];
            }
        }
    }
    Ok(())
}

/// What is known of the part of a file that lies at the server, over several tries of one job. Shared between the job and
/// the try that runs.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<Part>>);

/// The part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// All bytes before this one were acknowledged in this life of the daemon.
    pub acknowledged: u64,
    /// An earlier try, perhaps of an earlier life, may have got as far as the rename.
    pub maybe_placed: bool,
    /// The present try goes on where an earlier one ended.
    pub resumed: bool,
    /// The temporary file was made or seen and not removed, whatever of it is any good.
    pub left: bool,
}

impl Known {
    /// Of a job of an earlier life nothing is known for sure.
    #[must_use]
    pub fn of_earlier_life() -> Self {
        Self(Arc::new(Mutex::new(Part { maybe_placed: true, ..Part::default() })))
    }

    /// What is known now.
    #[must_use]
    pub fn part(&self) -> Part {
        *self.lock()
    }

    /// Whether a temporary file of the job may lie at the server.
    #[must_use]
    pub fn may_lie_there(&self) -> bool {
        let part = self.part();
        part.left || part.acknowledged > 0 || part.maybe_placed
    }

    /// Changes it.
    pub fn update(&self, change: impl FnOnce(&mut Part)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Part> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::archive::disk::{Disk, OpenMode, RealDisk};

    #[test]
    fn a_plan_reads_as_its_pieces_do() {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<u8> = (0..=255).collect();
        std::fs::write(dir.path().join("f"), &all).unwrap();
        let disk = RealDisk::open(dir.path()).unwrap();
        let file = || disk.open(Path::new("f"), OpenMode::Read).unwrap();
        let plan = [
            Piece::Range { offset: 10, len: 5 },
            Piece::Bytes(Arc::from(*b"moov")),
            Piece::Range { offset: 0, len: 0 },
            Piece::Range { offset: 200, len: 56 },
        ];
        let contents = Contents::of(file(), plan).unwrap();
        let expected = [&all[10..15], b"moov", &all[200..]].concat();
        assert_eq!(contents.len(), expected.len() as u64);
        for from in 0..expected.len() {
            for to in from..=expected.len() {
                let mut buf = vec![0; to - from];
                contents.read_at(from as u64, &mut buf).unwrap();
                assert_eq!(buf, expected[from..to], "{from}..{to}");
            }
        }
        assert!(contents.read_at(60, &mut [0; 8]).is_err());
        assert!(Contents::of(file(), [Piece::Range { offset: 250, len: 7 }]).is_err());
        let whole = Contents::whole(file()).unwrap();
        whole.check().unwrap();
        std::fs::write(dir.path().join("f"), "shorter").unwrap();
        assert!(whole.check().is_err());
    }
}
