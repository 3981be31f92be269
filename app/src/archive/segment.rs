//! A segment being written: open, append, close in two commits.
//!
//! Promises:
//! - W1: one write per fragment; nothing already durable is touched before the close.
//! - W2: the close commits by one aligned 8-byte write, made only after the full `moov` and the size in `free` are durable.
//! - W3: after a failed sync the file is never finalised in this run; recovery judges it.
//! - W4: the catalog learns of footage only after it is durable.
//! - W5: a segment to which nothing was ever appended leaves no file behind: a disk that stays full does not fill up with
//!   beginnings.
//!
//! Only the recorder's writer thread uses an [`OpenSegment`]. It never waits for a sync: syncs ride on ticks.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use mos_hal::clock::{BootId, Mono};
use mos_hal::media::{LensId, VideoCodec};
use mos_mp4::Close;

use super::catalog::{Row, SegmentState};
use super::clock_file::Mapping;
use super::disk::{DiskFile, OpenMode};
use super::error::{ArchiveError, at};
use super::ids::SegmentId;
use super::run::LensRun;
use super::sync::{FileKey, Generation, TickReport};
use super::{Archive, Inner};

/// What the recorder knows when it begins a segment.
#[derive(Clone, Debug)]
pub struct NewSegment {
    /// The lens.
    pub lens: LensId,
    /// Capture time of the first video keyframe: decode time 0 of the file.
    pub start: Mono,
    /// Where presentation begins: later than `start` if a group of pictures is repeated, else the same.
    pub shown_from: Mono,
    /// Codec of the video track.
    pub codec: VideoCodec,
    /// Displayed width in pixels.
    pub width: u32,
    /// Displayed height in pixels.
    pub height: u32,
    /// Bytes to reserve on disk; 0 for none. Trimmed at the close.
    pub expected_bytes: u64,
}

/// What the `uuid` box of a new segment has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentIdentity {
    /// Its id.
    pub id: SegmentId,
    /// The boot that its monotonic times belong to.
    pub boot: BootId,
    /// Its monotonic start.
    pub start: Mono,
    /// The run's mapping as known now.
    pub mapping: Mapping,
}

/// The bytes before the first fragment: `ftyp`, `uuid`, `free`, `moov` with `mvex`.
#[derive(Clone, Debug)]
pub struct SegmentHeader {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Where the 16-byte `free` box is: a multiple of 8, at most 496.
    pub free_offset: u64,
}

