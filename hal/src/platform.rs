//! What a board offers: who it is, its devices, its sources and its codecs.

use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Clock;
use crate::media::VideoFormat;
use crate::source::{LensSource, SourceError, SourceSpec, UnitSink};

/// How frames reach the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// USB video class or another V4L2 node.
    V4l2,
    /// RTSP over the network.
    Rtsp,
    /// A file played in real time.
    File,
    /// The synthetic scene.
    Test,
}

/// One entry of ListDevices.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Stable while the device stays in its port, e.g. the by-path name.
    pub id: String,
    /// What it calls itself.
    pub name: String,
    /// How it is attached.
    pub transport: Transport,
    /// Its node, if it has one.
    pub node: Option<PathBuf>,
    /// What it can deliver: DRM fourcc or codec name with the sizes and rates it lists.
    pub modes: Vec<DeviceMode>,
}

/// A format that a device lists.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceMode {
    /// DRM fourcc (`NV12`, `YUYV`) or codec name (`h264`, `mjpeg`).
    pub format: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Highest frame rate in frames per second.
    pub max_fps: f32,
}

/// How a picture is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JpegOptions {
    /// 1 to 100.
    pub quality: u8,
    /// Longest edge in pixels; the picture is scaled down to it, never up.
    pub max_edge: Option<u32>,
}

/// A JPEG with its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jpeg {
    /// The JFIF file.
    pub data: Vec<u8>,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// Why no picture came out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// No element of this machine can do it.
    #[error("no decoder for {codec} here; looked for {tried}")]
    Missing {
        /// Codec name.
        codec: &'static str,
        /// Elements tried.
        tried: String,
    },
    /// The stream could not be decoded.
    #[error("cannot decode the keyframe: {0}")]
    Undecodable(String),
    /// The decoder did not answer within its bound and was torn down.
    #[error("the decoder did not answer within {0} ms")]
    Timeout(u64),
}

/// Turns stored keyframes into pictures. Decoders stay warm between calls; calls may come from any thread.
pub trait Codecs: Send + Sync {
    /// Decodes one keyframe (4-byte NAL lengths, parameter sets in `format`) and encodes it as JPEG.
    fn jpeg(&self, format: &VideoFormat, keyframe: &[u8], options: JpegOptions) -> Result<Jpeg, CodecError>;
}

/// A board.
pub trait Platform: Send + Sync {
    /// `generic`, later `imx8mp`, `qcs6490`.
    fn name(&self) -> &'static str;
    /// What it was recognised by.
    fn evidence(&self) -> String;
    /// Devices present now.
    fn devices(&self) -> Vec<Device>;
    /// Opens a source. Returns at once; connecting goes on behind it and failure arrives at `sink.ended`.
    /// `audio` off means that sound never enters the process's buffers.
    fn open(
        &self,
        spec: &SourceSpec,
        audio: bool,
        clock: Arc<dyn Clock>,
        sink: Arc<dyn UnitSink>,
    ) -> Result<Box<dyn LensSource>, SourceError>;
    /// Decoders and encoders for stored media.
    fn codecs(&self) -> Arc<dyn Codecs>;
}

/// Recognises the machine. Board modules will be asked first, by the device tree's `compatible`; today every machine is
/// [`crate::generic::Generic`].
#[must_use]
pub fn probe() -> Arc<dyn Platform> {
    Arc::new(crate::generic::Generic::new())
}
