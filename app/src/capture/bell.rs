//! Wakes the service's thread: when a source ends, when somebody asked for something, when devices came or went.
//!
//! Promises that ringing never waits for anything but the bell's own mutex, so that any thread may ring, and that what was
//! rung for before somebody waits is not lost.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Bell {
    state: Mutex<BellState>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct BellState {
    ringing: bool,
    stopping: bool,
    /// Devices came or went.
    devices: bool,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.lock().ringing = true;
        self.rung.notify_all();
    }

    /// Rings because devices came or went.
    pub(super) fn devices(&self) {
        let mut state = self.lock();
        (state.ringing, state.devices) = (true, true);
        self.rung.notify_all();
    }

    /// Whether devices came or went since it was asked before.
    pub(super) fn take_devices(&self) -> bool {
        std::mem::take(&mut self.lock().devices)
    }

    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.rung.notify_all();
    }

    /// Waits for a ring; true if the service stops.
    pub(super) fn wait(&self, at_most: Duration) -> bool {
        let state = self.lock();
        let quiet = |s: &mut BellState| !s.ringing && !s.stopping;
        let (mut state, _) =
            self.rung.wait_timeout_while(state, at_most, quiet).unwrap_or_else(PoisonError::into_inner);
        state.ringing = false;
        state.stopping
    }

    fn lock(&self) -> MutexGuard<'_, BellState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
