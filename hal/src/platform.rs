//! What a board offers: who it is, its devices, its sources and its codecs.

use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Clock;
use crate::codecs::choice::Choice;
use crate::codecs::families::Family;
use crate::device_tree::BoardLens;
use crate::frames::Decoders;
use crate::gmsl::GmslLink;
use crate::gmsl::board::ChipState;
use crate::hotplug::Presence;
use crate::media::{VideoCodec, VideoFormat};
use crate::pins::{Gpio, Pins};
use crate::shared::{Ledger, Shared};
use crate::source::{LensSource, SourceError, SourceSpec, UnitSink};

/// How frames reach the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// USB video class or another V4L2 node.
    V4l2,
    /// A camera of libcamera.
    Libcamera,
    /// RTSP over the network.
    Rtsp,
    /// A file played in real time.
    File,
    /// The network, by what the camera says of itself.
    Onvif,
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
    /// What else it says of itself, by name.
    pub properties: Vec<(String, String)>,
    /// What can be set, where the device lists it.
    pub controls: Vec<Control>,
}

/// A setting of a device, in the device's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Its name.
    pub name: String,
    /// Least value.
    pub min: String,
    /// Greatest value.
    pub max: String,
    /// Value at start.
    pub default: String,
}

/// A format that a device lists.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceMode {
    /// DRM fourcc (`NV12`, `YUYV`) or codec name (`h264`, `mjpeg`).
    pub format: String,
    /// Width in pixels; the greatest, if the device takes a range.
    pub width: u32,
    /// Height in pixels; the greatest, if the device takes a range.
    pub height: u32,
    /// Least width and height in pixels of a range; `None` where the device has just this size.
    pub smallest: Option<(u32, u32)>,
    /// Highest frame rate in frames per second; 0 where the device does not say.
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
    /// What encodes raw pictures here, with its limits. Starts GStreamer, as the next two do.
    fn encoder(&self, _codec: VideoCodec) -> Option<&'static Family> {
        None
    }
    /// What decodes streams here.
    fn decoder(&self, _codec: VideoCodec) -> Option<&'static Family> {
        None
    }
    /// What makes JPEGs here.
    fn jpeg_encoder(&self) -> Option<&'static Family> {
        None
    }
}

/// Which camera and codec software a board runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// `nxp-bsp`, `camx`, `mainline`, `host` or `none`.
    pub name: &'static str,
    /// What it was recognised by.
    pub why: String,
}

/// Where a lens of the device tree is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The GStreamer element that captures it.
    pub element: &'static str,
    /// The camera in that element's own words: a node, libcamera's id, a number in the camera service.
    pub camera: String,
    /// The `source` that a lens of the configuration takes; `None` where MOS does not record from this element yet.
    pub source: Option<SourceSpec>,
}

/// A lens of the device tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Camera {
    /// As the tree describes it.
    pub lens: BoardLens,
    /// Where it is found, or why it is not to be had.
    pub route: Result<Route, String>,
}

/// All lenses of the device tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cameras {
    /// In order of their numbers.
    pub cameras: Vec<Camera>,
    /// What is wrong in the tree; lenses that are right are listed all the same.
    pub faults: Vec<String>,
}

/// An accelerator of a PC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceleration {
    /// `cuda`, `qsv`, `vaapi` or `none`.
    pub name: &'static str,
    /// Whether element and device are there.
    pub usable: bool,
    /// What is there and what is not.
    pub why: String,
}

/// A board.
pub trait Platform: Send + Sync {
    /// `imx8mp`, `qcs6490` or `generic`.
    fn name(&self) -> &'static str;
    /// What it was recognised by.
    fn evidence(&self) -> String;
    /// Devices present now.
    fn devices(&self) -> Vec<Device>;
    /// Whether what a source is captured from is there. Opens nothing.
    fn presence(&self, spec: &SourceSpec) -> Presence {
        Presence::of(spec)
    }
    /// Which camera and codec software runs here.
    fn stack(&self) -> Stack {
        Stack { name: "none", why: "this platform has no cameras of its own".into() }
    }
    /// The lenses that the device tree describes, each with how it is captured here.
    fn cameras(&self) -> Cameras {
        Cameras::default()
    }
    /// The GMSL deserializers of the device tree, looked at once; disturbs nobody who watches them.
    fn gmsl(&self) -> Vec<ChipState> {
        Vec::new()
    }
    /// Their links, watched from the first call on: one for each lens of the tree that hangs on one.
    fn watch_gmsl(&self) -> Vec<Arc<dyn GmslLink>> {
        Vec::new()
    }
    /// The GPIO lines.
    fn pins(&self) -> Arc<dyn Pins> {
        Arc::new(Gpio)
    }
    /// For each codec task which of the elements here fits best. Starts GStreamer.
    fn choices(&self) -> Vec<Choice> {
        Vec::new()
    }
    /// Accelerators beside the SoC's own.
    fn accelerations(&self) -> Vec<Acceleration> {
        Vec::new()
    }
    /// Opens a source. Returns at once; connecting goes on behind it and failure arrives at `sink.ended`.
    /// `audio` off means that sound never enters the process's buffers.
    fn open(
        &self,
        spec: &SourceSpec,
        audio: bool,
        clock: Arc<dyn Clock>,
        sink: Arc<dyn UnitSink>,
    ) -> Result<Box<dyn LensSource>, SourceError>;
    /// What its lenses share, for those that run in another process.
    fn shared(&self) -> Arc<dyn Shared> {
        Arc::new(Ledger::new(self.name(), None))
    }
    /// Which element decodes live pictures of a codec, for [`crate::frames`].
    fn decoders(&self) -> Decoders {
        Arc::new(|_| None)
    }
    /// Decoders and encoders for stored media.
    fn codecs(&self) -> Arc<dyn Codecs>;
}

/// Recognises this machine by its live device tree; see [`crate::probe`].
#[must_use]
pub fn probe() -> Arc<dyn Platform> {
    crate::probe::probe(&crate::probe::Options::default())
}
