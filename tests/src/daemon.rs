//! The daemon under test: the built `mos run` with a configuration of its own in a temporary folder.
//!
//! Promise: [`Setup::start`] returns when the API answers; a dropped [`Daemon`] is killed. Files outlive a kill, so a test can
//! start the same archive again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cli::Mos;
use crate::client::Client;
use crate::disk::SmallDisk;
use crate::proc::Process;
use crate::wait_for;

/// What a daemon is to do; becomes its configuration file.
#[derive(Debug)]
pub struct Setup {
    folder: tempfile::TempDir,
    root: PathBuf,
    storage: Vec<String>,
    cameras: Vec<String>,
    sections: String,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// No cameras, segments of 4 s, an archive in the temporary folder.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("mos-test-").tempdir().unwrap();
        let root = folder.path().join("archive");
        let storage = vec!["segment_seconds = 4".to_owned(), "max_bytes = \"4GiB\"".to_owned()];
        Self {
            folder,
            root,
            storage,
            cameras: Vec::new(),
            sections: String::new(),
            environment: vec![("RUST_LOG".into(), "info".into())],
        }
    }

    /// As [`Self::new`], with its archive on a small disk, which it may fill to the last block.
    #[must_use]
    pub fn on(disk: &SmallDisk) -> Self {
        Self::new().root(&disk.path().join("archive")).storage("min_free_bytes", "0")
    }

    /// Adds a camera.
    #[must_use]
    pub fn camera(self, id: &str, source: &str) -> Self {
        self.camera_with(id, source, "")
    }

    /// Adds a camera with more lines of configuration.
    #[must_use]
    pub fn camera_with(mut self, id: &str, source: &str, more: &str) -> Self {
        self.cameras.push(format!("[[camera]]\nid = \"{id}\"\nsource = \"{source}\"\n{more}\n"));
        self
    }

    /// Sets a key of `[storage]`; `value` is TOML.
    #[must_use]
    pub fn storage(mut self, key: &str, value: &str) -> Self {
        self.storage.retain(|line| !line.starts_with(&format!("{key} =")));
        self.storage.push(format!("{key} = {value}"));
        self
    }

    /// Adds sections to the configuration; `text` is TOML.
    #[must_use]
    pub fn sections(mut self, text: &str) -> Self {
        self.sections.push_str(text);
        self
    }

    /// Puts the archive elsewhere.
    #[must_use]
    pub fn root(mut self, root: &Path) -> Self {
        root.clone_into(&mut self.root);
        self
    }

    /// Sets an environment variable of the daemon.
    #[must_use]
    pub fn environment(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The archive's folder.
    #[must_use]
    pub fn archive(&self) -> &Path {
        &self.root
    }

    /// The temporary folder of this setup.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The path of the configuration file; written by [`Self::write`].
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("mos.toml")
    }

    /// Writes the configuration file.
    pub fn write(&self) {
        // The load and the heat of the machine that runs the tests must not stop their lenses.
        let ladder = if self.sections.contains("[degradation]") { "" } else { "[degradation]\nenabled = false\n" };
        let text = format!(
            "[storage]\nroot = \"{}\"\n{}\n\n[http]\nunix_socket = \"{}\"\n\n{}\n{}\n{ladder}",
            self.root.display(),
            self.storage.join("\n"),
            self.socket().display(),
            self.cameras.join("\n"),
            self.sections
        );
        std::fs::write(self.config(), text).unwrap();
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("mos.sock")
    }

    /// The log of all daemons that were started with this setup.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Starts the daemon and waits until its API answers.
    #[must_use]
    pub fn start(&self) -> Daemon<'_> {
        let mut daemon = self.spawn();
        wait_for("the daemon's API", Duration::from_mins(3), || {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("the daemon ended with {status}: {}", self.log());
            }
            daemon.client.try_request("GET", "/v1/health", None).ok().filter(|a| a.status < 500).map(drop)
        });
        daemon
    }

    /// Starts the daemon without waiting for anything.
    #[must_use]
    pub fn spawn(&self) -> Daemon<'_> {
        self.write();
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(crate::binary("mos"));
        command.arg("run").arg("--config").arg(self.config()).envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().expect("the daemon starts");
        Daemon { setup: self, child, client: Client::new(&self.socket()), mos: Mos::new(&self.socket()) }
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon<'a> {
    setup: &'a Setup,
    child: Child,
    /// Its API.
    pub client: Client,
    /// Its commands.
    pub mos: Mos,
}

