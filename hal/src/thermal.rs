//! How hot the machine is, by the kernel's thermal zones.
//!
//! Reads sysfs and nothing else. What a zone does not tell is unknown, never guessed: a sensor may be powered down and answer
//! EAGAIN, a trip point that is not set stands at zero or far below it. Source of the facts:
//! `Documentation/driver-api/thermal/sysfs-api.rst` (temperatures are millidegrees Celsius, types of trip points are `active`,
//! `passive`, `hot` and `critical`).

use std::fs;
use std::path::Path;

/// Trip points outside of these are not set: no board lives with less, no chip with more. In degrees Celsius.
const PLAUSIBLE: std::ops::RangeInclusive<f32> = 30.0..=150.0;

/// A thermal zone. Temperatures are in degrees Celsius.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// Its directory, `thermal_zone0`.
    pub name: String,
    /// What the driver calls it, `cpu-thermal`; several zones may have one type.
    pub kind: String,
    /// Now; `None` while the sensor does not answer.
    pub temperature: Option<f32>,
    /// Where the kernel begins to slow the machine down, the lowest of these trip points.
    pub passive: Option<f32>,
    /// Where the hardware is about to be harmed, the lowest of these trip points.
    pub hot: Option<f32>,
    /// Where the kernel switches the machine off.
    pub critical: Option<f32>,
}

/// All zones below `sysfs` (`/sys`), in order of their numbers.
#[must_use]
pub fn zones(sysfs: &Path) -> Vec<Zone> {
    let Ok(entries) = fs::read_dir(sysfs.join("class/thermal")) else { return Vec::new() };
    let numbered = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some((name.strip_prefix("thermal_zone")?.parse::<u32>().ok()?, name))
    });
    let mut numbered: Vec<(u32, String)> = numbered.collect();
    numbered.sort_unstable();
    numbered.into_iter().filter_map(|(_, name)| zone(&sysfs.join("class/thermal").join(&name), name)).collect()
}

fn zone(folder: &Path, name: String) -> Option<Zone> {
    let text = |file: &str| fs::read_to_string(folder.join(file)).ok().map(|text| text.trim().to_owned());
    let degrees = |file: &str| text(file)?.parse::<i32>().ok().map(|milli| milli as f32 / 1000.0);
    let mut zone =
        Zone { kind: text("type")?, name, temperature: degrees("temp"), passive: None, hot: None, critical: None };
    // They are numbered without holes.
    for at in 0.. {
        let Some(kind) = text(&format!("trip_point_{at}_type")) else { break };
        let Some(trip) = degrees(&format!("trip_point_{at}_temp")).filter(|t| PLAUSIBLE.contains(t)) else { continue };
        let slot = match kind.as_str() {
            "passive" => &mut zone.passive,
            "hot" => &mut zone.hot,
            "critical" => &mut zone.critical,
            _ => continue,
        };
        *slot = Some(slot.map_or(trip, |known| known.min(trip)));
    }
    Some(zone)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn zones_tell_what_they_know_and_nothing_else() {
        let sys = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let file = sys.path().join("class/thermal").join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, format!("{text}\n")).unwrap();
        };
        assert_eq!(zones(sys.path()), []);
        for (file, text) in [
            ("thermal_zone10/type", "ddr-thermal"),
            ("thermal_zone10/trip_point_0_type", "passive"),
            ("thermal_zone10/trip_point_0_temp", "-274000"),
            ("thermal_zone2/type", "cpu-thermal"),
            ("thermal_zone2/temp", "61500"),
            ("thermal_zone2/trip_point_0_type", "active"),
            ("thermal_zone2/trip_point_0_temp", "50000"),
            ("thermal_zone2/trip_point_1_type", "passive"),
            ("thermal_zone2/trip_point_1_temp", "90000"),
            ("thermal_zone2/trip_point_2_type", "passive"),
            ("thermal_zone2/trip_point_2_temp", "85000"),
            ("thermal_zone2/trip_point_3_type", "critical"),
            ("thermal_zone2/trip_point_3_temp", "105000"),
            ("cooling_device0/type", "fan"),
        ] {
            put(file, text);
        }
        let unknown = Zone {
            name: "thermal_zone10".into(),
            kind: "ddr-thermal".into(),
            temperature: None,
            passive: None,
            hot: None,
            critical: None,
        };
        let cpu = Zone {
            name: "thermal_zone2".into(),
            kind: "cpu-thermal".into(),
            temperature: Some(61.5),
            passive: Some(85.0),
            hot: None,
            critical: Some(105.0),
        };
        assert_eq!(zones(sys.path()), [cpu, unknown]);
    }
}
