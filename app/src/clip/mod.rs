//! ExtractClip: an MP4 in `clips/`, copied out of one segment or of several of one lens, never decoded.
//!
//! Promises:
//! - E1: shown are exactly the frames asked for ([`Edges::Exact`]) or the whole groups of pictures they lie in
//!   ([`Edges::Gop`]); what is copied beyond that stays in the file, and the reply says so.
//! - E2: a clip is durable and complete under its name when it is answered; a cut that failed leaves nothing under it.
//! - E3: the sources stay while they are copied; open segments are read up to their last durable fragment.
//! - E4: a clip describes itself: what [`Clips::get`] tells is read from the file, also after a restart.
//!
//! Anybody may call it, from a thread that may block. It never touches the segments.

mod error;
mod note;
mod sources;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use mos_hal::clock::UtcMicros;
use mos_hal::media::LensId;
use mos_mp4::{ClipPlan, Span};

pub use self::error::ClipFailure;
pub use self::note::Copied;
use self::note::Note;
use self::sources::Sources;
pub(crate) use self::sources::open as open_segment;
use crate::archive::disk::{DiskFile, OpenMode};
use crate::archive::error::at;
use crate::archive::ids::{RunId, SegmentId, number};
use crate::archive::{Archive, ArchiveError, GapRow, Window};

pub use mos_mp4::Edges;

/// Where clips lie, relative to the archive's root.
const FOLDER: &str = "clips";

/// Says what a viewer of the file might not expect.
pub const PAYLOAD_NOTE: &str = "footage outside the shown span remains in the file; a player that ignores edit lists \
                                shows it";

/// A clip's name: the run that cut it and a number within that run. Never reused, independent of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClipId {
    /// The run.
    pub run: RunId,
    /// The number within it, from 1.
    pub number: u32,
}

impl ClipId {
    /// Parses `clip-{run}-{number}`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (run, n) = text.strip_prefix("clip-")?.split_once('-')?;
        Some(Self { run: RunId(number(run)?), number: number(n)? })
    }

    /// The file, relative to the archive's root.
    #[must_use]
    pub fn path(self) -> PathBuf {
        Path::new(FOLDER).join(format!("{self}.mp4"))
    }

    /// Its name while it is being written; see [`is_unfinished`].
    fn unfinished(self) -> PathBuf {
        Path::new(FOLDER).join(format!(".{self}.mp4.part"))
    }
}

impl fmt::Display for ClipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "clip-{}-{}", self.run.0, self.number)
    }
}

/// A clip that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clip {
    /// Its id.
    pub id: ClipId,
    /// The lens.
    pub lens: LensId,
    /// The file, relative to the archive's root.
    pub path: PathBuf,
    /// Bytes of the file.
    pub bytes: u64,
    /// Which frames of the outer groups of pictures are shown.
    pub edges: Edges,
    /// Number of pictures that are shown.
    pub frames: u32,
    /// What was asked for.
    pub asked: Window,
    /// What a player shows.
    pub shown: Window,
    /// What the file holds.
    pub payload: Window,
    /// Gaps within what was asked for, cut to it.
    pub gaps: Vec<GapRow>,
}

impl Clip {
    /// [`PAYLOAD_NOTE`] if the file holds pictures that it does not show.
    #[must_use]
    pub fn note(&self) -> Option<&'static str> {
        (self.payload != self.shown).then_some(PAYLOAD_NOTE)
    }
}

/// What a clip tells about itself, by its id.
pub(crate) fn described(archive: &Archive, id: &str) -> Result<Clip, ClipFailure> {
    let absent = || ClipFailure::NoClip(id.to_owned());
    let clip_id = ClipId::parse(id).ok_or_else(absent)?;
    let path = clip_id.path();
    let file = match archive.disk().open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(absent()),
        Err(e) => return Err(at("open", &path)(e).into()),
    };
    let note = Note::read(file.as_ref()).map_err(at("read", &path))?.ok_or_else(absent)?;
    let bytes = file.len().map_err(at("read", &path))?;
    note.into_clip(clip_id, bytes).ok_or_else(absent)
}

/// What a clip was copied from, as it says itself.
pub(crate) fn copied(archive: &Archive, id: ClipId) -> Result<Vec<Copied>, ClipFailure> {
    let path = id.path();
    let file = archive.disk().open(&path, OpenMode::Read).map_err(at("open", &path))?;
    let note = Note::read(file.as_ref()).map_err(at("read", &path))?;
    Ok(note.map(|note| note.copies().to_vec()).unwrap_or_default())
}

/// The service.
pub struct Clips {
    archive: Archive,
    next: AtomicU32,
    with_sources: bool,
}

impl Clips {
    /// The service over `archive`. Removes what an earlier run did not finish.
    #[must_use]
    pub fn new(archive: Archive) -> Self {
        if let Err(error) = archive.sweep(Path::new(FOLDER), is_unfinished) {
            log::warn!("cannot remove unfinished clips: {error}");
        }
        Self { archive, next: AtomicU32::new(1), with_sources: false }
    }

    /// The same, which notes in each clip what it was copied from: a manifest needs it.
    #[must_use]
    pub fn with_sources(mut self, with_sources: bool) -> Self {
        self.with_sources = with_sources;
        self
    }

