//! What a user may ask of a lens, and when.

use super::{CaptureState, GapCause, Lens, Trigger};

/// The lens is in a state in which this cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotNow(pub(crate) CaptureState);

impl Lens {
    /// StartCapture: only of an idle lens.
    pub(crate) fn start(&mut self) -> Result<(), NotNow> {
        if self.state != CaptureState::Idle || self.begins {
            return Err(NotNow(self.state));
        }
        if self.is_held() && self.must_hold() {
            return Err(NotNow(self.state));
        }
        self.asleep = false;
        let now = self.clock.mono();
        if self.must_hold() {
            // It starts when it need not give way any more.
            self.intake.down(GapCause::Degraded, now);
            self.cause = Some(GapCause::Degraded);
            return Ok(());
        }
        self.intake.down(GapCause::Starting, now);
        self.go(Trigger::Start, Some(GapCause::Starting), now);
        Ok(())
    }

    /// StopCapture: of any lens that is not idle. Nothing that its source still delivers counts.
    pub(crate) fn stop(&mut self) -> Result<(), NotNow> {
        if std::mem::take(&mut self.asleep) {
            return Ok(());
        }
        let begun = !std::mem::take(&mut self.begins);
        let now = self.clock.mono();
        if self.is_held() {
            self.intake.down(GapCause::CaptureStopped, now);
            self.cause = Some(GapCause::CaptureStopped);
            return Ok(());
        }
        if self.state == CaptureState::Idle && begun {
            return Err(NotNow(self.state));
        }
        self.coding.has_room();
        self.leave();
        self.intake.down(GapCause::CaptureStopped, now);
        if begun {
            self.go(Trigger::Stop, Some(GapCause::CaptureStopped), now);
        } else {
            self.cause = Some(GapCause::CaptureStopped);
        }
        Ok(())
    }

    /// The recorder is parked: stopped until it is woken, unless it is idle for another reason.
    pub(crate) fn sleep(&mut self) {
        if !self.asleep {
            self.asleep = self.stop().is_ok();
        }
    }

    /// The recorder is awake; whether that starts the lens.
    pub(crate) fn wake(&mut self) -> bool {
        std::mem::take(&mut self.asleep) && self.start().is_ok() && self.state != CaptureState::Idle
    }

    /// ResetCapture: source, breaker and back-off of a lens that is not idle are dropped and it starts anew. Knows nothing
    /// of footage.
    pub(crate) fn reset(&mut self) -> Result<(), NotNow> {
        if self.state == CaptureState::Idle {
            return Err(NotNow(self.state));
        }
        let now = self.clock.mono();
        self.leave();
        self.breaker.reset();
        self.backoff.reset();
        self.intake.down(GapCause::CaptureReset, now);
        self.go(Trigger::Reset, Some(GapCause::CaptureReset), now);
        Ok(())
    }
}
