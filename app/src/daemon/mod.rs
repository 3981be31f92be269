//! The daemon's life: starts the services in order and stops them in order.
//!
//! Start: addresses of the API → archive (lock, new run) → recorder and cameras → API → recovery and index of what earlier runs left, beside all
//! of it. Stop: intake, last fragments, closes and syncs first, since that is what a failing supply gives time for; then the
//! cameras, the uploads and the API. Never decides anything about media.

mod activation;
mod degradation;
mod hotplug;
mod lean;
mod lines;
pub(crate) mod signals;
mod supervise;
mod tokens;
mod watchdog;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mos_hal::clock::{Clock, SystemClock};
use mos_hal::frames::{Budget, LensFrames};
use mos_hal::media::LensId;
use mos_hal::pins::Line;
use mos_hal::platform::Platform;
use mos_hal::power::SigPwr;
use mos_hal::storage::StorageDevice;
use sd_notify::NotifyState;
use tokio_rustls::TlsAcceptor;

use crate::alarms::AlarmKind;
use crate::archive::disk::{Disk, RealDisk};
use crate::archive::{Archive, ArchiveError, ArchiveOptions, Beside, Quota};
use crate::capture::worker::Workers;
use crate::capture::{CaptureControlService, Degradation, DropMode, Isolation, LensConfig, LensHost};
use crate::clip::Clips;
use crate::config::{Config, Frames, Log, Protection, Storage, Tcp, TokenSource};
use crate::evidence::Evidence;
use crate::http::serve::{self, ServeError};
use crate::http::tls::{self, TlsError};
use crate::http::{self, Door, Loading, Services, Tokens};
use crate::pins::{BoxPins, Shown};
use crate::power::{Levels, Power};
use crate::record::{Intake, Recorder, RecorderOptions};
use crate::retention::{self, Retention};
use crate::snapshot::Snapshots;
use crate::triggers::Triggers;
use crate::upload::queue::{Roads, Settings, Uploads};
use signals::StopSignals;
use supervise::Recording;

/// Threads that may wait for the disk or a decoder on behalf of the API, at a time.
const API_THREADS: usize = 4;
/// Their stacks, in bytes.
const API_STACK: usize = 512 << 10;
/// How long an idle one stays.
const API_IDLE: Duration = Duration::from_secs(10);
/// How often it is looked whether a folder of the archive has vanished, and not before this long after the start.
const VANISHED_LOOK: Duration = Duration::from_secs(1);
/// See [`VANISHED_LOOK`].
const VANISHED_AFTER: Duration = Duration::from_secs(10);
/// How often the alarm for dark GMSL links is looked at; their chips are read as often.
const LINKS: Duration = Duration::from_secs(1);
/// Half a period of the status light when it blinks.
const BLINK: Duration = Duration::from_millis(500);

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The archive cannot be opened.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The API cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The API cannot be served with TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A thread that records has ended by itself; what it wrote is safe, recovery will close it.
    #[error("{0} has ended unexpectedly; the log tells more, a restart records again")]
    Died(&'static str),
    /// Somebody took a folder of the archive away; a new run makes it anew.
    #[error("the folder {0} of the archive has vanished while it was recorded into; a restart records again")]
    Vanished(PathBuf),
    /// The system refuses something that the daemon cannot do without.
    #[error("cannot {what}: {reason}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        reason: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> DaemonError {
    move |reason| DaemonError::System { what, reason }
}

/// Runs until it is told to stop; `tokens` is where the configuration came from. Must be called before the process has other
/// threads.
pub fn run(config: Config, tokens: TokenSource) -> Result<(), DaemonError> {
    lean::bound_the_allocator();
    start_log(&config.log);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(API_THREADS)
        .thread_stack_size(API_STACK)
        .thread_keep_alive(API_IDLE)
        .thread_name("mos-api")
        .build()
        .map_err(system("make the runtime"))?;
    runtime.block_on(live(config, tokens))
}

/// Logs of MOS at the configured level. Libraries may only warn: what they tell of a connection at finer levels is not under
/// our control and might hold credentials.
fn start_log(log: &Log) {
    let logger = env_logger::Builder::new()
        .filter_level(log.level.min(log::LevelFilter::Warn))
        .filter_module("mos", log.level)
        .filter_module("mos_hal", log.level)
        .try_init();
    if logger.is_err() {
        log::debug!("somebody else logs already");
    }
}

