//! `[board]` and `[[board_lens]]`: where the board describes itself, its lines, and what is changed of its lenses.

use std::collections::HashMap;

use mos_hal::device_tree::LensOverride;
use mos_hal::gmsl::bring_up::{Csi, SetUp};
use mos_hal::media::LensId;
use mos_hal::pins::Line;
use mos_hal::probe::Options;

use super::PinLines;
use super::entries::Document;
use super::error::{ConfigError, Place};
use super::schema::Section;
use super::values::Fields;

/// How the machine is looked at.
pub(super) fn options(document: &Document) -> Result<Options, ConfigError> {
    let (fields, live) = (document.section(Section::Board), Options::default());
    Ok(Options {
        device_tree: fields.absolute_path("device_tree")?.unwrap_or(live.device_tree),
        sysfs: fields.absolute_path("sysfs")?.unwrap_or(live.sysfs),
        lenses: lenses(document)?,
        gmsl: gmsl(&fields)?,
        // The daemon is the program that answers to it.
        worker: std::env::current_exe().ok(),
        production: fields.boolean("production", live.production)?,
    })
}

/// Lines of the box.
pub(super) fn lines(document: &Document) -> Result<PinLines, ConfigError> {
    let fields = document.section(Section::Board);
    let line = |key| line(&fields, key);
    let lines = PinLines { status: line("status_line")?, wake: line("wake_line")?, ignition: line("ignition_line")? };
    let places = [&lines.status, &lines.wake, &lines.ignition].map(|line| line.as_ref().map(|line| &line.place));
    for (at, key) in [(1, "wake_line"), (2, "ignition_line")] {
        if places[at].is_some() && places[..at].contains(&places[at]) {
            return Err(fields.bad(key, "a line that no other key names"));
        }
    }
    Ok(lines)
}

fn line(fields: &Fields<'_>, key: &str) -> Result<Option<Line>, ConfigError> {
    let line = fields.text(key)?.map(str::parse::<Line>).transpose();
    line.map_err(|e| fields.bad(key, &e.to_string()))
}

/// How GMSL chips are set up, if they are.
fn gmsl(fields: &Fields<'_>) -> Result<Option<SetUp>, ConfigError> {
    // Data types of MIPI CSI-2.
    let data_type = match fields.text("gmsl_data_type")?.unwrap_or("raw12") {
        "raw8" => 0x2A,
        "raw10" => 0x2B,
        "raw12" => 0x2C,
        "yuv422" => 0x1E,
        _ => return Err(fields.bad("gmsl_data_type", "raw8, raw10, raw12 or yuv422")),
    };
    let csi = Csi {
        controller: fields.integer("gmsl_csi_controller", 0..=3, 1)? as u8,
        lanes: fields.integer("gmsl_csi_lanes", 1..=4, 4)? as u8,
        mbps: fields.integer("gmsl_csi_mbps", 100..=1500, 1500)? as u16,
    };
    if !csi.mbps.is_multiple_of(100) {
        return Err(fields.bad("gmsl_csi_mbps", "a multiple of 100 from 100 to 1500"));
    }
    Ok(fields.boolean("gmsl_bring_up", false)?.then_some(SetUp { csi, data_type }))
}

fn lenses(document: &Document) -> Result<Vec<LensOverride>, ConfigError> {
    let mut lenses = Vec::new();
    let mut places: HashMap<LensId, Place> = HashMap::new();
    for fields in document.all(Section::BoardLens) {
        let accepted = "the name of a lens of the device tree, 1 to 32 of a-z, 0-9 and _";
        let name = fields.text("name")?.ok_or_else(|| fields.missing("name", accepted))?;
        let name = LensId::new(name).map_err(|_| fields.bad("name", accepted))?;
        if let Some(first) = places.insert(name.clone(), fields.place("name")) {
            return Err(fields.bad("name", &format!("a lens that is not changed before; {first} changes this one too")));
        }
        lenses.push(LensOverride {
            name,
            role: role(&fields)?,
            camera_index: number(&fields, "camera_index", 32)?,
            rotation: match number(&fields, "rotation", 270)? {
                Some(turn) if turn % 90 != 0 => return Err(fields.bad("rotation", "0, 90, 180 or 270")),
                turn => turn,
            },
            power_line: line(&fields, "power_line")?,
            disabled: fields.boolean("disabled", false)?,
        });
    }
    Ok(lenses)
}

fn role(fields: &Fields<'_>) -> Result<Option<String>, ConfigError> {
    match fields.text("role")? {
        Some(role) if !(1..=64).contains(&role.len()) || !role.chars().all(|c| c.is_ascii_graphic() || c == ' ') => {
            Err(fields.bad("role", "1 to 64 visible ASCII characters"))
        }
        role => Ok(role.map(str::to_owned)),
    }
}

fn number(fields: &Fields<'_>, key: &str, most: u32) -> Result<Option<u32>, ConfigError> {
    if !fields.has(key) {
        return Ok(None);
    }
    Ok(Some(fields.integer(key, 0..=u64::from(most), 0)? as u32))
}
