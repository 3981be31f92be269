//! One archive through several lives of the recorder, with everything that is done to it on record.
//!
//! Deterministic: the same seed and the same cuts give the same bytes. World time is nanoseconds since the cameras began.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mos::archive::disk::{Disk, SimDisk, SimOp};
use mos::archive::gaps::GapCause;
use mos::archive::ids::SegmentId;
use mos::archive::{Archive, ArchiveOptions, KeepNote, SegmentState, Window};
use mos::capture::{CaptureControlService, DropMode, Isolation, LensConfig};
use mos::record::{Recorder, RecorderOptions, RecorderStatus};
use mos::retention::{Limits, Pace, Retention};
use mos_hal::clock::{BootId, Clock, ClockQuality, SimClock, UtcMicros};
use mos_hal::media::LensId;

use super::cameras::{Cameras, Mood, source_of};
use super::streams::Stream;

pub(crate) const MS: i64 = 1_000_000;
pub(crate) const S: i64 = 1_000_000_000;
const STEP: Duration = Duration::from_millis(20);
const TICK: i64 = 500 * MS;
const UTC0: i64 = 1_790_000_000_000_000;

/// A small generator (SplitMix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn within(&mut self, from: i64, to: i64) -> i64 {
        from + (self.roll() % (to - from).max(1) as u64) as i64
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.roll().is_multiple_of(n)
    }
}

/// Each lens with its pictures and its sound.
pub(crate) type Lenses = Vec<(LensId, Arc<Stream>, Option<Arc<Stream>>)>;

/// What is done to the box, at a world time.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    BreakOff(usize, Mood),
    Mood(usize, Mood),
    /// The next sync of anything takes this much longer.
    Stall(Duration),
    /// The next sync of the open segment of this lens fails.
    SyncError(usize),
    /// Writes to the open segment of this lens fail.
    WriteError(usize),
    DiskFull,
    RoomAgain,
    StepClock(i64),
    Keep,
    Remove,
    /// Retention makes room down to so many bytes.
    MakeRoom(u64),
    SaveIndex,
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Power goes at this changing operation of the disk, counted from the beginning of the life.
    Cut { op: u64, seed: u64 },
    /// SIGKILL at this operation.
    Kill { op: u64 },
    /// An orderly stop; power goes as soon as it is through.
    Stop,
}

/// A span in which gaps of these causes are right.
#[derive(Clone, Debug)]
pub(crate) struct Window1 {
    pub(crate) lens: Option<usize>,
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) causes: Vec<GapCause>,
    /// A gap of the first cause must be there.
    pub(crate) must: bool,
    /// The life whose end this is.
    pub(crate) ends: Option<usize>,
}

/// A life as it went.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    /// World time of monotonic zero.
    pub(crate) boot: i64,
    pub(crate) began: i64,
    pub(crate) ended: i64,
    pub(crate) end: End,
    pub(crate) ops: u64,
    pub(crate) run: u32,
    /// UTC minus world time in µs, oldest first, each with the world time since when.
    pub(crate) offsets: Vec<(i64, i64)>,
    /// World times at which slow ticks, and deeds that held one up, began, and how long they took.
    pub(crate) slow: Vec<(i64, i64)>,
    /// The orderly stop had begun.
    pub(crate) stopping: bool,
}

impl Life {
    fn note_slow(&mut self, began: i64, ended: i64) {
        if ended - began > 300 * MS {
            self.slow.push((began, ended - began));
        }
    }
}

pub(crate) struct World {
    pub(crate) clock: Arc<SimClock>,
    pub(crate) disk: SimDisk,
    pub(crate) cameras: Cameras,
    pub(crate) lenses: Vec<LensId>,
    with_audio: Vec<bool>,
    pub(crate) lives: Vec<Life>,
    pub(crate) windows: Vec<Window1>,
    pub(crate) kept: BTreeSet<SegmentId>,
    pub(crate) removed: BTreeSet<SegmentId>,
    /// Removals that the power cut interrupted: either outcome is right.
    pub(crate) maybe_removed: BTreeSet<SegmentId>,
    /// Retention has been at work.
    pub(crate) room_made: bool,
    pub(crate) last_status: RecorderStatus,
    boot: i64,
    boots: u8,
    utc_offset: i64,
    dice: Dice,
    options: RecorderOptions,
    archive: Option<Archive>,
}

