//! How old something is, at least.
//!
//! Nothing here believes a wall clock that it need not believe. Ages are added up run by run, from now back, and of each
//! step only what is certain counts:
//! - A1: within one boot the monotonic clock tells exactly.
//! - A2: between two boots, the time that the machine was running before the later footage is certain; the time that it was
//!   off is not.
//! - A3: UTC tells the time between two runs if the mappings of both come from NTP or satellites, if they say that no more
//!   than a year has passed, and, for the present boot, if its clock is not in doubt ([`Trust`]).
//! - A4: runs follow one another: what was recorded before something is at least as old. So footage of unknown time goes
//!   when what was recorded after it is too old.
//!
//! A wall clock that jumps by years, or back, can thus make footage stay longer, never shorter; not even if it stays wrong
//! over restarts, since the jump is one step between two runs for ever. What NTP or satellites vouch for and what is wrong
//! by less than a year from one boot to the next cannot be told from a machine that was off, and is believed.

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
const PARKED_NS: i64 = 366 * 86_400 * 1_000_000_000;

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
        Ok(mapping.utc_of(now))
    }
}

/// Ages at one moment.
pub(crate) struct Ages {
    doubt: Option<&'static str>,
    runs: BTreeMap<RunId, Known>,
}

struct Known {
    start: Mono,
    end: Mono,
    /// How old its end is, at least.
    end_ns: i64,
}

impl Known {
    fn age(&self, at: Mono) -> i64 {
        self.end_ns.saturating_add(self.end.since(at)).max(0)
    }
}

/// The beginning of what follows a run.
struct Next {
    boot: Option<BootId>,
    at: Mono,
    age: i64,
}

impl Next {
    /// Time that has passed for sure since the end of the run before.
    fn since(&self, before: &RunSpan) -> i64 {
        match (before.boot, self.boot) {
            (Some(before_boot), Some(boot)) if before_boot == boot => self.at.since(before.end).max(0),
            (Some(_), Some(_)) => self.at.0.max(0),
            _ => 0,
        }
    }
}

impl Ages {
    pub(crate) fn new(runs: &[RunSpan], mapping: Mapping, boot: BootId, now: Mono, trust: &mut Trust) -> Self {
        let utc = trust.now(mapping, now, boot, runs);
        let mut ages = Self { doubt: utc.err(), runs: BTreeMap::new() };
        let mut next = Next { boot: Some(boot), at: now, age: 0 };
        // The beginning of the nearest later run whose UTC is believed, and its age.
        let mut good_next: Option<(UtcMicros, i64)> = utc.ok().map(|utc| (utc, 0));
        for span in runs.iter().rev() {
            let mut end_ns = next.age.saturating_add(next.since(span));
            let believed = |m: &Mapping| m.quality >= ClockQuality::Ntp && (span.boot != Some(boot) || utc.is_ok());
            let good = span.mapping.filter(believed);
            if let Some((mapping, (later, age))) = good.zip(good_next) {
                let off = later.0.saturating_sub(mapping.utc_of(span.end).0).saturating_mul(1000);
                if off <= PARKED_NS {
                    end_ns = end_ns.max(age.saturating_add(off));
                } else {
                    ages.doubt = ages.doubt.or(Some("by the wall clock more than a year passed between two runs"));
                }
            }
            let known = Known { start: span.start, end: span.end, end_ns };
            next = Next { boot: span.boot, at: span.start, age: known.age(span.start) };
            good_next = good.map(|mapping| (mapping.utc_of(span.start), next.age)).or(good_next);
            ages.runs.insert(span.run, known);
        }
        ages
    }

    /// Why the wall clock is not believed, if it is not.
    pub(crate) fn doubt(&self) -> Option<&'static str> {
        self.doubt
    }

    /// How old a moment of a run is, at least.
    pub(crate) fn at_least(&self, run: RunId, at: Mono) -> Duration {
        duration(self.runs.get(&run).map_or_else(|| self.behind(run), |known| known.age(at)))
    }

    /// How old everything is that was made in a run that is over, at least.
    pub(crate) fn of_all_in(&self, run: RunId) -> Duration {
        duration(self.runs.get(&run).map_or_else(|| self.behind(run), |known| known.end_ns))
    }

    /// Age of what was recorded after a run of which nothing is left.
    fn behind(&self, run: RunId) -> i64 {
        let next = self.runs.range(RunId(run.0.saturating_add(1))..).next();
        next.map_or(0, |(_, known)| known.age(known.start))
    }
}

fn duration(ns: i64) -> Duration {
    Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
}
