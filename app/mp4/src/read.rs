//! Reading a segment file in every state that a power cut, a crash or a close can leave it in.
//!
//! Only files of this program are read. What is read is not trusted: damage gives an error or ends the durable extent, never
//! a panic, and memory grows only with bytes that were really there (M6).

use std::io;

use crate::boxes::{BoxHeader, Fields};
use crate::close::GUARD_LEN;
use crate::identity::{FORMAT_VERSION, Identity, IdentityError};
use crate::layout::{FREE_OFFSET, FREE_WORD, FTYP_LEN, IDENTITY_OFFSET, MDAT_WORD, MOOV_OFFSET};
use crate::movie::Movie;

mod fragments;
mod moov;
mod stbl;

/// Bytes at a position. Implemented by the caller over its files; this crate opens nothing.
pub trait ReadAt {
    /// Fills `buf` from `offset` and returns how many bytes there were; less than asked only at the end.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether there is nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|o| self.get(o..)).unwrap_or(&[]);
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(<[u8]>::len(self) as u64)
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.as_slice().read_at(offset, buf)
    }

    fn len(&self) -> io::Result<u64> {
        ReadAt::len(self.as_slice())
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(offset, buf)
    }

    fn len(&self) -> io::Result<u64> {
        (**self).len()
    }
}

/// The first `.1` bytes of `.0`: a file that is being written, up to its last durable fragment.
#[derive(Clone, Copy, Debug)]
pub struct UpTo<R>(pub R, pub u64);

impl<R: ReadAt> ReadAt for UpTo<R> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.1.saturating_sub(offset)).unwrap_or(usize::MAX);
        let n = left.min(buf.len());
        self.0.read_at(offset, &mut buf[..n])
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len()?.min(self.1))
    }
}

/// Where a segment stands between its first byte and the end of its close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Fragments only; perhaps a torn one at the end.
    Open,
    /// A close has begun (size word written or a trailing `moov` there) but was not committed.
    Closing,
    /// The close is committed and its `moov` is whole.
    Closed,
    /// The close is committed, but its `moov` is damaged; the tables were taken from the fragments inside the `mdat`.
    Damaged,
}

/// How much of the payload to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verify {
    /// Boxes only: for files whose payload is known to be durable.
    Structure,
    /// Every fragment's checksum over its payload too: reads the whole file. For recovery.
    Payload,
}

/// What a segment file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// Who it is.
    pub identity: Identity,
    /// Where it stands.
    pub state: State,
    /// Its tracks with their samples.
    pub movie: Movie,
    /// End of the header: where the first fragment begins.
    pub header_len: u64,
    /// End of the last intact fragment: everything before it is durable and consistent.
    pub end: u64,
    /// End of the trailing `moov` if the state is [`State::Closed`], else [`SegmentFile::end`].
    pub used: u64,
    /// Length of the file.
    pub file_len: u64,
    /// Number that the next fragment would bear.
    pub next_sequence: u32,
}

