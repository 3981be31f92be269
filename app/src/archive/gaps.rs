//! Gaps: accounted absences of a lens, kept beside its segments in `gaps.jsonl`.
//!
//! Promises:
//! - G1: a gap whose append was followed by a successful group commit is there after a power cut.
//! - G2: a torn tail is recognised and skipped; damage below what was durable is reported, never skipped in silence.
//! - G3: nothing is ever rewritten in place; lines are only added.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mos_hal::clock::Mono;
use mos_hal::media::LensId;
use serde::{Deserialize, Serialize};

use super::disk::{Disk, DiskFile, OpenMode};
use super::error::{ArchiveError, at};
use super::ids::Seq;
use super::line;
use super::sync::{Dirty, FileKey, TickReport};

/// Blocks reserved for each `gaps.jsonl`, so that a full disk can still be accounted for.
const RESERVE_BYTES: u64 = 16 * 1024;

/// Name of the file beside the segments.
pub(crate) const FILE_NAME: &str = "gaps.jsonl";

/// Why a lens has no footage. The names are stable: they appear in files and in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// From the recorder's start to the first keyframe.
    Starting,
    /// The device, file or host is not there.
    CameraAbsent,
    /// The camera said no, or speaks nothing that MOS records.
    CameraRefused,
    /// The camera is connected and sends nothing.
    CameraStalled,
    /// The camera broke off.
    CameraBrokeOff,
    /// The source came to its regular end.
    SourceEnded,
    /// Known to be missing between camera and recorder.
    PacketLoss,
    /// Time stamps that could not be repaired.
    BadTimestamps,
    /// The disk did not keep up and the buffer was full.
    DiskSlow,
    /// No room.
    DiskFull,
    /// A write or sync failed.
    DiskError,
    /// The recorder was stopped in order.
    Stopped,
    /// The recorder died while the machine went on.
    RecorderKilled,
    /// The machine lost power or crashed.
    PowerLoss,
    /// A user removed the segment.
    Removed,
    /// Removed to make room.
    Retention,
    /// Not accounted for. A bug if it ever shows.
    Unknown,
}

impl GapCause {
    /// The name in files and in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::CameraAbsent => "camera_absent",
            Self::CameraRefused => "camera_refused",
            Self::CameraStalled => "camera_stalled",
            Self::CameraBrokeOff => "camera_broke_off",
            Self::SourceEnded => "source_ended",
            Self::PacketLoss => "packet_loss",
            Self::BadTimestamps => "bad_timestamps",
            Self::DiskSlow => "disk_slow",
            Self::DiskFull => "disk_full",
            Self::DiskError => "disk_error",
            Self::Stopped => "stopped",
            Self::RecorderKilled => "recorder_killed",
            Self::PowerLoss => "power_loss",
            Self::Removed => "removed",
            Self::Retention => "retention",
            Self::Unknown => "unknown",
        }
    }
}

/// An absence of one lens within one run: from `start` up to, not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gap {
    /// First moment without footage, in the run's monotonic time.
    pub start: Mono,
    /// First moment with footage again.
    pub end: Mono,
    /// Why.
    pub cause: GapCause,
}

/// What a line of `gaps.jsonl` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GapRecord {
    /// A gap; `seq` names the segment that was there (removed, retention).
    Gap { gap: Gap, seq: Option<Seq> },
    /// The recorder stopped this lens in order at this moment.
    Stop { at: Mono },
}

#[derive(Serialize, Deserialize)]
struct Line {
    lens: String,
    start: i64,
    end: i64,
    cause: GapCause,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seq: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    stop: bool,
    /// Bytes of this file that were durable when the line was written; damage below is no torn tail.
    synced: u64,
}

/// Contents of a `gaps.jsonl`.
#[derive(Debug, Default)]
pub(crate) struct GapFile {
    pub(crate) records: Vec<GapRecord>,
    /// A bad line below what a later line knows to be durable, with its byte offset.
    pub(crate) damage: Option<u64>,
}

