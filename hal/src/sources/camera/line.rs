//! What follows a raw camera in its pipeline, by what the board has.
//!
//! ```text
//! camera ─► mode ─►(JPEG decoder)─►(converter)─► contract ─► tee ─► queue ─► encoder ─► parser ─► units
//! ```
//!
//! Promises that the branches are fixed when it starts, that pictures in the raw branch are NV12 wherever the encoder is
//! hardware, and that it tells beforehand which element would bring the CPU in.

use super::modes::{Mode, Stream, USUAL};
use super::origin::WAITING;
use crate::codecs::families::{Family, Memory, Task};
use crate::machine::Machine;
use crate::media::VideoCodec;
use crate::source::RawOptions;
use crate::sources::encoder::{self, Encoding};
use crate::sources::{contract, leaks, live, samples};

/// Bits per pixel for fast encoders with a real camera's noise.
const BITS_PER_PIXEL: f64 = 0.1;
/// Name of the filter that asks the camera for its mode.
pub(super) const MODE: &str = "mode";
/// Name of the contract.
pub(super) const CONTRACT: &str = live::RAW;

/// What follows the camera.
#[derive(Debug)]
pub(super) enum Line {
    /// The camera codes: its stream passes.
    Passed,
    /// We code.
    Encoded(Encoded),
}

/// The elements that are used, and for what.
#[derive(Debug)]
pub(super) struct Encoded {
    decoder: Option<&'static Family>,
    converter: Option<&'static Family>,
    pub(super) encoder: &'static Family,
    codec: VideoCodec,
    /// In bit/s.
    pub(super) bitrate: u32,
    pub(super) gop: u32,
    /// What pictures are in as they reach the encoder.
    pub(super) input: Memory,
}

/// Plans a line. `camera`: what the camera's pictures are in.
pub(super) fn plan(mode: &Mode, options: &RawOptions, camera: Memory, machine: &Machine) -> Result<Line, String> {
    if mode.stream == Stream::H264 {
        return Ok(Line::Passed);
    }
    let codec = options.codec.unwrap_or(VideoCodec::H264);
    let encoder = machine.element(Task::Encode(codec))?;
    let decoder = match mode.stream {
        Stream::Mjpeg => Some(machine.element(Task::DecodeJpeg)?),
        _ => None,
    };
    // The CPU's encoders are given their layout behind the queue, where it costs the camera nothing.
    let other = mode.stream != Stream::Raw("NV12") && encoder.memory == Memory::Dmabuf;
    let converter = if other { Some(machine.element(Task::Convert)?) } else { None };
    let (width, height) = mode.size.unwrap_or(USUAL);
    let pixels = f64::from(width) * f64::from(height) * f64::from(mode.likely_fps);
    let second = (mode.likely_fps.round() as u32).max(1);
    let gop = options.gop.unwrap_or(second);
    if gop > second {
        return Err(format!("gop is at most one second, here {second} frames, not {gop}"));
    }
    let usual = (pixels * BITS_PER_PIXEL).clamp(500_000.0, 50_000_000.0) as u32;
    let (least, most) = encoder.limits.bitrate;
    let bitrate = options.bitrate.unwrap_or(usual.clamp(least, most));
    // A size that is not known yet is judged when it is.
    if let Some(why) = mode.size.and_then(|size| encoder.refusal(size, bitrate)) {
        return Err(why);
    }
    let last = converter.or(decoder);
    let input = last.map_or(camera, |stage| stage.memory);
    Ok(Line::Encoded(Encoded { decoder, converter, encoder, codec, bitrate, gop, input }))
}

impl Encoded {
    /// What the pictures are in on their whole way, if the camera keeps to what it is taken for.
    pub(super) fn memory(&self) -> Memory {
        let stages = [self.decoder, self.converter, Some(self.encoder)];
        let cpu = self.input == Memory::System || stages.iter().flatten().any(|s| s.memory == Memory::System);
        if cpu { Memory::System } else { Memory::Dmabuf }
    }

    /// Why pictures pass through CPU memory.
    pub(super) fn detour(&self) -> String {
        let stages = [self.decoder, self.converter, Some(self.encoder)];
        match stages.into_iter().flatten().find(|s| s.memory == Memory::System) {
            Some(stage) => format!("{} works on the CPU", stage.element),
            None => "its pictures come in CPU memory".to_owned(),
        }
    }

    /// Whether the encoder must be told beforehand what its pictures are in.
    pub(super) fn must_know(&self) -> bool {
        self.encoder.template.contains("{io}")
    }
}

