//! Time that tests move by hand. Promises that nothing moves unless a test says so.

use std::sync::Mutex;
use std::time::Duration;

use super::{BootId, Clock, ClockQuality, Mono, UtcMicros};

/// A clock that tests move by hand.
#[derive(Debug)]
pub struct SimClock {
    state: Mutex<SimState>,
}

#[derive(Debug, Clone, Copy)]
struct SimState {
    mono: Mono,
    utc: UtcMicros,
    quality: ClockQuality,
    boot: BootId,
}

impl SimClock {
    /// A clock at monotonic zero of boot `boot`, with the wall clock at `utc`.
    #[must_use]
    pub fn new(boot: BootId, utc: UtcMicros) -> Self {
        let state = SimState { mono: Mono(0), utc, quality: ClockQuality::Ntp, boot };
        Self { state: Mutex::new(state) }
    }

    /// Lets `d` pass on both clocks.
    pub fn advance(&self, d: Duration) {
        let mut s = self.lock();
        s.mono = s.mono + d;
        s.utc = UtcMicros(s.utc.0 + i64::try_from(d.as_micros()).unwrap_or(i64::MAX / 2));
    }

    /// Steps the wall clock only, as NTP or a user would.
    pub fn step_utc(&self, to: UtcMicros, quality: ClockQuality) {
        let mut s = self.lock();
        s.utc = to;
        s.quality = quality;
    }

    /// A new boot: another id, the monotonic clock at zero, the wall clock where it was.
    pub fn reboot(&self, boot: BootId) {
        let mut s = self.lock();
        s.boot = boot;
        s.mono = Mono(0);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SimState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for SimClock {
    fn mono(&self) -> Mono {
        self.lock().mono
    }
    fn utc(&self) -> UtcMicros {
        self.lock().utc
    }
    fn quality(&self) -> ClockQuality {
        self.lock().quality
    }
    fn boot_id(&self) -> BootId {
        self.lock().boot
    }
}