/// Parses `gaps.jsonl`. Bad lines in the part that was never known to be durable are a torn tail and skipped.
pub(crate) fn parse(bytes: &[u8]) -> GapFile {
    let mut file = GapFile::default();
    let mut first_bad: Option<u64> = None;
    let mut durable = 0;
    let mut offset = 0;
    for raw in bytes.split_inclusive(|b| *b == b'\n') {
        let begin = offset;
        offset += raw.len() as u64;
        if raw.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match line::unseal::<Line>(raw) {
            Some(line) => {
                durable = durable.max(line.synced);
                file.records.push(line.record());
            }
            None => first_bad = first_bad.or(Some(begin)),
        }
    }
    file.damage = first_bad.filter(|bad| *bad < durable);
    file
}

impl Line {
    fn record(&self) -> GapRecord {
        if self.stop {
            return GapRecord::Stop { at: Mono(self.start) };
        }
        let gap = Gap { start: Mono(self.start), end: Mono(self.end), cause: self.cause };
        GapRecord::Gap { gap, seq: self.seq.map(Seq) }
    }

    fn new(lens: &LensId, record: GapRecord, synced: u64) -> Self {
        let (gap, seq, stop) = match record {
            GapRecord::Gap { gap, seq } => (gap, seq, false),
            GapRecord::Stop { at } => (Gap { start: at, end: at, cause: GapCause::Stopped }, None, true),
        };
        Self {
            lens: lens.to_string(),
            start: gap.start.0,
            end: gap.end.0,
            cause: gap.cause,
            seq: seq.map(|s| s.0),
            stop,
            synced,
        }
    }
}

/// The `gaps.jsonl` of a lens in the present run. Lines that cannot be written (a full disk) wait in memory.
pub(crate) struct GapLog {
    path: PathBuf,
    lens: LensId,
    state: Mutex<LogState>,
}

struct LogState {
    file: Arc<dyn DiskFile>,
    key: FileKey,
    /// Bytes written; the next line goes there.
    len: u64,
    /// Bytes known to be durable.
    synced: u64,
    waiting: Vec<GapRecord>,
}

impl GapLog {
    /// Creates the file in a fresh run directory.
    pub(crate) fn create(disk: &dyn Disk, dirty: &Dirty, dir: &Path, lens: &LensId) -> Result<Self, ArchiveError> {
        let path = dir.join(FILE_NAME);
        let file = disk.open(&path, OpenMode::CreateNew).map_err(at("create", &path))?;
        // Best effort.
        let _ = file.reserve(RESERVE_BYTES);
        let key = dirty.new_key();
        dirty.file(key, &path, &file, 0);
        let state = LogState { file, key, len: 0, synced: 0, waiting: Vec::new() };
        Ok(Self { path, lens: lens.clone(), state: Mutex::new(state) })
    }

    /// Adds a record; durable with the next group commit. Fails only in so far as the line waits for room.
    pub(crate) fn append(&self, dirty: &Dirty, record: GapRecord) {
        let mut state = self.lock();
        state.waiting.push(record);
        self.write_waiting(&mut state, dirty);
    }

    /// Adds a record and makes it durable before returning.
    pub(crate) fn append_durable(&self, dirty: &Dirty, record: GapRecord) -> Result<(), ArchiveError> {
        let mut state = self.lock();
        state.waiting.push(record);
        self.write_waiting(&mut state, dirty);
        if !state.waiting.is_empty() {
            state.waiting.retain(|r| *r != record);
            return Err(at("write", &self.path)(std::io::Error::from(std::io::ErrorKind::StorageFull)));
        }
        state.file.sync().map_err(at("sync", &self.path))?;
        state.synced = state.len;
        Ok(())
    }

    /// Takes in a group commit and tries again what is waiting.
    pub(crate) fn after_sync(&self, dirty: &Dirty, report: &TickReport) {
        let mut state = self.lock();
        if let Some(Ok(len)) = report.outcome(state.key) {
            state.synced = state.synced.max(len);
        }
        self.write_waiting(&mut state, dirty);
    }

    fn write_waiting(&self, state: &mut LogState, dirty: &Dirty) {
        if state.waiting.is_empty() {
            return;
        }
        let mut text = String::new();
        for record in &state.waiting {
            text.push_str(&line::seal(&Line::new(&self.lens, *record, state.synced)));
            text.push('\n');
        }
        if state.file.write_at(state.len, &[IoSlice::new(text.as_bytes())]).is_ok() {
            state.len += text.len() as u64;
            state.waiting.clear();
            dirty.file(state.key, &self.path, &state.file, state.len);
        }
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
