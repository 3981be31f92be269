//! The clocks of the running kernel.
//!
//! Promises [`Mono`] from `CLOCK_MONOTONIC`, the wall clock from `CLOCK_REALTIME` and what the kernel knows about the
//! latter. Never sets a clock.

use std::{fs, io};

use nix::libc;
use nix::time::{ClockId, clock_gettime};

use super::{BootId, Clock, ClockQuality, Mono, UtcMicros};

/// Where the kernel publishes the id of the present boot (proc(5)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Reads `1` if the kernel took its time from this clock at boot (Documentation/ABI/testing/rtc-cdev, `hctosys`).
const RTC_SET_THE_CLOCK: &str = "/sys/class/rtc/rtc0/hctosys";

/// A wall clock before this was certainly never set: 2024-01-01T00:00:00Z, before MOS existed.
const PLAUSIBLE: UtcMicros = UtcMicros(1_704_067_200_000_000);

/// The kernel's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    boot: BootId,
    from_rtc: bool,
}

impl SystemClock {
    /// Reads the boot id. Fails where `/proc` is not mounted.
    pub fn new() -> io::Result<Self> {
        let boot = parse_boot_id(&fs::read_to_string(BOOT_ID)?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{BOOT_ID} holds no UUID")))?;
        let from_rtc = fs::read_to_string(RTC_SET_THE_CLOCK).is_ok_and(|s| s.trim() == "1");
        Ok(Self { boot, from_rtc })
    }
}

impl Clock for SystemClock {
    fn mono(&self) -> Mono {
        Mono(nanos(ClockId::CLOCK_MONOTONIC))
    }
    fn utc(&self) -> UtcMicros {
        UtcMicros(nanos(ClockId::CLOCK_REALTIME).div_euclid(1000))
    }
    fn quality(&self) -> ClockQuality {
        if synchronised() {
            ClockQuality::Ntp
        } else if self.from_rtc && self.utc() >= PLAUSIBLE {
            ClockQuality::Rtc
        } else {
            ClockQuality::Unset
        }
    }
    fn boot_id(&self) -> BootId {
        self.boot
    }
}

/// The named clock in nanoseconds. Both clocks exist on every Linux (clock_gettime(2)), so that failure is not a case.
fn nanos(id: ClockId) -> i64 {
    clock_gettime(id).map_or(0, |t| t.tv_sec() * 1_000_000_000 + t.tv_nsec())
}

/// Whether some discipline (NTP, PTP, chrony with a receiver) has told the kernel that its clock is right: adjtimex(2),
/// `STA_UNSYNC` clear and no error state. The kernel sets the flag again by itself when corrections stop coming.
fn synchronised() -> bool {
    // SAFETY: `timex` is plain data for which all-zero is valid; `modes` 0 makes the call read-only.
    let (state, status) = unsafe {
        let mut t: libc::timex = std::mem::zeroed();
        let state = libc::adjtimex(&raw mut t);
        (state, t.status)
    };
    state >= 0 && state != libc::TIME_ERROR && status & libc::STA_UNSYNC == 0
}

/// The 16 bytes of a UUID as text.
fn parse_boot_id(text: &str) -> Option<BootId> {
    let hex: Vec<u8> = text.trim().bytes().filter(|b| *b != b'-').collect();
    let mut id = [0u8; 16];
    if hex.len() != 32 {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(hex.chunks_exact(2)) {
        let digits = (char::from(pair[0]).to_digit(16)?, char::from(pair[1]).to_digit(16)?);
        *byte = (digits.0 * 16 + digits.1) as u8;
    }
    Some(BootId(id))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn clocks_advance_and_the_boot_stays() {
        let (a, b) = (SystemClock::new().unwrap(), SystemClock::new().unwrap());
        assert_eq!(a.boot_id(), b.boot_id());
        assert_ne!(a.boot_id(), BootId::default());
        let t0 = a.mono();
        assert!(b.mono() >= t0);
        assert!(t0.0 > 0);
        let system = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let apart = a.utc().0 - i64::try_from(system.as_micros()).unwrap();
        assert!(apart.abs() < 60_000_000, "{apart} µs apart");
    }

    #[test]
    fn a_boot_id_is_a_uuid() {
        let id = parse_boot_id("00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        assert_eq!(id.0[..3], [0, 0x11, 0x22]);
        assert_eq!(id.0[15], 0xff);
        assert_eq!(parse_boot_id("0011"), None);
        assert_eq!(parse_boot_id("zz112233-4455-6677-8899-aabbccddeeff"), None);
    }
}
