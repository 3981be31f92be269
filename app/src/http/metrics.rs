//! Figures for Prometheus: GetMetrics. Read from the services at each scrape; nothing is counted here.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Services;
use super::fault::Fault;
use super::frames::{self, LensFramesView};
use super::gmsl::{self, GmslLinkView};
use super::routes::Routes;
use super::segments::blocking;
use super::storage_metrics::StorageFigures;
use crate::archive::disk::Space;
use crate::archive::{Counts, Health};
use crate::capture::{Judged, LensStatus};
use crate::error::ErrorBody;
use crate::evidence::Evidence;
use crate::power::PowerStatus;
use crate::record::{LensRecording, RecorderStatus, SyncTimes};
use crate::upload::job::JobState;

/// The text format that `prometheus-client` writes (OpenMetrics 1.0.0).
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn routes(routes: &mut Routes) {
    routes.get("/v1/metrics", get_metrics);
}

/// Figures for Prometheus.
#[utoipa::path(get, path = "/v1/metrics", operation_id = "GetMetrics", tag = "health",
    responses((status = 200, content_type = FORMAT, body = String), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn get_metrics(State(services): State<Arc<Services>>) -> Result<Response, Fault> {
    let text = blocking(move || text(&services)).await?.map_err(|e| Fault::internal("the metrics", e))?;
    Ok(([(header::CONTENT_TYPE, FORMAT)], text).into_response())
}

fn text(services: &Services) -> Result<String, fmt::Error> {
    let figures = Figures {
        capture: services.capture.status(),
        zones: services.degradation.zones(),
        device_changes: services.capture.device_changes(),
        power: services.power.status(),
        gmsl: gmsl::views(&services.capture.gmsl()),
        frames: frames::views(&services.capture.frames()),
        woken: services.pins.woken(),
        recorder: services.recorder.status(),
        space: services.archive.space().ok(),
        archive: services.archive.health(),
        counts: services.archive.catalog().counts(),
        storage: StorageFigures::of(services),
        evidence: services.evidence.as_ref().map(Evidence::counts),
        uploads: services.uploads.list().iter().map(|job| job.state.name()).collect(),
    };
    let mut registry = Registry::with_prefix("mos");
    registry.register_collector(Box::new(figures));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

/// Everything at one moment.
#[derive(Debug)]
struct Figures {
    capture: Vec<LensStatus>,
    zones: Vec<Judged>,
    device_changes: u64,
    power: PowerStatus,
    gmsl: Vec<GmslLinkView>,
    frames: Vec<LensFramesView>,
    /// The wake line, if there is one.
    woken: Option<bool>,
    recorder: RecorderStatus,
    space: Option<Space>,
    archive: Health,
    counts: Counts,
    storage: StorageFigures,
    evidence: Option<crate::evidence::Counts>,
    /// The states of all uploads that are remembered.
    uploads: Vec<&'static str>,
}

type RecordFigure = fn(&LensRecording) -> u64;

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        super::capture_metrics::encode(&self.capture, &self.zones, self.device_changes, &self.recorder, &mut encoder)?;
        super::power::encode(&self.power, &mut encoder)?;
        gmsl::encode(&self.gmsl, &mut encoder)?;
        frames::encode(&self.frames, &mut encoder)?;
        if let Some(woken) = self.woken {
            gauge(&mut encoder, "wake_line", "1 while the line that woke the box is active", i64::from(woken))?;
        }
        self.recorded(&mut encoder)?;
        self.gaps(&mut encoder)?;
        self.syncs(&mut encoder)?;
        self.stored(&mut encoder)?;
        self.storage.encode(&mut encoder)?;
        if let Some(counts) = &self.evidence {
            super::evidence::encode(counts, &mut encoder)?;
        }
        self.uploads(&mut encoder)
    }
}

