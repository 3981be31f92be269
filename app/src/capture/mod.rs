//! CaptureControlService: every configured lens has a source, or a reason why not and a next attempt.
//!
//! Promises:
//! - K1: a lens never affects another: opening returns at once, sources are dropped on threads of their own, and a panic in
//!   one is a failure of that lens.
//! - K2: a lens that nobody stopped is never left alone: what is absent, refuses, breaks off or is silent for [`lens::STALL`]
//!   (until its first unit, in every second opening, [`lens::SLOW`]) is tried again with a growing, jittered delay from 1 s to 30 s, or [`breaker::REST`] after the breaker has opened; only
//!   the regular end of a file is final.
//! - K3: why a lens delivers nothing goes to its intake as it happens, in order with its units, and becomes a gap's cause.
//! - K4: a state changes only as [`machine::TRANSITIONS`] says, and every change is told to those who follow.
//! - K5: the breaker is as [`breaker`] promises: five failures in a row, a minute of rest, trial runs, two successes.
//! - K6: ten seconds after its last unit at the latest, a lens that is to deliver is neither streaming nor stalled: the
//!   change is told, it is in the status that metrics are made of, and its cause is in the intake in time for the recorder's
//!   next tick to put the gap on record within them.
//! - K7: a lens that was stopped stays idle until it is started, whatever its source does and however often the recorder does.
//! - K8: when devices come or go, what is absent and may be opened now is tried at once, and what is captured from a device
//!   that is gone is absent at once, whatever its source says or fails to say.
//!
//! Only this service holds `LensSource`s. It never looks into access units.

mod backoff;
mod bell;
mod breaker;
mod degradation;
mod ladder;
mod lens;
mod machine;
mod operations;
mod rate;
mod roster;
mod settings;
mod sink;
mod skew;
mod status;
mod store;
pub mod worker;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use mos_hal::clock::Clock;
use mos_hal::frames::LensFrames;
use mos_hal::gmsl::GmslLink;
use mos_hal::media::LensId;
use mos_hal::platform::{Device, Platform};
use mos_hal::source::SourceSpec;

use tokio::sync::broadcast;

use crate::archive::Archive;
use crate::record::Intake;

use self::bell::Bell;
pub use self::breaker::{Breaker, BreakerState};
pub use self::degradation::{Degradation, DegradationPlan, Judged, ZoneLimits};
pub use self::ladder::{Pace, Reason, Step};
use self::lens::Lens;
pub use self::machine::CaptureState;
pub use self::operations::CaptureError;
pub use self::roster::LensHost;
pub use self::settings::{StreamSettings, Target};
pub use self::status::{Degraded, EventsStatus, LensChange, LensStatus, News};
use self::store::Store;
use self::worker::Workers;

/// How often the lenses are looked at, unless one reports its end earlier.
const LOOK: Duration = Duration::from_millis(500);
/// Changes that may wait for a slow follower.
const BACKLOG: usize = 256;

/// A lens as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LensConfig {
    /// Its id.
    pub id: LensId,
    /// Where its footage comes from.
    pub source: SourceSpec,
    /// With sound.
    pub audio: bool,
    /// Where its raw frames are published, if they are.
    pub frames: Option<Arc<LensFrames>>,
    /// Where its source runs.
    pub isolation: Isolation,
}

/// Where a source runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// In this process.
    None,
    /// In a process of its own; see [`worker`].
    Process,
}

impl Isolation {
    /// What a source has unless somebody decides otherwise: what may run a vendor's code runs apart, and what is ours or the
    /// kernel's runs here, so that many network cameras stay cheap.
    #[must_use]
    pub fn of(source: &SourceSpec) -> Self {
        match source {
            SourceSpec::Board { .. } | SourceSpec::Libcamera { .. } | SourceSpec::Qmmf { .. } => Self::Process,
            SourceSpec::Test(_)
            | SourceSpec::File { .. }
            | SourceSpec::Rtsp { .. }
            | SourceSpec::Onvif { .. }
            | SourceSpec::Srt { .. }
            | SourceSpec::Whep { .. }
            | SourceSpec::V4l2 { .. } => Self::None,
        }
    }

    /// The name in configuration and API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Process => "process",
        }
    }
}

/// Where sources are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropMode {
    /// On a thread of their own: a drop may take 2 s.
    Thread,
    /// In place, for tests in simulated time.
    InPlace,
}

