//! Pictures of the bus in the words of GStreamer, and back: one table of pixel formats for both directions.

use drm_fourcc::DrmFourcc;
use gstreamer as gst;
use gstreamer_video::{VideoFormat, VideoFormatInfo, VideoInfo};
use mos_frame::{Fourcc, Modifier, Picture};

/// GStreamer names bytes, DRM the number that they make.
const FORMATS: [(VideoFormat, DrmFourcc); 15] = [
    (VideoFormat::Nv12, DrmFourcc::Nv12),
    (VideoFormat::Nv21, DrmFourcc::Nv21),
    (VideoFormat::Nv16, DrmFourcc::Nv16),
    (VideoFormat::Nv61, DrmFourcc::Nv61),
    (VideoFormat::I420, DrmFourcc::Yuv420),
    (VideoFormat::Yv12, DrmFourcc::Yvu420),
    (VideoFormat::Y42b, DrmFourcc::Yuv422),
    (VideoFormat::Y444, DrmFourcc::Yuv444),
    (VideoFormat::Yuy2, DrmFourcc::Yuyv),
    (VideoFormat::Uyvy, DrmFourcc::Uyvy),
    (VideoFormat::Yvyu, DrmFourcc::Yvyu),
    (VideoFormat::Vyuy, DrmFourcc::Vyuy),
    (VideoFormat::Rgb, DrmFourcc::Bgr888),
    (VideoFormat::Bgr, DrmFourcc::Rgb888),
    (VideoFormat::P01010le, DrmFourcc::P010),
];

/// DRM's code of a linear layout; `None` if it has none that readers could expect.
#[must_use]
pub fn fourcc(format: VideoFormat) -> Option<Fourcc> {
    FORMATS.iter().find(|(known, _)| *known == format).map(|(_, code)| (*code).into())
}

/// GStreamer's format of a code.
#[must_use]
pub fn video_format(fourcc: Fourcc) -> Option<VideoFormat> {
    FORMATS.iter().find(|(_, code)| Fourcc::from(*code) == fourcc).map(|(format, _)| *format)
}

/// What a kind of picture is to GStreamer.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// In the usual strides of the format.
    pub(crate) packed: VideoInfo,
    /// Bytes from row to row of each plane, as they are.
    pub(crate) strides: Vec<i32>,
}

impl Layout {
    /// `None` if the format has no rows (not linear) or no name, or if what the publisher tells does not fit together.
    pub(crate) fn of(picture: &Picture) -> Option<Self> {
        let format = video_format(picture.fourcc).filter(|_| picture.modifier == Modifier::LINEAR)?;
        // GStreamer's numbers are signed.
        let limit = 1 << 15;
        if picture.width > limit || picture.height > limit {
            return None;
        }
        let packed = VideoInfo::builder(format, picture.width, picture.height).build().ok()?;
        let details = VideoFormatInfo::from_format(format);
        let planes = picture.planes.iter().enumerate();
        let strides = planes.map(|(at, plane)| {
            // The bus checks that rows lie within their memory, but not that pixels lie within their row.
            let stride =
                i32::try_from(plane.stride).ok().filter(|stride| *stride >= row(details, at, picture.width))?;
            Some(stride)
        });
        let strides = strides.collect::<Option<Vec<i32>>>()?;
        (strides.len() == packed.n_planes() as usize).then_some(Self { packed, strides })
    }

    /// Whether planes lie as GStreamer expects without being told; `offsets` count through all memories.
    pub(crate) fn is_packed(&self, offsets: &[usize]) -> bool {
        self.packed.stride() == self.strides && self.packed.offset() == offsets
    }
}

/// Bytes of the pixels in a row of a plane.
fn row(details: VideoFormatInfo, plane: usize, width: u32) -> i32 {
    let components = details.plane().iter().zip(details.pixel_stride()).enumerate();
    let of_plane = components.filter(|(_, (at, _))| **at as usize == plane);
    let bytes = of_plane.map(|(number, (_, pixel))| details.scale_width(number as u8, width).cast_signed() * pixel);
    bytes.max().unwrap_or(i32::MAX)
}

