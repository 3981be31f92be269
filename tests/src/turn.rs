//! A TURN server: Debian's coturn.
//!
//! Promise: it relays for who has [`LOGIN`], by UDP and TCP, and tells what it did in its log.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{free_tcp_port, wait_for};

/// User name and password.
pub const LOGIN: &str = "relay:turn-s3cret-tr0ub4dor";

/// A running server; it dies when dropped.
#[derive(Debug)]
pub struct TurnServer {
    child: Child,
    folder: tempfile::TempDir,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
}

impl TurnServer {
    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_tcp_port());
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
        command.args(["--simple-log", "--verbose", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1"]);
        command.arg(format!("--user={LOGIN}")).arg(format!("--listening-port={port}"));
        for (option, name) in [("log-file", "log"), ("pidfile", "pid"), ("db", "db")] {
            command.arg(format!("--{option}={}", folder.path().join(name).display()));
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.current_dir(&folder).spawn().expect("coturn is installed");
        let this = Self { child, folder, port };
        wait_for("the TURN server", Duration::from_mins(1), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
        });
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
