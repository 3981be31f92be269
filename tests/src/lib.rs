//! Rigs and judges for black-box tests of the built `mos` binary.
//!
//! Promise: everything here talks to MOS as a user does (commands, HTTP, files) and to real peers (ffmpeg, GStreamer,
//! sshd); nothing here uses the code of MOS. A rig panics with what it missed, because a test that cannot run must fail.

#![allow(clippy::unwrap_used, reason = "rigs fail by panicking")]

use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub mod board_tree;
pub mod built_peer;
pub mod camera;
pub mod certificates;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod disk;
pub mod judge;
pub mod kernel;
pub mod onvif;
pub mod picture;
pub mod proc;
pub mod road;
pub mod srt;
pub mod sshd;
pub mod streams;
#[cfg(feature = "whep")]
pub mod turn;
#[cfg(feature = "whep")]
pub mod whep;
pub mod wire;

/// The folder of the built binaries (`target/debug` or `target/release`): the one that this program was built into.
#[must_use]
pub fn binary_folder() -> PathBuf {
    let mut folder = std::env::current_exe().expect("the running program has a path");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    folder
}

/// The path of a built binary, which must exist.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let path = binary_folder().join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --workspace --features demo --bins` first",
        path.display()
    );
    path
}

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// Asks `probe` until it has an answer, and panics with `what` if there is none within `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// What cannot be fetched: a test that cannot run must fail, unless `MOS_TESTS_OFFLINE=1` says that there is no network.
pub(crate) fn unavailable(what: &str, why: &str) {
    let why = why.lines().last().unwrap_or_default();
    let permitted = std::env::var_os("MOS_TESTS_OFFLINE").is_some_and(|value| value == "1");
    assert!(permitted, "{what} cannot be fetched (MOS_TESTS_OFFLINE=1 goes on without): {why}");
    #[allow(clippy::print_stderr, reason = "shown by the test harness")]
    {
        eprintln!("skipped: {what} cannot be fetched: {why}");
    }
}

/// A port that nobody has, by TCP nor UDP, until who is told it takes it: it lies outside of those that the system gives to
/// everybody who asks for any, and is told to nobody else. Where the system gives all of them, one that was free a moment ago.
#[must_use]
pub fn free_port() -> u16 {
    static TOLD: AtomicU16 = AtomicU16::new(0);
    const LEAST: u16 = 10_000;
    let given = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let mut given = given.split_whitespace().map(|port| port.parse::<u16>().unwrap());
    let (first, last) = (given.next().unwrap(), given.next().unwrap());
    let outside: Vec<u16> = (LEAST..=u16::MAX).filter(|port| !(first..=last).contains(port)).collect();
    let is_free = |port: &u16| {
        let at = (Ipv4Addr::UNSPECIFIED, *port);
        TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()
    };
    // Another process begins elsewhere.
    let begin = std::process::id() as usize * 97;
    let next = || begin + usize::from(TOLD.fetch_add(1, Ordering::Relaxed));
    let told = (0..outside.len()).map(|_| outside[next() % outside.len()]).find(is_free);
    told.unwrap_or_else(|| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
}

/// A TCP port of 127.0.0.1 at which nobody listens, nor can anybody as long as this lives: a connection goes out from it.
#[derive(Debug)]
pub struct DeadPort {
    from: TcpStream,
    _to: TcpListener,
}

impl DeadPort {
    /// Any.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "no two are alike")]
    pub fn new() -> Self {
        let to = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { from: TcpStream::connect(to.local_addr().unwrap()).unwrap(), _to: to }
    }

    /// Its number.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.from.local_addr().unwrap().port()
    }
}

/// CLOCK_MONOTONIC in nanoseconds: the clock of MOS's frames and of the camera rig's log.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("Linux has a monotonic clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_port_is_told_once_and_is_none_that_somebody_has() {
        let told: Vec<u16> = (0..20).map(|_| free_port()).collect();
        assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), 20, "{told:?}");
        let held: Vec<TcpListener> =
            (1..20).filter_map(|ahead| TcpListener::bind(("127.0.0.1", told[19].checked_add(ahead)?)).ok()).collect();
        let taken: Vec<u16> = held.iter().map(|held| held.local_addr().unwrap().port()).collect();
        let next = free_port();
        assert!(!taken.contains(&next), "{next} is told, of which somebody has {taken:?}");
    }
}
