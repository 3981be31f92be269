//! Opening what earlier runs left, beside a live capture: list, reconcile with the index, recover.
//!
//! Promises:
//! - L1: files that the index snapshot knows as closed are not opened; everything is listed before recovery begins. What has to be
//!   opened is looked at in batches, so that memory grows by what the index takes for a file and by no more.
//! - L2: what was removed stays removed: a decided removal that a power cut interrupted is finished.
//! - L3: while state beside the segments cannot be read, nothing is deleted.
//! - L5: in a run folder with a segment of a newer version, what we do not know is that version's, and stays.
//! - L4: an error with one file leaves that file for the next start and goes on with the others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::path::PathBuf;

use mos_hal::clock::Mono;

use super::catalog::{Cold, Row, RunInfo, SegmentState};
use super::error::{ArchiveError, at};
use super::gaps::{GapRecord, append_to_past};
use super::ids::{RunId, SegmentId, Seq};
use super::listing::{Listing, RunDir, list};
use super::recover::{Glance, Outcome, glance, recover, sync_file};
use super::run::folders_above;
use super::{Archive, Inner, lock, quarantine};
use crate::index::{Index, snapshot};

/// How loading went; part of the archive's health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Everything that is stored is listed.
    pub listed: bool,
    /// Recovery is over.
    pub loaded: bool,
    /// Why the index was rebuilt from the files, if it was.
    pub index_rebuilt: Option<String>,
    /// Files closed by recovery in this run.
    pub recovered: u64,
    /// Of these, those that had been closed before: the disk has lost a part of them.
    pub damaged: Vec<SegmentId>,
    /// Files in which nothing was ever durable, dropped by recovery in this run.
    pub dropped: u64,
    /// Things in quarantine.
    pub quarantined: u64,
    /// Why nothing is deleted, if so; `mos check --repair` mends it.
    pub frozen: Vec<String>,
    /// Files that gave errors and wait for the next start.
    pub unreadable: Vec<String>,
    /// Loading ended early: more may be there than is listed.
    pub incomplete: bool,
}

/// Closed segments per lens and run, from the newest back, whose close may be in the page cache only. A close is synced by
/// the tick after its flip, so only what one tick flipped can be; a tick that waited a minute for the disk, with segments
/// of one second, flips this many.
const UNSETTLED: usize = 64;

/// Files that are looked at before the index takes what they show.
const BATCH: usize = 4096;

/// A file that the index does not know: the place of its folder in the listing, and its number.
type Unknown = (usize, Seq);

/// What the first pass leaves for the second.
#[derive(Default)]
struct Work {
    /// Of one batch; the index takes them.
    closed: Vec<(Unknown, Row)>,
    /// The newest of them in each folder, at most [`UNSETTLED`], ascending.
    newest: BTreeMap<usize, VecDeque<Seq>>,
    unclosed: Vec<SegmentId>,
    strangers: Vec<PathBuf>,
    runs: BTreeMap<RunId, RunInfo>,
    unreadable: Vec<String>,
}

impl Archive {
    /// Loads the index and recovers what earlier runs left. Blocks; run it on a thread of its own, once.
    pub fn load(&self) -> Result<(), ArchiveError> {
        let done = self.inner.load();
        if let Ok(space) = self.space() {
            self.lay_in_reserve(space.free);
        }
        self.inner.health(|h| {
            h.incomplete = done.is_err();
            h.frozen.extend(done.as_ref().err().map(ToString::to_string));
            // Also after an error: nobody shall wait for ever.
            (h.listed, h.loaded) = (true, true);
        });
        done
    }

    /// How loading went, and what is wrong with the archive.
    #[must_use]
    pub fn health(&self) -> Health {
        lock(&self.inner.health).clone()
    }
}

impl Inner {
    pub(super) fn health(&self, change: impl FnOnce(&mut Health)) {
        change(&mut lock(&self.health));
        self.health_changed.notify_all();
    }

