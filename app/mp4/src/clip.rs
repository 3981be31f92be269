//! Cutting: from the tables of one or several segments to a new MP4, without looking at a single coded byte.
//!
//! The plan gives the new file's beginning (`ftyp`, `moov`, `mdat` header: it plays while it is still being fetched) and
//! the byte ranges to copy behind it, in order. Who copies must hold the sources still meanwhile.
//!
//! - Shown is exactly the frame whose interval covers the asked start, up to the last frame that begins before the asked
//!   end. Both comparisons are lenient by one tick of 90 kHz, because capture times were rounded to ticks (M7).
//! - Copied are whole groups of pictures: from the sync sample that the first shown frame needs to the end of the group
//!   that holds the last sample, in decoding order, that is shown. What is copied but not shown stays in the file.
//! - Sound begins one access unit early, so that the decoder has settled, and its edit list trims it.
//! - Between sources, a hole is bridged by the frame before it; no empty edit stands anywhere but before a sound that
//!   begins late.

use crate::boxes::{BoxWriter, Fields};
use crate::layout::FTYP_LEN;
use crate::movie::{Edit, MVHD_LEN, Movie};
use crate::table::TableError;
use crate::time::Ticks;

mod assemble;
mod choose;
mod sound;

/// Which frames of the outer groups of pictures are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Edges {
    /// Exactly the asked ones.
    #[default]
    Exact,
    /// All that are copied.
    Gop,
}

/// A segment as far as it may be copied.
#[derive(Clone, Copy, Debug)]
pub struct ClipSource<'a> {
    /// Where time 0 of its tracks lies on the common clock, in nanoseconds.
    pub start: i64,
    /// Its tracks and samples.
    pub movie: &'a Movie,
}

/// A stretch of the common clock in nanoseconds, `to` not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Begin.
    pub from: i64,
    /// End.
    pub to: i64,
}

/// Bytes to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CopyRange {
    /// Number of the source, from 0.
    pub source: usize,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

/// A clip to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClipPlan {
    /// What follows the head, in this order and without padding.
    pub copies: Vec<CopyRange>,
    /// Bytes of all copies.
    pub payload_bytes: u64,
    /// What was asked for.
    pub asked: Span,
    /// From the beginning of the first shown frame to the end of the last.
    pub shown: Span,
    /// From the first to the end of the last picture in the file.
    pub payload: Span,
    /// Number of pictures that are shown.
    pub frames: u32,
    /// Where nothing was recorded within what was asked for.
    pub gaps: Vec<Span>,
    /// Samples lie where they will, counted from the payload's begin.
    movie: Movie,
    edits: Vec<Vec<Edit>>,
}

/// The extended type of the box that holds what the maker of a clip wants to keep with it.
pub const NOTE_UUID: [u8; 16] = *b"\x6d\x6f\x73\x2d\x63\x6c\x69\x70\x80\x1e\x4d\x4f\x53\x00\x00\x04";

/// Where the note's box begins in a clip.
pub const NOTE_OFFSET: u64 = FTYP_LEN as u64 + 8 + MVHD_LEN;

impl ClipPlan {
    /// First bytes of the new file; the copies follow. `note` is kept in a box of its own in the `moov`, which players pass
    /// over; an empty one is left out.
    #[must_use]
    pub fn head(&self, note: &[u8]) -> Vec<u8> {
        let mut w = BoxWriter::with_capacity(note.len() + 24);
        if !note.is_empty() {
            w.nested(*b"uuid", |w| {
                w.raw(&NOTE_UUID);
                w.raw(note);
            });
        }
        assemble::head(&self.movie, &self.edits, self.payload_bytes, &w.into_bytes())
    }
}

