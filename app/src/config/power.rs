//! `[power]`: ignition and parking.

use mos_hal::media::LensId;

use super::error::ConfigError;
use super::values::Fields;
use crate::power::PowerPlan;

/// The plan; `has_line` tells whether there is an ignition line to follow.
pub(super) fn plan(fields: &Fields<'_>, has_line: bool) -> Result<PowerPlan, ConfigError> {
    let usual = PowerPlan::default();
    let follow_ignition = fields.boolean("follow_ignition", false)?;
    if follow_ignition && !has_line {
        return Err(fields.bad("follow_ignition", "false, or board.ignition_line besides"));
    }
    Ok(PowerPlan {
        ignition: lenses(fields, "ignition_lenses")?,
        parking: lenses(fields, "parking_lenses")?.unwrap_or_default(),
        run_out: fields.duration("run_out", usual.run_out)?,
        follow_ignition,
    })
}

/// Lenses need not be configured: they may be added later.
pub(super) fn lenses(fields: &Fields<'_>, key: &str) -> Result<Option<Vec<LensId>>, ConfigError> {
    let Some(text) = fields.text(key)? else { return Ok(None) };
    let lenses: Result<Vec<LensId>, _> = text.split_whitespace().map(LensId::new).collect();
    lenses.map(Some).map_err(|_| fields.bad(key, "ids of lenses with spaces between"))
}