async fn live(config: Config, tokens: TokenSource) -> Result<(), DaemonError> {
    let mut stop = StopSignals::listen().map_err(system("listen for signals"))?;
    let power = SigPwr::listen().and_then(|events| signals::power_fails(Box::new(events)));
    let power = power.map_err(system("listen for SIGPWR"))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new().map_err(system("read the clocks"))?);
    // Taken before anything is begun: another daemon's socket or port must not cost a run.
    let unix = match activation::unix_socket(&config.http.unix_socket).map_err(system("take the API's socket"))? {
        Some(socket) => serve::held_unix(socket).map_err(system("take the API's socket"))?,
        None => serve::bind_unix(&config.http.unix_socket)?,
    };
    let tcp = match &config.http.tcp {
        Some(tcp) => Some((serve::bind_tcp(tcp.listen).await?, door(tcp), acceptor(tcp)?)),
        None => None,
    };
    let root = config.storage.root.clone();
    let disk = Arc::new(open_disk(&root)?);
    let root = disk.root().to_owned();
    let protection = protection(&config.storage, disk.as_ref());
    let options = ArchiveOptions { protected_max_bytes: protection.max_bytes, ..ArchiveOptions::default() };
    let archive = Archive::open(disk as Arc<dyn Disk>, clock.clone(), &options)?;
    log::info!("mos {}: run {} of {}", env!("CARGO_PKG_VERSION"), archive.run().0, root.display());

    let platform = mos_hal::probe::probe(&config.board);
    let pins = BoxPins::take(platform.pins().as_ref(), &config.lines, config.power.follow_ignition);
    // Where it leads from state to state it does not end the daemon.
    let ends = config.lines.ignition.as_ref().filter(|_| !config.power.follow_ignition);
    let ignition = ignition(platform.as_ref(), ends, &pins)?;
    let devices = hotplug::listen(&config.cameras);
    let (recording, capture, power_states) = record(&config, &archive, &clock, platform.clone(), pins.levels())?;
    let recorder = recording.recorder.clone();
    let plan = config.degradation.clone();
    let degradation = Degradation::new(plan, capture.clone(), clock.clone(), config.board.sysfs.clone());
    let clips = Clips::new(archive.clone()).with_sources(config.evidence.is_some());
    let snapshots = Snapshots::new(archive.clone(), platform.codecs());
    let roads = Roads { destinations: config.destinations.clone(), context: config.context.clone() };
    let settings = Settings { roads, ..Settings::default() };
    let uploads = Uploads::start(&root, archive.clone(), &settings).map_err(system("start uploads"))?;
    let loading = Mutex::new(Loading::Busy);
    let device = StorageDevice::of(&root).unwrap_or_else(|e| {
        log::warn!("the device that carries {} cannot be told: {e}", root.display());
        None
    });
    let retention = Retention::new(archive.clone(), clock.clone(), limits(&config, protection), device);
    let evidence = config.evidence.as_deref();
    let evidence = evidence.map(|key| Evidence::start(archive.clone(), key, retention.alarms().clone()));
    let services = Arc::new(Services {
        archive,
        root,
        recorder,
        power: power_states,
        capture,
        degradation,
        clips,
        snapshots,
        uploads,
        retention,
        evidence,
        pins,
        loading,
    });
    let beside = keep_house(services.clone())?;
    let planned =
        config.cameras.iter().map(|camera| (camera.id.clone(), camera.source.clone(), camera.triggers.clone()));
    let triggers = Triggers::start(&services.archive, &services.capture, services.retention.alarms(), planned);
    // Beside the start, which must not wait for a bus: errors are counted from now on.
    tokio::spawn(watch_links(services.clone()));
    tell(&[NotifyState::Ready]);
    log::info!("the API is served on {}", config.http.unix_socket.display());
    if let Some((listener, door, _)) = &tcp
        && let Ok(address) = listener.local_addr()
    {
        log::info!("the API is served on {}://{address}", if door.tls { "https" } else { "http" });
        if !door.tls && !address.ip().is_loopback() {
            log::warn!("the API is served beyond this machine without TLS: footage and tokens can be read on the way");
        }
    }

    let local = serve::unix(&unix, &config.http.users, http::local(&services));
    let remote = async {
        match tcp {
            Some((listener, door, tls)) => {
                let followed = tokens::follow(tokens, door.tokens.clone());
                let api = http::remote(&services, door);
                tokio::select! {
                    () = serve::tcp(&listener, tls.as_ref(), api) => {}
                    () = followed => {}
                }
            }
            None => std::future::pending().await,
        }
    };
    let mut fate = Ok(());
    let why = tokio::select! {
        what = recording.died(clock.as_ref()) => return Err(DaemonError::Died(what)),
        () = local => "the API ended",
        () = remote => "the API ended",
        folder = vanished(&services.archive) => {
            fate = Err(DaemonError::Vanished(folder));
            "a folder of the archive has vanished"
        }
        signal = stop.next() => signal.map_err(system("wait for signals"))?,
        _ = power => "power is failing",
        () = ignition => "the ignition is off",
        () = show(&services) => "the light ended",
        () = lines::follow(&services) => "lines",
        () = degradation::follow(&services) => "heat and encoder",
        () = triggers.follow() => "triggers",
        () = hotplug::follow(devices, &services.capture) => "devices",
    };
    log::info!("stopping: {why}");
    tell(&[NotifyState::Stopping]);
    drop(triggers);
    // First what a failing supply gives time for.
    let services_of_stop = services.clone();
    // On a thread of its own: those that serve the API may all be at work.
    let (done, stopped) = tokio::sync::oneshot::channel();
    let stop = move || {
        let report = services_of_stop.recorder.stop();
        log::info!("everything is durable {} ms after the end was decided", report.took.as_millis());
        services_of_stop.pins.show(Shown::Nothing);
        services_of_stop.capture.stop();
        services_of_stop.uploads.stop();
        beside.stop();
        // Nobody waits only if the runtime is gone already.
        let _ = done.send(());
    };
    std::thread::Builder::new().name("mos-stop".into()).spawn(stop).map_err(system("stop in order"))?;
    stopped.await.map_err(|e| system("stop in order")(io::Error::other(e)))?;
    fate
}

