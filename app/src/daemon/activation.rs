//! Socket activation: the API's Unix socket, if the service manager holds it (`sd_listen_fds(3)`).
//!
//! Whoever asks while no recorder runs then waits for the next one instead of failing. Promises: taken is only a listening
//! stream socket at the configured path; whatever else was passed ends the start, since nobody would ever serve it. Called
//! once, by the daemon, before it opens anything. Never makes or removes a file.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::socket::{SockType, getsockopt, sockopt};

/// The socket that was passed, ready for a runtime; `None` if the service manager holds none.
pub(super) fn unix_socket(path: &Path) -> io::Result<Option<UnixListener>> {
    let mut passed = sd_notify::listen_fds()?;
    let (first, more) = (passed.next(), passed.len());
    let Some(fd) = first else { return Ok(None) };
    if more > 0 {
        return Err(io::Error::other(format!("the service manager passed {} sockets; only one is known", more + 1)));
    }
    // SAFETY: by LISTEN_PID and LISTEN_FDS this descriptor was opened for this process, and this is the only place that takes it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    if getsockopt(&socket, sockopt::SockType)? != SockType::Stream || !getsockopt(&socket, sockopt::AcceptConn)? {
        return Err(io::Error::other("the service manager passed something that does not listen for streams"));
    }
    let listener = UnixListener::from(socket);
    let address = listener.local_addr()?;
    if address.as_pathname() != Some(path) {
        return Err(io::Error::other(format!(
            "the service manager listens on {address:?}; make ListenStream= and http.unix_socket the same path"
        )));
    }
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}
