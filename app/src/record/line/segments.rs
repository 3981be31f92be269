//! Fragments out: segments begin, end and are closed, and what cannot be written becomes a gap.
//!
//! Holds L3 of [`super`]: a failure costs what it costs, and the lens goes on in a new segment. What a unit means is no matter
//! of its own.

use std::sync::Arc;
use std::time::Duration;

use mos_hal::clock::Mono;
use mos_hal::media::{FrameKind, TrackFormat};

use super::super::intake::{Item, is_entry};
use super::super::segment_file::{Plan, Reach, SegmentFile, Timed, audio_of, video_of};
use super::super::splitter::Splitter;
use super::{Current, Leaving, Line, Retry};
use crate::archive::ArchiveError;
use crate::archive::error::remedy;
use crate::archive::gaps::GapCause;

/// Waiting times after failed attempts to begin a segment.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(8);
/// How often the first step of a close is tried on a full disk before recovery is left to do it.
const CLOSE_TRIES: u32 = 120;
/// Audio that was not heard for this long is not expected in the next segment.
const AUDIO_SILENT: i64 = 5_000_000_000;
/// Units of the same batch looked through for the reorder depth.
const LOOK_AHEAD: usize = 64;

impl Line {
    /// Ends the present segment, if any, and begins the next with `timed`, after `group` if that is to be repeated.
    pub(super) fn begin(&mut self, timed: Timed, group: Vec<Timed>) {
        let shown_from = match (group.is_empty(), &self.current) {
            (false, Some(current)) => {
                // A little before the next frame's time, which is not known if leading pictures are still to come.
                let step = self.video_times.step(&timed.unit.format);
                Mono(current.file.max_pts().0 + step - step / 8)
            }
            _ => timed.pts,
        };
        let start = group.first().map_or(timed.pts, |first| first.pts);
        // Behind a loss the last frame is not stretched over it.
        self.end_segment(Some(shown_from).filter(|_| self.absence.cause().is_none()));
        let Some(video) = video_of(&timed.unit.format) else { return };
        let audio = self.audio_now(timed.pts);
        let depth = if video.reorder > 0 { usize::from(video.reorder) } else { self.depth_ahead() };
        let plan = Plan {
            lens: &self.lens,
            start,
            shown_from,
            video,
            audio: audio.as_ref().and_then(audio_of),
            depth,
            step: self.video_times.step(&timed.unit.format),
            expected_bytes: self.last_bytes + self.last_bytes / 8,
        };
        match SegmentFile::begin(&self.archive, &plan) {
            Ok(mut file) => {
                for copy in group {
                    let sync = is_entry(copy.unit.kind);
                    file.push_video(copy, sync, true);
                }
                let splitter = Splitter::new(shown_from, self.segment_length);
                let format = Arc::clone(&timed.unit.format);
                self.current = Some(Current { file, splitter, format, audio, audio_changed: false });
                self.go_on(timed);
            }
            Err(error) => {
                self.status.abandoned += 1;
                self.drop_for(failure_cause(&error), 1);
                self.absence.down(timed.pts, failure_cause(&error));
                self.back_off();
                self.refused("begin", &error);
                self.await_entry();
            }
        }
    }

    /// Hands the present segment over to its close.
    pub(super) fn end_segment(&mut self, next: Option<Mono>) {
        let Some(mut current) = self.current.take() else { return };
        self.wrote |= current.file.units().pending > 0;
        if let Err(error) = current.file.flush(next) {
            self.current = Some(current);
            self.write_failed(&error);
            return;
        }
        current.file.end_at(next);
        let waits_for_sound = current.file.has_audio() && next.is_some();
        self.leaving.push(Leaving { file: current.file, waits_for_sound, tries: 0 });
        if !waits_for_sound {
            self.advance_closes(false);
        }
    }

