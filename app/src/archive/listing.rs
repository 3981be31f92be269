//! Reading the folders of past runs: which segments, protections, gaps and mappings are there, without opening media.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mos_hal::media::LensId;

use super::clock_file::{self, RunClock};
use super::disk::{DirEntry, Disk};
use super::error::{ArchiveError, at};
use super::gaps::{self, GapCause, GapFile, GapRecord};
use super::ids::{RunId, SegmentId, Seq, number};
use super::recover::{Glance, glance};
use super::run::read_whole;

/// So many segments are looked at that files beside them are named after, to tell the version of a run.
const NAMED: usize = 8;

/// What lies in one `segments/{lens}/{run}`.
pub(crate) struct RunDir {
    pub(crate) lens: LensId,
    pub(crate) run: RunId,
    pub(crate) path: PathBuf,
    /// Numbers that have a media file, ascending.
    pub(crate) seqs: Vec<Seq>,
    pub(crate) keeps: BTreeSet<Seq>,
    pub(crate) gaps: GapFile,
    pub(crate) clock: Option<RunClock>,
    /// Temporary files of an earlier life.
    pub(crate) leftovers: Vec<PathBuf>,
}

/// All past runs of all lenses.
#[derive(Default)]
pub(crate) struct Listing {
    pub(crate) dirs: Vec<RunDir>,
    /// Files and folders that are not ours.
    pub(crate) strangers: Vec<PathBuf>,
    /// State that cannot be read: nothing is to be deleted.
    pub(crate) damage: Vec<String>,
}

impl RunDir {
    pub(crate) fn id(&self, seq: Seq) -> SegmentId {
        SegmentId { lens: self.lens.clone(), run: self.run, seq }
    }

    /// Numbers whose removal was decided.
    pub(crate) fn decided(&self) -> BTreeSet<Seq> {
        let gone = |r: &GapRecord| match r {
            GapRecord::Gap { gap, seq: Some(seq) } if matches!(gap.cause, GapCause::Removed | GapCause::Retention) => {
                Some(*seq)
            }
            _ => None,
        };
        self.gaps.records.iter().filter_map(gone).collect()
    }

    /// Numbers that recovery closed.
    pub(crate) fn recovered(&self) -> BTreeSet<Seq> {
        let seq = |r: &GapRecord| if let GapRecord::Recovered { seq } = r { Some(*seq) } else { None };
        self.gaps.records.iter().filter_map(seq).collect()
    }
}

/// Lists everything but the present run.
pub(crate) fn list(disk: &dyn Disk, present: Option<RunId>) -> Result<Listing, ArchiveError> {
    let mut listing = Listing::default();
    let segments = Path::new("segments");
    for entry in disk.read_dir(segments).map_err(at("list", segments))? {
        let path = segments.join(&entry.name);
        match LensId::new(&entry.name) {
            Ok(lens) if entry.is_dir => listing.lens(disk, &lens, &path, present)?,
            _ => listing.strangers.push(path),
        }
    }
    listing.dirs.sort_by(|a, b| (a.run, &a.lens).cmp(&(b.run, &b.lens)));
    listing.strangers.sort();
    Ok(listing)
}

impl Listing {
    /// Takes out of the strangers those in run folders with a segment of a newer version: it knows them.
    pub(crate) fn leave_to_newer(&mut self, disk: &dyn Disk) -> Vec<PathBuf> {
        let mut beside: BTreeMap<&Path, Vec<Seq>> = BTreeMap::new();
        for path in &self.strangers {
            let Some(parent) = path.parent() else { continue };
            let named = path.file_name().and_then(|name| number(name.to_str()?.split('.').next()?)).map(Seq);
            let seqs = beside.entry(parent).or_default();
            seqs.extend(named.filter(|_| seqs.len() < NAMED));
        }
        // A run is of one version: a few of its segments tell which.
        let is_newer = |dir: &&RunDir| {
            let named = beside.get(dir.path.as_path()).into_iter().flatten();
            let known = named.filter(|seq| dir.seqs.binary_search(seq).is_ok());
            let mut seqs = dir.seqs.last().into_iter().chain(dir.seqs.first()).chain(known);
            seqs.any(|seq| matches!(glance(disk, &dir.id(*seq)), Ok(Glance::Newer(..))))
        };
        let beside = self.dirs.iter().filter(|dir| beside.contains_key(dir.path.as_path()));
        let newer: BTreeSet<PathBuf> = beside.filter(is_newer).map(|dir| dir.path.clone()).collect();
        self.strangers.extract_if(.., |path| path.parent().is_some_and(|dir| newer.contains(dir))).collect()
    }

    fn lens(&mut self, disk: &dyn Disk, lens: &LensId, dir: &Path, present: Option<RunId>) -> Result<(), ArchiveError> {
        for entry in disk.read_dir(dir).map_err(at("list", dir))? {
            let path = dir.join(&entry.name);
            match number(&entry.name).map(RunId) {
                Some(run) if Some(run) == present => {}
                Some(run) if entry.is_dir => self.run(disk, lens, run, path)?,
                _ => self.strangers.push(path),
            }
        }
        Ok(())
    }

    fn run(&mut self, disk: &dyn Disk, lens: &LensId, run: RunId, path: PathBuf) -> Result<(), ArchiveError> {
        let mut found = RunDir {
            lens: lens.clone(),
            run,
            seqs: Vec::new(),
            keeps: BTreeSet::new(),
            gaps: GapFile::default(),
            clock: None,
            leftovers: Vec::new(),
            path,
        };
        for entry in disk.read_dir(&found.path).map_err(at("list", &found.path))? {
            self.name(disk, &mut found, &entry);
        }
        found.seqs.sort_unstable();
        self.dirs.push(found);
        Ok(())
    }

    fn name(&mut self, disk: &dyn Disk, dir: &mut RunDir, entry: &DirEntry) {
        let path = dir.path.join(&entry.name);
        let (stem, ending) = entry.name.split_once('.').unwrap_or((&entry.name, ""));
        match (stem, ending, number(stem)) {
            _ if entry.is_dir => self.strangers.push(path),
            (_, "mp4", Some(seq)) => dir.seqs.push(Seq(seq)),
            (_, "keep", Some(seq)) => _ = dir.keeps.insert(Seq(seq)),
            (_, "keep.tmp", Some(_)) | ("clock" | "gaps", "tmp", _) => dir.leftovers.push(path),
            ("gaps", "jsonl", _) => match read_whole(disk, &path) {
                Ok(bytes) => {
                    dir.gaps = gaps::parse(&bytes);
                    if let Some(at) = dir.gaps.damage {
                        self.damage.push(format!("{} is damaged at byte {at}", path.display()));
                    }
                }
                Err(error) => self.damage.push(format!("{} cannot be read: {error}", path.display())),
            },
            ("clock", "", _) if entry.name == clock_file::FILE_NAME => match read_whole(disk, &path) {
                Ok(bytes) => {
                    dir.clock = RunClock::from_text(&bytes).filter(|c| c.run == dir.run);
                    if dir.clock.is_none() {
                        self.damage.push(format!("{} is damaged", path.display()));
                    }
                }
                Err(error) => self.damage.push(format!("{} cannot be read: {error}", path.display())),
            },
            _ => self.strangers.push(path),
        }
    }
}
