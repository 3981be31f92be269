//! Retention, first form: the oldest unprotected segments go when the archive takes more room than it may.
//!
//! Promises:
//! - T1: a protected, pinned or open segment never goes, nor one whose times are of a newer format.
//! - T2: room is counted in allocated blocks; age goes by run and monotonic start, over all lenses, never by the wall clock.
//! - T3: every removal leaves a `retention` gap; a lens's oldest run folder goes once nothing but accounts is left in it.
//! - T4: when nothing may go and room is short all the same, the archive's health says so.
//!
//! Called by the archive's housekeeping thread. It alone decides deletions; the archive carries them out.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::archive::{Archive, ArchiveError, GapCause};

/// How much room the archive may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of allocated blocks that segments may take.
    pub max_bytes: Option<u64>,
    /// Bytes that stay free on the file system.
    pub min_free_bytes: u64,
}

/// How the room is; part of the archive's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes of allocated blocks of all segments.
    pub used: u64,
    /// Bytes free on the file system.
    pub free: u64,
    /// More room is taken than allowed, and nothing may go.
    pub short: bool,
    /// Segments removed in this run.
    pub removed: u64,
}

/// Segments looked at in one go.
const BATCH: usize = 32;

/// Removes what must go, and notes how the room is.
pub fn step(archive: &Archive, limits: Limits) {
    let mut room = archive.room();
    let done = make_room(archive, limits, &mut room);
    if let Err(error) = &done {
        log::warn!("no room can be made: {error}");
    }
    match measure(archive, limits, &mut room) {
        Ok(_) => {
            let over = limits.max_bytes.is_some_and(|max| room.used > max);
            room.short = over || room.free < limits.min_free_bytes;
        }
        Err(error) => log::warn!("{error}"),
    }
    archive.set_room(room);
}

fn make_room(archive: &Archive, limits: Limits, room: &mut Room) -> Result<(), ArchiveError> {
    let mut excess = measure(archive, limits, room)?;
    if excess == 0 {
        return Ok(());
    }
    let mut lenses = BTreeSet::new();
    let mut passed_over = 0;
    while excess > 0 {
        let candidates = archive.oldest_segments(passed_over + BATCH)?;
        if candidates.len() <= passed_over {
            break;
        }
        for row in &candidates[passed_over..] {
            if excess == 0 {
                break;
            }
            match archive.remove_as(&row.id, GapCause::Retention, Duration::ZERO) {
                Ok(()) => {
                    room.removed += 1;
                    excess = excess.saturating_sub(row.allocated.max(1));
                    lenses.insert(row.id.lens.clone());
                }
                // In use, protected in the meantime, or gone.
                Err(ArchiveError::InUse(_) | ArchiveError::Protected(_) | ArchiveError::NotFound(_)) => {
                    passed_over += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
    for lens in lenses {
        while archive.remove_oldest_run_dir(&lens)? {}
    }
    Ok(())
}

/// Bytes above the limits.
fn measure(archive: &Archive, limits: Limits, room: &mut Room) -> Result<u64, ArchiveError> {
    let counts = archive.catalog().counts();
    room.used = counts.stored.allocated + counts.open_bytes;
    room.free = archive.space()?.free;
    // The limit holds for what is being written too: room for it is made beforehand.
    let planned = |max: u64| room.used + counts.to_come.min(max / 4);
    let over = limits.max_bytes.map_or(0, |max| planned(max).saturating_sub(max));
    Ok(over.max(limits.min_free_bytes.saturating_sub(room.free)))
}
