//! The state machine of one lens.
//!
//! ```text
//! Stopped ─► Connecting ─► Streaming ◄─► Stalled
//!               │ ▲            │            │
//!     error or  │ │ delay      │ error      │ 10 s without a unit
//!     10 s      ▼ │            ▼            ▼
//!            BackingOff / Failed ◄──────────┘        Ended (a file played to its end)
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use mos_hal::clock::{Clock, Mono};
use mos_hal::media::TrackFormat;
use mos_hal::platform::Platform;
use mos_hal::source::{LensSource, SourceError, UnitSink};

use crate::archive::gaps::GapCause;
use crate::record::Intake;

use super::backoff::Backoff;
use super::sink::{LensSink, Tally, cause_of};
use super::status::{CaptureState, LensStatus};
use super::{Bell, DropMode, LensConfig};

/// Without a unit for this long a source is given up.
pub(crate) const STALL: Duration = Duration::from_secs(10);
/// Without a unit for this long a lens is shown as stalled.
const SILENT: Duration = Duration::from_secs(3);
/// A source that delivered for this long has proved itself: the next attempt is a first one again.
const PROVEN: Duration = Duration::from_secs(10);
/// Shortest span over which rates are measured.
const RATE_SPAN: i64 = 2_000_000_000;

pub(crate) struct Lens {
    config: LensConfig,
    intake: Arc<Intake>,
    clock: Arc<dyn Clock>,
    bell: Arc<Bell>,
    drop_mode: DropMode,
    tally: Arc<Tally>,
    phase: Phase,
    since: Mono,
    leaving: Option<JoinHandle<()>>,
    backoff: Backoff,
    last_error: Option<(String, Mono)>,
    opened: u64,
    rate: Rate,
}

enum Phase {
    /// Not begun, or stopped for good.
    Stopped {
        done: bool,
    },
    Open(Open),
    Waiting {
        until: Mono,
        failed: bool,
    },
    Ended,
}

struct Open {
    source: Box<dyn LensSource>,
    sink: Arc<LensSink>,
    opened: Mono,
    shown: CaptureState,
}

#[derive(Default)]
struct Rate {
    at: Option<Mono>,
    frames: u64,
    bytes: u64,
    fps: f64,
    bitrate: u64,
}

impl Lens {
    pub(crate) fn new(
        config: LensConfig,
        intake: Arc<Intake>,
        clock: Arc<dyn Clock>,
        bell: Arc<Bell>,
        drop_mode: DropMode,
    ) -> Self {
        let name = config.id.as_str().bytes().chain(clock.boot_id().0);
        let seed = name.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let since = clock.mono();
        Self {
            config,
            intake,
            clock,
            bell,
            drop_mode,
            tally: Arc::default(),
            phase: Phase::Stopped { done: false },
            since,
            leaving: None,
            backoff: Backoff::new(seed),
            last_error: None,
            opened: 0,
            rate: Rate::default(),
        }
    }

    pub(crate) fn step(&mut self, platform: &dyn Platform) {
        let now = self.clock.mono();
        self.measure(now);
        match &self.phase {
            Phase::Stopped { done: true } | Phase::Ended => {}
            Phase::Stopped { done: false } => self.open(platform, now),
            Phase::Waiting { until, .. } => {
                let free = self.leaving.as_ref().is_none_or(JoinHandle::is_finished);
                if now >= *until && free {
                    self.join();
                    self.open(platform, now);
                }
            }
            Phase::Open(_) => self.watch(now),
        }
    }

    /// Drops the source for good.
    pub(crate) fn close(&mut self) {
        self.leave();
        self.enter(Phase::Stopped { done: true }, self.clock.mono());
    }

