//! How the recorder is: GetHealth. Names what is wrong and with which lens.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use mos_hal::clock::{ClockQuality, Mono};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Services;
use super::fault::Fault;
use super::routes::Routes;
use super::segments::blocking;
use super::storage::{StorageView, storage};
use crate::alarms::Alarm;
use crate::archive::{GapCause, Mapping};
use crate::capture::LensStatus;
use crate::error::ErrorBody;
use crate::record::LensRecording;

/// Room below which the storage is as good as full, in bytes.
const NO_ROOM: u64 = 4 << 20;

/// The state of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HealthView {
    /// `ok`, or `degraded` if there is any problem.
    pub status: String,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
    /// What is wrong as far as it has a name of its own; GetEvents tells of every change.
    pub alarms: Vec<Alarm>,
    /// The program's version.
    pub version: String,
    /// This life of the recorder.
    pub run: u32,
    /// How far UTC times may be believed: `unset`, `rtc`, `ntp` or `gnss`.
    pub clock_quality: String,
    /// The storage.
    pub storage: StorageView,
    /// Every configured lens, in the order of the configuration.
    pub lenses: Vec<LensView>,
}

/// A configured lens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LensView {
    /// The lens.
    pub lens: String,
    /// Its source without credentials.
    pub source: String,
    /// `absent`, `idle`, `connecting`, `streaming`, `stalled`, `backing_off`, `circuit_open` or `failed`.
    pub state: String,
    /// Since when, UTC microseconds.
    pub since_ts: i64,
    /// Why there is no footage at present, as in the gap's cause; absent while there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
    /// What went wrong last; kept after it works again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When that was, UTC microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error_ts: Option<i64>,
    /// When the next attempt is due, UTC microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_ts: Option<i64>,
    /// How often the source was opened again.
    pub reconnects: u64,
    /// `h264` or `h265`, once known.
    pub codec: Option<String>,
    /// Width in pixels, 0 while unknown.
    pub width: u32,
    /// Height in pixels, 0 while unknown.
    pub height: u32,
    /// Where raw pictures are on their way to the encoder: `dmabuf` (no CPU touches them) or `system`. Absent for a camera that
    /// codes by itself, and before the first picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Frames per second, lately.
    pub frame_rate: f64,
    /// Bits per second, lately.
    pub bitrate: u64,
    /// Access units that the source delivered: `captured = stored + pending + Σ dropped`.
    pub captured: u64,
    /// Those durable on disk.
    pub stored: u64,
    /// Those on the way.
    pub pending: u64,
    /// Those left out, by cause.
    pub dropped: BTreeMap<String, u64>,
    /// The segment being written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_segment: Option<String>,
}

pub(super) fn routes(routes: &mut Routes) {
    routes.get("/v1/health", get_health);
}

/// How the recorder is, lens by lens.
#[utoipa::path(get, path = "/v1/health", operation_id = "GetHealth", tag = "health",
    responses((status = 200, body = HealthView), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn get_health(State(services): State<Arc<Services>>) -> Result<Json<HealthView>, Fault> {
    // The room and the quarantine are asked of the file system, which may be slow.
    Ok(Json(blocking(move || health(&services)).await?))
}

fn health(services: &Services) -> HealthView {
    let recorder = services.recorder.status();
    let mapping = services.archive.mapping();
    let archive = services.archive.health();
    let storage = storage(services, &recorder, &archive);
    let lenses: Vec<LensView> = services
        .capture
        .status()
        .iter()
        .map(|lens| LensView::of(lens, recorder.lenses.get(&lens.lens), &mapping))
        .collect();
    let mut problems: Vec<String> = lenses.iter().filter_map(LensView::problem).collect();
    if storage.free_bytes < NO_ROOM {
        problems.push(format!("the storage is full: {} bytes are free", storage.free_bytes));
    }
    if storage.durability_degraded {
        problems.push("syncs are slow: a power cut may cost more than a second".to_owned());
    }
    let alarms = services.retention.alarms().list();
    problems.extend(alarms.iter().map(|alarm| alarm.message.clone()));
    problems.extend(services.load_error());
    problems.extend(services.capture.problems());
    problems.extend(services.uploads.trouble());
    problems.extend(services.pins.troubles());
    problems.extend(archive.frozen.iter().map(|why| format!("nothing is deleted: {why}")));
    problems.extend(
        archive.unreadable.iter().map(|why| format!("cannot be read, is tried again at the next start: {why}")),
    );
    HealthView {
        status: if problems.is_empty() { "ok" } else { "degraded" }.to_owned(),
        problems,
        alarms,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        run: services.archive.run().0,
        clock_quality: quality(mapping.quality).to_owned(),
        storage,
        lenses,
    }
}

impl LensView {
    fn of(capture: &LensStatus, recording: Option<&LensRecording>, mapping: &Mapping) -> Self {
        let utc = |at: Mono| mapping.utc_of(at).0;
        let none = LensRecording::default();
        let recording = recording.unwrap_or(&none);
        let (width, height) = capture.size.unwrap_or_default();
        // While the disk takes nothing, that is what matters; afterwards whatever came later.
        let disk = [GapCause::DiskError, GapCause::DiskFull].map(Some).contains(&recording.absent);
        let refused = recording.refused.as_ref();
        let failed = capture.last_error.as_ref().filter(|_| !disk || refused.is_none());
        let last_error = refused.into_iter().chain(failed).max_by_key(|(_, at)| *at);
        Self {
            lens: capture.lens.to_string(),
            source: capture.source.clone(),
            state: capture.state.name().to_owned(),
            since_ts: utc(capture.since),
            absent: recording.absent.map(|cause| cause.name().to_owned()),
            last_error: last_error.map(|(text, _)| text.clone()),
            last_error_ts: last_error.map(|(_, at)| utc(*at)),
            next_attempt_ts: capture.next_attempt.map(utc),
            reconnects: capture.reconnects,
            codec: capture.codec.map(str::to_owned),
            width,
            height,
            memory: capture.memory.map(str::to_owned),
            frame_rate: capture.frame_rate,
            bitrate: capture.bitrate,
            captured: recording.captured,
            stored: recording.stored,
            pending: recording.pending,
            dropped: recording.dropped.iter().map(|(cause, units)| (cause.name().to_owned(), *units)).collect(),
            open_segment: recording.open.as_ref().map(ToString::to_string),
        }
    }

    /// What is wrong with it, if anything is. Starting up is not, and neither is the regular end of a file, nor what a user
    /// asked for.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let harmless = [GapCause::Starting, GapCause::SourceEnded, GapCause::CaptureStopped, GapCause::CaptureReset];
        let harmless = harmless.map(GapCause::name);
        let absent = self.absent.as_deref().filter(|cause| !harmless.contains(cause))?;
        let detail = self.last_error.as_ref().map_or_else(String::new, |text| format!(": {text}"));
        Some(format!("{}: {absent}{detail}", self.lens))
    }
}

fn quality(quality: ClockQuality) -> &'static str {
    match quality {
        ClockQuality::Unset => "unset",
        ClockQuality::Rtc => "rtc",
        ClockQuality::Ntp => "ntp",
        ClockQuality::Gnss => "gnss",
    }
}
