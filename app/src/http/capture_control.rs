//! Control of the lenses: GetStatus, ConfigureStream, StartCapture, StopCapture, ResetCapture, RemoveLens.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use mos_hal::clock::Mono;
use mos_hal::media::LensId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Services;
use super::extract::{Body, Id, Params};
use super::fault::Fault;
use super::routes::Routes;
use super::segments::blocking;
use crate::archive::Mapping;
use crate::capture::{
    CaptureControlService, CaptureError, Degraded, EventsStatus, Judged, LensStatus, StreamSettings, Target,
};
use crate::error::{ErrorBody, Kind};
use crate::record::LensRecording;

/// All lenses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CaptureStatusView {
    /// In the order of the configuration, then those that were added.
    pub lenses: Vec<CaptureView>,
    /// Thermal zones of the machine, to which lenses give way; empty where nothing is looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub thermal: Vec<ThermalZoneView>,
}

/// A thermal zone; temperatures in degrees Celsius.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ThermalZoneView {
    /// The kernel's name, `thermal_zone0`.
    pub zone: String,
    /// Its type, `cpu-thermal`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Now; absent if it does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// From there on lenses give way; absent if it is not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<f32>,
    /// From there on every lens does, and faster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hot: Option<f32>,
}

/// How a lens gives way to others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DegradedView {
    /// `reduced`: half of its pictures are coded; `stopped`: it is idle with the cause `degraded`.
    pub step: String,
    /// `heat` or `encoder`.
    pub reason: String,
    /// What was seen then.
    pub why: String,
    /// Since when, UTC microseconds.
    pub since_ts: i64,
}

/// Whether events of a camera are heard of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventsView {
    /// Since when the camera tells them, UTC microseconds; absent while it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscribed_ts: Option<i64>,
    /// Why it did not, last; kept after it does again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When that was, UTC microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error_ts: Option<i64>,
}

/// A lens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CaptureView {
    /// The lens.
    pub lens: String,
    /// Its source without credentials.
    pub source: String,
    /// It was added by ConfigureStream and can be taken out by RemoveLens; it is not in the configuration file.
    pub added: bool,
    /// It is idle because the recorder is parked, and is started when that is woken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asleep: bool,
    /// How far it gives way to heat or to the limits of the encoder; absent if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<DegradedView>,
    /// Where its source runs: `none` in the recorder's process, `process` in one of its own.
    pub isolation: String,
    /// `absent`, `idle`, `connecting`, `streaming`, `stalled`, `backing_off`, `circuit_open` or `failed`.
    pub state: String,
    /// Since when, UTC microseconds.
    pub since_ts: i64,
    /// Why it does not deliver, as in the gap's cause; absent while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What went wrong last; kept after it works again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When that was, UTC microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error_ts: Option<i64>,
    /// When the next attempt is due, UTC microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_ts: Option<i64>,
    /// Whether events of its camera are heard of; absent if it is not asked for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<EventsView>,
    /// How often the source was opened again.
    pub reconnects: u64,
    /// The circuit breaker.
    pub breaker: BreakerView,
    /// Video frames delivered.
    pub frames: u64,
    /// Capture time of the newest frame that the source has delivered, UTC microseconds; absent before the first. What a power cut
    /// may cost counts from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_ts: Option<i64>,
    /// Frames per second, lately.
    pub frame_rate: f64,
    /// How much later than the first lens that streams it captures, in seconds, up to half a frame; absent if their rates differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew: Option<f64>,
    /// Bits per second, lately.
    pub bitrate: u64,
    /// `h264` or `h265`, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// Width in pixels, 0 while unknown.
    pub width: u32,
    /// Height in pixels, 0 while unknown.
    pub height: u32,
    /// Where raw pictures are on their way to the encoder: `dmabuf` or `system`; absent if the camera codes by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Whether sound arrives.
    pub audio: bool,
    /// Seconds from keyframe to keyframe, as last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyframe_interval: Option<f64>,
    /// Seconds from the capture of the oldest picture of the newest durable fragment until it was durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable_latency: Option<f64>,
    /// Access units left out, by cause.
    pub dropped: BTreeMap<String, u64>,
    /// What the source is asked for, as far as it can be asked.
    pub target: TargetView,
    /// What of that was asked by ConfigureStream.
    pub configured: StreamSettings,
}

/// What a source is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetView {
    /// Width in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Frames per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame_rate: Option<u32>,
    /// `h264` or `h265`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// In bit/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitrate: Option<u32>,
    /// Frames from keyframe to keyframe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gop: Option<u32>,
}

/// A circuit breaker: five failures in a row open it, two proven trial runs close it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BreakerView {
    /// `closed`, `open` or `half_open`.
    pub state: String,
    /// Failures since a run last proved itself.
    pub failures: u32,
    /// How often it opened.
    pub openings: u64,
}

