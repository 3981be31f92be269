//! Stored segments: GetSegments, Protect, Unprotect, Remove.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use mos_hal::clock::UtcMicros;
use mos_hal::media::LensId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Services;
use super::extract::{Body, Id, Params};
use super::fault::Fault;
use super::routes::Routes;
use crate::access::Caller;
use crate::archive::ids::SegmentId;
use crate::archive::{ArchiveError, GapRow, KeepNote, SegmentRow, Window};
use crate::error::{ErrorBody, Kind};

/// Segments on a page unless asked otherwise.
const PAGE: usize = 1000;
/// Most segments on a page.
const MAX_PAGE: usize = 10_000;
/// Longest texts of a protection, in bytes.
const MAX_NOTE: usize = 1000;

/// A stored segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SegmentView {
    /// `{lens}-{run}-{seq}`, stable for ever.
    #[schema(example = "road-7-12")]
    pub id: String,
    /// The lens.
    pub lens: String,
    /// Capture time of the first frame, UTC microseconds.
    pub start_ts: i64,
    /// Where the last durable frame ends, UTC microseconds, exclusive.
    pub end_ts: i64,
    /// Durable bytes of the file.
    pub bytes: u64,
    /// Durable video frames.
    pub frames: u32,
    /// `h264` or `h265`; null if this version cannot tell.
    pub codec: Option<String>,
    /// Displayed width in pixels.
    pub width: u32,
    /// Displayed height in pixels.
    pub height: u32,
    /// `open`, `closed`, `recovered` (closed by a start after a power cut or crash), `unfinished` (given up after an error of the
    /// disk; the next start closes what is intact of it) or `newer` (of a newer version).
    pub state: String,
    /// Whether it is protected from removal and retention.
    pub protected: bool,
    /// The file on the daemon's disk, absolute.
    pub path: String,
}

/// An accounted absence. Where there are very many, those of one cause that lie near one another are joined after a while: then
/// pictures are missing in it, and others are there, in segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GapView {
    /// The lens.
    pub lens: String,
    /// Start, UTC microseconds.
    pub start_ts: i64,
    /// End, UTC microseconds, exclusive.
    pub end_ts: i64,
    /// Why, e.g. `camera_absent`, `power_loss`, `disk_slow`.
    pub cause: String,
}

/// A page of GetSegments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SegmentPage {
    /// Segments that overlap the window, ordered by start.
    pub segments: Vec<SegmentView>,
    /// Gaps of the span that this page covers, ordered by start.
    pub gaps: Vec<GapView>,
    /// True while segments of earlier runs are still being listed after a start, so that some may be missing here; absent
    /// when everything is listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub listing: bool,
    /// True while segments that an earlier run could not close are still being recovered after a start: of their time there may be
    /// neither a segment nor a gap here yet. Absent when that is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovering: bool,
    /// True if something that earlier runs left could not be read at this start: it may be missing here, and GetHealth says what and
    /// why. The next start tries again. Absent otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
    /// To be sent as `cursor` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A protection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProtectionView {
    /// The segment.
    pub id: String,
    /// Whether it is protected now.
    pub protected: bool,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Since when, UTC microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ts: Option<i64>,
}

/// Why a segment is protected. Both may be left out.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ProtectRequest {
    /// On whose behalf; by default the caller's user id or `token`.
    who: Option<String>,
    /// The reason, for people.
    why: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SegmentQuery {
    /// Only this lens; all lenses if left out.
    lens: Option<String>,
    /// Only what ends after this, UTC microseconds.
    start_ts: Option<i64>,
    /// Only what starts before this, UTC microseconds.
    end_ts: Option<i64>,
    /// Most segments on the page, 1 to 10,000; 1,000 if left out.
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    pub(super) cursor: Option<String>,
}

/// The last segment of the page before.
pub(super) struct Cursor {
    start: UtcMicros,
    id: SegmentId,
}

pub(super) fn routes(routes: &mut Routes) {
    routes.get("/v1/segments", get_segments);
    routes.delete("/v1/segments/{id}", remove);
    routes.put("/v1/segments/{id}/protection", protect);
    routes.delete("/v1/segments/{id}/protection", unprotect);
}

