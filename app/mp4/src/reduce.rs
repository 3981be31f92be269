//! Reducing an MP4 file of anybody: what no player needs is left out, every frame stays bit for bit.
//!
//! [`Reduction::plan`] reads the boxes of a file and gives the output as a list of [`Piece`]s: ranges of the input and bytes
//! that replace some, so that whoever sends or writes the output reads it by offset without making it first. Files of other
//! programs are welcome and not trusted; this room opens and writes nothing.
//!
//! What goes: `free` and `skip` boxes at any depth, and bytes of `mdat` that no sample refers to. What changes with it: sizes of
//! the boxes around what went, and fields that hold a place in the file.
//!
//! Invariants, named in the tests:
//!
//! - **D1** Every sample of every track and fragment has the same bytes before and after.
//! - **D2** Bytes that are neither dropped nor a size or place are copied as they are, whatever box they are in.
//! - **D3** Reducing the output again changes nothing; a file without anything to drop comes out equal.
//! - **D4** A file that contradicts itself, or holds places in it that this room cannot follow, gives an error and no plan. A doubt
//!   about how long a sample is keeps all media bytes.
//! - **D5** Memory follows the bytes of the boxes that describe samples, which are bounded, never those of the media.
//!
//! Sources of facts: ISO/IEC 14496-12:2022; QuickTime File Format Specification (Apple, 2016).

use std::io;

use crate::read::{ReadAt, ReadError, fill};

mod cuts;
mod fragments;
mod marks;
mod outline;
mod pieces;
mod samples;
mod tree;

pub use pieces::Piece;

use cuts::{Cuts, Ranges};
use outline::{Outline, TopBox};
use pieces::Edits;
use tree::Tree;

/// Largest box that is read into memory: `moov`, `moof`, `mfra`, `meta`. 64 MiB describe 30 hours of eight tracks.
const MAX_BOX: u64 = 64 << 20;

/// Why a file cannot be reduced.
#[derive(Debug, thiserror::Error)]
pub enum ReduceError {
    /// The storage failed.
    #[error("cannot read at byte {offset}: {source}")]
    Io {
        /// Where.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The file contradicts itself or is no MP4 file.
    #[error("no sound MP4 file: at byte {offset}: {what}")]
    Malformed {
        /// The box or field.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Something in it says where other things lie, in a way that cannot be kept right.
    #[error("cannot be reduced: at byte {offset}: {what}; use the file as it is")]
    Unsupported {
        /// The box.
        offset: u64,
        /// What stands in the way.
        what: &'static str,
    },
    /// A bound of this program.
    #[error("too large to be reduced: at byte {offset}: {what}; use the file as it is")]
    TooLarge {
        /// The box.
        offset: u64,
        /// Which bound.
        what: &'static str,
    },
}

impl From<ReadError> for ReduceError {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::Io { offset, source } => Self::Io { offset, source },
            _ => Self::Malformed { offset: 0, what: "cannot be read" },
        }
    }
}

/// How a reduced file is made from its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduction {
    pieces: Vec<Piece>,
    input_len: u64,
    len: u64,
    free_bytes: u64,
}

impl Reduction {
    /// Plans the reduction of `file`, which must not change until the plan was carried out.
    pub fn plan(file: &dyn ReadAt) -> Result<Self, ReduceError> {
        let outline = Outline::read(file)?;
        let (free, live) = survey(file, &outline)?;
        let (free_bytes, dead) = (free.total(), live.dead(&outline)?);
        let cuts = Cuts::new(free, dead);
        if cuts.is_empty() {
            return Ok(Edits::default().over(outline.file_len, 0));
        }
        if let Some((offset, what)) = live.obstacle {
            return Err(ReduceError::Unsupported { offset, what });
        }
        let mut edits = Edits::default();
        for top in &outline.boxes {
            marks::enter(file, top, &cuts, &live.defaults, &mut edits)?;
        }
        cuts.iter().for_each(|cut| edits.cut(cut));
        Ok(edits.over(outline.file_len, free_bytes))
    }

