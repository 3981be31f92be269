//! The recorder's side of a worker: a source like any other.

use std::io::{self, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mos_hal::clock::Clock;
use mos_hal::codecs::families::Memory;
use mos_hal::frames::{LensFrames, Relay};
use mos_hal::media::TrackFormat;
use mos_hal::source::{LensSource, SourceError, UnitSink};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::MsgFlags;

use super::sharing::{Answer, Holding};
use super::wire::{self, Message};
use super::work::Work;
use super::{COMMAND, Workers};

/// How long a worker may take to let go of its camera before it is killed.
pub(super) const PATIENCE: Duration = Duration::from_millis(1500);
/// How long the kernel may take to end a killed process before somebody else waits for it.
const KILLED: Duration = Duration::from_millis(300);
/// Most messages about pictures left out between two units; more are no camera's.
const LEFT_OUT_IN_A_ROW: u32 = 1000;
/// Changes of format within [`FORMATS_SPAN`] nanoseconds; more are no camera's, and each would begin a segment.
const FORMATS_IN_SPAN: u32 = 10;
const FORMATS_SPAN: i64 = 1_000_000_000;
/// The reading thread's stack in bytes.
const STACK: usize = 256 << 10;

/// Variables that a worker gets, by the beginning of their names. All others stay here: some hold credentials.
const ENVIRONMENT: [&str; 13] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "LC_",
    "LD_",
    "XDG_",
    "GST_",
    "GIO_",
    "LIBCAMERA_",
    "RUST_",
    "MOS_DOUBLES",
    // Whose certificates are believed of cameras over TLS.
    "SSL_CERT_FILE",
];

fn may_know(name: &str) -> bool {
    ENVIRONMENT.iter().any(|known| name.starts_with(known))
}

/// A source in a process of its own.
pub(super) struct WorkerSource {
    process: Arc<Process>,
    commands: UnixStream,
    reader: Option<JoinHandle<()>>,
    /// Raw pictures, if anybody may have them.
    _relay: Option<Relay>,
}

struct Process {
    what: String,
    /// The process as something to wait for.
    fd: OwnedFd,
    child: Mutex<Child>,
    /// The source was dropped: nothing that comes counts any more.
    dropped: AtomicBool,
    /// 0 unknown, 1 system, 2 dmabuf.
    memory: AtomicU8,
    /// Its camera is the one to connect, and has not yet.
    awaits: AtomicBool,
    /// Given back when it is reaped.
    holding: Holding,
}

impl WorkerSource {
    pub(super) fn start(
        workers: &Workers,
        work: &Work,
        what: String,
        clock: Arc<dyn Clock>,
        sink: Arc<dyn UnitSink>,
        frames: Option<&Arc<LensFrames>>,
    ) -> io::Result<Self> {
        let relay = frames.map(Relay::start).transpose()?;
        // Both ends close on exec; the child's becomes its standard input.
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(&workers.program)
            .arg0("mos")
            .arg(COMMAND)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(may_know)))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        let mut process = Starting(Some(child));
        let fd = process.pid_fd()?;
        // A program that has ended already does not take it: the reading thread tells why.
        let _ = send(&ours, &Message::Work(serde_json::to_vec(work)?));
        let commands = ours.try_clone()?;
        let child = process.0.take().ok_or(io::ErrorKind::NotFound)?;
        let process = Arc::new(Process {
            what,
            fd,
            child: Mutex::new(child),
            dropped: AtomicBool::new(false),
            memory: AtomicU8::new(0),
            awaits: AtomicBool::new(false),
            holding: Holding::new(Arc::clone(&workers.shared)),
        });
        let mut source = Self { process: Arc::clone(&process), commands, reader: None, _relay: relay };
        let reader = std::thread::Builder::new().name("worker".into()).stack_size(STACK);
        source.reader = Some(reader.spawn(move || {
            let end = receive(&ours, &process, &*clock, &*sink);
            if !process.dropped.load(Ordering::Acquire) {
                process.finish(&ours);
            }
            let status = process.reap();
            let end = end.unwrap_or_else(|| process.died(status));
            if !process.dropped.load(Ordering::Acquire) {
                sink.ended(end);
            }
        })?);
        Ok(source)
    }
}