/// The service's handle. Cheap to clone.
#[derive(Clone)]
pub struct CaptureControlService {
    shared: Arc<Shared>,
}

/// Where sources come from.
pub(crate) struct Openers {
    platform: Arc<dyn Platform>,
    workers: Option<Workers>,
}

struct Shared {
    openers: Openers,
    parts: Parts,
    lenses: RwLock<Vec<Arc<Mutex<Lens>>>>,
    frames: RwLock<Vec<(LensId, Arc<LensFrames>)>>,
    bell: Arc<Bell>,
    store: Mutex<Store>,
    /// What lenses need that are added later.
    host: OnceLock<Arc<dyn LensHost>>,
    /// Devices came or went, and nobody was told yet.
    devices_untold: AtomicBool,
    /// How often they did.
    device_changes: AtomicU64,
    /// Of lenses whose cameras are asked for events.
    events: Mutex<BTreeMap<LensId, EventsStatus>>,
}

/// What every lens is made of.
struct Parts {
    clock: Arc<dyn Clock>,
    bell: Arc<Bell>,
    changes: broadcast::Sender<News>,
    drop_mode: DropMode,
}

impl Parts {
    fn lens(&self, config: LensConfig, intake: Arc<Intake>) -> Lens {
        let (clock, bell) = (Arc::clone(&self.clock), Arc::clone(&self.bell));
        Lens::new(config, intake, clock, bell, self.changes.clone(), self.drop_mode)
    }
}

impl CaptureControlService {
    /// A service for these lenses, each with the intake that its units go to. Nothing is opened yet. Without `workers`
    /// everything runs in this process.
    #[must_use]
    pub fn new(
        platform: Arc<dyn Platform>,
        workers: Option<Workers>,
        clock: &Arc<dyn Clock>,
        lenses: Vec<(LensConfig, Arc<Intake>)>,
        drop_mode: DropMode,
    ) -> Self {
        let bell = Arc::new(Bell::default());
        let changes = broadcast::channel(BACKLOG).0;
        let published = |(config, _): &(LensConfig, _)| Some((config.id.clone(), Arc::clone(config.frames.as_ref()?)));
        let frames = lenses.iter().filter_map(published).collect();
        let parts = Parts { clock: Arc::clone(clock), bell: Arc::clone(&bell), changes, drop_mode };
        let make = |(config, intake)| Arc::new(Mutex::new(parts.lens(config, intake)));
        let lenses = RwLock::new(lenses.into_iter().map(make).collect());
        Self {
            shared: Arc::new(Shared {
                openers: Openers { platform, workers },
                parts,
                lenses,
                frames: RwLock::new(frames),
                bell,
                store: Mutex::default(),
                host: OnceLock::new(),
                devices_untold: AtomicBool::new(false),
                device_changes: AtomicU64::new(0),
                events: Mutex::default(),
            }),
        }
    }

    /// Starts the service's thread, which opens the sources at once; it ends after [`CaptureControlService::stop`].
    pub fn spawn(&self) -> std::io::Result<std::thread::JoinHandle<()>> {
        let service = self.clone();
        std::thread::Builder::new().name("capture".into()).stack_size(256 * 1024).spawn(move || {
            loop {
                service.step();
                if service.shared.bell.wait(LOOK) {
                    return;
                }
            }
        })
    }

    /// Takes over what earlier lives were told (lenses that were added, what was configured, which were stopped) and keeps what
    /// this one is told. Lenses can be added with `host` only. To be called before [`CaptureControlService::spawn`].
    pub fn remember(&self, archive: &Archive, host: Option<Arc<dyn LensHost>>) {
        let mut store = Store::read(archive);
        if let Some(host) = host {
            // The first one stays.
            let _ = self.shared.host.set(host);
        }
        self.restore(&mut store);
        for lens in self.lenses() {
            let mut lens = lock(&lens);
            if store.is_stopped(lens.id()) {
                // It has not begun, so that this is possible.
                let _ = lens.stop();
            }
            let settings = store.of(lens.id());
            if settings == StreamSettings::default() {
                continue;
            }
            match settings.apply(lens.base()) {
                Ok(config) => {
                    lens.set(config, settings);
                }
                Err(why) => {
                    let id = lens.id();
                    let why = format!("lens {id}: what was configured for it no longer fits and is not used: {why}");
                    store.unusable(id, why);
                }
            }
        }
        for problem in &store.problems() {
            log::error!("{problem}");
        }
        *lock(&self.shared.store) = store;
    }

