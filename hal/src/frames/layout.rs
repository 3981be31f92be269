//! GStreamer's layouts in the words of DRM.

use drm_fourcc::DrmFourcc;
use gstreamer_video::{VideoFormat, VideoInfo, VideoMeta};
use mos_frame::{Fourcc, Modifier, Picture, Plane};

/// DRM's code of a linear layout; `None` if it has none that readers could expect.
pub(super) fn fourcc(info: &VideoInfo) -> Option<Fourcc> {
    let code = match info.format() {
        VideoFormat::Nv12 => DrmFourcc::Nv12,
        VideoFormat::Nv21 => DrmFourcc::Nv21,
        VideoFormat::Nv16 => DrmFourcc::Nv16,
        VideoFormat::Nv61 => DrmFourcc::Nv61,
        VideoFormat::I420 => DrmFourcc::Yuv420,
        VideoFormat::Yv12 => DrmFourcc::Yvu420,
        VideoFormat::Y42b => DrmFourcc::Yuv422,
        VideoFormat::Y444 => DrmFourcc::Yuv444,
        VideoFormat::Yuy2 => DrmFourcc::Yuyv,
        VideoFormat::Uyvy => DrmFourcc::Uyvy,
        VideoFormat::Yvyu => DrmFourcc::Yvyu,
        VideoFormat::Vyuy => DrmFourcc::Vyuy,
        // GStreamer names bytes, DRM the number that they make.
        VideoFormat::Rgb => DrmFourcc::Bgr888,
        VideoFormat::Bgr => DrmFourcc::Rgb888,
        VideoFormat::P01010le => DrmFourcc::P010,
        _ => return None,
    };
    Some(code.into())
}

/// The picture of a buffer; what its own description says comes before the format's usual strides.
pub(super) fn picture(info: &VideoInfo, meta: Option<&VideoMeta>) -> Option<Picture> {
    let (offsets, strides) = match meta {
        Some(meta) => (meta.offset(), meta.stride()),
        None => (info.offset(), info.stride()),
    };
    let planes = (0..info.n_planes() as usize).map(|at| {
        let stride = u32::try_from(*strides.get(at)?).ok()?;
        Some(Plane { memory: 0, stride, offset: *offsets.get(at)? as u64 })
    });
    Some(Picture {
        fourcc: fourcc(info)?,
        modifier: Modifier::LINEAR,
        width: info.width(),
        height: info.height(),
        planes: planes.collect::<Option<_>>()?,
    })
}
