//! ExtractClip on a real disk, of real streams, judged by ffmpeg.
#![allow(clippy::unwrap_used)]

use std::io::IoSlice;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mos_hal::clock::{BootId, Mono, SimClock, UtcMicros};
use mos_hal::media::VideoCodec;
use mos_mp4::time::order;
use mos_mp4::{
    Checksum, Close, Fragment, FragmentSample, FragmentTrack, Header, Identity, Movie, Track, VIDEO_TIMESCALE,
};

use super::*;
use crate::archive::disk::RealDisk;
use crate::archive::{ArchiveOptions, NewSegment, OpenSegment, Progress, SegmentHeader, SegmentState};
use crate::error::Kind;

/// A coded picture or sound, in decoding order, with its presentation time in ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) pts: i64,
    pub(crate) sync: bool,
    pub(crate) data: Vec<u8>,
}

/// Streams made by ffmpeg, taken apart as the MP4 crate's own tests do.
#[allow(dead_code, unreachable_pub, missing_docs)]
#[path = "../../mp4/tests/common/ffmpeg.rs"]
mod ffmpeg;

mod faults;

use ffmpeg::{H264, Make, Stream};

const UTC: i64 = 1_795_000_000_000_000;
const STEP: i64 = 3000;

/// An archive in a folder of its own, with a lens that is recorded by hand.
pub(crate) struct Rig {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) archive: Archive,
    pub(crate) lens: LensId,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let archive = open_archive(folder.path());
        Self { folder, archive, lens: LensId::new("road").unwrap() }
    }

    pub(crate) fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("archive")
    }

    /// Records pictures `from..to` of the stream as one segment in fragments of 15 pictures.
    pub(crate) fn record(&self, s: &Stream, from: i64, to: i64) -> Recorded {
        let (units, _) = s.cut(from * STEP, to * STEP);
        let start = Mono(VIDEO_TIMESCALE.nanos(from * STEP));
        let new = NewSegment {
            lens: self.lens.clone(),
            start,
            shown_from: start,
            codec: VideoCodec::H264,
            width: s.width as u32,
            height: s.height as u32,
            expected_bytes: 0,
        };
        let movie = Movie { shown_from: 0, tracks: vec![Track::new(1, VIDEO_TIMESCALE, s.video.0.clone())] };
        let open = self.archive.begin_segment(&new, |id| header(id, &movie)).unwrap();
        let mut recorded = Recorded { open, movie, fragments: 0 };
        for group in reordering_groups(&units) {
            recorded.append(start, group);
        }
        recorded.open.after_sync(&self.archive.commit());
        recorded
    }
}

/// A segment with all its footage durable.
pub(crate) struct Recorded {
    open: OpenSegment,
    movie: Movie,
    fragments: u32,
}

impl Recorded {
    fn append(&mut self, start: Mono, units: &[Unit]) {
        let pts: Vec<_> = units.iter().map(|u| u.pts).collect();
        let next = pts.iter().max().unwrap() + STEP;
        let timing = order(&pts, next);
        let samples: Vec<_> = units
            .iter()
            .zip(&timing)
            .map(|(u, t)| FragmentSample { size: u.data.len() as u32, duration: t.duration, cts: t.cts, sync: u.sync })
            .collect();
        let tracks = [FragmentTrack { id: 1, description: 1, dts: timing[0].dts, samples: &samples }];
        let mut sum = Checksum::new();
        for unit in units {
            sum.update(&unit.data);
        }
        self.fragments += 1;
        let fragment = Fragment::new(self.fragments, &tracks, sum.finish()).unwrap();
        let at = self.open.len();
        let mut parts = vec![IoSlice::new(&fragment.head)];
        parts.extend(units.iter().map(|u| IoSlice::new(&u.data)));
        let end = start + Duration::from_nanos(VIDEO_TIMESCALE.nanos(next) as u64);
        self.open.append(&parts, end, units.len() as u32).unwrap();
        fragment.enter(&mut self.movie, at, &tracks).unwrap();
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.open.id().clone()
    }

    /// Closes it as the recorder does: tick by tick.
    pub(crate) fn close(mut self, rig: &Rig) -> SegmentId {
        let id = self.id();
        self.open.begin_close(Close::new(&self.movie, self.open.len())).unwrap();
        for _ in 0..4 {
            match self.open.after_sync(&rig.archive.commit()) {
                Progress::ReadyToCommit => self.open.commit_close().unwrap(),
                Progress::Closed => return id,
                _ => {}
            }
        }
        panic!("{id} did not close");
    }
}

