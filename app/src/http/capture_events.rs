//! The stream of changes of lenses and devices: GetCaptureEvents.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use utoipa::ToSchema;

use super::Services;
use super::capture_control::DegradedView;
use super::routes::Routes;
use super::segments::blocking;
use crate::archive::Mapping;
use crate::capture::{LensChange, LensStatus, News};
use crate::error::ErrorBody;

const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A lens came into a state, or is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CaptureChange {
    /// The lens.
    pub lens: String,
    /// The state that it was in; absent where the present state is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The state that it is in.
    pub state: String,
    /// Why it does not deliver, as in the gap's cause; absent while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Since when, UTC microseconds.
    pub at_ts: i64,
}

/// The recorder went from one state between ignition and parking to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PowerChange {
    /// The state that it was in.
    pub from: String,
    /// The state that it is in.
    pub state: String,
    /// `ignition_on`, `ignition_off`, `wake_line`, `api`, `park` or `run_out`.
    pub by: String,
    /// When, UTC microseconds.
    pub at_ts: i64,
}

/// The first keyframe of a lens that was woken is durable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LensWoken {
    /// The lens.
    pub lens: String,
    /// What woke it.
    pub by: String,
    /// Seconds from the wake until then.
    pub keyframe_seconds: f64,
    /// When it was durable, UTC microseconds.
    pub at_ts: i64,
}

/// A lens gives way to others, further or less far than before, or not any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(super) struct LensDegraded {
    /// The lens.
    pub lens: String,
    /// How far; absent if it does not give way any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<DegradedView>,
    /// When, UTC microseconds.
    pub at_ts: i64,
}

/// A lens was taken out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LensRemoved {
    /// The lens.
    pub lens: String,
    /// When, UTC microseconds.
    pub at_ts: i64,
}

/// A camera reported something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CameraEvent {
    /// The lens.
    pub lens: String,
    /// `motion`, `digital_input` or `tamper`.
    pub event: String,
    /// Whether it began; `false` where it is over.
    pub active: bool,
    /// When it was heard of, UTC microseconds.
    pub at_ts: i64,
}

/// Devices came or went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DevicesChange {
    /// When, UTC microseconds.
    pub at_ts: i64,
}

pub(super) fn routes(routes: &mut Routes) {
    routes.get("/v1/capture/events", get_capture_events);
}

/// Follows the lenses: server-sent events named `lens`. First the present state of each, then every change. Whoever is too
/// slow to hear all is told the present states again. An event `removed` says that a lens which had been added was taken out,
/// `devices` that devices came or went (ListDevices tells which), `power` that the recorder went from one state between ignition
/// and parking to another, `degraded` that a lens gives way to heat or to the limits of the encoder, `woken` how long the first
/// durable keyframe of a lens took after that, `camera` that a camera reported an event which protects footage, or its end.
#[utoipa::path(get, path = "/v1/capture/events", operation_id = "GetCaptureEvents", tag = "capture",
    responses((status = 200, content_type = "text/event-stream", body = CaptureChange), (status = "4XX", body = ErrorBody)))]
pub(super) async fn get_capture_events(
    State(services): State<Arc<Services>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let (tell, told) = mpsc::channel(1);
    tokio::spawn(async move {
        // A lens may be held by an operation that waits for a device.
        let begin = async || {
            let services = services.clone();
            blocking(move || {
                let (lenses, changes) = services.capture.follow();
                let mapping = services.archive.mapping();
                let present: Vec<Event> =
                    lenses.iter().map(|lens| event("lens", &CaptureChange::present(lens, &mapping))).collect();
                (present, changes)
            })
            .await
        };
        let Ok((mut next, mut changes)) = begin().await else { return };
        loop {
            for change in next.drain(..) {
                if tell.send(change).await.is_err() {
                    return;
                }
            }
            let change = tokio::select! {
                change = changes.recv() => change,
                () = tell.closed() => return,
            };
            match change {
                Ok(news) => next.push(told_as(&news, &services.archive.mapping())),
                Err(RecvError::Lagged(_)) => match begin().await {
                    Ok(anew) => (next, changes) = anew,
                    Err(_) => return,
                },
                Err(RecvError::Closed) => return,
            }
        }
    });
    Sse::new(ReceiverStream::new(told).map(Ok)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

fn event(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).json_data(data).unwrap_or_default()
}

fn told_as(news: &News, mapping: &Mapping) -> Event {
    match news {
        News::Lens(change) => event("lens", &CaptureChange::of(change, mapping)),
        News::Removed { lens, at } => {
            event("removed", &LensRemoved { lens: lens.to_string(), at_ts: mapping.utc_of(*at).0 })
        }
        News::Degraded { lens, degraded, at } => event(
            "degraded",
            &LensDegraded {
                lens: lens.to_string(),
                degraded: degraded.as_ref().map(|degraded| DegradedView::of(degraded, mapping)),
                at_ts: mapping.utc_of(*at).0,
            },
        ),
        News::Power { from, to, by, at } => event(
            "power",
            &PowerChange {
                from: from.name().to_owned(),
                state: to.name().to_owned(),
                by: by.name().to_owned(),
                at_ts: mapping.utc_of(*at).0,
            },
        ),
        News::Woken { lens, by, took, at } => event(
            "woken",
            &LensWoken {
                lens: lens.to_string(),
                by: by.name().to_owned(),
                keyframe_seconds: took.as_secs_f64(),
                at_ts: mapping.utc_of(*at).0,
            },
        ),
        News::Camera { lens, event: kind, active, at } => event(
            "camera",
            &CameraEvent {
                lens: lens.to_string(),
                event: kind.name().to_owned(),
                active: *active,
                at_ts: mapping.utc_of(*at).0,
            },
        ),
        News::Devices(at) => event("devices", &DevicesChange { at_ts: mapping.utc_of(*at).0 }),
    }
}

impl CaptureChange {
    fn present(lens: &LensStatus, mapping: &Mapping) -> Self {
        Self {
            lens: lens.lens.to_string(),
            from: None,
            state: lens.state.name().to_owned(),
            cause: lens.cause.map(|cause| cause.name().to_owned()),
            detail: lens.cause.and(lens.last_error.as_ref()).map(|(text, _)| text.clone()),
            at_ts: mapping.utc_of(lens.since).0,
        }
    }

    fn of(change: &LensChange, mapping: &Mapping) -> Self {
        Self {
            lens: change.lens.to_string(),
            from: Some(change.from.name().to_owned()),
            state: change.to.name().to_owned(),
            cause: change.cause.map(|cause| cause.name().to_owned()),
            detail: change.detail.clone(),
            at_ts: mapping.utc_of(change.at).0,
        }
    }
}
