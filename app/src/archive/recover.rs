//! Judging one segment file that an earlier run left behind, and closing it if it is not.
//!
//! Promises:
//! - V1: everything that was durable stays playable at every step; a recovery that is itself cut off is simply repeated.
//! - V2: pages are evicted before a file is judged, so that what is read is what the device holds.
//! - V3: what cannot be read is left to the quarantine. Only a file without any contents is dropped: empty, all zeros, or
//!   an intact header of ours followed by nothing or zeros.
//! - V4: a file that is damaged in the middle is kept as it was, in quarantine, besides being closed as far as it is intact.
//! - V5: what a power cut took from the end of a segment is told before it is closed, also where it left the beginning of the next.

use std::io::{self, IoSlice};
use std::path::Path;

use mos_hal::clock::{BootId, ClockQuality, Mono, UtcMicros};
use mos_hal::media::VideoCodec;
use mos_mp4::identity::{Identity, Quality};
use mos_mp4::layout::{FREE_OFFSET, MDAT_WORD};
use mos_mp4::read::{ReadAt, ReadError, SegmentFile, State, Verify};
use mos_mp4::recover::{Finding, Recovery, Step};
use mos_mp4::summary::Summary;

use super::catalog::{Row, RunInfo, SegmentState};
use super::clock_file::Mapping;
use super::disk::{Disk, DiskFile, OpenMode};
use super::error::{ArchiveError, at};
use super::ids::SegmentId;
use super::quarantine;
use super::tail::{border, open_places};

/// Most fragments of a file that a power cut can tear: one per tick is written before the sync that makes it durable. Behind a tick
/// that took long there are more of them; then what lies behind the first torn one is kept as after damage.
const UNSYNCED_FRAGMENTS: usize = 2;
/// Bytes read at a time when a file is looked through.
const CHUNK: usize = 128 << 10;

/// A file of the archive as `mos-mp4` reads it.
pub(crate) struct Stored<'a>(pub(crate) &'a dyn DiskFile);

impl ReadAt for Stored<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

/// What a quick look at a file shows.
#[derive(Debug)]
pub(crate) enum Glance {
    /// Closed: a row for the index, and its run.
    Closed(Row, RunInfo),
    /// Written by a newer version.
    Newer(Row, RunInfo),
    /// To be recovered.
    Unclosed,
    /// Bears another segment's identity.
    Stranger,
}

/// What became of a file.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was closed already.
    Closed(Row, RunInfo),
    /// It is closed now. `damaged`: it had been before, and has lost something since.
    Recovered { row: Row, info: RunInfo, damaged: bool },
    /// It is of a newer version and was left as it is.
    Newer(Row, RunInfo),
    /// No sample in it was ever durable.
    Nothing,
    /// It cannot be understood.
    Unreadable(String),
}

/// Looks at a file in two short reads.
pub(crate) fn glance(disk: &dyn Disk, id: &SegmentId) -> Result<Glance, ArchiveError> {
    let path = id.media_path();
    let file = disk.open(&path, OpenMode::Read).map_err(at("open", &path))?;
    let summary = match Summary::read(&Stored(file.as_ref())) {
        Ok(summary) => summary,
        Err(ReadError::Io { source, .. }) => return Err(at("read", &path)(source)),
        Err(_) => return Ok(Glance::Unclosed),
    };
    if !is_of(&summary.identity, id) {
        return Ok(Glance::Stranger);
    }
    let info = run_info(&summary.identity);
    let size = file.size().map_err(at("read", &path))?;
    if summary.is_newer() {
        return Ok(Glance::Newer(newer(id, &summary.identity, size.len, size.allocated), info));
    }
    if summary.state != State::Closed {
        return Ok(Glance::Unclosed);
    }
    let video = summary.video();
    let start = Mono(summary.identity.mono_start.saturating_add(summary.shown_from));
    let row = Row {
        id: id.clone(),
        start,
        end: Mono(video.map_or(start.0.saturating_add(summary.duration), |v| {
            // Sound may go on a little after the last frame.
            summary.identity.mono_start.saturating_add(v.timescale.nanos(v.presentation_end))
        })),
        bytes: summary.file_len,
        allocated: size.allocated,
        frames: video.map_or(0, |v| v.samples),
        codec: video.and_then(|v| match &v.codec {
            b"avc1" => Some(VideoCodec::H264),
            b"hvc1" => Some(VideoCodec::H265),
            _ => None,
        }),
        width: video.map_or(0, |v| v.width_or_rate),
        height: video.map_or(0, |v| v.height_or_channels),
        state: SegmentState::Closed,
        protected: false,
    };
    Ok(Glance::Closed(row, info))
}

