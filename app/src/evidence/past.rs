//! Looking through the chains of earlier runs, and linking what they left without a link, one segment or file at a time.
//!
//! Promises: (V2) what a power cut left is linked as `later`: the few behind the last link of a chain that is as the ledger says.
//! Everything else is `old`, which attests nothing of the time before. (O1) A chain in which something is wrong is not written
//! to. (O3) At every start every file of every chain is compared with the one before it, and the last one with the ledger; what
//! does not fit is told. (O4) What cannot be read or written now is told, and a run of which that is so is not done with: the next
//! start looks at it as this one did, so that what a cut left is not `old` because of it, and nothing is less guarded than before.
//! (O5) Nor is a run that was told as harmed: whoever takes more of it is told as well.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;

use mos_hal::media::LensId;

use super::chain::{self, Chain, Made, Tail, part_of};
use super::joints::{self, Break, Gone, step_back};
use super::keeper::{Keeper, Unlinked};
use super::key::DeviceKey;
use super::ledger::{Ledger, Row};
use crate::archive::ids::{RunId, SegmentId, Seq, number};

/// Most segments that a power cut can leave without a link: closed since the last look, closing, and open, of one second each.
const FEW: usize = 8;

/// What is still to be looked through, the latest runs first.
pub(super) struct Past {
    runs: VecDeque<(LensId, RunId)>,
    now: Option<Left>,
    /// The runs that there are, if all folders could be listed.
    all: Option<BTreeSet<(LensId, u32)>>,
}

/// What a run left, which is looked through.
struct Left {
    lens: LensId,
    run: RunId,
    seqs: VecDeque<u32>,
    /// What a cut left.
    later: BTreeSet<u32>,
    /// The file of the chain that is at hand.
    part: Option<Part>,
    /// Its number, though it could not be read.
    at: Option<u32>,
    /// What the chain holds so far.
    row: Option<Row>,
    /// The disk did not give or take all of it. (O4)
    failed: bool,
    /// It does not hold what the ledger says, or the end of a file of it cannot be read. (O5)
    harmed: bool,
}

/// A file of a chain.
struct Part {
    chain: Chain,
    linked: BTreeSet<u32>,
    /// Where the next link goes if it may be written to.
    tail: Option<Tail>,
}

impl Past {
    pub(super) fn list(keeper: &Keeper) -> Self {
        let (mut runs, mut all) = (Vec::new(), true);
        let lenses = keeper.archive.lens_folders().inspect_err(|e| log::warn!("no old links are made: {e}"));
        all &= lenses.is_ok();
        for lens in lenses.unwrap_or_default() {
            let folder = Path::new("segments").join(lens.as_str());
            let names = keeper.archive.disk().read_dir(&folder);
            all &= names.is_ok();
            let names = names.inspect_err(|e| log::warn!("no old links are made of {lens}: {e}")).unwrap_or_default();
            let past = names.iter().filter(|e| e.is_dir).filter_map(|e| number(&e.name));
            runs.extend(past.filter(|run| *run < keeper.archive.run().0).map(|run| (lens.clone(), RunId(run))));
        }
        runs.sort_by_key(|(_, run)| std::cmp::Reverse(*run));
        for path in chain::older(keeper.archive.disk().as_ref()).unwrap_or_default() {
            log::warn!("{} is a chain of an older form: what it links is linked anew, as late", path.display());
        }
        let all = all.then(|| runs.iter().map(|(lens, run)| (lens.clone(), run.0)).collect());
        Self { runs: runs.into(), now: None, all }
    }

