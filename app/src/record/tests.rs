#![allow(clippy::unwrap_used)]

mod backlog;
mod hostile;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mos_hal::clock::{BootId, Clock, Mono, SimClock, UtcMicros};
use mos_hal::media::{AccessUnit, AudioFormat, FrameKind, LensId, TrackFormat};
use mos_hal::timeline::Timeline;

use super::intake::LeftOut;
use super::repair::TimeFault;
use super::testing::{MS, order, unit_at, video_format};
use super::*;
use crate::archive::disk::{Disk, OpenMode, SimDisk, SimOp};
use crate::archive::gaps::{Gap, GapCause};
use crate::archive::{Archive, ArchiveOptions, Row, SegmentState, Window};

const STEP: i64 = 40;

struct Rig {
    clock: Arc<SimClock>,
    disk: SimDisk,
    archive: Archive,
    recorder: Recorder,
    lens: LensId,
}

fn rig(segment_seconds: u64) -> Rig {
    let clock = Arc::new(SimClock::new(BootId([9; 16]), UtcMicros(1_790_000_000_000_000)));
    let disk = SimDisk::new(clock.clone(), u64::MAX);
    let options = ArchiveOptions { sync_threads: 0, ..ArchiveOptions::default() };
    let as_clock: Arc<dyn Clock> = clock.clone();
    let archive = Archive::open(Arc::new(disk.clone()), as_clock.clone(), &options).unwrap();
    archive.load().unwrap();
    let lens = LensId::new("road").unwrap();
    let segment_length = Duration::from_secs(segment_seconds);
    let options = RecorderOptions { segment_length, ..RecorderOptions::default() };
    let recorder = Recorder::new(archive.clone(), as_clock, &options, std::slice::from_ref(&lens));
    Rig { clock, disk, archive, recorder, lens }
}

impl Rig {
    fn push(&self, unit: AccessUnit) {
        self.recorder.intake(&self.lens).unwrap().push(unit);
    }

    /// Frame number `n` of a stream of 25 frames a second; time follows it and ticks come by.
    fn frame(&self, format: &Arc<TrackFormat>, n: i64, kind: FrameKind) {
        self.frame_at(format, n, n, kind);
    }

    /// Frame `n` in output order, delivered as frame `slot` in decoding order.
    fn frame_at(&self, format: &Arc<TrackFormat>, n: i64, slot: i64, kind: FrameKind) {
        self.until(slot * STEP);
        self.push(unit_at(format, Some(n * STEP * MS), slot * STEP * MS, kind));
    }

    fn until(&self, ms: i64) {
        while self.clock.mono().0 < ms * MS {
            self.clock.advance(Duration::from_millis(20));
            if self.clock.mono().0 % (500 * MS) == 0 {
                self.recorder.step();
                self.balance();
            }
        }
    }

    /// R1.
    fn balance(&self) {
        let status = self.recorder.status();
        let l = &status.lenses[&self.lens];
        assert_eq!(l.captured, l.stored + l.pending + l.dropped.values().sum::<u64>(), "{l:?}");
    }

    fn stop(&self) -> StopReport {
        let report = self.recorder.stop();
        self.balance();
        assert_eq!(self.recorder.status().lenses[&self.lens].pending, 0);
        report
    }

    fn rows(&self) -> Vec<Row> {
        self.archive.catalog().segments(None, Window::ALL, 0, 1000).into_iter().map(|r| r.row).collect()
    }

    /// Start and end in milliseconds, and cause.
    fn gaps(&self) -> Vec<(i64, i64, GapCause)> {
        let mapping = self.archive.mapping();
        let ms = |utc| mapping.mono_of(utc).0 / MS;
        let gaps = self.archive.catalog().gaps(None, Window::ALL);
        gaps.iter().map(|g| (ms(g.start_ts), ms(g.end_ts), g.cause)).collect()
    }

    fn spans(&self) -> Vec<(i64, i64, u32)> {
        self.rows().iter().map(|r| (r.start.0 / MS, r.end.0 / MS, r.frames)).collect()
    }
}

fn gop(n: i64, length: i64) -> FrameKind {
    if n % length == 0 { FrameKind::Idr } else { FrameKind::Delta }
}

#[test]
fn segments_follow_one_another_without_a_hole() {
    let rig = rig(2);
    let format = video_format(0);
    (0..150).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    let report = rig.stop();
    assert_eq!((report.closed, report.left_open), (1, 0));
    assert_eq!(rig.spans(), [(0, 2000, 50), (2000, 4000, 50), (4000, 6000, 50)]);
    assert!(rig.rows().iter().all(|r| r.state == SegmentState::Closed));
    assert_eq!(rig.gaps(), []);
}