pub(super) fn routes(routes: &mut Routes) {
    routes.get("/v1/capture/status", get_status);
    routes.post("/v1/capture/lenses/{lens}/configure", configure_stream);
    routes.post("/v1/capture/lenses/{lens}/start", start_capture);
    routes.post("/v1/capture/lenses/{lens}/stop", stop_capture);
    routes.post("/v1/capture/lenses/{lens}/reset", reset_capture);
    routes.delete("/v1/capture/lenses/{lens}", remove_lens);
}

/// How every lens is captured.
#[utoipa::path(get, path = "/v1/capture/status", operation_id = "GetStatus", tag = "capture",
    responses((status = 200, body = CaptureStatusView), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn get_status(State(services): State<Arc<Services>>) -> Result<Json<CaptureStatusView>, Fault> {
    // A lens may be held by an operation that waits for a device.
    let view = blocking(move || CaptureStatusView {
        lenses: services.capture.status().iter().map(|lens| services.view(lens)).collect(),
        thermal: services.degradation.zones().into_iter().map(ThermalZoneView::from).collect(),
    });
    Ok(Json(view.await?))
}

/// How a configuration is meant.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct How {
    /// What the body leaves out becomes what the configuration file says, instead of staying as it is.
    #[serde(default)]
    from_file: bool,
    /// For a lens that is not there yet: what it shall capture from, the id of a device of ListDevices or a source as in the
    /// configuration file, without a password. It is added, kept over restarts, and records at once.
    device: Option<String>,
}

