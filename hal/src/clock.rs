//! Time as the recorder sees it: a monotonic clock for media, a wall clock that may be wrong, and the boot they belong to.
//!
//! Every service takes a [`Clock`] and never asks the operating system itself, so that tests run in simulated time.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

mod simulated;
mod system;

pub use simulated::SimClock;
pub use system::SystemClock;

/// An instant of `CLOCK_MONOTONIC`, in nanoseconds since boot. Comparable only within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub i64);

impl Mono {
    /// Nanoseconds from `earlier` to `self`; negative if `earlier` is later. Times that files tell may be further apart than
    /// numbers go.
    #[must_use]
    pub fn since(self, earlier: Mono) -> i64 {
        self.0.saturating_sub(earlier.0)
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
