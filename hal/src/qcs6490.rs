//! Qualcomm QCS6490 (and QCM6490, which trees name it by).
//!
//! Cameras by Qualcomm's camera service (CamX behind `qticamsrc`, of which `qtiqmmfsrc` is the older name) where its elements
//! are installed, by libcamera where the kernel drives the cameras (`qcom-camss`). GMSL cameras come through CamX only: it sets
//! the links up itself, and writing registers beside it would race it \[I\]. Facts with grades: S read in source, P vendor's
//! page, I inferred, G common knowledge; none was tried on a board.
//!
//! Snapshots come from the stored keyframe by `qtic2vdec`, not from the camera service's image pad (`capture-image`), on purpose:
//! - a snapshot shows a moment of the footage, with its segment and time; a still is another exposure, later by a time that no
//!   source states, and in no segment;
//! - streams are created from READY to PAUSED with fixed caps and deleted on the way back \[P\], so that an image stream would have
//!   to run beside the video of every recording, for a picture now and then; added later it would interrupt the recording;
//! - what it costs the sensor's frame rate and the service's memory is in no source that was read, and footage comes first.

use crate::board::{Soc, libcamera};
use crate::codecs::families as f;
use crate::codecs::families::Family;
use crate::device_tree::{Attachment, BoardLens};
use crate::platform::{Route, Stack};
use crate::source::{RawOptions, SourceSpec};
use crate::surroundings::Surroundings;

/// The SoC.
pub struct Qcs6490;

/// Elements of the camera service, newest name first (qualcomm/gst-plugins-imsdk 806ad865 \[S\]).
pub(crate) const CAMERA_ELEMENTS: [&str; 2] = ["qticamsrc", "qtiqmmfsrc"];

/// The c2 pair where it is installed, else V4L2 as the SDK's examples use it.
const ELEMENTS: [&Family; 10] = [
    &f::QTIC2_H264,
    &f::IRIS_H264,
    &f::QTIC2_H265,
    &f::IRIS_H265,
    &f::QTIC2_DEC_H264,
    &f::IRIS_DEC_H264,
    &f::QTIC2_DEC_H265,
    &f::IRIS_DEC_H265,
    &f::QTIJPEG,
    &f::QTIVTRANSFORM,
];

impl Soc for Qcs6490 {
    fn name(&self) -> &'static str {
        "qcs6490"
    }

    /// RB3 Gen 2 has `qcom,qcs6490-rb3gen2`, `qcom,qcm6490`; others only the latter (Linux bindings/arm/qcom.yaml \[S\]).
    fn matches(&self, compatible: &str) -> bool {
        let part = compatible.strip_prefix("qcom,qcs6490");
        compatible == "qcom,qcm6490" || part.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    fn stack(&self, here: &dyn Surroundings) -> Stack {
        if let Some(element) = camera_element(here) {
            return Stack { name: "camx", why: format!("GStreamer element {element}") };
        }
        // Model and driver of the kernel's camera subsystem (Linux drivers/media/platform/qcom/camss \[G\]).
        let media = here.media().into_iter().find(|m| m.contains("camss") || m.contains("Qualcomm Camera Subsystem"));
        match media {
            Some(media) => Stack { name: "mainline", why: format!("media device {media}") },
            None => Stack { name: "none", why: "neither qticamsrc nor a media device of camss".into() },
        }
    }

    fn elements(&self) -> &'static [&'static Family] {
        &ELEMENTS
    }

    fn route(&self, lens: &BoardLens, here: &dyn Surroundings) -> Result<Route, String> {
        if let Some(element) = camera_element(here) {
            let camera =
                lens.camera_index.ok_or("the lens node has no mos,camera-index, its number in the camera service")?;
            let source = SourceSpec::Qmmf { camera, options: RawOptions::default() };
            return Ok(Route { element, camera: camera.to_string(), source: Some(source) });
        }
        match lens.attachment {
            Attachment::Gmsl2 { .. } => {
                Err("GMSL cameras need Qualcomm's camera service; neither qticamsrc nor qtiqmmfsrc is installed".into())
            }
            Attachment::MipiCsi2 => libcamera(lens, here),
        }
    }
}

/// The camera service's element here.
pub(crate) fn camera_element(here: &dyn Surroundings) -> Option<&'static str> {
    CAMERA_ELEMENTS.into_iter().find(|e| here.element(e))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::device_tree::Chip;
    use crate::media::LensId;
    use crate::surroundings::Described;

    fn lens(attachment: Attachment, camera_index: Option<u32>) -> BoardLens {
        BoardLens {
            name: LensId::new("left").unwrap(),
            role: None,
            attachment,
            sensor: None,
            camera_index,
            rotation: 0,
            orientation: None,
            node: "/mos/lens@0".into(),
        }
    }

    fn gmsl() -> Attachment {
        let compatible = vec!["maxim,max96712".to_owned()];
        let deserializer = Chip { path: "/i2c@1/gmsl@29".into(), compatible, address: 0x29, enabled: true };
        Attachment::Gmsl2 { deserializer, link: 0, serializer: None }
    }

    #[test]
    fn the_stack_follows_what_is_present_not_the_soc() {
        let stack = |here: Described| Qcs6490.stack(&here).name;
        let media = vec!["qcom-camss"];
        assert_eq!(stack(Described::default()), "none");
        assert_eq!(stack(Described { media: media.clone(), ..Described::default() }), "mainline");
        assert_eq!(stack(Described { media, elements: vec!["qtiqmmfsrc"], ..Described::default() }), "camx");
    }

    #[test]
    fn the_camera_service_has_all_lenses_by_number_and_libcamera_those_of_the_kernel() {
        let camx = Described { elements: vec!["qticamsrc", "qtiqmmfsrc"], ..Described::default() };
        let route = Qcs6490.route(&lens(gmsl(), Some(3)), &camx).unwrap();
        assert_eq!((route.element, route.camera.as_str()), ("qticamsrc", "3"));
        let why = Qcs6490.route(&lens(gmsl(), None), &camx).unwrap_err();
        assert!(why.contains("no mos,camera-index"), "{why}");
        let mainline = Described { elements: vec!["libcamerasrc"], ..Described::default() };
        let why = Qcs6490.route(&lens(gmsl(), Some(3)), &mainline).unwrap_err();
        assert!(why.contains("camera service"), "{why}");
        let why = Qcs6490.route(&lens(Attachment::MipiCsi2, Some(0)), &mainline).unwrap_err();
        assert_eq!(why, "the lens node has no mos,sensor");
    }
}
