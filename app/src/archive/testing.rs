//! A small archive on a simulated disk, and segments to put into it, for the tests of this folder.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mos_hal::clock::{BootId, Clock, ClockQuality, Mono, SimClock, UtcMicros};
use mos_hal::media::{LensId, VideoCodec};
use mos_mp4::layout::FREE_OFFSET;
use mos_mp4::{
    Checksum, Close, Fragment, FragmentSample, FragmentTrack, Header, Identity, Movie, Quality, SampleEntry,
    SegmentFile, State, Track, UtcMapping, VIDEO_TIMESCALE, Verify,
};

use super::disk::{Disk, OpenMode, SimDisk};
use super::ids::SegmentId;
use super::recover::Stored;
use super::{
    Archive, ArchiveError, ArchiveOptions, Mapping, NewSegment, OpenSegment, Progress, SegmentHeader, SegmentIdentity,
    TickReport,
};
use crate::retention::{Limits, Pace, Report, Retention};

/// 2025-06-01T00:00:00Z.
pub(crate) const START_UTC: UtcMicros = UtcMicros(1_748_736_000_000_000);
/// Frames of one fragment, 100 ms each.
pub(crate) const FRAMES: u32 = 5;
/// Length of one fragment.
pub(crate) const FRAGMENT: Duration = Duration::from_millis(500);

/// Disk, clock and boot count of a simulated machine.
pub(crate) struct Machine {
    pub(crate) disk: SimDisk,
    pub(crate) clock: Arc<SimClock>,
    boots: u8,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(SimClock::new(BootId([1; 16]), START_UTC));
        Self { disk: SimDisk::new(clock.clone(), 1 << 30), clock, boots: 1 }
    }

    pub(crate) fn open(&self) -> Result<Archive, ArchiveError> {
        self.open_with(u64::MAX)
    }

    /// Opens with a quota of protection.
    pub(crate) fn open_with(&self, protected_max_bytes: u64) -> Result<Archive, ArchiveError> {
        let options = ArchiveOptions { sync_threads: 0, load_threads: 1, protected_max_bytes };
        Archive::open(Arc::new(self.disk.clone()), self.clock.clone(), &options)
    }

    /// Retention as it goes on until it rests, with no clip or snapshot in use.
    pub(crate) fn tend(&self, archive: &Archive, limits: &Limits) -> Report {
        let retention = Retention::new(archive.clone(), self.clock.clone(), limits.clone(), None);
        while retention.step(&BTreeSet::new) == Pace::GoOn {}
        retention.report()
    }

    /// Opens and loads.
    pub(crate) fn start(&self) -> Archive {
        let archive = self.open().unwrap();
        archive.load().unwrap();
        archive
    }

    /// The mapping that the wall clock now gives.
    pub(crate) fn mapping(&self) -> Mapping {
        Mapping { mono: self.clock.mono(), utc: self.clock.utc(), quality: self.clock.quality() }
    }

    /// The power goes and comes back some seconds later.
    pub(crate) fn power_cut(&mut self, seed: u64) {
        self.disk.crash(seed);
        self.boots += 1;
        self.clock.advance(Duration::from_secs(7));
        self.clock.reboot(BootId([self.boots; 16]));
    }

    /// The process dies; the machine goes on.
    pub(crate) fn kill(&self) {
        self.disk.kill();
        self.clock.advance(Duration::from_secs(2));
    }

    /// Reads a segment as a player or clip would.
    pub(crate) fn read(&self, id: &SegmentId) -> SegmentFile {
        let file = self.disk.open(&id.media_path(), OpenMode::Read).unwrap();
        SegmentFile::read(&Stored(file.as_ref()), Verify::Payload).unwrap()
    }

    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.disk.open(path, OpenMode::Read).is_ok()
    }
}

pub(crate) fn lens(name: &str) -> LensId {
    LensId::new(name).unwrap()
}

/// A segment that a test records.
pub(crate) struct Take {
    pub(crate) open: OpenSegment,
    movie: Movie,
    fragments: u32,
    start: Mono,
    closed: bool,
}

impl Take {
    pub(crate) fn begin(archive: &Archive, lens: &LensId, start: Mono) -> Result<Self, ArchiveError> {
        let mut movie = Movie::default();
        let entry = SampleEntry::Video {
            codec: mos_mp4::VideoCodec::H264,
            width: 160,
            height: 96,
            pixel_aspect: (1, 1),
            config: vec![1, 66, 0, 10, 0xff, 0xe0, 0],
            colour: None,
        };
        movie.tracks.push(Track::new(1, VIDEO_TIMESCALE, entry));
        let new = NewSegment {
            lens: lens.clone(),
            start,
            shown_from: start,
            codec: VideoCodec::H264,
            width: 160,
            height: 96,
            expected_bytes: 64 * 1024,
        };
        let open = archive.begin_segment(&new, |identity| header(identity, &movie))?;
        Ok(Self { open, movie, fragments: 0, start, closed: false })
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.open.id().clone()
    }