impl Daemon<'_> {
    /// Its process.
    #[must_use]
    pub fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// SIGKILL, as a crash: returns when the process is gone. Gives the moment before the signal, CLOCK_MONOTONIC ns.
    pub fn kill(mut self) -> u64 {
        let before = crate::monotonic_ns();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        before
    }

    /// SIGTERM, as systemd does; asserts a clean end within 20 s.
    pub fn stop(mut self) {
        self.process().signal(Signal::SIGTERM);
        let status = wait_for("the end after SIGTERM", Duration::from_secs(20), || self.child.try_wait().unwrap());
        assert!(status.success(), "after SIGTERM: {status}: {}", self.setup.log());
    }

    /// Waits until it ends by itself.
    pub fn ended(&mut self, limit: Duration) -> std::process::ExitStatus {
        wait_for("the end of the daemon", limit, || self.child.try_wait().unwrap())
    }

    /// All segments of a lens (all pages), oldest first, with those of earlier runs.
    #[must_use]
    pub fn segments(&self, lens: &str) -> Vec<Value> {
        list(&self.whole_listing(lens), "segments")
    }

    /// All gaps of a lens, oldest first, with those of earlier runs.
    #[must_use]
    pub fn gaps(&self, lens: &str) -> Vec<Value> {
        list(&self.whole_listing(lens), "gaps")
    }

    /// The API answers while earlier runs are still being listed and recovered; then it says so.
    fn whole_listing(&self, lens: &str) -> Value {
        wait_for("the earlier runs to be listed", Duration::from_mins(3), || {
            let listing = self.listing(lens);
            ["listing", "recovering"].iter().all(|part| listing.get(part).is_none()).then_some(listing)
        })
    }

    /// What `mos segments --json` prints for a lens.
    #[must_use]
    pub fn listing(&self, lens: &str) -> Value {
        self.mos.run(&["segments", "--lens", lens, "--json"]).json()
    }

    /// Waits until `lens` has `count` segments that are not open, and gives all of its segments.
    #[must_use]
    pub fn await_closed(&self, lens: &str, count: usize, limit: Duration) -> Vec<Value> {
        wait_for(&format!("{count} closed segments of {lens}"), limit, || {
            let segments = self.segments(lens);
            (segments.iter().filter(|s| s["state"] != "open").count() >= count).then_some(segments)
        })
    }

    /// Waits until the open segment of `lens` holds at least `seconds` of durable footage, and gives it.
    #[must_use]
    pub fn await_open(&self, lens: &str, seconds: f64, limit: Duration) -> Value {
        wait_for(&format!("{seconds} s of an open segment of {lens}"), limit, || {
            self.segments(lens).into_iter().find(|s| s["state"] == "open" && span(s) >= seconds)
        })
    }

    /// The absolute path of a segment's or clip's or snapshot's file.
    #[must_use]
    pub fn file(&self, item: &Value) -> PathBuf {
        let path = Path::new(item["path"].as_str().unwrap_or_else(|| panic!("no path: {item}")));
        if path.is_absolute() { path.to_owned() } else { self.setup.root.join(path) }
    }

    /// The daemon's log so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.setup.log()
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.setup.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            for line in tail.iter().rev() {
                // Shown by the test harness beside the panic.
                #[allow(clippy::print_stderr)]
                {
                    eprintln!("mos: {line}");
                }
            }
        }
    }
}

fn list(listing: &Value, key: &str) -> Vec<Value> {
    listing[key].as_array().unwrap_or_else(|| panic!("no {key}: {listing}")).clone()
}

/// The id of a segment.
#[must_use]
pub fn id(segment: &Value) -> &str {
    segment["id"].as_str().unwrap_or_else(|| panic!("no id: {segment}"))
}

/// A time of a segment or gap, e.g. `start_ts`, in µs.
#[must_use]
pub fn ts(item: &Value, key: &str) -> i64 {
    item[key].as_i64().unwrap_or_else(|| panic!("no {key}: {item}"))
}

/// Length of a segment or gap in seconds.
#[must_use]
pub fn span(item: &Value) -> f64 {
    (ts(item, "end_ts") - ts(item, "start_ts")) as f64 / 1e6
}
