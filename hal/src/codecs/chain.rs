//! Which elements turn a stored keyframe into a JPEG.
//!
//! Promises the board's decoder first, with its converter and JPEG encoder where it has both, and always a second way by the
//! CPU alone.

use super::families::{Family, JPEGENC, Memory, Task};
use crate::machine::Machine;
use crate::media::{Rotation, VideoCodec};
use crate::platform::CodecError;

/// By what a keyframe is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum By {
    /// The board's own decoder.
    Hardware,
    /// The CPU.
    Software,
}

/// Name of the JPEG encoder in a pipeline's text.
pub(super) const ENCODER: &str = "out";

/// The elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    decoder: &'static Family,
    converter: Option<&'static Family>,
    jpeg: &'static Family,
}

impl Chain {
    /// The board's chain, if it has a decoder.
    pub(super) fn hardware(codec: VideoCodec, machine: &Machine) -> Option<Self> {
        let of_the_board = |task| machine.choice(task).chosen.filter(|family| family.memory == Memory::Dmabuf);
        let decoder = of_the_board(Task::Decode(codec))?;
        // One without the other would only bring the picture to where the CPU reads it slowly.
        Some(match of_the_board(Task::Convert).zip(of_the_board(Task::EncodeJpeg)) {
            Some((converter, jpeg)) => Self { decoder, converter: Some(converter), jpeg },
            None => Self { decoder, converter: None, jpeg: &JPEGENC },
        })
    }

    /// The CPU's chain.
    pub(super) fn software(codec: VideoCodec, machine: &Machine) -> Result<Self, CodecError> {
        let choice = machine.software(Task::Decode(codec));
        let tried = || choice.passed_over.iter().map(|p| p.element).collect::<Vec<_>>().join(", ");
        let decoder = choice.chosen.ok_or_else(|| CodecError::Missing { codec: codec.name(), tried: tried() })?;
        Ok(Self { decoder, converter: None, jpeg: &JPEGENC })
    }

    /// The same for pictures that are turned, which the CPU does, and so codes them as well.
    pub(super) fn turning(self) -> Self {
        Self { converter: None, jpeg: &JPEGENC, ..self }
    }

    /// From parsed stream to JPEG, as pipeline text; `width` and `height` before the picture is turned.
    pub(super) fn text(&self, coded: (u32, u32), (width, height): (u32, u32), rotation: Rotation) -> String {
        let decode = self.decoder.template;
        let jpeg = format!("{} name={ENCODER}", self.jpeg.template);
        if let Some(converter) = self.converter {
            let to = format!("video/x-raw,format=NV12,width={width},height={height}");
            return format!("{decode} ! {} ! {to} ! {jpeg}", converter.template);
        }
        let scale = if (width, height) == coded {
            String::new()
        } else {
            format!(
                "videoscale add-borders=false ! video/x-raw,width={width},height={height},pixel-aspect-ratio=1/1 ! "
            )
        };
        let turn = match rotation {
            Rotation::None => "",
            Rotation::Quarter => "videoflip video-direction=90r ! ",
            Rotation::Half => "videoflip video-direction=180 ! ",
            Rotation::ThreeQuarters => "videoflip video-direction=90l ! ",
        };
        format!("{decode} ! videoconvert ! video/x-raw,format=I420 ! {scale}{turn}{jpeg}")
    }

    /// Whether the CPU encodes the JPEG and so must give it the colours of one.
    pub(super) fn is_by_cpu(&self) -> bool {
        self.jpeg.memory == Memory::System
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

    const FULL: (u32, u32) = (1920, 1080);
    const CODEC: VideoCodec = VideoCodec::H264;

    fn machine(soc: &'static dyn Soc, elements: &[&'static str], cards: &[&'static str]) -> Machine {
        let elements = elements.iter().copied().chain(["avdec_h264", "jpegenc", "videoconvert"]).collect();
        let here = Described { elements, cards: cards.to_vec(), ..Described::default() };
        Machine::new(soc, "/none".into(), Arc::new(here), false)
    }

    #[test]
    fn the_boards_elements_come_first_as_far_as_they_are_there() {
        let text = |machine: &Machine| Chain::hardware(CODEC, machine).unwrap().text(FULL, (640, 360), Rotation::None);
        let camx = machine(&Qcs6490, &["qtic2vdec", "qtivtransform", "qtijpegenc"], &[]);
        let nv12 = "video/x-raw,format=NV12,width=640,height=360";
        assert_eq!(text(&camx), format!("qtic2vdec ! qtivtransform ! {nv12} ! qtijpegenc name=out"));
        let turned = Chain::hardware(CODEC, &camx).unwrap().turning().text(FULL, FULL, Rotation::Quarter);
        assert!(turned.starts_with("qtic2vdec ! videoconvert ! "), "{turned}");
        assert!(turned.contains(" ! videoflip video-direction=90r ! jpegenc"), "{turned}");
        let without = machine(&Qcs6490, &["qtic2vdec", "qtijpegenc"], &[]);
        assert!(text(&without).starts_with("qtic2vdec ! videoconvert ! ") && text(&without).contains("! jpegenc"));
        let vpu = text(&machine(&Imx8mp, &["vpudec", "imxvideoconvert_g2d"], &[]));
        assert!(vpu.starts_with("vpudec frame-drop=false ! videoconvert ! video/x-raw,format=I420 ! "), "{vpu}");
        assert!(Chain::hardware(CODEC, &machine(&Imx8mp, &["v4l2h264dec"], &[])).is_none(), "no card, no decoder");
    }

    #[test]
    fn the_cpu_is_always_a_way() {
        let socs: [&'static dyn Soc; 2] = [&Generic, &Qcs6490];
        for soc in socs {
            let machine = machine(soc, &["qtic2vdec"], &[]);
            let text = Chain::software(CODEC, &machine).unwrap().text(FULL, FULL, Rotation::None);
            assert!(text.starts_with("avdec_h264 max-threads=1 direct-rendering=false ! videoconvert"), "{text}");
        }
        let none = Machine::new(&Generic, "/none".into(), Arc::new(Described::default()), false);
        let why = Chain::software(VideoCodec::H265, &none).unwrap_err().to_string();
        assert_eq!(why, "no decoder for h265 here; looked for avdec_h265, libde265dec");
    }
}
