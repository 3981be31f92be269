//! One lens: its state, its source, and what is due next.
//!
//! Where it may go from each state stands in [`super::machine`]; here is what happens on the way. Driven by [`Lens::step`] on
//! the injected clock. What a user asks for is in `asked`.

mod asked;
mod giving_way;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use mos_hal::clock::{Clock, Mono};
use mos_hal::codecs::families::Memory;
use mos_hal::hotplug::Presence;
use mos_hal::media::{LensId, TrackFormat};
use mos_hal::source::{LensSource, SourceError, SourceSpec, UnitSink};
use tokio::sync::broadcast;

use crate::archive::gaps::GapCause;
use crate::record::Intake;
use crate::record::writer::TICK;

use super::backoff::Backoff;
use super::bell::Bell;
use super::breaker::Breaker;
use super::machine::{CaptureState, Trigger, next};
use super::rate::Rate;
use super::settings::{StreamSettings, Target};
use super::sink::{LensSink, Tally, cause_of};
use super::status::{Degraded, LensChange, LensStatus, News};
use super::{DropMode, Isolation, LOOK, LensConfig, Openers};

pub(crate) use self::asked::NotNow;
use self::giving_way::Coding;
pub(crate) use self::giving_way::{Load, Place};

/// Without a unit for this long a source has been given up and that is on record.
pub(crate) const STALL: Duration = Duration::from_secs(10);
/// So long may a source take to its first unit in every second opening of those that were in vain: a camera that starts slowly
/// would otherwise be opened for ever. The openings between stay short, for one that needs to be opened anew.
pub(crate) const SLOW: Duration = Duration::from_secs(30);
/// Without a unit for this long a lens is shown as stalled.
const SILENT: Duration = Duration::from_secs(3);
/// A source that delivered for this long has proved itself: the next attempt is a first one again.
pub(crate) const PROVEN: Duration = Duration::from_secs(10);

pub(crate) struct Lens {
    /// As in the configuration file, or as it was added.
    base: LensConfig,
    /// What was configured since.
    settings: StreamSettings,
    /// Both together.
    config: LensConfig,
    intake: Arc<Intake>,
    clock: Arc<dyn Clock>,
    bell: Arc<Bell>,
    drop_mode: DropMode,
    changes: broadcast::Sender<News>,
    tally: Arc<Tally>,
    state: CaptureState,
    since: Mono,
    cause: Option<GapCause>,
    /// Idle until the recorder is woken.
    asleep: bool,
    /// Added at run time.
    added: bool,
    /// How far it is to give way to others.
    ladder: Option<Degraded>,
    /// How far it does, by itself as well: that is shown.
    degraded: Option<Degraded>,
    /// Who codes its pictures.
    coding: Coding,
    /// To be started by the next look.
    begins: bool,
    open: Option<Open>,
    /// When the next attempt is due, in a state that waits.
    due: Mono,
    leaving: Option<JoinHandle<()>>,
    backoff: Backoff,
    breaker: Breaker,
    last_error: Option<(String, Mono)>,
    opened: u64,
    /// Openings in a row that brought no unit.
    in_vain: u32,
    rate: Rate,
}

struct Open {
    source: Box<dyn LensSource>,
    sink: Arc<LensSink>,
    opened: Mono,
    /// Since when it has delivered without a pause, or since it last proved itself.
    steady: Mono,
    /// Its camera is still to call.
    awaits: bool,
    /// It has been told that it is still waited for.
    told: bool,
}

impl Open {
    /// How long nothing has come, in nanoseconds.
    fn silence(&self, now: Mono) -> i64 {
        now.since(self.sink.last_unit().unwrap_or(self.opened).max(self.opened))
    }
}

