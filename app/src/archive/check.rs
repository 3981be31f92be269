//! `mos check`: looks through an archive without a daemon, and mends what can be mended.
//!
//! Promises:
//! - Y1: without `repair` nothing is changed.
//! - Y2: repair deletes no media: what cannot be understood goes to the quarantine, damaged state too, with what could be
//!   read of it written anew.
//! - Y3: an account of gaps that has lost lines, also whole ones from its end, is told: by the holes between segments that nothing
//!   explains any more, and by being empty. A hole near the end of a run that was not stopped may be of a power cut just as well:
//!   that is a note. What went from behind the last footage is told as far as the last snapshot knew of it (`reach`). Repair puts gaps
//!   on record in their place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mos_hal::clock::Clock;
use serde::Serialize;

use super::catalog::{Cold, Unaccounted};
use super::disk::Disk;
use super::error::{ArchiveError, at};
use super::gaps::{self, Gap, GapCause, GapRecord};
use super::ids::{SegmentId, Seq};
use super::keep::Kept;
use super::listing::{Listing, RunDir, list};
use super::reach::Reach;
use super::recover::{Glance, glance, was_closed};
use super::run::{read_whole, write_whole};
use super::{Archive, ArchiveOptions, clock_file, line, quarantine};
use crate::index::{Index, snapshot};

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
    /// What is odd and harmless, and what becomes of it.
    pub notes: Vec<String>,
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
    let mut listing = list(disk, None)?;
    let newer = listing.leave_to_newer(disk);
    for path in newer {
        report.notes.push(format!("{} lies beside segments of a newer version: it stays there", path.display()));
    }
    let holes = look_through(disk, &listing, |dir, seq, decided, found| {
        let id = dir.id(seq);
        if decided {
            report.notes.push(format!("the removal of {id} was cut off: the next start finishes it"));
        } else {
            report.tell(disk, &id, found);
        }
    })?;
    for dir in &listing.dirs {
        report.protected += dir.keeps.len() as u64;
        report.note_state(disk, dir);
    }
    if begun_badly(disk) {
        report.notes.push("the file run is missing or damaged: the next start counts on from the folders".to_owned());
    }
    for Hole { dir, gap, may_be_of_a_cut } in holes {
        let (path, ms) = (dir.path.join(gaps::FILE_NAME), gap.end.since(gap.start) / 1_000_000);
        let what = format!("{} does not tell why {ms} ms are missing", path.display());
        if may_be_of_a_cut {
            report.notes.push(format!("{what} near the end of the run: a power cut took them, or it has lost lines"));
        } else {
            report.damaged.push(format!("{what}: it has lost lines"));
        }
    }
    let reach = Reach::load(disk);
    for (dir, _) in listing.dirs.iter().filter_map(|dir| Some((dir, reach.lost(dir)?))) {
        let path = dir.path.join(gaps::FILE_NAME);
        report.damaged.push(format!("{} has lost lines at its end, which a snapshot knew of", path.display()));
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
    let mut listing = list(disk.as_ref(), None)?;
    listing.leave_to_newer(disk.as_ref());
    for dir in &listing.dirs {
        mend_state(disk.as_ref(), dir, &listing, &mut repairs)?;
    }
    for Hole { dir, gap, .. } in look_through(disk.as_ref(), &listing, |_, _, _, _| {})? {
        gaps::append_to_past(disk.as_ref(), &dir.path, &dir.lens, &[GapRecord::Gap { gap, seq: None }])?;
        let (path, ms) = (dir.path.join(gaps::FILE_NAME), gap.end.since(gap.start) / 1_000_000);
        let cause = if gap.cause == GapCause::Unknown { "unknown cause" } else { gap.cause.name() };
        repairs.push(format!("noted {ms} ms of {cause} in {}", path.display()));
    }
    let reach = Reach::load(disk.as_ref());
    for dir in list(disk.as_ref(), None)?.dirs {
        let Some(lost) = reach.lost(&dir) else { continue };
        // What is known ends with the account or the footage, whichever is later; recovery may know more.
        let footage = dir.seqs.last().and_then(|seq| match glance(disk.as_ref(), &dir.id(*seq)) {
            Ok(Glance::Closed(row, _)) => Some(row.end),
            _ => None,
        });
        let start = footage.map_or(lost.start, |end| lost.start.max(end)).min(lost.end);
        let gap = Gap { start: if start.0 == i64::MIN { lost.end } else { start }, ..lost };
        gaps::append_to_past(disk.as_ref(), &dir.path, &dir.lens, &[GapRecord::Gap { gap, seq: None }])?;
        let (path, ms) = (dir.path.join(gaps::FILE_NAME), gap.end.since(gap.start) / 1_000_000);
        repairs.push(format!("noted {ms} ms of unknown cause at the end of {}", path.display()));
    }
    let unfinished = repairs_of_a_start(&listing);
    // What a start does: close, put away, finish removals, rebuild the index.
    let options = ArchiveOptions { sync_threads: 0, ..ArchiveOptions::default() };
    let archive = Archive::open(disk.clone(), clock, &options)?;
    archive.load()?;
    archive.snapshot_index()?;
    let health = archive.health();
    repairs.extend(unfinished);
    repairs.extend((health.recovered > 0).then(|| format!("closed {} segments", health.recovered)));
    repairs.extend(health.damaged.iter().map(|id| format!("closed what is intact of {id}")));
    repairs.extend((health.dropped > 0).then(|| format!("dropped {} files without footage", health.dropped)));
    repairs.extend(health.index_rebuilt.map(|why| format!("rebuilt the index ({why})")));
    repairs.extend(listing.strangers.iter().map(|p| format!("moved {} to the quarantine", p.display())));
    Ok(Report { repairs, ..check(disk.as_ref())? })
}

