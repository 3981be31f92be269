//! The degradation ladder at work: what is read of the machine, what the lenses need, and what follows from it.
//!
//! Promises that a machine without thermal zones, and one whose zones tell nothing, loses nothing by it; that a user who stops
//! a lens is not overruled; and that a zone is judged by its configured thresholds, else by its own trip points, else not at
//! all. Who goes when stands in [`super::ladder`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mos_hal::clock::Clock;
use mos_hal::media::LensId;
use mos_hal::thermal::{Zone, zones};

use super::CaptureControlService;
use super::ladder::{Encoding, Heat, Ladder, Member, Pace, Pressure, Reason, Step};
use super::lens::Load;

/// So far below its threshold a zone is cool again, in degrees.
const HYSTERESIS: f32 = 5.0;
/// A zone without a trip point `hot` is hot so far below the one where the kernel switches off, or above the passive one.
const BELOW_CRITICAL: f32 = 5.0;
const ABOVE_PASSIVE: f32 = 10.0;
/// The part of a lens's pictures that are left out from which on its encoder does not suffice, and up to which it does.
const TOO_MANY: f64 = 0.1;
const FEW: f64 = 0.01;
/// Fewest pictures of which such a part is taken.
const COUNTED: u64 = 10;

/// Who gives way, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct DegradationPlan {
    /// Whether anybody does.
    pub enabled: bool,
    /// The lens that gives way first, and so on. Lenses that are not named come before, the last of the configuration first.
    pub order: Vec<LensId>,
    /// How long steps take.
    pub pace: Pace,
    /// What is said of thermal zones.
    pub zones: Vec<ZoneLimits>,
}

impl Default for DegradationPlan {
    fn default() -> Self {
        let pace = Pace { down: Duration::from_secs(20), up: Duration::from_mins(2) };
        Self { enabled: true, order: Vec::new(), pace, zones: Vec::new() }
    }
}

/// Thresholds of all thermal zones of a type, in degrees Celsius.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneLimits {
    /// The type, as the driver names it.
    pub kind: String,
    /// From there on lenses give way; `None`: from the zone's own passive trip point on.
    pub warm: Option<f32>,
    /// From there on every lens does, and faster; `None`: from the zone's own hot trip point on.
    pub hot: Option<f32>,
    /// Not looked at.
    pub ignored: bool,
}

/// A thermal zone and what it is judged by, in degrees Celsius.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Its directory, `thermal_zone0`.
    pub zone: String,
    /// Its type, `cpu-thermal`.
    pub kind: String,
    /// Now, if it tells.
    pub temperature: Option<f32>,
    /// From there on lenses give way.
    pub warm: Option<f32>,
    /// From there on every lens does, and faster.
    pub hot: Option<f32>,
}

impl Judged {
    fn of(zone: Zone, limits: &[ZoneLimits]) -> Option<Self> {
        let said = limits.iter().find(|limits| limits.kind == zone.kind);
        if said.is_some_and(|said| said.ignored) {
            return None;
        }
        let warm = said.and_then(|said| said.warm).or(zone.passive).or(zone.hot.map(|hot| hot - ABOVE_PASSIVE));
        let below = zone.critical.map(|critical| critical - BELOW_CRITICAL);
        let hot = said.and_then(|said| said.hot).or(zone.hot).or(below).or(warm.map(|warm| warm + ABOVE_PASSIVE));
        // A zone that tells only where it is switched off says nothing of what is usual for it.
        let hot = warm.and_then(|warm| hot.map(|hot| hot.max(warm)));
        Some(Self { zone: zone.name, kind: zone.kind, temperature: zone.temperature, warm, hot })
    }

    fn heat(&self) -> Heat {
        let (Some(now), Some(warm)) = (self.temperature, self.warm) else { return Heat::Cool };
        match self.hot {
            Some(hot) if now >= hot => Heat::Hot,
            _ if now >= warm => Heat::Warm,
            _ if now > warm - HYSTERESIS => Heat::Between,
            _ => Heat::Cool,
        }
    }

    fn words(&self) -> String {
        let degrees = |value: Option<f32>| value.map_or_else(String::new, |value| format!("{value:.1} °C"));
        format!("{} is at {}, too hot from {} on", self.kind, degrees(self.temperature), degrees(self.warm))
    }
}