    /// Cuts a segment from `from` to `to` seconds after its start.
    pub fn by_segment(&self, id: &SegmentId, from: f64, to: f64, edges: Edges) -> Result<Clip, ClipFailure> {
        let segment = self.archive.lookup(id)?;
        let length = segment.row.end.since(segment.row.start);
        let (from, to) = (nanos(from)?, nanos(to)?);
        if from >= to || from >= length {
            let length = length as f64 / 1e9;
            return Err(ClipFailure::BadRange(format!(
                "{id} is {length:.3} s long; give a start before that and an end after the start"
            )));
        }
        let sources = Sources::one(&self.archive, id)?;
        let start = sources.start_of_first();
        self.cut(&id.lens, &sources, Span { from: start + from, to: start + to }, edges)
    }

    /// Cuts what a lens recorded in a window of UTC.
    pub fn by_lens(&self, lens: &LensId, window: Window, edges: Edges) -> Result<Clip, ClipFailure> {
        let (from, to) = (utc_nanos(window.from)?, utc_nanos(window.to)?);
        if from >= to {
            return Err(ClipFailure::BadRange("the end must be after the start".to_owned()));
        }
        let sources = Sources::overlapping(&self.archive, lens, window)?;
        self.cut(lens, &sources, Span { from, to }, edges)
    }

    /// A clip that was cut, in this run or an earlier one.
    pub fn get(&self, id: &str) -> Result<Clip, ClipFailure> {
        described(&self.archive, id)
    }

    fn cut(&self, lens: &LensId, sources: &Sources, asked: Span, edges: Edges) -> Result<Clip, ClipFailure> {
        let plan = mos_mp4::clip::plan(&sources.for_plan(), asked, edges).map_err(ClipFailure::from_plan)?;
        let id = ClipId { run: self.archive.run(), number: self.next.fetch_add(1, Ordering::Relaxed) };
        let asked = window(asked);
        let mut clip = Clip {
            id,
            lens: lens.clone(),
            path: id.path(),
            bytes: 0,
            edges,
            frames: plan.frames,
            asked,
            shown: window(plan.shown),
            payload: window(plan.payload),
            gaps: gaps_within(&self.archive, lens, asked),
        };
        let copies = if self.with_sources { sources.copies(&plan) } else { Vec::new() };
        let head = plan.head(&Note::of(&clip, copies).to_bytes());
        clip.bytes = head.len() as u64 + plan.payload_bytes;
        let unfinished = id.unfinished();
        let written =
            self.write(&unfinished, &head, &plan, sources).and_then(|()| self.publish(&unfinished, &clip.path));
        if let Err(error) = written {
            // Best effort; the next start sweeps what is left. Under its name it lies if only that was not durable.
            let _ = self.archive.disk().remove_file(&unfinished);
            let _ = self.archive.disk().remove_file(&clip.path);
            return Err(error.into());
        }
        Ok(clip)
    }

    fn write(&self, path: &Path, head: &[u8], plan: &ClipPlan, sources: &Sources) -> Result<(), ArchiveError> {
        let file = self.archive.disk().open(path, OpenMode::CreateNew).map_err(at("create", path))?;
        file.write_at(0, &[IoSlice::new(head)]).map_err(at("write", path))?;
        copy(file.as_ref(), head.len() as u64, plan, sources).map_err(at("write", path))?;
        file.sync().map_err(at("sync", path))
    }

    fn publish(&self, from: &Path, to: &Path) -> Result<(), ArchiveError> {
        let disk = self.archive.disk();
        disk.rename(from, to).map_err(at("rename", from))?;
        let folder = Path::new(FOLDER);
        disk.sync_dir(folder).map_err(at("sync", folder))
    }
}

/// Whether a name in `clips/` is that of a clip that was being written.
fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(".mp4.part").and_then(|n| ClipId::parse(n.strip_prefix('.')?)).is_some()
}

fn copy(to: &dyn DiskFile, mut end: u64, plan: &ClipPlan, sources: &Sources) -> std::io::Result<()> {
    for range in &plan.copies {
        sources.file(range.source)?.copy_to(range.offset, range.len, to, end)?;
        end += range.len;
    }
    Ok(())
}

/// Recorded gaps that touch `asked`, cut to it.
fn gaps_within(archive: &Archive, lens: &LensId, asked: Window) -> Vec<GapRow> {
    let cut = |g: GapRow| GapRow { start_ts: g.start_ts.max(asked.from), end_ts: g.end_ts.min(asked.to), ..g };
    archive.catalog().gaps(Some(lens), asked).into_iter().map(cut).filter(|g| g.start_ts < g.end_ts).collect()
}

/// Seconds to nanoseconds.
fn nanos(seconds: f64) -> Result<i64, ClipFailure> {
    // A year, far below the range in which a double still tells microseconds apart.
    if !(0.0..=31_622_400.0).contains(&seconds) {
        return Err(ClipFailure::BadRange(format!("{seconds} is no offset in seconds from the segment's start")));
    }
    Ok((seconds * 1e9).round() as i64)
}

fn utc_nanos(at: UtcMicros) -> Result<i64, ClipFailure> {
    at.0.checked_mul(1000).ok_or_else(|| ClipFailure::BadRange(format!("{at} is no time in UTC microseconds")))
}

/// A span of UTC nanoseconds in whole microseconds, the nearest ones.
fn window(span: Span) -> Window {
    let micros = |ns: i64| UtcMicros(ns.saturating_add(500).div_euclid(1000));
    Window { from: micros(span.from), to: micros(span.to) }
}