/// Changes what is asked of a lens and keeps it over restarts. Checked against the modes of its device and the limits of its
/// encoder; the error says what would be accepted. A lens that is not idle is started anew with a gap `capture_reset`. A lens
/// that does not exist is added if `device` says what it captures from.
#[utoipa::path(post, path = "/v1/capture/lenses/{lens}/configure", operation_id = "ConfigureStream", tag = "capture",
    params(("lens" = String, Path, description = "The lens"), How), request_body = StreamSettings,
    responses((status = 200, body = CaptureView), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn configure_stream(
    State(services): State<Arc<Services>>,
    Id(lens): Id,
    Params(how): Params<How>,
    Body(settings): Body<StreamSettings>,
) -> Result<Json<CaptureView>, Fault> {
    ask(services, lens, move |capture, lens| {
        capture.configure_stream(lens, &settings, how.from_file, how.device.as_deref())
    })
    .await
}

/// Starts a lens that is idle; of any other it is refused with its state, and so is one that gives way to heat or to the limits
/// of the encoder, which comes back by itself.
#[utoipa::path(post, path = "/v1/capture/lenses/{lens}/start", operation_id = "StartCapture", tag = "capture",
    params(("lens" = String, Path, description = "The lens")),
    responses((status = 200, body = CaptureView), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn start_capture(
    State(services): State<Arc<Services>>,
    Id(lens): Id,
) -> Result<Json<CaptureView>, Fault> {
    ask(services, lens, CaptureControlService::start_capture).await
}

/// Stops a lens until StartCapture, over restarts. What is missing is a gap `capture_stopped`.
#[utoipa::path(post, path = "/v1/capture/lenses/{lens}/stop", operation_id = "StopCapture", tag = "capture",
    params(("lens" = String, Path, description = "The lens")),
    responses((status = 200, body = CaptureView), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn stop_capture(
    State(services): State<Arc<Services>>,
    Id(lens): Id,
) -> Result<Json<CaptureView>, Fault> {
    ask(services, lens, CaptureControlService::stop_capture).await
}

/// Drops source, circuit breaker and delays of a lens that is not idle and starts it anew. Never touches footage; what is
/// missing is a gap `capture_reset`.
#[utoipa::path(post, path = "/v1/capture/lenses/{lens}/reset", operation_id = "ResetCapture", tag = "capture",
    params(("lens" = String, Path, description = "The lens")),
    responses((status = 200, body = CaptureView), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn reset_capture(
    State(services): State<Arc<Services>>,
    Id(lens): Id,
) -> Result<Json<CaptureView>, Fault> {
    ask(services, lens, CaptureControlService::reset_capture).await
}

/// Takes out a lens that was added by ConfigureStream. What it delivered is kept; its footage is never touched. Refused of a
/// lens that stands in the configuration file. Answers with its last state.
#[utoipa::path(delete, path = "/v1/capture/lenses/{lens}", operation_id = "RemoveLens", tag = "capture",
    params(("lens" = String, Path, description = "The lens")),
    responses((status = 200, body = CaptureView), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn remove_lens(
    State(services): State<Arc<Services>>,
    Id(lens): Id,
) -> Result<Json<CaptureView>, Fault> {
    ask(services, lens, CaptureControlService::remove_lens).await
}

async fn ask(
    services: Arc<Services>,
    lens: String,
    operation: impl FnOnce(&CaptureControlService, &LensId) -> Result<LensStatus, CaptureError> + Send + 'static,
) -> Result<Json<CaptureView>, Fault> {
    let Ok(id) = LensId::new(&lens) else { return Err(Fault::absent("lens", &lens)) };
    // An old source is let go, devices may be asked and the disk may be waited for.
    let view = blocking(move || operation(&services.capture, &id).map(|status| services.view(&status)));
    Ok(Json(view.await??))
}

impl Services {
    fn view(&self, lens: &LensStatus) -> CaptureView {
        let recorder = self.recorder.status();
        let mapping = self.archive.mapping();
        let events = self.capture.events_of(&lens.lens).map(|events| EventsView::of(events, &mapping));
        CaptureView { events, ..CaptureView::of(lens, recorder.lenses.get(&lens.lens), &mapping) }
    }
}

impl CaptureView {
    fn of(capture: &LensStatus, recording: Option<&LensRecording>, mapping: &Mapping) -> Self {
        let utc = |at: Mono| mapping.utc_of(at).0;
        let (width, height) = capture.size.unwrap_or_default();
        let dropped = recording.map(|r| r.dropped.iter().map(|(cause, n)| (cause.name().to_owned(), *n)).collect());
        Self {
            lens: capture.lens.to_string(),
            source: capture.source.clone(),
            added: capture.added,
            asleep: capture.asleep,
            degraded: capture.degraded.as_ref().map(|degraded| DegradedView::of(degraded, mapping)),
            isolation: capture.isolation.name().to_owned(),
            state: capture.state.name().to_owned(),
            since_ts: utc(capture.since),
            cause: capture.cause.map(|cause| cause.name().to_owned()),
            last_error: capture.last_error.as_ref().map(|(text, _)| text.clone()),
            last_error_ts: capture.last_error.as_ref().map(|(_, at)| utc(*at)),
            next_attempt_ts: capture.next_attempt.map(utc),
            events: None,
            reconnects: capture.reconnects,
            breaker: BreakerView {
                state: capture.breaker.state.name().to_owned(),
                failures: capture.breaker.failures,
                openings: capture.breaker.opened,
            },
            frames: capture.frames,
            newest_ts: capture.newest.map(utc),
            skew: capture.skew,
            frame_rate: capture.frame_rate,
            bitrate: capture.bitrate,
            codec: capture.codec.map(str::to_owned),
            width,
            height,
            memory: capture.memory.map(str::to_owned),
            audio: capture.audio,
            keyframe_interval: capture.keyframe_interval.map(|span| span.as_secs_f64()),
            durable_latency: recording.and_then(|r| r.latency).map(|span| span.as_secs_f64()),
            dropped: dropped.unwrap_or_default(),
            target: TargetView::from(capture.target),
            configured: capture.settings.clone(),
        }
    }
}

impl EventsView {
    fn of(events: EventsStatus, mapping: &Mapping) -> Self {
        let utc = |at: Mono| mapping.utc_of(at).0;
        let (last_error, at) = events.last_error.unzip();
        Self { subscribed_ts: events.since.map(utc), last_error, last_error_ts: at.map(utc) }
    }
}

impl DegradedView {
    pub(super) fn of(degraded: &Degraded, mapping: &Mapping) -> Self {
        Self {
            step: degraded.step.name().to_owned(),
            reason: degraded.reason.name().to_owned(),
            why: degraded.why.clone(),
            since_ts: mapping.utc_of(degraded.since).0,
        }
    }
}

impl From<Judged> for ThermalZoneView {
    fn from(Judged { zone, kind, temperature, warm, hot }: Judged) -> Self {
        Self { zone, kind, temperature, warm, hot }
    }
}

impl From<Target> for TargetView {
    fn from(target: Target) -> Self {
        Self {
            width: target.size.map(|size| size.0),
            height: target.size.map(|size| size.1),
            frame_rate: target.frame_rate,
            codec: target.codec.map(|codec| codec.name().to_owned()),
            bitrate: target.bitrate,
            gop: target.gop,
        }
    }
}

impl From<CaptureError> for Fault {
    fn from(error: CaptureError) -> Self {
        let kind = match &error {
            CaptureError::NoLens(_) | CaptureError::NoDevice(_) => Kind::NotFound,
            CaptureError::NotNow { .. } | CaptureError::Taken { .. } | CaptureError::InFile(_) => Kind::Conflict,
            CaptureError::Settings { .. } => Kind::BadRequest,
            CaptureError::NotDurable(_) => Kind::Storage,
        };
        Self::new(kind, error.to_string())
    }
}
