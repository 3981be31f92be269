//! Ignition and parking: GetPower, WakeCapture, ParkCapture.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Services;
use super::fault::Fault;
use super::routes::Routes;
use super::segments::blocking;
use crate::archive::Mapping;
use crate::error::ErrorBody;
use crate::power::{Power, PowerState, PowerStatus, Wake};

/// Where the recorder stands between ignition and parking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PowerView {
    /// `ignition`, `run_out` or `parking`.
    pub state: String,
    /// Since when, UTC microseconds.
    pub since_ts: i64,
    /// When the timer has run out, UTC microseconds; in `run_out` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ts: Option<i64>,
    /// How often it was woken from parking since the daemon started.
    pub wakes: u64,
    /// The last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_wake: Option<WakeView>,
}

/// A wake and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WakeView {
    /// `wake_line`, `ignition_on` or `api`.
    pub by: String,
    /// When, UTC microseconds.
    pub at_ts: i64,
    /// Seconds from the wake until the first keyframe of any lens was durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_keyframe_seconds: Option<f64>,
    /// The same, lens by lens.
    pub keyframe_seconds: BTreeMap<String, f64>,
    /// Lenses that were started and have nothing durable yet.
    pub waiting: Vec<String>,
}

pub(super) fn routes(routes: &mut Routes) {
    routes.get("/v1/capture/power", get_power);
    routes.post("/v1/capture/wake", wake_capture);
    routes.post("/v1/capture/park", park_capture);
}

/// Where the recorder stands between ignition and parking, and how fast it came back last.
#[utoipa::path(get, path = "/v1/capture/power", operation_id = "GetPower", tag = "capture",
    responses((status = 200, body = PowerView), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn get_power(State(services): State<Arc<Services>>) -> Result<Json<PowerView>, Fault> {
    answer(services, Power::status).await
}

/// Brings a parked recorder back to the lenses of the ignition: for `power.run_out` where the ignition is off, and while that
/// timer runs it begins anew; for good where the ignition is on or there is no ignition line. Changes nothing if nothing sleeps.
#[utoipa::path(post, path = "/v1/capture/wake", operation_id = "WakeCapture", tag = "capture",
    responses((status = 200, body = PowerView), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn wake_capture(State(services): State<Arc<Services>>) -> Result<Json<PowerView>, Fault> {
    answer(services, Power::wake).await
}

/// Parks the recorder at once: only the lenses of `power.parking_lenses` are recorded until it is woken or the ignition goes on.
/// What the others miss is a gap `capture_stopped`.
#[utoipa::path(post, path = "/v1/capture/park", operation_id = "ParkCapture", tag = "capture",
    responses((status = 200, body = PowerView), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn park_capture(State(services): State<Arc<Services>>) -> Result<Json<PowerView>, Fault> {
    answer(services, Power::park).await
}

async fn answer(services: Arc<Services>, operation: fn(&Power) -> PowerStatus) -> Result<Json<PowerView>, Fault> {
    // Lenses and the disk may be waited for.
    let view = blocking(move || PowerView::of(&operation(&services.power), &services.archive.mapping()));
    Ok(Json(view.await?))
}

impl PowerView {
    fn of(status: &PowerStatus, mapping: &Mapping) -> Self {
        Self {
            state: status.state.name().to_owned(),
            since_ts: mapping.utc_of(status.since).0,
            until_ts: status.until.map(|until| mapping.utc_of(until).0),
            wakes: status.wakes,
            last_wake: status.last_wake.as_ref().map(|wake| WakeView::of(wake, mapping)),
        }
    }
}

impl WakeView {
    fn of(wake: &Wake, mapping: &Mapping) -> Self {
        Self {
            by: wake.by.name().to_owned(),
            at_ts: mapping.utc_of(wake.at).0,
            first_keyframe_seconds: wake.first().map(|took| took.as_secs_f64()),
            keyframe_seconds: wake.took.iter().map(|(lens, took)| (lens.to_string(), took.as_secs_f64())).collect(),
            waiting: wake.waiting.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Figures for Prometheus.
pub(super) fn encode(status: &PowerStatus, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "1 for the state between ignition and parking that the recorder is in";
    let mut metric = encoder.encode_descriptor("power_state", help, None, MetricType::Gauge)?;
    for state in PowerState::ALL {
        metric.encode_family(&[("state", state.name())])?.encode_gauge(&i64::from(status.state == state))?;
    }
    let help = "How often the recorder was woken from parking";
    let mut metric = encoder.encode_descriptor("wakes", help, None, MetricType::Counter)?;
    metric.encode_counter::<[(&str, &str); 0], _, u64>(&status.wakes, None)?;
    let help = "From the last wake until the lens's first keyframe was durable";
    let mut metric = encoder.encode_descriptor("wake_to_durable_seconds", help, None, MetricType::Gauge)?;
    for (lens, took) in status.last_wake.iter().flat_map(|wake| &wake.took) {
        metric.encode_family(&[("lens", lens.as_str())])?.encode_gauge(&took.as_secs_f64())?;
    }
    Ok(())
}
