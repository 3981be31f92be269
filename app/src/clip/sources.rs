//! The segments a clip is cut from: opened, pinned and read, on one clock in UTC nanoseconds.

use std::io;

use mos_hal::media::LensId;
use mos_mp4::{ClipPlan, ClipSource, CopyRange, ReadError, SegmentFile, UpTo, Verify};

use super::{ClipFailure, Copied};
use crate::archive::disk::DiskFile;
use crate::archive::ids::{RunId, SegmentId};
use crate::archive::{Archive, ArchiveError, SegmentReader, SegmentRow, SegmentState, Stored, Window};

/// Most segments of one clip: two hours of segments of 30 s. Bounds files held open and memory.
const MOST: usize = 256;

/// Segments in order of time.
pub(super) struct Sources(Vec<Source>);

struct Source {
    reader: SegmentReader,
    content: SegmentFile,
    /// Time 0 of its tracks, UTC nanoseconds.
    start: i64,
}

impl Sources {
    /// One segment.
    pub(super) fn one(archive: &Archive, id: &SegmentId) -> Result<Self, ClipFailure> {
        let mut offsets = Offsets::default();
        Ok(Self(vec![Source::open(archive, id, &mut offsets)?]))
    }

    /// All segments of a lens that overlap the window.
    pub(super) fn overlapping(archive: &Archive, lens: &LensId, window: Window) -> Result<Self, ClipFailure> {
        let rows = archive.catalog().segments(Some(lens), window, 0, MOST + 1);
        if rows.len() > MOST {
            return Err(ClipFailure::BadRange(format!("the range covers more than {MOST} segments; ask for less")));
        }
        let mut offsets = Offsets::default();
        let mut sources = Vec::with_capacity(rows.len());
        for row in &rows {
            if row.row.state == SegmentState::Newer {
                return Err(ClipFailure::Newer(row.row.id.clone()));
            }
            match Source::open(archive, &row.row.id, &mut offsets) {
                Ok(source) => sources.push(source),
                // Removed since it was listed: it is not there for anybody any more.
                Err(ClipFailure::Archive(ArchiveError::NotFound(_))) => {}
                Err(error) => return Err(error),
            }
        }
        if sources.is_empty() {
            return Err(ClipFailure::NoFootage);
        }
        Ok(Self(sources))
    }

    /// UTC nanoseconds of the first segment's start, as listed.
    pub(super) fn start_of_first(&self) -> i64 {
        self.0.first().map_or(0, |s| {
            let first_shown = s.reader.segment.row.start.0 - s.content.identity.mono_start;
            s.start.saturating_add(first_shown)
        })
    }

    pub(super) fn for_plan(&self) -> Vec<ClipSource<'_>> {
        self.0.iter().map(|s| ClipSource { start: s.start, movie: &s.content.movie }).collect()
    }

    /// What a plan copies, one after another.
    pub(super) fn copies(&self, plan: &ClipPlan) -> Vec<Copied> {
        let copied = |range: &CopyRange| {
            let segment = self.0.get(range.source)?.reader.segment.row.id.to_string();
            Some(Copied { segment, from: range.offset, bytes: range.len })
        };
        plan.copies.iter().filter_map(copied).collect()
    }

    pub(super) fn file(&self, number: usize) -> io::Result<&dyn DiskFile> {
        let source = self.0.get(number).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(source.reader.file.as_ref())
    }
}

impl Source {
    fn open(archive: &Archive, id: &SegmentId, offsets: &mut Offsets) -> Result<Self, ClipFailure> {
        let (reader, content) = open(archive, id)?;
        let offset = offsets.of(&reader.segment);
        let start = i64::try_from(i128::from(content.identity.mono_start) + offset).unwrap_or(i64::MAX);
        Ok(Self { reader, content, start })
    }
}

/// Opens, pins and reads one segment, up to its last durable fragment.
pub(crate) fn open(archive: &Archive, id: &SegmentId) -> Result<(SegmentReader, SegmentFile), ClipFailure> {
    let reader = archive.open_for_read(id)?;
    if reader.segment.row.state == SegmentState::Newer {
        return Err(ClipFailure::Newer(id.clone()));
    }
    let durable = UpTo(Stored(reader.file.as_ref()), reader.readable);
    match SegmentFile::read(&durable, Verify::Structure) {
        Ok(content) => Ok((reader, content)),
        Err(ReadError::Newer(_)) => Err(ClipFailure::Newer(id.clone())),
        Err(error) => Err(ClipFailure::Unreadable { id: id.clone(), error }),
    }
}

/// UTC minus monotonic time of each run, in nanoseconds. One value per run, so that rounding to the microseconds of the
/// listing cannot pull the segments of one run apart.
#[derive(Default)]
struct Offsets(Vec<(RunId, i128)>);

impl Offsets {
    fn of(&mut self, segment: &SegmentRow) -> i128 {
        let run = segment.row.id.run;
        if let Some((_, offset)) = self.0.iter().find(|(r, _)| *r == run) {
            return *offset;
        }
        let offset = segment.mapping().offset_ns();
        self.0.push((run, offset));
        offset
    }
}
