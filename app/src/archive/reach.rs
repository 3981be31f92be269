//! How far each run's account of gaps is known to reach: the file `index/accounts`, written with the snapshot of the index.
//!
//! Promise (W1): lines that went from the end of a `gaps.jsonl` are missed by `mos check`, as far as they were durable when the last
//! snapshot was written (every stop writes one). Like the index it is a help only: losing it costs nothing else.

use std::path::Path;

use mos_hal::clock::Mono;
use mos_hal::media::LensId;
use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::gaps::{Gap, GapCause, GapRecord};
use super::ids::RunId;
use super::listing::RunDir;
use super::run::read_whole;
use super::{Archive, ArchiveError, line, lock};

const FILE: &str = "index/accounts";

/// The last moment that an account tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    lens: String,
    run: u32,
    until: i64,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    rows: Vec<Row>,
}

/// What is known, by lens and run.
pub(super) struct Reach(Known);

impl GapRecord {
    /// The last moment that it tells of.
    pub(super) fn until(&self) -> Option<Mono> {
        match *self {
            Self::Gap { gap, .. } => Some(gap.end),
            Self::Stop { at } => Some(at),
            Self::Recovered { .. } => None,
        }
    }
}

impl Reach {
    pub(super) fn load(disk: &dyn Disk) -> Self {
        Self(read_whole(disk, Path::new(FILE)).ok().and_then(|text| line::unseal(&text)).unwrap_or_default())
    }

    /// What the account of a run has lost at its end.
    pub(super) fn lost(&self, dir: &RunDir) -> Option<Gap> {
        let row = self.0.rows.iter().find(|row| row.lens == dir.lens.as_str() && row.run == dir.run.0)?;
        let until = dir.gaps.records.iter().filter_map(GapRecord::until).max();
        let start = until.unwrap_or(Mono(i64::MIN));
        (start.0 < row.until).then_some(Gap { start, end: Mono(row.until), cause: GapCause::Unknown })
    }
}

impl Archive {
    /// Notes how far the accounts of this run reach that are durable.
    pub(super) fn note_reach(&self) -> Result<(), ArchiveError> {
        let known = Reach::load(self.inner.disk.as_ref()).0;
        let is_there = |row: &&Row| {
            let lens = LensId::new(&row.lens).ok();
            row.run != self.inner.run.0 && lens.is_some_and(|lens| self.inner.catalog.has_run(&lens, RunId(row.run)))
        };
        let mut rows: Vec<Row> = known.rows.iter().filter(is_there).cloned().collect();
        // A log may be waiting for the disk, and the recorder for the lenses.
        let lenses: Vec<_> = lock(&self.inner.lenses).iter().map(|(lens, run)| (lens.clone(), run.clone())).collect();
        for (lens, run) in &lenses {
            let before = known.rows.iter().find(|row| row.run == run.run.0 && row.lens == lens.as_str());
            let until = run.gaps.durable_until().map(|at| at.0).or(before.map(|row| row.until));
            rows.extend(until.map(|until| Row { lens: lens.to_string(), run: run.run.0, until }));
        }
        let now = Known { rows };
        if now == known { Ok(()) } else { self.write_note(Path::new(FILE), &now) }
    }
}
