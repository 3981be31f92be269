//! From frames of a network session, by whatever transport, to access units with capture times.
//!
//! Promises the same order and times for all transports: units are held while the session opens, then placed by one
//! mapping of the media clock. A loss is told with the picture that follows it.

use std::sync::Arc;

use super::opening::{Opening, Raw};
use super::outlet::Outlet;
use crate::clock::Mono;
use crate::media::AccessUnit;
use crate::timeline::Timeline;

/// The way of one session's units.
pub(super) struct Receiver {
    outlet: Arc<Outlet>,
    /// Until the media clock is anchored.
    opening: Option<Opening>,
    timeline: Timeline,
}

impl Receiver {
    /// Of a session that was opened at `opened`.
    pub(super) fn new(outlet: &Arc<Outlet>, opened: Mono) -> Self {
        Self { outlet: Arc::clone(outlet), opening: Some(Opening::new(opened)), timeline: Timeline::new() }
    }

    /// How many units are held. When [`PROBE`](super::opening::PROBE) passes without another one, the opening is to be settled.
    pub(super) fn held(&self) -> usize {
        self.opening.as_ref().map_or(0, Opening::held)
    }

    /// Whether the media clock is anchored.
    pub(super) fn is_settled(&self) -> bool {
        self.opening.is_none()
    }

    /// Passes a unit on, or holds it.
    pub(super) fn pass(&mut self, raw: Raw) {
        if let Some(opening) = &mut self.opening {
            if opening.take(raw) {
                self.settle();
            }
        } else {
            let pts = self.timeline.place(raw.track, raw.media, raw.unit.arrival);
            self.outlet.unit(AccessUnit { pts: Some(pts), ..raw.unit });
        }
    }

    /// The opening is over.
    pub(super) fn settle(&mut self) {
        if let Some(opening) = self.opening.take() {
            opening.place(&mut self.timeline).for_each(|unit| self.outlet.unit(unit));
        }
    }
}
