//! The lines of the box: a status light that tells whether all is recorded, and the line that woke the box.
//!
//! Promises that a line that cannot be used is told (log, health) and costs nothing else: recording matters more than a light.
//! The ignition line is part of it only where it leads from state to state; else it is a power event (see `daemon`).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mos_hal::media::LensId;
use mos_hal::pins::{Input, Line, PinError, Pins, Switch};

use crate::archive::GapCause;
use crate::config::PinLines;
use crate::power::Levels;
use crate::record::{LensRecording, RecorderStatus};

/// What the status light tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// On: every lens is recorded that is not stopped.
    Recording,
    /// Blinking: some lens is not, or a power cut may cost more than a second.
    Degraded,
    /// Off: nothing is recorded.
    Nothing,
}

impl Shown {
    /// What a recorder's state is shown as.
    #[must_use]
    pub fn of(status: &RecorderStatus) -> Self {
        let recorded = |lens: &LensRecording| lens.absent.is_none() && lens.open.is_some();
        let lenses: &BTreeMap<LensId, LensRecording> = &status.lenses;
        // What is stopped or parked is not missing.
        let due = lenses.values().filter(|lens| lens.absent != Some(GapCause::CaptureStopped)).count();
        match lenses.values().filter(|lens| recorded(lens)).count() {
            0 => Self::Nothing,
            all if all == due && !status.durability_degraded => Self::Recording,
            _ => Self::Degraded,
        }
    }
}

/// The lines that are in use.
#[derive(Default)]
pub struct BoxPins {
    inner: Mutex<Inner>,
    lit: bool,
    wakes: bool,
}

#[derive(Default)]
struct Inner {
    light: Option<Switch>,
    /// Whether the light is on now.
    on: bool,
    wake: Option<(Input, bool)>,
    ignition: Option<(Input, bool)>,
    troubles: BTreeMap<&'static str, String>,
}

impl BoxPins {
    /// Takes the configured lines; the ignition's only if its level leads from state to state.
    #[must_use]
    pub fn take(pins: &dyn Pins, lines: &PinLines, follow_ignition: bool) -> Self {
        let mut inner = Inner::default();
        inner.light = inner.note("status_line", lines.status.as_ref().map(|line| Switch::take(pins, line)));
        let read = |line: &Line| Ok((pins.input(line)?, line.active_low));
        inner.wake = inner.note("wake_line", lines.wake.as_ref().map(read));
        let ignition = lines.ignition.as_ref().filter(|_| follow_ignition);
        inner.ignition = inner.note("ignition_line", ignition.map(read));
        let (lit, wakes) = (inner.light.is_some(), inner.wake.is_some());
        Self { inner: Mutex::new(inner), lit, wakes }
    }

    /// Whether there is a status light.
    #[must_use]
    pub fn has_light(&self) -> bool {
        self.lit
    }

    /// Shows; twice a second, so that what is degraded blinks.
    pub fn show(&self, shown: Shown) {
        let mut inner = self.lock();
        let on = match shown {
            Shown::Recording => true,
            Shown::Degraded => !inner.on,
            Shown::Nothing => false,
        };
        let done = inner.light.as_mut().map(|light| light.set(on));
        if inner.note("status_line", done).is_some() {
            inner.on = on;
        }
    }

    /// Whether the wake line is active; `None` if there is none or it cannot be read.
    #[must_use]
    pub fn woken(&self) -> Option<bool> {
        if !self.wakes {
            return None;
        }
        self.levels().wake
    }

    /// The levels that lead from state to state.
    #[must_use]
    pub fn levels(&self) -> Levels {
        let inner = &mut *self.lock();
        let level = |input: &mut Option<(Input, bool)>| {
            input.as_mut().map(|(pin, active_low)| pin.is_high().map(|high| high != *active_low))
        };
        let (wake, ignition) = (level(&mut inner.wake), level(&mut inner.ignition));
        Levels { ignition: inner.note("ignition_line", ignition), wake: inner.note("wake_line", wake) }
    }