fn open_archive(folder: &Path) -> Archive {
    let disk = Arc::new(RealDisk::open(&folder.join("archive")).unwrap());
    let clock = Arc::new(SimClock::new(BootId([5; 16]), UtcMicros(UTC)));
    Archive::open(disk, clock, &ArchiveOptions::default()).unwrap()
}

fn header(id: &crate::archive::SegmentIdentity, movie: &Movie) -> SegmentHeader {
    let identity = Identity {
        version: mos_mp4::identity::FORMAT_VERSION,
        lens: id.id.lens.to_string(),
        run: id.id.run.0,
        seq: id.id.seq.0,
        boot: id.boot.0,
        mono_start: id.start.0,
        utc: None,
    };
    let bytes = Header::new(&identity, movie).unwrap().bytes;
    SegmentHeader { bytes, free_offset: mos_mp4::layout::FREE_OFFSET }
}

/// Parts of at least 15 units after which everything is presented later.
fn reordering_groups(units: &[Unit]) -> Vec<&[Unit]> {
    let mut groups = Vec::new();
    let mut start = 0;
    for i in 1..=units.len() {
        let most = units[start..i].iter().map(|u| u.pts).max();
        let least = units[i..].iter().map(|u| u.pts).min();
        if least.is_none() || (i - start >= 15 && least > most) {
            groups.push(&units[start..i]);
            start = i;
        }
    }
    groups
}

pub(crate) fn stream(folder: &Path) -> Stream {
    Make { audio: false, ..H264 }.run(folder)
}

/// Decoded pictures of a file, raw.
fn pictures(path: &Path, bytes: usize) -> Vec<Vec<u8>> {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(path)
        .args(["-fps_mode", "passthrough", "-pix_fmt", "yuv420p", "-f", "rawvideo", "-"])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout.chunks(bytes).map(<[u8]>::to_vec).collect()
}

/// UTC of picture number `n`.
fn utc(n: i64) -> UtcMicros {
    UtcMicros(UTC + n * STEP * 100 / 9)
}

#[test]
fn e1_a_window_across_a_border_shows_exactly_its_frames() {
    let rig = Rig::new();
    let s = stream(rig.folder.path());
    rig.record(&s, 0, 40).close(&rig);
    let open = rig.record(&s, 40, 90);
    let source = pictures(&s.path, s.picture_bytes());
    let clips = Clips::new(rig.archive.clone());
    for (from, to) in [(0, 90), (13, 57), (39, 41), (44, 45), (20, 40)] {
        let window = Window { from: utc(from), to: utc(to) };
        let clip = clips.by_lens(&rig.lens, window, Edges::Exact).unwrap();
        let shown = pictures(&rig.root().join(&clip.path), s.picture_bytes());
        assert!(shown == source[from as usize..to as usize], "{from} to {to}: {} pictures", shown.len());
        assert_eq!(i64::from(clip.frames), to - from);
        assert_eq!(clip.bytes, std::fs::metadata(rig.root().join(&clip.path)).unwrap().len());
        let near = |a: UtcMicros, b: UtcMicros| (a.0 - b.0).abs() <= 20;
        assert!(near(clip.shown.from, utc(from)) && near(clip.shown.to, utc(to)), "{:?}", clip.shown);
        // Groups of 20 pictures: the payload is at most one of them longer at each end.
        assert!(near(clip.payload.from, utc(from / 20 * 20)), "{:?}", clip.payload);
        assert!(near(clip.payload.to, utc(((to + 19) / 20 * 20).min(90))), "{:?}", clip.payload);
        assert_eq!(clip.note().is_some(), clip.payload != clip.shown);
        assert_eq!(clips.get(&clip.id.to_string()).unwrap(), clip);
    }
    let whole = clips.by_lens(&rig.lens, Window { from: utc(25), to: utc(30) }, Edges::Gop).unwrap();
    assert_eq!((whole.frames, whole.shown == whole.payload, whole.note()), (20, true, None));
    drop(open);
}

