//! The thread that links what was closed, and the manifests of clips.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use mos_hal::media::LensId;
use mos_mp4::{ReadError, SegmentFile};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::EvidenceError;
use super::chain::{self, Link, Made, Tail};
use super::digest::{self, Hash, Name, Unit, blocks};
use super::key::{DeviceKey, said};
use super::ledger::Ledger;
use super::manifest::{self, Manifest, Signed};
use super::past::Past;
use super::present::Present;
use super::tidy::tidy;
use crate::alarms::{AlarmKind, Alarms};
use crate::archive::ids::{RunId, SegmentId};
use crate::archive::{Archive, ArchiveError, SegmentReader, SegmentState, Stored, lock};
use crate::clip::{ClipFailure, ClipId};

/// How often it looks for closed segments.
const EVERY: Duration = Duration::from_secs(2);
/// How often it looks for files of chains that nothing needs any more.
const TIDY_EVERY: Duration = Duration::from_hours(1);
/// How long it rests after looking at something old, in times of what that took: at most a fifth of a core and of the disk. What is
/// recorded now is linked meanwhile.
const GENTLY: u32 = 4;
/// Longest delay until a key that could not be used is tried again.
const KEY_DELAY: Duration = Duration::from_mins(1);
/// Most troubles that are told at a time.
const MOST_TROUBLES: usize = 8;
/// Enough for a segment's table and a piece of it.
const STACK_BYTES: usize = 1 << 20;

/// The service. Dropped, it ends its thread.
pub struct Evidence {
    keeper: Arc<Keeper>,
    thread: Option<std::thread::JoinHandle<()>>,
    turn: Arc<Semaphore>,
}

/// What was done so far; for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Segments that were linked by this run, old ones too.
    pub linked: u64,
    /// Those of them that earlier runs left.
    pub late: u64,
    /// Numbers of this run that did not close and were passed over.
    pub skipped: u64,
    /// Segments that were given up: they cannot be read, or their chain is harmed.
    pub given_up: u64,
}

/// What of a segment is attested: who it is, how it is shown, its units in blocks.
type Attested = (Name, Option<Hash>, Vec<Vec<Unit>>);

/// Why a segment was not linked.
#[derive(Debug)]
pub(super) enum Unlinked {
    /// It is read, and is none.
    Segment(String),
    /// The disk does not give it.
    Reading(String),
    /// The link cannot be written.
    Storage(String),
    /// The chain is shorter than what was written to it.
    Harmed(String),
}

impl fmt::Display for Unlinked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Segment(why) | Self::Reading(why) | Self::Storage(why) | Self::Harmed(why)) = self;
        f.write_str(why)
    }
}

pub(super) struct Keeper {
    pub(super) archive: Archive,
    key_file: PathBuf,
    key: OnceLock<DeviceKey>,
    alarms: Alarms,
    troubles: Mutex<BTreeMap<String, String>>,
    counts: Mutex<Counts>,
    stop: Mutex<bool>,
    wake: Condvar,
}

impl Evidence {
    /// Takes or makes the key and starts to link. What fails is an alarm, and tried again; recording knows nothing of it. (V1)
    #[must_use]
    pub fn start(archive: Archive, key_file: &Path, alarms: Alarms) -> Self {
        let keeper = Arc::new(Keeper {
            archive,
            key_file: key_file.to_owned(),
            key: OnceLock::new(),
            alarms,
            troubles: Mutex::default(),
            counts: Mutex::default(),
            stop: Mutex::new(false),
            wake: Condvar::new(),
        });
        let _ = keeper.take_key();
        let works = keeper.clone();
        let thread = std::thread::Builder::new().name("evidence".into()).stack_size(STACK_BYTES);
        let thread = thread.spawn(move || works.work());
        let thread = thread.map_err(|e| keeper.trouble("thread", Some(format!("no evidence is kept: {e}")))).ok();
        Self { keeper, thread, turn: Arc::new(Semaphore::new(1)) }
    }

