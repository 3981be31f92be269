//! Watches the threads that record: a recorder that has stopped must not look like one that runs.
//!
//! While recorder and capture live and the recorder ticks, systemd's watchdog is fed. A thread that ended (it can only have
//! panicked) ends the daemon with an error, so that whoever started it starts it again.

use std::thread::JoinHandle;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::record::Recorder;

/// How often it looks, unless the watchdog wants to hear more often.
const LOOK: Duration = Duration::from_secs(5);

/// The threads that record.
pub(super) struct Recording {
    pub(super) recorder: Recorder,
    pub(super) writer: JoinHandle<()>,
    pub(super) cameras: JoinHandle<()>,
}

impl Recording {
    /// Resolves with what has died.
    pub(super) async fn died(&self) -> &'static str {
        let watchdog = sd_notify::watchdog_enabled();
        let mut times = tokio::time::interval(watchdog.map_or(LOOK, |limit| LOOK.min(limit / 2)));
        let mut ticks = None;
        loop {
            times.tick().await;
            if self.writer.is_finished() {
                return "the recorder's thread";
            }
            if self.cameras.is_finished() {
                return "the cameras' thread";
            }
            let now = Some(self.recorder.status().ticks);
            // A recorder that hangs in a sync is left to the watchdog: only the system knows what its storage is worth.
            if watchdog.is_some() && now != ticks {
                super::tell(&[NotifyState::Watchdog]);
            }
            ticks = now;
        }
    }
}