#[test]
fn b4_new_parameter_sets_begin_a_new_segment() {
    let rig = rig(60);
    let (before, after) = (video_format(0), video_format(1));
    (0..40).for_each(|n| rig.frame(&before, n, gop(n, 25)));
    // In force without a keyframe: nothing can be decoded up to the next one.
    (40..50).for_each(|n| rig.frame(&after, n, FrameKind::Delta));
    (50..80).for_each(|n| rig.frame(&after, n, gop(n, 25)));
    rig.stop();
    assert_eq!(rig.spans(), [(0, 1600, 40), (2000, 3200, 30)]);
    assert_eq!(rig.gaps(), [(1600, 2000, GapCause::PacketLoss)]);
}

#[test]
fn l2_a_loss_is_a_gap_up_to_the_next_keyframe() {
    let rig = rig(60);
    let format = video_format(0);
    (0..30).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    rig.until(33 * STEP);
    let lossy =
        AccessUnit { discontinuity: true, ..unit_at(&format, Some(33 * STEP * MS), 33 * STEP * MS, FrameKind::Delta) };
    rig.push(lossy);
    (34..75).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    rig.stop();
    assert_eq!(rig.gaps(), [(1200, 2000, GapCause::PacketLoss)]);
    assert_eq!(rig.spans(), [(0, 3000, 55)]);
    assert_eq!(rig.recorder.status().lenses[&rig.lens].dropped[&GapCause::PacketLoss], 17);
}

#[test]
fn pictures_that_the_encoder_was_too_slow_for_are_a_gap_between_pictures_that_are_there() {
    let rig = rig(60);
    let format = video_format(0);
    let left_out = |from: i64, to: i64| {
        let at = |n: i64| Mono(n * STEP * MS);
        let news =
            LeftOut { from: at(from), to: at(to), pictures: (to - from).unsigned_abs(), cause: GapCause::EncoderSlow };
        rig.recorder.intake(&rig.lens).unwrap().left_out(news);
    };
    // Told while pictures of before are still on their way.
    (0..35).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    left_out(38, 60);
    (35..38).chain(60..70).for_each(|n| rig.frame(&format, n, if n == 50 { FrameKind::Idr } else { FrameKind::Delta }));
    // The camera breaks off before the next picture comes: all of it is one absence.
    left_out(70, 75);
    rig.recorder.intake(&rig.lens).unwrap().down(GapCause::CameraBrokeOff, Mono(75 * STEP * MS));
    (100..130).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    rig.stop();
    assert_eq!(
        rig.gaps(),
        [(38 * STEP, 60 * STEP, GapCause::EncoderSlow), (70 * STEP, 100 * STEP, GapCause::CameraBrokeOff)]
    );
    let status = rig.recorder.status().lenses[&rig.lens].clone();
    assert_eq!(status.dropped[&GapCause::EncoderSlow], 27);
    assert_eq!((status.captured, status.stored), (105, 78));
}

#[test]
fn b2_an_open_source_repeats_the_group_at_the_border() {
    let rig = rig(2);
    let format = video_format(2);
    // CRA, then two leading pictures that refer back over it, then the rest of ten frames.
    let mut slot = 0;
    for group in 0..20 {
        let first = group * 10;
        let leading = if group == 0 { 0 } else { 2 };
        rig.frame_at(&format, first + leading, slot, FrameKind::Cra);
        for n in 0..leading {
            rig.frame_at(&format, first + n, slot + n + 1, FrameKind::Rasl);
        }
        for n in leading + 1..10 {
            rig.frame_at(&format, first + n, slot + n, FrameKind::Delta);
        }
        slot += 10;
    }
    rig.stop();
    let rows = rig.rows();
    assert!(rows.len() >= 3, "{rows:?}");
    assert_eq!(rig.gaps(), []);
    assert_eq!(rows.iter().map(|r| i64::from(r.frames)).sum::<i64>(), 200);
    for pair in rows.windows(2) {
        let apart = pair[1].start.since(pair[0].end).abs();
        assert!(apart <= STEP * MS / 4, "{} and {}: {apart} ns apart", pair[0].id, pair[1].id);
    }
}

#[test]
fn b3_a_stream_without_keyframes_is_asked_for_one_and_capped() {
    let rig = rig(5);
    let format = video_format(0);
    (0..500).for_each(|n| rig.frame(&format, n, if n == 0 { FrameKind::Idr } else { FrameKind::Delta }));
    assert!(rig.recorder.intake(&rig.lens).unwrap().keyframe_wanted());
    rig.stop();
    assert_eq!(rig.spans(), [(0, 10_000, 250), (10_000, 20_000, 250)]);
}