/// Stored segments of a span of time with the gaps in it.
#[utoipa::path(get, path = "/v1/segments", operation_id = "GetSegments", tag = "segments", params(SegmentQuery),
    responses((status = 200, body = SegmentPage), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn get_segments(
    State(services): State<Arc<Services>>,
    Params(query): Params<SegmentQuery>,
) -> Result<Json<SegmentPage>, Fault> {
    let lens = query.lens.as_deref().map(lens_id).transpose()?;
    let from = UtcMicros(query.start_ts.unwrap_or(i64::MIN));
    let to = UtcMicros(query.end_ts.unwrap_or(i64::MAX));
    if from >= to {
        return Err(Fault::bad("start_ts must be before end_ts"));
    }
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Fault::bad(format!("limit must be from 1 to {MAX_PAGE}")));
    }
    let cursor = query.cursor.as_deref().map(Cursor::read).transpose()?;
    let window = Window { from: cursor.as_ref().map_or(from, |c| from.max(c.start)), to };
    Ok(Json(page(&services, lens.as_ref(), window, limit, cursor.as_ref())))
}

/// Segments of one lens do not overlap, so what overlaps the start of a page but belongs to the one before is one segment
/// per lens: they come first and are skipped.
fn page(
    services: &Services,
    lens: Option<&LensId>,
    window: Window,
    limit: usize,
    cursor: Option<&Cursor>,
) -> SegmentPage {
    // Asked first: what is complete now stays so while the rows are read.
    let health = services.archive.health();
    let catalog = services.archive.catalog();
    let mut rows = catalog.segments(lens, window, 0, limit + 1);
    if let Some(cursor) = cursor {
        let seen = |row: &SegmentRow| (row.start_ts, &row.row.id) <= (cursor.start, &cursor.id);
        let skipped = rows.iter().take_while(|row| seen(row)).count();
        rows.drain(..skipped);
        if skipped > 0 {
            rows.extend(catalog.segments(lens, window, limit + 1, skipped));
        }
    }
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = if more { rows.last() } else { None };
    let until = last.map_or(window.to, |row| row.start_ts);
    let gaps = catalog.gaps(lens, window);
    let own = |gap: &GapRow| gap.start_ts < until && (cursor.is_none() || gap.start_ts >= window.from);
    SegmentPage {
        listing: !health.listed,
        recovering: !health.loaded,
        unreadable: health.incomplete || !health.unreadable.is_empty(),
        gaps: gaps.iter().filter(|gap| own(gap)).map(GapView::of).collect(),
        next_cursor: last.map(|row| format!("{}:{}", row.start_ts, row.row.id)),
        segments: rows.iter().map(|row| SegmentView::of(services, row)).collect(),
    }
}

