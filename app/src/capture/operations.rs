//! The operations of the service on one lens: StartCapture, StopCapture, ResetCapture.
//!
//! Each takes effect before it returns, at the latest when the service looks next, which it does at once; none waits for a
//! camera. None touches footage.

use mos_hal::media::LensId;

use super::lens::{Lens, NotNow};
use super::{CaptureControlService, CaptureState, LensStatus, lock};

/// Why an operation was not done. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// No lens of that name is configured.
    #[error("there is no lens '{0}'")]
    NoLens(LensId),
    /// The lens is in a state in which this cannot be done.
    #[error("lens {lens} is {}: {advice}", state.name())]
    NotNow {
        /// The lens.
        lens: LensId,
        /// Where it stands.
        state: CaptureState,
        /// What can be done instead.
        advice: &'static str,
    },
}

impl CaptureControlService {
    /// Starts an idle lens (StartCapture).
    pub fn start_capture(&self, lens: &LensId) -> Result<LensStatus, CaptureError> {
        self.ask(lens, "it is started already; reset it to start it anew", Lens::start)
    }

    /// Stops a lens until it is started again; what is missing meanwhile is a gap `capture_stopped` (StopCapture).
    pub fn stop_capture(&self, lens: &LensId) -> Result<LensStatus, CaptureError> {
        self.ask(lens, "it is stopped already", Lens::stop)
    }

    /// Drops source, circuit breaker and back-off of a lens and starts it anew (ResetCapture).
    pub fn reset_capture(&self, lens: &LensId) -> Result<LensStatus, CaptureError> {
        self.ask(lens, "there is nothing to reset; start it", Lens::reset)
    }

    fn ask(
        &self,
        id: &LensId,
        advice: &'static str,
        operation: impl FnOnce(&mut Lens) -> Result<(), NotNow>,
    ) -> Result<LensStatus, CaptureError> {
        for lens in &self.shared.lenses {
            let mut lens = lock(lens);
            if lens.id() != id {
                continue;
            }
            let NotNow(state) = match operation(&mut lens) {
                Ok(()) => {
                    self.shared.bell.ring();
                    return Ok(lens.status());
                }
                Err(not_now) => not_now,
            };
            return Err(CaptureError::NotNow { lens: id.clone(), state, advice });
        }
        Err(CaptureError::NoLens(id.clone()))
    }
}
