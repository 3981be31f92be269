//! Figures of the storage for Prometheus: room, protection, what gives way, the device and what is foretold.

use std::collections::BTreeMap;
use std::fmt;

use mos_hal::media::LensId;
use mos_hal::storage::PreEol;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::Services;
use super::metrics::{gauge, saturated};
use crate::alarms::{Alarm, AlarmKind};
use crate::archive::LensRoom;
use crate::retention::Report;

/// Everything at one moment.
#[derive(Debug)]
pub(super) struct StorageFigures {
    report: Report,
    rooms: BTreeMap<LensId, LensRoom>,
    alarms: Vec<Alarm>,
    protected_alarm_bytes: u64,
    protected_max_bytes: u64,
}

impl StorageFigures {
    pub(super) fn of(services: &Services) -> Self {
        Self {
            report: services.retention.report(),
            rooms: services.archive.catalog().rooms(),
            alarms: services.retention.alarms().list(),
            protected_alarm_bytes: services.retention.limits().protected_alarm_bytes,
            protected_max_bytes: services.archive.protected_max_bytes(),
        }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.room(encoder)?;
        self.protection(encoder)?;
        self.aside(encoder)?;
        self.device(encoder)?;
        self.forecast(encoder)?;
        let help = "1 for each alarm that is raised";
        let mut metric = encoder.encode_descriptor("alarm", help, None, MetricType::Gauge)?;
        for kind in AlarmKind::ALL {
            let raised = self.alarms.iter().any(|alarm| alarm.kind == kind);
            metric.encode_family(&[("kind", kind.name())])?.encode_gauge(&i64::from(raised))?;
        }
        Ok(())
    }

    fn room(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let report = &self.report;
        let help = "Bytes that segments may take at present, open ones included";
        gauge(encoder, "storage_budget_bytes", help, saturated(report.budget))?;
        let help = "1 while more room is taken than allowed and nothing may go";
        gauge(encoder, "storage_short", help, i64::from(report.short))?;
        let help = "Bytes that the segments of a lens take, open ones included";
        let mut metric = encoder.encode_descriptor("lens_segment_bytes", help, None, MetricType::Gauge)?;
        for (lens, room) in &self.rooms {
            metric.encode_family(&[("lens", lens.as_str())])?.encode_gauge(&saturated(room.used))?;
        }
        counter(encoder, "retention_removed_segments", "Segments that retention removed", report.removed)?;
        counter(encoder, "retention_removed_bytes", "Bytes of their allocated blocks", report.removed_bytes)?;
        let help = "1 while UTC does not count for max_age because the wall clock is not believed";
        gauge(encoder, "retention_clock_doubted", help, i64::from(report.clock_doubted.is_some()))
    }

    fn protection(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let sum = |of: fn(&LensRoom) -> u64| saturated(self.rooms.values().map(of).sum());
        gauge(encoder, "protected_segments", "Protected segments", sum(|room| room.protected_segments))?;
        gauge(encoder, "protected_bytes", "Bytes that these take", sum(|room| room.protected))?;
        let help = "Bytes of protected segments from which there is an alarm";
        gauge(encoder, "protected_alarm_bytes", help, saturated(self.protected_alarm_bytes))?;
        let help = "Bytes that protected segments may take";
        gauge(encoder, "protected_max_bytes", help, saturated(self.protected_max_bytes))
    }

    /// What gives way first.
    fn aside(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Report { outputs, quarantine, .. } = &self.report;
        gauge(encoder, "output_files", "Clips and snapshots", saturated(outputs.files))?;
        gauge(encoder, "output_bytes", "Bytes of their allocated blocks", saturated(outputs.bytes))?;
        counter(
            encoder,
            "output_removed_files",
            "Clips and snapshots that went by quota, age or need",
            outputs.removed,
        )?;
        let help = "Bytes of torn segments in quarantine";
        gauge(encoder, "quarantine_torn_bytes", help, saturated(quarantine.torn_bytes))?;
        counter(encoder, "quarantine_expired_files", "Torn segments that went by quota or age", quarantine.expired)
    }

    fn device(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        counter(encoder, "written_bytes", "Bytes of footage that became durable in this run", self.report.written)?;
        let Some(device) = &self.report.device else { return Ok(()) };
        let (name, kind) = (device.name.as_str(), device.kind.name());
        let help = "The device that carries the archive";
        let mut metric = encoder.encode_descriptor("storage_device_info", help, None, MetricType::Gauge)?;
        metric.encode_family(&[("device", name), ("kind", kind)])?.encode_gauge(&1i64)?;
        if let Some(written) = device.state.written {
            let help = "Bytes written to the device by anybody since the machine was switched on";
            counter(encoder, "storage_device_written_bytes", help, written)?;
        }
        let help = "Per cent of the device's life that is used at most, by type of blocks; above 100: beyond its end";
        let mut metric =
            encoder.encode_descriptor("storage_device_life_used_percent", help, None, MetricType::Gauge)?;
        for (blocks, life) in [("a", device.state.life_a), ("b", device.state.life_b)] {
            if let Some(life) = life {
                let labels = [("device", name), ("blocks", blocks)];
                metric.encode_family(&labels)?.encode_gauge(&i64::from(life.percent_at_most()))?;
            }
        }
        if let Some(pre_eol) = device.state.pre_eol {
            let help = "How far the device's reserved blocks are used up: 1 normal, 2 warning, 3 urgent";
            let value = match pre_eol {
                PreEol::Normal => 1,
                PreEol::Warning => 2,
                PreEol::Urgent => 3,
            };
            gauge(encoder, "storage_device_pre_eol", help, value)?;
        }
        Ok(())
    }

    fn forecast(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let forecast = &self.report.forecast;
        let seconds = |time: Option<std::time::Duration>| time.map(|time| time.as_secs());
        let figures = [
            ("written_bytes_per_day", "Bytes of footage per 24 hours of running", forecast.footage_per_day),
            (
                "storage_device_written_bytes_per_day",
                "Bytes that anybody writes to the device per 24 hours of running",
                forecast.device_per_day,
            ),
            (
                "forecast_holds_seconds",
                "Time of all lenses that the archive can hold at the present rate",
                seconds(forecast.holds),
            ),
            (
                "forecast_full_in_seconds",
                "Until the archive takes all it may; 0 when it does",
                seconds(forecast.full_in),
            ),
            ("forecast_wear_end_in_seconds", "Until the device is used up, at least", seconds(forecast.wear_end_in)),
        ];
        for (name, help, value) in figures {
            if let Some(value) = value {
                gauge(encoder, name, help, saturated(value))?;
            }
        }
        Ok(())
    }
}

pub(super) fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    metric.encode_counter::<[(&str, &str); 0], _, u64>(&value, None)
}
