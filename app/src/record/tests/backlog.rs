//! Behind a tick that took seconds: what waited is written in turns, as if each tick had come in time (W1, L4).

use super::*;

const LENSES: [&str; 2] = ["cabin", "road"];
/// Frames up to the slow tick, and behind it.
const BEFORE: i64 = 75;
const WAITING: i64 = 125;

/// One life of a recorder of two cameras.
struct Life {
    archive: Archive,
    recorder: Recorder,
    lenses: Vec<LensId>,
    format: Arc<TrackFormat>,
}

impl Life {
    fn begin(clock: &Arc<SimClock>, disk: &SimDisk) -> Self {
        let options = ArchiveOptions { sync_threads: 0, ..ArchiveOptions::default() };
        let as_clock: Arc<dyn Clock> = clock.clone();
        let archive = Archive::open(Arc::new(disk.clone()), as_clock.clone(), &options).unwrap();
        archive.load().unwrap();
        let lenses: Vec<LensId> = LENSES.iter().map(|name| LensId::new(name).unwrap()).collect();
        let options = RecorderOptions { segment_length: Duration::from_secs(2), ..RecorderOptions::default() };
        let recorder = Recorder::new(archive.clone(), as_clock, &options, &lenses);
        Self { archive, recorder, lenses, format: video_format(0) }
    }

    /// Frame `n` of both cameras.
    fn frame(&self, n: i64) {
        for lens in &self.lenses {
            let at = n * STEP * MS;
            self.recorder.intake(lens).unwrap().push(unit_at(&self.format, Some(at), at, gop(n, 25)));
        }
    }

    /// Frames as they come, with a tick in each half second of the clock.
    fn frames(&self, clock: &SimClock, range: std::ops::Range<i64>) {
        let half = || clock.mono().0 / (500 * MS);
        for n in range {
            while clock.mono().0 < n * STEP * MS {
                let before = half();
                clock.advance(Duration::from_millis(20));
                if half() > before {
                    self.recorder.step();
                }
            }
            self.frame(n);
        }
    }

    /// Up to the end of a tick whose first sync took five seconds.
    fn behind_a_slow_tick(clock: &Arc<SimClock>, disk: &SimDisk) -> Self {
        let life = Self::begin(clock, disk);
        life.frames(clock, 0..BEFORE);
        disk.set_latency(SimOp::Sync, Duration::from_millis(1));
        // Behind the fragments of both lenses.
        disk.stall_at(disk.ops() + 2, Duration::from_secs(5));
        clock.advance(Duration::from_millis(20));
        life.recorder.step();
        assert!(life.recorder.status().last_sync >= Duration::from_secs(5), "{:?}", life.recorder.status());
        (BEFORE..BEFORE + WAITING).for_each(|n| life.frame(n));
        life
    }
}

fn machine() -> (Arc<SimClock>, SimDisk) {
    let clock = Arc::new(SimClock::new(BootId([9; 16]), UtcMicros(1_790_000_000_000_000)));
    let disk = SimDisk::new(clock.clone(), u64::MAX);
    (clock, disk)
}

#[test]
fn w1_a_recorder_that_is_killed_behind_a_slow_tick_takes_no_waiting_lens_for_a_silent_camera() {
    let mut operations = 0;
    loop {
        let (clock, disk) = machine();
        let life = Life::behind_a_slow_tick(&clock, &disk);
        disk.cut_at(disk.ops() + operations);
        life.recorder.step();
        if !disk.is_cut() {
            break;
        }
        disk.kill();
        drop(life);
        clock.advance(Duration::from_millis(400));
        let life = Life::begin(&clock, &disk);
        let now = clock.mono().0 / STEP / MS / 25 * 25 + 25;
        life.frames(&clock, now..now + 30);
        let gaps = life.archive.catalog().gaps(None, Window::ALL);
        assert!(gaps.iter().any(|gap| gap.cause == GapCause::RecorderKilled), "operation {operations}: {gaps:?}");
        let strange: Vec<_> =
            gaps.iter().filter(|gap| !matches!(gap.cause, GapCause::RecorderKilled | GapCause::Starting)).collect();
        assert!(strange.is_empty(), "operation {operations}: {strange:?}");
        operations += 1;
    }
    assert!(operations > 20, "{operations} operations were not many turns");
}

#[test]
fn w1_all_turns_are_of_one_commit() {
    let (clock, disk) = machine();
    let life = Life::behind_a_slow_tick(&clock, &disk);
    let (operations, before) = (disk.ops(), clock.mono());
    life.recorder.step();
    let syncs = clock.mono().since(before) / MS;
    assert_eq!(syncs, 8, "as many as with one fragment for all that waited");
    let operations = disk.ops() - operations;
    assert!((50..60).contains(&operations), "{operations} operations: 12 more than with one fragment");
    assert_eq!(life.recorder.status().slow_syncs, 1);
}

/// Segments and gaps of the same stream, with or without ticks while the camera breaks off and comes back.
#[allow(clippy::type_complexity, reason = "as the rig gives them")]
fn with_ticks(in_time: bool) -> (Vec<(i64, i64, u32)>, Vec<(i64, i64, GapCause)>) {
    let rig = rig(2);
    let format = video_format(0);
    let intake = rig.recorder.intake(&rig.lens).unwrap();
    let wait = |ms: i64| {
        if in_time {
            rig.until(ms);
        }
    };
    (0..60).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    let push = |n: i64| {
        wait(n * STEP);
        rig.push(unit_at(&format, Some(n * STEP * MS), n * STEP * MS, gop(n, 25)));
    };
    (60..80).for_each(push);
    wait(3300);
    intake.down(GapCause::CameraBrokeOff, Mono(3300 * MS));
    wait(4500);
    intake.opened(Mono(4500 * MS));
    (125..200).for_each(push);
    if !in_time {
        rig.clock.advance(Duration::from_millis(5600));
        rig.recorder.step();
    }
    (200..225).for_each(|n| rig.frame(&format, n, gop(n, 25)));
    rig.stop();
    let mut gaps: Vec<(i64, i64, GapCause)> = Vec::new();
    for gap in rig.gaps() {
        match gaps.last_mut() {
            Some(last) if last.1 == gap.0 && last.2 == gap.2 => last.1 = gap.1,
            _ => gaps.push(gap),
        }
    }
    (rig.spans(), gaps)
}

#[test]
fn l4_what_waited_is_accounted_for_as_if_in_time() {
    let in_time = with_ticks(true);
    assert!(in_time.1.iter().any(|gap| gap.2 == GapCause::CameraBrokeOff), "{in_time:?}");
    assert_eq!(with_ticks(false), in_time);
}
