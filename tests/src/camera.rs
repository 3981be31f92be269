//! A test camera over RTSP: starts the `rtsp_camera` program and reads what it says it sent.

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use crate::certificates::Certificate;
use crate::proc::Process;
use crate::streams::Stream;

/// The user of every camera that asks for one.
pub const USER: &str = "viewer";
/// Its password: a word that occurs nowhere else, so that a leak can be found by searching.
pub const PASSWORD: &str = "tr0ub4dor-s3cret";

/// A running camera; it dies when dropped.
#[derive(Debug)]
pub struct Camera {
    child: Child,
    stdin: Option<ChildStdin>,
    port: u16,
    login: bool,
    certificate: Option<Certificate>,
    log: PathBuf,
    folder: tempfile::TempDir,
}

/// How a camera is.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// It asks for [`USER`] and [`PASSWORD`] by Digest.
    pub login: bool,
    /// Its port; 0: any.
    pub port: u16,
    /// It thinks about each request to play for so long, and then sends what it gathered meanwhile.
    pub slow: Duration,
    /// It does not send over TCP.
    pub udp_only: bool,
    /// Its RTP times wrap round five seconds after it began to play.
    pub wraps: bool,
    /// Where it listens; on loopback if that is not said.
    pub address: Option<IpAddr>,
    /// It speaks TLS and shows this.
    pub certificate: Option<Certificate>,
}

/// One access unit that the camera sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Which of the camera's streams.
    pub mount: usize,
    /// Number of the frame since the camera's start, in order of display.
    pub number: u64,
    /// When it was captured: CLOCK_MONOTONIC, ns.
    pub capture_ns: u64,
    /// Its size.
    pub bytes: u64,
    /// When it was sent: a camera on a loaded machine is late.
    pub sent_ns: u64,
}

impl Camera {
    /// A camera without password that serves the streams as `/0`, `/1`…
    #[must_use]
    pub fn open(streams: &[Stream]) -> Self {
        Self::start(&paths(streams), Manner::default())
    }

    /// The same, with ways of its own.
    #[must_use]
    pub fn with(streams: &[Stream], manner: Manner) -> Self {
        Self::start(&paths(streams), manner)
    }

    /// One stream that [`Self::order`] can have coded in the other way: both have the same frames.
    #[must_use]
    pub fn of_two_codings(first: &Stream, other: &Stream) -> Self {
        let mut both = first.path.clone().into_os_string();
        both.push("+");
        both.push(&other.path);
        Self::start(&[both.into()], Manner { login: true, ..Manner::default() })
    }

    /// A camera without password that serves these MP4 files.
    #[must_use]
    pub fn of_files(files: &[PathBuf]) -> Self {
        Self::start(files, Manner::default())
    }

    /// A camera that asks for [`USER`] and [`PASSWORD`] by Digest.
    #[must_use]
    pub fn locked(streams: &[Stream]) -> Self {
        Self::start(&paths(streams), Manner { login: true, ..Manner::default() })
    }

    fn start(files: &[PathBuf], manner: Manner) -> Self {
        // In memory where possible: a camera does not wait for the disk that the recorder under test keeps busy.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let log = folder.path().join("sent");
        let mut command = Command::new(crate::binary("rtsp_camera"));
        command.arg("--log").arg(&log).args(["--port", &manner.port.to_string()]);
        command.args(["--slow", &manner.slow.as_millis().to_string()]);
        command.args(["--protocols", if manner.udp_only { "udp" } else { "tcp" }]);
        command.args(manner.wraps.then_some("--wraps"));
        if let Some(address) = manner.address {
            command.args(["--address", &address.to_string()]);
        }
        if let Some(shown) = &manner.certificate {
            command.arg("--certificate").arg(&shown.certificate).arg("--key").arg(&shown.key);
        }
        if manner.login {
            command.args(["--user", USER, "--password", PASSWORD]);
        }
        command.args(files);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the camera starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("port ").and_then(|p| p.parse().ok());
        let port = port.unwrap_or_else(|| panic!("the camera said {line:?}"));
        let stdin = child.stdin.take();
        Self { child, stdin, port, login: manner.login, certificate: manner.certificate, log, folder }
    }

    /// The URL of stream `mount`, with login if it needs one.
    #[must_use]
    pub fn url(&self, mount: usize) -> String {
        self.url_by(self.port, mount)
    }

    /// The same by way of another port, that leads to this one.
    #[must_use]
    pub fn url_by(&self, port: u16, mount: usize) -> String {
        let login = if self.login { format!("{USER}:{PASSWORD}@") } else { String::new() };
        let scheme = if self.certificate.is_some() { "rtsps" } else { "rtsp" };
        format!("{scheme}://{login}127.0.0.1:{port}/{mount}")
    }

    /// The URL of stream 0 with a wrong password.
    #[must_use]
    pub fn wrong_url(&self) -> String {
        format!("rtsp://{USER}:{PASSWORD}-wrong@127.0.0.1:{}/0", self.port)
    }

    /// Stops sending while connections stay open.
    pub fn stall(&mut self) {
        self.tell("stall");
    }

    /// Sends again after [`Self::stall`].
    pub fn go_on(&mut self) {
        self.tell("go");
    }

    /// What becomes of the packets of a mount: `lose 2`, `damage 1`, `disorder 3`, `jump -3600000`, `swap`, `stall`, `go`.
    pub fn order(&mut self, mount: usize, order: &str) {
        self.tell(&format!("{mount} {order}"));
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{word}").expect("the camera listens");
    }

    /// The process of the camera.
    #[must_use]
    pub fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// Dies without a word, as a camera without power does; [`Self::revive`] brings one back on the same port.
    pub fn die(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// A new camera on the port of one that died.
    #[must_use]
    pub fn revive(mut self, streams: &[Stream]) -> Self {
        self.die();
        let certificate = self.certificate.take();
        Self::start(&paths(streams), Manner { login: self.login, port: self.port, certificate, ..Manner::default() })
    }

    /// What was sent of stream `mount` until now, in order of sending.
    #[must_use]
    pub fn sent(&self, mount: usize) -> Vec<Sent> {
        assert!(self.folder.path().exists());
        let text = std::fs::read_to_string(&self.log).unwrap();
        // The last line may be half written.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let sent = whole.lines().map(|line| {
            let mut field = line.split(' ').map(|n| n.parse::<u64>().unwrap());
            let mut next = || field.next().unwrap();
            Sent { mount: next() as usize, number: next(), capture_ns: next(), bytes: next(), sent_ns: next() }
        });
        sent.filter(|s| s.mount == mount).collect()
    }
}

fn paths(streams: &[Stream]) -> Vec<PathBuf> {
    streams.iter().map(|s| s.path.clone()).collect()
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
