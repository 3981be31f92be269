//! Ignition and parking: which lenses are recorded in which state, and what brings a sleeping recorder back.
//!
//! ```text
//!              off                     run_out is over, ParkCapture
//!  ignition ─────────► run_out ──────────────────────────────► parking
//!     ▲   ▲               │ ▲                                      │ │
//!     │   └──────on───────┘ └───── wake line, WakeCapture ─────────┘ │
//!     └─────────────────────────────── on ───────────────────────────┘
//! ```
//!
//! A wake leads straight to `ignition` where the ignition is on, and WakeCapture also where there is no ignition line: nothing
//! else could lead out of the run-out but parking.
//!
//! Promises:
//! - P1: in `ignition` and `run_out` the lenses of the ignition's set are captured, in `parking` those of parking's; a lens that a
//!   user stopped stays stopped in all of them, and one that a user starts or adds while it would sleep is captured until the
//!   state changes.
//! - P2: every way out of `parking` tells for each lens that it started how long the first durable keyframe took.
//! - P3: the state outlives the daemon: a recorder that was parked is parked after a restart, unless the ignition is on or
//!   something wakes it.
//! - P4: contact bounce is no change: a level counts when it was read twice in a row.
//!
//! It decides about nothing but which lenses sleep. The power events that end the daemon are another matter (see `daemon`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mos_hal::clock::{Clock, Mono};
use mos_hal::media::LensId;
use serde::{Deserialize, Serialize};

use crate::archive::Archive;
use crate::capture::{CaptureControlService, News};
use crate::record::Recorder;

/// The file's name in the archive's root.
const FILE: &str = "power";
/// A lens that has nothing durable so long after it was woken is waited for no longer.
const GIVE_UP: Duration = Duration::from_mins(2);

/// Which lenses are recorded when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerPlan {
    /// Those of `ignition` and `run_out`; `None`: all.
    pub ignition: Option<Vec<LensId>>,
    /// Those of `parking`.
    pub parking: Vec<LensId>,
    /// How long recording goes on as before when the ignition goes off, or after a wake.
    pub run_out: Duration,
    /// The ignition line leads from state to state, instead of ending the daemon.
    pub follow_ignition: bool,
}

impl Default for PowerPlan {
    fn default() -> Self {
        Self { ignition: None, parking: Vec::new(), run_out: Duration::from_mins(10), follow_ignition: false }
    }
}

/// Where the recorder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerState {
    /// The vehicle is in use, or nothing says otherwise.
    Ignition,
    /// The ignition went off, or something woke the recorder: it goes on until the timer has run out.
    RunOut,
    /// Only parking's lenses are recorded.
    Parking,
}

impl PowerState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ignition, Self::RunOut, Self::Parking];

    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ignition => "ignition",
            Self::RunOut => "run_out",
            Self::Parking => "parking",
        }
    }
}

/// What changes the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The ignition line went on.
    IgnitionOn,
    /// The ignition line went off.
    IgnitionOff,
    /// The wake line became active.
    WakeLine,
    /// WakeCapture.
    Asked,
    /// ParkCapture.
    Park,
    /// The timer has run out.
    Elapsed,
}

impl Trigger {
    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::IgnitionOn => "ignition_on",
            Self::IgnitionOff => "ignition_off",
            Self::WakeLine => "wake_line",
            Self::Asked => "api",
            Self::Park => "park",
            Self::Elapsed => "run_out",
        }
    }
}

/// Where a trigger leads, the ignition being on, off or unknown; `None` if it changes nothing.
fn next(state: PowerState, by: Trigger, ignition: Option<bool>) -> Option<PowerState> {
    use PowerState::{Ignition, Parking, RunOut};
    match (state, by) {
        (RunOut | Parking, Trigger::IgnitionOn) => Some(Ignition),
        (RunOut | Parking, Trigger::Asked) if ignition != Some(false) => Some(Ignition),
        (RunOut | Parking, Trigger::WakeLine | Trigger::Elapsed) if ignition == Some(true) => Some(Ignition),
        // A wake while the timer runs begins it anew.
        (Ignition, Trigger::IgnitionOff) | (RunOut | Parking, Trigger::WakeLine | Trigger::Asked) => Some(RunOut),
        (Ignition | RunOut, Trigger::Park) | (RunOut, Trigger::Elapsed) => Some(Parking),
        _ => None,
    }
}