/// Why a file cannot be read as a segment.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The storage failed.
    #[error("cannot read at byte {offset}: {source}")]
    Io {
        /// Where.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The file ends inside the header: nothing in it was ever durable.
    #[error("the file ends at byte {len}, inside its header")]
    TooShort {
        /// Its length.
        len: u64,
    },
    /// Not a segment, or its first bytes are lost.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Written by a newer version; to be left as it is.
    #[error("format version {} is newer than {FORMAT_VERSION}; the file plays, but this program does not touch it", .0.version)]
    Newer(Box<Identity>),
    /// A box that must be there is missing or contradicts itself.
    #[error("damaged at byte {offset}: {what}")]
    Damaged {
        /// The box that was being read.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// Bytes that the first read takes; all fixed places lie within.
pub(crate) const HEAD_LEN: usize = 512;

/// Largest `moov` in a header. Parameter sets are the only thing in it that varies.
const MAX_HEADER_MOOV: u64 = 1 << 20;

/// Largest trailing `moov`: 256 MiB is a day of 60 frames/s.
const MAX_MOOV: u64 = 256 << 20;

/// The fixed part of a file.
pub(crate) struct Head {
    pub file_len: u64,
    pub identity: Identity,
    /// `Some(size)` once the flip is done.
    pub mdat: Option<u64>,
    /// Checksum that the header's `moov` must have.
    pub moov_sum: u32,
    /// What the size word says, whatever the flip.
    pub size_word: u64,
}

impl SegmentFile {
    /// Reads `file`.
    pub fn read(file: &dyn ReadAt, verify: Verify) -> Result<Self, ReadError> {
        let head = Head::read(file)?;
        if head.identity.version > FORMAT_VERSION {
            return Err(ReadError::Newer(Box::new(head.identity)));
        }
        if let Some(size) = head.mdat
            && let Some(done) = Self::read_closed(file, &head, size)?
        {
            return Ok(done);
        }
        let (header_moov, moov_end) = read_moov(file, MOOV_OFFSET, head.file_len, MAX_HEADER_MOOV)?;
        if crc32fast::hash(&header_moov) != head.moov_sum {
            return Err(ReadError::Damaged { offset: MOOV_OFFSET, what: "the header does not fit its checksum" });
        }
        let blank = moov::parse_header(&header_moov, MOOV_OFFSET)?;
        let header_len = header_end(file, moov_end, head.file_len)?;
        // Not only as far as a flipped size word says: that may be what is damaged, and fragments tell themselves where they end.
        let scan = fragments::scan(file, blank, header_len, head.file_len, verify)?;
        let state = match (head.mdat, scan.moov_follows || head.size_word != 0) {
            (Some(_), _) => State::Damaged,
            (None, true) => State::Closing,
            (None, false) => State::Open,
        };
        Ok(Self {
            identity: head.identity,
            state,
            movie: scan.movie,
            header_len,
            end: scan.end,
            used: scan.end,
            file_len: head.file_len,
            next_sequence: scan.next_sequence,
        })
    }

    /// The file as its trailing `moov` describes it; `None` if that is damaged.
    fn read_closed(file: &dyn ReadAt, head: &Head, size: u64) -> Result<Option<Self>, ReadError> {
        let moov_at = FREE_OFFSET.checked_add(size);
        let Some((moov_at, end)) = moov_at.and_then(|at| Some((at, at.checked_sub(GUARD_LEN as u64)?))) else {
            return Ok(None);
        };
        let (bytes, used) = match read_moov(file, moov_at, head.file_len, MAX_MOOV) {
            Ok(found) => found,
            // A disk that cannot be read now is no reason to call a committed close damaged.
            Err(e @ ReadError::Io { .. }) => return Err(e),
            Err(_) => return Ok(None),
        };
        // The header is dead bytes by now; where it ended matters only as the least offset of a sample.
        let header_len = match read_moov(file, MOOV_OFFSET, head.file_len, MAX_HEADER_MOOV) {
            Ok((_, moov_end)) => header_end(file, moov_end, head.file_len).unwrap_or(MOOV_OFFSET),
            Err(e @ ReadError::Io { .. }) => return Err(e),
            Err(_) => MOOV_OFFSET,
        };
        let Some(movie) = moov::parse_full(&bytes, header_len..end.max(header_len)) else { return Ok(None) };
        Ok(Some(Self {
            identity: head.identity.clone(),
            state: State::Closed,
            movie,
            header_len,
            end,
            used,
            file_len: head.file_len,
            next_sequence: u32::MAX,
        }))
    }
}

impl Head {
    pub(crate) fn read(file: &dyn ReadAt) -> Result<Self, ReadError> {
        let file_len = file.len().map_err(|source| ReadError::Io { offset: 0, source })?;
        let mut bytes = vec![0; HEAD_LEN];
        let n = fill(file, 0, &mut bytes)?;
        bytes.truncate(n);
        if n < MOOV_OFFSET as usize + 8 {
            return Err(ReadError::TooShort { len: n as u64 });
        }
        let ftyp = BoxHeader::parse(&bytes).filter(|h| h.kind == *b"ftyp" && h.size == Some(FTYP_LEN as u64));
        if ftyp.is_none() {
            return Err(IdentityError::Missing.into());
        }
        let identity = Identity::parse(&bytes[IDENTITY_OFFSET as usize..])?;
        let moov_sum = Identity::moov_sum(&bytes[IDENTITY_OFFSET as usize..]).unwrap_or(0);
        let mut f = Fields::new(&bytes[FREE_OFFSET as usize..]);
        let word = f.array::<8>().unwrap_or_default();
        let size_word = f.u64().unwrap_or(0);
        let mdat = match word {
            FREE_WORD => None,
            MDAT_WORD => Some(size_word),
            // A newer version may keep other things here.
            _ if identity.version > FORMAT_VERSION => None,
            _ => return Err(ReadError::Damaged { offset: FREE_OFFSET, what: "neither free nor mdat" }),
        };
        Ok(Self { file_len, identity, mdat, moov_sum, size_word })
    }
}

/// Where fragments begin: behind the small `free` box, if any, that fills the header up to a multiple of 8.
fn header_end(file: &dyn ReadAt, moov_end: u64, file_len: u64) -> Result<u64, ReadError> {
    if moov_end.is_multiple_of(8) {
        return Ok(moov_end);
    }
    let size = 8 + (8 - moov_end % 8);
    let mut head = [0; 8];
    if fill(file, moov_end, &mut head)? < 8 || moov_end + size > file_len {
        return Err(ReadError::TooShort { len: file_len });
    }
    let padding = BoxHeader::parse(&head).is_some_and(|h| h.kind == *b"free" && h.size == Some(size));
    if padding { Ok(moov_end + size) } else { Err(ReadError::Damaged { offset: moov_end, what: "no padding here" }) }
}

/// Reads a whole `moov` that must begin at `at`; returns its bytes and its end.
fn read_moov(file: &dyn ReadAt, at: u64, file_len: u64, most: u64) -> Result<(Vec<u8>, u64), ReadError> {
    let damaged = |what| ReadError::Damaged { offset: at, what };
    let mut head = [0; 8];
    if fill(file, at, &mut head)? < 8 {
        return Err(damaged("the moov is missing"));
    }
    let header = BoxHeader::parse(&head).filter(|h| h.kind == *b"moov").ok_or(damaged("no moov here"))?;
    let size = header.size.filter(|s| *s <= most).ok_or(damaged("the moov has no sensible size"))?;
    let end = at.checked_add(size).filter(|end| *end <= file_len).ok_or(damaged("the moov is cut short"))?;
    let mut bytes = vec![0; size as usize];
    if fill(file, at, &mut bytes)? < bytes.len() {
        return Err(damaged("the moov is cut short"));
    }
    Ok((bytes, end))
}

/// Reads until `buf` is full or the end is reached.
pub(crate) fn fill(file: &dyn ReadAt, offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
    let mut n = 0;
    while n < buf.len() {
        let at = offset.saturating_add(n as u64);
        match file.read_at(at, &mut buf[n..]) {
            Ok(0) => break,
            Ok(more) => n += more.min(buf.len() - n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(ReadError::Io { offset: at, source }),
        }
    }
    Ok(n)
}
