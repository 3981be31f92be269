//! Linking what earlier runs left without a link, one segment at a time and gently; and files of chains of which no segment is left.
//!
//! Promises: (V2) what a power cut left is linked as `later`: the few behind the last link of a chain that is as the ledger says.
//! Everything else is `old`, which attests nothing of the time before. (O1) A chain in which something is wrong is not written
//! to. (O2) A file of a chain is removed only when the folder of its segments can be listed, holds none of them, and the archive
//! deletes at all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::path::Path;

use mos_hal::media::LensId;

use super::chain::{self, FOLDER, Made, Tail, part_of, root};
use super::keeper::Keeper;
use super::ledger::Ledger;
use super::present::Present;
use crate::archive::ids::{RunId, SegmentId, Seq, number};

/// Most segments that a power cut can leave without a link: closed since the last look, closing, and open, of one second each.
const FEW: usize = 8;

/// What is still to be looked through, the latest runs first.
pub(super) struct Past {
    runs: VecDeque<(LensId, RunId)>,
    now: Option<Left>,
}

/// What a run left, which is looked through.
struct Left {
    lens: LensId,
    run: RunId,
    seqs: VecDeque<u32>,
    /// What a cut left.
    later: BTreeSet<u32>,
    /// The file of the chain that is at hand: its links, and where the next one goes if it may be written to.
    part: Option<(BTreeSet<u32>, Option<Tail>)>,
    at: u32,
}

impl Past {
    pub(super) fn list(keeper: &Keeper) -> Self {
        let mut runs = Vec::new();
        let lenses = keeper.archive.lens_folders().inspect_err(|e| log::warn!("no old links are made: {e}"));
        for lens in lenses.unwrap_or_default() {
            let folder = Path::new("segments").join(lens.as_str());
            let names = keeper.archive.disk().read_dir(&folder);
            let names = names.inspect_err(|e| log::warn!("no old links are made of {lens}: {e}")).unwrap_or_default();
            let past = names.iter().filter(|e| e.is_dir).filter_map(|e| number(&e.name));
            runs.extend(past.filter(|run| *run < keeper.archive.run().0).map(|run| (lens.clone(), RunId(run))));
        }
        runs.sort_by_key(|(_, run)| std::cmp::Reverse(*run));
        Self { runs: runs.into(), now: None }
    }

    /// Links the next segment; whether there may be more.
    pub(super) fn step(&mut self, keeper: &Keeper, ledger: &mut Ledger) -> bool {
        if self.now.is_none() {
            let Some((lens, run)) = self.runs.pop_front() else {
                // Those of which nothing is left.
                ledger.forget(|row| row.run < keeper.archive.run().0);
                keeper.write(ledger);
                return false;
            };
            self.now = Left::begin(keeper, ledger, lens, run);
        }
        let Some(now) = &mut self.now else { return true };
        if !now.step(keeper) {
            let (lens, run) = (now.lens.clone(), now.run.0);
            ledger.forget(|row| row.lens == lens.as_str() && row.run == run);
            keeper.write(ledger);
            self.now = None;
        }
        true
    }
}

impl Left {
    fn begin(keeper: &Keeper, ledger: &Ledger, lens: LensId, run: RunId) -> Option<Self> {
        let disk = keeper.archive.disk().as_ref();
        let names = disk.read_dir(&SegmentId::run_dir(&lens, run));
        let names = names.inspect_err(|e| log::warn!("{lens}: run {} cannot be listed: {e}", run.0)).ok()?;
        let mut seqs: Vec<u32> = names.iter().filter_map(|e| e.name.strip_suffix(".mp4")).filter_map(number).collect();
        seqs.sort_unstable();
        let later = later(keeper, ledger, (&lens, run), &seqs);
        Some(Self { lens, run, seqs: seqs.into(), later, part: None, at: 0 })
    }

    /// Links its next segment without a link; whether there was one.
    fn step(&mut self, keeper: &Keeper) -> bool {
        while let Some(seq) = self.seqs.pop_front() {
            if keeper.stopped() {
                return true;
            }
            let part = part_of(seq);
            if self.part.is_none() || part != self.at {
                (self.part, self.at) = (self.open(keeper, part), part);
            }
            let id = SegmentId { lens: self.lens.clone(), run: self.run, seq: Seq(seq) };
            let Some((linked, Some(tail))) = &mut self.part else { continue };
            if linked.contains(&seq) || !keeper.is_closed(&id) {
                continue;
            }
            let made = if self.later.contains(&seq) { Made::Later } else { Made::Old };
            match keeper.link(&id, tail, made) {
                Ok(()) => keeper.count(|counts| counts.late += 1),
                Err(why) => keeper.given_up(&id, &why),
            }
            return true;
        }
        false
    }