impl World {
    pub(crate) fn new(seed: u64, lenses: &Lenses, options: RecorderOptions) -> Self {
        let clock = Arc::new(SimClock::new(BootId([1; 16]), UtcMicros(UTC0)));
        let disk = SimDisk::new(clock.clone(), u64::MAX);
        disk.set_latency(SimOp::Sync, Duration::from_millis(12));
        disk.set_latency(SimOp::SyncDir, Duration::from_millis(6));
        Self {
            cameras: Cameras::new(lenses),
            with_audio: lenses.iter().map(|l| l.2.is_some()).collect(),
            lenses: lenses.iter().map(|l| l.0.clone()).collect(),
            clock,
            disk,
            lives: Vec::new(),
            windows: Vec::new(),
            kept: BTreeSet::new(),
            removed: BTreeSet::new(),
            maybe_removed: BTreeSet::new(),
            room_made: false,
            last_status: RecorderStatus::default(),
            boot: 0,
            boots: 1,
            utc_offset: UTC0,
            dice: Dice(seed),
            options,
            archive: None,
        }
    }

    /// World time now.
    pub(crate) fn now(&self) -> i64 {
        self.boot + self.clock.mono().0
    }

    /// The archive of the last life.
    pub(crate) fn archive(&self) -> &Archive {
        self.archive.as_ref().unwrap()
    }

    /// Lives until `length` has passed or the end comes earlier. `deeds` have world times relative to the life's begin.
    pub(crate) fn live(&mut self, length: i64, deeds: &[(i64, Deed)], end: End) {
        let began = self.now();
        self.lenses.iter().for_each(|l| self.cameras.set_mood(l, Mood::Up));
        let ops_before = self.disk.ops();
        if let End::Cut { op, .. } | End::Kill { op } = end {
            self.disk.cut_at(ops_before + op);
        }
        let mut life = Life {
            boot: self.boot,
            began,
            ended: began,
            end,
            ops: 0,
            run: 0,
            offsets: vec![(began, self.utc_offset)],
            slow: Vec::new(),
            stopping: false,
        };
        self.run(&mut life, length, deeds);
        life.ended = self.now();
        life.ops = self.disk.ops() - ops_before;
        self.disk.set_capacity(u64::MAX);
        let cut = self.disk.is_cut();
        let number = self.lives.len();
        match end {
            End::Cut { seed, .. } if cut => {
                // What the camera delivered while the box was busy with its last operation also counts.
                self.cameras.pump(life.ended, self.boot, number, true);
                self.cameras.disconnect();
                self.power_fails(seed);
                self.expect_between(&life, GapCause::PowerLoss);
            }
            End::Kill { .. } if cut => {
                self.cameras.pump(life.ended, self.boot, number, true);
                self.cameras.disconnect();
                self.disk.kill();
                self.pass(Duration::from_millis(400));
                self.expect_between(&life, GapCause::RecorderKilled);
            }
            _ => {
                life.end = End::Stop;
                self.cameras.disconnect();
                self.power_fails(Dice(life.ops).roll());
                self.expect_between(&life, GapCause::Stopped);
            }
        }
        self.lives.push(life);
    }

    /// The box is off for a while; what was not synced is lost, kept or torn.
    fn power_fails(&mut self, seed: u64) {
        self.disk.crash(seed);
        self.pass(Duration::from_millis(1500));
        self.boots += 1;
        self.boot = self.now();
        self.clock.reboot(BootId([self.boots; 16]));
    }

    /// A last life that only looks at what the others left, and records nothing.
    pub(crate) fn look(&mut self) {
        self.live(STEP.as_nanos() as i64, &[], End::Stop);
    }

    fn pass(&mut self, time: Duration) {
        self.clock.advance(time);
        let (now, boot, life) = (self.now(), self.boot, self.lives.len());
        self.cameras.pump(now, boot, life, true);
    }