/// Levels of the box's lines; `None` where there is no such line or it cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// The ignition is on.
    pub ignition: Option<bool>,
    /// The wake line is active.
    pub wake: Option<bool>,
}

/// A wake and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wake {
    /// What woke it.
    pub by: Trigger,
    /// When.
    pub at: Mono,
    /// Lenses that were started and have nothing durable yet.
    pub waiting: Vec<LensId>,
    /// How long the first durable keyframe took, lens by lens.
    pub took: BTreeMap<LensId, Duration>,
}

impl Wake {
    /// How long the very first durable keyframe took.
    #[must_use]
    pub fn first(&self) -> Option<Duration> {
        self.took.values().min().copied()
    }
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerStatus {
    /// Where it stands.
    pub state: PowerState,
    /// Since when.
    pub since: Mono,
    /// When the timer has run out.
    pub until: Option<Mono>,
    /// How often it was woken.
    pub wakes: u64,
    /// The last wake.
    pub last_wake: Option<Wake>,
}

#[derive(Serialize, Deserialize)]
struct Note {
    state: PowerState,
}

struct Inner {
    status: PowerStatus,
    /// Levels as they count, and as they were read last.
    levels: Levels,
    read: Levels,
}

/// The service.
pub struct Power {
    plan: PowerPlan,
    capture: CaptureControlService,
    recorder: Recorder,
    archive: Archive,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    /// Told when somebody asked for something, so that whoever calls [`Power::step`] looks sooner.
    pub asked: tokio::sync::Notify,
}

impl Power {
    /// Takes over the state of earlier lives and puts lenses to sleep accordingly. To be called before the cameras are opened.
    #[must_use]
    pub fn new(
        plan: PowerPlan,
        capture: CaptureControlService,
        recorder: Recorder,
        archive: Archive,
        clock: Arc<dyn Clock>,
        levels: Levels,
    ) -> Self {
        let kept = archive.read_note::<Note>(Path::new(FILE)).map_or(PowerState::Ignition, |note| note.state);
        let state = match (levels.ignition, kept) {
            (Some(true), _) => PowerState::Ignition,
            // Something has switched the box on: it records until it is known to be parked.
            (Some(false), PowerState::Ignition) => PowerState::RunOut,
            (_, kept) => kept,
        };
        let now = clock.mono();
        let until = (state == PowerState::RunOut).then(|| now + plan.run_out);
        let status = PowerStatus { state, since: now, until, wakes: 0, last_wake: None };
        // A wake line that is active already is news: it may be what switched the box on.
        let levels = Levels { wake: levels.wake.map(|_| false), ..levels };
        let power = Self {
            plan,
            capture,
            recorder,
            archive,
            clock,
            inner: Mutex::new(Inner { status, levels, read: levels }),
            asked: tokio::sync::Notify::new(),
        };
        power.capture.sleep(&|lens| !power.is_of(state, lens));
        if state != kept {
            power.keep(state);
        }
        power
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> PowerStatus {
        self.lock().status.clone()
    }

    /// WakeCapture.
    pub fn wake(&self) -> PowerStatus {
        self.ask(Trigger::Asked)
    }

    /// ParkCapture.
    pub fn park(&self) -> PowerStatus {
        self.ask(Trigger::Park)
    }

    fn ask(&self, by: Trigger) -> PowerStatus {
        let mut inner = self.lock();
        self.go(&mut inner, by);
        self.asked.notify_one();
        inner.status.clone()
    }

    /// Whether anything but lines and requests can change something soon.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        let inner = self.lock();
        inner.status.until.is_some() || inner.status.last_wake.as_ref().is_some_and(|wake| !wake.waiting.is_empty())
    }

