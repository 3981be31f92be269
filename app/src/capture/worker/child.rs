//! The worker: opens one source by the HAL and hands over what it delivers.
//!
//! Promises: standard input is the only thing that it takes over from the recorder, and processes that the source starts do
//! not get it; it ends when the recorder closes the socket or dies.

use std::io::BufReader;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mos_hal::clock::{Clock, Mono, SystemClock};
use mos_hal::codecs::families::Memory;
use mos_hal::frames::LensFrames;
use mos_hal::media::{AccessUnit, TrackFormat};
use mos_hal::source::{LeftOutBy, LensSource, Share, SourceError, UnitSink};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal};

use super::queue::Queue;
use super::sharing::{Answer, Asking};
use super::wire::{self, End, Message, Unit};
use super::work::Work;

/// How often the source is asked where its pictures are, and whether it waits for its camera.
const ASK: Duration = Duration::from_millis(500);

/// Runs a worker on this process's standard input, until its source or the recorder is over.
pub(crate) fn run() -> Result<(), String> {
    // Even a worker that hangs is not to outlive the recorder.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| format!("cannot follow the recorder's end: {e}"))?;
    // When memory runs out, a worker is to go before the recorder. Raising needs no right; without /proc it stays as it is.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    // A stop of the whole group means the recorder, which tells its workers in order.
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        // SAFETY: SIG_IGN is no handler; nothing runs in signal context.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }.map_err(|e| e.to_string())?;
    }
    let socket = socket().map_err(|e| format!("a worker is started by the recorder only: {e}"))?;
    let mut commands = BufReader::new(socket.try_clone().map_err(|e| e.to_string())?);
    let Ok(Some(Ok(Message::Work(work)))) = wire::read(&mut commands) else {
        return Err("a worker is started by the recorder only".to_owned());
    };
    let work: Work = serde_json::from_slice(&work).map_err(|_| "the recorder gave no work".to_owned())?;
    start_log(&work);

    let queue = Arc::new(Queue::default());
    let out = Arc::clone(&queue);
    let writing = std::thread::Builder::new().name("worker-out".into());
    let writing = writing.spawn(move || out.drain(&socket)).map_err(|e| e.to_string())?;
    let (answer, answers) = mpsc::channel();
    let commands = listen(commands, answer).map_err(|e| e.to_string())?;
    let frames = work.frames();
    let one_in = Arc::new(AtomicU32::new(work.one_in.max(1)));
    let source = open(&work, &queue, answers, frames.as_ref(), &one_in).unwrap_or_else(|error| {
        let (end, detail) = End::of(&error);
        queue.push(&Message::Ended(end, detail));
        None
    });
    follow(&commands, source.as_deref(), &queue, &one_in);
    drop(source);
    drop(writing);
    Ok(())
}

/// Takes the socket over, and leaves /dev/null in its place.
fn socket() -> std::io::Result<UnixStream> {
    let taken: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    let socket = UnixStream::from(taken);
    socket.peer_addr()?;
    Ok(socket)
}

fn start_log(work: &Work) {
    let level = work.log.parse().unwrap_or(log::LevelFilter::Info);
    let logger = env_logger::Builder::new()
        .filter_level(level.min(log::LevelFilter::Warn))
        .filter_module("mos", level)
        .filter_module("mos_hal", level)
        .try_init();
    if logger.is_err() {
        log::debug!("somebody else logs already");
    }
}

fn open(
    work: &Work,
    queue: &Arc<Queue>,
    answers: Receiver<(u32, Answer)>,
    frames: Option<&Arc<LensFrames>>,
    one_in: &Arc<AtomicU32>,
) -> Result<Option<Box<dyn LensSource>>, SourceError> {
    let broken = |detail: String| SourceError::Broken { what: String::new(), detail };
    let spec = work.source().map_err(broken)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new().map_err(|e| broken(e.to_string()))?);
    let sink = Arc::new(Sending {
        queue: Arc::clone(queue),
        formats: [AtomicUsize::new(0), AtomicUsize::new(0)],
        kept: Mutex::default(),
        one_in: Arc::clone(one_in),
    });
    let shared = Arc::new(Asking::new(Arc::clone(queue), answers, work.lessons()));
    let platform = mos_hal::probe::probe_sharing(&work.board(), shared);
    let sink: Arc<dyn UnitSink> = match frames {
        Some(frames) => frames.beside(platform.as_ref(), sink),
        None => sink,
    };
    platform.open(&spec, work.audio, clock, sink).map(Some)
}

/// Reads what the recorder says, on a thread of its own: answers go to who asked, all else to [`follow`].
fn listen(mut commands: BufReader<UnixStream>, answer: Sender<(u32, Answer)>) -> std::io::Result<Receiver<Message>> {
    let (tell, told) = mpsc::channel();
    let reading = std::thread::Builder::new().name("worker-in".into());
    reading.spawn(move || {
        while let Ok(Some(Ok(message))) = wire::read(&mut commands) {
            let heard = match message {
                Message::Answer(number, given) => {
                    // Fails if nobody asks any more.
                    let _ = answer.send((number, given));
                    true
                }
                other => tell.send(other).is_ok(),
            };
            if !heard {
                return;
            }
        }
    })?;
    Ok(told)
}

/// Does what the recorder wants until it closes the socket.
fn follow(told: &Receiver<Message>, source: Option<&dyn LensSource>, queue: &Queue, one_in: &AtomicU32) {
    let mut known: Option<Memory> = None;
    let mut awaited = false;
    loop {
        match told.recv_timeout(ASK) {
            Ok(Message::Keyframe) => {
                source.map(LensSource::request_keyframe);
            }
            Ok(Message::Thin(wanted)) => one_in.store(wanted, Ordering::Relaxed),
            Ok(_) | Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        let memory = source.and_then(LensSource::memory);
        if let Some(memory) = memory.filter(|_| memory != known) {
            known = Some(memory);
            queue.push(&Message::Memory(memory));
        }
        let awaits = source.is_some_and(LensSource::awaits_caller);
        if std::mem::replace(&mut awaited, awaits) != awaits {
            queue.push(&Message::Awaits(awaits));
        }
    }
}

/// Where the source delivers.
struct Sending {
    queue: Arc<Queue>,
    /// The format objects that were sent last, by track; compared only, never followed.
    formats: [AtomicUsize; 2],
    /// Keeps them alive, so that none is mistaken for a later one in the same place.
    kept: Mutex<[Option<Arc<TrackFormat>>; 2]>,
    /// Of so many pictures one is coded.
    one_in: Arc<AtomicU32>,
}

impl UnitSink for Sending {
    fn unit(&self, unit: AccessUnit) {
        let format = Arc::clone(&unit.format);
        let unit = Unit::of(unit);
        let track = unit.track();
        let seen = Arc::as_ptr(&format) as usize;
        if self.formats[usize::from(track)].swap(seen, Ordering::Relaxed) != seen {
            self.queue.push(&Message::Format(track, (*format).clone()));
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept[usize::from(track)] = Some(format);
        }
        self.queue.push(&Message::Unit(unit));
    }

    fn left_out(&self, from: Mono, to: Mono, pictures: u64, by: LeftOutBy) {
        self.queue.push(&Message::LeftOut { from, to, pictures, by });
    }

    fn ended(&self, why: SourceError) {
        let (end, detail) = End::of(&why);
        self.queue.push(&Message::Ended(end, detail));
    }

    fn one_in(&self) -> u32 {
        self.one_in.load(Ordering::Relaxed)
    }

    fn coded(&self, share: Share) {
        self.queue.push(&Message::Coded(share));
    }
}
