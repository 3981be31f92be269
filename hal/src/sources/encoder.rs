//! The host's encoder, for sources that deliver raw pictures.
//!
//! Promises closed GOPs without B-frames and no picture held back.

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

/// The encoder and its parser as pipeline text, from I420 to what [`super::samples`] reads.
pub(crate) fn text(e: &Encoding) -> Result<String, String> {
    let kbit = (e.bitrate / 1000).max(1);
    let gop = e.gop;
    let (element, text) = match e.codec {
        // One thread per encoder: slices of one picture in several threads cost more CPU in total than they gain, and lenses run
        // in parallel anyway. Fixed GOPs: no keyframes at scene changes.
        VideoCodec::H264 => (
            "x264enc",
            format!(
                "x264enc speed-preset=ultrafast tune=zerolatency threads=1 sliced-threads=false bframes=0 bitrate={kbit} \
                 key-int-max={gop} option-string=scenecut=0:open-gop=0 ! h264parse config-interval=0 ! {}",
                super::samples::H264
            ),
        ),
        VideoCodec::H265 => (
            "x265enc",
            format!(
                "x265enc speed-preset=ultrafast tune=zerolatency bitrate={kbit} key-int-max={gop} log-level=error \
                 option-string=bframes=0:scenecut=0:open-gop=0:min-keyint={gop}:pools=1:frame-threads=1:ref=1 ! \
                 h265parse config-interval=0 ! {}",
                super::samples::H265
            ),
        ),
    };
    if common::has(element) { Ok(text) } else { Err(format!("needs the GStreamer element {element}")) }
}

/// An AAC encoder as pipeline text, from any raw sound.
pub(crate) fn aac() -> Result<String, String> {
    let element = ["fdkaacenc", "voaacenc", "avenc_aac"].into_iter().find(|e| common::has(e));
    let element = element.ok_or("needs one of the GStreamer elements fdkaacenc, voaacenc, avenc_aac")?;
    Ok(format!("audioconvert ! {element} ! aacparse ! {}", super::samples::AAC))
}
