//! Clips: ExtractClip by segment and by lens, GetClip, GetClipFile.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use mos_hal::clock::UtcMicros;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Services;
use super::extract::{Body, Id};
use super::fault::Fault;
use super::file;
use super::routes::Routes;
use super::segments::{GapView, blocking, lens_id, segment_id};
use crate::archive::Window;
use crate::clip::{Clip, ClipFailure, Edges};
use crate::error::ErrorBody;

/// A half-open span of UTC time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SpanView {
    /// First moment, UTC microseconds.
    pub start_ts: i64,
    /// First moment after it, UTC microseconds.
    pub end_ts: i64,
}

/// A clip that was cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClipView {
    /// Its id.
    pub id: String,
    /// The lens.
    pub lens: String,
    /// The file on the daemon's disk, absolute; it can be uploaded as it is.
    pub path: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Pictures that are shown.
    pub frames: u32,
    /// `exact` or `gop`.
    pub edges: String,
    /// What was asked for.
    pub asked: SpanView,
    /// What a player shows.
    pub shown: SpanView,
    /// What the file holds: whole groups of pictures.
    pub payload: SpanView,
    /// Gaps inside the asked span.
    pub gaps: Vec<GapView>,
    /// Says that payload outside the shown span remains in the file, if there is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What the edges of a clip are.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum EdgesAsked {
    /// An edit list shows exactly the asked frames.
    #[default]
    Exact,
    /// Whole groups of pictures are shown.
    Gop,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ClipOfSegment {
    /// Seconds from the segment's start.
    start_offset: f64,
    /// Seconds from the segment's start, exclusive; beyond the segment's end it means its end.
    end_offset: f64,
    /// `exact` if left out.
    #[serde(default)]
    edges: EdgesAsked,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ClipOfLens {
    /// UTC microseconds.
    start_ts: i64,
    /// UTC microseconds, exclusive.
    end_ts: i64,
    /// `exact` if left out.
    #[serde(default)]
    edges: EdgesAsked,
}

pub(super) fn routes(routes: &mut Routes) {
    routes.post("/v1/segments/{id}/clip", extract_clip);
    routes.post("/v1/lenses/{lens}/clip", extract_clip_of_lens);
    routes.get("/v1/clips/{id}", get_clip);
    routes.get("/v1/clips/{id}/file", get_clip_file);
}

/// Cuts a clip out of a segment, without decoding. It is durable when this answers.
#[utoipa::path(post, path = "/v1/segments/{id}/clip", operation_id = "ExtractClip", tag = "clips",
    params(("id" = String, Path, description = "The segment")), request_body = ClipOfSegment,
    responses((status = 200, body = ClipView), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn extract_clip(
    State(services): State<Arc<Services>>,
    Id(id): Id,
    Body(asked): Body<ClipOfSegment>,
) -> Result<Json<ClipView>, Fault> {
    let id = segment_id(&id)?;
    let (start, end) = (asked.start_offset, asked.end_offset);
    let cut = blocking(move || {
        let clip = services.clips.by_segment(&id, start, end, asked.edges.into())?;
        Ok::<_, ClipFailure>(ClipView::of(&services, &clip))
    });
    Ok(Json(cut.await??))
}

/// Cuts a clip out of what a lens recorded, across segments and gaps.
#[utoipa::path(post, path = "/v1/lenses/{lens}/clip", operation_id = "ExtractClipOfLens", tag = "clips",
    params(("lens" = String, Path, description = "The lens")), request_body = ClipOfLens,
    responses((status = 200, body = ClipView), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn extract_clip_of_lens(
    State(services): State<Arc<Services>>,
    Id(lens): Id,
    Body(asked): Body<ClipOfLens>,
) -> Result<Json<ClipView>, Fault> {
    let lens = lens_id(&lens)?;
    let window = Window { from: UtcMicros(asked.start_ts), to: UtcMicros(asked.end_ts) };
    let cut = blocking(move || {
        let known = services.capture.status().iter().any(|status| status.lens == lens)
            || !services.archive.catalog().segments(Some(&lens), Window::ALL, 0, 1).is_empty();
        if !known {
            return Err(Fault::absent("lens", lens.as_str()));
        }
        let clip = services.clips.by_lens(&lens, window, asked.edges.into())?;
        Ok(ClipView::of(&services, &clip))
    });
    Ok(Json(cut.await??))
}

/// What is known about a clip.
#[utoipa::path(get, path = "/v1/clips/{id}", operation_id = "GetClip", tag = "clips",
    params(("id" = String, Path, description = "The clip")),
    responses((status = 200, body = ClipView), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn get_clip(State(services): State<Arc<Services>>, Id(id): Id) -> Result<Json<ClipView>, Fault> {
    let found = blocking(move || {
        let clip = services.clips.get(&id)?;
        Ok::<_, ClipFailure>(ClipView::of(&services, &clip))
    });
    Ok(Json(found.await??))
}

/// The clip itself.
#[utoipa::path(get, path = "/v1/clips/{id}/file", operation_id = "GetClipFile", tag = "clips",
    params(("id" = String, Path, description = "The clip")),
    responses((status = 200, content_type = "video/mp4"), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn get_clip_file(State(services): State<Arc<Services>>, Id(id): Id) -> Result<Response, Fault> {
    let found = blocking(move || {
        let clip = services.clips.get(&id)?;
        file::open(&services, &clip.path)
    });
    Ok(found.await??.response("video/mp4"))
}

impl From<EdgesAsked> for Edges {
    fn from(asked: EdgesAsked) -> Self {
        match asked {
            EdgesAsked::Exact => Self::Exact,
            EdgesAsked::Gop => Self::Gop,
        }
    }
}

impl ClipView {
    fn of(services: &Services, clip: &Clip) -> Self {
        let span = |window: Window| SpanView { start_ts: window.from.0, end_ts: window.to.0 };
        let edges = match clip.edges {
            Edges::Exact => "exact",
            Edges::Gop => "gop",
        };
        Self {
            id: clip.id.to_string(),
            lens: clip.lens.to_string(),
            path: services.root.join(&clip.path).display().to_string(),
            bytes: clip.bytes,
            frames: clip.frames,
            edges: edges.to_owned(),
            asked: span(clip.asked),
            shown: span(clip.shown),
            payload: span(clip.payload),
            gaps: clip.gaps.iter().map(GapView::of).collect(),
            note: clip.note().map(str::to_owned),
        }
    }
}

impl From<ClipFailure> for Fault {
    fn from(failure: ClipFailure) -> Self {
        if let ClipFailure::Archive(error) = failure {
            return error.into();
        }
        let mut fault = Self::new(failure.kind(), failure.to_string());
        fault.0.split_points = failure.split_points().to_vec();
        fault
    }
}
