//! GStreamer's layouts in the words of DRM.

use drm_fourcc::{DrmFourcc, DrmModifier};
use gstreamer as gst;
use gstreamer_video::{VideoInfo, VideoMeta};
use mos_frame::{Fourcc, MAX_PLANES, Modifier, Picture, Plane, Planes};

/// Qualcomm's compressed NV12 in the words of its elements (qualcomm/gst-plugins-imsdk 806ad865 \[S\]); GStreamer has none.
const UBWC: &str = "NV12_Q08C";

/// Where the rate is not told, that of most cameras.
pub(super) const USUAL_FPS: u64 = 30;

/// What buffers of some caps hold.
pub(super) struct Layout {
    fourcc: Fourcc,
    modifier: Modifier,
    width: u32,
    height: u32,
    /// Pictures in a second, rounded up.
    fps: u64,
    /// Where planes lie if the buffer does not say it itself.
    usual: Planes,
}

impl Layout {
    /// `None` if DRM has no word for it that readers could expect.
    pub(super) fn of(caps: &gst::CapsRef) -> Option<Self> {
        let s = caps.structure(0)?;
        let edge = |name: &str| s.get::<i32>(name).ok().and_then(|edge| u32::try_from(edge).ok());
        let (width, height) = (edge("width")?, edge("height")?);
        let fps = s.get::<gst::Fraction>("framerate").ok().filter(|fps| fps.numer() > 0 && fps.denom() > 0);
        let fps =
            fps.map_or(USUAL_FPS, |fps| u64::from(fps.numer().unsigned_abs().div_ceil(fps.denom().unsigned_abs())));
        // From GStreamer 1.24 on dmabufs are described by `drm-format`, as "NV12" or "NV12:0x0500000000000001".
        let (fourcc, modifier) = match (s.get::<&str>("drm-format"), s.get::<&str>("format")) {
            (Ok(described), _) => {
                let (code, modifier) = described.split_once(':').unwrap_or((described, "0x0"));
                let modifier = u64::from_str_radix(modifier.strip_prefix("0x")?, 16).ok()?;
                let code: [u8; 4] = code.as_bytes().try_into().ok()?;
                (Fourcc(u32::from_le_bytes(code)), Modifier(modifier))
            }
            (_, Ok(UBWC)) => (DrmFourcc::Nv12.into(), DrmModifier::Qcom_compressed.into()),
            _ => (mos_frame_gst::fourcc(VideoInfo::from_caps(caps).ok()?.format())?, Modifier::LINEAR),
        };
        let usual = match (modifier, mos_frame_gst::video_format(fourcc)) {
            (Modifier::LINEAR, Some(format)) => {
                let info = match VideoInfo::from_caps(caps) {
                    Ok(info) if info.format() == format => info,
                    _ => VideoInfo::builder(format, width, height).build().ok()?,
                };
                planes(info.n_planes() as usize, info.offset(), info.stride())?
            }
            (Modifier::LINEAR, None) => return None,
            // Only who knows the modifier knows what lies where: one plane, from the start.
            _ => planes(1, &[0], &[width.cast_signed()])?,
        };
        Some(Self { fourcc, modifier, width, height, fps, usual })
    }

    /// Bytes per second, at so many in a picture.
    pub(super) fn rate(&self, bytes: u64) -> u64 {
        bytes.saturating_mul(self.fps)
    }

    /// The picture of a buffer; what its own description says comes before the format's usual strides.
    pub(super) fn picture(&self, meta: Option<&VideoMeta>) -> Option<Picture> {
        let planes = match meta {
            Some(meta) => planes(meta.n_planes() as usize, meta.offset(), meta.stride())?,
            None => self.usual.clone(),
        };
        let (fourcc, modifier) = (self.fourcc, self.modifier);
        Some(Picture { fourcc, modifier, width: self.width, height: self.height, planes })
    }
}

fn planes(count: usize, offsets: &[usize], strides: &[i32]) -> Option<Planes> {
    let plane = |at| {
        let stride = u32::try_from(*strides.get(at)?).ok()?;
        Some(Plane { memory: 0, stride, offset: *offsets.get(at)? as u64 })
    };
    (count <= MAX_PLANES).then(|| (0..count).map(plane).collect())?
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What GStreamer says in either version, what Qualcomm's elements say, and what nobody knows.
    #[test]
    fn caps_are_read_as_formats_and_modifiers() {
        gst::init().unwrap();
        let read = |caps: &str| {
            let caps: gst::Caps = caps.parse().unwrap();
            let picture = Layout::of(&caps)?.picture(None).unwrap();
            let planes: Vec<(u32, u64)> = picture.planes.iter().map(|plane| (plane.stride, plane.offset)).collect();
            Some((picture.fourcc.to_string(), picture.modifier.0, planes))
        };
        let size = "width=64,height=32,framerate=30/1";
        let linear = Some(("NV12".to_owned(), 0, vec![(64, 0), (64, 2048)]));
        assert_eq!(read(&format!("video/x-raw,format=NV12,{size}")), linear);
        assert_eq!(read(&format!("video/x-raw(memory:DMABuf),format=NV12,{size}")), linear);
        let drm = "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format";
        assert_eq!(read(&format!("{drm}=NV12,{size}")), linear);
        // DRM_FORMAT_MOD_QCOM_COMPRESSED
        let ubwc = Some(("NV12".to_owned(), 0x0500_0000_0000_0001, vec![(64, 0)]));
        assert_eq!(read(&format!("{drm}=(string)NV12:0x0500000000000001,{size}")), ubwc);
        assert_eq!(read(&format!("video/x-raw,format=NV12_Q08C,{size}")), ubwc);
        for unknown in ["ABC", "NV12:5", "NV12:0xyz", "XXXX"] {
            assert_eq!(read(&format!("{drm}=(string){unknown},{size}")), None, "{unknown}");
        }
        assert_eq!(read(&format!("video/x-raw,format=GRAY8,{size}")), None);
    }
}
