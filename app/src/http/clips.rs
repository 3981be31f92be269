//! Clips: ExtractClip by segment and by lens, GetClip.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::segments::GapView;

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
    /// The file on the daemon's disk, absolute.
    pub path: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// `exact` or `gop`.
    pub edges: String,
    /// What was asked for.
    pub asked: SpanView,
    /// What a player shows.
    pub shown: SpanView,
    /// What the file holds: whole groups of pictures.
    pub payload: SpanView,
    /// Gaps inside the shown span.
    pub gaps: Vec<GapView>,
    /// Says that payload outside the shown span remains in the file, if there is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}
