//! Media types without GStreamer: what a lens delivers and in which format.
//!
//! Any crate may use these. They own their bytes; nothing here decodes.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Mono;

/// A lens by its name in configuration, API and file paths: `[a-z0-9][a-z0-9_]{0,31}`.
///
/// A hyphen is not allowed: segment ids are `{lens}-{run}-{seq}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LensId(Arc<str>);

/// A lens name that breaks the rule of [`LensId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no lens id: use 1 to 32 of a-z, 0-9 and _, starting with a letter or digit")]
pub struct BadLensId(pub String);

impl LensId {
    /// Checks the name.
    pub fn new(name: &str) -> Result<Self, BadLensId> {
        let ok = (1..=32).contains(&name.len())
            && !name.starts_with('_')
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if ok { Ok(Self(name.into())) } else { Err(BadLensId(name.to_owned())) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LensId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LensId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A video codec that MOS records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VideoCodec {
    /// ISO/IEC 14496-10.
    H264,
    /// ISO/IEC 23008-2.
    H265,
}

impl VideoCodec {
    /// The name in the API: `h264` or `h265`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::H265 => "h265",
        }
    }
}

/// How pictures are to be turned when they are shown, clockwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rotation {
    /// Shown as they are.
    #[default]
    None,
    /// By 90 degrees.
    Quarter,
    /// By 180 degrees.
    Half,
    /// By 270 degrees.
    ThreeQuarters,
}

impl Rotation {
    /// In degrees.
    #[must_use]
    pub fn degrees(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Quarter => 90,
            Self::Half => 180,
            Self::ThreeQuarters => 270,
        }
    }

    /// Of 0, 90, 180 or 270 degrees.
    #[must_use]
    pub fn of_degrees(degrees: u32) -> Option<Self> {
        [Self::None, Self::Quarter, Self::Half, Self::ThreeQuarters].into_iter().find(|r| r.degrees() == degrees)
    }

    /// Width and height of a picture that was turned.
    #[must_use]
    pub fn of_size(self, (width, height): (u32, u32)) -> (u32, u32) {
        match self {
            Self::None | Self::Half => (width, height),
            Self::Quarter | Self::ThreeQuarters => (height, width),
        }
    }
}

/// The format of a video track; a change of any field starts a new segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VideoFormat {
    /// The codec.
    pub codec: VideoCodec,
    /// Displayed width in pixels, after cropping, before the pixel aspect ratio.
    pub width: u32,
    /// Displayed height in pixels.
    pub height: u32,
    /// Pixel aspect ratio as numerator and denominator; (1, 1) if unknown.
    pub pixel_aspect: (u32, u32),
    /// The decoder configuration record (`avcC`/`hvcC` contents, ISO/IEC 14496-15), NAL lengths of 4 bytes.
    pub config: Bytes,
    /// Most frames that precede any frame in decoding order and follow it in output order, as the SPS says; 0 if unknown.
    pub reorder: u8,
    /// Nominal frame duration in nanoseconds, if the source tells.
    pub frame_duration: Option<u64>,
    /// How its pictures are to be shown. Sources deliver them as they are; capture notes what was configured.
    pub rotation: Rotation,
}

/// How G.711 bends its scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Law {
    /// A-law, most of the world.
    A,
    /// µ-law, North America and Japan.
    Mu,
}

/// The format of an audio track.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AudioFormat {
    /// MPEG-4 AAC, raw access units.
    Aac {
        /// Samples per second.
        sample_rate: u32,
        /// Channels.
        channels: u16,
        /// The AudioSpecificConfig (ISO/IEC 14496-3).
        config: Bytes,
    },
    /// ITU-T G.711: a byte for each sample of each channel, a unit is a packet of them.
    G711 {
        /// A-law or µ-law.
        law: Law,
        /// Samples per second.
        sample_rate: u32,
        /// Channels.
        channels: u16,
    },
}

impl AudioFormat {
    /// Samples per second.
    #[must_use]
    pub fn sample_rate(&self) -> u32 {
        match self {
            Self::Aac { sample_rate, .. } | Self::G711 { sample_rate, .. } => *sample_rate,
        }
    }

    /// How long a unit lasts as a rule, in nanoseconds: 1024 samples of AAC, 20 ms of G.711 (RFC 3551, 4.2).
    #[must_use]
    pub fn unit_duration(&self) -> i64 {
        match self {
            Self::Aac { sample_rate, .. } => 1024 * 1_000_000_000 / i64::from((*sample_rate).max(1)),
            Self::G711 { .. } => 20_000_000,
        }
    }
}

/// The format of a track. Shared by all access units until it changes; compare by value, not by pointer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TrackFormat {
    /// Moving pictures.
    Video(VideoFormat),
    /// Sound.
    Audio(AudioFormat),
}

/// What a decoder may do at an access unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// H.264 or H.265 IDR: decoding may start here, nothing later refers back.
    Idr,
    /// H.265 BLA: like CRA, its RASL pictures are to be dropped.
    Bla,
    /// H.265 CRA: decoding may start here, but RASL pictures that follow refer back over it.
    Cra,
    /// H.265 RASL: undecodable if decoding started at the CRA or BLA before.
    Rasl,
    /// H.264 or H.265 recovery point (SEI): exact after some frames; the only entry of intra-refresh streams.
    RecoveryPoint,
    /// Any other video frame.
    Delta,
    /// An audio access unit.
    Audio,
}

/// One coded picture or one coded audio frame, in decoding order of its track.
#[derive(Clone, Debug)]
pub struct AccessUnit {
    /// The format in force. Parameter sets live here, not in `data`.
    pub format: Arc<TrackFormat>,
    /// What may start here.
    pub kind: FrameKind,
    /// Capture (presentation) time; `None` if the source gave none, then the recorder repairs it.
    pub pts: Option<Mono>,
    /// Duration in nanoseconds if the source tells.
    pub duration: Option<u64>,
    /// When the unit reached MOS. Never later than now.
    pub arrival: Mono,
    /// Something before this unit is known to be missing (RTP loss, a decoder discontinuity): not decodable until a keyframe.
    pub discontinuity: bool,
    /// NAL units with 4-byte lengths, or sound as its format says.
    pub data: Bytes,
}
