//! One lens in the writer: from queued units to segments and gaps.
//!
//! Promises:
//! - L1: every unit taken from the intake is stored, pending, or counted as dropped under a cause (with `status`'s R1).
//! - L2: what is stored decodes: after a loss nothing is recorded up to the next entry point, and that span is a gap.
//! - L3: after a failed write or sync the lens goes on in a new segment by itself; other lenses do not notice.
//!
//! Owned by [`super::writer`] and called from its thread only.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use mos_hal::clock::Mono;
use mos_hal::media::{AccessUnit, FrameKind, LensId, TrackFormat};

use crate::archive::gaps::GapCause;
use crate::archive::{Archive, ArchiveError, LensGaps, Progress, TickReport};

use super::absence::Absence;
use super::intake::{Intake, Item, is_entry};
use super::log_limit::{LogLimit, and_more};
use super::repair::{Admitted, Repair, TimeFault};
use super::repeat::Repeat;
use super::segment_file::{Plan, Reach, SegmentFile, Timed, audio_of, video_of};
use super::splitter::{Point, Splitter, Verdict};
use super::status::LensRecording;
use super::timing::Learner;

/// An absence longer than this ends the segment; a shorter one is a hole in it.
const HOLE_MAX: i64 = 2_000_000_000;
/// How long to wait for a clean entry point before a recovery point will do, and how often to ask for a keyframe.
const PATIENCE: i64 = 2_000_000_000;
/// Waiting times after failed attempts to begin a segment.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(8);
/// How often the first step of a close is tried on a full disk before recovery is left to do it.
const CLOSE_TRIES: u32 = 120;
/// Audio that was not heard for this long is not expected in the next segment.
const AUDIO_SILENT: i64 = 5_000_000_000;
/// Units of the same batch looked through for the reorder depth.
const LOOK_AHEAD: usize = 64;

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
    repeat: Repeat,
    retry: Option<Retry>,
    last_bytes: u64,
    batch: VecDeque<Item>,
    now: Mono,
    status: LensRecording,
    /// Units that the intake dropped and this line has heard of.
    dropped_before: u64,
    /// Footage was written in this tick.
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

    /// Takes what the intake has and writes it. Nothing is durable before the group commit that follows.
    pub(crate) fn tick(&mut self, now: Mono) {
        self.now = now;
        let mut batch = std::mem::take(&mut self.batch);
        self.intake.take(&mut batch);
        self.batch = batch;
        while let Some(item) = self.batch.pop_front() {
            match item {
                Item::Unit(unit) => self.unit(unit),
                Item::Down { cause, at } => {
                    self.release_held();
                    self.footage_ends(cause);
                    self.absence.down(at, cause);
                    self.video_times.source_changed();
                    self.audio_times.source_changed();
                    self.await_entry();
                }
                Item::Dropped { units, from } => {
                    self.dropped_before += units;
                    self.release_held();
                    self.lost(GapCause::DiskSlow, from, units);
                    self.warn("disk_slow", &"the disk does not keep up: footage was dropped");
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
        if !std::mem::take(&mut self.wrote) || self.absence.cause().is_none() {
            self.absence.keep_record(now);
            self.note_gaps();
        }
    }

    /// Takes in the group commit that followed [`Line::tick`].
    pub(crate) fn after_commit(&mut self, report: &TickReport) {
        if let Some(mut current) = self.current.take() {
            let (progress, stored) = current.file.after_sync(report);
            self.status.stored += stored;
            if let Progress::Failed(error) = progress {
                self.sync_failed(&current.file, &error);
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
                    Err(error) => self.warn("close", &error),
                },
                Progress::Untouched | Progress::Durable => self.leaving.push(leaving),
            }
        }
    }

    /// The recording stops: everything is written and the closes begin. A commit must follow, then
    /// [`Line::note_stop`], then commits and [`Line::close_tick`]s until [`Line::is_closed`].
    pub(crate) fn finish(&mut self, at: Mono) {
        self.tick(at);
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

    fn unit(&mut self, unit: AccessUnit) {
        match unit.kind {
            FrameKind::Audio => self.audio_unit(unit),
            _ => self.video_unit(unit),
        }
    }

    fn video_unit(&mut self, unit: AccessUnit) {
        if unit.discontinuity {
            self.release_held();
            self.lost(GapCause::PacketLoss, None, 0);
        }
        let pts = self.mended(&unit);
        self.reorder.see(pts, is_entry(unit.kind));
        let rasl = unit.kind == FrameKind::Rasl;
        if let Some(held) = self.held.take() {
            self.place(held, Some(rasl));
        }
        self.place(Timed { unit, pts }, None);
    }

    /// The capture time to record a unit with.
    fn mended(&mut self, unit: &AccessUnit) -> Mono {
        let times = if unit.kind == FrameKind::Audio { &mut self.audio_times } else { &mut self.video_times };
        let Admitted { pts, fault } = times.admit(unit);
        if let Some(fault) = fault {
            *self.status.repaired.entry(fault).or_default() += 1;
            if fault == TimeFault::Jump {
                self.warn("bad_timestamps", &"capture times make no sense: they were replaced");
            }
        }
        pts
    }

    /// Puts a unit into the present segment or a new one, or drops it.
    fn place(&mut self, timed: Timed, rasl_follows: Option<bool>) {
        let kind = timed.unit.kind;
        if self.awaiting.is_some() {
            if !self.may_enter(&timed) {
                self.drop_one();
                return;
            }
            self.enter(timed);
            return;
        }
        if self.leading_until.is_some_and(|until| timed.pts < until) {
            self.drop_one();
            return;
        }
        let Some(current) = &mut self.current else {
            self.await_entry();
            self.place(timed, rasl_follows);
            return;
        };
        let new_format = !Arc::ptr_eq(&current.format, &timed.unit.format) && *current.format != *timed.unit.format;
        if new_format && !is_entry(kind) {
            self.lost(GapCause::PacketLoss, None, 1);
            return;
        }
        let point = Point {
            kind,
            pts: timed.pts,
            rasl_follows,
            repeatable: self.repeat.is_ready(),
            new_format: new_format || (current.audio_changed && is_entry(kind)),
        };
        let verdict = current.splitter.judge(&point);
        if current.splitter.ask(timed.pts) {
            self.intake.want_keyframe();
            self.warn("no_keyframe", &"the stream shows no keyframe to end the segment at; asked for one");
        }
        match verdict {
            Verdict::Continue => self.go_on(timed),
            Verdict::Hold => self.held = Some(timed),
            Verdict::Cut | Verdict::CutAnywhere => {
                // Leading pictures of another format's keyframe refer to pictures of this one.
                self.leading_until = new_format.then_some(timed.pts);
                self.begin(timed, Vec::new());
            }
            Verdict::CutRepeating => {
                let group = self.repeat.take();
                self.begin(timed, group);
            }
        }
    }

    /// Whether recording may begin at this unit. Asks the source for a keyframe if none comes.
    fn may_enter(&mut self, timed: &Timed) -> bool {
        let Some(awaiting) = &mut self.awaiting else { return true };
        let since = *awaiting.since.get_or_insert(timed.pts);
        let waited = timed.pts.since(since);
        let allowed = match timed.unit.kind {
            FrameKind::Idr | FrameKind::Bla | FrameKind::Cra => true,
            FrameKind::RecoveryPoint => waited >= PATIENCE || self.repeat.is_open_source(),
            FrameKind::Delta | FrameKind::Rasl | FrameKind::Audio => false,
        };
        if !allowed && awaiting.asked.map_or(waited >= PATIENCE / 2, |a| timed.pts.since(a) >= PATIENCE) {
            awaiting.asked = Some(timed.pts);
            self.intake.want_keyframe();
            if waited >= PATIENCE {
                self.warn("no_keyframe", &"waiting for a keyframe to begin with; asked for one");
            }
        }
        allowed && self.retry.is_none_or(|r| self.now >= r.not_before)
    }

    /// Footage begins again at an entry point.
    fn enter(&mut self, timed: Timed) {
        let pts = timed.pts;
        self.repeat.clear();
        let same = self.current.as_ref().is_some_and(|c| *c.format == *timed.unit.format && !c.audio_changed);
        let cut = !same
            || self.current.as_mut().is_some_and(|c| {
                let kind = if timed.unit.kind == FrameKind::RecoveryPoint { FrameKind::Idr } else { timed.unit.kind };
                let point = Point { kind, pts, rasl_follows: Some(false), repeatable: false, new_format: false };
                c.splitter.judge(&point) != Verdict::Continue
            });
        self.awaiting = None;
        self.leading_until = Some(pts);
        if cut {
            self.begin(timed, Vec::new());
        } else {
            self.go_on(timed);
        }
        if self.awaiting.is_none() {
            self.absence.footage_from(pts);
            self.cover();
            // On record before the footage behind it is written.
            self.note_gaps();
        }
    }

    fn go_on(&mut self, timed: Timed) {
        let Some(current) = &mut self.current else { return };
        let clean = current.splitter.clean_seen();
        self.repeat.see(&timed, clean);
        let sync = match timed.unit.kind {
            FrameKind::Idr | FrameKind::Bla | FrameKind::Cra => true,
            FrameKind::RecoveryPoint => !clean,
            FrameKind::Delta | FrameKind::Rasl | FrameKind::Audio => false,
        };
        if is_entry(timed.unit.kind) && self.leading_until.is_some_and(|until| timed.pts > until) {
            self.leading_until = None;
        }
        current.file.push_video(timed, sync, false);
        self.cover();
    }

    /// Ends the present segment, if any, and begins the next with `timed`, after `group` if that is to be repeated.
    fn begin(&mut self, timed: Timed, group: Vec<Timed>) {
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
                self.retry = None;
                self.go_on(timed);
            }
            Err(error) => {
                self.status.abandoned += 1;
                self.drop_for(failure_cause(&error), 1);
                self.absence.down(timed.pts, failure_cause(&error));
                self.back_off();
                self.warn("begin", &error);
                self.await_entry();
            }
        }
    }

    /// Hands the present segment over to its close.
    fn end_segment(&mut self, next: Option<Mono>) {
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
    fn advance_closes(&mut self, last_chance: bool) {
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
                    self.warn("close", &error);
                    self.leaving.push(leaving);
                }
                Err(error) => {
                    let lost = leaving.file.units();
                    self.drop_for(failure_cause(&error), lost.pending + lost.written);
                    self.warn("close", &error);
                }
            }
        }
    }

    fn audio_unit(&mut self, unit: AccessUnit) {
        let pts = self.mended(&unit);
        let format = Arc::clone(&unit.format);
        self.audio = Some((Arc::clone(&format), pts));
        let timed = Timed { unit, pts };
        if let Some(current) = &mut self.current {
            let fits = current.audio.as_ref().is_some_and(|a| **a == *format);
            current.audio_changed |= !fits;
            if fits && current.file.push_audio(timed.clone()) {
                return;
            }
        }
        let leaving = self.leaving.iter_mut().rev().find(|l| l.waits_for_sound && !l.file.is_closing());
        if !leaving.is_some_and(|l| l.file.push_audio(timed)) {
            self.drop_one();
        }
    }

    /// The audio format to expect in a segment that begins at `pts`: what was heard lately or comes in this batch.
    fn audio_now(&self, pts: Mono) -> Option<Arc<TrackFormat>> {
        let coming = self.batch.iter().find_map(|i| match i {
            Item::Unit(u) if u.kind == FrameKind::Audio => Some(Arc::clone(&u.format)),
            _ => None,
        });
        let heard = self.audio.as_ref().filter(|(_, at)| pts.since(*at) < AUDIO_SILENT);
        coming.or_else(|| heard.map(|(f, _)| Arc::clone(f)))
    }

    /// The reorder depth as learned, also from what is already here of the segment to come.
    fn depth_ahead(&self) -> usize {
        let mut ahead = self.reorder.clone();
        let coming = self.batch.iter().filter_map(|i| match i {
            Item::Unit(u) if u.kind != FrameKind::Audio => u.pts,
            _ => None,
        });
        coming.take(LOOK_AHEAD).for_each(|pts| ahead.see(pts, false));
        ahead.depth()
    }

    fn cover(&mut self) {
        if let Some(current) = &self.current {
            self.absence.footage_to(current.file.end());
        }
    }

    fn await_entry(&mut self) {
        self.awaiting.get_or_insert(AWAITING);
    }

    fn release_held(&mut self) {
        if let Some(held) = self.held.take() {
            self.place(held, Some(false));
        }
        if let Some(held) = self.held.take() {
            self.go_on(held);
        }
    }

    /// Frames that reordering still owes will not come any more.
    fn footage_ends(&mut self, cause: GapCause) {
        if let Some(current) = self.current.as_ref().filter(|_| self.absence.cause().is_none()) {
            for (from, to) in current.file.open_places() {
                self.absence.lost_between(from, to, cause);
            }
        }
    }

    /// Units are missing from here up to the next entry point.
    fn lost(&mut self, cause: GapCause, from: Option<Mono>, units: u64) {
        self.footage_ends(cause);
        self.absence.hole(from, cause);
        self.drop_for(cause, units);
        self.await_entry();
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

    /// The present segment could not be written.
    fn write_failed(&mut self, error: &ArchiveError) {
        let cause = failure_cause(error);
        let Some(current) = self.current.take() else { return };
        self.status.abandoned += 1;
        self.warn("write", error);
        let units = current.file.units();
        self.drop_for(cause, units.pending);
        self.lost_behind(current.file.written(), cause);
        self.await_entry();
        self.back_off();
        if error.is_disk_full() {
            // What is written stands; its close waits for room.
            let mut file = current.file;
            file.forget_pending();
            self.leaving.push(Leaving { file, waits_for_sound: false, tries: 0 });
        } else {
            self.drop_for(cause, units.written);
            self.lost_behind(current.file.durable(), cause);
        }
    }

    /// A segment's sync failed: what was written since the last good one counts as lost.
    fn sync_failed(&mut self, file: &SegmentFile, error: &Arc<std::io::Error>) {
        let full = matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT));
        let cause = if full { GapCause::DiskFull } else { GapCause::DiskError };
        let units = file.units();
        self.drop_for(cause, units.pending + units.written);
        self.status.abandoned += 1;
        self.warn("sync", &format!("cannot sync {}: {error}", file.id()));
        let durable = file.durable();
        match &self.current {
            // The lens goes on in the next segment already.
            Some(_) => {
                for (from, to) in &durable.open {
                    self.absence.lost_between(*from, *to, cause);
                }
                self.absence.lost_between(durable.end, file.written().end, cause);
            }
            None if units.written > 0 => self.lost_behind(durable, cause),
            None => {}
        }
        if self.current.is_none() {
            self.await_entry();
        }
    }

    /// Nothing behind what reaches so far is there.
    fn lost_behind(&mut self, reach: &Reach, cause: GapCause) {
        for (from, to) in &reach.open {
            self.absence.lost_between(*from, *to, cause);
        }
        self.absence.lost_from(reach.end, cause);
    }

    fn back_off(&mut self) {
        let delay = self.retry.map_or(Duration::ZERO, |r| (r.delay * 2).clamp(RETRY_FIRST, RETRY_MAX));
        self.retry = Some(Retry { not_before: self.now + delay, delay });
    }

    fn note_gaps(&mut self) {
        if self.gaps.is_none() {
            match self.archive.gaps(&self.lens) {
                Ok(gaps) => self.gaps = Some(gaps),
                Err(error) => {
                    self.warn("gaps", &error);
                    return;
                }
            }
        }
        if let Some(gaps) = &self.gaps {
            self.absence.take().into_iter().for_each(|gap| gaps.append(gap));
        }
    }

    fn warn(&mut self, key: &'static str, what: &dyn std::fmt::Display) {
        if let Some(left_out) = self.log.allow(&key, self.now) {
            log::warn!("{}: {what}{}", self.lens, and_more(left_out));
        }
    }
}

fn failure_cause(error: &ArchiveError) -> GapCause {
    if error.is_disk_full() { GapCause::DiskFull } else { GapCause::DiskError }
}
