//! Time as the recorder sees it: a monotonic clock for media, a wall clock that may be wrong, and the boot they belong to.
//!
//! Every service takes a [`Clock`] and never asks the operating system itself, so that tests run in simulated time.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Mutex;
use std::time::Duration;

/// An instant of `CLOCK_MONOTONIC`, in nanoseconds since boot. Comparable only within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub i64);

impl Mono {
    /// Nanoseconds from `earlier` to `self`; negative if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Mono) -> i64 {
        self.0 - earlier.0
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, d: Duration) -> Mono {
        Mono(self.0.saturating_add(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;
    fn sub(self, d: Duration) -> Mono {
        Mono(self.0.saturating_sub(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)))
    }
}

/// A point of wall-clock time: microseconds since 1970-01-01T00:00:00Z. The unit of every `_ts` of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UtcMicros(pub i64);

impl fmt::Display for UtcMicros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The boot that a [`Mono`] belongs to: the 16 bytes of `/proc/sys/kernel/random/boot_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct BootId(pub [u8; 16]);

/// How far the wall clock may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ClockQuality {
    /// Nobody has set the clock since boot.
    #[default]
    Unset,
    /// Taken over from a battery-backed real-time clock.
    Rtc,
    /// Disciplined by NTP (the kernel's clock is synchronised).
    Ntp,
    /// Disciplined by satellite time.
    Gnss,
}

/// The clocks of the machine; the simulated one is [`SimClock`].
pub trait Clock: Send + Sync + fmt::Debug {
    /// `CLOCK_MONOTONIC` now.
    fn mono(&self) -> Mono;
    /// `CLOCK_REALTIME` now. May step at any moment.
    fn utc(&self) -> UtcMicros;
    /// What is known about [`Clock::utc`].
    fn quality(&self) -> ClockQuality;
    /// The present boot.
    fn boot_id(&self) -> BootId;
}

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
