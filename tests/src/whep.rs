//! Test cameras over WebRTC: a WHEP server that shares no code with MOS nor with GStreamer (`tests/peers/whep_server.py`), and
//! `whepserversink` of gst-plugins-rs (`tests/peers/whep_server`).
//!
//! Promise: what they send is coded as in the stream's file and numbered as in it; the first refuses who has no [`TOKEN`].

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::built_peer::built_peer;
use crate::certificates::Certificate;
use crate::onvif::{peers, python_with};
use crate::streams::Stream;
use crate::wait_for;

/// A token: a word that occurs nowhere else, so that a leak can be found by searching.
pub const TOKEN: &str = "whep-s3cret-tr0ub4dor";
/// How long a server may take to start.
const START: Duration = Duration::from_mins(2);

/// A server on aiortc; it dies when dropped.
#[derive(Debug)]
pub struct Aiortc {
    child: Child,
    folder: tempfile::TempDir,
    /// Where it listens.
    pub port: u16,
    secured: bool,
}

impl Aiortc {
    /// Sends `stream` ten times over to whoever has [`TOKEN`], over TLS if there is a certificate; `None` where aiortc cannot be
    /// installed.
    #[must_use]
    pub fn start(stream: &Stream, port: u16, certificate: Option<&Certificate>) -> Option<Self> {
        Self::start_with(stream, port, certificate, &[])
    }

    /// The same with more options of the program.
    #[must_use]
    pub fn start_with(stream: &Stream, port: u16, certificate: Option<&Certificate>, more: &[&str]) -> Option<Self> {
        let python = python_with("whep", "aiortc==1.16.0 aiohttp==3.14.5")?;
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("long.ts");
        stream.ten_times(&long);
        let mut command = Command::new(python);
        command.arg(peers().join("whep_server.py")).arg("--file").arg(&long).args(["--port", &port.to_string()]);
        command.args(["--token", TOKEN]).args(more).arg("--log").arg(folder.path().join("log"));
        if let Some(shown) = certificate {
            command.arg("--certificate").arg(&shown.certificate).arg("--key").arg(&shown.key);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let mut this = Self { child, folder, port, secured: certificate.is_some() };
        wait_for("the WHEP server", START, || {
            assert!(this.child.try_wait().unwrap().is_none(), "the WHEP server died");
            this.log().starts_with("listening").then_some(())
        });
        Some(this)
    }

    /// A source below it: user information with its @, or nothing, and a path.
    #[must_use]
    pub fn source(&self, login: &str, path: &str) -> String {
        format!("whep+http{}://{login}localhost:{}/{path}", if self.secured { "s" } else { "" }, self.port)
    }

    /// What it was asked and answered, a line each.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Aiortc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `whepserversink` of gst-plugins-rs; it dies when dropped.
#[derive(Debug)]
pub struct Whepserversink {
    child: Child,
    _folder: tempfile::TempDir,
    port: u16,
}

impl Whepserversink {
    /// Sends `stream` ten times over to everybody; `None` where its crates cannot be had.
    #[must_use]
    pub fn start(stream: &Stream, port: u16) -> Option<Self> {
        let program = built_peer("whep_server")?;
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("long.mp4");
        stream.ten_times(&long);
        let mut command = Command::new(program);
        let child =
            command.arg(port.to_string()).arg(&long).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let mut this = Self { child, _folder: folder, port };
        wait_for("whepserversink", START, || {
            assert!(this.child.try_wait().unwrap().is_none(), "whepserversink died");
            TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
        });
        Some(this)
    }

    /// It as a source.
    #[must_use]
    pub fn source(&self) -> String {
        format!("whep+http://127.0.0.1:{}/whep/endpoint", self.port)
    }
}

impl Drop for Whepserversink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
