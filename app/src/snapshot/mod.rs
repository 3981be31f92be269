//! Snapshot: the keyframe at or before a moment of a segment as a JPEG in `snapshots/`.
//!
//! Promises:
//! - S1: read are the segment's tables and the keyframe's own bytes, nothing else of the file.
//! - S2: the picture is whole under its name or not there at all; its contents are durable when it is answered.
//! - S3: the segment stays while it is read; an open one is read up to its last durable fragment.
//! - S4: a picture describes itself: lens, segment and capture time are in a comment of the file (`note.rs`).
//!
//! Anybody may call it, from a thread that may block. How a picture is decoded is the platform's affair.

pub(crate) mod note;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use mos_hal::clock::{Mono, UtcMicros};
use mos_hal::media;
use mos_hal::platform::{CodecError, Codecs, Jpeg, JpegOptions};
use mos_mp4::movie::Movie;
use mos_mp4::{Sample, SampleEntry, SegmentFile, VIDEO_TIMESCALE};

use self::note::Note;
use crate::archive::clock_file::quality_name;
use crate::archive::disk::{DiskFile, OpenMode};
use crate::archive::error::at;
use crate::archive::ids::{RunId, SegmentId, number};
use crate::archive::{Archive, ArchiveError};
use crate::clip::{ClipFailure, open_segment};
use crate::error::Kind;

/// Where pictures lie, relative to the archive's root.
const FOLDER: &str = "snapshots";

/// Largest keyframe that is read.
const MOST: u32 = 64 << 20;

/// Quality of a picture if nobody says otherwise.
pub const DEFAULT_QUALITY: u8 = 85;

/// A picture's name: the run that took it and a number within that run. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// The run.
    pub run: RunId,
    /// The number within it, from 1.
    pub number: u32,
}

impl SnapshotId {
    /// Parses `snapshot-{run}-{number}`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (run, n) = text.strip_prefix("snapshot-")?.split_once('-')?;
        Some(Self { run: RunId(number(run)?), number: number(n)? })
    }

    /// The file, relative to the archive's root.
    #[must_use]
    pub fn path(self) -> PathBuf {
        Path::new(FOLDER).join(format!("{self}.jpg"))
    }

    fn unfinished(self) -> PathBuf {
        Path::new(FOLDER).join(format!(".{self}.jpg.part"))
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot-{}-{}", self.run.0, self.number)
    }
}

/// A picture that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// The segment.
    pub segment: SegmentId,
    /// The file, relative to the archive's root.
    pub path: PathBuf,
    /// Bytes of the file.
    pub bytes: u64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Capture time of the keyframe.
    pub ts: UtcMicros,
    /// Its offset from the segment's start in seconds.
    pub offset: f64,
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFailure {
    /// The offset or an option is out of range.
    #[error("{0}")]
    BadRequest(String),
    /// The segment cannot be opened or read.
    #[error(transparent)]
    Segment(#[from] ClipFailure),
    /// The keyframe cannot be decoded here.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The archive or the disk said no.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl SnapshotFailure {
    /// The stable kind in the API.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::BadRequest(_) => Kind::BadRequest,
            Self::Segment(failure) => failure.kind(),
            Self::Codec(CodecError::Undecodable(_) | CodecError::Missing { .. }) => Kind::Undecodable,
            Self::Codec(CodecError::Timeout(_)) => Kind::Busy,
            Self::Archive(ArchiveError::NotFound(_)) => Kind::NotFound,
            Self::Archive(ArchiveError::StillListing(_)) => Kind::NotReady,
            Self::Archive(ArchiveError::Io { .. }) => Kind::Storage,
            Self::Archive(_) => Kind::Internal,
        }
    }
}

/// The service.
pub struct Snapshots {
    archive: Archive,
    codecs: Arc<dyn Codecs>,
    next: AtomicU32,
}

impl Snapshots {
    /// The service over `archive`, with the platform's codecs. Removes what an earlier run did not finish.
    #[must_use]
    pub fn new(archive: Archive, codecs: Arc<dyn Codecs>) -> Self {
        if let Err(error) = archive.sweep(Path::new(FOLDER), is_unfinished) {
            log::warn!("cannot remove unfinished pictures: {error}");
        }
        Self { archive, codecs, next: AtomicU32::new(1) }
    }