    /// Looks at lines, timer and recorder. May wait for lenses and the disk.
    pub fn step(&self, read: Levels) {
        let mut inner = self.lock();
        let before = std::mem::replace(&mut inner.read, read);
        if read.ignition == before.ignition && read.ignition != inner.levels.ignition {
            inner.levels.ignition = read.ignition;
            match read.ignition {
                Some(true) => self.go(&mut inner, Trigger::IgnitionOn),
                Some(false) => self.go(&mut inner, Trigger::IgnitionOff),
                None => {}
            }
        }
        if read.wake == before.wake && read.wake != inner.levels.wake {
            inner.levels.wake = read.wake;
            if read.wake == Some(true) {
                self.go(&mut inner, Trigger::WakeLine);
            }
        }
        if inner.status.until.is_some_and(|until| self.clock.mono() >= until) {
            self.go(&mut inner, Trigger::Elapsed);
        }
        self.measure(&mut inner);
    }

    fn go(&self, inner: &mut Inner, by: Trigger) {
        let from = inner.status.state;
        let Some(to) = next(from, by, inner.levels.ignition) else { return };
        let now = self.clock.mono();
        let status = &mut inner.status;
        status.until = (to == PowerState::RunOut).then(|| now + self.plan.run_out);
        if from == to {
            return;
        }
        (status.state, status.since) = (to, now);
        log::info!("{} after {}, by {}", to.name(), from.name(), by.name());
        // The cameras first: the disk may be slow.
        let started = self.capture.sleep(&|lens| !self.is_of(to, lens));
        if from == PowerState::Parking {
            status.wakes += 1;
            status.last_wake = Some(Wake { by, at: now, waiting: started, took: BTreeMap::new() });
        } else if let Some(wake) = status.last_wake.as_mut().filter(|_| to == PowerState::Parking) {
            wake.waiting.clear();
        }
        self.capture.tell(News::Power { from, to, by, at: now });
        self.keep(to);
    }

    /// (P3)
    fn keep(&self, state: PowerState) {
        if let Err(e) = self.archive.write_note(Path::new(FILE), &Note { state }) {
            log::error!("the next start will not know of the state {}: {e}", state.name());
        }
    }

    /// (P2)
    fn measure(&self, inner: &mut Inner) {
        let Some(wake) = inner.status.last_wake.as_mut().filter(|wake| !wake.waiting.is_empty()) else { return };
        let recorded = self.recorder.status();
        for lens in std::mem::take(&mut wake.waiting) {
            let durable = recorded.lenses.get(&lens).and_then(|recording| recording.first_durable);
            match durable.filter(|at| *at >= wake.at) {
                Some(at) => {
                    let took = Duration::from_nanos(u64::try_from(at.since(wake.at)).unwrap_or(0));
                    log::info!(
                        "{lens}: the first keyframe was durable {} ms after {}",
                        took.as_millis(),
                        wake.by.name()
                    );
                    wake.took.insert(lens.clone(), took);
                    self.capture.tell(News::Woken { lens, by: wake.by, took, at });
                }
                None if self.clock.mono().since(wake.at) < GIVE_UP.as_nanos() as i64 => wake.waiting.push(lens),
                None => log::warn!("{lens}: nothing is durable {} s after it was woken", GIVE_UP.as_secs()),
            }
        }
    }

    /// Whether a lens is captured in a state. (P1)
    fn is_of(&self, state: PowerState, lens: &LensId) -> bool {
        match state {
            PowerState::Ignition | PowerState::RunOut => {
                self.plan.ignition.as_ref().is_none_or(|set| set.contains(lens))
            }
            PowerState::Parking => self.plan.parking.contains(lens),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
