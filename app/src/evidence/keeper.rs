//! The thread that links what was closed, and the manifests of clips.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use mos_hal::media::LensId;
use mos_mp4::SegmentFile;

use super::chain::{self, Link, Made, Tail};
use super::digest::{self, Name, Unit, blocks};
use super::key::DeviceKey;
use super::manifest::{self, Manifest, Signed};
use super::{EvidenceError, chain::FOLDER};
use crate::archive::ids::{RunId, SegmentId, Seq, number};
use crate::archive::{Archive, ArchiveError, SegmentReader, SegmentState, Stored, lock};
use crate::clip::{ClipFailure, ClipId};

/// How often it looks for closed segments.
const EVERY: Duration = Duration::from_secs(2);
/// How many segments after one that does not close may be closed before that one is given up; a later start links it.
const PATIENCE: u32 = 4;
/// Enough for a segment's table and a piece of it.
const STACK_BYTES: usize = 1 << 20;

/// The service. Dropped, it ends its thread.
pub struct Evidence {
    keeper: Arc<Keeper>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Keeper {
    archive: Archive,
    key: DeviceKey,
    stop: Mutex<bool>,
    wake: Condvar,
}

/// Lens and run in progress.
type Present = HashMap<LensId, (u32, Option<Tail>)>;

impl Evidence {
    /// Takes or makes the key and starts to link.
    pub fn start(archive: Archive, key_file: &Path) -> Result<Self, EvidenceError> {
        let key = DeviceKey::load(key_file)?;
        let keeper = Arc::new(Keeper { archive, key, stop: Mutex::new(false), wake: Condvar::new() });
        let works = keeper.clone();
        let thread = std::thread::Builder::new().name("evidence".into()).stack_size(STACK_BYTES);
        let thread = thread.spawn(move || works.work());
        let fail = |e: std::io::Error| EvidenceError::File { path: key_file.to_owned(), reason: e.to_string() };
        Ok(Self { keeper, thread: Some(thread.map_err(fail)?) })
    }

    /// The public key.
    #[must_use]
    pub fn key(&self) -> String {
        self.keeper.key.public()
    }

