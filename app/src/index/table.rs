//! The tables of the index, and how a segment's row lies in them: its codec and size are packed into one number, its state
//! and protection into another.
//!
//! Promises that a row comes back as it went in. Only [`super::Index`] uses it; what is asked of the rows is no matter of its own.

use mos_hal::clock::Mono;
use mos_hal::media::{LensId, VideoCodec};
use rusqlite::{Connection, Result, params};

use crate::archive::ids::{RunId, SegmentId, Seq};
use crate::archive::{Row, SegmentState};

/// Changes whenever the tables do; a snapshot of another schema is not loaded.
pub(super) const SCHEMA: i64 = 2;

pub(super) const TABLES: &str = "
    PRAGMA user_version = 2;
    CREATE TABLE lenses (no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE segments (
        lens INTEGER NOT NULL, run INTEGER NOT NULL, start INTEGER NOT NULL, seq INTEGER NOT NULL,
        duration INTEGER NOT NULL, bytes INTEGER NOT NULL, allocated INTEGER NOT NULL, frames INTEGER NOT NULL,
        shape INTEGER NOT NULL, flags INTEGER NOT NULL,
        PRIMARY KEY (lens, run, start, seq)
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX by_seq ON segments (lens, run, seq);
    CREATE INDEX may_go ON segments (lens, run, start) WHERE flags IN (1, 2);
";

/// What [`row_of`] reads, in this order.
pub(super) const COLUMNS: &str = "start, seq, duration, bytes, allocated, frames, shape, flags";
/// The flag of a protected segment, beside its state.
pub(super) const PROTECTED: i64 = 16;

/// Adds a row that is not there.
pub(super) fn insert(conn: &Connection, lens: i64, row: &Row) -> Result<()> {
    let flags = i64::from(state_no(row.state)) | if row.protected { PROTECTED } else { 0 };
    let codec = match row.codec {
        None => 0,
        Some(VideoCodec::H264) => 1,
        Some(VideoCodec::H265) => 2,
    };
    let shape = i64::from(row.width) << 24 | i64::from(row.height & 0xf_ffff) << 4 | codec;
    conn.prepare_cached("INSERT INTO segments VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)")?.execute(params![
        lens,
        row.id.run.0,
        row.start.0,
        row.id.seq.0,
        row.end.since(row.start),
        row.bytes,
        row.allocated,
        row.frames,
        shape,
        flags
    ])?;
    Ok(())
}

/// A row of [`COLUMNS`].
pub(super) fn row_of(r: &rusqlite::Row<'_>, lens: &LensId, run: RunId) -> Result<Row> {
    let start: i64 = r.get(0)?;
    let duration: i64 = r.get(2)?;
    let shape: i64 = r.get(6)?;
    let flags: i64 = r.get(7)?;
    Ok(Row {
        id: SegmentId { lens: lens.clone(), run, seq: Seq(r.get(1)?) },
        start: Mono(start),
        end: Mono(start.saturating_add(duration)),
        bytes: r.get(3)?,
        allocated: r.get(4)?,
        frames: r.get(5)?,
        codec: match shape & 0xf {
            1 => Some(VideoCodec::H264),
            2 => Some(VideoCodec::H265),
            _ => None,
        },
        width: (shape >> 24) as u32,
        height: (shape >> 4 & 0xf_ffff) as u32,
        state: state_of(flags),
        protected: flags & PROTECTED != 0,
    })
}

fn state_no(state: SegmentState) -> u8 {
    match state {
        // Neither is ever in the index.
        SegmentState::Open | SegmentState::Unfinished => 0,
        SegmentState::Closed => 1,
        SegmentState::Recovered => 2,
        SegmentState::Newer => 3,
    }
}

/// The state in the flags.
pub(super) fn state_of(flags: i64) -> SegmentState {
    match flags & 0xf {
        0 => SegmentState::Open,
        1 => SegmentState::Closed,
        2 => SegmentState::Recovered,
        _ => SegmentState::Newer,
    }
}
