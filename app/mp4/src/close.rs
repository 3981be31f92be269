//! Closing a segment in two commits.
//!
//! 1. Write [`Close::size_word`] at [`SIZE_OFFSET`] (ignored while `free` is `free`) and append [`Close::guard`] and
//!    [`Close::moov`] at [`Close::at`], right behind the last fragment; sync.
//! 2. Write [`MDAT_WORD`] at [`FREE_OFFSET`]: one aligned 8-byte write; sync.
//!
//! Only step 2 commits (M4). Before it players see the header's `moov` first and then the fragments; after it everything
//! from `free` to the last fragment is one `mdat` and the trailing `moov` is the only one. Never begin step 2 before step
//! 1 is known to be durable: the flip would hide the fragments from every player.
//!
//! The guard is the header of a `free` box that holds the whole trailing `moov` until the flip, and becomes the last 8
//! bytes of the `mdat` with it. Without it a half-written `moov` is in the way of demuxers that cannot seek: GStreamer's
//! `qtdemux` in push mode parses it, fails, and takes pictures with it that it had already read. The guard is one aligned
//! word; who can afford one more sync writes it durably before the `moov` (recovery does).

use crate::boxes::BoxWriter;
use crate::entry::SampleEntry;
use crate::layout::{FREE_OFFSET, MDAT_WORD, SIZE_OFFSET};
use crate::movie::{Form, MVHD_LEN, Movie, Track, composition_shift, segment_edits, write_moov};

/// The extended type of the summary box in a full `moov`.
pub const SUMMARY_UUID: [u8; 16] = *b"\x6d\x6f\x73\x2d\x73\x75\x6d\x6d\x80\x1e\x4d\x4f\x53\x00\x00\x03";

/// Bytes of the guard.
pub const GUARD_LEN: usize = 8;

/// Most tracks that the summary lists.
pub(crate) const SUMMARY_TRACKS: usize = 8;

/// Bytes of one track in the summary.
pub(crate) const SUMMARY_TRACK_LEN: usize = 56;

/// The writes of a close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// End of the last fragment, a multiple of 8: where the guard and, behind it, the full `moov` are appended.
    pub at: u64,
    /// Header of the `free` box around the `moov`.
    pub guard: [u8; GUARD_LEN],
    /// The full `moov`.
    pub moov: Vec<u8>,
    /// Goes to [`SIZE_OFFSET`] in step 1: the size of the `mdat` to be.
    pub size_word: [u8; 8],
}

impl Close {
    /// Plans the close of a segment whose last fragment ends at `at`.
    #[must_use]
    pub fn new(movie: &Movie, at: u64) -> Self {
        let edits: Vec<_> = movie.tracks.iter().map(|t| segment_edits(movie, t, false)).collect();
        let mut w = BoxWriter::with_capacity(2048 + movie.sample_count() * 12);
        write_moov(&mut w, movie, &edits, Form { fragmented: false, shift: 0 }, &summary(movie));
        let mut moov = w.into_bytes();
        seal(&mut moov);
        let mut guard = *b"\0\0\0\0free";
        let held = u32::try_from(GUARD_LEN + moov.len()).unwrap_or(u32::MAX);
        guard[..4].copy_from_slice(&held.to_be_bytes());
        let mdat = at + GUARD_LEN as u64 - FREE_OFFSET;
        Self { at, guard, moov, size_word: mdat.to_be_bytes() }
    }

    /// Where and what step 1 writes, besides the `moov`.
    #[must_use]
    pub fn size_write(&self) -> (u64, [u8; 8]) {
        (SIZE_OFFSET, self.size_word)
    }

    /// Where and what step 2 writes.
    #[must_use]
    pub fn flip(&self) -> (u64, [u8; 8]) {
        (FREE_OFFSET, MDAT_WORD)
    }

    /// Length of the file once closed.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.at + (GUARD_LEN + self.moov.len()) as u64
    }
}

/// Whether `bytes` begin with a guard and the header of a `moov`.
pub(crate) fn guarded(bytes: &[u8]) -> bool {
    let kind = |at: usize| bytes.get(at + 4..at + 8);
    kind(0) == Some(b"free") && kind(GUARD_LEN) == Some(b"moov")
}

/// The summary box: what an index wants to know, right behind `mvhd`, so that one short read finds it.
fn summary(movie: &Movie) -> Vec<u8> {
    let mut w = BoxWriter::default();
    w.nested(*b"uuid", |w| {
        w.raw(&SUMMARY_UUID);
        // Checksum over the rest of the moov, entered by `seal`.
        w.u32(0);
        w.u32(movie.tracks.len().min(SUMMARY_TRACKS) as u32);
        w.i64(movie.shown_from);
        w.i64(movie.duration());
        movie.tracks.iter().take(SUMMARY_TRACKS).for_each(|t| summary_track(w, t));
    });
    w.into_bytes()
}

fn summary_track(w: &mut BoxWriter, t: &Track) {
    let first = t.entries.first();
    let (a, b) = match first {
        Some(SampleEntry::Video { width, height, .. }) => (u32::from(*width), u32::from(*height)),
        Some(SampleEntry::Aac { sample_rate, channels, .. } | SampleEntry::G711 { sample_rate, channels, .. }) => {
            (*sample_rate, u32::from(*channels))
        }
        None => (0, 0),
    };
    w.u32(t.id);
    w.raw(&first.map_or(*b"none", SampleEntry::fourcc));
    w.u32(a);
    w.u32(b);
    w.u32(t.table.len() as u32);
    w.u32(t.table.sync_count());
    w.u64(t.table.bytes());
    w.i64(t.table.first_dts());
    w.i64(t.table.presentation_end());
    w.u32(t.timescale.per_second());
    w.u32(composition_shift(t));
}

/// Bytes from the beginning of the `moov` to the checksum in its summary: `moov` header, `mvhd`, `uuid` header and type.
pub(crate) const SEAL_AT: usize = 8 + MVHD_LEN as usize + 24;

/// Checksum over everything behind it.
fn seal(moov: &mut [u8]) {
    if let Some(sum) = moov.get(SEAL_AT + 4..).map(crc32fast::hash)
        && let Some(slot) = moov.get_mut(SEAL_AT..SEAL_AT + 4)
    {
        slot.copy_from_slice(&sum.to_be_bytes());
    }
}

/// Renews the checksum in `new` if `old`, the same `moov` before some of its fields were changed, had a right one.
pub(crate) fn reseal(old: &[u8], new: &mut [u8]) {
    let summary = SEAL_AT - 20..SEAL_AT;
    let is_ours = old.get(summary) == Some(&[&b"uuid"[..], &SUMMARY_UUID].concat());
    let mut sealed = old.to_vec();
    seal(&mut sealed);
    if is_ours && sealed == old {
        seal(new);
    }
}
