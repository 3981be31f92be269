//! A lens that gives way to others: what the ladder ([`super::super::ladder`]) wants of it.
//!
//! Promises that a reduced lens goes on without a pause, that a stopped one is idle with the cause `degraded` unless it is idle
//! for another reason, which stays, and that it starts by itself when it need not give way any more.

use std::sync::atomic::Ordering;

use mos_hal::source::SourceSpec;

use super::super::ladder::{Reason, Step};
use super::super::status::{Degraded, News};
use super::{CaptureState, GapCause, Lens, Trigger};

/// What the ladder needs to know of a lens.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) lens: mos_hal::media::LensId,
    /// It is captured, or would be if it did not give way.
    pub(crate) wanted: bool,
    /// Its pictures are coded here.
    pub(crate) coded: bool,
    /// The encoder has no part left for it.
    pub(crate) exhausted: bool,
    /// Pictures that were coded so far, and those that were left out because that was too slow.
    pub(crate) frames: u64,
    pub(crate) left_out: u64,
}

/// Who codes the pictures of a raw camera, as far as that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// An encoder here.
    Here,
    /// The camera.
    Elsewhere,
    /// An encoder here would, but had no part left for it when it was last opened.
    NoRoom,
}

impl Coding {
    /// Forgets that there was none.
    pub(super) fn has_room(&mut self) {
        if *self == Self::NoRoom {
            *self = Self::Here;
        }
    }
}

impl Lens {
    pub(crate) fn load(&self) -> Load {
        let stopped_by_others = self.state == CaptureState::Idle && !self.begins && !self.is_held();
        Load {
            lens: self.config.id.clone(),
            wanted: !stopped_by_others,
            coded: match self.config.source {
                SourceSpec::Test(_) => true,
                SourceSpec::File { .. }
                | SourceSpec::Rtsp { .. }
                | SourceSpec::Onvif { .. }
                | SourceSpec::Srt { .. }
                | SourceSpec::Whep { .. } => false,
                SourceSpec::V4l2 { .. }
                | SourceSpec::Board { .. }
                | SourceSpec::Libcamera { .. }
                | SourceSpec::Qmmf { .. } => self.coding != Coding::Elsewhere,
            },
            exhausted: self.coding == Coding::NoRoom,
            frames: self.tally.frames.load(Ordering::Relaxed),
            left_out: self.tally.encoder_left_out.load(Ordering::Relaxed),
        }
    }

    /// Idle because it gives way.
    pub(crate) fn is_held(&self) -> bool {
        self.state == CaptureState::Idle && self.cause == Some(GapCause::Degraded)
    }

    /// Whether it is to be stopped while it gives way.
    pub(super) fn must_hold(&self) -> bool {
        self.degraded.as_ref().is_some_and(|degraded| degraded.step == Step::Stopped)
    }

    /// Takes a step.
    pub(crate) fn give_way(&mut self, step: Step, reason: Option<Reason>, why: &str) {
        let before = self.degraded.as_ref().map_or(Step::Full, |degraded| degraded.step);
        if before == step {
            return;
        }
        let now = self.clock.mono();
        self.degraded = reason.map(|reason| Degraded { step, reason, why: why.to_owned(), since: now });
        self.tally.one_in.store(step.one_in(), Ordering::Relaxed);
        if let Some(open) = &self.open {
            open.source.thin(step.one_in());
        }
        log::warn!(
            "{}: {} after {}{}{why}",
            self.config.id,
            step.name(),
            before.name(),
            if why.is_empty() { "" } else { ": " }
        );
        let degraded = self.degraded.clone();
        // Nobody may be listening.
        let _ = self.changes.send(News::Degraded { lens: self.config.id.clone(), degraded, at: now });
        if step == Step::Stopped {
            self.hold(why);
        } else if self.is_held() {
            // Cannot be refused: it is idle and need not hold.
            let _ = self.start();
        } else if self.coding == Coding::NoRoom && self.state.waits() {
            // There may be room now.
            self.due = now;
        }
    }

    fn hold(&mut self, why: &str) {
        let begun = !std::mem::take(&mut self.begins);
        if self.state == CaptureState::Idle && begun {
            return;
        }
        let now = self.clock.mono();
        self.leave();
        self.coding.has_room();
        self.intake.down(GapCause::Degraded, now);
        self.note(format!("gives way: {why}"), now);
        if begun {
            self.go(Trigger::Stop, Some(GapCause::Degraded), now);
        } else {
            self.cause = Some(GapCause::Degraded);
        }
    }
}
