//! How far each run's account of gaps is known to reach: the file `index/accounts`, written with the snapshot of the index.
//!
//! Promise (W1): lines that went from the end of a `gaps.jsonl` are missed by `mos check`, as far as they were durable when the last
//! snapshot was written (every stop writes one). Like the index it is a help only: losing it costs nothing else.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// What the file holds: read once, and looked through for runs that are not there any more when one goes.
#[derive(Default)]
pub(super) struct Noted {
    rows: Mutex<Option<Known>>,
    a_run_went: AtomicBool,
}

impl Noted {
    /// A lens has nothing left in a run.
    pub(super) fn forget_runs(&self) {
        self.a_run_went.store(true, Ordering::Relaxed);
    }
}

impl Archive {
    /// Notes how far the accounts of this run reach that are durable. While nothing of that changes, it asks nobody but the logs
    /// of this run.
    pub(super) fn note_reach(&self) -> Result<(), ArchiveError> {
        let mut noted = lock(&self.inner.noted.rows);
        let went = self.inner.noted.a_run_went.swap(false, Ordering::Relaxed) || noted.is_none();
        let known = noted.take().unwrap_or_else(|| Reach::load(self.inner.disk.as_ref()).0);
        let (mut rows, before): (Vec<Row>, Vec<Row>) =
            known.rows.into_iter().partition(|row| row.run != self.inner.run.0);
        let all = rows.len();
        if went {
            let has_run = |lens: &LensId, run| self.inner.catalog.has_run(lens, RunId(run));
            rows.retain(|row| LensId::new(&row.lens).is_ok_and(|lens| has_run(&lens, row.run)));
        }
        // A log may be waiting for the disk, and the recorder for the lenses.
        let lenses: Vec<_> = lock(&self.inner.lenses).iter().map(|(lens, run)| (lens.clone(), run.clone())).collect();
        let mut present = Vec::new();
        for (lens, run) in &lenses {
            let before = before.iter().find(|row| row.lens == lens.as_str());
            let until = run.gaps.durable_until().map(|at| at.0).or(before.map(|row| row.until));
            present.extend(until.map(|until| Row { lens: lens.to_string(), run: run.run.0, until }));
        }
        let changed = rows.len() < all || present != before;
        rows.append(&mut present);
        let now = Known { rows };
        let done = if changed { self.write_note(Path::new(FILE), &now) } else { Ok(()) };
        // What the disk did not take is read, and looked through, anew.
        *noted = done.is_ok().then_some(now);
        done
    }
}
