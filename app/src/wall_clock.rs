//! The run's mapping from monotonic to wall-clock time, and the detection of steps.
//!
//! Promises: (W1) at any moment there is one mapping for the whole run; (W2) when the wall clock steps, or becomes better
//! known, the whole mapping is replaced, so footage is never re-timed inside a segment, never discarded and never overlaps;
//! (W3) what is known well is never replaced by what is known less well. Callers store a changed mapping in the archive.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mos_hal::clock::{Clock, Mono, UtcMicros};

use crate::archive::clock_file::Mapping;

/// Smaller differences are the jitter of reading two clocks one after the other.
const STEP_US: i64 = 20_000;
/// A reading that took longer than this is repeated: the thread was interrupted between the clocks.
const READ_WITHIN: Duration = Duration::from_millis(1);
const READ_TRIES: u32 = 3;

/// The wall clock of one run.
#[derive(Debug)]
pub struct WallClock {
    clock: Arc<dyn Clock>,
    mapping: Mutex<Mapping>,
}

impl WallClock {
    /// Takes the mapping of this moment.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let mapping = Mutex::new(read(&*clock));
        Self { clock, mapping }
    }

    /// The mapping in force.
    #[must_use]
    pub fn mapping(&self) -> Mapping {
        *self.mapping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// UTC of a moment of this run.
    #[must_use]
    pub fn utc_of(&self, at: Mono) -> UtcMicros {
        self.mapping().utc_of(at)
    }

    /// Compares the clocks; the new mapping if the wall clock has stepped or is known better than before.
    pub fn check(&self) -> Option<Mapping> {
        let seen = read(&*self.clock);
        let mut mapping = self.mapping.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.quality < mapping.quality {
            return None;
        }
        let moved = (seen.offset_ns() - mapping.offset_ns()).abs() >= i128::from(STEP_US) * 1000;
        if moved || seen.quality > mapping.quality {
            *mapping = seen;
            return Some(seen);
        }
        None
    }
}

fn read(clock: &dyn Clock) -> Mapping {
    let mut tries = 0;
    loop {
        let before = clock.mono();
        let utc = clock.utc();
        let quality = clock.quality();
        let after = clock.mono();
        tries += 1;
        if after.since(before) <= READ_WITHIN.as_nanos() as i64 || tries == READ_TRIES {
            let middle = Mono(before.0 + after.since(before) / 2);
            return Mapping { mono: middle, utc, quality };
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mos_hal::clock::{BootId, ClockQuality, SimClock};

    use super::*;

    const T0: UtcMicros = UtcMicros(1_700_000_000_000_000);

    fn setup() -> (Arc<SimClock>, WallClock) {
        let sim = Arc::new(SimClock::new(BootId([1; 16]), T0));
        let wall = WallClock::new(sim.clone());
        (sim, wall)
    }

    #[test]
    fn w2_a_step_corrects_the_past_of_the_run() {
        let (sim, wall) = setup();
        sim.advance(Duration::from_secs(100));
        assert_eq!(wall.check(), None);
        sim.step_utc(UtcMicros(T0.0 + 3_600_000_000), ClockQuality::Ntp);
        let new = wall.check().unwrap();
        assert_eq!(new.utc_of(Mono(0)), UtcMicros(T0.0 + 3_500_000_000));
        assert_eq!(wall.check(), None);
        assert_eq!(wall.utc_of(Mono(1000)), UtcMicros(T0.0 + 3_500_000_001));
    }

    #[test]
    fn w3_better_knowledge_wins_and_worse_does_not() {
        let (sim, wall) = setup();
        sim.step_utc(UtcMicros(0), ClockQuality::Unset);
        assert_eq!(wall.check(), None);
        assert_eq!(wall.mapping().utc, T0);
        sim.step_utc(UtcMicros(T0.0 + 5), ClockQuality::Gnss);
        assert_eq!(wall.check().unwrap().quality, ClockQuality::Gnss);
    }

    #[test]
    fn drift_below_a_step_is_left_alone() {
        let (sim, wall) = setup();
        sim.step_utc(UtcMicros(T0.0 + STEP_US - 1), ClockQuality::Ntp);
        assert_eq!(wall.check(), None);
    }
}