    pub(crate) fn end(&self) -> Mono {
        self.start + FRAGMENT * self.fragments
    }

    pub(crate) fn begun(&self) -> Mono {
        self.start
    }

    /// Whether its close is durable.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// One more fragment of [`FRAMES`] frames.
    pub(crate) fn append(&mut self) -> Result<(), ArchiveError> {
        let payload: Vec<u8> = (0..FRAMES * 100).map(|n| (n * 7 + self.fragments) as u8).collect();
        let sample = |n| FragmentSample { size: 100, duration: 9000, cts: 0, sync: n == 0 };
        let samples: Vec<FragmentSample> = (0..FRAMES).map(sample).collect();
        let dts = i64::from(self.fragments) * i64::from(FRAMES) * 9000;
        let track = [FragmentTrack { id: 1, description: 1, dts, samples: &samples }];
        let mut sum = Checksum::new();
        sum.update(&payload);
        let fragment = Fragment::new(self.fragments + 1, &track, sum.finish()).unwrap();
        let at = self.open.len();
        let end = self.end() + FRAGMENT;
        self.open.append(&[IoSlice::new(&fragment.head), IoSlice::new(&payload)], end, FRAMES)?;
        fragment.enter(&mut self.movie, at, &track).unwrap();
        self.fragments += 1;
        Ok(())
    }

    pub(crate) fn begin_close(&mut self) -> Result<(), ArchiveError> {
        let close = Close::new(&self.movie, self.open.len());
        self.open.begin_close(close)
    }

    /// The ticks of a close that has begun; whether it got through.
    pub(crate) fn finish_close(&mut self, archive: &Archive) -> bool {
        (0..4).any(|_| matches!(self.after_sync(&archive.commit()), Progress::Closed))
    }

    /// Whether a commit of the close is refused.
    pub(crate) fn commit_fails(&mut self) -> bool {
        self.open.commit_close().is_err()
    }

    /// Takes in a tick; commits the close when its first step is durable.
    pub(crate) fn after_sync(&mut self, report: &TickReport) -> Progress {
        let progress = self.open.after_sync(report);
        if matches!(progress, Progress::ReadyToCommit) {
            // A failure shows in the next tick.
            let _ = self.open.commit_close();
        }
        self.closed |= matches!(progress, Progress::Closed);
        progress
    }
}

/// Records a whole closed segment of `fragments` fragments and returns its id.
pub(crate) fn record(archive: &Archive, lens: &LensId, start: Mono, fragments: u32) -> SegmentId {
    let mut take = Take::begin(archive, lens, start).unwrap();
    for _ in 0..fragments {
        take.append().unwrap();
    }
    take.begin_close().unwrap();
    assert!(take.finish_close(archive));
    take.id()
}

/// Asserts that a listed segment's file is closed and agrees with its row.
pub(crate) fn assert_sound(machine: &Machine, archive: &Archive, id: &SegmentId) {
    let row = archive.lookup(id).unwrap().row;
    let file = machine.read(id);
    assert_eq!(file.state, State::Closed, "{id}");
    assert_eq!(file.movie.sample_count(), row.frames as usize, "{id}");
    assert_eq!(file.file_len, row.bytes, "{id}");
}

fn header(identity: &SegmentIdentity, movie: &Movie) -> SegmentHeader {
    let quality = match identity.mapping.quality {
        ClockQuality::Unset => Quality::Unset,
        ClockQuality::Rtc => Quality::Rtc,
        ClockQuality::Ntp => Quality::Ntp,
        ClockQuality::Gnss => Quality::Gnss,
    };
    let identity = Identity {
        version: mos_mp4::identity::FORMAT_VERSION,
        lens: identity.id.lens.to_string(),
        run: identity.id.run.0,
        seq: identity.id.seq.0,
        boot: identity.boot.0,
        mono_start: identity.start.0,
        utc: Some(UtcMapping { micros: identity.mapping.utc_of(identity.start).0, quality }),
    };
    SegmentHeader { bytes: Header::new(&identity, movie).unwrap().bytes, free_offset: FREE_OFFSET }
}

/// Now, on the machine's clock.
pub(crate) fn now(machine: &Machine) -> Mono {
    machine.clock.mono()
}
