//! Encoders of raw pictures and of raw sound, as pipeline text.
//!
//! Promises closed GOPs without B-frames and no picture held back.

use crate::codecs::families::{self, Family, Memory};
use crate::gst as common;
use crate::media::VideoCodec;

/// What to encode.
pub(crate) struct Encoding {
    pub(crate) codec: VideoCodec,
    /// Target in bit/s.
    pub(crate) bitrate: u32,
    /// Frames from keyframe to keyframe.
    pub(crate) gop: u32,
}

/// The CPU's encoder and its parser as pipeline text, from I420 to what [`super::samples`] reads.
pub(crate) fn text(e: &Encoding) -> Result<String, String> {
    let family = match e.codec {
        VideoCodec::H264 => &families::X264,
        VideoCodec::H265 => &families::X265,
    };
    if !common::has(family.element) {
        return Err(format!("needs the GStreamer element {}", family.element));
    }
    Ok(by(family, e, Memory::System))
}

/// The same by any encoder, from pictures in `from`.
pub(super) fn by(family: &Family, e: &Encoding, from: Memory) -> String {
    let (parser, caps) = match e.codec {
        VideoCodec::H264 => ("h264parse", super::samples::H264),
        VideoCodec::H265 => ("h265parse", super::samples::H265),
    };
    format!("{} ! {parser} config-interval=0 ! {caps}", family.text(e.bitrate, e.gop, from))
}

/// An AAC encoder as pipeline text, from any raw sound.
pub(crate) fn aac() -> Result<String, String> {
    let element = ["fdkaacenc", "voaacenc", "avenc_aac"].into_iter().find(|e| common::has(e));
    let element = element.ok_or("needs one of the GStreamer elements fdkaacenc, voaacenc, avenc_aac")?;
    Ok(format!("audioconvert ! {element} ! aacparse ! {}", super::samples::AAC))
}
