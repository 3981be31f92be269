//! Running `mos` commands as a user does.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Outcome {
    /// The JSON that a successful command printed; panics if it failed.
    #[must_use]
    pub fn json(self) -> Value {
        assert_eq!(self.code, 0, "{}", self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("no JSON ({e}): {}", self.out))
    }

    /// Asserts exit 1 with exactly one `error:` line on standard error, and gives that line.
    #[must_use]
    pub fn error(self) -> String {
        assert_eq!(self.code, 1, "out: {} err: {}", self.out, self.err);
        assert!(self.err.starts_with("error: "), "{}", self.err);
        assert_eq!(self.err.trim_end().lines().count(), 1, "{}", self.err);
        self.err.trim_end().to_owned()
    }
}

/// The `mos` command, speaking to one daemon if it has a socket.
#[derive(Clone, Debug, Default)]
pub struct Mos {
    socket: Option<PathBuf>,
}

impl Mos {
    /// Commands to the daemon on `socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: Some(socket.to_owned()) }
    }

    /// Runs the command to its end.
    pub fn run<S: AsRef<str>>(&self, args: &[S]) -> Outcome {
        outcome(&mut self.command(args))
    }

    /// The command, to be started.
    #[must_use]
    pub fn command<S: AsRef<str>>(&self, args: &[S]) -> Command {
        let mut mos = Command::new(crate::binary("mos"));
        let (command, rest) = args.split_first().expect("a command");
        mos.arg(command.as_ref());
        if let Some(socket) = &self.socket {
            mos.arg("--socket").arg(socket);
        }
        mos.args(rest.iter().map(AsRef::as_ref));
        mos
    }
}

/// Runs any command to its end.
pub fn outcome(command: &mut Command) -> Outcome {
    let done = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    Outcome {
        code: done.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&done.stdout).into_owned(),
        err: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

/// Runs a tool that must succeed and gives its standard output as bytes.
pub fn tool(command: &mut Command) -> Vec<u8> {
    let done = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}