/// Told before a file is closed: its run, the places at its end that pictures are missing from, and what is missing in front of the
/// next one.
pub(crate) type BeforeClose<'a> =
    dyn Fn(RunInfo, &[(Mono, Mono)], Option<(Mono, Mono)>) -> Result<(), ArchiveError> + 'a;

/// Judges a file by every byte of it, and closes it as far as it is intact. An error leaves it for the next start. `behind` is where
/// the next segment begins, if none behind was closed in order.
pub(crate) fn recover(
    disk: &dyn Disk,
    id: &SegmentId,
    behind: Option<Mono>,
    account: &BeforeClose<'_>,
) -> Result<Outcome, ArchiveError> {
    let path = id.media_path();
    let file = disk.open(&path, OpenMode::ReadWrite).map_err(at("open", &path))?;
    file.evict().map_err(at("evict", &path))?;
    let len = file.len().map_err(at("read", &path))?;
    let stored = match SegmentFile::read(&Stored(file.as_ref()), Verify::Payload) {
        Ok(stored) => stored,
        Err(ReadError::Io { source, .. }) => return Err(at("read", &path)(source)),
        Err(ReadError::Newer(identity)) => {
            let size = file.size().map_err(at("read", &path))?;
            return Ok(Outcome::Newer(newer(id, &identity, size.len, size.allocated), run_info(&identity)));
        }
        Err(error) => {
            let blank = is_blank(file.as_ref(), 0, len).map_err(at("read", &path))?;
            return Ok(if blank { Outcome::Nothing } else { Outcome::Unreadable(error.to_string()) });
        }
    };
    if !is_of(&stored.identity, id) {
        return Ok(Outcome::Unreadable(format!(
            "it says it is of lens {} run {}",
            stored.identity.lens, stored.identity.run
        )));
    }
    let plan = Recovery::plan(&stored);
    if plan.finding == Finding::Empty {
        let blank = is_blank(file.as_ref(), stored.header_len, len).map_err(at("read", &path))?;
        return Ok(if blank { Outcome::Nothing } else { Outcome::Unreadable("no intact fragment".into()) });
    }
    if plan.dropped > 0
        && fragments_in(file.as_ref(), stored.used, len).map_err(at("read", &path))? > UNSYNCED_FRAGMENTS
    {
        // Not a torn end but damage in the middle: what lies behind it is not to be lost.
        let copy = quarantine::keep_copy(disk, file.as_ref(), &path)?;
        log::warn!("{id} is damaged in the middle: the whole of it is kept as {}", copy.display());
    }
    if matches!(plan.finding, Finding::Unclosed | Finding::HalfClosed | Finding::DamagedMoov) {
        // Once it is closed nobody looks at its end again.
        let behind = behind.filter(|_| plan.finding != Finding::DamagedMoov);
        account(run_info(&stored.identity), &open_places(&stored), behind.and_then(|behind| border(&stored, behind)))?;
    }
    for step in &plan.steps {
        apply(file.as_ref(), step).map_err(at("recover", &path))?;
    }
    if plan.finding != Finding::Intact {
        // Blocks that were reserved behind the end.
        let end = file.len().map_err(at("read", &path))?;
        file.set_len(end).map_err(at("trim", &path))?;
        file.sync().map_err(at("sync", &path))?;
    }
    drop(file);
    match (glance(disk, id)?, plan.finding) {
        (Glance::Closed(row, info), Finding::Intact) => Ok(Outcome::Closed(row, info)),
        (Glance::Closed(row, info), finding) => {
            let row = Row { state: SegmentState::Recovered, ..row };
            Ok(Outcome::Recovered { row, info, damaged: finding == Finding::DamagedMoov })
        }
        (other, _) => Ok(Outcome::Unreadable(format!("it does not read back after its recovery: {other:?}"))),
    }
}

