//! The writer: one thread, one tick for all lenses.
//!
//! A tick drains every intake, writes one fragment per lens, commits everything written in parallel, and publishes what
//! became durable; closes ride on ticks. Tests call [`Recorder::step`] with a simulated clock and no thread.
//!
//! - W1: behind a tick that took long, what waited is written in turns: half a second of every lens, then the next half second of
//!   every lens; the last turn has less than two. So wherever the recorder is killed, no lens's file is a second behind another's
//!   because it had to wait, and a fragment stays short. One commit is for all turns: a disk that has just been slow gets no more
//!   syncs, and what a power cut would cost is not at stake for longer.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mos_hal::clock::{Clock, Mono};
use mos_hal::media::LensId;

use crate::archive::Archive;
use crate::archive::gaps::GapCause;
use crate::wall_clock::WallClock;

use super::intake::Intake;
use super::line::Line;
use super::log_limit::{LogLimit, and_more};
use super::status::{RecorderStatus, StopReport};

/// From tick to tick: half of the second that a power cut may cost.
pub const TICK: Duration = Duration::from_millis(500);
/// While a sync takes at most this, a power cut costs at most a second.
pub const SYNC_LIMIT: Duration = Duration::from_millis(300);
/// After a slow sync this many fast ones end the warning.
const RECOVERED_AFTER: u32 = 20;
/// Ticks that a stop spends on closes before it leaves them to recovery.
const STOP_TICKS: usize = 4;

/// How to record.
#[derive(Clone, Debug)]
pub struct RecorderOptions {
    /// Wanted length of a segment.
    pub segment_length: Duration,
    /// Most bytes waiting per lens while the disk is busy.
    pub intake_bytes: usize,
}

impl Default for RecorderOptions {
    fn default() -> Self {
        Self { segment_length: Duration::from_secs(30), intake_bytes: 16 << 20 }
    }
}

/// The recorder's handle. Cheap to clone; the recording ends with [`Recorder::stop`].
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

struct Shared {
    archive: Archive,
    clock: Arc<dyn Clock>,
    wall: WallClock,
    options: RecorderOptions,
    intakes: Mutex<BTreeMap<LensId, Arc<Intake>>>,
    writer: Mutex<Writer>,
    status: Mutex<RecorderStatus>,
    stopping: Mutex<bool>,
    wake: Condvar,
}

struct Writer {
    lines: Vec<Line>,
    /// Of lenses that were taken out, until their segments are closed.
    parting: Vec<Line>,
    /// Lenses that were taken out of this run, and when.
    left: BTreeMap<LensId, Mono>,
    /// When the intakes were last drained.
    drained: Mono,
    fast_syncs: u32,
    stopped: Option<StopReport>,
    log: LogLimit<&'static str>,
}