impl LensSource for WorkerSource {
    fn request_keyframe(&self) -> bool {
        tell(&self.commands, &Message::Keyframe)
    }

    fn thin(&self, one_in: u32) {
        // What does not reach a worker that reads nothing is said again when it is opened anew.
        tell(&self.commands, &Message::Thin(one_in));
    }

    fn awaits_caller(&self) -> bool {
        self.process.awaits.load(Ordering::Relaxed)
    }

    fn memory(&self) -> Option<Memory> {
        match self.process.memory.load(Ordering::Relaxed) {
            1 => Some(Memory::System),
            2 => Some(Memory::Dmabuf),
            _ => None,
        }
    }
}

impl Drop for WorkerSource {
    fn drop(&mut self) {
        self.process.dropped.store(true, Ordering::Release);
        self.process.finish(&self.commands);
        if let Some(reader) = self.reader.take() {
            // A panic there is this source's trouble only, and it is over.
            let _ = reader.join();
        }
        if self.process.reap().is_none() {
            // Not even SIGKILL has ended it yet: it hangs in the kernel. Somebody waits for it, but not this lens.
            let process = Arc::clone(&self.process);
            let waiting = std::thread::Builder::new().name("worker-end".into()).stack_size(STACK);
            let _ = waiting.spawn(move || {
                while !process.wait(Duration::from_mins(1)) {}
                process.reap();
            });
        }
    }
}

/// Pushes what comes into the sink; how the source ended, if it said so or spoke nonsense.
fn receive(socket: &UnixStream, process: &Process, clock: &dyn Clock, sink: &dyn UnitSink) -> Option<SourceError> {
    let broken = |detail: &str| SourceError::Broken { what: process.what.clone(), detail: detail.to_owned() };
    let mut from = BufReader::with_capacity(64 << 10, socket);
    let mut formats: [Option<Arc<TrackFormat>>; 2] = [None, None];
    let mut left_out = 0;
    let (mut formats_since, mut changes) = (clock.mono(), 0);
    loop {
        let message = match wire::read(&mut from) {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(malformed))) => {
                process.kill();
                return Some(broken(&malformed.to_string()));
            }
            Ok(None) | Err(_) => return None,
        };
        if process.dropped.load(Ordering::Acquire) {
            continue;
        }
        match message {
            Message::Format(track, format) => {
                let known = &mut formats[usize::from(track)];
                if known.as_deref() == Some(&format) {
                    continue;
                }
                let now = clock.mono();
                if now.since(formats_since) >= FORMATS_SPAN {
                    (formats_since, changes) = (now, 0);
                }
                changes += 1;
                if changes > FORMATS_IN_SPAN {
                    process.kill();
                    return Some(broken("its worker changes the format all the time"));
                }
                *known = Some(Arc::new(format));
            }
            Message::Unit(unit) => {
                let Some(format) = &formats[usize::from(unit.track())] else {
                    process.kill();
                    return Some(broken("its worker sent a unit without a format"));
                };
                left_out = 0;
                sink.unit(unit.in_format(Arc::clone(format), clock.mono()));
            }
            Message::LeftOut { from, to, pictures, by } if left_out < LEFT_OUT_IN_A_ROW => {
                left_out += 1;
                let now = clock.mono();
                let (from, to) = (wire::near(from, now), wire::near(to, now));
                sink.left_out(from, to.max(from), pictures, by);
            }
            Message::Ended(end, detail) => return Some(end.into_error(process.what.clone(), detail)),
            Message::Memory(memory) => {
                process.memory.store(if memory == Memory::Dmabuf { 2 } else { 1 }, Ordering::Relaxed);
            }
            Message::Awaits(awaits) => process.awaits.store(awaits, Ordering::Relaxed),
            Message::Coded(share) => sink.coded(share),
            Message::Take(number, camera) if answer(socket, number, process.holding.take(camera.clone())) => {}
            Message::Encode(number, camera, pixels)
                if answer(socket, number, process.holding.encode(&camera, pixels)) => {}
            Message::Learned(lesson) if process.holding.learn(lesson.clone()) => {}
            _ => {
                process.kill();
                return Some(broken(&wire::Malformed.to_string()));
            }
        }
    }
}

