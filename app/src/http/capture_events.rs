//! The stream of changes of the lenses: GetCaptureEvents.

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
use super::routes::Routes;
use crate::archive::Mapping;
use crate::capture::{LensChange, LensStatus};
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

pub(super) fn routes(routes: &mut Routes) {
    routes.get("/v1/capture/events", get_capture_events);
}

/// Follows the lenses: server-sent events named `lens`. First the present state of each, then every change. Whoever is too
/// slow to hear all is told the present states again.
#[utoipa::path(get, path = "/v1/capture/events", operation_id = "GetCaptureEvents", tag = "capture",
    responses((status = 200, content_type = "text/event-stream", body = CaptureChange), (status = "4XX", body = ErrorBody)))]
pub(super) async fn get_capture_events(
    State(services): State<Arc<Services>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let (tell, told) = mpsc::channel(1);
    tokio::spawn(async move {
        let present = |lenses: Vec<LensStatus>| {
            let mapping = services.archive.mapping();
            lenses.iter().map(|lens| CaptureChange::present(lens, &mapping)).collect::<Vec<_>>()
        };
        let (lenses, mut changes) = services.capture.follow();
        let mut next = present(lenses);
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
                Ok(change) => next.push(CaptureChange::of(&change, &services.archive.mapping())),
                Err(RecvError::Lagged(_)) => {
                    let (lenses, anew) = services.capture.follow();
                    (next, changes) = (present(lenses), anew);
                }
                Err(RecvError::Closed) => return,
            }
        }
    });
    let events = ReceiverStream::new(told);
    let events = events.map(|change| Ok(Event::default().event("lens").json_data(&change).unwrap_or_default()));
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
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
