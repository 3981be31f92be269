//! Uploads: Upload, ListUploads, GetUpload, GetUploadEvents, RetryUpload, CancelUpload.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use utoipa::ToSchema;

use super::Services;
use super::extract::{Body, Id};
use super::fault::Fault;
use super::routes::Routes;
use super::segments::blocking;
use crate::error::{ErrorBody, Kind};
use crate::upload::failure::Refused;
use crate::upload::job::{Job, JobId};
use crate::upload::queue::{RetryRequest, Submitted, UploadRequest};

/// How often a silent stream of events shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn routes(routes: &mut Routes) {
    routes.post("/v1/uploads", upload);
    routes.get("/v1/uploads", list_uploads);
    routes.get("/v1/uploads/{id}", get_upload);
    routes.delete("/v1/uploads/{id}", cancel_upload);
    routes.post("/v1/uploads/{id}/retry", retry_upload);
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

/// All uploads that are remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UploadList {
    /// The oldest first. Those that are over are remembered for a while.
    pub uploads: Vec<Job>,
}

/// Lists the uploads: those that wait, run or have failed, and the newest that are over.
#[utoipa::path(get, path = "/v1/uploads", operation_id = "ListUploads", tag = "uploads",
    responses((status = 200, body = UploadList)))]
pub(super) async fn list_uploads(State(services): State<Arc<Services>>) -> Json<UploadList> {
    Json(UploadList { uploads: services.uploads.list() })
}

/// Where an upload stands.
#[utoipa::path(get, path = "/v1/uploads/{id}", operation_id = "GetUpload", tag = "uploads",
    params(("id" = String, Path, description = "The upload")),
    responses((status = 200, body = Job), (status = "4XX", body = ErrorBody)))]
pub(super) async fn get_upload(State(services): State<Arc<Services>>, Id(id): Id) -> Result<Json<Job>, Fault> {
    services.uploads.get(&JobId(id.clone())).map(Json).ok_or_else(|| Fault::absent("upload", &id))
}

/// Calls an upload off and lets go of its file. What already lies under its final name at the server stays there.
#[utoipa::path(delete, path = "/v1/uploads/{id}", operation_id = "CancelUpload", tag = "uploads",
    params(("id" = String, Path, description = "The upload")),
    responses((status = 200, body = Job), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn cancel_upload(State(services): State<Arc<Services>>, Id(id): Id) -> Result<Json<Job>, Fault> {
    Ok(Json(blocking(move || services.uploads.cancel(&JobId(id))).await??))
}

/// Tries an upload that waits or has failed again at once; with a new credential if one is given.
#[utoipa::path(post, path = "/v1/uploads/{id}/retry", operation_id = "RetryUpload", tag = "uploads",
    params(("id" = String, Path, description = "The upload")), request_body = Option<RetryRequest>,
    responses((status = 200, body = Job), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn retry_upload(
    State(services): State<Arc<Services>>,
    Id(id): Id,
    request: Option<Body<RetryRequest>>,
) -> Result<Json<Job>, Fault> {
    let request = request.map(|Body(request)| request).unwrap_or_default();
    Ok(Json(blocking(move || services.uploads.retry(&JobId(id), &request)).await??))
}

/// Follows an upload: server-sent events, each the state as GetUpload shows it. Ends with `done`, `cancelled`, or `failed`
/// without a next try.
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
            | Refused::Options(_)
            | Refused::SameName { .. } => Kind::BadRequest,
            Refused::Over { .. } | Refused::Running { .. } => Kind::Conflict,
            Refused::NotDurable(_) => Kind::Storage,
            Refused::Path { .. } => Kind::Forbidden,
            Refused::NotFound { .. } | Refused::NoJob { .. } => Kind::NotFound,
            Refused::Open { .. } | Refused::Unfinished { .. } => Kind::Open,
            Refused::StillListing { .. } => Kind::NotReady,
            Refused::QueueFull { .. } | Refused::Stopping => Kind::Busy,
        };
        Self::new(kind, refused.to_string())
    }
}