/// Footage that is missing in a run.
struct Hole<'a> {
    dir: &'a RunDir,
    gap: Gap,
    may_be_of_a_cut: bool,
}

/// Looks at every segment file, once, and tells what it shows and whether its removal was decided. Gives what is missing between
/// closed segments without a gap that tells why, where nothing else does. (Y3)
fn look_through<'a>(
    disk: &dyn Disk,
    listing: &'a Listing,
    mut tell: impl FnMut(&RunDir, Seq, bool, &Result<Glance, ArchiveError>),
) -> Result<Vec<Hole<'a>>, ArchiveError> {
    let failed = |e: rusqlite::Error| ArchiveError::Index(e.to_string());
    let mut cold = Cold::new(Index::new().map_err(failed)?);
    let mut lost = quarantine::contents(disk)?.1;
    for dir in &listing.dirs {
        let (mut rows, decided) = (Vec::new(), dir.decided());
        for seq in &dir.seqs {
            let id = dir.id(*seq);
            let found = glance(disk, &id);
            tell(dir, *seq, decided.contains(seq), &found);
            match found {
                Ok(Glance::Closed(row, info) | Glance::Newer(row, info)) => {
                    cold.runs.entry(dir.run).or_insert(info);
                    rows.push(row);
                }
                _ => lost.push(id),
            }
        }
        lost.extend(decided.into_iter().map(|seq| dir.id(seq)));
        lost.extend(dir.recovered().into_iter().map(|seq| dir.id(seq)));
        cold.index.add_all(&rows).map_err(failed)?;
        for record in &dir.gaps.records {
            cold.note(&dir.lens, dir.run, *record);
        }
    }
    let dirs: BTreeMap<_, &RunDir> = listing.dirs.iter().map(|dir| ((&dir.lens, dir.run), dir)).collect();
    let found = cold.unaccounted(&lost).map_err(failed)?;
    let of = |hole: &Unaccounted| {
        let (lens, run, gap) = &hole.at;
        dirs.get(&(lens, *run)).map(|dir| Hole { dir, gap: *gap, may_be_of_a_cut: hole.may_be_of_a_cut })
    };
    Ok(found.iter().filter_map(of).collect())
}

/// What a start finishes without counting it.
fn repairs_of_a_start(listing: &Listing) -> Vec<String> {
    let mut repairs = Vec::new();
    for dir in &listing.dirs {
        let decided = dir.decided();
        let cut_off = dir.seqs.iter().filter(|seq| decided.contains(seq));
        repairs.extend(cut_off.map(|seq| format!("finished the removal of {}", dir.id(*seq))));
        repairs.extend(dir.leftovers.iter().map(|path| format!("removed {}", path.display())));
        let orphans = dir.keeps.iter().filter(|seq| dir.seqs.binary_search(seq).is_err());
        repairs.extend(orphans.map(|seq| format!("moved the protection of {} to the quarantine", dir.id(*seq))));
    }
    repairs
}

