//! The kill: watching for its moment, waiting for what comes after it, and judging what it cost.

use std::time::Duration;

use super::DemoError;
use super::judge::hold;
use super::listing::{a_frame, answers, found, last_of_run, micros, now_micros, of_lens, segments};
use super::story::{LENSES, LensFigures};
use crate::cli::client::Client;
use crate::http::{GapView, SegmentPage, SegmentView};

/// Most that a lens may lose when the recorder is killed.
const LOSS_LIMIT: Duration = Duration::from_secs(1);
/// From the last look before the kill to the kill: most of the 500 ms between two commits.
pub(super) const UNSAVED: Duration = Duration::from_millis(400);
/// Commits of a lens that tell how late its source is.
const COMMITS: u32 = 3;

/// What the listing shows of each lens while it is watched.
#[derive(Default)]
pub(super) struct Watch([LensWatch; LENSES.len()]);

/// One lens.
#[derive(Default)]
struct LensWatch {
    end_ts: i64,
    commits: u32,
    grew: bool,
    lateness: Option<i64>,
}

impl LensWatch {
    fn look(&mut self, newest: &SegmentView) {
        self.grew = newest.end_ts > self.end_ts;
        self.end_ts = newest.end_ts;
        if self.grew {
            self.commits += 1;
            let behind = now_micros() - newest.end_ts;
            self.lateness = Some(self.lateness.map_or(behind, |least| least.min(behind)));
        }
    }
}

impl Watch {
    /// The newest segment of every lens: once that of `road` is open, has a good second in it and has just grown, and enough
    /// commits were seen to know how late the sources are.
    pub(super) async fn mid_segment(&mut self, client: &Client) -> Result<Option<Vec<SegmentView>>, DemoError> {
        let page = segments(client).await?;
        let newest = |lens: &&str| of_lens(&page, lens).max_by_key(|s| s.start_ts).cloned();
        let newest: Option<Vec<SegmentView>> = LENSES.iter().map(newest).collect();
        let Some(newest) = newest else { return Ok(None) };
        for (watch, newest) in self.0.iter_mut().zip(&newest) {
            watch.look(newest);
        }
        let road = &newest[0];
        let length = road.end_ts - road.start_ts;
        let middle = road.state == "open" && (1_000_000..2_000_000).contains(&length) && self.0[0].grew;
        let known = self.0.iter().all(|watch| watch.commits >= COMMITS);
        Ok((middle && known).then_some(newest))
    }

    /// How late each source delivers: how far behind its footage was at its best.
    pub(super) fn lateness(&self) -> [Duration; LENSES.len()] {
        self.0.each_ref().map(|watch| micros(watch.lateness.unwrap_or(0)))
    }
}

/// The listing in which nothing of before the kill is open and every lens has new footage.
pub(super) async fn back(client: &Client, killed_at: i64) -> Result<Option<SegmentPage>, DemoError> {
    if answers(client).await?.is_none() {
        return Ok(None);
    }
    let page = segments(client).await?;
    let good = |lens: &str| {
        let (old, new): (Vec<_>, Vec<_>) = of_lens(&page, lens).partition(|s| s.start_ts <= killed_at);
        !old.is_empty() && old.iter().all(|s| s.state != "open") && new.iter().any(|s| s.end_ts > s.start_ts)
    };
    Ok(LENSES.iter().all(|lens| good(lens)).then_some(page))
}

/// What the kill cost a lens: at most a second lost, and every moment until the new footage in a gap with its cause.
///
/// From the last frame's end to the kill is more than what the recorder lost: the newest frames were still in the camera or
/// its encoder, and nobody had them yet.
pub(super) fn aftermath(
    page: &SegmentPage,
    was: &SegmentView,
    killed_at: i64,
    lateness: Duration,
) -> Result<LensFigures, DemoError> {
    let same = found(page, &was.id)?;
    hold(same.frames >= was.frames, || {
        format!("{} keeps the {} frames that were durable before the kill, not {}", was.id, was.frames, same.frames)
    })?;
    let recovered = last_of_run(page, was)?;
    let lost = micros(killed_at - recovered.end_ts).saturating_sub(lateness);
    hold(lost <= LOSS_LIMIT, || format!("{} loses at most 1 s, not {} ms", was.lens, lost.as_millis()))?;
    let next = of_lens(page, &was.lens).filter(|s| s.start_ts >= recovered.end_ts).min_by_key(|s| s.start_ts);
    let next = next.ok_or_else(|| DemoError::NotHeld(format!("{} has new footage", was.lens)))?;
    let mut causes: Vec<String> = Vec::new();
    let mut reached = recovered.end_ts;
    let mut gaps: Vec<&GapView> =
        page.gaps.iter().filter(|g| g.lens == was.lens && g.end_ts > recovered.end_ts).collect();
    gaps.sort_by_key(|gap| gap.start_ts);
    for gap in gaps.iter().filter(|gap| gap.start_ts < next.start_ts) {
        // The new run cannot have begun before the kill, so it explains nothing of what is missing until then.
        hold(gap.cause == "recorder_killed" || gap.start_ts + a_frame(was) >= killed_at, || {
            format!("{} names the kill for what is missing before it, not {}", was.lens, gap.cause)
        })?;
        if gap.start_ts <= reached + a_frame(was) {
            reached = reached.max(gap.end_ts);
        }
        if !causes.contains(&gap.cause) {
            causes.push(gap.cause.clone());
        }
    }
    hold(reached + a_frame(was) >= next.start_ts, || {
        let missing = (next.start_ts - reached) / 1000;
        format!("{} accounts for every moment after the kill; {missing} ms are in no gap", was.lens)
    })?;
    hold(!causes.iter().any(|cause| cause == "unknown"), || format!("{} has no unknown cause", was.lens))?;
    let gap = micros(next.start_ts - recovered.end_ts);
    let (lens, zero) = (was.lens.clone(), Duration::ZERO);
    Ok(LensFigures { lens, segments: 0, footage: zero, frames: 0, bytes: 0, lost, lateness, gap, causes })
}
