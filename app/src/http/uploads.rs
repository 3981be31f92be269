//! Uploads: Upload, GetUpload, GetUploadEvents.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};

use super::Services;
use super::extract::{Body, Id};
use super::fault::Fault;
use super::routes::Routes;
use super::segments::blocking;
use crate::error::{ErrorBody, Kind};
use crate::upload::failure::Refused;
use crate::upload::job::{Job, JobId};
use crate::upload::queue::{Submitted, UploadRequest};

/// How often a silent stream of events shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn routes(routes: &mut Routes) {
    routes.post("/v1/uploads", upload);
    routes.get("/v1/uploads/{id}", get_upload);
    routes.get("/v1/uploads/{id}/events", get_upload_events);
}

/// Queues files of the archive for a destination: all of them or none. One job per path, in their order.
#[utoipa::path(post, path = "/v1/uploads", operation_id = "Upload", tag = "uploads", request_body = UploadRequest,
    responses((status = 202, body = Submitted), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn upload(
    State(services): State<Arc<Services>>,
    Body(request): Body<UploadRequest>,
) -> Result<(StatusCode, Json<Submitted>), Fault> {
    // Paths are opened and pinned, which may wait for the disk.
    let submitted = blocking(move || services.uploads.submit(&request)).await??;
    Ok((StatusCode::ACCEPTED, Json(submitted)))
}

/// Where an upload stands.
#[utoipa::path(get, path = "/v1/uploads/{id}", operation_id = "GetUpload", tag = "uploads",
    params(("id" = String, Path, description = "The upload")),
    responses((status = 200, body = Job), (status = "4XX", body = ErrorBody)))]
pub(super) async fn get_upload(State(services): State<Arc<Services>>, Id(id): Id) -> Result<Json<Job>, Fault> {
    services.uploads.get(&JobId(id.clone())).map(Json).ok_or_else(|| Fault::absent("upload", &id))
}

/// Follows an upload: server-sent events, each the state as GetUpload shows it. Ends with `done` or `failed`.
#[utoipa::path(get, path = "/v1/uploads/{id}/events", operation_id = "GetUploadEvents", tag = "uploads",
    params(("id" = String, Path, description = "The upload")),
    responses((status = 200, content_type = "text/event-stream", body = Job), (status = "4XX", body = ErrorBody)))]
pub(super) async fn get_upload_events(
    State(services): State<Arc<Services>>,
    Id(id): Id,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Fault> {
    let mut watched = services.uploads.watch(&JobId(id.clone())).ok_or_else(|| Fault::absent("upload", &id))?;
    let (tell, states) = mpsc::channel(1);
    // The queue keeps the job after its end, so the watch never closes by itself: the end of the job ends the stream.
    tokio::spawn(async move {
        loop {
            let job = watched.borrow_and_update().clone();
            let over = job.state.is_end();
            if tell.send(job).await.is_err() || over || watched.changed().await.is_err() {
                break;
            }
        }
    });
    let states = ReceiverStream::new(states);
    let events = states.map(|job| Ok(Event::default().json_data(&job).unwrap_or_default()));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        let kind = match &refused {
            Refused::Destination(_)
            | Refused::NoHostKey { .. }
            | Refused::HostKey(_)
            | Refused::Credential(_)
            | Refused::SameName { .. } => Kind::BadRequest,
            Refused::Path { .. } => Kind::Forbidden,
            Refused::NotFound { .. } => Kind::NotFound,
            Refused::Open { .. } => Kind::Open,
            Refused::QueueFull { .. } | Refused::Stopping => Kind::Busy,
        };
        Self::new(kind, refused.to_string())
    }
}
