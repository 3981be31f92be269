//! A recorder on a simulated disk that is too small: who gives way, in which order, and that recording goes on by itself.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mos_hal::clock::Clock;
use mos_hal::media::{AccessUnit, FrameKind, TrackFormat};

use crate::alarms::AlarmKind;
use crate::archive::disk::{Disk, OpenMode};
use crate::archive::testing::{Machine, lens};
use crate::archive::tests::{causes, note};
use crate::archive::{Archive, GapCause, Window};
use crate::record::testing::{unit_at, video_format};
use crate::record::{Recorder, RecorderOptions};
use crate::retention::{Limits, Pace, Retention};

const FRAME: Duration = Duration::from_millis(40);
const CAPACITY: u64 = 4 << 20;

struct Rig {
    machine: Machine,
    archive: Archive,
    recorder: Recorder,
    retention: Retention,
    format: Arc<TrackFormat>,
    frames: u64,
}

impl Rig {
    fn new() -> Self {
        let machine = Machine::new();
        machine.disk.set_capacity(CAPACITY);
        let archive = machine.start();
        let options = RecorderOptions { segment_length: Duration::from_secs(2), ..RecorderOptions::default() };
        let recorder = Recorder::new(archive.clone(), machine.clock.clone(), &options, &[lens("road")]);
        let retention = Retention::new(archive.clone(), machine.clock.clone(), Limits::default(), None);
        Self { machine, archive, recorder, retention, format: video_format(0), frames: 0 }
    }

    /// One second of 100 kB: the recorder ticks twice, retention once.
    fn second(&mut self) {
        let intake = self.recorder.intake(&lens("road")).unwrap();
        for n in 0..25 {
            let now = self.machine.clock.mono();
            let kind = if self.frames.is_multiple_of(25) { FrameKind::Idr } else { FrameKind::Delta };
            let unit = unit_at(&self.format, Some(now.0), now.0, kind);
            intake.push(AccessUnit { data: Bytes::from(vec![1; 4000]), ..unit });
            self.frames += 1;
            self.machine.clock.advance(FRAME);
            if n == 12 || n == 24 {
                self.recorder.step();
            }
        }
        while self.retention.step(&BTreeSet::new) == Pace::GoOn {}
    }

    fn protect_all(&self) {
        for row in self.archive.catalog().segments(None, Window::ALL, 0, usize::MAX) {
            self.archive.keep(&row.row.id, &note()).unwrap();
        }
    }
}

#[test]
fn r7_recording_stops_last_and_goes_on_by_itself() {
    let mut rig = Rig::new();
    let clip = Path::new("clips/clip-1-1.mp4");
    let file = rig.machine.disk.open(clip, OpenMode::CreateNew).unwrap();
    file.write_at(0, &[IoSlice::new(&vec![7; 200_000])]).unwrap();
    rig.second();
    rig.machine.clock.advance(Duration::from_mins(11));
    // The oldest segments make room, the clip stays: it is within its quota.
    for _ in 0..60 {
        rig.second();
    }
    assert!(!causes(&rig.archive).contains(&GapCause::DiskFull), "{:?}", causes(&rig.archive));
    assert!(rig.retention.report().removed > 10 && rig.machine.exists(clip));
    assert_eq!(rig.retention.alarms().list(), []);
    // No segment may go: first the clip, then the recording.
    let mut seconds = 0;
    while !causes(&rig.archive).contains(&GapCause::DiskFull) {
        let clip_was_there = rig.machine.exists(clip);
        rig.protect_all();
        rig.second();
        seconds += 1;
        assert!(seconds < 100, "{:?}", rig.retention.report());
        let stopped = causes(&rig.archive).contains(&GapCause::DiskFull);
        assert!(!(stopped && clip_was_there), "recording stopped while a clip could go");
    }
    for _ in 0..30 {
        rig.protect_all();
        rig.second();
    }
    let alarms: Vec<AlarmKind> = rig.retention.alarms().list().iter().map(|alarm| alarm.kind).collect();
    assert_eq!(alarms, [AlarmKind::StorageShort]);
    let protected = rig.archive.catalog().segments(None, Window::ALL, 0, usize::MAX);
    assert!(protected.iter().all(|row| row.row.protected));
    // Somebody lifts some protections; nothing else is done.
    for row in protected.iter().filter(|row| row.row.state.is_settled()).take(6) {
        rig.archive.unkeep(&row.row.id).unwrap();
    }
    let before = rig.machine.clock.mono();
    for _ in 0..20 {
        rig.second();
    }
    let rows = rig.archive.catalog().segments(None, Window::ALL, 0, usize::MAX);
    assert!(rows.iter().any(|row| row.row.start > before), "recording has not gone on: {:?}", rig.retention.report());
    for row in protected.iter().skip(6) {
        assert!(rows.iter().any(|r| r.row.id == row.row.id), "{} was protected", row.row.id);
    }
    assert_eq!(rig.retention.alarms().list(), []);
    assert!(!causes(&rig.archive).contains(&GapCause::Unknown));
    rig.recorder.stop();
    rig.machine.kill();
    let archive = rig.machine.start();
    assert!(!causes(&archive).contains(&GapCause::Unknown), "{:?}", causes(&archive));
    assert_eq!(archive.health().quarantined, 0);
}
