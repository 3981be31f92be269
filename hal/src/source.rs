//! How a lens is opened and what it then yields.
//!
//! A [`LensSource`] runs from the moment it is opened until it is dropped; it pushes into a [`UnitSink`] from a thread of
//! its own choosing and never waits for the sink. It does not retry: one failure ends it, and the capture service decides
//! what happens next.

use std::fmt;
use std::path::PathBuf;

use crate::media::AccessUnit;

/// Why a source ended or could not start. Texts never hold credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The device, file or host is not there.
    #[error("{what} is absent: {detail}")]
    Absent {
        /// The source without credentials.
        what: String,
        /// What was seen.
        detail: String,
    },
    /// The camera said no (credentials, permissions, busy, unknown stream).
    #[error("{what} refused: {detail}")]
    Refused {
        /// The source without credentials.
        what: String,
        /// What it answered.
        detail: String,
    },
    /// The camera speaks, but nothing that MOS records.
    #[error("{what} is not supported: {detail}")]
    Unsupported {
        /// The source without credentials.
        what: String,
        /// What was offered and what would be accepted.
        detail: String,
    },
    /// It ran and broke off.
    #[error("{what} broke off: {detail}")]
    Broken {
        /// The source without credentials.
        what: String,
        /// What was seen last.
        detail: String,
    },
    /// It ran and came to its regular end (a file without `loop`).
    #[error("{what} ended")]
    Ended {
        /// The source without credentials.
        what: String,
    },
}

/// Where a running source delivers. Calls must return at once: an implementation drops rather than waits.
pub trait UnitSink: Send + Sync {
    /// One access unit, in decoding order per track.
    fn unit(&self, unit: AccessUnit);
    /// The source is over; nothing follows.
    fn ended(&self, why: SourceError);
}

/// A running lens. Dropping it stops it; drop returns within 2 s.
pub trait LensSource: Send {
    /// Asks the encoder or camera for a keyframe soon; false if the source has no means to.
    fn request_keyframe(&self) -> bool;
}

/// A source as written in the configuration. `Debug` and `Display` never show credentials.
#[derive(Clone, PartialEq, Eq)]
pub enum SourceSpec {
    /// `test:` with options `width`, `height`, `fps`, `codec` (h264, h265), `gop` (frames), `bitrate` (bit/s), `audio`.
    Test(TestPattern),
    /// `file:/path.mp4?loop=true`: played in real time, not transcoded.
    File {
        /// The file.
        path: PathBuf,
        /// Start again at its end.
        looped: bool,
    },
    /// `rtsp://[user:password@]host[:port]/path`, TCP interleaved.
    Rtsp {
        /// The URL without user information.
        url: url::Url,
        /// User name and password, percent-decoded.
        credentials: Option<Credentials>,
    },
    /// `v4l2:/dev/videoN` with options `width`, `height`, `fps`.
    V4l2 {
        /// The device node.
        device: PathBuf,
        /// Wanted width and height in pixels, if given.
        size: Option<(u32, u32)>,
        /// Wanted frames per second, if given.
        fps: Option<u32>,
    },
}

/// User name and password. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// The synthetic scene: moving bars with frame number and running clock burnt in, encoded on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestPattern {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Frames per second.
    pub fps: u32,
    /// Codec of the host encoder.
    pub codec: crate::media::VideoCodec,
    /// Frames from keyframe to keyframe; at most one second.
    pub gop: u32,
    /// Target in bit/s.
    pub bitrate: u32,
    /// With a sine tone.
    pub audio: bool,
}