    /// Writes step 1 of every close that is due. A segment that waits for sound is due on the second call.
    pub(super) fn advance_closes(&mut self, last_chance: bool) {
        for mut leaving in std::mem::take(&mut self.leaving) {
            if leaving.file.is_closing() {
                self.leaving.push(leaving);
                continue;
            }
            if leaving.waits_for_sound && leaving.tries == 0 && !last_chance {
                leaving.tries = 1;
                self.leaving.push(leaving);
                continue;
            }
            leaving.tries += 1;
            let closed = leaving.file.flush(None).and_then(|()| leaving.file.begin_close());
            match closed {
                Ok(()) => self.leaving.push(leaving),
                Err(error) if error.is_disk_full() && leaving.tries < CLOSE_TRIES && !last_chance => {
                    self.refused("close", &error);
                    self.leaving.push(leaving);
                }
                Err(error) => {
                    let lost = leaving.file.units();
                    let (end, shown_to) = leaving.file.at_stake();
                    self.absence.lost_between(end, shown_to, failure_cause(&error));
                    self.drop_for(failure_cause(&error), lost.pending + lost.written);
                    self.refused("close", &error);
                }
            }
        }
    }

    /// The audio format to expect in a segment that begins at `pts`: what was heard lately or comes in this batch.
    pub(super) fn audio_now(&self, pts: Mono) -> Option<Arc<TrackFormat>> {
        let coming = self.batch.iter().find_map(|i| match i {
            Item::Unit(u) if u.kind == FrameKind::Audio => Some(Arc::clone(&u.format)),
            _ => None,
        });
        let heard = self.audio.as_ref().filter(|(_, at)| pts.since(*at) < AUDIO_SILENT);
        coming.or_else(|| heard.map(|(f, _)| Arc::clone(f)))
    }

    /// The reorder depth as learned, also from what is already here of the segment to come.
    pub(super) fn depth_ahead(&self) -> usize {
        let mut ahead = self.reorder.clone();
        let coming = self.batch.iter().filter_map(|i| match i {
            Item::Unit(u) if u.kind != FrameKind::Audio => u.pts,
            _ => None,
        });
        coming.take(LOOK_AHEAD).for_each(|pts| ahead.see(pts, false));
        ahead.depth()
    }

    /// The present segment could not be written.
    pub(super) fn write_failed(&mut self, error: &ArchiveError) {
        let cause = failure_cause(error);
        let Some(current) = self.current.take() else { return };
        self.status.abandoned += 1;
        self.refused("write", error);
        let units = current.file.units();
        self.drop_for(cause, units.pending);
        self.lost_behind(current.file.written(), cause);
        self.await_entry();
        self.back_off();
        if error.is_disk_full() && !current.file.is_empty() {
            // What is written stands; its close waits for room. A beginning without a frame goes with its file.
            let mut file = current.file;
            file.forget_pending();
            self.leaving.push(Leaving { file, waits_for_sound: false, tries: 0 });
        } else {
            self.drop_for(cause, units.written);
            self.lost_behind(current.file.durable(), cause);
        }
    }

    /// A segment's sync failed: what was written since the last good one counts as lost.
    pub(super) fn sync_failed(&mut self, file: &SegmentFile, error: &Arc<std::io::Error>) {
        let full = matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT));
        let cause = if full { GapCause::DiskFull } else { GapCause::DiskError };
        let units = file.units();
        self.drop_for(cause, units.pending + units.written);
        self.status.abandoned += 1;
        self.refused("sync", &format!("cannot sync {}: {error}{}", file.id(), remedy(error)));
        let durable = file.durable();
        let (end, shown_to) = file.at_stake();
        match &self.current {
            // The lens goes on in the next segment already.
            Some(_) => {
                for (from, to) in &durable.open {
                    self.absence.lost_between(*from, *to, cause);
                }
                self.absence.lost_between(end, shown_to, cause);
            }
            None if units.written > 0 => self.lost_behind(durable, cause),
            // Only the time after its last frame, up to a segment that failed with it.
            None => self.absence.lost_between(end, shown_to, cause),
        }
        if self.current.is_none() {
            self.await_entry();
        }
    }

    /// Nothing behind what reaches so far is there.
    pub(super) fn lost_behind(&mut self, reach: &Reach, cause: GapCause) {
        for (from, to) in &reach.open {
            self.absence.lost_between(*from, *to, cause);
        }
        self.absence.lost_from(reach.end, cause);
    }

    pub(super) fn back_off(&mut self) {
        let delay = self.retry.map_or(Duration::ZERO, |r| (r.delay * 2).clamp(RETRY_FIRST, RETRY_MAX));
        self.retry = Some(Retry { not_before: self.now + delay, delay });
    }
}

fn failure_cause(error: &ArchiveError) -> GapCause {
    if error.is_disk_full() { GapCause::DiskFull } else { GapCause::DiskError }
}