    /// Waits until a dropped source is gone.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.leaving.take() {
            // A panic in a source's drop is that lens's trouble only.
            let _ = thread.join();
        }
    }

    pub(crate) fn status(&self) -> LensStatus {
        let format = self.tally.video_format();
        let video = format.as_deref().and_then(|f| match f {
            TrackFormat::Video(v) => Some(v),
            TrackFormat::Audio(_) => None,
        });
        LensStatus {
            lens: self.config.id.clone(),
            source: self.config.source.to_string(),
            state: self.state(),
            since: self.since,
            last_error: self.last_error.clone(),
            next_attempt: match self.phase {
                Phase::Waiting { until, .. } => Some(until),
                _ => None,
            },
            frames: self.tally.frames.load(Ordering::Relaxed),
            bytes: self.tally.bytes.load(Ordering::Relaxed),
            discontinuities: self.tally.discontinuities.load(Ordering::Relaxed),
            frame_rate: self.rate.fps,
            bitrate: self.rate.bitrate,
            codec: video.map(|v| v.codec.name()),
            size: video.map(|v| (v.width, v.height)),
            audio: self.tally.audio_units.load(Ordering::Relaxed) > 0,
            reconnects: self.opened.saturating_sub(1),
        }
    }

    fn state(&self) -> CaptureState {
        match &self.phase {
            Phase::Stopped { .. } => CaptureState::Stopped,
            Phase::Open(open) => open.shown,
            Phase::Waiting { failed: true, .. } => CaptureState::Failed,
            Phase::Waiting { .. } => CaptureState::BackingOff,
            Phase::Ended => CaptureState::Ended,
        }
    }

    fn open(&mut self, platform: &dyn Platform, now: Mono) {
        self.opened += 1;
        let tally = Arc::clone(&self.tally);
        let sink =
            Arc::new(LensSink::new(Arc::clone(&self.intake), tally, Arc::clone(&self.clock), Arc::clone(&self.bell)));
        let as_unit_sink: Arc<dyn UnitSink> = sink.clone();
        let (spec, audio, clock) = (&self.config.source, self.config.audio, Arc::clone(&self.clock));
        let opened = catch_unwind(AssertUnwindSafe(|| platform.open(spec, audio, clock, as_unit_sink)));
        match opened.unwrap_or_else(|_| Err(panicked(&self.config))) {
            Ok(source) => {
                let open = Open { source, sink, opened: now, shown: CaptureState::Connecting };
                self.enter(Phase::Open(open), now);
            }
            Err(error) => {
                sink.retire();
                self.intake.down(cause_of(&error), now);
                self.fail(&error, now);
            }
        }
    }

    fn watch(&mut self, now: Mono) {
        let Phase::Open(open) = &mut self.phase else { return };
        if let Some((error, at)) = open.sink.take_end() {
            let last = open.sink.last_unit();
            if last.is_some_and(|l| l.since(open.opened) >= PROVEN.as_nanos() as i64) {
                self.backoff.reset();
            }
            self.leave();
            self.fail(&error, at.max(self.since));
            return;
        }
        if self.intake.keyframe_wanted() {
            open.source.request_keyframe();
        }
        let last = open.sink.last_unit();
        let silence = now.since(last.unwrap_or(open.opened).max(open.opened));
        if silence >= STALL.as_nanos() as i64 {
            if last.is_some_and(|l| l.since(open.opened) >= PROVEN.as_nanos() as i64) {
                self.backoff.reset();
            }
            let silent_since = if last.is_some() { "went silent" } else { "sent nothing since it was opened" };
            let text = format!("{} {silent_since} for {} s", self.config.source, STALL.as_secs());
            self.intake.down(GapCause::CameraStalled, now);
            self.leave();
            self.note(text, now);
            self.wait(false, now);
            return;
        }
        let shown = match last {
            None => CaptureState::Connecting,
            Some(_) if silence >= SILENT.as_nanos() as i64 => CaptureState::Stalled,
            Some(_) => CaptureState::Streaming,
        };
        if open.shown != shown {
            open.shown = shown;
            self.since = now;
        }
    }

    fn fail(&mut self, error: &SourceError, at: Mono) {
        self.note(error.to_string(), at);
        match error {
            SourceError::Ended { .. } => self.enter(Phase::Ended, at),
            SourceError::Refused { .. } | SourceError::Unsupported { .. } => self.wait(true, at),
            SourceError::Absent { .. } | SourceError::Broken { .. } => self.wait(false, at),
        }
    }

    fn wait(&mut self, failed: bool, now: Mono) {
        let until = now + self.backoff.next();
        self.enter(Phase::Waiting { until, failed }, now);
    }

    fn note(&mut self, text: String, at: Mono) {
        // The same trouble again is no news for the log; status shows it all the same.
        if self.last_error.as_ref().is_none_or(|(last, _)| *last != text) {
            log::warn!("{}: {text}", self.config.id);
        }
        self.last_error = Some((text, at));
    }

    fn enter(&mut self, phase: Phase, now: Mono) {
        let before = self.state();
        self.phase = phase;
        if self.state() != before {
            self.since = now;
        }
    }

    /// Retires and drops the source, if there is one.
    fn leave(&mut self) {
        let Phase::Open(open) = std::mem::replace(&mut self.phase, Phase::Stopped { done: false }) else { return };
        open.sink.retire();
        let source = open.source;
        let drop_it = move || drop(catch_unwind(AssertUnwindSafe(|| drop(source))));
        match self.drop_mode {
            DropMode::InPlace => drop_it(),
            DropMode::Thread => {
                self.join();
                // Without a thread the closure, and with it the source, is dropped in place: late rather than never.
                self.leaving = std::thread::Builder::new().name("capture-drop".into()).spawn(drop_it).ok();
            }
        }
    }

    fn measure(&mut self, now: Mono) {
        let frames = self.tally.frames.load(Ordering::Relaxed);
        let bytes = self.tally.bytes.load(Ordering::Relaxed);
        let Some(at) = self.rate.at else {
            self.rate = Rate { at: Some(now), frames, bytes, ..Rate::default() };
            return;
        };
        let span = now.since(at);
        if span >= RATE_SPAN {
            let seconds = span as f64 / 1e9;
            self.rate.fps = (frames - self.rate.frames) as f64 / seconds;
            self.rate.bitrate = ((bytes - self.rate.bytes) as f64 * 8.0 / seconds) as u64;
            (self.rate.at, self.rate.frames, self.rate.bytes) = (Some(now), frames, bytes);
        }
    }
}

fn panicked(config: &LensConfig) -> SourceError {
    SourceError::Broken { what: config.source.to_string(), detail: "opening it panicked; see the log".into() }
}
