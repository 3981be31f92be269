//! The states of a lens and the only ways from one to another.
//!
//! Pure: no clock, no source. [`super::lens`] asks [`next`] for every change, so that what is not in [`TRANSITIONS`] cannot
//! happen. ARCHITECTURE.md draws the same table.

/// Where a lens stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CaptureState {
    /// What it is captured from is not there: unplugged, no such node or file. Tried again.
    Absent,
    /// Nothing is to be captured: not begun, stopped, or the file is at its end. The cause tells which.
    Idle,
    /// Being opened; no unit yet.
    Connecting,
    /// Delivering.
    Streaming,
    /// Opened, but silent for some seconds; given up soon.
    Stalled,
    /// Waiting for the next attempt.
    BackingOff,
    /// Failed so often in a row that it is left alone for a while; then trial runs.
    CircuitOpen,
    /// Waiting too, but what went wrong needs somebody to look at it (refused, not supported).
    Failed,
}

impl CaptureState {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Absent,
        Self::Idle,
        Self::Connecting,
        Self::Streaming,
        Self::Stalled,
        Self::BackingOff,
        Self::CircuitOpen,
        Self::Failed,
    ];

    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Streaming => "streaming",
            Self::Stalled => "stalled",
            Self::BackingOff => "backing_off",
            Self::CircuitOpen => "circuit_open",
            Self::Failed => "failed",
        }
    }

    /// Whether the next attempt is only a matter of time.
    #[must_use]
    pub fn waits(self) -> bool {
        matches!(self, Self::Absent | Self::BackingOff | Self::CircuitOpen | Self::Failed)
    }
}

/// What moves a lens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Trigger {
    /// The service begins, or StartCapture.
    Start,
    /// A unit came.
    Delivers,
    /// No unit for some seconds.
    Silent,
    /// What it is captured from went away or was not found.
    Gone,
    /// It broke off, could not be reached or was silent for too long.
    Breaks,
    /// It said no, or speaks nothing that MOS records.
    Refuses,
    /// The same as the last two, once too often in a row.
    Trips,
    /// It came to its regular end.
    Ends,
    /// The next attempt is due.
    Due,
    /// StopCapture, or the service stops.
    Stop,
    /// ResetCapture, or ConfigureStream of a lens that is not idle.
    Reset,
}

use CaptureState::{Absent, BackingOff, CircuitOpen, Connecting, Failed, Idle, Stalled, Streaming};

/// From, by what, to.
pub(crate) const TRANSITIONS: &[(CaptureState, Trigger, CaptureState)] = &[
    (Idle, Trigger::Start, Connecting),
    // A source that is open.
    (Connecting, Trigger::Delivers, Streaming),
    (Streaming, Trigger::Silent, Stalled),
    (Stalled, Trigger::Delivers, Streaming),
    (Connecting, Trigger::Gone, Absent),
    (Streaming, Trigger::Gone, Absent),
    (Stalled, Trigger::Gone, Absent),
    (Connecting, Trigger::Breaks, BackingOff),
    (Streaming, Trigger::Breaks, BackingOff),
    (Stalled, Trigger::Breaks, BackingOff),
    (Connecting, Trigger::Refuses, Failed),
    (Streaming, Trigger::Refuses, Failed),
    (Stalled, Trigger::Refuses, Failed),
    (Connecting, Trigger::Trips, CircuitOpen),
    (Streaming, Trigger::Trips, CircuitOpen),
    (Stalled, Trigger::Trips, CircuitOpen),
    (Connecting, Trigger::Ends, Idle),
    (Streaming, Trigger::Ends, Idle),
    (Stalled, Trigger::Ends, Idle),
    // Waiting.
    (Absent, Trigger::Due, Connecting),
    (BackingOff, Trigger::Due, Connecting),
    (CircuitOpen, Trigger::Due, Connecting),
    (Failed, Trigger::Due, Connecting),
    // Asked for.
    (Absent, Trigger::Stop, Idle),
    (Connecting, Trigger::Stop, Idle),
    (Streaming, Trigger::Stop, Idle),
    (Stalled, Trigger::Stop, Idle),
    (BackingOff, Trigger::Stop, Idle),
    (CircuitOpen, Trigger::Stop, Idle),
    (Failed, Trigger::Stop, Idle),
    (Absent, Trigger::Reset, Connecting),
    (Connecting, Trigger::Reset, Connecting),
    (Streaming, Trigger::Reset, Connecting),
    (Stalled, Trigger::Reset, Connecting),
    (BackingOff, Trigger::Reset, Connecting),
    (CircuitOpen, Trigger::Reset, Connecting),
    (Failed, Trigger::Reset, Connecting),
];

/// Where `trigger` leads; `None` if it is not possible in this state.
pub(crate) fn next(state: CaptureState, trigger: Trigger) -> Option<CaptureState> {
    TRANSITIONS.iter().find(|(from, by, _)| (*from, *by) == (state, trigger)).map(|(_, _, to)| *to)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn k4_each_way_is_listed_once_and_every_state_is_reached_and_left() {
        let ways: BTreeSet<_> = TRANSITIONS.iter().map(|(from, by, _)| (from, by)).collect();
        assert_eq!(ways.len(), TRANSITIONS.len());
        for state in CaptureState::ALL {
            assert!(TRANSITIONS.iter().any(|(_, _, to)| *to == state), "{state:?} is never reached");
            assert!(TRANSITIONS.iter().any(|(from, _, _)| *from == state), "{state:?} is never left");
            assert_eq!(next(state, Trigger::Stop).is_some(), state != Idle);
            assert_eq!(next(state, Trigger::Due).is_some(), state.waits());
        }
    }
}