/// Whether there is nothing but zeros from `from` to `len`.
fn is_blank(file: &dyn DiskFile, from: u64, len: u64) -> io::Result<bool> {
    let mut blank = true;
    look_through(file, from, len, |bytes| {
        blank &= bytes.iter().all(|b| *b == 0);
        blank
    })?;
    Ok(blank)
}

/// How many `moof` boxes seem to begin from `from` to `len`.
fn fragments_in(file: &dyn DiskFile, from: u64, len: u64) -> io::Result<usize> {
    let mut found = 0;
    look_through(file, from, len, |bytes| {
        found += bytes.windows(4).filter(|w| w == b"moof").count();
        true
    })?;
    Ok(found)
}

fn look_through(file: &dyn DiskFile, from: u64, len: u64, mut look: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut buf = vec![0; CHUNK];
    let mut offset = from;
    while offset < len {
        let want = usize::try_from(len - offset).unwrap_or(CHUNK).min(CHUNK);
        let n = file.read_at(offset, &mut buf[..want])?;
        if n == 0 || !look(&buf[..n]) {
            break;
        }
        offset += n as u64;
    }
    Ok(())
}

fn apply(file: &dyn DiskFile, step: &Step) -> io::Result<()> {
    match step {
        Step::Truncate(len) => file.set_len(*len),
        Step::Write { offset, bytes } => file.write_at(*offset, &[IoSlice::new(bytes)]),
        Step::Sync => file.sync(),
    }
}

/// Whether a file's close was committed once. If it needs recovery all the same, bytes that were durable are missing.
pub(crate) fn was_closed(disk: &dyn Disk, id: &SegmentId) -> Result<bool, ArchiveError> {
    let path = id.media_path();
    let file = disk.open(&path, OpenMode::Read).map_err(at("open", &path))?;
    is_committed(file.as_ref()).map_err(at("read", &path))
}

fn is_committed(file: &dyn DiskFile) -> io::Result<bool> {
    let mut word = [0; 8];
    Ok(file.read_at(FREE_OFFSET, &mut word)? == word.len() && word == MDAT_WORD)
}

/// Makes durable what a killed recorder left in the page cache of the same boot.
pub(crate) fn sync_file(disk: &dyn Disk, path: &Path) -> Result<(), ArchiveError> {
    match disk.open(path, OpenMode::ReadWrite) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.and_then(|file| file.sync()).map_err(at("sync", path)),
    }
}

pub(crate) fn is_of(identity: &Identity, id: &SegmentId) -> bool {
    identity.lens == id.lens.as_str() && identity.run == id.run.0 && identity.seq == id.seq.0
}

/// Times of a newer format are a guess from the place they have in this one.
fn newer(id: &SegmentId, identity: &Identity, bytes: u64, allocated: u64) -> Row {
    let start = Mono(identity.mono_start.clamp(0, i64::MAX - 1));
    Row {
        id: id.clone(),
        start,
        end: Mono(start.0 + 1),
        bytes,
        allocated,
        frames: 0,
        codec: None,
        width: 0,
        height: 0,
        state: SegmentState::Newer,
        protected: false,
    }
}

fn run_info(identity: &Identity) -> RunInfo {
    let mapping = identity.utc.map(|utc| Mapping {
        mono: Mono(identity.mono_start),
        utc: UtcMicros(utc.micros),
        quality: match utc.quality {
            Quality::Unset => ClockQuality::Unset,
            Quality::Rtc => ClockQuality::Rtc,
            Quality::Ntp => ClockQuality::Ntp,
            Quality::Gnss => ClockQuality::Gnss,
        },
    });
    RunInfo { boot: Some(BootId(identity.boot)), mapping }
}