    /// A file of the chain. (O1)
    fn open(&self, keeper: &Keeper, part: u32) -> Option<(BTreeSet<u32>, Option<Tail>)> {
        let (lens, run) = (&self.lens, self.run);
        let disk = keeper.archive.disk().as_ref();
        let read = chain::load(disk, lens, run, part);
        let chain = read.inspect_err(|e| log::warn!("{lens}: the chain of run {} cannot be read: {e}", run.0)).ok()?;
        // The one before, if it is there: so that who has all files has one chain.
        let before = part.checked_sub(1).and_then(|part| chain::load(disk, lens, run, part).ok());
        let before = before.and_then(|chain| chain.links.last().map(|link| link.head));
        let tail = chain.tail(part, before.unwrap_or_else(|| root(lens.as_str(), run.0)));
        if let (None, Some((line, why))) = (&tail, chain.broken) {
            keeper.harmed(lens, run, &format!("line {line} of {}: {why}", chain::path(lens, run, part).display()));
        }
        Some((chain.links.iter().map(|link| link.segment.seq).collect(), tail))
    }
}

/// Which of these segments a power cut left without a link. (V2)
fn later(keeper: &Keeper, ledger: &Ledger, (lens, run): (&LensId, RunId), seqs: &[u32]) -> BTreeSet<u32> {
    let Some(row) = ledger.row(lens.as_str(), run.0) else { return BTreeSet::new() };
    let disk = keeper.archive.disk().as_ref();
    let (Ok(chain), Ok(next)) =
        (chain::load(disk, lens, run, row.part), chain::load(disk, lens, run, row.part.saturating_add(1)))
    else {
        return BTreeSet::new();
    };
    if !row.agrees(&chain) {
        let found = chain.links.len();
        let why = format!("{found} of at least {} links are left in {}-{}", row.links, run.0, row.part);
        keeper.harmed(lens, run, &format!("it was shortened or replaced: {why}"));
        return BTreeSet::new();
    }
    let linked: BTreeSet<u32> = chain.links.iter().chain(&next.links).map(|link| link.segment.seq).collect();
    let behind = linked.last().map_or(0, |last| last + 1).max(row.part.saturating_mul(chain::PART));
    let behind: BTreeSet<u32> = seqs.iter().copied().filter(|seq| *seq >= behind).collect();
    if behind.len() <= FEW { behind } else { BTreeSet::new() }
}

/// Removes files of chains of which no segment is left. (O2)
pub(super) fn tidy(keeper: &Keeper, present: &Present) {
    let archive = &keeper.archive;
    let disk = archive.disk().as_ref();
    let Ok(lenses) = disk.read_dir(Path::new(FOLDER)) else { return };
    if archive.may_delete().is_err() {
        return;
    }
    for lens in lenses.iter().filter(|e| e.is_dir).filter_map(|e| LensId::new(&e.name).ok()) {
        let Ok(files) = disk.read_dir(&Path::new(FOLDER).join(lens.as_str())) else { continue };
        let mut parts: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for (run, part) in files.iter().filter_map(|e| chain::parse_name(&e.name)) {
            let in_work = run == archive.run().0 && present.part(&lens).is_none_or(|now| part >= now);
            if !in_work && run <= archive.run().0 {
                parts.entry(run).or_default().insert(part);
            }
        }
        for (run, mut gone) in parts {
            let left = match disk.read_dir(&SegmentId::run_dir(&lens, RunId(run))) {
                Ok(names) => names,
                Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
                Err(_) => continue,
            };
            for seq in left.iter().filter_map(|e| number(e.name.split('.').next()?)) {
                gone.remove(&part_of(seq));
            }
            for part in gone {
                // Best effort: a chain of nothing is small and harmless.
                let _ = disk.remove_file(&chain::path(&lens, RunId(run), part));
            }
        }
        // Refused while anything is in it.
        let _ = disk.remove_dir(&Path::new(FOLDER).join(lens.as_str()));
    }
}
