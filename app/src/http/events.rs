//! The stream of alarms: GetEvents.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};

use super::Services;
use super::routes::Routes;
use crate::alarms::Alarm;
use crate::error::ErrorBody;

const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn routes(routes: &mut Routes) {
    routes.get("/v1/events", get_events);
}

/// Follows the alarms: server-sent events named `alarm`. First those that are raised now, then every change. Whoever is
/// too slow to hear all is told the present state again.
#[utoipa::path(get, path = "/v1/events", operation_id = "GetEvents", tag = "health",
    responses((status = 200, content_type = "text/event-stream", body = Alarm), (status = "4XX", body = ErrorBody)))]
pub(super) async fn get_events(
    State(services): State<Arc<Services>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let alarms = services.retention.alarms().clone();
    let (tell, told) = mpsc::channel(1);
    tokio::spawn(async move {
        let (mut next, mut changes) = alarms.follow();
        loop {
            for alarm in next.drain(..) {
                if tell.send(alarm).await.is_err() {
                    return;
                }
            }
            let change = tokio::select! {
                change = changes.recv() => change,
                () = tell.closed() => return,
            };
            match change {
                Ok(alarm) => next.push(alarm),
                Err(RecvError::Lagged(_)) => (next, changes) = alarms.follow(),
                Err(RecvError::Closed) => return,
            }
        }
    });
    let events = ReceiverStream::new(told);
    let events = events.map(|alarm| Ok(Event::default().event("alarm").json_data(&alarm).unwrap_or_default()));
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}