/// Protects a segment. Has survived a power cut when it answers; repeating it changes nothing. Refused with
/// `protected_quota` (507) when the protected segments would take more than may be protected.
#[utoipa::path(put, path = "/v1/segments/{id}/protection", operation_id = "Protect", tag = "segments",
    params(("id" = String, Path, description = "The segment")), request_body(content = Option<ProtectRequest>),
    responses((status = 200, body = ProtectionView), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn protect(
    State(services): State<Arc<Services>>,
    Extension(caller): Extension<Arc<Caller>>,
    Id(id): Id,
    body: Option<Body<ProtectRequest>>,
) -> Result<Json<ProtectionView>, Fault> {
    let id = segment_id(&id)?;
    let request = body.map(|Body(request)| request).unwrap_or_default();
    let note = KeepNote { who: request.who.unwrap_or_else(|| caller.to_string()), why: request.why };
    if note.who.len() > MAX_NOTE || note.why.len() > MAX_NOTE {
        return Err(Fault::bad(format!("who and why may have {MAX_NOTE} bytes each")));
    }
    let kept = {
        let id = id.clone();
        blocking(move || services.archive.keep(&id, &note)).await??
    };
    Ok(Json(ProtectionView {
        id: id.to_string(),
        protected: true,
        who: Some(kept.who),
        why: Some(kept.why),
        since_ts: Some(kept.when_ts),
    }))
}

/// Lifts a protection. Repeating it changes nothing.
#[utoipa::path(delete, path = "/v1/segments/{id}/protection", operation_id = "Unprotect", tag = "segments",
    params(("id" = String, Path, description = "The segment")),
    responses((status = 200, body = ProtectionView), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn unprotect(
    State(services): State<Arc<Services>>,
    Id(id): Id,
) -> Result<Json<ProtectionView>, Fault> {
    let id = segment_id(&id)?;
    let of_archive = id.clone();
    blocking(move || services.archive.unkeep(&of_archive)).await??;
    Ok(Json(ProtectionView { id: id.to_string(), protected: false, who: None, why: None, since_ts: None }))
}

/// Removes a segment for good. Refused while it is protected or open; waits while a clip, snapshot or upload uses it.
#[utoipa::path(delete, path = "/v1/segments/{id}", operation_id = "Remove", tag = "segments",
    params(("id" = String, Path, description = "The segment")),
    responses((status = 204, description = "It is gone"), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn remove(State(services): State<Arc<Services>>, Id(id): Id) -> Result<StatusCode, Fault> {
    let id = segment_id(&id)?;
    blocking(move || services.archive.remove(&id)).await??;
    Ok(StatusCode::NO_CONTENT)
}

impl SegmentView {
    fn of(services: &Services, found: &SegmentRow) -> Self {
        let row = &found.row;
        Self {
            id: row.id.to_string(),
            lens: row.id.lens.to_string(),
            start_ts: found.start_ts.0,
            end_ts: found.end_ts.0,
            bytes: row.bytes,
            frames: row.frames,
            codec: row.codec.map(|codec| codec.name().to_owned()),
            width: row.width,
            height: row.height,
            state: row.state.name().to_owned(),
            protected: row.protected,
            path: services.root.join(found.path()).display().to_string(),
        }
    }
}

impl GapView {
    pub(super) fn of(gap: &GapRow) -> Self {
        Self {
            lens: gap.lens.to_string(),
            start_ts: gap.start_ts.0,
            end_ts: gap.end_ts.0,
            cause: gap.cause.name().to_owned(),
        }
    }
}

impl Cursor {
    pub(super) fn read(text: &str) -> Result<Self, Fault> {
        let parts = text.split_once(':').and_then(|(start, id)| Some((start.parse().ok()?, id.parse().ok()?)));
        let (start, id) = parts.ok_or_else(|| Fault::bad("cursor must be the next_cursor of another page"))?;
        Ok(Self { start: UtcMicros(start), id })
    }
}

/// Runs what waits for the disk beside the threads that serve.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Fault::internal("the operation", e))
}

pub(super) fn lens_id(text: &str) -> Result<LensId, Fault> {
    LensId::new(text).map_err(|e| Fault::bad(e.to_string()))
}

pub(super) fn segment_id(text: &str) -> Result<SegmentId, Fault> {
    text.parse().map_err(|e: crate::archive::ids::BadSegmentId| Fault::bad(e.to_string()))
}

impl From<ArchiveError> for Fault {
    fn from(error: ArchiveError) -> Self {
        let kind = match &error {
            ArchiveError::NotFound(_) => Kind::NotFound,
            ArchiveError::StillListing(_) => Kind::NotReady,
            ArchiveError::Protected(_) => Kind::Protected,
            ArchiveError::ProtectedQuota { .. } => Kind::ProtectedQuota,
            ArchiveError::StillOpen(_) | ArchiveError::Unfinished(_) => Kind::Open,
            ArchiveError::InUse(_) | ArchiveError::Stopping => Kind::Busy,
            ArchiveError::Outside(_) => Kind::Forbidden,
            ArchiveError::Frozen(_) | ArchiveError::Damaged { .. } | ArchiveError::Io { .. } => Kind::Storage,
            ArchiveError::Locked(_) | ArchiveError::Index(_) => return Self::internal("the archive", error),
        };
        Self::new(kind, error.to_string())
    }
}
