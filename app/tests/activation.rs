//! The API's socket held by a service manager, as `mos.socket` of the firmware does: the real binary, started with a
//! listening descriptor.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The descriptor comes as standard input and becomes 3; the shell's pid stays that of the program.
const ACTIVATE: &str = r#"export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" run --config "$1" 3<&0 0</dev/null"#;

/// Keeps no process behind when a test fails.
struct Recorder(Child);

impl Recorder {
    fn start(config: &Path, held: &UnixListener) -> Self {
        let socket = OwnedFd::from(held.try_clone().unwrap());
        let mut command = Command::new("sh");
        command.args(["-c", ACTIVATE, env!("CARGO_BIN_EXE_mos")]).arg(config).stdin(Stdio::from(socket));
        Self(command.stderr(Stdio::piped()).spawn().unwrap())
    }

    fn stop(&mut self) -> (bool, String) {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM).unwrap();
        self.end()
    }

    fn end(&mut self) -> (bool, String) {
        let mut log = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.0.wait().unwrap().success(), log)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn configure(folder: &Path, socket: &Path) -> std::path::PathBuf {
    let file = folder.join("mos.toml");
    let (folder, socket) = (folder.display(), socket.display());
    let text =
        format!("[storage]\nroot = \"{folder}/archive\"\nmin_free_bytes = 0\n[http]\nunix_socket = \"{socket}\"\n");
    std::fs::write(&file, text).unwrap();
    file
}

/// Asks, before anybody may be there to answer.
fn ask(socket: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"GET /v1/health HTTP/1.1\r\nHost: mos\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

fn answer(mut stream: UnixStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let _ = stream.shutdown(Shutdown::Both);
    text
}

#[test]
fn questions_wait_for_the_next_recorder() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("held.sock");
    let config = configure(folder.path(), &socket);
    let held = UnixListener::bind(&socket).unwrap();
    for _life in 0..2 {
        let early = ask(&socket);
        let mut recorder = Recorder::start(&config, &held);
        let text = answer(early);
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        let (good, log) = recorder.stop();
        assert!(good, "{log}");
        assert!(socket.exists(), "the socket's file belongs to who made it");
    }
}

#[test]
fn a_socket_at_another_path_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = configure(folder.path(), &folder.path().join("configured.sock"));
    let held = UnixListener::bind(folder.path().join("held.sock")).unwrap();
    let (good, log) = Recorder::start(&config, &held).end();
    assert!(!good);
    assert!(log.contains("ListenStream="), "{log}");
}