    /// The signed manifest of a clip. Reads the clip and the segments that it was cut from.
    pub fn manifest(&self, clip: ClipId) -> Result<Signed, ManifestFailure> {
        let keeper = &self.keeper;
        let copies = crate::clip::copied(&keeper.archive, clip)?;
        if copies.is_empty() {
            return Err(EvidenceError::NoSources(clip.to_string()).into());
        }
        let mut proofs = Vec::new();
        for copied in &copies {
            if proofs.iter().all(|(id, _, _): &(String, _, _)| *id != copied.segment) {
                let (link, units) = keeper.proof(&copied.segment)?;
                proofs.push((copied.segment.clone(), link, units));
            }
        }
        let path = clip.path();
        let bad = |reason: std::io::Error| EvidenceError::File { path: path.clone(), reason: reason.to_string() };
        let file = keeper.archive.disk().open(&path, crate::archive::disk::OpenMode::Read).map_err(bad)?;
        let manifest = Manifest::new(&clip.to_string(), &Stored(file.as_ref()), &copies, proofs).map_err(bad)?;
        Ok(manifest::sign(manifest, &keeper.key))
    }
}

impl Drop for Evidence {
    fn drop(&mut self) {
        *lock(&self.keeper.stop) = true;
        self.keeper.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestFailure {
    /// The clip.
    #[error(transparent)]
    Clip(#[from] ClipFailure),
    /// Its evidence.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}

impl Keeper {
    fn work(&self) {
        while !self.archive.health().loaded {
            if self.rest() {
                return;
            }
        }
        self.past();
        let mut present = Present::new();
        while !self.stopped() {
            self.present(&mut present);
            if self.rest() {
                // What the stop closed.
                self.present(&mut present);
                return;
            }
        }
    }

    /// Waits for the next look; whether it is to end.
    fn rest(&self) -> bool {
        let stop = lock(&self.stop);
        let waited = self.wake.wait_timeout_while(stop, EVERY, |stop| !*stop);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn stopped(&self) -> bool {
        *lock(&self.stop)
    }

    /// Links what earlier runs left without a link, and forgets chains of runs of which nothing is left. (V2)
    fn past(&self) {
        let disk = self.archive.disk().as_ref();
        for lens in self.archive.lens_folders().unwrap_or_default() {
            let folder = Path::new("segments").join(lens.as_str());
            let names = disk.read_dir(&folder).unwrap_or_default();
            let mut runs: Vec<u32> = names.iter().filter(|e| e.is_dir).filter_map(|e| number(&e.name)).collect();
            runs.sort_unstable();
            for chain in disk.read_dir(&Path::new(FOLDER).join(lens.as_str())).unwrap_or_default() {
                let run = chain.name.strip_suffix(".jsonl").and_then(number);
                if let Some(run) = run.filter(|run| !runs.contains(run) && *run < self.archive.run().0) {
                    // Best effort: a chain of nothing is small and harmless.
                    let _ = disk.remove_file(&chain::path(&lens, RunId(run)));
                }
            }
            for run in runs.into_iter().filter(|run| *run < self.archive.run().0) {
                self.past_run(&lens, RunId(run));
            }
        }
    }

    fn past_run(&self, lens: &LensId, run: RunId) {
        let disk = self.archive.disk().as_ref();
        let chain = match chain::load(disk, lens, run) {
            Ok(chain) => chain,
            Err(e) => return log::warn!("{lens}: the chain of run {} cannot be read: {e}", run.0),
        };
        let Some(mut tail) = chain.tail(lens.as_str(), run.0) else {
            return log::error!("{lens}: the chain of run {} is broken: {:?}", run.0, chain.broken);
        };
        let names = disk.read_dir(&SegmentId::run_dir(lens, run)).unwrap_or_default();
        let mut there: Vec<u32> = names.iter().filter_map(|e| e.name.strip_suffix(".mp4")).filter_map(number).collect();
        there.retain(|seq| chain.of(*seq).is_none());
        there.sort_unstable();
        for seq in there {
            if self.stopped() {
                return;
            }
            let id = SegmentId { lens: lens.clone(), run, seq: Seq(seq) };
            if self.is_closed(&id) {
                self.link(&id, &mut tail, Made::Later);
            }
        }
    }

    /// Links what was closed since the last look.
    fn present(&self, present: &mut Present) {
        let run = self.archive.run();
        for lens in self.archive.lens_folders().unwrap_or_default() {
            let disk = self.archive.disk().as_ref();
            let (next, tail) = present.entry(lens.clone()).or_insert_with(|| {
                let chain = chain::load(disk, &lens, run).unwrap_or_default();
                (0, chain.tail(lens.as_str(), run.0))
            });
            let Some(tail) = tail else { continue };
            let id = |seq: u32| SegmentId { lens: lens.clone(), run, seq: Seq(seq) };
            loop {
                if self.is_closed(&id(*next)) {
                    if !self.link(&id(*next), tail, Made::Closed) {
                        break;
                    }
                } else if !(1..=PATIENCE).all(|more| self.is_closed(&id(next.saturating_add(more)))) {
                    break;
                }
                *next += 1;
            }
        }
    }

    fn is_closed(&self, id: &SegmentId) -> bool {
        let state = self.archive.lookup(id).map(|found| found.row.state);
        matches!(state, Ok(SegmentState::Closed | SegmentState::Recovered))
    }

    /// Links a segment; what hinders it is told and tried again.
    fn link(&self, id: &SegmentId, tail: &mut Tail, made: Made) -> bool {
        let linked = self.units(id).map_err(|e| e.to_string()).and_then(|(name, blocks)| {
            let digests = blocks.iter().map(|units| digest::block(units)).collect();
            let link = Link::new(name, digests, tail.head, made, &self.key);
            chain::append(self.archive.disk().as_ref(), tail, &link).map_err(|e| e.to_string())
        });
        linked.inspect_err(|why| log::warn!("{id} is not linked to its chain: {why}")).is_ok()
    }

    fn units(&self, id: &SegmentId) -> Result<(Name, Vec<Vec<Unit>>), ClipFailure> {
        let (reader, content): (SegmentReader, SegmentFile) = crate::clip::open_segment(&self.archive, id)?;
        let read = blocks(&Stored(reader.file.as_ref()), &content.movie);
        let path = id.media_path();
        let read = read.map_err(|source| ArchiveError::Io { what: "read", path, source })?;
        Ok((Name::of(&content.identity), read))
    }

    /// The link of a segment with its units, which are those of the link.
    fn proof(&self, segment: &str) -> Result<(Link, Vec<Vec<Unit>>), EvidenceError> {
        let gone = |why: String| EvidenceError::Gone(segment.to_owned(), why);
        let id: SegmentId = segment.parse().map_err(|_| gone("it has no id".to_owned()))?;
        let chain = chain::load(self.archive.disk().as_ref(), &id.lens, id.run).map_err(|e| gone(e.to_string()))?;
        let link = chain.of(id.seq.0).cloned().ok_or_else(|| EvidenceError::NotYet(segment.to_owned()))?;
        let (name, units) = self.units(&id).map_err(|e| gone(e.to_string()))?;
        let same =
            units.len() == link.blocks.len() && units.iter().zip(&link.blocks).all(|(u, b)| digest::block(u) == *b);
        if name != link.segment || !same {
            return Err(gone("it is not as it was when it was linked; `mos verify` tells where".to_owned()));
        }
        Ok((link, units))
    }
}