/// Sends a short message. Never waits: a worker that does not read must not hold up whoever speaks to it.
fn tell(to: &UnixStream, message: &Message) -> bool {
    let (mut bytes, tail) = wire::write(message);
    bytes.extend(&tail);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    nix::sys::socket::send(to.as_raw_fd(), &bytes, flags).is_ok_and(|sent| sent == bytes.len())
}

/// Answers what a worker asked; false if it may not ask that, or does not read.
fn answer(socket: &UnixStream, number: u32, answer: Option<Answer>) -> bool {
    answer.is_some_and(|answer| tell(socket, &Message::Answer(number, answer)))
}

fn send(mut to: &UnixStream, message: &Message) -> io::Result<()> {
    let (mut bytes, tail) = wire::write(message);
    bytes.extend(&tail);
    to.write_all(&bytes)
}

impl Process {
    /// Tells the worker that it is over and waits for its end, at most [`PATIENCE`]; then it is killed.
    fn finish(&self, socket: &UnixStream) {
        // Fails only if the other end is gone already.
        let _ = socket.shutdown(Shutdown::Write);
        if !self.wait(PATIENCE) {
            log::warn!("{}: its worker does not let go of the camera and is killed", self.what);
            self.kill();
            self.wait(KILLED);
        }
        // A process that the worker left behind may hold the other end: nobody waits for it.
        let _ = socket.shutdown(Shutdown::Both);
    }

    /// Waits for the end of the process; whether it came.
    fn wait(&self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) if left.is_zero() => return false,
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return true,
                Err(_) => return false,
            }
        }
    }

    fn kill(&self) {
        // Fails only if it has ended.
        let _ = self.child().kill();
    }

    /// Takes the ended process from the system's table; one that even SIGKILL does not end at once is waited for elsewhere.
    fn reap(&self) -> Option<ExitStatus> {
        match self.child().try_wait() {
            Ok(status) => {
                if status.is_some() {
                    self.holding.give_back();
                }
                status
            }
            Err(e) => {
                log::warn!("{}: its worker cannot be waited for: {e}", self.what);
                None
            }
        }
    }

    /// Why it ended without a word.
    fn died(&self, status: Option<ExitStatus>) -> SourceError {
        let how = match status {
            Some(status) => match (status.signal().map(Signal::try_from), status.code()) {
                (Some(Ok(signal)), _) => format!("was ended by {signal}"),
                (Some(Err(_)), _) => "was ended by a signal".to_owned(),
                (None, Some(code)) => format!("ended with status {code}"),
                (None, None) => "ended".to_owned(),
            },
            None => "does not answer and does not end".to_owned(),
        };
        SourceError::Broken { what: self.what.clone(), detail: format!("its worker {how}") }
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process that is nobody's yet: ended and reaped if its start fails.
struct Starting(Option<Child>);

impl Starting {
    fn pid_fd(&self) -> io::Result<OwnedFd> {
        let pid = self.0.as_ref().map_or(0, Child::id);
        // SAFETY: pidfd_open(2) takes plain numbers and returns a new descriptor, which closes on exec, or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::may_know;

    #[test]
    fn a_worker_believes_whom_the_recorder_believes_and_knows_no_credentials() {
        assert!(may_know("SSL_CERT_FILE") && may_know("GST_PLUGIN_PATH"));
        assert!(!may_know("MOS_CAMERA__ROAD__SOURCE") && !may_know("MOS_HTTP__TOKEN"));
    }
}