/// How far a segment is after a group commit.
#[derive(Debug, Clone)]
pub enum Progress {
    /// The tick did not touch it.
    Untouched,
    /// What was appended before the tick is durable.
    Durable,
    /// Step 1 of the close is durable: call [`OpenSegment::commit_close`].
    ReadyToCommit,
    /// The close is durable; the segment is closed in the catalog. Drop the handle.
    Closed,
    /// A sync failed. Drop the handle, note a gap, go on in a new segment.
    Failed(Arc<io::Error>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Writing,
    /// The guard of step 1 is written.
    Guarding,
    /// Step 1 is written.
    Closing,
    /// Step 1 is durable.
    Closable,
    /// Step 2 is written.
    Committing,
    Closed,
    Failed,
}

/// The generation of a file that holds its header only.
const HEADER_ONLY: Generation = 1;

#[derive(Clone, Copy, Debug)]
struct Pending {
    generation: Generation,
    end: Mono,
    frames: u32,
    bytes: u64,
}

/// A segment that the recorder writes. Dropped before it is closed, it stays as it is and recovery closes it later.
pub struct OpenSegment {
    archive: Arc<Inner>,
    lens_run: Arc<LensRun>,
    id: SegmentId,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    key: FileKey,
    free_offset: u64,
    generation: Generation,
    close_generation: Generation,
    written: u64,
    frames: u32,
    end: Mono,
    pending: VecDeque<Pending>,
    stage: Stage,
    /// What follows the guard once that is durable.
    close: Option<Close>,
}

impl Archive {
    /// Creates the next segment of a lens and writes its header, which `header` builds. Nothing is durable before the
    /// next [`Archive::commit`].
    pub fn begin_segment(
        &self,
        new: &NewSegment,
        header: impl FnOnce(&SegmentIdentity) -> SegmentHeader,
    ) -> Result<OpenSegment, ArchiveError> {
        let inner = self.inner.clone();
        let lens_run = inner.lens_run(&new.lens)?;
        // An error here shows again in the next commit; the recorder is not held up by it.
        let _ = lens_run.gaps.settle(inner.disk.as_ref(), &inner.dirty);
        let id = lens_run.next_id();
        let identity = SegmentIdentity { id: id.clone(), boot: inner.boot, start: new.start, mapping: inner.mapping() };
        let header = header(&identity);
        let path = id.media_path();
        let file = inner.disk.open(&path, OpenMode::CreateNew).map_err(|error| {
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                let _ = inner.vanished.set(lens_run.dir.clone());
            }
            at("create", &path)(error)
        })?;
        inner.dirty.dir(&lens_run.dir);
        if new.expected_bytes > 0 {
            // Best effort: without it the file is only more scattered.
            let _ = file.reserve(new.expected_bytes);
        }
        if let Err(error) = file.write_at(0, &[IoSlice::new(&header.bytes)]) {
            // Best effort: the next start drops what is left.
            let _ = inner.disk.remove_file(&path);
            return Err(at("write", &path)(error));
        }
        let key = inner.dirty.new_key();
        inner.dirty.file(key, &path, &file, HEADER_ONLY);
        let row = Row {
            id: id.clone(),
            start: new.shown_from,
            end: new.shown_from,
            bytes: 0,
            allocated: 0,
            frames: 0,
            codec: Some(new.codec),
            width: new.width,
            height: new.height,
            state: SegmentState::Open,
            protected: false,
        };
        inner.catalog.begin(row);
        Ok(OpenSegment {
            archive: inner,
            lens_run,
            id,
            path,
            file,
            key,
            free_offset: header.free_offset,
            generation: HEADER_ONLY,
            close_generation: 0,
            written: header.bytes.len() as u64,
            frames: 0,
            end: new.shown_from,
            pending: VecDeque::new(),
            stage: Stage::Writing,
            close: None,
        })
    }
}

impl OpenSegment {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &SegmentId {
        &self.id
    }

