//! The operations of the service on one lens: ConfigureStream, StartCapture, StopCapture, ResetCapture.
//!
//! Each takes effect before it returns, at the latest when the service looks next, which it does at once; none waits for a
//! camera. None touches footage.

use mos_hal::media::LensId;

use super::ladder::{Reason, Step};
use super::lens::{Lens, Load, NotNow};
use super::settings::{StreamSettings, check};
use super::{CaptureControlService, CaptureState, Degraded, LensStatus, News, lock};

/// Why an operation was not done. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// No lens of that name is configured.
    #[error("there is no lens '{0}'; configure it with a device to add it")]
    NoLens(LensId),
    /// What a lens shall be added with is not there or cannot be used.
    #[error("no such device: {0}")]
    NoDevice(String),
    /// Another lens captures from it, or the lens from something else.
    #[error("{device} is captured by lens {by} already")]
    Taken {
        /// What.
        device: String,
        /// By whom.
        by: LensId,
    },
    /// It stands in the configuration file.
    #[error("lens {0} stands in the configuration file and goes when it is taken out there")]
    InFile(LensId),
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
    /// The camera or encoder cannot do it.
    #[error("lens {lens} cannot be configured so: {why}")]
    Settings {
        /// The lens.
        lens: LensId,
        /// What would be accepted.
        why: String,
    },
    /// The configuration could not be made durable.
    #[error("the configuration cannot be kept: {0}")]
    NotDurable(String),
}

impl CaptureControlService {
    /// Starts an idle lens (StartCapture).
    pub fn start_capture(&self, lens: &LensId) -> Result<LensStatus, CaptureError> {
        let mut store = lock(&self.shared.store);
        let status = self.ask(lens, "it is started already; reset it to start it anew", Lens::start)?;
        store.stopped(lens, false);
        Ok(status)
    }

    /// Stops a lens until it is started again, over restarts; what is missing meanwhile is a gap `capture_stopped`
    /// (StopCapture).
    pub fn stop_capture(&self, lens: &LensId) -> Result<LensStatus, CaptureError> {
        let mut store = lock(&self.shared.store);
        let status = self.ask(lens, "it is stopped already", Lens::stop)?;
        store.stopped(lens, true);
        Ok(status)
    }

    /// Drops source, circuit breaker and back-off of a lens and starts it anew (ResetCapture).
    pub fn reset_capture(&self, lens: &LensId) -> Result<LensStatus, CaptureError> {
        self.ask(lens, "there is nothing to reset; start it", Lens::reset)
    }

    /// Changes what is asked of a lens, after checking that camera and encoder can do it, and keeps it over restarts. What
    /// `settings` leaves out stays, or with `anew` becomes what the configuration file says. A lens that is not idle is
    /// started anew with a gap `capture_reset`. A lens that is not there yet is added, if a device is named (ConfigureStream).
    pub fn configure_stream(
        &self,
        id: &LensId,
        settings: &StreamSettings,
        anew: bool,
        device: Option<&str>,
    ) -> Result<LensStatus, CaptureError> {
        let refused = |why| CaptureError::Settings { lens: id.clone(), why };
        // Held throughout: one configuration after another.
        let mut store = lock(&self.shared.store);
        let (lens, device) = match (self.lens(id), device) {
            (Some(lens), device) => (lens, device),
            (None, Some(device)) => return self.add(&mut store, id, device, settings),
            (None, None) => return Err(CaptureError::NoLens(id.clone())),
        };
        let (base, before) = {
            let lens = lock(&lens);
            (lens.base().clone(), lens.settings().clone())
        };
        if device.is_some_and(|device| !self.is_from(&base.source, device)) {
            return Err(CaptureError::Taken { device: base.source.to_string(), by: id.clone() });
        }
        let settings = if anew { settings.clone() } else { settings.over(&before) };
        let config = settings.apply(&base).map_err(refused)?;
        // May ask devices, so without holding up the lens.
        check(&config.source, &*self.shared.openers.platform).map_err(refused)?;
        store.keep(id, &settings).map_err(|e| CaptureError::NotDurable(e.to_string()))?;
        let mut lens = lock(&lens);
        if lens.set(config, settings) {
            // Refused only of an idle lens, which takes the new settings when it is started.
            let _ = lens.reset();
            self.shared.bell.ring();
        }
        Ok(lens.status())
    }

    /// Lets the lenses sleep for which `asleep` says so, and wakes the others; gives those that were started by it. Lenses that a
    /// user stopped, or whose file is at its end, stay as they are.
    pub(crate) fn sleep(&self, asleep: &dyn Fn(&LensId) -> bool) -> Vec<LensId> {
        let mut started = Vec::new();
        for lens in self.lenses() {
            let mut lens = lock(&lens);
            if asleep(lens.id()) {
                lens.sleep();
            } else if lens.wake() {
                started.push(lens.id().clone());
            }
        }
        self.shared.bell.ring();
        started
    }

    /// What the ladder needs to know, in the order of the configuration, then lenses that were added.
    pub(super) fn loads(&self) -> Vec<Load> {
        self.lenses().iter().map(|lens| lock(lens).load()).collect()
    }

    /// Has a lens take a step of the ladder; how far it gives way then.
    pub(super) fn give_way(&self, id: &LensId, step: Step, reason: Option<Reason>, why: &str) -> Option<Degraded> {
        let lens = self.lens(id)?;
        let degraded = lock(&lens).give_way(step, reason, why);
        self.shared.bell.ring();
        degraded
    }

    /// Tells those who follow.
    pub(crate) fn tell(&self, news: News) {
        // Nobody may be listening.
        let _ = self.shared.parts.changes.send(news);
    }

    fn ask(
        &self,
        id: &LensId,
        advice: &'static str,
        operation: impl FnOnce(&mut Lens) -> Result<(), NotNow>,
    ) -> Result<LensStatus, CaptureError> {
        let lens = self.lens(id).ok_or_else(|| CaptureError::NoLens(id.clone()))?;
        let mut lens = lock(&lens);
        let done = operation(&mut lens);
        let advice = if lens.is_held() { "it gives way to others and comes back by itself" } else { advice };
        done.map_err(|NotNow(state)| CaptureError::NotNow { lens: id.clone(), state, advice })?;
        self.shared.bell.ring();
        Ok(lens.status())
    }
}
