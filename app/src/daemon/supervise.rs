//! Watches the threads that record: a recorder that has stopped must not look like one that runs.
//!
//! While recorder and capture live and footage becomes durable ([`super::watchdog`]), systemd's watchdog is fed. A thread that ended (it can only have
//! panicked) ends the daemon with an error, so that whoever started it starts it again.

use std::thread::JoinHandle;
use std::time::Duration;

use mos_hal::clock::Clock;
use sd_notify::NotifyState;

use super::watchdog::Watchdog;
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
    pub(super) async fn died(&self, clock: &dyn Clock) -> &'static str {
        let watchdog = sd_notify::watchdog_enabled();
        let mut times = tokio::time::interval(watchdog.map_or(LOOK, |limit| LOOK.min(limit / 3)));
        let mut progress = Watchdog::default();
        loop {
            times.tick().await;
            if self.writer.is_finished() {
                return "the recorder's thread";
            }
            if self.cameras.is_finished() {
                return "the cameras' thread";
            }
            // A recorder that hangs in a sync is left to the watchdog: only the system knows what its storage is worth.
            if watchdog.is_some() && progress.is_fed(&self.recorder.status(), clock.mono()) {
                super::tell(&[NotifyState::Watchdog]);
            }
        }
    }
}
