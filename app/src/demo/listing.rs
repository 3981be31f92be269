//! The listing of segments as the API gives it, and questions to it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::DemoError;
use crate::archive::ids::SegmentId;
use crate::cli::client::{Client, ClientError};
use crate::http::{SegmentPage, SegmentView};

/// Whether the recorder answers already.
pub(super) async fn answers(client: &Client) -> Result<Option<()>, DemoError> {
    match client.get::<SegmentPage>("/v1/segments?limit=1").await {
        Ok(_) => Ok(Some(())),
        // Not there yet, or there but still loading.
        Err(ClientError::Unreachable { .. } | ClientError::Refused(_)) => Ok(None),
        Err(error) => Err(DemoError::Api { step: "asking for segments", error }),
    }
}

/// All segments and gaps.
pub(super) async fn segments(client: &Client) -> Result<SegmentPage, DemoError> {
    let page = client.get("/v1/segments?limit=10000").await;
    page.map_err(|error| DemoError::Api { step: "listing segments", error })
}

/// The segments of a lens.
pub(super) fn of_lens<'a>(page: &'a SegmentPage, lens: &str) -> impl Iterator<Item = &'a SegmentView> + use<'a> {
    let lens = lens.to_owned();
    page.segments.iter().filter(move |s| s.lens == lens)
}

/// A segment by its id.
pub(super) fn found<'a>(page: &'a SegmentPage, id: &str) -> Result<&'a SegmentView, DemoError> {
    page.segments.iter().find(|s| s.id == id).ok_or_else(|| DemoError::NotHeld(format!("{id} is still listed")))
}

/// The last segment of the run and lens of another.
pub(super) fn last_of_run<'a>(page: &'a SegmentPage, of: &SegmentView) -> Result<&'a SegmentView, DemoError> {
    let run = |s: &SegmentView| s.id.parse::<SegmentId>().map(|id| (id.lens, id.run)).ok();
    let same = page.segments.iter().filter(|s| run(s) == run(of));
    same.max_by_key(|s| s.start_ts).ok_or_else(|| DemoError::NotHeld(format!("{} is still listed", of.id)))
}

/// Frames come at discrete moments: spans may be off by one of them, and live ones by its jitter. In microseconds.
pub(super) fn a_frame(of: &SegmentView) -> i64 {
    let mean = (of.end_ts - of.start_ts) / i64::from(of.frames.max(1));
    (mean * 3 / 2).max(50_000)
}

/// A span of microseconds; none if it is negative.
pub(super) fn micros(span: i64) -> Duration {
    Duration::from_micros(u64::try_from(span).unwrap_or(0))
}

/// UTC now in microseconds.
pub(super) fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}