/// The service.
pub struct Degradation {
    plan: DegradationPlan,
    capture: CaptureControlService,
    clock: Arc<dyn Clock>,
    sysfs: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    ladder: Ladder,
    zones: Vec<Judged>,
    /// Pictures coded and left out when they were last judged.
    counted: BTreeMap<LensId, (u64, u64)>,
    /// What was last found of each encoder.
    found: BTreeMap<LensId, f64>,
}

impl Degradation {
    /// Watches nothing yet. `sysfs` is where the kernel describes its thermal zones, `/sys`.
    #[must_use]
    pub fn new(plan: DegradationPlan, capture: CaptureControlService, clock: Arc<dyn Clock>, sysfs: PathBuf) -> Self {
        let ladder = Ladder::new(plan.pace);
        let inner = Inner { ladder, zones: Vec::new(), counted: BTreeMap::new(), found: BTreeMap::new() };
        Self { plan, capture, clock, sysfs, inner: Mutex::new(inner) }
    }

    /// Whether [`Degradation::step`] does anything.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.plan.enabled
    }

    /// Thermal zones as they were last seen, those that are ignored left out.
    #[must_use]
    pub fn zones(&self) -> Vec<Judged> {
        self.lock().zones.clone()
    }

    /// Looks once, and has lenses give way or come back. A sensor or a lens may be waited for. Says who gives way, in a sentence,
    /// if anybody does.
    pub fn step(&self) -> Option<String> {
        let read = zones(&self.sysfs);
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.zones = read.into_iter().filter_map(|zone| Judged::of(zone, &self.plan.zones)).collect();
        let worst = inner.zones.iter().max_by_key(|zone| zone.heat());
        let heat = worst.map_or(Heat::Cool, Judged::heat);
        let mut loads = self.capture.loads();
        for load in loads.extract_if(.., |load| !load.wanted) {
            self.capture.give_way(&load.lens, Step::Full, None, "");
        }
        loads.reverse();
        loads.sort_by_key(|load| self.plan.order.iter().position(|lens| *lens == load.lens).map_or(0, |at| at + 1));
        let (encoding, encoder_words) = encoding(&mut inner.counted, &mut inner.found, &loads);
        let members: Vec<Member> =
            loads.iter().map(|load| Member { lens: load.lens.clone(), coded: load.coded }).collect();
        let pressure = Pressure { lenses: &members, heat, encoding };
        let steps = inner.ladder.step(&pressure, self.clock.mono());
        let heat_words = worst.map_or_else(String::new, Judged::words);
        for (member, (step, reason)) in members.iter().zip(&steps) {
            let why = match reason {
                Some(Reason::Heat) => heat_words.as_str(),
                Some(Reason::Encoder) => encoder_words.as_str(),
                None => "",
            };
            self.capture.give_way(&member.lens, *step, *reason, why);
        }
        let given: Vec<String> = members
            .iter()
            .zip(&steps)
            .filter_map(|(member, (step, reason))| {
                reason.map(|reason| format!("{} is {} ({})", member.lens, step.name(), reason.name()))
            })
            .collect();
        (!given.is_empty()).then(|| format!("lenses give way: {}", given.join(", ")))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the encoder lacks, in words as well.
fn encoding(
    counted: &mut BTreeMap<LensId, (u64, u64)>,
    found: &mut BTreeMap<LensId, f64>,
    loads: &[Load],
) -> (Encoding, String) {
    counted.retain(|lens, _| loads.iter().any(|load| load.lens == *lens));
    found.retain(|lens, _| counted.contains_key(lens));
    let mut worst = (Encoding::Suffices, String::new());
    for (at, load) in loads.iter().enumerate() {
        let before = counted.entry(load.lens.clone()).or_insert((load.frames, load.left_out));
        let (frames, left_out) = (load.frames - before.0, load.left_out - before.1);
        if frames + left_out >= COUNTED {
            found.insert(load.lens.clone(), left_out as f64 / (frames + left_out) as f64);
            *before = (load.frames, load.left_out);
        }
        let part = found.get(&load.lens).copied().unwrap_or(0.0);
        if load.exhausted {
            worst = (Encoding::Lacks(at), format!("the encoder has no part left for {}", load.lens));
        } else if part >= TOO_MANY {
            let words = format!("the encoder leaves out {:.0} % of the pictures of {}", part * 100.0, load.lens);
            worst = (Encoding::Lacks(at), words);
        } else if part > FEW && worst.0 == Encoding::Suffices {
            worst.0 = Encoding::Between;
        }
    }
    worst
}
