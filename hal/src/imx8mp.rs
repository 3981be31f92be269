//! NXP i.MX8M Plus.
//!
//! Cameras by libcamera where the kernel's drivers run (media device `mxc-isi` or `rkisp1`), by V4L2 where NXP's BSP runs its
//! own ISP software (nodes called `VIV`). Three families of encoders exist; mainline has none. Facts with grades: S read in
//! source, P vendor's page, I inferred; none was tried on a board.

use crate::board::{Soc, libcamera, without_gmsl};
use crate::codecs::families as f;
use crate::codecs::families::Family;
use crate::device_tree::BoardLens;
use crate::platform::{Route, Stack};
use crate::source::{RawOptions, SourceSpec};
use crate::surroundings::{Card, Surroundings};

/// The SoC.
pub struct Imx8mp;

/// Nodes of the vendor's ISP (NXP BSP user guides \[P\]).
const VENDOR_ISP: &str = "VIV";
/// Cards of the vendor's codec driver, `vsi_v4l2enc` and `vsi_v4l2dec` (VeriSilicon vsi-v4l2-enc.c \[S\]).
const VENDOR_CODEC: &str = "vsi_v4l2";
/// The vendor's VPU wrapper (nxp-imx/imx-gst1.0-plugin 91c7fec8 \[S\]).
const VENDOR_WRAPPER: &str = "vpuenc_h264";

/// Default of the BSP since 5.10.35 first, then the deprecated wrapper, the community's.
const ELEMENTS: [&Family; 13] = [
    &f::VSI_H264,
    &f::VPUENC_H264,
    &f::IMXVPUENC_H264,
    &f::VSI_H265,
    &f::VPUENC_HEVC,
    &f::IMXVPUENC_H265,
    &f::VSI_DEC_H264,
    &f::VPUDEC_H264,
    &f::STATELESS_H264,
    &f::VPUDEC_H265,
    &f::STATELESS_H265,
    &f::MXC_JPEG_DEC,
    &f::G2D,
];

impl Soc for Imx8mp {
    fn name(&self) -> &'static str {
        "imx8mp"
    }

    /// Every root `compatible` of such a board ends in it (Linux Documentation/devicetree/bindings/arm/fsl.yaml \[S\]).
    fn matches(&self, compatible: &str) -> bool {
        compatible == "fsl,imx8mp"
    }

    fn stack(&self, here: &dyn Surroundings) -> Stack {
        let vendor = |name: &str| name.starts_with(VENDOR_ISP) || name.starts_with(VENDOR_CODEC);
        if let Some(card) = here.cards().into_iter().find(|c| vendor(&c.name)) {
            return Stack { name: "nxp-bsp", why: format!("V4L2 card {}", card.name) };
        }
        if here.element(VENDOR_WRAPPER) {
            return Stack { name: "nxp-bsp", why: format!("GStreamer element {VENDOR_WRAPPER}") };
        }
        match here.media().into_iter().find(|m| m.contains("mxc-isi") || m.contains("rkisp1")) {
            Some(media) => Stack { name: "mainline", why: format!("media device {media}") },
            None => Stack {
                name: "none",
                why: "neither a V4L2 card nor an element of NXP's BSP, nor a camera's media device".into(),
            },
        }
    }

    fn elements(&self) -> &'static [&'static Family] {
        &ELEMENTS
    }

    /// 1080p60 (developer.ridgerun.com i.MX8 hardware-accelerated plugins \[P\]). That two lenses may share it, as 1080p30
    /// each, is inferred \[I\]; that nothing fits beyond it is not.
    fn encoder_budget(&self) -> Option<u64> {
        Some(1920 * 1080 * 60)
    }

    fn route(&self, lens: &BoardLens, here: &dyn Surroundings) -> Result<Route, String> {
        without_gmsl(lens, self.name())?;
        let nodes: Vec<Card> = here.cards().into_iter().filter(|c| c.name.starts_with(VENDOR_ISP)).collect();
        if nodes.is_empty() {
            return libcamera(lens, here);
        }
        // The vendor's nodes do not tell their sensor; they follow the order of the ISPs, as the index does.
        let index = lens.camera_index.unwrap_or(0) as usize;
        let node = nodes.get(index).map(|card| card.node.clone());
        let node = node.ok_or_else(|| {
            format!("there are {} nodes called {VENDOR_ISP}, none for mos,camera-index {index}", nodes.len())
        })?;
        let camera = node.display().to_string();
        Ok(Route {
            element: "v4l2src",
            camera,
            source: Some(SourceSpec::V4l2 { device: node, options: RawOptions::default() }),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::device_tree::{Attachment, Chip};
    use crate::media::LensId;
    use crate::surroundings::Described;

    fn lens(camera_index: Option<u32>, enabled: bool) -> BoardLens {
        let sensor =
            Chip { path: "/i2c@1/imx219@10".into(), compatible: vec!["sony,imx219".into()], address: 0x10, enabled };
        BoardLens {
            name: LensId::new("road").unwrap(),
            role: None,
            attachment: Attachment::MipiCsi2,
            sensor: Some(sensor),
            camera_index,
            rotation: 0,
            orientation: None,
            node: "/mos/lens@0".into(),
        }
    }

    #[test]
    fn the_stack_follows_what_is_present_not_the_soc() {
        let stack = |here: Described| Imx8mp.stack(&here).name;
        let (media, cards) = (vec!["mxc-isi"], vec!["vsi_v4l2enc"]);
        assert_eq!(stack(Described::default()), "none");
        assert_eq!(stack(Described { media: media.clone(), ..Described::default() }), "mainline");
        assert_eq!(stack(Described { media: media.clone(), cards, ..Described::default() }), "nxp-bsp");
        assert_eq!(stack(Described { media, elements: vec!["vpuenc_h264"], ..Described::default() }), "nxp-bsp");
    }

    #[test]
    fn lenses_are_found_by_node_on_the_bsp_and_by_path_on_mainline() {
        let bsp = Described { cards: vec!["mxc-isi-cap", "VIV", "VIV"], ..Described::default() };
        let route = Imx8mp.route(&lens(Some(1), true), &bsp).unwrap();
        assert_eq!((route.element, route.source.unwrap().to_string().as_str()), ("v4l2src", "v4l2:/dev/video2"));
        let why = Imx8mp.route(&lens(Some(2), true), &bsp).unwrap_err();
        assert_eq!(why, "there are 2 nodes called VIV, none for mos,camera-index 2");
        let mainline = Described { elements: vec!["libcamerasrc"], ..Described::default() };
        let route = Imx8mp.route(&lens(None, true), &mainline).unwrap();
        assert_eq!((route.element, route.camera.as_str()), ("libcamerasrc", "/base/i2c@1/imx219@10"));
        let why = Imx8mp.route(&lens(None, false), &mainline).unwrap_err();
        assert_eq!(why, "the device tree disables its sensor /i2c@1/imx219@10");
        let why = Imx8mp.route(&lens(None, true), &Described::default()).unwrap_err();
        assert_eq!(why, "needs the GStreamer element libcamerasrc");
    }
}
