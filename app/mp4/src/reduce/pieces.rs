//! The output as a list of pieces, made from edits of the input.

use std::ops::Range;

use super::Reduction;

/// Bytes that differ with fewer equal ones than this between them become one replacement.
const NEAR: usize = 64;

/// A part of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the input.
    Copy {
        /// Where they begin.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// These bytes.
    Bytes(Vec<u8>),
}

impl Piece {
    /// Bytes of it in the output.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Copy { len, .. } => *len,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Whether it has none; a planned one has some.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Ranges of the input with what comes in their place.
#[derive(Debug, Default)]
pub(super) struct Edits {
    list: Vec<(Range<u64>, Vec<u8>)>,
}

impl Edits {
    /// Leaves out a range.
    pub(super) fn cut(&mut self, range: &Range<u64>) {
        self.list.push((range.clone(), Vec::new()));
    }

    /// Puts `new` in the place of `old`, which is as long and begins at `start`, where they differ; `cuts` lie within and are
    /// left out by somebody else.
    pub(super) fn replace(&mut self, start: u64, old: &[u8], new: &[u8], cuts: &[Range<u64>]) {
        let mut at = 0;
        for cut in cuts {
            let (from, to) = ((cut.start - start) as usize, (cut.end - start) as usize);
            self.differences(start, old, new, at..from);
            at = to;
        }
        self.differences(start, old, new, at..old.len());
    }

    fn differences(&mut self, start: u64, old: &[u8], new: &[u8], within: Range<usize>) {
        let (Some(a), Some(b)) = (old.get(within.clone()), new.get(within.clone())) else { return };
        let start = start + within.start as u64;
        let mut run: Option<Range<usize>> = None;
        let differing = a.iter().zip(b).enumerate().filter(|(_, (x, y))| x != y).map(|(i, _)| i);
        for i in differing {
            match &mut run {
                Some(r) if i - r.end < NEAR => r.end = i + 1,
                _ => {
                    self.enter(start, b, run.replace(i..i + 1));
                }
            }
        }
        self.enter(start, b, run);
    }

    fn enter(&mut self, start: u64, new: &[u8], run: Option<Range<usize>>) {
        if let Some(run) = run
            && let Some(bytes) = new.get(run.clone())
        {
            self.list.push((start + run.start as u64..start + run.end as u64, bytes.to_vec()));
        }
    }

    /// The input of `input_len` bytes with all edits, which must not overlap.
    pub(super) fn over(mut self, input_len: u64, free_bytes: u64) -> Reduction {
        self.list.sort_unstable_by_key(|(range, _)| range.start);
        let mut made = Reduction { pieces: Vec::new(), input_len, len: 0, free_bytes };
        let mut at = 0;
        for (range, bytes) in self.list {
            made.push(Piece::Copy { offset: at, len: range.start - at });
            made.push(Piece::Bytes(bytes));
            at = range.end;
        }
        made.push(Piece::Copy { offset: at, len: input_len - at });
        made
    }
}

impl Reduction {
    fn push(&mut self, piece: Piece) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.pieces.push(piece);
        }
    }
}
