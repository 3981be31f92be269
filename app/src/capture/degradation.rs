//! The degradation ladder at work: what is read of the machine, what the lenses need, and what follows from it.
//!
//! Promises that a machine without thermal zones, and one whose zones tell nothing, loses nothing by it; that a user who stops
//! a lens is not overruled; that a zone is judged by its configured thresholds, else by its own trip points, else not at all;
//! that a sensor which falls silent is not taken for cooler than it was ([`Sensor`]); and that lenses take a place in the ladder
//! only while they deliver, or would but for it. Who goes when stands in [`super::ladder`].

mod encoder;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mos_hal::clock::{Clock, Mono};
use mos_hal::media::LensId;
use mos_hal::thermal::{Zone, zones};

use self::encoder::Encoders;
use super::CaptureControlService;
use super::ladder::{Encoding, Heat, Ladder, Member, Pace, Pressure, Reason, Step};
use super::lens::{Load, Place};

/// So far below its threshold a zone is cool again, in degrees.
const HYSTERESIS: f32 = 5.0;
/// A zone without a trip point `hot` is hot so far below the one where the kernel switches off, or above the passive one.
const BELOW_CRITICAL: f32 = 5.0;
const ABOVE_PASSIVE: f32 = 10.0;
/// What a silent sensor last said holds for so long; then nothing moves by it for as long as this.
const HOLDS: Duration = Duration::from_secs(10);
const SILENT: Duration = Duration::from_mins(10);

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

    fn heat(&self, now: f32) -> Heat {
        let Some(warm) = self.warm else { return Heat::Cool };
        match self.hot {
            Some(hot) if now >= hot => Heat::Hot,
            _ if now >= warm => Heat::Warm,
            _ if now > warm - HYSTERESIS => Heat::Between,
            _ => Heat::Cool,
        }
    }

    fn words(&self, now: f32) -> String {
        let warm = self.warm.map_or_else(String::new, |warm| format!(", too hot from {warm:.1} °C on"));
        format!("{} is at {now:.1} °C{warm}", self.kind)
    }
}

/// What a sensor said last, and when. One that answers no more (a bus that is busy, a block that is powered down) may be as hot
/// as it was: for [`HOLDS`] it is taken for that, and then, unless it was cool, for neither hot nor cool. After [`SILENT`] it is
/// taken for one that never spoke: what it belongs to may be switched off for good, by this very ladder.
#[derive(Clone, Copy, Debug)]
struct Sensor {
    said: f32,
    at: Mono,
}

impl Sensor {
    fn heat(self, zone: &Judged, now: Mono) -> Heat {
        let silent = Duration::from_nanos(now.since(self.at).unsigned_abs());
        match zone.heat(self.said) {
            heat if silent <= HOLDS => heat,
            Heat::Cool => Heat::Cool,
            _ if silent <= SILENT => Heat::Between,
            _ => Heat::Cool,
        }
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
    /// Of each zone that ever told its temperature.
    sensors: BTreeMap<String, Sensor>,
    encoders: Encoders,
    /// Where lenses stood after the last look.
    stood: Vec<(LensId, Step)>,
}

impl Degradation {
    /// Watches nothing yet. `sysfs` is where the kernel describes its thermal zones, `/sys`.
    #[must_use]
    pub fn new(plan: DegradationPlan, capture: CaptureControlService, clock: Arc<dyn Clock>, sysfs: PathBuf) -> Self {
        let ladder = Ladder::new(plan.pace);
        let inner = Inner {
            ladder,
            zones: Vec::new(),
            sensors: BTreeMap::new(),
            encoders: Encoders::default(),
            stood: Vec::new(),
        };
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
        let now = self.clock.mono();
        let (heat, heat_words) = inner.heat(now);
        let mut loads = self.capture.loads();
        for load in loads.extract_if(.., |load| load.place == Place::Gone) {
            self.capture.give_way(&load.lens, Step::Full, None, "");
        }
        loads.reverse();
        loads.sort_by_key(|load| self.plan.order.iter().position(|lens| *lens == load.lens).map_or(0, |at| at + 1));
        let member = |load: &Load| {
            let opening = load.place == Place::Opening;
            Member { lens: load.lens.clone(), coded: load.coded, opening }
        };
        let members: Vec<Member> = loads.iter().map(member).collect();
        loads.retain(|load| load.place != Place::Opening);
        let (mut encoding, encoder_words) = inner.encoders.judge(&loads, now);
        if let Encoding::Lacks(at) = &mut encoding {
            *at = members.iter().position(|member| member.lens == loads[*at].lens).unwrap_or(*at);
        }
        let pressure = Pressure { lenses: &members, heat, encoding };
        let steps = inner.ladder.step(&pressure, now);
        let mut given = Vec::new();
        for (member, (step, reason)) in members.iter().zip(&steps) {
            let why = match reason {
                Some(Reason::Heat) => heat_words.as_str(),
                Some(Reason::Encoder) => encoder_words.as_str(),
                None => "",
            };
            if let Some(degraded) = self.capture.give_way(&member.lens, *step, *reason, why) {
                given.push(format!("{} is {} ({})", member.lens, degraded.step.name(), degraded.reason.name()));
            }
        }
        let stands = members.into_iter().map(|member| member.lens).zip(steps.iter().map(|(step, _)| *step)).collect();
        let stood = std::mem::replace(&mut inner.stood, stands);
        if inner.stood.iter().any(|(lens, step)| stood.iter().any(|(known, before)| known == lens && before != step)) {
            inner.encoders.forget();
        }
        (!given.is_empty()).then(|| format!("lenses give way: {}", given.join(", ")))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// How hot it is, by the worst zone, in words as well.
    fn heat(&mut self, now: Mono) -> (Heat, String) {
        let zones = &self.zones;
        self.sensors.retain(|name, _| zones.iter().any(|zone| zone.zone == *name));
        let mut worst = (Heat::Cool, String::new());
        for zone in zones {
            if let Some(said) = zone.temperature {
                self.sensors.insert(zone.zone.clone(), Sensor { said, at: now });
            }
            let Some(sensor) = self.sensors.get(&zone.zone) else { continue };
            let heat = sensor.heat(zone, now);
            if heat > worst.0 {
                worst = (heat, zone.words(sensor.said));
            }
        }
        worst
    }
}