    /// What is wrong with settings of earlier lives.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        lock(&self.shared.store).problems()
    }

    /// Looks at every lens once: opens what is due, gives up what is stalled.
    pub fn step(&self) {
        let devices = self.shared.bell.take_devices();
        for lens in self.lenses() {
            let mut lens = lock(&lens);
            if devices {
                lens.devices_changed(&self.shared.openers);
            }
            lens.step(&self.shared.openers);
        }
        self.tell_of_devices(devices);
    }

    /// Tells followers once it is quiet again: a camera that is plugged in is a dozen changes, and the last gives it its name.
    fn tell_of_devices(&self, changing: bool) {
        if changing {
            self.shared.device_changes.fetch_add(1, Ordering::Relaxed);
            self.shared.devices_untold.store(true, Ordering::Relaxed);
        } else if self.shared.devices_untold.swap(false, Ordering::Relaxed) {
            // Nobody may be listening.
            let _ = self.shared.parts.changes.send(News::Devices(self.shared.parts.clock.mono()));
        }
    }

    /// Devices came or went, or may be opened now: lenses look at once. Returns at once, from any thread.
    pub fn devices_changed(&self) {
        self.shared.bell.devices();
    }

    /// How often devices came or went.
    #[must_use]
    pub fn device_changes(&self) -> u64 {
        self.shared.device_changes.load(Ordering::Relaxed)
    }

    /// Drops all sources; returns when they are gone.
    pub fn stop(&self) {
        for lens in self.lenses() {
            lock(&lens).close();
        }
        for lens in self.lenses() {
            lock(&lens).join();
        }
        // Last: the kernel ends workers together with the thread that started them.
        self.shared.bell.stop();
    }

    /// Every lens in the order of the configuration, then those that were added.
    #[must_use]
    pub fn status(&self) -> Vec<LensStatus> {
        let mut lenses: Vec<LensStatus> = self.lenses().iter().map(|l| lock(l).status()).collect();
        skew::note(&mut lenses);
        lenses
    }

    /// Whether the events of its camera are heard of; `None` if it is not asked for any.
    #[must_use]
    pub fn events_of(&self, id: &LensId) -> Option<EventsStatus> {
        lock(&self.shared.events).get(id).cloned()
    }

    /// Notes that. Waits for nobody.
    pub fn note_events(&self, id: &LensId, note: impl FnOnce(&mut EventsStatus)) {
        note(lock(&self.shared.events).entry(id.clone()).or_default());
    }

    /// The lenses at this moment.
    fn lenses(&self) -> Vec<Arc<Mutex<Lens>>> {
        self.shared.lenses.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lens(&self, id: &LensId) -> Option<Arc<Mutex<Lens>>> {
        self.lenses().into_iter().find(|lens| lock(lens).id() == id)
    }

    /// Every lens, and every change from now on.
    #[must_use]
    pub fn follow(&self) -> (Vec<LensStatus>, broadcast::Receiver<News>) {
        let changes = self.shared.parts.changes.subscribe();
        (self.status(), changes)
    }

    /// The lenses whose raw frames are published.
    #[must_use]
    pub fn frames(&self) -> Vec<(LensId, Arc<LensFrames>)> {
        self.shared.frames.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Devices present now (ListDevices).
    #[must_use]
    pub fn devices(&self) -> Vec<Device> {
        self.shared.openers.platform.devices()
    }

    /// Network cameras that answer a search within `wait`, and the configured ones that can say what they are.
    #[must_use]
    pub fn network_devices(&self, wait: Duration) -> Vec<Device> {
        let configured: Vec<SourceSpec> = self.lenses().iter().map(|l| lock(l).base().source.clone()).collect();
        mos_hal::onvif::survey(&configured, wait)
    }

    /// The GMSL links of the board, watched from the first call on.
    #[must_use]
    pub fn gmsl(&self) -> Vec<Arc<dyn GmslLink>> {
        self.shared.openers.platform.watch_gmsl()
    }

    /// The board and what it was recognised by.
    #[must_use]
    pub fn platform(&self) -> (&'static str, String) {
        (self.shared.openers.platform.name(), self.shared.openers.platform.evidence())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
