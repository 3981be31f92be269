//! `[board]` and `[[board_lens]]`: where the board describes itself, its lines, and what is changed of its lenses.

use std::collections::HashMap;

use mos_hal::device_tree::LensOverride;
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
        // The daemon is the program that answers to it.
        worker: std::env::current_exe().ok(),
        production: fields.boolean("production", live.production)?,
    })
}

/// Lines of the box.
pub(super) fn lines(document: &Document) -> Result<PinLines, ConfigError> {
    let fields = document.section(Section::Board);
    let line = |key: &str| match fields.text(key)? {
        None => Ok(None),
        Some(text) => match text.parse::<Line>() {
            Ok(line) => Ok(Some(line)),
            Err(e) => Err(fields.bad(key, &e.to_string())),
        },
    };
    let lines = PinLines { status: line("status_line")?, wake: line("wake_line")?, ignition: line("ignition_line")? };
    let places = [&lines.status, &lines.wake, &lines.ignition].map(|line| line.as_ref().map(|line| &line.place));
    for (at, key) in [(1, "wake_line"), (2, "ignition_line")] {
        if places[at].is_some() && places[..at].contains(&places[at]) {
            return Err(fields.bad(key, "a line that no other key names"));
        }
    }
    Ok(lines)
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
