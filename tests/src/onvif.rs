//! A test camera over ONVIF (`tests/peers/onvif_camera.py`), one of others' making (`tests/peers/onvif_device`), and the tools of
//! others that judge ours and MOS.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::built_peer::built_peer;
use crate::camera::{PASSWORD, USER};
use crate::{free_port, wait_for};

/// A running ONVIF camera; it dies when dropped.
#[derive(Debug)]
pub struct OnvifCamera {
    child: Child,
    stdin: ChildStdin,
    port: u16,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl OnvifCamera {
    /// One that asks for a login by `login` (`none`, `digest` or `token`) and tells `uri` as its stream; `more` are options
    /// of the program.
    #[must_use]
    pub fn start(login: &str, uri: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("requests");
        let mut command = Command::new("python3");
        command.arg(peers().join("onvif_camera.py")).args(["--login", login, "--uri", uri, "--log"]).arg(&log);
        command.args(["--user", USER, "--password", PASSWORD]).args(more);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 is installed");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("port ").and_then(|p| p.parse().ok());
        let port = port.unwrap_or_else(|| panic!("the ONVIF camera said {line:?}"));
        let stdin = child.stdin.take().unwrap();
        Self { child, stdin, port, log, _folder: folder }
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The source of a profile; `""` leaves the choice to MOS.
    #[must_use]
    pub fn source(&self, profile: &str) -> String {
        format!("onvif://{USER}:{PASSWORD}@127.0.0.1:{}/{profile}", self.port)
    }

    /// Tells the program something: `uri URL`, `event TOPIC true`, `end`.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("the ONVIF camera listens");
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        // The last line may be half written.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// How often an operation was asked for and let in.
    #[must_use]
    pub fn answered(&self, operation: &str) -> usize {
        self.requests().iter().filter(|r| r["operation"] == operation && r["allowed"] == true).count()
    }
}

impl Drop for OnvifCamera {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A camera of others' making that answers searches and wants a login; it dies when dropped.
#[derive(Debug)]
pub struct OnvifDevice {
    child: Child,
    said: PathBuf,
    _folder: tempfile::TempDir,
    /// Its port on all addresses.
    pub port: u16,
}

impl OnvifDevice {
    /// One of that endpoint that tells where its stream and its picture are; `None` where its crates cannot be had.
    #[must_use]
    pub fn start(uuid: &str, stream: &str, snapshot: &str) -> Option<Self> {
        let program = built_peer("onvif_device")?;
        let folder = tempfile::tempdir().unwrap();
        let (said, port) = (folder.path().join("said"), free_port());
        let mut command = Command::new(program);
        command.args([&port.to_string(), USER, PASSWORD, uuid, stream, snapshot]);
        let out = std::fs::File::create(&said).unwrap();
        let child = command.stdin(Stdio::null()).stdout(out).spawn().unwrap();
        let this = Self { child, said, _folder: folder, port };
        wait_for("the ONVIF device", Duration::from_mins(3), || TcpStream::connect(("127.0.0.1", port)).ok().map(drop));
        Some(this)
    }

    /// What it was asked and let in, a line each.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }
}

impl Drop for OnvifDevice {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder of peers that are programs of their own.
#[must_use]
pub fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// A Python with packages of PyPI from `requirements`, in an environment beside the build output; `None` where it cannot be made
/// and `MOS_TESTS_OFFLINE=1`.
#[must_use]
pub fn python_with(name: &str, requirements: &str) -> Option<PathBuf> {
    let folder = crate::binary_folder().parent()?.join(format!("{name}-venv"));
    let python = folder.join("bin/python");
    // Tests run side by side, and the first of them makes it.
    let turn = std::fs::File::create(folder.with_extension("turn")).unwrap();
    turn.lock().unwrap();
    let marker = folder.join("requirements.txt");
    if std::fs::read_to_string(&marker).is_ok_and(|text| text == requirements) {
        return Some(python);
    }
    let run = |command: &mut Command| {
        let done = command.stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
        if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
    };
    let made = run(Command::new("python3").arg("-m").arg("venv").arg("--clear").arg(&folder)).and_then(|()| {
        let mut pip = Command::new(&python);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--timeout",
            "20",
            "--retries",
            "1",
        ]);
        run(pip.args(requirements.split_whitespace()))
    });
    match made {
        Ok(()) => {
            std::fs::write(marker, requirements).unwrap();
            Some(python)
        }
        Err(why) => {
            crate::unavailable(requirements, &why);
            None
        }
    }
}
