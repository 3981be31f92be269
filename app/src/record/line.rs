//! One lens in the writer: from queued units to segments and gaps.
//!
//! Promises:
//! - L1: every unit taken from the intake is stored, pending, or counted as dropped under a cause (with `status`'s R1).
//! - L2: what is stored decodes: after a loss nothing is recorded up to the next entry point, and that span is a gap.
//! - L3: after a failed write or sync the lens goes on in a new segment by itself; other lenses do not notice.
//! - L4: what waited is written as if each tick had come in time: a turn takes what had arrived by its moment and no more, and
//!   accounts for an absence as of then.
//!
//! Owned by [`super::writer`] and called from its thread only. Here are its state, its ticks and its books; units come in by
//! `units`, fragments go out by `segments`.

mod segments;
mod units;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use mos_hal::clock::Mono;
use mos_hal::media::{LensId, TrackFormat};

use crate::archive::gaps::GapCause;
use crate::archive::{Archive, LensGaps, Progress, TickReport};

use super::absence::Absence;
use super::intake::{Intake, Item, LeftOut};
use super::log_limit::{LogLimit, and_more};
use super::repair::Repair;
use super::repeat::Repeat;
use super::segment_file::{SegmentFile, Timed};
use super::splitter::Splitter;
use super::status::LensRecording;
use super::timing::Learner;

/// An absence longer than this, in nanoseconds, ends the segment; a shorter one is a hole in it.
const HOLE_MAX: i64 = 2_000_000_000;
/// Most spans left out by the source that wait for the pictures behind them; more are joined to the last.
const AHEAD: usize = 1024;

pub(crate) struct Line {
    lens: LensId,
    intake: Arc<Intake>,
    archive: Archive,
    segment_length: Duration,
    gaps: Option<LensGaps>,
    absence: Absence,
    video_times: Repair,
    audio_times: Repair,
    reorder: Learner,
    audio: Option<(Arc<TrackFormat>, Mono)>,
    current: Option<Current>,
    /// Segments whose close is under way, or that still wait for sound.
    leaving: Vec<Leaving>,
    held: Option<Timed>,
    awaiting: Option<Awaiting>,
    /// Units shown before this are leading pictures of an entry point that nothing before was stored for.
    leading_until: Option<Mono>,
    /// Pictures that the source left out and that the recording has not come to yet.
    ahead: Vec<LeftOut>,
    repeat: Repeat,
    retry: Option<Retry>,
    last_bytes: u64,
    /// Taken from the intake and not written yet.
    batch: VecDeque<Item>,
    now: Mono,
    status: LensRecording,
    /// Units that the intake dropped and this line has heard of.
    dropped_before: u64,
    /// Footage was written since the last group commit.
    wrote: bool,
    log: LogLimit<&'static str>,
}

struct Current {
    file: SegmentFile,
    splitter: Splitter,
    format: Arc<TrackFormat>,
    audio: Option<Arc<TrackFormat>>,
    audio_changed: bool,
}

struct Leaving {
    file: SegmentFile,
    /// Sound of before the border may still come during one tick.
    waits_for_sound: bool,
    tries: u32,
}

/// Nothing is recorded until an entry point comes.
#[derive(Clone, Copy)]
struct Awaiting {
    since: Option<Mono>,
    asked: Option<Mono>,
}

#[derive(Clone, Copy)]
struct Retry {
    not_before: Mono,
    delay: Duration,
}

const AWAITING: Awaiting = Awaiting { since: None, asked: None };

