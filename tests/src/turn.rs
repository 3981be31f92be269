//! Servers for ICE: TURN by Debian's coturn, and one for STUN that sees everybody behind an address of its own making.
//!
//! Promise: the first relays for who has [`LOGIN`], by UDP and TCP, and tells what it did in its log; the second tells whoever asks
//! that he is at [`SEEN`].
//!
//! Neither listens on loopback: libnice binds its UDP sockets to the interface of their address, and from there nothing gets to
//! 127.0.0.1.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::{free_port, wait_for};

/// User name and password.
pub const LOGIN: &str = "relay:turn-s3cret-tr0ub4dor";

/// A running server; it dies when dropped.
#[derive(Debug)]
pub struct TurnServer {
    child: Child,
    folder: tempfile::TempDir,
    /// Where it listens.
    pub at: SocketAddr,
}

impl TurnServer {
    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut command = Command::new("turnserver");
        command.args([
            "-n",
            "--no-cli",
            "--no-tls",
            "--no-dtls",
            "--lt-cred-mech",
            "--fingerprint",
            "--realm=mos.example",
        ]);
        let address = own_address();
        command.args(["--simple-log", "--verbose"]);
        command.arg(format!("--listening-ip={address}")).arg(format!("--relay-ip={address}"));
        command.arg(format!("--user={LOGIN}")).arg(format!("--listening-port={port}"));
        for (option, name) in [("log-file", "log"), ("pidfile", "pid"), ("db", "db")] {
            command.arg(format!("--{option}={}", folder.path().join(name).display()));
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.current_dir(&folder).spawn().expect("coturn is installed");
        let this = Self { child, folder, at: (address, port).into() };
        wait_for("the TURN server", Duration::from_mins(3), || std::net::TcpStream::connect(this.at).ok().map(drop));
        this
    }

    /// What it did.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for TurnServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where everybody is, as [`StunServer`] sees it.
pub const SEEN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 7), 54_321);
/// RFC 8489, section 5.
const COOKIE: u32 = 0x2112_a442;

/// A server for STUN; it ends when dropped.
#[derive(Debug)]
pub struct StunServer {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Where it listens.
    pub at: SocketAddr,
}

impl StunServer {
    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        let socket = UdpSocket::bind((own_address(), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (over, at) = (Arc::new(AtomicBool::new(false)), socket.local_addr().unwrap());
        let ended = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut request = [0; 1500];
            while !ended.load(Ordering::SeqCst) {
                if let Ok((read, from)) = socket.recv_from(&mut request)
                    && let Some(answer) = seen(&request[..read])
                {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { over, thread: Some(thread), at }
    }
}

impl Drop for StunServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The answer to a binding request: XOR-MAPPED-ADDRESS and nothing more (RFC 8489, section 14.2), or MAPPED-ADDRESS to who asks
/// without the cookie, in the manner of RFC 3489, as libnice 0.1.21 does.
fn seen(request: &[u8]) -> Option<Vec<u8>> {
    let (kind, rest) = (request.get(..2)?, request.get(4..20)?);
    if kind != [0, 1] {
        return None;
    }
    let (attribute, mask) = if rest[..4] == COOKIE.to_be_bytes() { ([0, 0x20], COOKIE) } else { ([0, 1], 0) };
    let mut answer = vec![1, 1, 0, 12];
    answer.extend_from_slice(rest);
    answer.extend_from_slice(&attribute);
    answer.extend_from_slice(&[0, 8, 0, 1]);
    answer.extend_from_slice(&(SEEN.port() ^ (mask >> 16) as u16).to_be_bytes());
    answer.extend_from_slice(&(u32::from(*SEEN.ip()) ^ mask).to_be_bytes());
    Some(answer)
}

/// An address of this machine that is not loopback: that from which it would reach others. Nothing is sent.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect(("198.51.100.1", 9)).expect("this machine has a network");
    socket.local_addr().unwrap().ip()
}
