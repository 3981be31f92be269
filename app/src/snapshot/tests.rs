//! Snapshot on a real disk, decoded by the machine's own codecs.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::clip::tests::{Rig, stream};

const OPTIONS: JpegOptions = JpegOptions { quality: DEFAULT_QUALITY, max_edge: None };

#[test]
fn the_keyframe_at_or_before_the_offset_becomes_a_picture() {
    let rig = Rig::new();
    let s = stream(rig.folder.path());
    let closed = rig.record(&s, 0, 60).close(&rig);
    let open = rig.record(&s, 60, 90);
    let snapshots = Snapshots::new(rig.archive.clone(), mos_hal::platform::probe().codecs());
    // Keyframes stand every 20 pictures at 30 per second.
    for (segment, offset, at) in
        [(&closed, 0.0, 0.0), (&closed, 0.66, 0.0), (&closed, 20.0 / 30.0, 20.0 / 30.0), (&open.id(), 0.9, 20.0 / 30.0)]
    {
        let picture = snapshots.take(segment, offset, OPTIONS).unwrap();
        assert!((picture.offset - at).abs() < 1e-4, "{offset}: {}", picture.offset);
        let file = std::fs::read(rig.root().join(&picture.path)).unwrap();
        assert_eq!((file.len() as u64, &file[..4]), (picture.bytes, &[0xff, 0xd8, 0xff, 0xe0][..]));
        assert_eq!((picture.width as usize, picture.height as usize), (s.width, s.height));
        assert!(!rig.archive.pins().is_pinned(segment));
        // S4.
        let file = rig.archive.disk().open(&picture.path, OpenMode::Read).unwrap();
        let note = Note::read(file.as_ref()).unwrap().unwrap();
        assert_eq!((note.time(), note.segment), (picture.ts, segment.to_string()));
    }
    let small = snapshots.take(&closed, 1.0, JpegOptions { quality: 50, max_edge: Some(48) }).unwrap();
    assert_eq!((small.width, small.height), (48, 32));
    drop(open);
}

#[test]
fn failures_have_their_kinds() {
    let rig = Rig::new();
    let s = stream(rig.folder.path());
    let id = rig.record(&s, 0, 40).close(&rig);
    let snapshots = Snapshots::new(rig.archive.clone(), mos_hal::platform::probe().codecs());
    let kind = |id: &SegmentId, offset, options| snapshots.take(id, offset, options).unwrap_err().kind();
    let absent = SegmentId { seq: crate::archive::ids::Seq(99), ..id.clone() };
    assert_eq!(kind(&absent, 0.0, OPTIONS), Kind::NotFound);
    for offset in [-0.1, 2.0, f64::NAN] {
        assert_eq!(kind(&id, offset, OPTIONS), Kind::BadRequest, "{offset}");
    }
    assert_eq!(kind(&id, 0.0, JpegOptions { quality: 0, max_edge: None }), Kind::BadRequest);
    assert_eq!(kind(&id, 0.0, JpegOptions { quality: 90, max_edge: Some(0) }), Kind::BadRequest);
}