impl Recorder {
    /// A recorder for these lenses; every one of them is accounted for from now on. Nothing runs yet.
    #[must_use]
    pub fn new(archive: Archive, clock: Arc<dyn Clock>, options: &RecorderOptions, lenses: &[LensId]) -> Self {
        let now = clock.mono();
        let intakes: BTreeMap<_, _> =
            lenses.iter().map(|l| (l.clone(), Arc::new(Intake::new(options.intake_bytes)))).collect();
        let line = |(lens, intake): (&LensId, &Arc<Intake>)| {
            Line::new(lens.clone(), Arc::clone(intake), archive.clone(), options.segment_length, now)
        };
        let writer = Writer {
            lines: intakes.iter().map(line).collect(),
            parting: Vec::new(),
            left: BTreeMap::new(),
            drained: now,
            fast_syncs: 0,
            stopped: None,
            log: LogLimit::new(Duration::from_mins(1)),
        };
        let shared = Shared {
            wall: WallClock::new(Arc::clone(&clock)),
            archive,
            clock,
            options: options.clone(),
            intakes: Mutex::new(intakes),
            writer: Mutex::new(writer),
            status: Mutex::default(),
            stopping: Mutex::new(false),
            wake: Condvar::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Where the source of a lens delivers.
    #[must_use]
    pub fn intake(&self, lens: &LensId) -> Option<Arc<Intake>> {
        lock(&self.shared.intakes).get(lens).cloned()
    }

    /// Records one more lens from now on; gives where its source delivers. What is missing since it was taken out of this run
    /// is a gap `capture_stopped`. `None` once the recording has stopped.
    #[must_use]
    pub fn add(&self, lens: &LensId) -> Option<Arc<Intake>> {
        let shared = &*self.shared;
        let mut writer = lock(&shared.writer);
        if writer.stopped.is_some() || self.is_stopping() {
            return None;
        }
        if let Some(intake) = self.intake(lens) {
            return Some(intake);
        }
        let intake = Arc::new(Intake::new(shared.options.intake_bytes));
        let now = shared.clock.mono();
        let since = writer.left.remove(lens);
        if let Some(since) = since {
            intake.down(GapCause::CaptureStopped, since);
            intake.down(GapCause::Starting, now);
        }
        let (archive, length) = (shared.archive.clone(), shared.options.segment_length);
        writer.lines.push(Line::new(lens.clone(), Arc::clone(&intake), archive, length, since.unwrap_or(now)));
        lock(&shared.intakes).insert(lens.clone(), Arc::clone(&intake));
        Some(intake)
    }

    /// Takes a lens out: what it has delivered is durable on return, as far as the disk lets it, and its segment is closed by
    /// the next ticks. Its footage stays.
    pub fn remove(&self, lens: &LensId) {
        let shared = &*self.shared;
        let mut writer = lock(&shared.writer);
        let Some(at) = writer.lines.iter().position(|line| line.lens() == lens) else { return };
        if writer.stopped.is_some() {
            return;
        }
        if let Some(intake) = lock(&shared.intakes).remove(lens) {
            intake.close();
        }
        let now = shared.clock.mono();
        writer.write(now);
        let mut line = writer.lines.remove(at);
        line.finish();
        writer.parting.push(line);
        self.commit(&mut writer, now);
        if let Some(line) = writer.parting.last_mut() {
            line.note_stop(now);
        }
        writer.left.insert(lens.clone(), now);
        lock(&shared.status).lenses.remove(lens);
    }

    /// Starts the writer's thread; it ends after [`Recorder::stop`].
    pub fn spawn(&self) -> std::io::Result<std::thread::JoinHandle<()>> {
        let recorder = self.clone();
        std::thread::Builder::new().name("record".into()).spawn(move || recorder.run())
    }

    /// One tick.
    pub fn step(&self) {
        let shared = &*self.shared;
        let mut writer = lock(&shared.writer);
        if writer.stopped.is_some() {
            return;
        }
        let now = shared.clock.mono();
        self.check_wall_clock();
        writer.write(now);
        for line in &mut writer.parting {
            line.close_tick(now);
        }
        self.commit(&mut writer, now);
        writer.parting.retain(|line| !line.is_closed());
    }

    /// Stops intake, writes and closes everything, and notes the stop. Blocks until that is durable or has failed.
    /// Further calls return the first one's report.
    pub fn stop(&self) -> StopReport {
        let shared = &*self.shared;
        let begin = shared.clock.mono();
        for intake in lock(&shared.intakes).values() {
            intake.close();
        }
        *lock(&shared.stopping) = true;
        shared.wake.notify_all();
        let mut writer = lock(&shared.writer);
        if let Some(report) = writer.stopped {
            return report;
        }
        let now = shared.clock.mono();
        writer.write(now);
        writer.lines.iter_mut().for_each(Line::finish);
        let under_way: usize = writer.lines.iter().chain(&writer.parting).map(Line::open_closes).sum();
        self.commit(&mut writer, now);
        for line in &mut writer.lines {
            line.note_stop(now);
        }
        for _ in 1..STOP_TICKS {
            self.commit(&mut writer, shared.clock.mono());
            if writer.lines.iter().chain(&writer.parting).all(Line::is_closed) {
                break;
            }
            let Writer { lines, parting, .. } = &mut *writer;
            for line in lines.iter_mut().chain(parting) {
                line.close_tick(now);
            }
        }
        // A sync of an account that failed is made good by the next commits.
        shared.archive.flush();
        let left_open = writer.lines.iter().chain(&writer.parting).map(Line::open_closes).sum();
        let took = Duration::from_nanos(u64::try_from(shared.clock.mono().since(begin)).unwrap_or(0));
        let report = StopReport { took, closed: under_way - left_open, left_open };
        writer.stopped = Some(report);
        log::info!("recording stopped in {} ms, {} segments closed", took.as_millis(), report.closed);
        report
    }

    /// The state after the last tick, with the intakes' counters as of now.
    #[must_use]
    pub fn status(&self) -> RecorderStatus {
        lock(&self.shared.status).clone()
    }

    /// Whether [`Recorder::stop`] was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *lock(&self.shared.stopping)
    }

    fn run(&self) {
        let mut next = Instant::now() + TICK;
        loop {
            let mut stopping = lock(&self.shared.stopping);
            while !*stopping {
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                stopping = self.shared.wake.wait_timeout(stopping, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            if *stopping {
                return;
            }
            drop(stopping);
            self.step();
            // After a slow tick the next one comes at once, but none is made up for.
            next = (next + TICK).max(Instant::now());
        }
    }

    fn check_wall_clock(&self) {
        if let Some(mapping) = self.shared.wall.check() {
            log::info!("the wall clock has changed: this run's times are corrected");
            self.shared.archive.set_mapping(mapping);
        }
    }

    /// Commits what was written since `begun`; writes that hang endanger the promise as much as syncs do.
    fn commit(&self, writer: &mut Writer, begun: Mono) {
        let report = self.shared.archive.commit();
        let now = self.shared.clock.mono();
        let Writer { lines, parting, .. } = writer;
        for line in lines.iter_mut().chain(parting) {
            line.after_commit(&report, now);
        }
        for (path, error) in report.failures() {
            if let Some(left_out) = writer.log.allow(&"sync", now) {
                log::error!("cannot sync {}: {error}{}", path.display(), and_more(left_out));
            }
        }
        let took = Duration::from_nanos(u64::try_from(now.since(begun)).unwrap_or(0));
        self.publish(writer, took.max(report.duration), now);
    }

    fn publish(&self, writer: &mut Writer, sync: Duration, now: Mono) {
        let slow = sync > SYNC_LIMIT;
        writer.fast_syncs = if slow { 0 } else { writer.fast_syncs.saturating_add(1) };
        if slow && let Some(left_out) = writer.log.allow(&"slow", now) {
            let ms = sync.as_millis();
            log::warn!(
                "writing and syncing took {ms} ms: a power cut may cost more than a second{}",
                and_more(left_out)
            );
        }
        let mut status = lock(&self.shared.status);
        status.last_sync = sync;
        status.sync_times.add(sync);
        status.worst_sync = status.worst_sync.max(sync);
        status.slow_syncs += u64::from(slow);
        status.durability_degraded = slow || (status.durability_degraded && writer.fast_syncs < RECOVERED_AFTER);
        status.ticks += 1;
        for line in &writer.lines {
            status.lenses.insert(line.lens().clone(), line.status());
        }
    }
}

impl Writer {
    /// Writes all that waits at all lenses, in turns (W1).
    fn write(&mut self, now: Mono) {
        // All at once: a write may take seconds, and what comes meanwhile is for the next tick.
        let first = self.lines.iter_mut().filter_map(Line::take).min();
        for turn in turns(first.unwrap_or(now).max(self.drained), now) {
            self.lines.iter_mut().for_each(|line| line.write(turn, false));
        }
        self.lines.iter_mut().for_each(|line| line.write(now, true));
        self.drained = now;
    }
}

/// The moments at which what has come in since `first` would have been written in time, without the last, which is now.
fn turns(first: Mono, now: Mono) -> impl Iterator<Item = Mono> {
    std::iter::successors(Some(first + TICK), |turn| Some(*turn + TICK)).take_while(move |turn| *turn + TICK <= now)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