#[test]
fn e1_offsets_count_from_the_segments_start() {
    let rig = Rig::new();
    let s = stream(rig.folder.path());
    rig.record(&s, 0, 40).close(&rig);
    let second = rig.record(&s, 40, 80).close(&rig);
    let source = pictures(&s.path, s.picture_bytes());
    let clips = Clips::new(rig.archive.clone());
    let clip = clips.by_segment(&second, 0.5, 1.0, Edges::Exact).unwrap();
    assert!(pictures(&rig.root().join(&clip.path), s.picture_bytes()) == source[55..70]);
    // Beyond the end there is nothing more; before it there is no other segment to join.
    let clip = clips.by_segment(&second, 0.0, 99.0, Edges::Exact).unwrap();
    assert!(pictures(&rig.root().join(&clip.path), s.picture_bytes()) == source[40..80]);
}

#[test]
fn e2_e4_nothing_unfinished_is_left_and_clips_survive_a_restart() {
    let rig = Rig::new();
    let s = stream(rig.folder.path());
    rig.record(&s, 0, 40).close(&rig);
    let clips = Clips::new(rig.archive.clone());
    let clip = clips.by_lens(&rig.lens, Window { from: utc(3), to: utc(9) }, Edges::Exact).unwrap();
    let names = |root: &Path| {
        let all = std::fs::read_dir(root.join("clips")).unwrap();
        all.map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(names(&rig.root()), [format!("{}.mp4", clip.id)]);

    std::fs::write(rig.root().join("clips/.clip-1-7.mp4.part"), b"half").unwrap();
    let Rig { folder, archive, lens: _ } = rig;
    drop((clips, archive));
    let archive = open_archive(folder.path());
    let clips = Clips::new(archive.clone());
    assert_eq!(names(&folder.path().join("archive")), [format!("{}.mp4", clip.id)]);
    assert_eq!(clips.get(&clip.id.to_string()).unwrap(), clip);
    assert_ne!(archive.run(), clip.id.run);
}

#[test]
fn e3_an_open_segment_is_cut_up_to_its_last_durable_fragment() {
    let rig = Rig::new();
    let s = stream(rig.folder.path());
    let open = rig.record(&s, 0, 40);
    assert_eq!(rig.archive.lookup(&open.id()).unwrap().row.state, SegmentState::Open);
    let clips = Clips::new(rig.archive.clone());
    let clip = clips.by_lens(&rig.lens, Window { from: utc(30), to: utc(1000) }, Edges::Exact).unwrap();
    assert_eq!(clip.frames, 10);
    // Its source is free again.
    assert!(!rig.archive.pins().is_pinned(&open.id()));
    drop(open);
}

#[test]
fn failures_have_their_kinds() {
    let rig = Rig::new();
    let s = stream(rig.folder.path());
    let id = rig.record(&s, 0, 40).close(&rig);
    let wide = Make { audio: false, size: (128, 64), name: "wide", ..H264 }.run(rig.folder.path());
    rig.record(&wide, 40, 80).close(&rig);
    let clips = Clips::new(rig.archive.clone());
    let kind = |r: Result<Clip, ClipFailure>| r.unwrap_err().kind();
    let absent = SegmentId { seq: crate::archive::ids::Seq(99), ..id.clone() };
    assert_eq!(kind(clips.by_segment(&absent, 0.0, 1.0, Edges::Exact)), Kind::NotFound);
    for (from, to) in [(1.0, 1.0), (-1.0, 1.0), (9.0, 10.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
        assert_eq!(kind(clips.by_segment(&id, from, to, Edges::Exact)), Kind::BadRequest, "{from} to {to}");
    }
    let window = |from, to| Window { from: utc(from), to: utc(to) };
    assert_eq!(kind(clips.by_lens(&rig.lens, window(500, 600), Edges::Exact)), Kind::NoFootage);
    assert_eq!(kind(clips.by_lens(&rig.lens, Window::ALL, Edges::Exact)), Kind::BadRequest);
    let split = clips.by_lens(&rig.lens, window(30, 50), Edges::Exact).unwrap_err();
    assert_eq!(split.kind(), Kind::FormatChange);
    assert!(matches!(split.split_points(), [at] if (at - utc(40).0).abs() <= 20), "{:?}", split.split_points());
    for text in ["clip-1-99", "clip-1-1/../x", "road-1-0", "clip-01-1", ""] {
        assert_eq!(kind(clips.get(text)), Kind::NotFound, "{text}");
    }
}