impl Line {
    /// As pipeline text.
    pub(super) fn text(&self) -> String {
        let sink = live::sink(live::VIDEO);
        match self {
            Self::Passed => {
                format!("capsfilter name={MODE} ! h264parse config-interval=0 ! {} ! {sink}", samples::H264)
            }
            Self::Encoded(e) => {
                let stage = |family: Option<&Family>| family.map_or(String::new(), |f| format!("{} ! ", f.template));
                let decoder = stage(e.decoder);
                let converter = match e.converter {
                    Some(_) => format!("{}video/x-raw,format=NV12 ! ", stage(e.converter)),
                    None => String::new(),
                };
                let layout = match (e.encoder.memory, e.codec) {
                    (Memory::Dmabuf, _) => "",
                    (Memory::System, VideoCodec::H264) => "videoconvert ! video/x-raw,format={I420,NV12} ! ",
                    (Memory::System, VideoCodec::H265) => "videoconvert ! video/x-raw,format=I420 ! ",
                };
                let encoding = Encoding { codec: e.codec, bitrate: e.bitrate, gop: e.gop };
                let encoder = encoder::by(e.encoder, &encoding, e.input);
                // Then the oldest goes.
                let bounds = format!("leaky=downstream max-size-buffers={WAITING} max-size-bytes=0 max-size-time=0");
                format!(
                    "capsfilter name={MODE} ! {decoder}{converter}{} name={CONTRACT} ! tee name=raw allow-not-linked=true ! \
                     queue name={} {bounds} ! {layout}{encoder} ! {sink}",
                    contract::ELEMENT,
                    leaks::QUEUE
                )
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::board::Soc;
    use crate::generic::Generic;
    use crate::imx8mp::Imx8mp;
    use crate::qcs6490::Qcs6490;
    use crate::surroundings::Described;

    fn machine(soc: &'static dyn Soc, elements: &[&'static str], cards: &[&'static str]) -> Machine {
        let software = ["x264enc", "x265enc", "jpegdec", "videoconvert"];
        let elements = elements.iter().copied().chain(software).collect();
        let here = Described { elements, cards: cards.to_vec(), ..Described::default() };
        Machine::new(soc, "/none".into(), Arc::new(here), false)
    }

    fn planned(stream: Stream, options: &RawOptions, machine: &Machine) -> Result<Encoded, String> {
        let mode = Mode { stream, size: Some((1920, 1080)), fps: None, likely_fps: 30.0 };
        match plan(&mode, options, Memory::Dmabuf, machine)? {
            Line::Encoded(encoded) => Ok(encoded),
            Line::Passed => Err("passed".into()),
        }
    }

    #[test]
    fn hardware_comes_first_and_keeps_pictures_out_of_the_cpu() {
        let bsp = machine(&Imx8mp, &["v4l2h264enc", "vpuenc_h264", "imxvideoconvert_g2d"], &["vsi_v4l2enc"]);
        let nv12 = planned(Stream::Raw("NV12"), &RawOptions::default(), &bsp).unwrap();
        assert_eq!((nv12.encoder.element, nv12.memory()), ("v4l2h264enc", Memory::Dmabuf));
        assert_eq!((nv12.bitrate, nv12.gop), (6_220_800, 30));
        let text = Line::Encoded(nv12).text();
        assert!(text.contains("output-io-mode=dmabuf-import") && !text.contains("videoconvert"), "{text}");
        let yuyv = planned(Stream::Raw("YUY2"), &RawOptions::default(), &bsp).unwrap();
        assert_eq!(yuyv.memory(), Memory::Dmabuf);
        let text = Line::Encoded(yuyv).text();
        assert!(text.contains("imxvideoconvert_g2d ! video/x-raw,format=NV12 ! moscontract"), "{text}");
        // No JPEG decoder in hardware is known to be there: the CPU decodes, the converter brings it into a dmabuf.
        let mjpeg = planned(Stream::Mjpeg, &RawOptions::default(), &bsp).unwrap();
        assert_eq!((mjpeg.memory(), mjpeg.detour().as_str()), (Memory::System, "jpegdec works on the CPU"));
    }

    #[test]
    fn without_hardware_the_cpu_does_it_and_says_so() {
        let mainline = machine(&Imx8mp, &["v4l2h264enc"], &["mxc-isi-cap"]);
        for (soc, machine) in [("imx8mp", mainline), ("generic", machine(&Generic, &[], &[]))] {
            let line = planned(Stream::Raw("NV12"), &RawOptions::default(), &machine).unwrap();
            assert_eq!((line.memory(), line.detour().as_str()), (Memory::System, "x264enc works on the CPU"), "{soc}");
        }
        let h265 = RawOptions { codec: Some(VideoCodec::H265), ..RawOptions::default() };
        let vpu = machine(&Imx8mp, &["vpuenc_h264"], &[]);
        assert_eq!(planned(Stream::Raw("NV12"), &h265, &vpu).unwrap().encoder.element, "x265enc");
        let none = Machine::new(&Generic, "/none".into(), Arc::new(Described::default()), false);
        let why = planned(Stream::Raw("NV12"), &h265, &none).unwrap_err();
        assert_eq!(why, "needs a GStreamer element to encode h265, one of x265enc");
    }

    #[test]
    fn what_the_encoder_does_not_take_is_refused_beforehand() {
        let c2 = machine(&Qcs6490, &["qtic2venc", "qtivtransform"], &[]);
        let options = |gop| RawOptions { gop: Some(gop), ..RawOptions::default() };
        assert_eq!(planned(Stream::Raw("NV12"), &options(15), &c2).unwrap().gop, 15);
        let why = planned(Stream::Raw("NV12"), &options(31), &c2).unwrap_err();
        assert_eq!(why, "gop is at most one second, here 30 frames, not 31");
        let vpu = machine(&Imx8mp, &["vpuenc_h264"], &[]);
        let mode = Mode { stream: Stream::Raw("NV12"), size: Some((3840, 2160)), fps: None, likely_fps: 30.0 };
        let why = plan(&mode, &RawOptions::default(), Memory::Dmabuf, &vpu).unwrap_err();
        assert_eq!(why, "vpuenc_h264 takes pictures from 64x64 to 1920x1088, not 3840x2160");
    }
}