impl Lens {
    pub(crate) fn new(
        config: LensConfig,
        intake: Arc<Intake>,
        clock: Arc<dyn Clock>,
        bell: Arc<Bell>,
        changes: broadcast::Sender<News>,
        drop_mode: DropMode,
    ) -> Self {
        let name = config.id.as_str().bytes().chain(clock.boot_id().0);
        let seed = name.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let since = clock.mono();
        Self {
            base: config.clone(),
            settings: StreamSettings::default(),
            config,
            intake,
            clock,
            bell,
            drop_mode,
            changes,
            tally: Arc::default(),
            state: CaptureState::Idle,
            since,
            cause: Some(GapCause::Starting),
            asleep: false,
            added: false,
            ladder: None,
            degraded: None,
            coding: Coding::Here,
            begins: true,
            open: None,
            due: since,
            leaving: None,
            backoff: Backoff::new(seed),
            breaker: Breaker::default(),
            last_error: None,
            opened: 0,
            in_vain: 0,
            rate: Rate::default(),
        }
    }

    pub(crate) fn id(&self) -> &LensId {
        &self.config.id
    }

    pub(crate) fn base(&self) -> &LensConfig {
        &self.base
    }

    /// Notes that it is none of the configuration file.
    pub(crate) fn is_added(&mut self) {
        self.added = true;
    }

    pub(crate) fn settings(&self) -> &StreamSettings {
        &self.settings
    }

    /// Takes a new configuration for the next time that it is opened; whether that is another one.
    pub(crate) fn set(&mut self, config: LensConfig, settings: StreamSettings) -> bool {
        let differs = self.config != config || self.settings.rotation() != settings.rotation();
        self.settings = settings;
        self.config = config;
        differs
    }

    pub(crate) fn step(&mut self, openers: &Openers) {
        let now = self.clock.mono();
        let (frames, bytes) = (self.tally.frames.load(Ordering::Relaxed), self.tally.bytes.load(Ordering::Relaxed));
        self.rate.measure(frames, bytes, now);
        if std::mem::take(&mut self.begins) {
            self.go(Trigger::Start, Some(GapCause::Starting), now);
        } else if self.state.waits() && now >= self.due && self.is_free() {
            self.breaker.trial();
            self.go(Trigger::Due, self.cause, now);
        }
        if self.open.is_some() {
            self.watch(now);
        } else if self.state == CaptureState::Connecting && self.is_free() {
            self.join();
            self.connect(openers, now);
        }
        self.settle(now);
    }

    /// Devices came or went, or may be opened now.
    pub(crate) fn devices_changed(&mut self, openers: &Openers) {
        if !is_attached(&self.config.source) {
            return;
        }
        let now = self.clock.mono();
        match openers.platform.presence(&self.config.source) {
            // Before the source has noticed, if it ever does. A file that has lost its name is played on.
            Presence::Gone if self.open.is_some() && !matches!(self.config.source, SourceSpec::File { .. }) => {
                let (what, detail) = (self.config.source.to_string(), "the device was removed".into());
                self.leave();
                self.intake.down(GapCause::CameraAbsent, now);
                self.fail(&SourceError::Absent { what, detail }, now);
            }
            Presence::Here | Presence::Unknown if self.state == CaptureState::Absent => self.due = now,
            _ => {}
        }
    }

