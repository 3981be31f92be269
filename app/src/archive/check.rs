//! `mos check`: looks through an archive without a daemon, and mends what can be mended.
//!
//! Promises:
//! - Y1: without `repair` nothing is changed.
//! - Y2: repair deletes no media: what cannot be understood goes to the quarantine, damaged state too, with what could be
//!   read of it written anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mos_hal::clock::Clock;
use serde::Serialize;

use super::disk::Disk;
use super::error::{ArchiveError, at};
use super::gaps::{self, GapRecord};
use super::ids::SegmentId;
use super::listing::{Listing, RunDir, list};
use super::recover::{Glance, glance, was_closed};
use super::run::write_whole;
use super::{Archive, ArchiveOptions, clock_file, quarantine};
use crate::index::snapshot;

/// What `mos check` found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Media files looked at.
    pub segments: u64,
    /// Of these closed in order.
    pub closed: u64,
    /// Of these of a newer format.
    pub newer: u64,
    /// Protected ones.
    pub protected: u64,
    /// Ids that are not closed; the next start, or `--repair`, closes them as far as they are intact.
    pub unclosed: Vec<String>,
    /// Files and folders that are not MOS's; they go to the quarantine.
    pub strangers: Vec<String>,
    /// Segments that have lost a part, and state beside them that cannot be read: because of the latter nothing is deleted
    /// until it is repaired.
    pub damaged: Vec<String>,
    /// Files that the disk cannot read.
    pub unreadable: Vec<String>,
    /// Things in quarantine.
    pub quarantined: u64,
    /// What is wrong with the index snapshot, if it is not as it should be; the next start rebuilds it.
    pub index: Option<String>,
    /// What was done, in order; empty without `--repair`.
    pub repairs: Vec<String>,
}

impl Report {
    /// Whether nothing needs attention. Unclosed segments, things in quarantine and a stale index do not.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.strangers.is_empty() && self.damaged.is_empty() && self.unreadable.is_empty()
    }
}

/// Looks through the archive on `disk`, which nobody else uses.
pub fn check(disk: &dyn Disk) -> Result<Report, ArchiveError> {
    let mut report = Report::default();
    let listing = list(disk, None)?;
    for dir in &listing.dirs {
        report.protected += dir.keeps.len() as u64;
        for seq in &dir.seqs {
            report.look_at(disk, &dir.id(*seq));
        }
    }
    report.strangers.extend(listing.strangers.iter().map(|p| p.display().to_string()));
    report.damaged.extend(listing.damage);
    report.quarantined = quarantine::contents(disk)?.0;
    report.index = snapshot::load(disk).err();
    Ok(report)
}

/// Mends what can be mended, then looks again.
pub fn repair(disk: &Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Result<Report, ArchiveError> {
    let mut repairs = Vec::new();
    let listing = list(disk.as_ref(), None)?;
    for dir in &listing.dirs {
        mend_state(disk.as_ref(), dir, &listing, &mut repairs)?;
    }
    // What a start does: close, put away, finish removals, rebuild the index.
    let options = ArchiveOptions { sync_threads: 0, ..ArchiveOptions::default() };
    let archive = Archive::open(disk.clone(), clock, &options)?;
    archive.load()?;
    archive.snapshot_index()?;
    let health = archive.health();
    repairs.extend((health.recovered > 0).then(|| format!("closed {} segments", health.recovered)));
    repairs.extend(health.damaged.iter().map(|id| format!("closed what is intact of {id}")));
    repairs.extend((health.dropped > 0).then(|| format!("dropped {} files without footage", health.dropped)));
    repairs.extend(health.index_rebuilt.map(|why| format!("rebuilt the index ({why})")));
    repairs.extend(listing.strangers.iter().map(|p| format!("moved {} to the quarantine", p.display())));
    Ok(Report { repairs, ..check(disk.as_ref())? })
}

impl Report {
    fn look_at(&mut self, disk: &dyn Disk, id: &SegmentId) {
        self.segments += 1;
        match glance(disk, id) {
            Ok(Glance::Closed(..)) => self.closed += 1,
            Ok(Glance::Newer(..)) => self.newer += 1,
            Ok(Glance::Unclosed) => match was_closed(disk, id) {
                Ok(false) => self.unclosed.push(id.to_string()),
                Ok(true) => {
                    let path = id.media_path();
                    self.damaged.push(format!("{} was closed and has lost a part since", path.display()));
                }
                Err(error) => self.unreadable.push(error.to_string()),
            },
            Ok(Glance::Stranger) => self.strangers.push(id.media_path().display().to_string()),
            Err(error) => self.unreadable.push(error.to_string()),
        }
    }
}

/// Puts damaged state away and writes what could be read of it anew.
fn mend_state(disk: &dyn Disk, dir: &RunDir, listing: &Listing, repairs: &mut Vec<String>) -> Result<(), ArchiveError> {
    let damaged = |path: &Path| {
        let text = format!("{} ", path.display());
        listing.damage.iter().any(|d| d.starts_with(&text))
    };
    let gaps_path = dir.path.join(gaps::FILE_NAME);
    if damaged(&gaps_path) {
        put_away(disk, &gaps_path, repairs)?;
        let text = gaps::text(&dir.lens, &dir.gaps.records, 0);
        write_whole(disk, &dir.path.join("gaps.tmp"), &gaps_path, text.as_bytes())?;
        let kept: usize = dir.gaps.records.iter().filter(|r| matches!(r, GapRecord::Gap { .. })).count();
        repairs.push(format!("kept {kept} gaps of {}", gaps_path.display()));
    }
    let clock_path = dir.path.join(clock_file::FILE_NAME);
    if damaged(&clock_path) {
        // The headers of the segments say what was known when they were made.
        put_away(disk, &clock_path, repairs)?;
    }
    Ok(())
}

fn put_away(disk: &dyn Disk, path: &Path, repairs: &mut Vec<String>) -> Result<(), ArchiveError> {
    let to: PathBuf = quarantine::put_away(disk, path)?;
    disk.sync_dir(Path::new("quarantine")).map_err(at("sync", &to))?;
    repairs.push(format!("moved {} to {}", path.display(), to.display()));
    Ok(())
}