    /// The public key; none while it cannot be used, which is an alarm.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        self.keeper.key.get().map(DeviceKey::public)
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *lock(&self.keeper.counts)
    }

    /// Resolves when no other manifest is being made: one takes memory and reads whole segments.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turn.clone().acquire_owned().await.ok()
    }

    /// The signed manifest of a clip. Reads the clip and the segments that it was cut from.
    pub fn manifest(&self, clip: ClipId) -> Result<Signed, ManifestFailure> {
        let keeper = &self.keeper;
        let Some(key) = keeper.key.get() else {
            let reason = "it could not be used so far; the alarm `evidence` tells why".to_owned();
            return Err(EvidenceError::Key { path: keeper.key_file.clone(), reason }.into());
        };
        let copies = crate::clip::copied(&keeper.archive, clip)?;
        if copies.is_empty() {
            return Err(EvidenceError::NoSources(clip.to_string()).into());
        }
        let mut proofs = Vec::new();
        for copied in &copies {
            if proofs.iter().all(|(id, _, _): &(String, _, _)| *id != copied.segment) {
                let (link, units) = keeper.proof(key, &copied.segment)?;
                proofs.push((copied.segment.clone(), link, units));
            }
        }
        let path = clip.path();
        let bad = |reason: std::io::Error| EvidenceError::File { path: path.clone(), reason: reason.to_string() };
        let file =
            keeper.archive.disk().open(&path, crate::archive::disk::OpenMode::Read).map_err(|e| match e.kind() {
                // It went to make room since it was asked for.
                std::io::ErrorKind::NotFound => ManifestFailure::Clip(ClipFailure::NoClip(clip.to_string())),
                _ => bad(e).into(),
            })?;
        let manifest = Manifest::new(&clip.to_string(), &Stored(file.as_ref()), &copies, proofs).map_err(bad)?;
        Ok(manifest::sign(manifest, key))
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
        let mut delay = EVERY;
        while self.key.get().is_none() {
            if self.rest(delay) {
                return;
            }
            delay = (delay * 2).min(KEY_DELAY);
            let _ = self.take_key();
        }
        let Some(key) = self.key.get() else { return };
        let Some(mut ledger) = self.ledger(key) else { return };
        let has_chains = self.archive.disk().read_dir(Path::new(chain::FOLDER)).is_ok_and(|lenses| !lenses.is_empty());
        if key.is_new() && has_chains {
            let (file, public) = (self.key_file.display(), key.public());
            let what = "was signed by another: keep the public key of that one for `mos verify --key`";
            self.trouble(
                "new key",
                Some(format!("a new key was made, {file} ({public}), and what was linked before {what}")),
            );
        }
        let (mut present, mut past) = (Present::default(), None);
        let mut tidied: Option<Instant> = None;
        let mut owed = Duration::ZERO;
        loop {
            // First what is recorded now; what is old never makes it wait for more than one segment or file of a chain.
            present.look(self, &mut ledger);
            if owed.is_zero() && self.archive.health().loaded {
                if tidied.is_none_or(|at| at.elapsed() >= TIDY_EVERY) {
                    tidy(self, &present);
                    tidied = Some(Instant::now());
                }
                let begun = Instant::now();
                let more = past.get_or_insert_with(|| Past::list(self)).step(self, &mut ledger);
                owed = if more { begun.elapsed().saturating_mul(GENTLY) } else { EVERY };
            }
            let rest = if owed.is_zero() { EVERY } else { owed.min(EVERY) };
            owed = owed.saturating_sub(rest);
            if self.rest(rest) {
                // What the stop closed.
                present.look(self, &mut ledger);
                return;
            }
        }
    }

    pub(super) fn key(&self) -> Option<&DeviceKey> {
        self.key.get()
    }

    /// What lies beside the key. What cannot be read is waited for, up to a minute: without it nothing is as a cut left it. None to end.
    fn ledger(&self, key: &DeviceKey) -> Option<Ledger> {
        let mut delay = EVERY;
        loop {
            let (ledger, trouble) = Ledger::load(&self.key_file, key);
            let unread = ledger.is_unread();
            self.trouble("ledger", trouble);
            if !unread || delay >= KEY_DELAY {
                return Some(ledger);
            }
            if self.rest(delay) {
                return None;
            }
            delay *= 2;
        }
    }

    fn take_key(&self) -> Option<&DeviceKey> {
        match DeviceKey::load(&self.key_file) {
            Ok(key) => {
                self.trouble("key", None);
                Some(self.key.get_or_init(|| key))
            }
            Err(e) => {
                self.trouble("key", Some(format!("no evidence is kept: {e}")));
                None
            }
        }
    }

    /// Waits for the next look; whether it is to end.
    fn rest(&self, time: Duration) -> bool {
        let stop = lock(&self.stop);
        let waited = self.wake.wait_timeout_while(stop, time, |stop| !*stop);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn stopped(&self) -> bool {
        *lock(&self.stop)
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut lock(&self.counts));
    }

    /// Notes what is wrong with something, or that nothing is any more.
    pub(super) fn trouble(&self, with: &str, what: Option<String>) {
        let mut troubles = lock(&self.troubles);
        match what {
            Some(what) => drop(troubles.insert(with.to_owned(), what)),
            None => drop(troubles.remove(with)),
        }
        let told: Vec<&str> = troubles.values().take(MOST_TROUBLES).map(String::as_str).collect();
        let message = (!told.is_empty()).then(|| format!("evidence: {}", told.join("; ")));
        self.alarms.set(AlarmKind::Evidence, message);
    }

    /// Tells that a chain is not as this recorder wrote it. Stays told until the next start.
    pub(super) fn harmed(&self, lens: &LensId, run: RunId, why: &str) {
        log::error!("{lens}: the chain of run {} is not as it was written: {why}", run.0);
        let what = format!("the chain of {lens}, run {}, is not as it was written: {why}", run.0);
        self.trouble(&format!("{lens} {}", run.0), Some(what));
    }

    /// Tells that a chain cannot be read now. Stays told until the next start.
    pub(super) fn unread(&self, lens: &LensId, run: RunId, why: &str) {
        log::error!("{lens}: the chain of run {} cannot be read: {why}", run.0);
        let what =
            format!("the chain of {lens}, run {}, cannot be read, is tried again at the next start: {why}", run.0);
        self.trouble(&format!("{lens} {} unread", run.0), Some(what));
    }

    /// Tells that a segment gets no link. Stays told until the next start.
    pub(super) fn given_up(&self, id: &SegmentId, why: &Unlinked) {
        log::error!("{id} gets no link: {why}");
        self.count(|counts| counts.given_up += 1);
        let what = format!("{id} gets no link ({} in all): {why}", lock(&self.counts).given_up);
        self.trouble("given up", Some(what));
    }

    /// Makes the ledger durable. Without it chains are as good, but what a cut leaves is told as old.
    pub(super) fn write(&self, ledger: &mut Ledger) {
        let Some(key) = self.key.get() else { return };
        let done = ledger.write(key);
        let told =
            |e: &std::io::Error| format!("{}: {}", Ledger::path(&self.key_file).display(), said(&self.key_file, e));
        self.trouble("ledger file", done.err().as_ref().map(told));
    }

    pub(super) fn is_closed(&self, id: &SegmentId) -> bool {
        let state = self.archive.lookup(id).map(|found| found.row.state);
        matches!(state, Ok(SegmentState::Closed | SegmentState::Recovered))
    }

    /// Links a segment.
    pub(super) fn link(&self, id: &SegmentId, tail: &mut Tail, made: Made) -> Result<(), Unlinked> {
        let Some(key) = self.key.get() else { return Err(Unlinked::Storage("there is no key".to_owned())) };
        let (name, shape, units) = self.units(id).map_err(|e| unread(&e))?;
        let shape = shape.ok_or_else(|| Unlinked::Segment("it is damaged: its close cannot be read".to_owned()))?;
        let digests = units.iter().map(|units| digest::block(units)).collect();
        let link = Link::new(name, shape, digests, (tail.head, made), key);
        chain::append(self.archive.disk().as_ref(), tail, &link).map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData => Unlinked::Harmed(e.to_string()),
            _ => Unlinked::Storage(e.to_string()),
        })?;
        self.count(|counts| counts.linked += 1);
        Ok(())
    }

    fn units(&self, id: &SegmentId) -> Result<Attested, ClipFailure> {
        let (reader, content): (SegmentReader, SegmentFile) = crate::clip::open_segment(&self.archive, id)?;
        let file = Stored(reader.file.as_ref());
        let read = blocks(&file, &content.movie).and_then(|blocks| Ok((digest::shape(&file, &content)?, blocks)));
        let path = id.media_path();
        let (shape, blocks) = read.map_err(|source| ArchiveError::Io { what: "read", path, source })?;
        Ok((Name::of(&content.identity), shape, blocks))
    }

    /// The link of a segment with its units, which are those of the link.
    fn proof(&self, key: &DeviceKey, segment: &str) -> Result<(Link, Vec<Vec<Unit>>), EvidenceError> {
        let gone = |why: String| EvidenceError::Gone(segment.to_owned(), why);
        let id: SegmentId = segment.parse().map_err(|_| gone("it has no id".to_owned()))?;
        let path = chain::path(&id.lens, id.run, chain::part_of(id.seq.0));
        let found = chain::find(self.archive.disk().as_ref(), &id);
        let found = found.map_err(|e| EvidenceError::File { path, reason: e.to_string() })?;
        let link = found.ok_or_else(|| EvidenceError::NotYet(segment.to_owned()))?;
        if link.key != key.public() {
            return Err(EvidenceError::OtherKey(segment.to_owned(), link.key));
        }
        let (name, shape, units) = self.units(&id).map_err(|e| match unread(&e) {
            Unlinked::Storage(reason) | Unlinked::Reading(reason) => {
                EvidenceError::File { path: id.media_path(), reason }
            }
            Unlinked::Segment(why) | Unlinked::Harmed(why) => gone(why),
        })?;
        let same =
            units.len() == link.blocks.len() && units.iter().zip(&link.blocks).all(|(u, b)| digest::block(u) == *b);
        if name != link.segment || shape != Some(link.shape) || !same {
            return Err(gone("it is not as it was when it was linked; `mos verify` tells where".to_owned()));
        }
        Ok((link, units))
    }
}

/// Whose fault it is that a segment was not read.
fn unread(failure: &ClipFailure) -> Unlinked {
    let error = match failure {
        ClipFailure::Archive(ArchiveError::Io { source, .. })
        | ClipFailure::Unreadable { error: ReadError::Io { source, .. }, .. } => source,
        other => return Unlinked::Segment(other.to_string()),
    };
    let why = failure.to_string();
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Unlinked::Storage(why),
        Some(errno) if errno != libc::ENOENT => Unlinked::Reading(why),
        _ => Unlinked::Segment(why),
    }
}