    /// Drops the source for good.
    pub(crate) fn close(&mut self) {
        self.begins = false;
        self.leave();
        if self.state != CaptureState::Idle {
            self.go(Trigger::Stop, Some(GapCause::Stopped), self.clock.mono());
        }
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
            added: self.added,
            asleep: self.asleep,
            degraded: self.degraded.clone(),
            isolation: self.config.isolation,
            state: self.state,
            since: self.since,
            cause: self.cause,
            last_error: self.last_error.clone(),
            next_attempt: self.state.waits().then_some(self.due),
            breaker: self.breaker,
            settings: self.settings.clone(),
            target: Target::of(&self.config.source),
            keyframe_interval: self.tally.keyframe_interval(),
            frames: self.tally.frames.load(Ordering::Relaxed),
            bytes: self.tally.bytes.load(Ordering::Relaxed),
            discontinuities: self.tally.discontinuities.load(Ordering::Relaxed),
            newest: self.tally.newest(),
            skew: None,
            frame_rate: self.rate.fps,
            bitrate: self.rate.bitrate,
            codec: video.map(|v| v.codec.name()),
            size: video.map(|v| (v.width, v.height)),
            memory: self.open.as_ref().and_then(|open| open.source.memory()).map(Memory::name),
            audio: self.tally.audio_units.load(Ordering::Relaxed) > 0,
            reconnects: self.opened.saturating_sub(1),
        }
    }

    /// Whether the source before is gone.
    fn is_free(&self) -> bool {
        self.leaving.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn connect(&mut self, openers: &Openers, now: Mono) {
        self.opened += 1;
        self.intake.opened(now);
        if self.coding != Coding::NoRoom {
            self.tally.set_share(None);
        }
        let tally = Arc::clone(&self.tally);
        let (intake, clock, bell) = (Arc::clone(&self.intake), Arc::clone(&self.clock), Arc::clone(&self.bell));
        let sink = Arc::new(LensSink::new(intake, tally, clock, bell, self.settings.rotation()));
        let frames = self.config.frames.as_ref();
        if let Some(frames) = frames {
            frames.renew();
        }
        let isolated = openers.workers.as_ref().filter(|_| self.config.isolation == Isolation::Process);
        let as_unit_sink: Arc<dyn UnitSink> = match frames {
            // What has no raw pictures is decoded for those who want them; a worker does that itself.
            Some(frames) if isolated.is_none() => frames.beside(&*openers.platform, sink.clone()),
            _ => sink.clone(),
        };
        let (spec, audio, clock) = (&self.config.source, self.config.audio, Arc::clone(&self.clock));
        let open = || match isolated {
            Some(workers) => workers.open(spec, audio, clock, as_unit_sink, frames),
            None => openers.platform.open(spec, audio, clock, as_unit_sink),
        };
        let opened = catch_unwind(AssertUnwindSafe(open));
        match opened.unwrap_or_else(|_| Err(panicked(&self.config))) {
            Ok(source) => {
                self.open = Some(Open { source, sink, opened: now, steady: now, awaits: false, told: false });
            }
            Err(error) => {
                sink.retire();
                self.intake.down(cause_of(&error), now);
                self.fail(&error, now);
            }
        }
    }

    fn watch(&mut self, now: Mono) {
        let Some(open) = &mut self.open else { return };
        let last = open.sink.last_unit();
        if let Some(last) = last.filter(|l| l.since(open.steady) >= PROVEN.as_nanos() as i64) {
            open.steady = last;
            self.backoff.reset();
            self.breaker.success();
        }
        if let Some((error, at)) = open.sink.take_end() {
            self.leave();
            self.fail(&error, at.max(self.since));
            return;
        }
        if self.intake.keyframe_wanted() {
            open.source.request_keyframe();
        }
        let awaits = last.is_none() && open.source.awaits_caller();
        if std::mem::replace(&mut open.awaits, awaits) && !awaits {
            // Its camera has as long as one that was called by us.
            open.opened = now;
        }
        let silence = open.silence(now);
        // Its gap is on record with the recorder's next tick, which is within the bound, too.
        let over = |bound: Duration| silence + (LOOK + TICK).as_nanos() as i64 > bound.as_nanos() as i64;
        let patience = if last.is_none() && self.in_vain % 2 == 1 { SLOW } else { STALL };
        if over(STALL) && (awaits || !over(patience)) {
            // Given up, nobody could call, or its first picture would never come; the cause is told once.
            if !std::mem::replace(&mut open.told, true) {
                let cause = if awaits { GapCause::CameraAbsent } else { GapCause::CameraStalled };
                self.intake.down(cause, now);
                self.cause = Some(cause);
                let source = &self.config.source;
                let text = if awaits {
                    format!("{source}: nobody has called yet")
                } else {
                    format!("{source} sent nothing in the {} s since it was opened; waiting on", STALL.as_secs())
                };
                self.note(text, now);
            }
        } else if over(patience) {
            let silent_since = if last.is_some() { "went silent" } else { "sent nothing since it was opened" };
            let text = format!("{} {silent_since} for {} s", self.config.source, patience.as_secs());
            self.in_vain = if last.is_some() { 0 } else { self.in_vain.saturating_add(1) };
            self.leave();
            self.intake.down(GapCause::CameraStalled, now);
            self.give_up(text, GapCause::CameraStalled, Trigger::Breaks, now);
        } else if last.is_some() && silence < SILENT.as_nanos() as i64 {
            if self.state != CaptureState::Streaming {
                open.steady = now;
                self.in_vain = 0;
                self.coding.has_room();
                self.go(Trigger::Delivers, None, now);
            } else if now.since(self.since) > SILENT.as_nanos() as i64 {
                self.coding = if open.source.memory().is_some() { Coding::Here } else { Coding::Elsewhere };
            }
        } else if self.state == CaptureState::Streaming {
            self.go(Trigger::Silent, Some(GapCause::CameraStalled), now);
        }
    }

    /// The source is over, or could not be opened.
    fn fail(&mut self, error: &SourceError, at: Mono) {
        let cause = cause_of(error);
        match error {
            SourceError::Exhausted { .. } => self.coding = Coding::NoRoom,
            _ => self.coding.has_room(),
        }
        match error {
            SourceError::Ended { .. } => {
                self.note(error.to_string(), at);
                self.go(Trigger::Ends, Some(cause), at);
            }
            SourceError::Absent { .. } if is_attached(&self.config.source) => {
                self.note(error.to_string(), at);
                self.due = at + self.backoff.next();
                self.go(Trigger::Gone, Some(cause), at);
            }
            SourceError::Refused { .. } | SourceError::Unsupported { .. } | SourceError::Exhausted { .. } => {
                self.give_up(error.to_string(), cause, Trigger::Refuses, at);
            }
            SourceError::Absent { .. } | SourceError::Broken { .. } => {
                self.give_up(error.to_string(), cause, Trigger::Breaks, at);
            }
        }
    }

    /// A failure that counts: waits as `otherwise` says, unless the breaker opens.
    fn give_up(&mut self, text: String, cause: GapCause, otherwise: Trigger, at: Mono) {
        self.note(text, at);
        if let Some(until) = self.breaker.failure(at) {
            self.due = until;
            self.go(Trigger::Trips, Some(cause), at);
        } else {
            self.due = at + self.backoff.next();
            self.go(otherwise, Some(cause), at);
        }
    }

    fn note(&mut self, text: String, at: Mono) {
        // The same trouble again is no news for the log; status shows it all the same.
        if self.last_error.as_ref().is_none_or(|(last, _)| *last != text) {
            log::warn!("{}: {text}", self.config.id);
        }
        self.last_error = Some((text, at));
    }

    /// The one place that changes the state.
    fn go(&mut self, trigger: Trigger, cause: Option<GapCause>, at: Mono) {
        let from = self.state;
        let Some(to) = next(from, trigger) else {
            log::error!("{}: {trigger:?} is not possible while {}", self.config.id, from.name());
            debug_assert!(false, "{trigger:?} in {from:?}");
            return;
        };
        (self.state, self.since, self.cause) = (to, at, cause);
        let detail = cause.and(self.last_error.as_ref()).map(|(text, _)| text.clone());
        let change = LensChange { lens: self.config.id.clone(), from, to, cause, detail, at };
        // Nobody may be listening.
        let _ = self.changes.send(News::Lens(change));
    }

    /// Retires and drops the source, if there is one.
    fn leave(&mut self) {
        let Some(open) = self.open.take() else { return };
        open.sink.retire();
        let (source, frames) = (open.source, self.config.frames.clone());
        let drop_it = move || {
            drop(catch_unwind(AssertUnwindSafe(|| drop(source))));
            // Buffers of a camera that is closed are not kept for readers.
            if let Some(frames) = frames {
                frames.renew();
            }
        };
        match self.drop_mode {
            DropMode::InPlace => drop_it(),
            DropMode::Thread => {
                self.join();
                // Without a thread the closure, and with it the source, is dropped in place: late rather than never.
                self.leaving = std::thread::Builder::new().name("capture-drop".into()).spawn(drop_it).ok();
            }
        }
    }
}

/// Whether the source hangs on this machine, so that its absence is a plain fact and no failure of it.
fn is_attached(source: &SourceSpec) -> bool {
    !matches!(
        source,
        SourceSpec::Rtsp { .. } | SourceSpec::Onvif { .. } | SourceSpec::Srt { .. } | SourceSpec::Whep { .. }
    )
}

fn panicked(config: &LensConfig) -> SourceError {
    SourceError::Broken { what: config.source.to_string(), detail: "opening it panicked; see the log".into() }
}
