//! The daemon as a child process: this very program with `run`. It never outlives the demo.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::DemoError;
use super::stage::{Stage, stage};
use crate::cli::client::{Address, Client};

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of the log that go into an error.
const LOG_LINES: usize = 20;

/// A running daemon.
pub(super) struct Recorder {
    child: Child,
    log: PathBuf,
    /// Its API.
    pub(super) client: Client,
}

impl Recorder {
    /// Starts it and returns at once.
    pub(super) fn start(on: &Stage) -> Result<Self, DemoError> {
        let program = std::env::current_exe().map_err(stage("find this program"))?;
        let log = File::options().create(true).append(true).open(&on.log).map_err(stage("open the log"))?;
        let also = log.try_clone().map_err(stage("open the log"))?;
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(&on.config);
        command.stdin(Stdio::null()).stdout(log).stderr(also);
        // Settings of the user's own daemon are not the demo's.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MOS_")) {
            command.env_remove(name);
        }
        let child = command.spawn().map_err(stage("start the recorder"))?;
        let client = Client::new(Address::Unix(on.socket.clone()), None);
        Ok(Self { child, log: on.log.clone(), client })
    }

    /// Waits until `look` finds what it looks for, and fails if the daemon ends meanwhile or it takes too long.
    pub(super) async fn until<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut look: impl AsyncFnMut(&Client) -> Result<Option<T>, DemoError>,
    ) -> Result<T, DemoError> {
        let begun = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(DemoError::Ended { status: status.to_string(), log: tail(&self.log) });
            }
            if let Some(found) = look(&self.client).await? {
                return Ok(found);
            }
            if begun.elapsed() > patience {
                let (what, seconds) = (what.to_owned(), patience.as_secs());
                return Err(DemoError::Late { what, seconds, log: tail(&self.log) });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// SIGKILL, as a crash or a pulled plug would have it. The kernel keeps what was written, so this shows the recovery of
    /// what the recorder had not finished, not that of an unsynced disk.
    pub(super) fn kill(mut self) {
        self.put_down();
    }

    /// SIGTERM, and waits for its end.
    pub(super) async fn stop(mut self, patience: Duration) -> Result<ExitStatus, DemoError> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
        kill(pid, Signal::SIGTERM).map_err(stage("stop the recorder"))?;
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().map_err(stage("wait for the recorder"))? {
                return Ok(status);
            }
            if begun.elapsed() > patience {
                let what = "the orderly end of the recorder".to_owned();
                return Err(DemoError::Late { what, seconds: patience.as_secs(), log: tail(&self.log) });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn put_down(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.put_down();
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
