//! What the service tells about a lens.

use std::time::Duration;

use mos_hal::clock::Mono;
use mos_hal::media::LensId;
use mos_hal::onvif::EventKind;

use crate::archive::gaps::GapCause;
use crate::power::{PowerState, Trigger};

use super::Isolation;
use super::breaker::Breaker;
use super::ladder::{Reason, Step};
use super::machine::CaptureState;
use super::settings::{StreamSettings, Target};

/// A lens as capture sees it. What was dropped on the way to the disk is in the recorder's status.
#[derive(Clone, Debug, PartialEq)]
pub struct LensStatus {
    /// The lens.
    pub lens: LensId,
    /// Its source without credentials.
    pub source: String,
    /// It was added by ConfigureStream, and is not in the configuration file.
    pub added: bool,
    /// It is idle until the recorder is woken; see [`crate::power`].
    pub asleep: bool,
    /// How far it gives way to others, if it does.
    pub degraded: Option<Degraded>,
    /// Where its source runs.
    pub isolation: Isolation,
    /// Where it stands.
    pub state: CaptureState,
    /// Since when.
    pub since: Mono,
    /// Why it does not deliver, while it does not.
    pub cause: Option<GapCause>,
    /// What went wrong last, and when; kept after it works again.
    pub last_error: Option<(String, Mono)>,
    /// When the next attempt is due, while it waits.
    pub next_attempt: Option<Mono>,
    /// The circuit breaker.
    pub breaker: Breaker,
    /// What was asked by ConfigureStream.
    pub settings: StreamSettings,
    /// What its source is asked for.
    pub target: Target,
    /// From keyframe to keyframe, as last seen.
    pub keyframe_interval: Option<Duration>,
    /// Video units delivered so far.
    pub frames: u64,
    /// Bytes delivered so far, all tracks.
    pub bytes: u64,
    /// Units whose source knew of a loss before them.
    pub discontinuities: u64,
    /// Capture time of its newest picture.
    pub newest: Option<Mono>,
    /// How much later than the first lens that streams it captures, in seconds, up to half a frame; `None` if their rates differ.
    pub skew: Option<f64>,
    /// Video units per second, lately.
    pub frame_rate: f64,
    /// Bits per second, lately, all tracks.
    pub bitrate: u64,
    /// `h264` or `h265`, once known.
    pub codec: Option<&'static str>,
    /// Width and height in pixels, once known.
    pub size: Option<(u32, u32)>,
    /// Where raw pictures are on their way to the encoder: `dmabuf` or `system`; `None` if the camera codes, and before the first.
    pub memory: Option<&'static str>,
    /// Whether sound arrives.
    pub audio: bool,
    /// How often the source was opened again.
    pub reconnects: u64,
}

/// A lens that gives way to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Degraded {
    /// How far.
    pub step: Step,
    /// To what.
    pub reason: Reason,
    /// What was seen then, for people.
    pub why: String,
    /// Since when.
    pub since: Mono,
}

/// Whether the events of a lens's camera are heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsStatus {
    /// Since when the camera tells them; `None` while it does not.
    pub since: Option<Mono>,
    /// Why it did not, last, and when; kept after it does again.
    pub last_error: Option<(String, Mono)>,
}

/// What those hear who follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A lens went from one state to another.
    Lens(LensChange),
    /// A lens that was added has been taken out.
    Removed {
        /// The lens.
        lens: LensId,
        /// When.
        at: Mono,
    },
    /// A lens gives way to others, further or less far than before, or not any more.
    Degraded {
        /// The lens.
        lens: LensId,
        /// How far, if it still does.
        degraded: Option<Degraded>,
        /// When.
        at: Mono,
    },
    /// The recorder went from one state between ignition and parking to another.
    Power {
        /// Where it stood.
        from: PowerState,
        /// Where it stands now.
        to: PowerState,
        /// Why.
        by: Trigger,
        /// When.
        at: Mono,
    },
    /// The first keyframe of a lens that was woken is durable.
    Woken {
        /// The lens.
        lens: LensId,
        /// What woke it.
        by: Trigger,
        /// How long that took.
        took: Duration,
        /// When it was durable.
        at: Mono,
    },
    /// A camera reported something that is configured to count.
    Camera {
        /// The lens.
        lens: LensId,
        /// What.
        event: EventKind,
        /// It began, or it is over.
        active: bool,
        /// When it was heard of.
        at: Mono,
    },
    /// Devices came or went: another ListDevices tells which.
    Devices(Mono),
}

/// A lens went from one state to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LensChange {
    /// The lens.
    pub lens: LensId,
    /// Where it stood.
    pub from: CaptureState,
    /// Where it stands now.
    pub to: CaptureState,
    /// Why it does not deliver, if it does not.
    pub cause: Option<GapCause>,
    /// What was seen, for people.
    pub detail: Option<String>,
    /// When.
    pub at: Mono,
}
