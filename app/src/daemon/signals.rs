//! SIGTERM and SIGINT, as something to await.
//!
//! A handler and a pipe, as for SIGPWR in the HAL: no signal is blocked, so child processes do not inherit a changed mask.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use mos_hal::power::PowerEvents;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;

/// The write end of the pipe for the handler; -1 until somebody listens.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// The wish that the daemon stops.
#[derive(Debug)]
pub(crate) struct StopSignals {
    read: Receiver,
}

impl StopSignals {
    /// Starts to listen; once per process, within a runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        if PIPE.compare_exchange(-1, write.as_raw_fd(), Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "stop signals are already listened to"));
        }
        // The write end stays open for the life of the process: a handler may run at any time.
        std::mem::forget::<OwnedFd>(write);
        let action = SigAction::new(SigHandler::Handler(on_stop), SaFlags::SA_RESTART, SigSet::empty());
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            // SAFETY: the handler only does an atomic load and write(2), both async-signal-safe (signal-safety(7)).
            unsafe { sigaction(signal, &action) }?;
        }
        Ok(Self { read: Receiver::from_owned_fd(read)? })
    }

    /// The name of the next signal.
    pub(crate) async fn next(&mut self) -> io::Result<&'static str> {
        let signal = i32::from(self.read.read_u8().await?);
        Ok(if signal == libc::SIGINT { "SIGINT" } else { "SIGTERM" })
    }
}

/// Resolves when the supply is about to fail. A thread of its own waits: boards have other descriptors than pipes.
pub(super) fn power_fails(mut events: Box<dyn PowerEvents>) -> io::Result<oneshot::Receiver<()>> {
    let (tell, told) = oneshot::channel();
    let wait = move || {
        loop {
            match events.wait(None) {
                Ok(Some(_)) => {
                    // Nobody listens when the daemon stops anyway.
                    let _ = tell.send(());
                    return;
                }
                // A signal came in between.
                Ok(None) => {}
                Err(e) => {
                    log::error!("power events cannot be waited for: {e}");
                    // A dropped sender would look like an event.
                    return std::mem::forget(tell);
                }
            }
        }
    };
    std::thread::Builder::new().name("mos-power".to_owned()).stack_size(64 << 10).spawn(wait)?;
    Ok(told)
}

extern "C" fn on_stop(signal: libc::c_int) {
    let fd = PIPE.load(Ordering::Relaxed);
    if fd >= 0 {
        let byte = signal as u8;
        // SAFETY: `fd` is the pipe's write end, which is never closed; errno is restored for the interrupted code. A full
        // pipe already holds a wish, so the result does not matter.
        unsafe {
            let errno = *libc::__errno_location();
            libc::write(fd, (&raw const byte).cast(), 1);
            *libc::__errno_location() = errno;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::fd::{AsFd, BorrowedFd};
    use std::time::Duration;

    use mos_hal::power::PowerEvent;

    use super::*;

    /// What waiting comes to, in turn.
    struct Told(std::fs::File, Vec<Answer>);

    type Answer = Box<dyn FnOnce() -> io::Result<Option<PowerEvent>> + Send>;

    impl AsFd for Told {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    impl PowerEvents for Told {
        fn wait(&mut self, _: Option<Duration>) -> io::Result<Option<PowerEvent>> {
            self.1.remove(0)()
        }
    }

    #[test]
    fn a_wait_that_was_interrupted_goes_on() {
        let (entered, reached) = std::sync::mpsc::channel();
        let waits: Vec<Answer> = vec![
            Box::new(|| Ok(None)),
            Box::new(move || {
                entered.send(()).unwrap();
                Ok(Some(PowerEvent::Failing))
            }),
        ];
        let event = power_fails(Box::new(Told(std::fs::File::open("/dev/null").unwrap(), waits))).unwrap();
        assert_eq!(event.blocking_recv(), Ok(()));
        assert_eq!(reached.try_recv(), Ok(()), "the second wait tells it, not the first");
    }

    #[test]
    fn a_stop_signal_is_an_event_and_not_the_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut signals = StopSignals::listen().unwrap();
            nix::sys::signal::raise(Signal::SIGINT).unwrap();
            assert_eq!(signals.next().await.unwrap(), "SIGINT");
            nix::sys::signal::raise(Signal::SIGTERM).unwrap();
            assert_eq!(signals.next().await.unwrap(), "SIGTERM");
        });
    }
}
