//! GStreamer's layouts in the words of DRM.

use gstreamer_video::{VideoInfo, VideoMeta};
use mos_frame::{Fourcc, Modifier, Picture, Plane};

/// DRM's code of a linear layout; `None` if it has none that readers could expect.
pub(super) fn fourcc(info: &VideoInfo) -> Option<Fourcc> {
    mos_frame_gst::fourcc(info.format())
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
