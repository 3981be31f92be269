//! The fixed places of a segment file, and the header that a new one begins with.
//!
//! Called by the archive when it creates a file. The header is written once; of it only the 16 bytes of `free` change.

use crate::boxes::BoxWriter;
use crate::identity::{IDENTITY_LEN, Identity, IdentityError};
use crate::movie::{Form, Movie, segment_edits, write_moov};

/// Bytes of `ftyp`.
pub const FTYP_LEN: usize = 32;

/// Where the identity box begins.
pub const IDENTITY_OFFSET: u64 = FTYP_LEN as u64;

/// Where the 16-byte `free` begins: its first word is the flip, its second the 64-bit size (M1).
pub const FREE_OFFSET: u64 = (FTYP_LEN + IDENTITY_LEN) as u64;

/// Where the size word lies.
pub const SIZE_OFFSET: u64 = FREE_OFFSET + 8;

/// Where the header's `moov` begins.
pub const MOOV_OFFSET: u64 = FREE_OFFSET + 16;

/// First word of `free` while a segment is open: size 16, `free`.
pub const FREE_WORD: [u8; 8] = *b"\0\0\0\x10free";

/// What the flip writes over it: "64-bit size follows", `mdat`.
pub const MDAT_WORD: [u8; 8] = *b"\0\0\0\x01mdat";

const _: () = assert!(FREE_OFFSET.is_multiple_of(8) && FREE_OFFSET + 16 <= 512);

/// A new segment's first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// To be written at offset 0; the first fragment follows at once.
    pub bytes: Vec<u8>,
}

impl Header {
    /// Builds the header for `movie`, whose tables are ignored.
    pub fn new(identity: &Identity, movie: &Movie) -> Result<Self, IdentityError> {
        let mut w = BoxWriter::with_capacity(1024);
        let mut moov = BoxWriter::with_capacity(1024);
        let edits: Vec<_> = movie.tracks.iter().map(|t| segment_edits(movie, t, true)).collect();
        write_moov(&mut moov, movie, &edits, Form { fragmented: true, shift: 0 }, &[]);
        let moov = moov.into_bytes();
        write_ftyp(&mut w);
        identity.write(&mut w, crc32fast::hash(&moov))?;
        w.raw(&FREE_WORD);
        w.u64(0);
        w.raw(&moov);
        let rest = w.len() % 8;
        if rest > 0 {
            // Fragments begin at multiples of 8.
            w.nested(*b"free", |w| w.zeros(8 - rest));
        }
        Ok(Self { bytes: w.into_bytes() })
    }

    /// Bytes of the header: where the first fragment begins.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Never: a header has bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// `iso6` for `tfdt`, signed offsets and `default-base-is-moof`; the others so that old players try.
pub(crate) fn write_ftyp(w: &mut BoxWriter) {
    w.nested(*b"ftyp", |w| {
        w.raw(b"isom");
        w.u32(0x200);
        for brand in [b"isom", b"iso6", b"mp41", b"mp42"] {
            w.raw(brand);
        }
    });
}