impl Figures {
    fn recorded(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counters: [(&str, &str, RecordFigure); 4] = [
            ("lens_captured_units", "Access units that reached the recorder: stored + pending + dropped", |l| {
                l.captured
            }),
            ("lens_stored_units", "Access units durable on disk", |l| l.stored),
            ("lens_repaired_times", "Capture times that had to be mended", |l| l.repaired.values().sum()),
            ("lens_abandoned_segments", "Segments given up because a write or sync failed", |l| l.abandoned),
        ];
        for (name, help, figure) in counters {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (lens, recording) in &self.recorder.lenses {
                let labels = [("lens", lens.as_str())];
                metric.encode_family(&labels)?.encode_counter::<[(&str, &str); 0], _, u64>(&figure(recording), None)?;
            }
        }
        let help = "Access units left out, each covered by a gap of that cause";
        let mut metric = encoder.encode_descriptor("lens_dropped_units", help, None, MetricType::Counter)?;
        for (lens, recording) in &self.recorder.lenses {
            for (cause, units) in &recording.dropped {
                let labels = [("lens", lens.as_str()), ("cause", cause.name())];
                metric.encode_family(&labels)?.encode_counter::<[(&str, &str); 0], _, u64>(units, None)?;
            }
        }
        let help = "Access units on their way to the disk";
        let mut metric = encoder.encode_descriptor("lens_pending_units", help, None, MetricType::Gauge)?;
        for (lens, recording) in &self.recorder.lenses {
            metric.encode_family(&[("lens", lens.as_str())])?.encode_gauge(&(recording.pending as f64))?;
        }
        Ok(())
    }

    fn gaps(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "1 while there is footage, 0 during a gap; the cause is a label of the gap";
        let mut metric = encoder.encode_descriptor("lens_recording", help, None, MetricType::Gauge)?;
        for (lens, recording) in &self.recorder.lenses {
            let on = recording.absent.is_none() && recording.open.is_some();
            metric.encode_family(&[("lens", lens.as_str())])?.encode_gauge(&i64::from(on))?;
        }
        let help = "1 with the cause of the present gap";
        let mut metric = encoder.encode_descriptor("lens_gap", help, None, MetricType::Gauge)?;
        for (lens, recording) in &self.recorder.lenses {
            if let Some(cause) = recording.absent {
                metric.encode_family(&[("lens", lens.as_str()), ("cause", cause.name())])?.encode_gauge(&1i64)?;
            }
        }
        Ok(())
    }

    fn syncs(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let times = &self.recorder.sync_times;
        let bounds = SyncTimes::BOUNDS.iter().map(|ms| *ms as f64 / 1e3).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(times.counts).collect();
        let help = "How long group commits took";
        encoder
            .encode_descriptor("sync_seconds", help, None, MetricType::Histogram)?
            .encode_histogram::<[(&str, &str); 0]>(
                times.sum.as_secs_f64(),
                times.counts.iter().sum(),
                &buckets,
                None,
            )?;
        let help = "1 while syncs are so slow that a power cut may cost more than a second";
        gauge(encoder, "durability_degraded", help, i64::from(self.recorder.durability_degraded))
    }

    fn uploads(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Uploads that are remembered, by state; those that are over for a while only";
        let mut metric = encoder.encode_descriptor("uploads", help, None, MetricType::Gauge)?;
        for state in JobState::NAMES {
            let count = self.uploads.iter().filter(|name| **name == state).count();
            metric.encode_family(&[("state", state)])?.encode_gauge(&saturated(count as u64))?;
        }
        Ok(())
    }

    fn stored(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(space) = self.space {
            gauge(encoder, "storage_free_bytes", "Bytes that may still be written", saturated(space.free))?;
            gauge(encoder, "storage_total_bytes", "Bytes of the file system", saturated(space.total))?;
        }
        let stored = self.counts.stored;
        gauge(encoder, "segments", "Stored segments that are not open", saturated(stored.segments))?;
        gauge(encoder, "segment_bytes", "Bytes of their allocated blocks", saturated(stored.allocated))?;
        gauge(encoder, "open_segments", "Segments being written", saturated(self.counts.open))?;
        gauge(encoder, "index_bytes", "Memory of the index", saturated(self.counts.index_bytes))?;
        let archive = &self.archive;
        gauge(
            encoder,
            "quarantine_files",
            "Files that nobody knows or can read, set aside",
            saturated(archive.quarantined),
        )?;
        gauge(encoder, "recovered_segments", "Segments closed by recovery in this run", saturated(archive.recovered))?;
        let help = "1 while nothing is deleted because state beside the segments cannot be read";
        gauge(encoder, "archive_frozen", help, i64::from(!archive.frozen.is_empty()))?;
        gauge(encoder, "archive_listed", "1 when all segments of earlier runs are listed", i64::from(archive.listed))
    }
}

pub(super) fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

pub(super) fn saturated(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
