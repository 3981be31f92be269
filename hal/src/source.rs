//! How a lens is opened and what it then yields.
//!
//! A [`LensSource`] runs from the moment it is opened until it is dropped; it pushes into a [`UnitSink`] from a thread of
//! its own choosing and never waits for the sink. It does not retry: one failure ends it, and the capture service decides
//! what happens next.

use std::sync::Arc;

use crate::clock::Mono;
use crate::codecs::families::Memory;
use crate::frames::LensFrames;
use crate::media::AccessUnit;

mod network;
mod raw;
mod spec;
mod srt;
mod whep;

pub use network::{Credentials, Fingerprint, Transport, Trust};
pub use raw::RawOptions;
pub use spec::{BadSource, SourceSpec, TestPattern};
pub(crate) use spec::{percent_decoded, redacted};
pub(crate) use srt::address as srt_address;
pub use srt::{SrtMode, SrtOptions};

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
    /// The encoder has no part left for it: others have them.
    #[error("{what} does not fit: {detail}")]
    Exhausted {
        /// The source without credentials.
        what: String,
        /// What is free and what it would need.
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

/// Who left pictures out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeftOutBy {
    /// The host's encoder, or the machine that paints, was too slow.
    Encoder,
    /// The camera or its driver: their numbers or times show that pictures are missing.
    Camera,
}

/// Where a running source delivers. Calls must return at once: an implementation drops rather than waits.
pub trait UnitSink: Send + Sync {
    /// One access unit, in decoding order per track.
    fn unit(&self, unit: AccessUnit);
    /// `pictures` were given up before they were coded, or never came from the camera: none of them comes as a unit, and what
    /// does come decodes without them. `from` is the capture time of the first, `to` that of the next that is coded. Told at once,
    /// so units that were captured before may follow.
    fn left_out(&self, from: Mono, to: Mono, pictures: u64, by: LeftOutBy) {
        let _ = (from, to, pictures, by);
    }
    /// The source is over; nothing follows.
    fn ended(&self, why: SourceError);
    /// Where its raw pictures are published, if they are: asked once, while the source is opened.
    fn frames(&self) -> Option<Arc<LensFrames>> {
        None
    }
    /// Of how many pictures one is to be coded, 1 for all: asked for each picture by sources that code, so that a change takes
    /// effect at once and costs nothing but the pictures that it is meant to save. What is thinned out so is no loss.
    fn one_in(&self) -> u32 {
        1
    }
    /// How many of its pictures are coded, and what that takes of the board's encoder: told by sources that code, at their first
    /// picture and when it changes, since a larger part is not always to be had.
    fn coded(&self, share: Share) {
        let _ = share;
    }
}

/// What a lens has of the board's encoder, and what it would need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Of so many pictures one is coded; 0: there was no room for any.
    pub one_in: u32,
    /// What was wanted when that was settled; see [`UnitSink::one_in`].
    pub wanted: u32,
    /// Pixels per second that all of its pictures are; 0 if nobody counts what its encoder takes.
    pub needs: u64,
    /// Pixels per second that the encoder takes of all lenses together.
    pub budget: u64,
}

impl Share {
    /// Pixels per second that it has.
    #[must_use]
    pub fn taken(self) -> u64 {
        self.needs.checked_div(u64::from(self.one_in)).unwrap_or(0)
    }

    /// Fewer pictures are coded than were wanted.
    #[must_use]
    pub fn is_short(self) -> bool {
        self.one_in > self.wanted.max(1)
    }
}

/// A running lens. Dropping it stops it; drop returns within 2 s.
pub trait LensSource: Send {
    /// Asks the encoder or camera for a keyframe soon; false if the source has no means to.
    fn request_keyframe(&self) -> bool;
    /// [`UnitSink::one_in`] says something else now. For sources whose pictures are coded where they cannot ask it.
    fn thin(&self, one_in: u32) {
        let _ = one_in;
    }
    /// Whether its camera is the one to connect: silence before that is no trouble of the source.
    fn awaits_caller(&self) -> bool {
        false
    }
    /// Where raw pictures are on their way to the encoder, once the first has passed; `None` if the camera codes by itself.
    fn memory(&self) -> Option<Memory> {
        None
    }
}
