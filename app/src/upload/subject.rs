//! What a file tells about itself: the values of its tokens, as they are when the job is made.

use std::path::Path;

use jiff::Timestamp;
use mos_hal::clock::{ClockQuality, UtcMicros};

use super::template::Values;
use crate::archive::Archive;
use crate::archive::clock_file::quality_name;
use crate::archive::ids::SegmentId;
use crate::clip::{self, ClipId};
use crate::snapshot::SnapshotId;

/// The values of a file of the archive. `path` is relative to its root, `name` what the file is called at the destination.
pub(super) fn values(archive: &Archive, path: &Path, name: &str, segment: Option<&SegmentId>) -> Values {
    let mut values = Values::new();
    let mut put = |token: &str, value: String| values.insert(token.to_owned(), value);
    put("name", name.to_owned());
    if let Some((stem, end)) = name.rsplit_once('.') {
        put("id", stem.to_owned());
        put("ext", end.to_owned());
    }
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if let Some(id) = segment {
        put("kind", "segment".to_owned());
        put("lens", id.lens.to_string());
        put("run", id.run.0.to_string());
        put("seq", id.seq.0.to_string());
        if let Ok(row) = archive.lookup(id) {
            times(&mut put, row.start_ts, Some(row.end_ts), row.quality);
        }
    } else if let Some(id) = ClipId::parse(stem).filter(|_| path.starts_with("clips")) {
        put("kind", "clip".to_owned());
        put("run", id.run.0.to_string());
        if let Ok(clip) = clip::described(archive, stem) {
            let sources = archive.catalog().segments(Some(&clip.lens), clip.shown, 0, 10_000);
            let of_run = || archive.catalog().mapping(id.run).quality;
            let quality = sources.iter().map(|row| row.quality).min().unwrap_or_else(of_run);
            put("lens", clip.lens.to_string());
            times(&mut put, clip.shown.from, Some(clip.shown.to), quality);
        }
    } else if let Some(id) = SnapshotId::parse(stem).filter(|_| path.starts_with("snapshots")) {
        put("kind", "snapshot".to_owned());
        put("run", id.run.0.to_string());
    }
    values
}

fn times(
    put: &mut impl FnMut(&str, String) -> Option<String>,
    start: UtcMicros,
    end: Option<UtcMicros>,
    quality: ClockQuality,
) {
    put("start_ts", start.0.to_string());
    if let Some(end) = end {
        put("end_ts", end.0.to_string());
    }
    if let Ok(time) = Timestamp::from_microsecond(start.0) {
        put("start", time.strftime("%Y%m%dT%H%M%S.%3fZ").to_string());
        put("date", time.strftime("%Y-%m-%d").to_string());
    }
    put("clock", quality_name(quality).to_owned());
}