    /// Links the next segment, or reads the next file of a chain; whether there may be more.
    pub(super) fn step(&mut self, keeper: &Keeper, ledger: &mut Ledger) -> bool {
        if self.now.is_none() {
            let Some((lens, run)) = self.runs.pop_front() else {
                if let Some(all) = self.all.take() {
                    let present = keeper.archive.run().0;
                    let is_there = |row: &Row| {
                        row.run == present || LensId::new(&row.lens).is_ok_and(|lens| all.contains(&(lens, row.run)))
                    };
                    ledger.forget(|row| !is_there(row));
                    keeper.write(ledger);
                }
                return false;
            };
            self.now = Left::begin(keeper, ledger, lens, run);
        }
        let Some(now) = &mut self.now else { return true };
        if !now.step(keeper) {
            if !now.failed {
                ledger.looked_through(now.lens.as_str(), now.run.0, now.row.take(), now.harmed);
                keeper.write(ledger);
            }
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
        let later = later.inspect_err(|e| keeper.unread(&lens, run, &e.to_string())).ok()?;
        let (harmed, later) = (later.is_none(), later.unwrap_or_default());
        Some(Self { lens, run, seqs: seqs.into(), later, part: None, at: None, row: None, failed: false, harmed })
    }

    /// Links its next segment without a link, or reads the next file; whether there was one.
    fn step(&mut self, keeper: &Keeper) -> bool {
        while let Some(seq) = self.seqs.front().copied() {
            if keeper.stopped() {
                return true;
            }
            let part = part_of(seq);
            if self.at != Some(part) {
                self.part = self.open(keeper, part);
                (self.at, self.row) = (Some(part), self.held().or(self.row.take()));
                return true;
            }
            self.seqs.pop_front();
            let id = SegmentId { lens: self.lens.clone(), run: self.run, seq: Seq(seq) };
            let Some(Part { linked, tail: Some(tail), .. }) = &mut self.part else { continue };
            if linked.contains(&seq) || !keeper.is_closed(&id) {
                continue;
            }
            let made = if self.later.contains(&seq) { Made::Later } else { Made::Old };
            match keeper.link(&id, tail, made) {
                Ok(()) => keeper.count(|counts| counts.late += 1),
                Err(why) => {
                    keeper.given_up(&id, &why);
                    if matches!(why, Unlinked::Reading(_) | Unlinked::Storage(_)) {
                        self.failed = true;
                        if made == Made::Later {
                            // Those behind a later link only are of the cut at the next start.
                            self.seqs.clear();
                        }
                    }
                }
            }
            self.row = self.held().or(self.row.take());
            return true;
        }
        false
    }

    /// What the file at hand holds.
    fn held(&self) -> Option<Row> {
        let tail = self.part.as_ref()?.tail.as_ref().filter(|tail| tail.links > 0)?;
        Some(Row::new(self.lens.as_str(), self.run.0, tail))
    }

    /// A file of the chain. (O1, O3, O4)
    fn open(&mut self, keeper: &Keeper, part: u32) -> Option<Part> {
        let read = self.read(keeper, part);
        if let Err(e) = &read {
            let path = chain::path(&self.lens, self.run, part);
            keeper.unread(&self.lens, self.run, &format!("{}: {e}", path.display()));
            self.failed = true;
        }
        let read = read.ok().flatten();
        self.harmed |= read.as_ref().is_some_and(|part| part.tail.is_none());
        read
    }

    fn read(&self, keeper: &Keeper, part: u32) -> std::io::Result<Option<Part>> {
        let (lens, run) = (&self.lens, self.run);
        let Some(own) = keeper.key().map(DeviceKey::public) else { return Ok(None) };
        let disk = keeper.archive.disk().as_ref();
        let chain = chain::load(disk, lens, run, part)?;
        // Who signed a link vouches for what was before it: this recorder may have another key by now.
        let gone = Gone::load(disk, lens, run, chain.links.first().map_or(&own, |link| &link.key))?;
        let begin = match chain.links.first() {
            None => joints::beginning(disk, lens, run, part, &gone)?,
            Some(link) => link.before,
        };
        if !chain.links.is_empty() {
            let known = |before| self.part.as_ref().filter(|_| self.at == Some(before)).map(|part| part.chain.clone());
            let parts = |before| known(before).map_or_else(|| chain::load(disk, lens, run, before), Ok);
            match step_back((lens.as_str(), run.0), part, begin, &gone, parts) {
                Err(Break::Unread(why)) => return Err(std::io::Error::other(why)),
                Err(why) => keeper.harmed(lens, run, &why.to_string()),
                Ok(_) => {}
            }
        }
        let tail = chain.tail(part, begin);
        if let (None, Some((line, why))) = (&tail, chain.broken) {
            keeper.harmed(lens, run, &format!("line {line} of {}: {why}", chain::path(lens, run, part).display()));
        }
        let linked = chain.links.iter().map(|link| link.segment.seq).collect();
        Ok(Some(Part { chain, linked, tail }))
    }
}

/// Which of these segments a power cut left without a link; none if the chain does not hold what the ledger says, which is told. (V2)
fn later(
    keeper: &Keeper,
    ledger: &Ledger,
    (lens, run): (&LensId, RunId),
    seqs: &[u32],
) -> std::io::Result<Option<BTreeSet<u32>>> {
    let (now, past) = (ledger.row(lens.as_str(), run.0), ledger.past_row(lens.as_str(), run.0));
    let Some(row) = now.or(past) else { return Ok(Some(BTreeSet::new())) };
    let disk = keeper.archive.disk().as_ref();
    let chain = chain::load(disk, lens, run, row.part)?;
    let next = chain::load(disk, lens, run, row.part.saturating_add(1))?;
    let holds = row.agrees(&chain)
        || chain == Chain::default()
            && match keeper.key() {
                Some(key) => Gone::load(disk, lens, run, &key.public())?.vouches(row.part, row.head),
                None => false,
            };
    if !holds {
        let found = chain.links.len();
        let why = format!("{found} of at least {} links are left in {}-{}", row.links, run.0, row.part);
        keeper.harmed(lens, run, &format!("it was shortened or replaced: {why}"));
        return Ok(None);
    }
    if row.links == 0 && chain.links.is_empty() {
        // Nothing of this part was linked yet: the row tells of the part before.
        let own = keeper.key().map(DeviceKey::public).unwrap_or_default();
        let gone = Gone::load(disk, lens, run, &own)?;
        let read = |part| chain::load(disk, lens, run, part);
        match step_back((lens.as_str(), run.0), row.part, row.head, &gone, read) {
            Ok(_) => {}
            Err(Break::Unread(why)) => return Err(std::io::Error::other(why)),
            Err(why) => {
                keeper.harmed(lens, run, &format!("it was shortened or replaced: {why}"));
                return Ok(None);
            }
        }
    }
    if now.is_none() {
        // What it left was linked.
        return Ok(Some(BTreeSet::new()));
    }
    let linked: BTreeSet<u32> = chain.links.iter().chain(&next.links).map(|link| link.segment.seq).collect();
    let behind = linked.last().map_or(0, |last| last + 1).max(row.part.saturating_mul(chain::PART));
    let behind: BTreeSet<u32> = seqs.iter().copied().filter(|seq| *seq >= behind).collect();
    Ok(Some(if behind.len() <= FEW { behind } else { BTreeSet::new() }))
}