/// Resolves with a folder of the archive that was taken away; not at once, so that what takes it away again and again does not
/// take the recording with it.
async fn vanished(archive: &Archive) -> PathBuf {
    tokio::time::sleep(VANISHED_AFTER).await;
    let mut times = tokio::time::interval(VANISHED_LOOK);
    loop {
        times.tick().await;
        if let Some(folder) = archive.vanished() {
            return folder.to_owned();
        }
    }
}

/// What the TCP listener asks for.
fn door(tcp: &Tcp) -> Door {
    let (tokens, host_names) = (Tokens::new(tcp.tokens.clone()), tcp.host_names.clone());
    Door { tokens, host_names, addresses: !tcp.listen.ip().is_loopback(), tls: tcp.tls.is_some() }
}

fn acceptor(tcp: &Tcp) -> Result<Option<TlsAcceptor>, TlsError> {
    tcp.tls.as_ref().map(|(certificate, key)| tls::acceptor(certificate, key)).transpose()
}

/// Resolves when the ignition goes off; never without a line. One that cannot be used is told and costs nothing else.
fn ignition(
    platform: &dyn Platform,
    line: Option<&Line>,
    pins: &BoxPins,
) -> Result<impl Future<Output = ()> + use<>, DaemonError> {
    let events =
        line.and_then(|line| platform.pins().ignition(line).inspect_err(|e| pins.trouble("ignition_line", e)).ok());
    let off = events.map(signals::power_fails).transpose().map_err(system("wait for the ignition"))?;
    Ok(async {
        match off {
            Some(off) => drop(off.await),
            None => std::future::pending().await,
        }
    })
}

/// Drives the status light for ever.
async fn show(services: &Services) {
    if !services.pins.has_light() {
        return std::future::pending().await;
    }
    let mut times = tokio::time::interval(BLINK);
    loop {
        times.tick().await;
        services.pins.show(Shown::of(&services.recorder.status()));
    }
}

/// Watches GMSL links and raises the alarm for those that stay dark, for ever.
async fn watch_links(services: Arc<Services>) {
    let watched = services.clone();
    let links = tokio::task::spawn_blocking(move || watched.capture.gmsl()).await.unwrap_or_default();
    if links.is_empty() {
        return;
    }
    let mut times = tokio::time::interval(LINKS);
    loop {
        times.tick().await;
        services.retention.alarms().set(AlarmKind::GmslLinkDark, http::dark_links(&links));
    }
}

fn open_disk(root: &std::path::Path) -> Result<RealDisk, DaemonError> {
    RealDisk::open(root).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => ArchiveError::Locked(root.to_owned()).into(),
        _ => ArchiveError::Io { what: "open", path: PathBuf::from(root), source }.into(),
    })
}

