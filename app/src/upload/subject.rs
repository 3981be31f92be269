//! What a file tells about itself: the values of its tokens, as they are when the job is made.

use std::path::Path;

use jiff::Timestamp;
use mos_hal::clock::UtcMicros;

use super::template::Values;
use crate::archive::Archive;
use crate::archive::clock_file::quality_name;
use crate::archive::disk::OpenMode;
use crate::archive::ids::SegmentId;
use crate::clip::{self, ClipId};
use crate::snapshot::SnapshotId;
use crate::snapshot::note::Note;

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
            times(&mut put, row.start_ts, Some(row.end_ts), quality_name(row.quality));
        }
    } else if let Some(id) = ClipId::parse(stem).filter(|_| path.starts_with("clips")) {
        put("kind", "clip".to_owned());
        put("run", id.run.0.to_string());
        if let Ok(clip) = clip::described(archive, stem) {
            let sources = archive.catalog().segments(Some(&clip.lens), clip.shown, 0, 10_000);
            let of_run = || archive.catalog().mapping(id.run).quality;
            let quality = sources.iter().map(|row| row.quality).min().unwrap_or_else(of_run);
            put("lens", clip.lens.to_string());
            times(&mut put, clip.shown.from, Some(clip.shown.to), quality_name(quality));
        }
    } else if let Some(id) = SnapshotId::parse(stem).filter(|_| path.starts_with("snapshots")) {
        put("kind", "snapshot".to_owned());
        put("run", id.run.0.to_string());
        let file = archive.disk().open(path, OpenMode::Read);
        if let Some(note) = file.and_then(|file| Note::read(file.as_ref())).ok().flatten() {
            put("lens", note.lens.clone());
            times(&mut put, note.time(), None, &note.clock);
        }
    }
    values
}

fn times(put: &mut impl FnMut(&str, String) -> Option<String>, start: UtcMicros, end: Option<UtcMicros>, clock: &str) {
    put("start_ts", start.0.to_string());
    if let Some(end) = end {
        put("end_ts", end.0.to_string());
    }
    if let Ok(time) = Timestamp::from_microsecond(start.0) {
        put("start", time.strftime("%Y%m%dT%H%M%S.%3fZ").to_string());
        put("date", time.strftime("%Y-%m-%d").to_string());
    }
    put("clock", clock.to_owned());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mos_hal::platform::JpegOptions;

    use super::*;
    use crate::clip::tests::{Rig, stream};
    use crate::clip::{Clips, Edges};
    use crate::snapshot::{DEFAULT_QUALITY, Snapshots};

    #[test]
    fn segments_clips_and_pictures_tell_lens_and_time() {
        let rig = Rig::new();
        let s = stream(rig.folder.path());
        let id = rig.record(&s, 0, 60).close(&rig);
        let row = rig.archive.lookup(&id).unwrap();
        let clip = Clips::new(rig.archive.clone()).by_segment(&id, 0.5, 1.5, Edges::Exact).unwrap();
        let codecs = mos_hal::platform::probe().codecs();
        let options = JpegOptions { quality: DEFAULT_QUALITY, max_edge: None };
        let picture = Snapshots::new(rig.archive.clone(), codecs).take(&id, 1.0, options).unwrap();
        let of = |path: &Path, segment| {
            let name = path.file_name().unwrap().to_str().unwrap();
            values(&rig.archive, path, name, segment)
        };
        let of_segment = of(&id.media_path(), Some(&id));
        assert_eq!(of_segment["start_ts"], row.start_ts.0.to_string());
        assert_eq!(of_segment["end_ts"], row.end_ts.0.to_string());
        assert_eq!((of_segment["kind"].as_str(), of_segment["seq"].as_str()), ("segment", "0"));
        let of_clip = of(&clip.path, None);
        assert_eq!(of_clip["start_ts"], clip.shown.from.0.to_string());
        assert_eq!((of_clip["kind"].as_str(), of_clip["ext"].as_str()), ("clip", "mp4"));
        let of_picture = of(&picture.path, None);
        assert_eq!(of_picture["start_ts"], picture.ts.0.to_string());
        assert!(!of_picture.contains_key("end_ts") && !of_picture.contains_key("seq"));
        assert_eq!((of_picture["kind"].as_str(), of_picture["ext"].as_str()), ("snapshot", "jpg"));
        for values in [of_segment, of_clip, of_picture] {
            assert_eq!(values["lens"], id.lens.to_string());
            assert_eq!(values["run"], id.run.0.to_string());
            assert_eq!(values["clock"], quality_name(row.quality));
            assert_eq!(values["start"].len(), "20261121T030507.123Z".len());
            assert!(values["start"].starts_with(&values["date"].replace('-', "")));
        }
    }
}
