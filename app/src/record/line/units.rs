//! Units in: which of them may be recorded, and where they go.
//!
//! Holds L2 of [`super`]: after a loss nothing is taken up to the next entry point. Files and disks are no matter of its own.

use std::sync::Arc;

use mos_hal::clock::Mono;
use mos_hal::media::{AccessUnit, FrameKind};

use super::super::intake::is_entry;
use super::super::repair::{Admitted, TimeFault};
use super::super::segment_file::Timed;
use super::super::splitter::{Point, Verdict};
use super::{AWAITING, Line};
use crate::archive::gaps::GapCause;

/// How long to wait for a clean entry point before a recovery point will do, and how often to ask for a keyframe.
const PATIENCE: i64 = 2_000_000_000;

impl Line {
    pub(super) fn unit(&mut self, unit: AccessUnit) {
        match unit.kind {
            FrameKind::Audio => self.audio_unit(unit),
            _ => self.video_unit(unit),
        }
    }

    pub(super) fn video_unit(&mut self, unit: AccessUnit) {
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

    pub(super) fn audio_unit(&mut self, unit: AccessUnit) {
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

    /// The capture time to record a unit with.
    pub(super) fn mended(&mut self, unit: &AccessUnit) -> Mono {
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
    pub(super) fn place(&mut self, timed: Timed, rasl_follows: Option<bool>) {
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
    pub(super) fn may_enter(&mut self, timed: &Timed) -> bool {
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
    pub(super) fn enter(&mut self, timed: Timed) {
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

    pub(super) fn go_on(&mut self, timed: Timed) {
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
        let pts = timed.pts;
        current.file.push_video(timed, sync, false);
        self.cover();
        self.pass_left_out(pts);
    }

    /// Pictures that the source left out before `pts` are missing between pictures that are there. Those in an absence are
    /// part of it.
    fn pass_left_out(&mut self, pts: Mono) {
        let mut passed: Vec<_> = self.ahead.extract_if(.., |left_out| left_out.to <= pts).collect();
        if passed.is_empty() || self.absence.cause().is_some() {
            return;
        }
        // Camera and encoder may have left out pictures side by side; what one of them told counts once.
        passed.sort_by_key(|left_out| left_out.from);
        let mut told = Mono(i64::MIN);
        for left_out in passed {
            self.absence.lost_between(left_out.from.max(told), left_out.to, left_out.cause);
            told = told.max(left_out.to);
        }
        // On record before the footage behind it is written.
        self.note_gaps();
    }

    pub(super) fn await_entry(&mut self) {
        self.awaiting.get_or_insert(AWAITING);
    }

    pub(super) fn release_held(&mut self) {
        if let Some(held) = self.held.take() {
            self.place(held, Some(false));
        }
        if let Some(held) = self.held.take() {
            self.go_on(held);
        }
    }

    /// Frames that reordering still owes will not come any more.
    pub(super) fn footage_ends(&mut self, cause: GapCause) {
        if let Some(current) = self.current.as_ref().filter(|_| self.absence.cause().is_none()) {
            for (from, to) in current.file.open_places() {
                self.absence.lost_between(from, to, cause);
            }
        }
    }

    /// Units are missing from here up to the next entry point.
    pub(super) fn lost(&mut self, cause: GapCause, from: Option<Mono>, units: u64) {
        self.footage_ends(cause);
        self.absence.hole(from, cause);
        self.drop_for(cause, units);
        self.await_entry();
    }
}