    /// Waits until everything stored is listed.
    pub(super) fn wait_listed(&self) {
        let mut health = lock(&self.health);
        while !health.listed {
            health = self.health_changed.wait(health).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn load(&self) -> Result<(), ArchiveError> {
        let disk = self.disk.as_ref();
        let (index, rebuilt) = match snapshot::load(disk) {
            Ok(index) => (index, None),
            Err(why) => (Index::new().map_err(|e| ArchiveError::Index(e.to_string()))?, Some(why)),
        };
        let mut listing = list(disk, Some(self.run))?;
        for path in listing.leave_to_newer(disk) {
            log::info!("{} lies beside segments of a newer version and stays there", path.display());
        }
        self.health(|h| {
            h.index_rebuilt = rebuilt;
            h.frozen.clone_from(&listing.damage);
        });
        let mut cold = Cold::new(index);
        let unknown = Self::reconcile(&mut cold, &listing).map_err(|e| ArchiveError::Index(e.to_string()))?;
        let work = self.look_at(&mut cold, &listing, &unknown).map_err(|e| ArchiveError::Index(e.to_string()))?;
        self.settle_same_boot(&listing, &work);
        learn_runs(&mut cold, &listing, &work);
        self.ask_headers(&mut cold, &listing);
        for dir in &listing.dirs {
            for record in &dir.gaps.records {
                cold.note(&dir.lens, dir.run, *record);
            }
        }
        self.catalog.adopt(cold)?;
        self.health(|h| h.listed = true);
        self.finish(&listing, work)
    }

    /// Brings the index in line with the folders; returns what it does not know.
    fn reconcile(cold: &mut Cold, listing: &Listing) -> rusqlite::Result<Vec<Unknown>> {
        let mut unknown = Vec::new();
        let mut there = BTreeSet::new();
        let index = &mut cold.index;
        for (at, dir) in listing.dirs.iter().enumerate() {
            there.insert((dir.lens.clone(), dir.run));
            let decided = dir.decided();
            let known = index.seqs(&dir.lens, dir.run)?;
            let on_disk = |seq| dir.seqs.binary_search(&seq).is_ok() && !decided.contains(&seq);
            for (seq, state, protected) in &known {
                if !on_disk(*seq) || *state == SegmentState::Open {
                    index.remove(&dir.id(*seq))?;
                } else if *protected != dir.keeps.contains(seq) {
                    index.set_protected(&dir.id(*seq), !protected)?;
                }
            }
            let is_known = |seq| {
                let found = known.binary_search_by_key(&seq, |(s, ..)| *s).ok();
                found.is_some_and(|i| known[i].1 != SegmentState::Open)
            };
            let new = dir.seqs.iter().filter(|seq| !decided.contains(seq) && !is_known(**seq));
            unknown.extend(new.map(|seq| (at, *seq)));
        }
        let gone: Vec<Row> = {
            let lenses: Vec<_> = index.lenses().cloned().collect();
            let dirs = lenses.iter().flat_map(|l| index.runs(l).map(|(run, _)| (l.clone(), run)).collect::<Vec<_>>());
            let gone: Vec<_> = dirs.filter(|key| !there.contains(key)).collect();
            let mut rows = Vec::new();
            for (lens, run) in gone {
                let all = (Mono(i64::MIN), Mono(i64::MAX));
                rows.extend(index.overlapping(&lens, run, all, usize::MAX)?);
            }
            rows
        };
        gone.iter().try_for_each(|row| index.remove(&row.id))?;
        Ok(unknown)
    }

    /// Glances at files, in parallel, and lists those that are closed.
    fn look_at(&self, cold: &mut Cold, listing: &Listing, unknown: &[Unknown]) -> rusqlite::Result<Work> {
        let recovered: Vec<BTreeSet<Seq>> = listing.dirs.iter().map(RunDir::recovered).collect();
        let mut work = Work::default();
        for batch in unknown.chunks(BATCH) {
            let threads = self.load_threads.max(1);
            let share = batch.len().div_ceil(threads).max(1);
            let parts: Vec<Work> = std::thread::scope(|scope| {
                let mut parts: Vec<_> = batch.chunks(share).collect();
                let own = parts.pop().unwrap_or(&[]);
                let others: Vec<_> =
                    parts.into_iter().map(|part| scope.spawn(|| self.look_at_some(listing, part))).collect();
                let own = self.look_at_some(listing, own);
                let mut done: Vec<Work> = others.into_iter().filter_map(|t| t.join().ok()).collect();
                done.push(own);
                done
            });
            for part in parts {
                let rows = part.closed.into_iter().map(|((at, seq), mut row)| {
                    let newest = work.newest.entry(at).or_default();
                    newest.push_back(seq);
                    if newest.len() > UNSETTLED {
                        newest.pop_front();
                    }
                    row.protected = listing.dirs[at].keeps.contains(&seq);
                    if row.state == SegmentState::Closed && recovered[at].contains(&seq) {
                        row.state = SegmentState::Recovered;
                    }
                    row
                });
                cold.index.add_all(&rows.collect::<Vec<Row>>())?;
                work.unclosed.extend(part.unclosed);
                work.strangers.extend(part.strangers);
                work.unreadable.extend(part.unreadable);
                part.runs.into_iter().for_each(|(run, info)| _ = work.runs.entry(run).or_insert(info));
            }
        }
        Ok(work)
    }

    fn look_at_some(&self, listing: &Listing, unknown: &[Unknown]) -> Work {
        let mut work = Work::default();
        for (at, seq) in unknown {
            let id = listing.dirs[*at].id(*seq);
            match glance(self.disk.as_ref(), &id) {
                Ok(Glance::Closed(row, info) | Glance::Newer(row, info)) => {
                    work.runs.entry(id.run).or_insert(info);
                    work.closed.push(((*at, *seq), row));
                }
                Ok(Glance::Unclosed) => work.unclosed.push(id),
                Ok(Glance::Stranger) => work.strangers.push(id.media_path()),
                Err(error) => work.unreadable.push(error.to_string()),
            }
        }
        work
    }

    /// A recorder that was killed left things in the page cache that only look durable.
    fn settle_same_boot(&self, listing: &Listing, work: &Work) {
        let same = |run: RunId, dir: Option<&RunDir>| {
            let boot = dir.and_then(|d| d.clock).map(|c| c.boot);
            boot.or_else(|| work.runs.get(&run).and_then(|info| info.boot)).is_none_or(|boot| boot == self.boot)
        };
        for (place, dir) in listing.dirs.iter().enumerate().filter(|(_, d)| same(d.run, Some(d))) {
            let newest = work.newest.get(&place).into_iter().flatten();
            let mut files: Vec<PathBuf> = newest.map(|seq| dir.id(*seq).media_path()).collect();
            files.extend([dir.path.join(super::gaps::FILE_NAME), dir.path.join(super::clock_file::FILE_NAME)]);
            let mut done: Result<(), ArchiveError> = Ok(());
            for file in &files {
                done = done.and(sync_file(self.disk.as_ref(), file));
            }
            for folder in folders_above(&dir.path) {
                done = done.and(self.disk.sync_dir(folder).map_err(at("sync", folder)));
            }
            if let Err(error) = done {
                self.health(|h| h.unreadable.push(error.to_string()));
            }
        }
    }

    /// Runs without a clock file whose segments are all known to the index: one header tells.
    fn ask_headers(&self, cold: &mut Cold, listing: &Listing) {
        for dir in &listing.dirs {
            if cold.runs.contains_key(&dir.run) {
                continue;
            }
            let first = dir.seqs.first().map(|seq| glance(self.disk.as_ref(), &dir.id(*seq)));
            if let Some(Ok(Glance::Closed(_, info) | Glance::Newer(_, info))) = first {
                cold.runs.insert(dir.run, info);
            }
        }
    }

    /// The second pass: removals, recovery, quarantine. What each step achieves is listed at once.
    fn finish(&self, listing: &Listing, work: Work) -> Result<(), ArchiveError> {
        let frozen = !listing.damage.is_empty();
        let mut trouble = work.unreadable;
        let mut note = |done: Result<(), ArchiveError>| {
            if let Err(error) = done {
                log::warn!("{error}");
                trouble.push(error.to_string());
            }
        };
        if !frozen {
            for dir in &listing.dirs {
                note(self.finish_removals(dir));
            }
        }
        let dirs: BTreeMap<_, &RunDir> = listing.dirs.iter().map(|d| ((&d.lens, d.run), d)).collect();
        for of_run in work.unclosed.chunk_by(|a, b| (&a.lens, a.run) == (&b.lens, b.run)) {
            let Some(dir) = dirs.get(&(&of_run[0].lens, of_run[0].run)) else { continue };
            let recovered = dir.recovered();
            let was_closed = |seq: &&Seq| !recovered.contains(seq) && !of_run.iter().any(|id| id.seq == **seq);
            let last_closed = dir.seqs.iter().rev().find(was_closed).copied();
            // Judged the newest first, as what is missing at the end of one depends on whether others follow it; listed the
            // oldest first, so that nobody sees one without those before it.
            let mut rows: Vec<Row> = Vec::new();
            for id in of_run.iter().rev() {
                match self.recover_one(dir, id, last_closed, &rows, frozen) {
                    Ok(row) => rows.extend(row),
                    Err(e) => note(Err(e)),
                }
            }
            for row in rows.iter().rev() {
                note(self.catalog.put(row));
            }
        }
        let strangers = work.strangers.iter().chain(&listing.strangers);
        let moved = quarantine::put_all_away(self.disk.as_ref(), strangers, |path, to| {
            note(to.map(|to| log::warn!("{} is not ours: moved to {}", path.display(), to.display())));
        });
        note(moved);
        // Protections of segments that are not there any more, in quarantine most likely.
        for dir in &listing.dirs {
            for seq in dir.keeps.iter().filter(|seq| dir.seqs.binary_search(seq).is_err()) {
                note(quarantine::put_away(self.disk.as_ref(), &dir.id(*seq).keep_path()).map(|_| ()));
            }
        }
        let (quarantined, mut segments) = quarantine::contents(self.disk.as_ref())?;
        segments.extend(lock(&self.health).damaged.iter().cloned());
        for (lens, run, gap) in self.catalog.account_for_holes(&segments, self.run)? {
            let dir = dirs.get(&(&lens, run)).filter(|dir| dir.gaps.damage.is_none());
            let record = GapRecord::Gap { gap, seq: None };
            note(dir.map_or(Ok(()), |dir| append_to_past(self.disk.as_ref(), &dir.path, &lens, &[record])));
        }
        self.health(|h| {
            h.quarantined = quarantined;
            h.unreadable.extend(trouble);
        });
        Ok(())
    }

    /// L2: what the log says was removed goes, and with it what an interrupted replacement left behind.
    fn finish_removals(&self, dir: &RunDir) -> Result<(), ArchiveError> {
        let decided = dir.decided();
        let mut touched = false;
        let gone = dir.seqs.iter().filter(|seq| decided.contains(seq)).map(|seq| dir.id(*seq).media_path());
        for path in gone.chain(dir.leftovers.iter().cloned()) {
            match self.disk.remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(at("remove", &path)(error)),
                _ => touched = true,
            }
        }
        if touched {
            self.disk.sync_dir(&dir.path).map_err(at("sync", &dir.path))?;
        }
        Ok(())
    }

    /// Notes what is missing at the end of a segment that is to be closed.
    fn account_for_end(
        &self,
        dir: &RunDir,
        id: &SegmentId,
        (is_last, later): (bool, Option<Mono>),
        info: RunInfo,
        missing: &[(Mono, Mono)],
        border: Option<(Mono, Mono)>,
    ) -> Result<(), ArchiveError> {
        self.catalog.learn_run(id.run, info);
        let gaps = self.catalog.gaps_at_end(id, is_last, later, missing, border);
        let records: Vec<GapRecord> = gaps.into_iter().map(|gap| GapRecord::Gap { gap, seq: None }).collect();
        if !records.is_empty() {
            append_to_past(self.disk.as_ref(), &dir.path, &dir.lens, &records)?;
            for record in records {
                self.catalog.note(&dir.lens, dir.run, record);
            }
        }
        Ok(())
    }

    /// Where the next segment behind this one begins. `later` was recovered now; a recovery that was cut off has listed it.
    fn begun_behind(&self, dir: &RunDir, id: &SegmentId, later: &[Row]) -> Option<Mono> {
        let start = |seq: &Seq| {
            let listed = || self.catalog.get(&dir.id(*seq)).map(|segment| segment.row.start);
            later.iter().find(|row| row.id.seq == *seq).map(|row| row.start).or_else(listed)
        };
        dir.seqs.iter().filter(|seq| **seq > id.seq).find_map(start)
    }

    /// Closes a segment; gives its row, to be listed. `last_closed` of its run was closed in order, `later` was recovered behind it,
    /// the newest first.
    fn recover_one(
        &self,
        dir: &RunDir,
        id: &SegmentId,
        last_closed: Option<Seq>,
        later: &[Row],
        frozen: bool,
    ) -> Result<Option<Row>, ArchiveError> {
        let disk = self.disk.as_ref();
        let path = id.media_path();
        let protected = dir.keeps.contains(&id.seq);
        // One tick may have ended this one and begun what is behind it, behind a slow tick even several: all of it is the run's end.
        let may_be_last = dir.seqs.last().is_none_or(|last| last.0 <= id.seq.0.saturating_add(1));
        let is_last = may_be_last || last_closed.is_none_or(|closed| closed < id.seq);
        let behind = is_last.then(|| self.begun_behind(dir, id, later)).flatten();
        let end = (is_last, later.first().map(|row| row.end));
        let account = |info, missing: &[_], border| self.account_for_end(dir, id, end, info, missing, border);
        match recover(disk, id, behind, &account)? {
            Outcome::Closed(row, info) | Outcome::Newer(row, info) => {
                self.catalog.learn_run(id.run, info);
                Ok(Some(Row { protected, ..row }))
            }
            Outcome::Recovered { row, info, damaged } => {
                if damaged {
                    log::warn!("{id} had been closed and is damaged: what is intact of it was closed again");
                    self.health(|h| h.damaged.push(id.clone()));
                }
                // The name may never have been durable.
                for folder in folders_above(&dir.path) {
                    disk.sync_dir(folder).map_err(at("sync", folder))?;
                }
                append_to_past(disk, &dir.path, &dir.lens, &[GapRecord::Recovered { seq: id.seq }])?;
                log::info!("recovered {id}: {} frames", row.frames);
                self.health(|h| h.recovered += 1);
                self.catalog.learn_run(id.run, info);
                Ok(Some(Row { protected, ..row }))
            }
            Outcome::Nothing if frozen => Ok(None),
            Outcome::Nothing => {
                self.health(|h| h.dropped += 1);
                disk.remove_file(&path).map_err(at("remove", &path))?;
                disk.sync_dir(&dir.path).map_err(at("sync", &dir.path))?;
                Ok(None)
            }
            Outcome::Unreadable(why) => {
                let to = quarantine::put_away(disk, &path)?;
                log::warn!("{id} cannot be read ({why}): moved to {}", to.display());
                if protected {
                    quarantine::put_away(disk, &id.keep_path())?;
                }
                Ok(None)
            }
        }
    }
}

/// C3: the highest revision of a run's clock files holds; without any, what a segment's header says.
fn learn_runs(cold: &mut Cold, listing: &Listing, work: &Work) {
    let mut best: BTreeMap<RunId, super::clock_file::RunClock> = BTreeMap::new();
    for clock in listing.dirs.iter().filter_map(|d| d.clock) {
        let entry = best.entry(clock.run).or_insert(clock);
        if clock.revision > entry.revision {
            *entry = clock;
        }
    }
    cold.runs.extend(work.runs.iter().map(|(run, info)| (*run, *info)));
    for (run, clock) in best {
        cold.runs.insert(run, RunInfo { boot: Some(clock.boot), mapping: Some(clock.mapping) });
    }
}
