//! Pictures: Snapshot, GetSnapshotFile.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use mos_hal::platform::JpegOptions;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Services;
use super::extract::{Body, Id};
use super::fault::Fault;
use super::file;
use super::routes::Routes;
use super::segments::{blocking, segment_id};
use crate::archive::SegmentRow;
use crate::error::ErrorBody;
use crate::snapshot::{DEFAULT_QUALITY, Snapshot, SnapshotFailure, SnapshotId};

/// A picture that was taken out of a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotView {
    /// Its id.
    pub id: String,
    /// The segment.
    pub segment: String,
    /// The file on the daemon's disk, absolute.
    pub path: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Capture time of the keyframe, UTC microseconds.
    pub ts: i64,
    /// Its offset from the segment's start, seconds.
    pub offset: f64,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SnapshotRequest {
    /// Seconds from the segment's start; the keyframe at or before it is taken.
    keyframe_offset: f64,
    /// 1 to 100; 90 if left out.
    quality: Option<u8>,
    /// Most pixels across; the picture is scaled down to fit, never up.
    width: Option<u32>,
    /// Most pixels down.
    height: Option<u32>,
}

pub(super) fn routes(routes: &mut Routes) {
    routes.post("/v1/segments/{id}/snapshot", snapshot);
    routes.get("/v1/snapshots/{id}/file", get_snapshot_file);
}

/// Takes a picture: the keyframe at or before a moment, as JPEG.
#[utoipa::path(post, path = "/v1/segments/{id}/snapshot", operation_id = "Snapshot", tag = "snapshots",
    params(("id" = String, Path, description = "The segment")), request_body = SnapshotRequest,
    responses((status = 200, body = SnapshotView), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn snapshot(
    State(services): State<Arc<Services>>,
    Id(id): Id,
    Body(asked): Body<SnapshotRequest>,
) -> Result<Json<SnapshotView>, Fault> {
    let id = segment_id(&id)?;
    let taken = blocking(move || {
        let max_edge = longest_edge(&services.archive.lookup(&id)?, asked.width, asked.height);
        let options = JpegOptions { quality: asked.quality.unwrap_or(DEFAULT_QUALITY), max_edge };
        let snapshot = services.snapshots.take(&id, asked.keyframe_offset, options)?;
        Ok::<_, SnapshotFailure>(SnapshotView::of(&services, &snapshot))
    });
    Ok(Json(taken.await??))
}

/// The picture itself.
#[utoipa::path(get, path = "/v1/snapshots/{id}/file", operation_id = "GetSnapshotFile", tag = "snapshots",
    params(("id" = String, Path, description = "The picture")),
    responses((status = 200, content_type = "image/jpeg"), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn get_snapshot_file(State(services): State<Arc<Services>>, Id(id): Id) -> Result<Response, Fault> {
    let path = SnapshotId::parse(&id).ok_or_else(|| Fault::absent("picture", &id))?.path();
    Ok(blocking(move || file::open(&services, &path)).await??.response("image/jpeg"))
}

/// The longest edge of a picture that fits into `width` × `height`; `None` leaves it as it is.
fn longest_edge(segment: &SegmentRow, width: Option<u32>, height: Option<u32>) -> Option<u32> {
    let (across, down) = (u64::from(segment.row.width), u64::from(segment.row.height));
    let long = across.max(down);
    let of = |most: Option<u32>, edge: u64| most.map(|most| (u64::from(most) * long).checked_div(edge).unwrap_or(0));
    let edge = match (of(width, across), of(height, down)) {
        (None, edge) | (edge, None) => edge?,
        (Some(a), Some(b)) => a.min(b),
    };
    (edge < long).then(|| u32::try_from(edge).unwrap_or(u32::MAX))
}

impl SnapshotView {
    fn of(services: &Services, snapshot: &Snapshot) -> Self {
        Self {
            id: snapshot.id.to_string(),
            segment: snapshot.segment.to_string(),
            path: services.root.join(&snapshot.path).display().to_string(),
            bytes: snapshot.bytes,
            width: snapshot.width,
            height: snapshot.height,
            ts: snapshot.ts.0,
            offset: snapshot.offset,
        }
    }
}

impl From<SnapshotFailure> for Fault {
    fn from(failure: SnapshotFailure) -> Self {
        match failure {
            SnapshotFailure::Archive(error) => error.into(),
            SnapshotFailure::Segment(failure) => failure.into(),
            other => Self::new(other.kind(), other.to_string()),
        }
    }
}