#[test]
fn a_start_in_the_middle_of_a_group_waits_for_its_keyframe() {
    let rig = rig(5);
    let format = video_format(0);
    (7..60).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    rig.stop();
    assert_eq!(rig.gaps(), [(0, 1000, GapCause::Starting)]);
    assert_eq!(rig.spans(), [(1000, 2400, 35)]);
}

#[test]
fn times_beyond_repair_cost_no_picture_and_never_a_stop() {
    let rig = rig(60);
    let format = video_format(0);
    for n in 0..150 {
        rig.until(n * STEP);
        let wild = (40..90).contains(&n);
        let pts = if wild { (n * 7919 % 97) * 3_600_000 } else { n * STEP };
        rig.push(unit_at(&format, Some(pts * MS), n * STEP * MS, gop(n, 25)));
    }
    rig.stop();
    assert_eq!(rig.gaps(), []);
    let status = rig.recorder.status().lenses[&rig.lens].clone();
    assert_eq!(rig.rows().iter().map(|r| r.frames).sum::<u32>(), 150);
    assert!(status.repaired[&TimeFault::Jump] >= 30, "{:?}", status.repaired);
    let last = rig.rows().last().unwrap().end.0 / MS;
    assert!((5_900..6_100).contains(&last), "footage ends at {last}");
}

#[test]
fn what_a_server_sends_at_once_is_stored_picture_by_picture() {
    for held in [120, 1_900, 2_100, 5_000, 9_000] {
        let rig = rig(2);
        let format = video_format(2);
        let mut timeline = Timeline::new();
        for gop in 0..20 {
            // An IDR picture, then groups of four with a pyramid of pictures out of order, as x264 makes them.
            for (slot, n) in order(25, 3, true).into_iter().enumerate() {
                let kind = if n == 0 { FrameKind::Idr } else { FrameKind::Delta };
                let (n, slot) = (gop * 25 + n, gop * 25 + slot as i64);
                let arrival = held.max(slot * STEP + 120);
                rig.until(arrival);
                let pts = timeline.place(0, n * STEP * MS, Mono(arrival * MS));
                rig.push(unit_at(&format, Some(pts.0), arrival * MS, kind));
            }
        }
        rig.stop();
        let status = rig.recorder.status().lenses[&rig.lens].clone();
        assert_eq!(rig.rows().iter().map(|r| r.frames).sum::<u32>(), 500, "held back for {held} ms: {status:?}");
        assert!(status.repaired.is_empty(), "held back for {held} ms: {status:?}");
        assert_eq!(rig.gaps(), [(0, held, GapCause::Starting)]);
    }
}

#[test]
fn l3_a_failed_sync_costs_one_gap_and_a_new_segment() {
    let rig = rig(60);
    let format = video_format(0);
    (0..40).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    rig.disk.fail(SimOp::Sync, "road/1/0.mp4", libc::EIO, 1);
    (40..150).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    rig.stop();
    let status = rig.recorder.status().lenses[&rig.lens].clone();
    assert_eq!(status.abandoned, 1);
    // Durable up to the tick at 1.5 s; the tick at 2 s failed, just before the keyframe of 2 s came.
    let gaps = rig.gaps();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!((gaps[0].1, gaps[0].2), (2000, GapCause::DiskError));
    assert!((1400..=1520).contains(&gaps[0].0), "{gaps:?}");
    assert_eq!(rig.rows().last().unwrap().start, Mono(2000 * MS));
}

/// A disk that takes files and makes none of them durable must not be filled with beginnings, one a second for days.
#[test]
fn l3_while_syncs_keep_failing_segments_begin_ever_more_rarely() {
    let rig = rig(60);
    let format = video_format(0);
    (0..40).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    rig.disk.fail(SimOp::Sync, ".mp4", libc::EIO, 12);
    (40..4000).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    rig.stop();
    let status = rig.recorder.status().lenses[&rig.lens].clone();
    assert_eq!(status.abandoned, 12);
    let gaps = rig.gaps();
    assert!(gaps.len() == 1 && gaps[0].2 == GapCause::DiskError, "{gaps:?}");
    // Twelve attempts take a minute and more, not twelve seconds; then it goes on by itself.
    assert!((60_000..80_000).contains(&gaps[0].1), "{gaps:?}");
    assert!(rig.rows().iter().any(|r| r.start == Mono(gaps[0].1 * MS)), "{gaps:?}");
}

#[test]
fn l3_a_full_disk_is_a_gap_and_recording_resumes_by_itself() {
    let rig = rig(60);
    let format = video_format(0);
    (0..40).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    let space = rig.disk.space().unwrap();
    rig.disk.set_capacity(space.total - space.free);
    // A write goes through as long as the last block has room.
    (40..200).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    rig.disk.set_capacity(u64::MAX);
    (200..500).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    rig.stop();
    let gaps = rig.gaps();
    assert!(gaps.len() == 1 && gaps[0].2 == GapCause::DiskFull, "{gaps:?}");
    assert!(gaps[0].0 >= 1480 && gaps[0].1 <= 17_000, "{gaps:?}");
    let rows = rig.rows();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|r| r.state == SegmentState::Closed), "{rows:?}");
}