    fn expect_between(&mut self, life: &Life, cause: GapCause) {
        let slow = life.slow.iter().filter(|(at, took)| life.ended - at - took < 4 * S).map(|s| s.1).sum::<i64>();
        let mut from = if cause == GapCause::Stopped { life.ended - 300 * MS } else { life.ended - S - slow };
        for w in &self.windows {
            // The disk may have been busy when it ended.
            if w.causes[0] == GapCause::DiskSlow && w.from < life.ended && w.to > life.ended {
                from = from.min(w.from);
            }
        }
        if self.windows.iter().any(|w| w.from < life.ended && w.to > from) {
            // How long an absence has lasted is put on record every now and then, and a camera may be silent for two seconds
            // before that says anything.
            from -= 2 * S;
        }
        let mut causes = vec![cause];
        if life.stopping {
            // Lenses whose stop was on record are stopped, whatever came then.
            causes.push(GapCause::Stopped);
        }
        let (to, ends) = (self.now() + 100 * MS, Some(self.lives.len()));
        self.windows.push(Window1 { lens: None, from, to, causes, must: false, ends });
    }

    fn run(&mut self, life: &mut Life, length: i64, deeds: &[(i64, Deed)]) {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let options = ArchiveOptions { sync_threads: 0, load_threads: 0, ..ArchiveOptions::default() };
        let Ok(archive) = Archive::open(disk, clock.clone(), &options) else { return };
        life.run = archive.run().0;
        self.archive = Some(archive.clone());
        let recorder = Recorder::new(archive.clone(), clock.clone(), &self.options, &self.lenses);
        let lenses = self.lenses.iter().zip(&self.with_audio).map(|(id, audio)| {
            let (id, source) = (id.clone(), source_of(id));
            let config = LensConfig { id, source, audio: *audio, frames: None, isolation: Isolation::None };
            let intake = recorder.intake(&config.id).unwrap();
            (config, intake)
        });
        let capture = CaptureControlService::new(
            Arc::new(self.cameras.clone()),
            None,
            &clock,
            lenses.collect(),
            DropMode::InPlace,
        );
        let (mut next_tick, mut next_look, mut loaded, mut next_deed) = (life.began + TICK, life.began, false, 0);
        while self.now() < life.began + length {
            self.clock.advance(STEP);
            while let Some((at, deed)) = deeds.get(next_deed).filter(|d| life.began + d.0 <= self.now()) {
                next_deed += 1;
                let before = self.now();
                self.act(life, &archive, &recorder, deed, life.began + at);
                life.note_slow(before, self.now());
                if self.disk.is_cut() {
                    return;
                }
                // What came while it held everything up came before the next deed.
                self.cameras.pump(self.now(), self.boot, self.lives.len(), false);
            }
            self.cameras.pump(self.now(), self.boot, self.lives.len(), false);
            if self.now() >= next_look {
                next_look += TICK;
                capture.step();
            }
            if self.now() >= next_tick {
                let before = self.now();
                recorder.step();
                life.note_slow(before, self.now());
                next_tick = (next_tick + TICK).max(self.now());
                self.cameras.pump(self.now(), self.boot, self.lives.len(), self.disk.is_cut());
                self.last_status = recorder.status();
                if self.disk.is_cut() {
                    return;
                }
                self.check_counters();
            }
            if !loaded && self.now() >= life.began + length.min(1200 * MS) {
                loaded = true;
                let done = archive.load();
                if self.disk.is_cut() {
                    return;
                }
                done.expect("an archive after a power cut loads");
            }
        }
        life.stopping = true;
        // What it has not made durable when it returns is lost.
        recorder.stop();
        self.last_status = recorder.status();
        self.check_counters();
        capture.stop();
    }

    /// R1 of the recorder, at every tick.
    fn check_counters(&self) {
        for (lens, l) in &self.last_status.lenses {
            let dropped: u64 = l.dropped.values().sum();
            assert_eq!(l.captured, l.stored + l.pending + dropped, "R1 of {lens}: {l:?}");
        }
    }

