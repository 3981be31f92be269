//! The storage as health shows it: room, protection, what gives way, the device and what is foretold.

use std::collections::BTreeMap;
use std::time::Duration;

use mos_hal::storage::{LifeUsed, PreEol};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Services;
use crate::archive;
use crate::record::RecorderStatus;
use crate::retention::forecast::Forecast;
use crate::retention::{Device, Report};

/// The storage.
// Each flag is a fact of its own.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StorageView {
    /// The archive's root.
    pub root: String,
    /// Bytes of the whole file system.
    pub total_bytes: u64,
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// Bytes of allocated blocks of all stored segments.
    pub segment_bytes: u64,
    /// Stored segments that are not open.
    pub segments: u64,
    /// Bytes that segments may take at present, open ones included.
    pub budget_bytes: u64,
    /// Bytes that the segments of each lens take, open ones included.
    pub lens_bytes: BTreeMap<String, u64>,
    /// More room is taken than allowed, and nothing may go.
    pub short: bool,
    /// Segments that retention removed in this run.
    pub removed_segments: u64,
    /// Protected segments.
    pub protected_segments: u64,
    /// Bytes that these take.
    pub protected_bytes: u64,
    /// From so many on there is an alarm.
    pub protected_alarm_bytes: u64,
    /// Bytes that they may take; beyond it Protect is refused with `protected_quota`.
    pub protected_max_bytes: u64,
    /// Clips and snapshots.
    pub output_files: u64,
    /// Bytes that these take.
    pub output_bytes: u64,
    /// Whether all segments of earlier runs are listed.
    pub listed: bool,
    /// Whether recovery of what earlier runs left open is over.
    pub recovered: bool,
    /// Files that nobody knows or can read, set aside in `quarantine/`.
    pub quarantine: u64,
    /// Bytes of torn segments among these.
    pub quarantine_torn_bytes: u64,
    /// Why the index was rebuilt from the files at this start, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_rebuilt: Option<String>,
    /// Syncs take so long that a power cut may cost more than a second.
    pub durability_degraded: bool,
    /// How long the last group commit took, milliseconds.
    pub last_sync_ms: f64,
    /// How long the slowest one of this run took, milliseconds.
    pub worst_sync_ms: f64,
    /// Why UTC does not count for `max_age` at present, if so: then the time that the machine has been running does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_doubted: Option<String>,
    /// The device that carries the archive, if a single one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceStateView>,
    /// What is foretold.
    pub forecast: ForecastView,
}

/// The device that carries the archive. What it does not tell is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceStateView {
    /// The kernel's name.
    pub name: String,
    /// `emmc`, `ufs`, `sd` or `other`.
    pub kind: String,
    /// Per cent of its life that blocks of type A have used at most; above 100: beyond its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life_used_a_percent: Option<u8>,
    /// The same of type B.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life_used_b_percent: Option<u8>,
    /// How far reserved blocks are used up: `normal`, `warning` or `urgent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_eol: Option<String>,
    /// Bytes written to it by anybody since the machine was switched on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_bytes: Option<u64>,
}

/// What is foretold from the last day of running. What is not known yet is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForecastView {
    /// Bytes of footage per 24 hours of running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footage_bytes_per_day: Option<u64>,
    /// Bytes that anybody writes to the device per 24 hours of running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_bytes_per_day: Option<u64>,
    /// Seconds of all lenses that the archive can hold at that rate, protected segments left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds_seconds: Option<u64>,
    /// Seconds until the archive takes all it may; 0 when it does, and the oldest go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_in_seconds: Option<u64>,
    /// Seconds until the device is used up, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wear_end_in_seconds: Option<u64>,
}

pub(super) fn storage(services: &Services, recorder: &RecorderStatus, archive: &archive::Health) -> StorageView {
    let space = services.archive.space().ok();
    let counts = services.archive.catalog().counts();
    let report: Report = services.retention.report();
    let rooms = services.archive.catalog().rooms();
    StorageView {
        root: services.root.display().to_string(),
        total_bytes: space.map_or(0, |space| space.total),
        free_bytes: space.map_or(0, |space| space.free),
        segment_bytes: counts.stored.allocated,
        segments: counts.stored.segments,
        budget_bytes: report.budget,
        lens_bytes: rooms.iter().map(|(lens, room)| (lens.to_string(), room.used)).collect(),
        short: report.short,
        removed_segments: report.removed,
        protected_segments: rooms.values().map(|room| room.protected_segments).sum(),
        protected_bytes: rooms.values().map(|room| room.protected).sum(),
        protected_alarm_bytes: services.retention.limits().protected_alarm_bytes,
        protected_max_bytes: services.archive.protected_max_bytes(),
        output_files: report.outputs.files,
        output_bytes: report.outputs.bytes,
        listed: archive.listed,
        recovered: archive.loaded,
        quarantine: archive.quarantined,
        quarantine_torn_bytes: report.quarantine.torn_bytes,
        index_rebuilt: archive.index_rebuilt.clone(),
        durability_degraded: recorder.durability_degraded,
        last_sync_ms: recorder.last_sync.as_secs_f64() * 1e3,
        worst_sync_ms: recorder.worst_sync.as_secs_f64() * 1e3,
        clock_doubted: report.clock_doubted.map(str::to_owned),
        device: report.device.as_ref().map(DeviceStateView::of),
        forecast: ForecastView::of(&report.forecast),
    }
}

impl DeviceStateView {
    fn of(device: &Device) -> Self {
        let state = &device.state;
        Self {
            name: device.name.clone(),
            kind: device.kind.name().to_owned(),
            life_used_a_percent: state.life_a.map(LifeUsed::percent_at_most),
            life_used_b_percent: state.life_b.map(LifeUsed::percent_at_most),
            pre_eol: state.pre_eol.map(PreEol::name).map(str::to_owned),
            written_bytes: state.written,
        }
    }
}

impl ForecastView {
    fn of(forecast: &Forecast) -> Self {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
        Self {
            footage_bytes_per_day: forecast.footage_per_day,
            device_bytes_per_day: forecast.device_per_day,
            holds_seconds: seconds(forecast.holds),
            full_in_seconds: seconds(forecast.full_in),
            wear_end_in_seconds: seconds(forecast.wear_end_in),
        }
    }
}