    /// Bytes written so far, durable or not: the offset of the next fragment.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.written
    }

    /// Never: a segment has a header from the start.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written == 0
    }

    /// Whether a close has begun.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        !matches!(self.stage, Stage::Writing)
    }

    /// Appends one fragment (`moof` + `mdat`) of `frames` video frames in one write; `end` is where its last frame ends.
    ///
    /// On an error the file is as before; when the disk is full the segment may go on or be closed later, on any other
    /// error it has failed.
    pub fn append(&mut self, parts: &[IoSlice<'_>], end: Mono, frames: u32) -> Result<(), ArchiveError> {
        self.must_be(Stage::Writing)?;
        let _ = self.lens_run.gaps.settle(self.archive.disk.as_ref(), &self.archive.dirty);
        let bytes: usize = parts.iter().map(|p| p.len()).sum();
        self.write_or_cut_back(parts)?;
        self.written += bytes as u64;
        self.frames += frames;
        self.end = self.end.max(end);
        self.touched();
        Ok(())
    }

    /// Corrects where the last frame ends, once what follows it is known; published with the close.
    pub fn end_at(&mut self, end: Mono) {
        self.end = end;
    }

    /// Close, step 1: appends the guard and, once that is durable, behind it the full `moov`; notes in `free` how much the
    /// later `mdat` will hold; trims the reserve. The old header plays on until [`OpenSegment::commit_close`]. The guard
    /// rides on the sync of the last fragment, the `moov` on the next one.
    pub fn begin_close(&mut self, close: Close) -> Result<(), ArchiveError> {
        self.must_be(Stage::Writing)?;
        self.write_or_cut_back(&[IoSlice::new(&close.guard)])?;
        self.written += close.guard.len() as u64;
        self.file.set_len(self.written).map_err(|e| self.fail("trim", e))?;
        self.touched();
        self.close_generation = self.generation;
        self.stage = Stage::Guarding;
        self.close = Some(close);
        Ok(())
    }

    /// The rest of step 1, behind the durable guard.
    fn append_moov(&mut self) -> io::Result<()> {
        let Some(close) = self.close.take() else { return Ok(()) };
        self.file.write_at(self.written, &[IoSlice::new(&close.moov)])?;
        let (at, word) = close.size_write();
        self.file.write_at(at, &[IoSlice::new(&word)])?;
        self.written = close.file_len();
        self.touched();
        self.close_generation = self.generation;
        self.stage = Stage::Closing;
        Ok(())
    }

    /// Close, step 2: turns `free` into `mdat`. Only after [`Progress::ReadyToCommit`].
    pub fn commit_close(&mut self) -> Result<(), ArchiveError> {
        self.must_be(Stage::Closable)?;
        let flip = *b"\0\0\0\x01mdat";
        self.file.write_at(self.free_offset, &[IoSlice::new(&flip)]).map_err(|e| self.fail("write", e))?;
        self.touched();
        self.close_generation = self.generation;
        self.stage = Stage::Committing;
        Ok(())
    }

    /// Takes in what a group commit achieved and publishes it in the catalog. Call for each segment after each tick.
    pub fn after_sync(&mut self, report: &TickReport) -> Progress {
        let durable = match report.outcome(self.key) {
            None => return Progress::Untouched,
            Some(Err(error)) => {
                self.stage = Stage::Failed;
                self.archive.catalog.abandon(&self.id);
                return Progress::Failed(error);
            }
            Some(Ok(generation)) => generation,
        };
        let mut latest = None;
        while self.pending.front().is_some_and(|p| p.generation <= durable) {
            latest = self.pending.pop_front();
        }
        if let Some(p) = latest {
            self.archive.catalog.durable(&self.id, p.end, p.frames, p.bytes);
        }
        if durable < self.close_generation {
            return Progress::Durable;
        }
        match self.stage {
            Stage::Guarding => match self.append_moov() {
                Ok(()) => Progress::Durable,
                // All footage is durable; recovery repeats the close.
                Err(error) => {
                    self.abandon();
                    Progress::Failed(Arc::new(error))
                }
            },
            Stage::Closing => {
                self.stage = Stage::Closable;
                Progress::ReadyToCommit
            }
            Stage::Committing => {
                self.stage = Stage::Closed;
                let allocated = self.archive.disk.size(&self.path).map_or(self.written, |s| s.allocated);
                self.archive.catalog.closed(&self.id, self.written, allocated);
                Progress::Closed
            }
            _ => Progress::Durable,
        }
    }

    fn touched(&mut self) {
        self.generation += 1;
        self.archive.dirty.file(self.key, &self.path, &self.file, self.generation);
        let (end, frames, bytes) = (self.end, self.frames, self.written);
        self.pending.push_back(Pending { generation: self.generation, end, frames, bytes });
    }

    fn write_or_cut_back(&mut self, parts: &[IoSlice<'_>]) -> Result<(), ArchiveError> {
        let Err(error) = self.file.write_at(self.written, parts) else { return Ok(()) };
        let wrapped = at("write", &self.path)(error);
        // What was written in part must not stay behind the last fragment: players and recovery read up to the end.
        if !wrapped.is_disk_full() || self.file.set_len(self.written).is_err() {
            self.abandon();
        }
        Err(wrapped)
    }

    fn fail(&mut self, what: &'static str, error: io::Error) -> ArchiveError {
        self.abandon();
        at(what, &self.path)(error)
    }

    fn abandon(&mut self) {
        self.stage = Stage::Failed;
        self.archive.catalog.abandon(&self.id);
    }

    fn must_be(&self, stage: Stage) -> Result<(), ArchiveError> {
        if self.stage == stage {
            return Ok(());
        }
        let why = format!("the segment is {:?}, not {stage:?}", self.stage);
        Err(at("write", &self.path)(io::Error::new(io::ErrorKind::InvalidInput, why)))
    }
}

impl Drop for OpenSegment {
    fn drop(&mut self) {
        if self.stage != Stage::Closed {
            self.archive.catalog.abandon(&self.id);
        }
        if self.generation == HEADER_ONLY {
            self.archive.dirty.retire(self.key);
            // Best effort: the next start drops what is left.
            let _ = self.archive.disk.remove_file(&self.path);
        }
    }
}
