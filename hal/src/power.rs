//! News about the supply: the box is about to lose it, or has it back.
//!
//! Promises that an event that arrived before anybody waited is not lost. Never decides what to do about it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// What happened to the supply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerEvent {
    /// Power fails or ignition went off: hold-up time is running.
    Failing,
}

/// Where news about the supply comes from: SIGPWR here, a pin on boards.
pub trait PowerEvents: Send + AsFd {
    /// Waits for the next event; `None` after `timeout`. The descriptor of [`AsFd`] is readable while one is waiting.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Option<PowerEvent>>;
}

/// The write end of the pipe for the signal handler; -1 until somebody listens.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// SIGPWR (signal(7): power failure) as power event, by a pipe that the handler writes to.
///
/// A handler and a pipe rather than signalfd: the signal needs no blocking, so it works whichever thread takes it and
/// child processes do not inherit a changed mask. One listener per process.
#[derive(Debug)]
pub struct SigPwr {
    read: File,
}

impl SigPwr {
    /// Starts to listen. Fails if the process already does.
    pub fn listen() -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // The write end stays open for the life of the process: a handler may run at any time.
        if PIPE.compare_exchange(-1, write.as_raw_fd(), Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "SIGPWR is already listened to"));
        }
        std::mem::forget::<OwnedFd>(write);
        let action = SigAction::new(SigHandler::Handler(on_sigpwr), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler only does an atomic load and write(2), both async-signal-safe (signal-safety(7)).
        unsafe { sigaction(Signal::SIGPWR, &action) }?;
        Ok(Self { read: File::from(read) })
    }
}

extern "C" fn on_sigpwr(_: libc::c_int) {
    let fd = PIPE.load(Ordering::Relaxed);
    if fd >= 0 {
        // SAFETY: `fd` is the pipe's write end, which is never closed; errno is restored for the interrupted code. A full
        // pipe already holds an event, so the result does not matter.
        unsafe {
            let errno = *libc::__errno_location();
            libc::write(fd, [0u8].as_ptr().cast(), 1);
            *libc::__errno_location() = errno;
        }
    }
}

impl AsFd for SigPwr {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl PowerEvents for SigPwr {
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Option<PowerEvent>> {
        let timeout = timeout.map_or(PollTimeout::NONE, |t| PollTimeout::try_from(t).unwrap_or(PollTimeout::MAX));
        match poll(&mut [PollFd::new(self.read.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        // Several signals before the read are one event: power fails once.
        let mut bytes = [0u8; 64];
        match self.read.read(&mut bytes) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(Some(PowerEvent::Failing)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sigpwr_is_an_event_and_not_the_end() {
        let mut events = SigPwr::listen().unwrap();
        assert!(SigPwr::listen().is_err(), "one listener per process");
        assert_eq!(events.wait(Some(Duration::ZERO)).unwrap(), None);
        nix::sys::signal::raise(Signal::SIGPWR).unwrap();
        nix::sys::signal::raise(Signal::SIGPWR).unwrap();
        assert_eq!(events.wait(Some(Duration::from_secs(10))).unwrap(), Some(PowerEvent::Failing));
        assert_eq!(events.wait(Some(Duration::ZERO)).unwrap(), None);
    }
}
