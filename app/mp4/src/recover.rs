//! Recovery: what to write so that a segment that a crash left behind becomes a closed one.
//!
//! Pure: a plan in ordered steps. Each step, and each state between two of them, leaves a file that plays everything that
//! was durable (M5). A plan that was cut short is simply made anew from the file.

use crate::close::{Close, GUARD_LEN};
use crate::layout::{FREE_OFFSET, FREE_WORD, SIZE_OFFSET};
use crate::read::{SegmentFile, State};

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Cut the file to this length.
    Truncate(u64),
    /// Write these bytes there.
    Write {
        /// Where.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Make everything before durable. Later steps must not begin before it has succeeded.
    Sync,
}

/// What was found and what is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finding {
    /// Closed, nothing to do.
    Intact,
    /// Closed, with bytes behind its end.
    Trailing,
    /// Open: to be closed as far as it is intact.
    Unclosed,
    /// A close had begun: it is repeated.
    HalfClosed,
    /// Closed with a damaged `moov`: opened again, then closed from its fragments.
    DamagedMoov,
    /// No sample was ever durable; there is nothing to close. The caller decides what becomes of the file.
    Empty,
}

/// The plan for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// What was found.
    pub finding: Finding,
    /// Bytes at the end that are given up because they are torn or were never committed.
    pub dropped: u64,
    /// What to do, in order; empty for [`Finding::Intact`] and [`Finding::Empty`].
    pub steps: Vec<Step>,
}

impl Recovery {
    /// Plans the recovery of a file that was read with [`Verify::Payload`](crate::Verify::Payload).
    #[must_use]
    pub fn plan(file: &SegmentFile) -> Self {
        let dropped = file.file_len.saturating_sub(file.used);
        let finding = match file.state {
            State::Closed if dropped == 0 => Finding::Intact,
            State::Closed => Finding::Trailing,
            _ if file.movie.sample_count() == 0 => Finding::Empty,
            State::Open => Finding::Unclosed,
            State::Closing => Finding::HalfClosed,
            State::Damaged => Finding::DamagedMoov,
        };
        let mut steps = Vec::new();
        match finding {
            Finding::Intact | Finding::Empty => {}
            Finding::Trailing => steps.extend([Step::Truncate(file.used), Step::Sync]),
            Finding::Unclosed | Finding::HalfClosed => close(&mut steps, file),
            Finding::DamagedMoov => {
                // First back to an open segment: its fragments play again from here on.
                steps.extend([Step::Write { offset: FREE_OFFSET, bytes: FREE_WORD.to_vec() }, Step::Sync]);
                close(&mut steps, file);
            }
        }
        Self { finding, dropped, steps }
    }
}

/// Hides what is torn behind the guard and cuts it, then closes in the usual two commits.
fn close(steps: &mut Vec<Step>, file: &SegmentFile) {
    let close = Close::new(&file.movie, file.end);
    let (flip_at, flip) = close.flip();
    steps.extend([
        Step::Write { offset: close.at, bytes: close.guard.to_vec() },
        Step::Truncate(close.at + GUARD_LEN as u64),
        Step::Sync,
        Step::Write { offset: SIZE_OFFSET, bytes: close.size_word.to_vec() },
        Step::Write { offset: close.at + GUARD_LEN as u64, bytes: close.moov },
        Step::Sync,
        Step::Write { offset: flip_at, bytes: flip.to_vec() },
        Step::Sync,
    ]);
}