impl Line {
    pub(crate) fn new(
        lens: LensId,
        intake: Arc<Intake>,
        archive: Archive,
        segment_length: Duration,
        now: Mono,
    ) -> Self {
        Self {
            lens,
            intake,
            archive,
            segment_length,
            gaps: None,
            absence: Absence::starting(now),
            video_times: Repair::default(),
            audio_times: Repair::default(),
            reorder: Learner::default(),
            audio: None,
            current: None,
            leaving: Vec::new(),
            held: None,
            awaiting: Some(AWAITING),
            leading_until: None,
            ahead: Vec::new(),
            repeat: Repeat::default(),
            retry: None,
            last_bytes: 0,
            batch: VecDeque::new(),
            now,
            status: LensRecording::default(),
            dropped_before: 0,
            wrote: false,
            log: LogLimit::new(Duration::from_mins(1)),
        }
    }

    pub(crate) fn lens(&self) -> &LensId {
        &self.lens
    }

    /// Takes what the intake has; when the first of its units arrived. To be written by [`Line::write`].
    pub(crate) fn take(&mut self) -> Option<Mono> {
        // Nothing is left of the last tick: its last turn wrote all.
        self.intake.take(&mut self.batch);
        self.batch.iter().find_map(|item| match item {
            Item::Unit(unit) => Some(unit.arrival),
            _ => None,
        })
    }

    /// Writes what was taken as one fragment: all of it, or what had arrived before `now` (L4). Nothing is durable before the
    /// group commit that follows.
    pub(crate) fn write(&mut self, now: Mono, all: bool) {
        self.now = now;
        while let Some(item) = self.batch.pop_front_if(|item| all || item.came_before(now)) {
            match item {
                Item::Unit(unit) => self.unit(unit),
                Item::Down { cause, at } => {
                    self.status.first_durable = None;
                    self.release_held();
                    self.footage_ends(cause);
                    self.absence.down(at, cause);
                    self.video_times.source_changed();
                    self.audio_times.source_changed();
                    self.await_entry();
                }
                Item::Opened(at) => self.absence.opened(at),
                Item::Dropped { units, from } => {
                    self.dropped_before += units;
                    self.release_held();
                    self.lost(GapCause::DiskSlow, from, units);
                    self.warn("disk_slow", &"the disk does not keep up: footage was dropped");
                }
                Item::LeftOut(left_out) => {
                    self.drop_for(left_out.cause, left_out.pictures);
                    if self.ahead.len() < AHEAD {
                        self.ahead.push(left_out);
                    } else if let Some(last) = self.ahead.last_mut() {
                        last.to = last.to.max(left_out.to);
                        last.pictures += left_out.pictures;
                    }
                }
            }
        }
        if let Some(current) = &mut self.current {
            self.wrote |= current.file.units().pending > 0;
            if let Err(error) = current.file.flush(None) {
                self.write_failed(&error);
            }
        }
        let long_absent = self.absence.absent_since().is_some_and(|s| now.since(s) > HOLE_MAX);
        if long_absent {
            self.release_held();
            self.end_segment(None);
        }
        self.advance_closes(false);
        // Of an absence that lasts nothing goes on record before the footage in front of it is durable.
        if !self.wrote || self.absence.cause().is_none() {
            self.absence.keep_record(now);
            self.note_gaps();
        }
    }

    /// Takes in the group commit that followed [`Line::write`].
    pub(crate) fn after_commit(&mut self, report: &TickReport, now: Mono) {
        self.wrote = false;
        if let Some(mut current) = self.current.take() {
            let oldest = current.file.durable().end;
            let (progress, stored) = current.file.after_sync(report);
            self.status.stored += stored;
            if stored > 0 {
                if self.absence.cause().is_none() {
                    self.status.first_durable.get_or_insert(now);
                }
                // Not before: a disk that takes files and syncs none would fill up with beginnings.
                self.retry = None;
                self.status.latency = u64::try_from(now.since(oldest)).ok().map(Duration::from_nanos);
            }
            if let Progress::Failed(error) = progress {
                self.sync_failed(&current.file, &error);
                self.back_off();
            } else {
                self.current = Some(current);
            }
        }
        for mut leaving in std::mem::take(&mut self.leaving) {
            let (progress, stored) = leaving.file.after_sync(report);
            self.status.stored += stored;
            match progress {
                Progress::Closed => self.last_bytes = leaving.file.len(),
                Progress::Failed(error) => self.sync_failed(&leaving.file, &error),
                Progress::ReadyToCommit => match leaving.file.commit_close() {
                    Ok(()) => self.leaving.push(leaving),
                    // The footage is durable; only the flip is missing, which recovery repeats.
                    Err(error) => {
                        let (end, shown_to) = leaving.file.at_stake();
                        self.absence.lost_between(end, shown_to, GapCause::DiskError);
                        self.refused("close", &error);
                    }
                },
                Progress::Untouched | Progress::Durable => self.leaving.push(leaving),
            }
        }
    }

