//! The hot paths, each as it is used, with a number of units to work through.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mos::archive::disk::SimDisk;
use mos::archive::ids::{RunId, SegmentId, Seq};
use mos::archive::{Archive, ArchiveOptions, Row, SegmentState};
use mos::index::Index;
use mos::record::{Recorder, RecorderOptions};
use mos_frame::{
    Frame, Lent, Memory, MemoryKind, Picture, Pixels, Publisher, Received, Settings, Subscriber, Wish, sys,
};
use mos_hal::clock::{BootId, Clock, Mono, SimClock, UtcMicros};
use mos_hal::media::{AccessUnit, FrameKind, LensId, Rotation, TrackFormat, VideoCodec, VideoFormat};
use mos_hal::nal;
use mos_mp4::{
    Checksum, ClipSource, Edges, Fragment, FragmentSample, FragmentTrack, Movie, SampleEntry, Span, Track,
    VIDEO_TIMESCALE, clip,
};

/// One path.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// Units of the short and of the long run.
    pub(crate) units: (u64, u64),
    /// Works through so many units; if it shall, every second one twice.
    pub(crate) run: fn(u64, bool),
}

pub(crate) const PATHS: &[Path] = &[
    Path { name: "record", unit: "frame of 4 KiB", units: (100, 600), run: record },
    Path { name: "fragment", unit: "fragment of 12 frames", units: (50, 550), run: fragment },
    Path { name: "index", unit: "segment", units: (200, 1200), run: index },
    Path { name: "bus", unit: "frame to one reader", units: (100, 600), run: bus },
    Path { name: "clip", unit: "fragment of 12 frames", units: (100, 600), run: clip },
    Path { name: "nal", unit: "access unit of 5 units", units: (200, 5200), run: nal },
];

/// 25 frames a second.
const FRAME: i64 = 40_000_000;
const PER_FRAGMENT: u64 = 12;

/// Numbers of the units to be worked on.
fn work(units: u64, twice: bool) -> impl Iterator<Item = u64> {
    (0..units).flat_map(move |n| std::iter::repeat_n(n, 1 + usize::from(twice && n % 2 == 0)))
}

/// From the intake to the segment file: repair, splitter, ledger, fragment, write.
fn record(frames: u64, twice: bool) {
    let clock = Arc::new(SimClock::new(BootId([7; 16]), UtcMicros(1_795_168_800_000_000)));
    // Valgrind knows no openat2, which the real one needs; what the simulated one costs is the same each time.
    let disk = Arc::new(SimDisk::new(clock.clone(), 1 << 32));
    let as_clock: Arc<dyn Clock> = clock.clone();
    let options = ArchiveOptions { sync_threads: 0, ..ArchiveOptions::default() };
    let archive = Archive::open(disk, as_clock.clone(), &options).unwrap();
    archive.load().unwrap();
    let options = RecorderOptions { segment_length: Duration::from_secs(2), ..RecorderOptions::default() };
    let lens = LensId::new("road").unwrap();
    let recorder = Recorder::new(archive, as_clock, &options, std::slice::from_ref(&lens));
    let intake = recorder.intake(&lens).unwrap();
    let format = Arc::new(TrackFormat::Video(VideoFormat {
        codec: VideoCodec::H264,
        width: 160,
        height: 96,
        pixel_aspect: (1, 1),
        config: Bytes::from_static(&[1, 66, 0, 10, 0xff, 0xe0, 0]),
        reorder: 0,
        frame_duration: Some(FRAME as u64),
        rotation: Rotation::None,
    }));
    for (n, _) in (0_i64..).zip(work(frames, twice)) {
        intake.push(AccessUnit {
            format: format.clone(),
            kind: if n % 25 == 0 { FrameKind::Idr } else { FrameKind::Delta },
            pts: Some(Mono(n * FRAME)),
            duration: Some(FRAME as u64),
            arrival: Mono(n * FRAME),
            discontinuity: false,
            data: Bytes::from(vec![n as u8; 4096]),
        });
        clock.advance(Duration::from_nanos(FRAME as u64));
        if n % PER_FRAGMENT as i64 == PER_FRAGMENT as i64 - 1 {
            recorder.step();
        }
    }
}

fn movie() -> Movie {
    let config = vec![1, 66, 0, 10, 0xff, 0xe0, 0];
    let (codec, pixel_aspect) = (mos_mp4::VideoCodec::H264, (1, 1));
    let entry = SampleEntry::Video { codec, width: 160, height: 96, pixel_aspect, config, colour: None };
    Movie { shown_from: 0, tracks: vec![Track::new(1, VIDEO_TIMESCALE, entry)] }
}