/// Length of the note whose box header (24 bytes at [`NOTE_OFFSET`]) is given; `None` if there is no note.
#[must_use]
pub fn note_len(header: &[u8]) -> Option<usize> {
    let mut f = Fields::new(header);
    let (size, kind, uuid) = (f.u32()?, f.array::<4>()?, f.array::<16>()?);
    (kind == *b"uuid" && uuid == NOTE_UUID).then_some(())?;
    usize::try_from(size).ok()?.checked_sub(24)
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClipError {
    /// The end is not after the start, or out of range.
    #[error("the range from {} to {} ns is empty", .0.from, .0.to)]
    BadRange(Span),
    /// No picture lies in the range.
    #[error("nothing was recorded between {} and {} ns", .0.from, .0.to)]
    Nothing(Span),
    /// The format changes in a way that no player follows within one track.
    #[error("the format changes within the range; ask for the parts between {at:?} ns separately")]
    SplitNeeded {
        /// First moments of the new formats, on the common clock.
        at: Vec<i64>,
    },
    /// A source begins before the one before it has ended by more than the bound.
    #[error("source {source_index} begins {by} ns before the end of the one before it")]
    Overlap {
        /// Number of the later source.
        source_index: usize,
        /// By how much.
        by: i64,
    },
    /// The tables of a source contradict themselves.
    #[error("the sample table of source {source_index} is damaged: {error}")]
    Damaged {
        /// Number of the source.
        source_index: usize,
        /// What is wrong.
        error: TableError,
    },
}

/// Sources may run into each other by this much (a clock mapping that was corrected between two runs); the later one is
/// then moved behind the earlier one.
pub const MAX_OVERLAP_NANOS: i64 = 1_000_000_000;

/// Longest span that can be asked for; keeps every sum of times far from overflow. One year.
pub const MAX_SPAN_NANOS: i64 = 366 * 86_400 * 1_000_000_000;

/// Plans a clip of `asked` from `sources`, which are in order of time. Sources without pictures are left out.
pub fn plan(sources: &[ClipSource<'_>], asked: Span, edges: Edges) -> Result<ClipPlan, ClipError> {
    let long = asked.to.checked_sub(asked.from);
    if long.is_none_or(|l| l <= 0 || l > MAX_SPAN_NANOS) {
        return Err(ClipError::BadRange(asked));
    }
    let reels = choose::reels(sources, asked)?;
    let choice = choose::choose(&reels, asked, edges)?;
    assemble::assemble(&reels, &choice, asked)
}

/// The pictures of one source on the common timeline.
struct Reel<'a> {
    /// Number of the source.
    source: usize,
    movie: &'a Movie,
    /// Where time 0 of its tracks lies, in nanoseconds after the asked start; moved behind its predecessor if need be.
    start: i64,
    /// The same in ticks of the video.
    shift: Ticks,
    /// The video track's samples in decoding order, with their own times.
    samples: Vec<crate::table::Sample>,
    /// Numbers of the shown samples in presentation order.
    shown: Vec<u32>,
    /// First sample that is used if the source before it is used to its end: behind a repeated group of pictures.
    joint: usize,
    /// When its last shown picture ends, in ticks after the asked start.
    end: Ticks,
}

impl Reel<'_> {
    /// Presentation time of sample `index` in ticks after the asked start.
    fn pts(&self, index: usize) -> Ticks {
        self.samples.get(index).map_or(0, |s| s.pts() + self.shift)
    }

    /// When the shown picture at `place` of the presentation order begins.
    fn begin(&self, place: usize) -> Ticks {
        self.shown.get(place).map_or(self.end, |i| self.pts(*i as usize))
    }
}

/// Which samples go into the clip, and what of them is shown.
struct Choice {
    /// Per used reel, in order: its number and the samples copied.
    parts: Vec<(usize, std::ops::Range<usize>)>,
    /// First and end of what is shown, in ticks after the asked start.
    from: Ticks,
    to: Ticks,
    frames: u32,
    /// Holes within what was asked for, in ticks after the asked start.
    gaps: Vec<(Ticks, Ticks)>,
}
