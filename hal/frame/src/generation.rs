//! Generations: how a reader knows, after its work, that the frame it worked on was still the frame it was given.
//!
//! One number per buffer, in a page that the publisher writes and every subscriber maps read-only. The scheme is that of a
//! sequence lock whose writer is the camera:
//!
//! - G1: a buffer's generation is raised before the buffer goes back to whoever writes pixels into it, with a release fence
//!   between the two.
//! - G2: a reader looks at the generation after its work, with an acquire fence between the two. If it is the one that its
//!   frame came with, none of the pixels that it read were newer.

use crate::sync::{AtomicU64, Ordering, fence};

/// Ends a generation (G1). Only the publisher calls it, under its lock.
pub(crate) fn raise(cell: &AtomicU64) {
    // One writer: a plain load and store will do. The fence keeps every later write of pixels behind the store.
    let now = cell.load(Ordering::Relaxed);
    cell.store(now.wrapping_add(1), Ordering::Relaxed);
    fence(Ordering::Release);
}

/// Whether a frame of `generation` is still intact (G2). To be called after the last read of its pixels.
pub(crate) fn holds(cell: &AtomicU64, generation: u64) -> bool {
    fence(Ordering::Acquire);
    cell.load(Ordering::Relaxed) == generation
}

/// Where the ledger keeps generations.
pub(crate) trait Generations {
    /// Of one buffer.
    fn current(&self, buffer: u8) -> u64;
    /// Ends the present one; see [`raise`].
    fn raise(&self, buffer: u8);
}
