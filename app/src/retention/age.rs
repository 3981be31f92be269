//! How old something is, at least.
//!
//! Nothing here believes a wall clock that it need not believe. Of what is known, the largest lower bound counts:
//! - A1: within the present boot the monotonic clock tells exactly.
//! - A2: of an earlier boot, the time that the machine has been running since is certain, as far as the stored footage
//!   shows it; the time that it was off is not counted.
//! - A3: UTC counts if both the footage's mapping and the present one come from NTP or satellites, and the present one is
//!   not in doubt ([`Trust`]).
//! - A4: runs follow one another: what was recorded before something is at least as old. So footage of unknown time goes
//!   when what was recorded after it is too old.
//!
//! A wall clock that is wrong can thus make footage stay longer, never shorter.

use std::collections::BTreeMap;
use std::time::Duration;

use mos_hal::clock::{BootId, ClockQuality, Mono, UtcMicros};

use crate::archive::ids::RunId;
use crate::archive::{Mapping, RunSpan};

/// The present mapping must have held for so long before years are counted by it.
const SETTLE_NS: i64 = 600 * 1_000_000_000;
/// A change of the mapping larger than this begins [`SETTLE_NS`] anew; NTP slews by less.
const STEP_NS: i128 = 1_000_000_000;
/// A clock that was good and is then corrected by more than this was or is wrong; which one cannot be told.
const CONTRADICTION_NS: i128 = 600 * 1_000_000_000;
/// More time than this between two runs is taken for an error of the clock.
const PARKED_US: i64 = 366 * 86_400 * 1_000_000;

/// Whether the present wall clock is believed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trust {
    /// The offset in force and since when, once the clock was good.
    held: Option<(i128, Mono)>,
    contradicted: bool,
}

impl Trust {
    /// UTC now, or why it is not believed.
    fn now(&mut self, mapping: Mapping, now: Mono, boot: BootId, runs: &[RunSpan]) -> Result<UtcMicros, &'static str> {
        if mapping.quality < ClockQuality::Ntp {
            self.held = None;
            return Err("the wall clock is not set by NTP or satellites");
        }
        let offset = mapping.offset_ns();
        let apart = |other: i128| (other - offset).abs();
        match &mut self.held {
            Some((held, _)) if apart(*held) < STEP_NS => *held = offset,
            other => {
                self.contradicted |= other.is_some_and(|(held, _)| apart(held) > CONTRADICTION_NS);
                *other = Some((offset, now));
            }
        }
        let good = |run: &&RunSpan| run.mapping.is_some_and(|m| m.quality >= ClockQuality::Ntp);
        let same_boot = |run: &&RunSpan| run.boot == Some(boot);
        let said = runs.iter().filter(good).filter(same_boot).filter_map(|run| run.mapping);
        if self.contradicted || said.into_iter().any(|m| apart(m.offset_ns()) > CONTRADICTION_NS) {
            return Err("the wall clock has contradicted itself since the machine was switched on");
        }
        if self.held.is_none_or(|(_, since)| now.since(since) < SETTLE_NS) {
            return Err("the wall clock was set only lately");
        }
        let utc = mapping.utc_of(now);
        let before = runs.iter().filter(good).filter(|run| !same_boot(run));
        let newest = before.filter_map(|run| run.mapping.map(|m| m.utc_of(run.end))).max();
        if newest.is_some_and(|newest| utc.0.saturating_sub(newest.0) > PARKED_US) {
            return Err("by the wall clock more than a year passed since the footage before");
        }
        Ok(utc)
    }
}

/// Ages at one moment.
pub(crate) struct Ages {
    now: Mono,
    boot: BootId,
    utc: Result<UtcMicros, &'static str>,
    runs: BTreeMap<RunId, Known>,
}

struct Known {
    span: RunSpan,
    /// Time that the machine has been running since the boot's last known moment, and that moment.
    running: Option<(Mono, i64)>,
    /// Age of what was recorded after it.
    later_ns: i64,
}

impl Ages {
    pub(crate) fn new(runs: &[RunSpan], mapping: Mapping, boot: BootId, now: Mono, trust: &mut Trust) -> Self {
        let utc = trust.now(mapping, now, boot, runs);
        let mut ages = Self { now, boot, utc, runs: BTreeMap::new() };
        let mut later_ns = 0;
        // The boot looked at, its last known moment, and how long the machine has been running since its end.
        let mut present: Option<(BootId, Mono, i64)> = Some((boot, now, 0));
        for span in runs.iter().rev() {
            if let Some(of_run) = span.boot
                && present.is_none_or(|(boot, ..)| boot != of_run)
            {
                let since = present.map_or(0, |(_, end, since)| since.saturating_add(end.0.max(0)));
                present = Some((of_run, span.end, since));
            }
            let running = present.filter(|(of, ..)| Some(*of) == span.boot).map(|(_, end, since)| (end, since));
            let known = Known { span: *span, running, later_ns };
            later_ns = later_ns.max(ages.of_known(&known, span.start));
            ages.runs.insert(span.run, known);
        }
        ages
    }

    /// Why the wall clock is not believed, if it is not.
    pub(crate) fn doubt(&self) -> Option<&'static str> {
        self.utc.err()
    }

    /// How old a moment of a run is, at least.
    pub(crate) fn at_least(&self, run: RunId, at: Mono) -> Duration {
        duration(self.runs.get(&run).map_or_else(|| self.behind(run), |known| self.of_known(known, at)))
    }

    /// How old everything is that was made in a run that is over, at least.
    pub(crate) fn of_all_in(&self, run: RunId) -> Duration {
        duration(self.runs.get(&run).map_or_else(|| self.behind(run), |known| self.of_known(known, known.span.end)))
    }

    /// Age of what was recorded after a run of which nothing is left.
    fn behind(&self, run: RunId) -> i64 {
        let next = self.runs.range(RunId(run.0.saturating_add(1))..).next();
        next.map_or(0, |(_, known)| self.of_known(known, known.span.start))
    }

    fn of_known(&self, known: &Known, at: Mono) -> i64 {
        if known.span.boot == Some(self.boot) {
            return self.now.since(at).max(0);
        }
        let running = known.running.map_or(0, |(end, since)| end.since(at).max(0).saturating_add(since));
        let good = known.span.mapping.filter(|m| m.quality >= ClockQuality::Ntp);
        let by_utc = match (good, self.utc) {
            (Some(mapping), Ok(utc)) => utc.0.saturating_sub(mapping.utc_of(at).0).saturating_mul(1000),
            _ => 0,
        };
        running.max(by_utc).max(known.later_ns).max(0)
    }
}

fn duration(ns: i64) -> Duration {
    Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
}
