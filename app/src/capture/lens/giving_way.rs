//! A lens that gives way to others: what the ladder ([`super::super::ladder`]) wants of it.
//!
//! Promises that a reduced lens goes on without a pause, that a stopped one is idle with the cause `degraded` unless it is idle
//! for another reason, which stays, and that it starts by itself when it need not give way any more; that one which delivers
//! nothing for a reason of its own keeps that reason; and that a lens is shown as reduced as long as it is, also where the
//! encoder has no room for more than the ladder knows of.

use std::sync::atomic::Ordering;

use mos_hal::clock::Mono;
use mos_hal::media::LensId;
use mos_hal::source::{Share, SourceSpec};

use super::super::ladder::{Reason, Step};
use super::super::status::{Degraded, News};
use super::{CaptureState, GapCause, Lens, Trigger};

/// What the ladder needs to know of a lens.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) lens: LensId,
    pub(crate) place: Place,
    /// Its pictures are coded here.
    pub(crate) coded: bool,
    /// The encoder has no part left for it.
    pub(crate) exhausted: bool,
    /// How far it is to give way.
    pub(crate) step: Step,
    /// What it has of the encoder, if its source tells.
    pub(crate) share: Option<Share>,
    /// Pictures that were coded so far, and those that were left out because that was too slow.
    pub(crate) frames: u64,
    pub(crate) left_out: u64,
}

/// Whether a lens has anything to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It delivers.
    Delivers,
    /// It is open and silent.
    Silent,
    /// It would deliver if it did not give way, or if the encoder had room for it.
    GivesWay,
    /// It is being opened, or soon will be again: it keeps what it was told, until it need not give way any more.
    Opening,
    /// It delivers nothing for a reason of its own, and has nothing to give.
    Gone,
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
        Load {
            lens: self.config.id.clone(),
            place: self.place(),
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
            step: self.step_asked(),
            share: self.tally.share(),
            frames: self.tally.frames.load(Ordering::Relaxed),
            left_out: self.tally.encoder_left_out.load(Ordering::Relaxed),
        }
    }

    fn place(&self) -> Place {
        match self.state {
            CaptureState::Streaming => Place::Delivers,
            CaptureState::Stalled => Place::Silent,
            CaptureState::Idle if self.is_held() => Place::GivesWay,
            CaptureState::Idle => Place::Gone,
            _ if self.coding == Coding::NoRoom => Place::GivesWay,
            CaptureState::Connecting | CaptureState::BackingOff => Place::Opening,
            CaptureState::Failed | CaptureState::CircuitOpen | CaptureState::Absent => Place::Gone,
        }
    }

    fn step_asked(&self) -> Step {
        self.ladder.as_ref().map_or(Step::Full, |ladder| ladder.step)
    }

    /// Idle because it gives way.
    pub(crate) fn is_held(&self) -> bool {
        self.state == CaptureState::Idle && self.cause == Some(GapCause::Degraded)
    }

    /// Whether it is to be stopped while it gives way.
    pub(super) fn must_hold(&self) -> bool {
        self.step_asked() == Step::Stopped
    }

    /// Takes a step, if it is a lens that can; how far it gives way then.
    pub(crate) fn give_way(&mut self, step: Step, reason: Option<Reason>, why: &str) -> Option<Degraded> {
        let before = self.ladder.as_ref().map(|ladder| (ladder.step, ladder.reason));
        let asked = reason.map(|reason| (step, reason));
        let can = step == Step::Full || !matches!(self.place(), Place::Opening | Place::Gone);
        if before == asked || !can {
            return self.degraded.clone();
        }
        let now = self.clock.mono();
        let stood = self.step_asked();
        self.ladder = asked.map(|(step, reason)| Degraded { step, reason, why: why.to_owned(), since: now });
        self.tally.one_in.store(step.one_in(), Ordering::Relaxed);
        if let Some(open) = &self.open {
            open.source.thin(step.one_in());
        }
        self.settle(now);
        if step == stood {
            return self.degraded.clone();
        }
        if step == Step::Stopped {
            self.hold(why);
        } else if self.is_held() {
            // Cannot be refused: it is idle and need not hold.
            let _ = self.start();
        } else if self.coding == Coding::NoRoom && self.state.waits() {
            // There may be room now.
            self.due = now;
        }
        self.degraded.clone()
    }

    /// Tells how far it gives way, if that is news.
    pub(super) fn settle(&mut self, now: Mono) {
        let mut really = self.really(now);
        let known = |degraded: &Option<Degraded>| degraded.as_ref().map(|d| (d.step, d.reason));
        if known(&really) == known(&self.degraded) {
            return;
        }
        let stood = self.degraded.take();
        if let (Some(really), Some(stood)) = (&mut really, &stood)
            && really.step == stood.step
        {
            // Only the reason is another one.
            really.since = stood.since;
        }
        let step = |degraded: &Option<Degraded>| degraded.as_ref().map_or(Step::Full, |d| d.step).name();
        let why = really.as_ref().map_or(String::new(), |d| format!(": {}, {}", d.reason.name(), d.why));
        log::warn!("{}: {} after {}{why}", self.config.id, step(&really), step(&stood));
        self.degraded.clone_from(&really);
        // Nobody may be listening.
        let _ = self.changes.send(News::Degraded { lens: self.config.id.clone(), degraded: really, at: now });
    }

    /// How far it gives way: what the ladder wants, or what there is room for.
    fn really(&self, now: Mono) -> Option<Degraded> {
        let share = self.tally.share().filter(|_| self.ladder.is_none() && self.open.is_some());
        match share {
            Some(share) if share.is_short() => {
                let why = "the encoder has no room for all of its pictures".to_owned();
                Some(Degraded { step: Step::Reduced, reason: Reason::Encoder, why, since: now })
            }
            // It has not come to asking for more yet.
            Some(share) if share.one_in > 1 => self.degraded.clone(),
            _ => self.ladder.clone(),
        }
    }

    fn hold(&mut self, why: &str) {
        if self.state == CaptureState::Idle {
            return;
        }
        let now = self.clock.mono();
        self.leave();
        self.coding.has_room();
        self.intake.down(GapCause::Degraded, now);
        self.note(format!("gives way: {why}"), now);
        self.go(Trigger::Stop, Some(GapCause::Degraded), now);
    }
}