    /// The output's pieces in order.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Bytes of the output.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the output has no byte; a planned one has some.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the input.
    #[must_use]
    pub fn input_len(&self) -> u64 {
        self.input_len
    }

    /// Bytes of `free` and `skip` boxes that are left out.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// Bytes of `mdat` that no sample refers to and that are left out.
    #[must_use]
    pub fn media_bytes(&self) -> u64 {
        self.input_len - self.len - self.free_bytes
    }

    /// Whether the output is the beginning of the input: cutting off its end is enough.
    #[must_use]
    pub fn is_prefix(&self) -> bool {
        matches!(self.pieces.as_slice(), [] | [Piece::Copy { offset: 0, .. }])
    }
}

/// What the boxes say about which bytes are needed.
#[derive(Default)]
struct Live {
    /// Bytes that samples refer to.
    ranges: Ranges,
    /// A track whose samples may be longer than they say: all of every `mdat` is needed.
    all: bool,
    /// The first thing that forbids moving anything.
    obstacle: Option<(u64, &'static str)>,
    /// Sample sizes of `trex`, by track.
    defaults: Vec<(u32, u32)>,
}

impl Live {
    fn obstruct(&mut self, offset: u64, what: &'static str) {
        self.obstacle.get_or_insert((offset, what));
    }

    /// Bytes of `mdat` that nothing refers to.
    fn dead(&self, outline: &Outline) -> Result<Ranges, ReduceError> {
        let live = self.ranges.merged();
        let mut rest = live.iter().peekable();
        let mut dead = Ranges::default();
        let mut payload = 0;
        for top in outline.boxes.iter().filter(|b| b.kind == *b"mdat") {
            let mut at = top.body();
            payload += top.end - at;
            while let Some(range) = rest.next_if(|r| r.start < top.end) {
                if range.start < at || range.end > top.end {
                    return Err(outside(range.start));
                }
                dead.push(at, range.start);
                at = range.end;
            }
            dead.push(at, top.end);
        }
        if let Some(range) = rest.next() {
            return Err(outside(range.start));
        }
        if self.all {
            return Ok(Ranges::default());
        }
        if payload > 0 && live.is_empty() {
            return Err(ReduceError::Malformed {
                offset: 0,
                what: "there are media bytes, but no sample refers to any",
            });
        }
        Ok(dead)
    }
}

fn outside(offset: u64) -> ReduceError {
    ReduceError::Malformed { offset, what: "a sample lies here, which is not inside an mdat box" }
}

/// Reads all boxes that describe others: what is free, and what is needed.
fn survey(file: &dyn ReadAt, outline: &Outline) -> Result<(Ranges, Live), ReduceError> {
    let mut free = Ranges::default();
    let mut live = Live::default();
    // First, because fragments in front of it may need its defaults.
    let moov = outline.moov()?;
    let tree = Tree::read(file, moov, &mut free)?;
    samples::survey(&tree, &mut live)?;
    for top in &outline.boxes {
        match &top.kind {
            b"free" | b"skip" => free.push(top.start, top.end),
            b"moof" => {
                let tree = Tree::read(file, top, &mut free)?;
                fragments::survey(&tree, &mut live)?;
            }
            b"mfra" | b"meta" | b"udta" | b"meco" => {
                let tree = Tree::read(file, top, &mut free)?;
                samples::obstacles(&tree, &mut live);
            }
            b"ssix" => live.obstruct(top.start, "an ssix box, whose ranges this program does not follow"),
            _ => {}
        }
    }
    Ok((free, live))
}

/// Reads all of a box.
fn read_box(file: &dyn ReadAt, top: &TopBox) -> Result<Vec<u8>, ReduceError> {
    let len = top.end - top.start;
    if len > MAX_BOX {
        return Err(ReduceError::TooLarge { offset: top.start, what: "a box that describes samples has over 64 MiB" });
    }
    let mut bytes = vec![0; len as usize];
    if fill(file, top.start, &mut bytes)? < bytes.len() {
        return Err(ReduceError::Malformed { offset: top.start, what: "the file became shorter while it was read" });
    }
    Ok(bytes)
}