    /// Takes the keyframe at or before `offset` seconds after the segment's start.
    pub fn take(&self, id: &SegmentId, offset: f64, options: JpegOptions) -> Result<Snapshot, SnapshotFailure> {
        if !(1..=100).contains(&options.quality) || options.max_edge == Some(0) {
            return Err(SnapshotFailure::BadRequest(
                "quality is 1 to 100, and the longest edge at least 1 pixel".to_owned(),
            ));
        }
        let (reader, content) = open_segment(&self.archive, id)?;
        let row = &reader.segment.row;
        let length = row.end.since(row.start) as f64 / 1e9;
        if !(0.0..=length).contains(&offset) {
            return Err(SnapshotFailure::BadRequest(format!("{id} is {length:.3} s long; give an offset within")));
        }
        let asked = row.start.0.saturating_add((offset * 1e9).round() as i64);
        let (sample, entry, rotation) = keyframe(&content, asked.saturating_sub(content.identity.mono_start))
            .ok_or_else(|| SnapshotFailure::BadRequest(format!("{id} has no keyframe")))?;
        let data = read(reader.file.as_ref(), sample).map_err(at("read", &id.media_path()))?;
        let jpeg = self.codecs.jpeg(&format_of(entry, rotation), &data, options)?;

        let taken = Mono(content.identity.mono_start.saturating_add(VIDEO_TIMESCALE.nanos(sample.pts())));
        let id_of_picture = SnapshotId { run: self.archive.run(), number: self.next.fetch_add(1, Ordering::Relaxed) };
        let mapping = reader.segment.mapping();
        let note = Note {
            lens: id.lens.to_string(),
            segment: id.to_string(),
            ts: mapping.utc_of(taken).0,
            clock: quality_name(mapping.quality).to_owned(),
        };
        let bytes = self.store(id_of_picture, &jpeg, &note)?;
        Ok(Snapshot {
            id: id_of_picture,
            segment: id.clone(),
            path: id_of_picture.path(),
            bytes,
            width: jpeg.width,
            height: jpeg.height,
            ts: note.time(),
            offset: taken.since(row.start) as f64 / 1e9,
        })
    }

    /// Returns how many bytes the file has.
    fn store(&self, id: SnapshotId, jpeg: &Jpeg, note: &Note) -> Result<u64, ArchiveError> {
        let disk = self.archive.disk();
        let (unfinished, path) = (id.unfinished(), id.path());
        let (at_byte, comment) = note.place(&jpeg.data);
        let (head, tail) = jpeg.data.split_at(at_byte);
        let write = || {
            let file = disk.open(&unfinished, OpenMode::CreateNew).map_err(at("create", &unfinished))?;
            file.write_at(0, &[head, &comment, tail].map(IoSlice::new)).map_err(at("write", &unfinished))?;
            file.sync().map_err(at("sync", &unfinished))?;
            disk.rename(&unfinished, &path).map_err(at("rename", &unfinished))
        };
        let written = write();
        if written.is_err() {
            let _ = disk.remove_file(&unfinished);
        }
        written.map(|()| (jpeg.data.len() + comment.len()) as u64)
    }
}

/// Whether a name in `snapshots/` is that of a picture that was being written.
fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(".jpg.part").and_then(|n| SnapshotId::parse(n.strip_prefix('.')?)).is_some()
}

/// The last keyframe that is shown at `at` nanoseconds of the segment's timeline or before, else the first one.
fn keyframe(content: &SegmentFile, at: i64) -> Option<(Sample, &SampleEntry, media::Rotation)> {
    let movie: &Movie = &content.movie;
    let video = movie.video()?;
    // Capture times were rounded to ticks: one tick late is still "at".
    let until = video.timescale.ticks(at).saturating_add(1);
    let syncs = || video.table.iter().filter(|s| s.sync);
    let sample = syncs().filter(|s| s.pts() <= until).last().or_else(|| syncs().next())?;
    let entry = video.entries.get((sample.description as usize).checked_sub(1)?)?;
    Some((sample, entry, media::Rotation::of_degrees(video.rotation.degrees()).unwrap_or_default()))
}

fn read(file: &dyn DiskFile, sample: Sample) -> io::Result<Vec<u8>> {
    if sample.size > MOST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the keyframe is larger than 64 MiB"));
    }
    let mut data = vec![0; sample.size as usize];
    if file.read_at(sample.offset, &mut data)? < data.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(data)
}

fn format_of(entry: &SampleEntry, rotation: media::Rotation) -> media::VideoFormat {
    let (codec, width, height, pixel_aspect, config) = match entry {
        SampleEntry::Video { codec: mos_mp4::VideoCodec::H264, width, height, pixel_aspect, config, .. } => {
            (media::VideoCodec::H264, *width, *height, *pixel_aspect, config.clone())
        }
        SampleEntry::Video { codec: mos_mp4::VideoCodec::H265, width, height, pixel_aspect, config, .. } => {
            (media::VideoCodec::H265, *width, *height, *pixel_aspect, config.clone())
        }
        // No video track has such an entry: the reader refuses it.
        SampleEntry::Aac { .. } | SampleEntry::G711 { .. } => (media::VideoCodec::H264, 0, 0, (1, 1), Vec::new()),
    };
    media::VideoFormat {
        codec,
        width: u32::from(width),
        height: u32::from(height),
        pixel_aspect,
        config: Bytes::from(config),
        reorder: 0,
        frame_duration: None,
        rotation,
    }
}