#[test]
fn a_slow_disk_is_told_until_it_is_fast_again() {
    let rig = rig(60);
    let format = video_format(0);
    (0..40).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    rig.disk.stall_at(rig.disk.ops() + 1, Duration::from_secs(1));
    rig.until(2000);
    let status = rig.recorder.status();
    assert!(status.durability_degraded && status.worst_sync >= Duration::from_secs(1), "{status:?}");
    assert_eq!(status.slow_syncs, 1);
    (75..400).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    assert!(!rig.recorder.status().durability_degraded);
    rig.stop();
}

#[test]
fn sound_joins_at_a_keyframe_and_stays_with_its_segment() {
    let rig = rig(2);
    let video = video_format(0);
    let config = Bytes::from_static(&[0x14, 0x08]);
    let audio = Arc::new(TrackFormat::Audio(AudioFormat::Aac { sample_rate: 16_000, channels: 1, config }));
    let mut sound = 0;
    for n in 0..150 {
        rig.frame(&video, n, gop(n, 25));
        // Sound comes 100 ms late and from 1 s on.
        while sound * 64 + 100 <= n * STEP {
            if sound * 64 >= 1000 {
                rig.push(unit_at(&audio, Some(sound * 64 * MS), n * STEP * MS, FrameKind::Audio));
            }
            sound += 1;
        }
    }
    rig.stop();
    // The first keyframe after the first sound begins a segment that has both.
    assert_eq!(rig.spans(), [(0, 2000, 50), (2000, 4000, 50), (4000, 6000, 50)]);
    let status = rig.recorder.status().lenses[&rig.lens].clone();
    let lost: u64 = status.dropped.values().sum();
    assert!(lost <= 16, "only sound from before the first segment with sound is left out: {:?}", status.dropped);
}

#[test]
fn frames_that_reordering_still_owes_at_the_end_are_a_gap() {
    let rig = rig(60);
    let format = video_format(1);
    let mut slot = 0;
    rig.frame_at(&format, 0, slot, FrameKind::Idr);
    for group in 0..10 {
        for n in [4, 1, 2, 3] {
            slot += 1;
            // The last group's B-frames never come.
            if group < 9 || n == 4 {
                rig.frame_at(&format, group * 4 + n, slot, FrameKind::Delta);
            }
        }
    }
    rig.stop();
    assert_eq!(rig.gaps(), [(37 * STEP, 40 * STEP, GapCause::Stopped)]);
}

#[test]
fn stop_is_prompt_and_final() {
    let rig = rig(60);
    rig.disk.set_latency(SimOp::Sync, Duration::from_millis(20));
    let format = video_format(0);
    (0..60).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    let report = rig.stop();
    assert!(report.took > Duration::ZERO && report.took < Duration::from_millis(500), "{report:?}");
    assert_eq!(rig.recorder.stop(), report);
    rig.push(unit_at(&format, Some(9_000 * MS), 9_000 * MS, FrameKind::Idr));
    rig.recorder.step();
    assert_eq!(rig.spans(), [(0, 2400, 60)]);
}

#[test]
fn what_a_stop_returns_from_survives_a_power_cut_also_when_a_sync_failed_on_the_way() {
    for seed in 0..40 {
        let rig = rig(60);
        let format = video_format(0);
        (0..60).for_each(|n| rig.frame(&format, n, gop(n, 25)));
        if seed % 2 == 1 {
            rig.disk.fail(SimOp::Sync, "gaps.jsonl", libc::EIO, 1);
        }
        assert_eq!(rig.stop().left_open, 0);
        rig.disk.crash(seed);
        rig.clock.advance(Duration::from_secs(10));
        let end = rig.clock.mono().0 / MS;
        let as_clock: Arc<dyn Clock> = rig.clock.clone();
        let archive = Archive::open(Arc::new(rig.disk.clone()), as_clock, &ArchiveOptions::default()).unwrap();
        archive.load().unwrap();
        let (start, ready) = (rig.clock.mono(), rig.clock.mono() + Duration::from_secs(1));
        archive.gaps(&rig.lens).unwrap().append(Gap { start, end: ready, cause: GapCause::Starting });
        let next = Rig { archive, ..rig };
        assert_eq!(next.spans(), [(0, 2400, 60)], "{seed}");
        assert_eq!(next.rows()[0].state, SegmentState::Closed, "{seed}");
        assert_eq!(next.gaps(), [(2400, end, GapCause::Stopped), (end, end + 1000, GapCause::Starting)], "{seed}");
    }
}
