//! The archive's housekeeping thread: everything that goes on beside the capture.
//!
//! First it loads the index and recovers; then it keeps the room, writes index snapshots, and writes a last one when it
//! is stopped. It never holds up the recorder: the two share nothing but short locks.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Archive, ArchiveError, lock};
use crate::index::snapshot;
use crate::retention::Pace;

/// How often room is looked after.
const RETENTION_EVERY: Duration = Duration::from_secs(1);
/// How often a changed index is written.
const SNAPSHOT_EVERY: Duration = Duration::from_mins(1);
/// Enough for SQLite and reading files.
const STACK_BYTES: usize = 1 << 20;

/// The running thread. Stop it after the recorder, so that the last snapshot knows the last segments.
pub struct Beside {
    stop: Arc<Stop>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    asked: Mutex<bool>,
    wake: Condvar,
}

impl Beside {
    /// Starts it; `tend` looks after the room, and `loaded` hears how loading went.
    pub fn spawn(
        archive: Archive,
        tend: impl FnMut() -> Pace + Send + 'static,
        loaded: impl FnOnce(Result<(), ArchiveError>) + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let seen = stop.clone();
        let body = move || {
            loaded(archive.load());
            keep_house(&archive, tend, &seen);
        };
        let thread = std::thread::Builder::new().name("archive".into()).stack_size(STACK_BYTES).spawn(body)?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it; returns when the last snapshot is written.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        *lock(&self.stop.asked) = true;
        self.stop.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.end();
    }
}

fn keep_house(archive: &Archive, mut tend: impl FnMut() -> Pace, stop: &Stop) {
    snapshot_now(archive);
    let mut next_snapshot = Instant::now() + SNAPSHOT_EVERY;
    let mut next_retention = Instant::now();
    loop {
        let now = Instant::now();
        if now >= next_retention {
            next_retention = match tend() {
                Pace::Rest => now + RETENTION_EVERY,
                Pace::GoOn => now,
            };
        }
        if now >= next_snapshot {
            snapshot_now(archive);
            next_snapshot = now + SNAPSHOT_EVERY;
        }
        let asked = lock(&stop.asked);
        let left = next_retention.min(next_snapshot).saturating_duration_since(Instant::now());
        let (asked, _) =
            stop.wake.wait_timeout_while(asked, left, |asked| !*asked).unwrap_or_else(PoisonError::into_inner);
        if *asked {
            drop(asked);
            snapshot_now(archive);
            return;
        }
    }
}

fn snapshot_now(archive: &Archive) {
    if let Err(error) = archive.snapshot_index() {
        log::warn!("the index snapshot cannot be written: {error}; a start without it rebuilds the index");
    }
}

impl Archive {
    /// Writes a snapshot of the index if it changed since the last one. Never before everything is listed.
    pub fn snapshot_index(&self) -> Result<(), ArchiveError> {
        if !self.health().listed {
            return Ok(());
        }
        if let Err(error) = self.note_reach() {
            log::warn!("how far the accounts of gaps reach is not noted: {error}");
        }
        match self.inner.catalog.serialize()? {
            None => Ok(()),
            Some(database) => {
                let written = snapshot::write(self.inner.disk.as_ref(), &database);
                if written.is_err() {
                    self.inner.catalog.mark_changed();
                }
                written
            }
        }
    }
}
