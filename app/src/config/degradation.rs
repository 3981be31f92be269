//! `[degradation]` and `[[thermal_zone]]`: who gives way if the machine is too hot or its encoder does not suffice.

use std::collections::HashMap;

use super::entries::Document;
use super::error::{ConfigError, Place};
use super::power::lenses;
use super::schema::Section;
use super::values::Fields;
use crate::capture::{DegradationPlan, Pace, ZoneLimits};

/// What thresholds may be, in degrees Celsius.
const DEGREES: std::ops::RangeInclusive<f64> = 0.0..=150.0;

pub(super) fn plan(document: &Document) -> Result<DegradationPlan, ConfigError> {
    let (fields, usual) = (document.section(Section::Degradation), DegradationPlan::default());
    Ok(DegradationPlan {
        enabled: fields.boolean("enabled", usual.enabled)?,
        order: lenses(&fields, "order")?.unwrap_or_default(),
        pace: Pace {
            down: fields.duration("step_down", usual.pace.down)?,
            up: fields.duration("step_up", usual.pace.up)?,
        },
        zones: zones(document)?,
    })
}

fn zones(document: &Document) -> Result<Vec<ZoneLimits>, ConfigError> {
    let mut zones = Vec::new();
    let mut places: HashMap<String, Place> = HashMap::new();
    for fields in document.all(Section::ThermalZone) {
        let accepted = "the type of a thermal zone, as in /sys/class/thermal/thermal_zone0/type";
        let kind = fields.text("type")?.ok_or_else(|| fields.missing("type", accepted))?;
        if let Some(first) = places.insert(kind.to_owned(), fields.place("type")) {
            return Err(fields.bad("type", &format!("a type that is not named before; {first} names this one too")));
        }
        let (warm, hot) = (degrees(&fields, "warm")?, degrees(&fields, "hot")?);
        if let (Some(warm), Some(hot)) = (warm, hot)
            && hot < warm
        {
            return Err(fields.bad("hot", "a temperature of at least warm"));
        }
        zones.push(ZoneLimits { kind: kind.to_owned(), warm, hot, ignored: fields.boolean("ignored", false)? });
    }
    Ok(zones)
}

fn degrees(fields: &Fields<'_>, key: &str) -> Result<Option<f32>, ConfigError> {
    if !fields.has(key) {
        return Ok(None);
    }
    let degrees = fields.number(key).filter(|degrees| DEGREES.contains(degrees));
    degrees.map(|degrees| Some(degrees as f32)).ok_or_else(|| fields.bad(key, "degrees Celsius, 0 to 150, e.g. 85"))
}