/// One fragment is made and entered into the movie's tables.
fn enter(movie: &mut Movie, number: u64, at: u64, payload: &[u8]) -> u64 {
    let sample = |n| FragmentSample { size: 4096, duration: 3600, cts: 0, sync: n == 0 && number.is_multiple_of(2) };
    let samples: Vec<FragmentSample> = (0..PER_FRAGMENT).map(sample).collect();
    let dts = (number * PER_FRAGMENT * 3600) as i64;
    let tracks = [FragmentTrack { id: 1, description: 1, dts, samples: &samples }];
    let mut sum = Checksum::new();
    sum.update(payload);
    let fragment = Fragment::new(number as u32 + 1, &tracks, sum.finish()).unwrap();
    fragment.enter(movie, at, &tracks).unwrap();
    at + fragment.len()
}

/// The boxes of fragments, with the checksum over what they carry.
fn fragment(fragments: u64, twice: bool) {
    let (mut movie, mut at, payload) = (movie(), 1024, vec![7; 4096 * PER_FRAGMENT as usize]);
    for (n, _) in (0_u64..).zip(work(fragments, twice)) {
        at = enter(&mut movie, n, at, &payload);
    }
}

/// A clip of everything, from the tables of one segment to its head.
fn clip(fragments: u64, twice: bool) {
    let (mut movie, mut at) = (movie(), 1024);
    for n in 0..fragments {
        at = enter(&mut movie, n, at, &[]);
    }
    let to = (fragments * PER_FRAGMENT) as i64 * FRAME - FRAME / 2;
    for _ in 0..=usize::from(twice) {
        let source = ClipSource { start: 0, movie: &movie };
        let plan = clip::plan(&[source], Span { from: FRAME / 2, to }, Edges::Exact).unwrap();
        assert!(plan.head(b"counted").len() > 512);
    }
}

/// Segments that become known one after another, as they do while they are recorded.
fn index(segments: u64, twice: bool) {
    let mut index = Index::new().unwrap();
    let lens = LensId::new("road").unwrap();
    for n in work(segments, twice) {
        let start = n as i64 * 30_000_000_000;
        index
            .put(&Row {
                id: SegmentId { lens: lens.clone(), run: RunId(1), seq: Seq(n as u32) },
                start: Mono(start),
                end: Mono(start + 30_000_000_000),
                bytes: 15_000_000,
                allocated: 15_003_648,
                frames: 750,
                codec: Some(VideoCodec::H264),
                width: 1920,
                height: 1080,
                state: SegmentState::Closed,
                protected: false,
            })
            .unwrap();
    }
    assert_eq!(index.totals().segments, segments);
}

struct Loan;

impl Lent for Loan {}

/// A frame to one reader of this process, who gives it back before the next one comes.
fn bus(frames: u64, twice: bool) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("road.sock");
    let (told, subscribed) = std::sync::mpsc::channel();
    let demand = Box::new(move |demanded| {
        let _ = told.send(demanded);
    });
    let publisher = Publisher::open(Settings::new(socket.clone()), Some(demand)).unwrap();
    let picture = Picture::nv12(64, 64, 64);
    let buffer = |_| {
        let fd: OwnedFd = sys::memory("camera", 6144).unwrap();
        publisher.add_buffer(MemoryKind::Memfd, vec![Memory { fd, size: 6144 }]).unwrap()
    };
    let buffers: Vec<_> = (0..6).map(buffer).collect();
    let mut subscriber = Subscriber::connect(&socket, Wish::default()).unwrap();
    assert!(subscribed.recv().unwrap());
    for (sequence, _) in (0_u64..).zip(work(frames, twice)) {
        let pixels = Pixels::Buffer(buffers[sequence as usize % buffers.len()]);
        let (captured, picture) = (sys::monotonic(), picture.clone());
        publisher.publish(Frame { pixels, sequence, captured, picture, hold: Loan });
        let Some(Received::Frame(frame)) = subscriber.next(None).unwrap() else { panic!("a frame") };
        subscriber.release(frame).unwrap();
    }
}

/// What a keyframe with its parameter sets is, and what of it is stored.
fn nal(units: u64, twice: bool) {
    let one = |head: &[u8], len: usize| {
        let unit = [head, &vec![0x5a; len - head.len()]].concat();
        [&(unit.len() as u32).to_be_bytes()[..], &unit].concat()
    };
    // Delimiter, parameter sets, a supplement, a slice.
    let unit =
        [one(&[9, 0xf0], 2), one(&[0x67], 24), one(&[0x68], 6), one(&[6, 1, 4], 12), one(&[0x65], 4096)].concat();
    let data = Bytes::from(unit);
    for _ in work(units, twice) {
        assert_eq!(nal::classify(VideoCodec::H264, &data), FrameKind::Idr);
        assert!(nal::stored(VideoCodec::H264, data.clone()).len() < data.len());
    }
}
