//! Pictures: Snapshot, GetSnapshot.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