/// Starts recorder and cameras.
fn record(
    config: &Config,
    archive: &Archive,
    clock: &Arc<dyn Clock>,
    platform: Arc<dyn Platform>,
    levels: Levels,
) -> Result<(Recording, CaptureControlService, Power), DaemonError> {
    let options = RecorderOptions {
        segment_length: config.storage.segment,
        intake_bytes: usize::try_from(config.storage.buffer_bytes).unwrap_or(usize::MAX),
    };
    let ids: Vec<LensId> = config.cameras.iter().map(|camera| camera.id.clone()).collect();
    let recorder = Recorder::new(archive.clone(), clock.clone(), &options, &ids);
    let all = Arc::new(Budget::new(config.frames.as_ref().and_then(|frames| frames.max_rate)));
    let lenses = config.cameras.iter().filter_map(|camera| {
        let isolation = camera.isolation.unwrap_or_else(|| Isolation::of(&camera.source));
        let frames = published(config.frames.as_ref(), &all, &camera.id);
        let (id, source) = (camera.id.clone(), camera.source.clone());
        let lens = LensConfig { id, source, audio: camera.audio, frames, isolation };
        Some((lens, recorder.intake(&camera.id)?))
    });
    let host = Host { recorder: recorder.clone(), frames: config.frames.clone(), all: all.clone() };
    let workers = Some(Workers::of_this_program(config.board.clone(), platform.shared()));
    let capture = CaptureControlService::new(platform, workers, clock, lenses.collect(), DropMode::Thread);
    capture.remember(archive, Some(Arc::new(host)));
    let (plan, states) = (config.power.clone(), (recorder.clone(), archive.clone(), clock.clone()));
    let power = Power::new(plan, capture.clone(), states.0, states.1, states.2, levels);
    let cameras = capture.spawn().map_err(system("start the cameras"))?;
    let writer = recorder.spawn().map_err(system("start the recorder"))?;
    Ok((Recording { recorder, writer, cameras }, capture, power))
}

/// What lenses that are added at run time need.
struct Host {
    recorder: Recorder,
    frames: Option<Frames>,
    all: Arc<Budget>,
}

impl LensHost for Host {
    fn take_in(&self, lens: &LensId) -> Option<Arc<Intake>> {
        self.recorder.add(lens)
    }

    fn let_go(&self, lens: &LensId) {
        self.recorder.remove(lens);
    }

    fn frames(&self, lens: &LensId) -> Option<Arc<LensFrames>> {
        published(self.frames.as_ref(), &self.all, lens)
    }
}

/// Opens a lens on the frame bus. Recording goes on without.
fn published(frames: Option<&Frames>, all: &Arc<Budget>, lens: &LensId) -> Option<Arc<LensFrames>> {
    let frames = frames?;
    let opened = std::fs::create_dir_all(&frames.directory)
        .map_err(|e| format!("{}: {e}", frames.directory.display()))
        .and_then(|()| LensFrames::open(frames.of(lens), all).map_err(|e| e.to_string()));
    opened.inspect_err(|why| log::warn!("{lens}: nobody gets raw frames: {why}")).ok()
}

/// Lists and recovers what earlier runs left, while the cameras are recorded already; then makes room and writes index
/// snapshots.
fn keep_house(services: Arc<Services>) -> Result<Beside, DaemonError> {
    let archive = services.archive.clone();
    let tending = services.clone();
    let tend = move || tending.retention.step(&|| tending.uploads.in_use());
    let loaded = move |done: Result<(), ArchiveError>| match done {
        Ok(()) => {
            log::info!("all segments are listed");
            services.set_loading(Loading::Done);
        }
        Err(e) => {
            log::error!("what earlier runs left cannot be listed completely: {e}");
            services.set_loading(Loading::Failed(e.to_string()));
        }
    };
    Beside::spawn(archive, tend, loaded).map_err(system("start a thread"))
}

/// How much may be protected. Unless it is configured: half of what segments may take.
fn protection(storage: &Storage, disk: &RealDisk) -> Protection {
    storage.protection.unwrap_or_else(|| {
        let total = disk.space().map_or(u64::MAX, |space| {
            space.total.saturating_sub(retention::min_free(storage.min_free_bytes, space.total))
        });
        Protection::up_to(storage.max_bytes.unwrap_or(u64::MAX).min(total) / 2)
    })
}

fn limits(config: &Config, protection: Protection) -> retention::Limits {
    let storage = &config.storage;
    retention::Limits {
        max_bytes: storage.max_bytes,
        max_age: storage.max_age,
        min_free_bytes: storage.min_free_bytes,
        shares: config.cameras.iter().filter_map(|camera| Some((camera.id.clone(), camera.share?))).collect(),
        protected_alarm_bytes: protection.alarm_bytes,
        outputs: Quota { max_bytes: storage.output_max_bytes, max_age: storage.output_max_age },
        quarantine: Quota { max_bytes: storage.quarantine_max_bytes, max_age: storage.quarantine_max_age },
    }
}

/// Tells systemd, if it is there.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        log::warn!("systemd cannot be told about the state: {e}");
    }
}