    /// The recording stops, and all that was taken is written: the closes begin. A commit must follow, then
    /// [`Line::note_stop`], then commits and [`Line::close_tick`]s until [`Line::is_closed`].
    pub(crate) fn finish(&mut self) {
        self.release_held();
        self.footage_ends(GapCause::Stopped);
        self.end_segment(None);
        self.advance_closes(true);
    }

    /// Notes the stop, once the footage before it is durable.
    pub(crate) fn note_stop(&mut self, at: Mono) {
        self.absence.finish(at);
        self.note_gaps();
        if let Some(gaps) = &self.gaps {
            gaps.stop(at);
        }
    }

    /// Carries on with closes only.
    pub(crate) fn close_tick(&mut self, now: Mono) {
        self.now = now;
        self.advance_closes(true);
    }

    /// Whether no close is under way.
    pub(crate) fn is_closed(&self) -> bool {
        self.leaving.is_empty()
    }

    /// Segments whose close is under way.
    pub(crate) fn open_closes(&self) -> usize {
        self.leaving.len()
    }

    pub(crate) fn status(&self) -> LensRecording {
        let mut status = self.status.clone();
        let counters = self.intake.counters();
        status.captured = counters.captured;
        status.captured_bytes = counters.captured_bytes;
        let files = self.current.iter().map(|c| &c.file).chain(self.leaving.iter().map(|l| &l.file));
        let in_files: u64 = files.map(|f| f.units().pending + f.units().written).sum();
        let waiting_drops = counters.dropped.saturating_sub(self.dropped_before);
        status.pending = counters.queued + in_files + u64::from(self.held.is_some()) + waiting_drops;
        status.open = self.current.as_ref().map(|c| c.file.id().clone());
        status.absent = self.absence.cause();
        status
    }

    fn cover(&mut self) {
        if let Some(current) = &self.current {
            self.absence.footage_to(current.file.end());
        }
    }

    /// Counts a unit that is left out because of what the lens is absent for; or, in covered time, came too late.
    fn drop_one(&mut self) {
        let cause = self.absence.cause().unwrap_or(GapCause::PacketLoss);
        self.drop_for(cause, 1);
    }

    fn drop_for(&mut self, cause: GapCause, units: u64) {
        if units > 0 {
            *self.status.dropped.entry(cause).or_default() += units;
        }
    }

    fn note_gaps(&mut self) {
        if self.gaps.is_none() {
            match self.archive.gaps(&self.lens) {
                Ok(gaps) => self.gaps = Some(gaps),
                Err(error) => {
                    self.refused("gaps", &error);
                    return;
                }
            }
        }
        if let Some(gaps) = &self.gaps {
            self.absence.take().into_iter().for_each(|gap| gaps.append(gap));
        }
    }

    /// The storage did not take something.
    fn refused(&mut self, key: &'static str, what: &dyn std::fmt::Display) {
        self.status.refused = Some((what.to_string(), self.now));
        self.warn(key, what);
    }

    fn warn(&mut self, key: &'static str, what: &dyn std::fmt::Display) {
        if let Some(left_out) = self.log.allow(&key, self.now) {
            log::warn!("{}: {what}{}", self.lens, and_more(left_out));
        }
    }
}