    /// What is wrong with lines, a sentence each.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        self.lock().troubles.values().cloned().collect()
    }

    /// Notes that a line cannot be used for something else than light and wake.
    pub fn trouble(&self, key: &'static str, why: &PinError) {
        let _: Option<()> = self.lock().note(key, Some(Err(why.clone())));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The good result; the error is kept as trouble, logged when it is new, until it works again.
    fn note<T>(&mut self, key: &'static str, result: Option<Result<T, PinError>>) -> Option<T> {
        match result? {
            Ok(value) => {
                self.troubles.remove(key);
                Some(value)
            }
            Err(e) => {
                let text = format!("board.{key}: {e}");
                if self.troubles.get(key) != Some(&text) {
                    log::error!("{text}");
                    self.troubles.insert(key, text);
                }
                None
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mos_hal::pins::SimPins;

    use super::*;

    fn lines(status: &str, wake: Option<&str>) -> PinLines {
        PinLines { status: Some(status.parse().unwrap()), wake: wake.map(|text| text.parse().unwrap()), ignition: None }
    }

    fn status(lenses: &[(&str, bool)], durability_degraded: bool) -> RecorderStatus {
        let lens = |(name, recorded): &(&str, bool)| {
            let id = LensId::new(name).unwrap();
            let open = Some(format!("{name}-1-0").parse().unwrap());
            let absent = (!recorded).then_some(GapCause::Starting);
            (id, LensRecording { open, absent, ..LensRecording::default() })
        };
        let lenses = lenses.iter().map(lens).collect();
        RecorderStatus { lenses, durability_degraded, ..RecorderStatus::default() }
    }

    #[test]
    fn the_light_tells_whether_all_is_recorded() {
        assert_eq!(Shown::of(&status(&[("a", true), ("b", true)], false)), Shown::Recording);
        assert_eq!(Shown::of(&status(&[("a", true), ("b", false)], false)), Shown::Degraded);
        assert_eq!(Shown::of(&status(&[("a", true)], true)), Shown::Degraded);
        assert_eq!(Shown::of(&status(&[("a", false)], false)), Shown::Nothing);
        assert_eq!(Shown::of(&status(&[], false)), Shown::Nothing);

        let sim = SimPins::new(["LED"]);
        let pins = BoxPins::take(&sim, &lines("!LED", None), false);
        assert!(pins.has_light() && pins.troubles().is_empty());
        let level = |shown| {
            pins.show(shown);
            sim.level("LED").unwrap()
        };
        // Low is on.
        assert_eq!([Shown::Recording; 2].map(level), [false, false]);
        assert_eq!([Shown::Degraded; 4].map(level), [true, false, true, false]);
        assert_eq!([Shown::Nothing; 2].map(level), [true, true]);
    }

    #[test]
    fn a_line_that_is_not_there_is_told_and_costs_nothing_else() {
        let sim = SimPins::new(["WAKE"]);
        let pins = BoxPins::take(&sim, &lines("LED", Some("WAKE")), false);
        pins.show(Shown::Recording);
        assert!(!pins.has_light());
        assert_eq!(pins.troubles(), ["board.status_line: GPIO line LED: no simulated line is called LED"]);
        assert_eq!(pins.woken(), Some(false));
        sim.pull("WAKE", true);
        assert_eq!(pins.woken(), Some(true));
        assert_eq!(pins.levels(), Levels { ignition: None, wake: Some(true) });
        drop(pins);
        let sim = SimPins::new(["IGNITION"]);
        let lines = PinLines { ignition: Some("!IGNITION".parse().unwrap()), ..PinLines::default() };
        let pins = BoxPins::take(&sim, &lines, true);
        assert_eq!(pins.levels(), Levels { ignition: Some(true), wake: None }, "low is on");
        sim.pull("IGNITION", true);
        assert_eq!(pins.levels().ignition, Some(false));
    }
}
