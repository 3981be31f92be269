//! What the service tells about a lens.

use mos_hal::clock::Mono;
use mos_hal::media::LensId;

/// Where a lens stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CaptureState {
    /// Opened; no unit yet.
    Connecting,
    /// Delivering.
    Streaming,
    /// Opened, but silent for some seconds; given up soon.
    Stalled,
    /// Waiting for the next attempt.
    BackingOff,
    /// Waiting too, but what went wrong needs somebody to look at it (refused, not supported).
    Failed,
    /// The source came to its regular end.
    Ended,
    /// The service was stopped or has not begun.
    Stopped,
}

impl CaptureState {
    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Streaming => "streaming",
            Self::Stalled => "stalled",
            Self::BackingOff => "backing_off",
            Self::Failed => "failed",
            Self::Ended => "ended",
            Self::Stopped => "stopped",
        }
    }
}

/// A lens as capture sees it. What was dropped on the way to the disk is in the recorder's status.
#[derive(Clone, Debug, PartialEq)]
pub struct LensStatus {
    /// The lens.
    pub lens: LensId,
    /// Its source without credentials.
    pub source: String,
    /// Where it stands.
    pub state: CaptureState,
    /// Since when.
    pub since: Mono,
    /// What went wrong last, and when; kept after it works again.
    pub last_error: Option<(String, Mono)>,
    /// When the next attempt is due, while backing off.
    pub next_attempt: Option<Mono>,
    /// Video units delivered so far.
    pub frames: u64,
    /// Bytes delivered so far, all tracks.
    pub bytes: u64,
    /// Units whose source knew of a loss before them.
    pub discontinuities: u64,
    /// Video units per second, lately.
    pub frame_rate: f64,
    /// Bits per second, lately, all tracks.
    pub bitrate: u64,
    /// `h264` or `h265`, once known.
    pub codec: Option<&'static str>,
    /// Width and height in pixels, once known.
    pub size: Option<(u32, u32)>,
    /// Whether sound arrives.
    pub audio: bool,
    /// How often the source was opened again.
    pub reconnects: u64,
}