/// Caps for a picture, the preferred first. `drm`: GStreamer is 1.24 or newer and describes dmabufs by their DRM format.
pub(crate) fn caps(picture: &Picture, dmabuf: bool, drm: bool) -> Vec<gst::Caps> {
    let size = |caps: gst::caps::Builder<gst::caps::NoFeature>| {
        caps.field("width", picture.width.cast_signed()).field("height", picture.height.cast_signed())
    };
    let rate = gst::Fraction::new(0, 1);
    let format = video_format(picture.fourcc).filter(|_| picture.modifier == Modifier::LINEAR);
    let mut all = Vec::new();
    if let Some(format) = format {
        all.push(
            size(gst::Caps::builder("video/x-raw")).field("format", format.to_str()).field("framerate", rate).build(),
        );
    }
    if dmabuf {
        let caps = size(gst::Caps::builder("video/x-raw")).features(["memory:DMABuf"]).field("framerate", rate);
        match format {
            _ if drm => {
                let modifier = match picture.modifier {
                    Modifier::LINEAR => String::new(),
                    Modifier(number) => format!(":{number:#018x}"),
                };
                let name = format!("{}{modifier}", picture.fourcc);
                all.push(caps.field("format", "DMA_DRM").field("drm-format", name).build());
            }
            Some(format) => all.push(caps.field("format", format.to_str()).build()),
            None => {}
        }
    }
    all
}

/// Whether this GStreamer describes dmabufs by `DMA_DRM`.
pub(crate) fn by_drm_format() -> bool {
    let (major, minor, ..) = gst::version();
    (major, minor) >= (1, 24)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_format_has_one_code_and_back() {
        gst::init().unwrap();
        for (format, code) in FORMATS {
            assert_eq!(fourcc(format), Some(code.into()));
            assert_eq!(video_format(code.into()), Some(format));
        }
        assert_eq!((fourcc(VideoFormat::Gray8), video_format(Fourcc(1))), (None, None));
    }

    #[test]
    fn pixels_that_reach_beyond_their_row_are_refused() {
        gst::init().unwrap();
        let good = Picture::nv12(64, 48, 64);
        assert!(Layout::of(&good).unwrap().is_packed(&[0, 64 * 48]));
        assert!(!Layout::of(&Picture::nv12(64, 48, 80)).unwrap().is_packed(&[0, 80 * 48]));
        for stride in [0, 1, 63, u32::MAX] {
            let mut bad = good.clone();
            bad.planes[1].stride = stride;
            assert!(Layout::of(&bad).is_none(), "{stride}");
        }
        let mut one_plane = good.clone();
        one_plane.planes.pop();
        assert!(Layout::of(&one_plane).is_none());
        assert!(Layout::of(&Picture { width: 1 << 20, ..good.clone() }).is_none());
        assert!(Layout::of(&Picture { modifier: Modifier(1), ..good.clone() }).is_none());
        let yuyv = Picture { planes: good.planes[..1].iter().copied().collect(), ..good.clone() };
        let yuyv = Picture { fourcc: DrmFourcc::Yuyv.into(), ..yuyv };
        assert!(Layout::of(&yuyv).is_none(), "two bytes a pixel do not fit into 64");
    }

    #[test]
    fn dmabufs_are_described_in_the_words_of_either_gstreamer() {
        gst::init().unwrap();
        let linear = Picture::nv12(64, 48, 64);
        let tiled = Picture { modifier: Modifier(0x0100_0000_0000_0002), ..linear.clone() };
        let told = |picture: &Picture, dmabuf, drm| {
            let caps = caps(picture, dmabuf, drm);
            let tell = |caps: &gst::Caps| {
                let (s, f) = (caps.structure(0).unwrap(), caps.features(0).unwrap());
                let dmabuf = f.contains("memory:DMABuf");
                (s.get::<String>("format").unwrap(), s.get::<String>("drm-format").ok(), dmabuf)
            };
            caps.iter().map(tell).collect::<Vec<_>>()
        };
        let plain = ("NV12".to_owned(), None, false);
        let named = |name: &str| ("DMA_DRM".to_owned(), Some(name.to_owned()), true);
        assert_eq!(told(&linear, false, true), std::slice::from_ref(&plain));
        assert_eq!(told(&linear, true, true), [plain.clone(), named("NV12")]);
        assert_eq!(told(&linear, true, false), [plain, ("NV12".to_owned(), None, true)]);
        assert_eq!(told(&tiled, true, true), [named("NV12:0x0100000000000002")]);
        assert_eq!(told(&tiled, true, false), []);
    }
}