/// Whether the number of the last run cannot be read, though there is a run.
fn begun_badly(disk: &dyn Disk) -> bool {
    let segments = disk.read_dir(Path::new("segments")).is_ok_and(|names| !names.is_empty());
    segments && !read_whole(disk, Path::new("run")).is_ok_and(|text| clock_file::RunClock::from_text(&text).is_some())
}

/// Protections whose text cannot be read; they protect all the same.
fn unreadable_keeps(disk: &dyn Disk, dir: &RunDir) -> Vec<SegmentId> {
    let readable =
        |id: &SegmentId| read_whole(disk, &id.keep_path()).is_ok_and(|text| line::unseal::<Kept>(&text).is_some());
    let there = dir.keeps.iter().filter(|seq| dir.seqs.binary_search(seq).is_ok());
    there.map(|seq| dir.id(*seq)).filter(|id| !readable(id)).collect()
}

impl Report {
    /// What is odd beside the segments of a run.
    fn note_state(&mut self, disk: &dyn Disk, dir: &RunDir) {
        for seq in dir.keeps.iter().filter(|seq| dir.seqs.binary_search(seq).is_err()) {
            let id = dir.id(*seq);
            self.notes
                .push(format!("{id} is protected but not there: the next start moves its protection to quarantine"));
        }
        for id in unreadable_keeps(disk, dir) {
            self.notes.push(format!("who protects {id} and why cannot be read; it is protected all the same"));
        }
        for path in &dir.leftovers {
            self.notes
                .push(format!("{} was being written when it was cut off: the next start removes it", path.display()));
        }
        let path = dir.path.join(gaps::FILE_NAME);
        if dir.gaps.records.is_empty() && !dir.gaps.torn && !dir.seqs.is_empty() {
            self.notes.push(format!("{} is empty or missing: what it told of this run is lost", path.display()));
        }
        if dir.gaps.torn && dir.gaps.damage.is_none() {
            self.notes.push(format!("{} has a torn end that was never durable: it is left out", path.display()));
        }
    }

    fn tell(&mut self, disk: &dyn Disk, id: &SegmentId, found: &Result<Glance, ArchiveError>) {
        self.segments += 1;
        match found {
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
        let text = dir.gaps.anew(&dir.lens, None);
        write_whole(disk, &dir.path.join("gaps.tmp"), &gaps_path, text.as_bytes())?;
        let kept: usize = dir.gaps.records.iter().filter(|r| matches!(r, GapRecord::Gap { .. })).count();
        repairs.push(format!("kept {kept} gaps of {}", gaps_path.display()));
    }
    let clock_path = dir.path.join(clock_file::FILE_NAME);
    if damaged(&clock_path) {
        // The headers of the segments say what was known when they were made.
        put_away(disk, &clock_path, repairs)?;
        repairs.push(format!("times of {} are taken from its segments' headers", dir.path.display()));
    }
    for id in unreadable_keeps(disk, dir) {
        // Replaced at one stroke: at no moment is it not protected.
        let why = "the text was damaged; written anew by a repair".to_owned();
        let kept = Kept { who: "unknown".to_owned(), when_ts: 0, why, gives_way: false };
        let tmp = id.keep_path().with_extension("keep.tmp");
        write_whole(disk, &tmp, &id.keep_path(), (line::seal(&kept) + "\n").as_bytes())?;
        repairs.push(format!("wrote the protection of {id} anew"));
    }
    Ok(())
}

fn put_away(disk: &dyn Disk, path: &Path, repairs: &mut Vec<String>) -> Result<(), ArchiveError> {
    let to: PathBuf = quarantine::put_away(disk, path)?;
    disk.sync_dir(Path::new("quarantine")).map_err(at("sync", &to))?;
    repairs.push(format!("moved {} to {}", path.display(), to.display()));
    Ok(())
}