    fn act(&mut self, life: &mut Life, archive: &Archive, recorder: &Recorder, deed: &Deed, at: i64) {
        match deed {
            Deed::BreakOff(lens, mood) => self.cameras.break_off(&self.lenses[*lens], *mood),
            Deed::Mood(lens, mood) => self.cameras.set_mood(&self.lenses[*lens], *mood),
            Deed::Stall(time) => self.stall(*time),
            Deed::SyncError(lens) => self.fail_open(recorder, *lens, SimOp::Sync, libc::EIO),
            Deed::WriteError(lens) => self.fail_open(recorder, *lens, SimOp::Write, libc::EIO),
            Deed::DiskFull => {
                let space = self.disk.space().unwrap();
                self.disk.set_capacity(space.total - space.free);
            }
            Deed::RoomAgain => self.disk.set_capacity(u64::MAX),
            Deed::StepClock(us) => {
                let utc = UtcMicros(self.clock.utc().0 + us);
                self.clock.step_utc(utc, ClockQuality::Ntp);
                self.utc_offset += us;
                life.offsets.push((at, self.utc_offset));
            }
            Deed::Keep => self.keep(archive),
            Deed::Remove => self.remove(archive),
            Deed::MakeRoom(bytes) => {
                self.room_made = true;
                let limits = Limits { max_bytes: Some(*bytes), ..Limits::default() };
                let retention = Retention::new(archive.clone(), self.clock.clone(), limits, None);
                while retention.step(&BTreeSet::new) == Pace::GoOn && !self.disk.is_cut() {}
            }
            Deed::SaveIndex => {
                // A snapshot that fails costs time at the next start, nothing else.
                let _ = archive.snapshot_index();
            }
        }
    }

    /// Whether anything is left of a lens in a life. Retention removes the folder of the oldest run with its last segment.
    pub(crate) fn is_remembered(&self, lens: usize, life: &Life) -> bool {
        let folder = format!("segments/{}/{}", self.lenses[lens], life.run);
        let account = |path: &Path| path.extension().is_some_and(|e| e == "jsonl" || e == "mp4");
        self.disk.files().iter().any(|(path, _)| path.starts_with(&folder) && account(path))
    }

    fn stall(&mut self, time: Duration) {
        // A tick writes and syncs several files; one of the next operations is slow.
        let ahead = self.dice.within(0, 8) as u64;
        self.disk.stall_at(self.disk.ops() + ahead, time);
    }

    fn fail_open(&mut self, recorder: &Recorder, lens: usize, op: SimOp, errno: i32) {
        let open = recorder.status().lenses.get(&self.lenses[lens]).and_then(|l| l.open.clone());
        if let Some(id) = open {
            self.disk.fail(op, &id.media_path().to_string_lossy(), errno, 1);
        }
    }

    fn closed(&mut self, archive: &Archive) -> Option<SegmentId> {
        let rows = archive.catalog().segments(None, Window::ALL, 0, usize::MAX);
        let ids: Vec<SegmentId> = rows
            .into_iter()
            .filter(|r| matches!(r.row.state, SegmentState::Closed | SegmentState::Recovered))
            .map(|r| r.row.id)
            .filter(|id| !self.kept.contains(id))
            .collect();
        if ids.is_empty() { None } else { ids.get(self.dice.within(0, ids.len() as i64) as usize).cloned() }
    }

    fn keep(&mut self, archive: &Archive) {
        let Some(id) = self.closed(archive) else { return };
        let note = KeepNote { who: "test".into(), why: "proof".into() };
        if archive.keep(&id, &note).is_ok() {
            self.kept.insert(id);
        }
    }

    fn remove(&mut self, archive: &Archive) {
        let Some(id) = self.closed(archive) else { return };
        match archive.remove(&id) {
            Ok(()) => self.removed.insert(id),
            Err(_) => self.maybe_removed.insert(id),
        };
    }

    /// All media files by their path.
    pub(crate) fn media(&self) -> Vec<(String, Vec<u8>)> {
        let is_media = |p: &Path| p.starts_with("segments") && p.extension().is_some_and(|e| e == "mp4");
        let files = self.disk.files().into_iter().filter(|(p, _)| is_media(p));
        files.map(|(p, b)| (p.to_string_lossy().into_owned(), b)).collect()
    }
}
