//! Which of the modes that a camera offers is run.
//!
//! Promises that what is asked for is kept or refused with what the camera offers, and that nothing is asked of the camera
//! which it did not offer, as far as it tells.

use gstreamer as gst;

use crate::media::VideoCodec;
use crate::platform::DeviceMode;
use crate::source::RawOptions;

/// Largest picture taken without being asked for.
pub(super) const USUAL: (u32, u32) = (1920, 1080);
/// Frame rate that a mode should reach if none is asked for.
const SMOOTH: f32 = 24.0;
/// Frame rates beyond are what elements say of cameras that tell none.
const FASTEST: f32 = 1000.0;
/// Raw layouts that are taken: what a converter reads; no Bayer, no grey-only depth formats. DRM's name, GStreamer's name.
const LAYOUTS: [(&str, &str); 13] = [
    ("NV12", "NV12"),
    ("YU12", "I420"),
    ("YUYV", "YUY2"),
    ("UYVY", "UYVY"),
    ("YVYU", "YVYU"),
    ("VYUY", "VYUY"),
    ("NV21", "NV21"),
    ("NV16", "NV16"),
    ("NV61", "NV61"),
    ("YV12", "YV12"),
    ("YU16", "Y42B"),
    ("BG24", "RGB"),
    ("RG24", "BGR"),
];

/// What is taken from a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// Coded by the camera.
    H264,
    /// JPEG pictures.
    Mjpeg,
    /// Pixels, in one of [`LAYOUTS`] by GStreamer's name.
    Raw(&'static str),
    /// Pixels of a camera that tells its layouts only when it runs.
    Any,
}

/// The mode to run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mode {
    pub(super) stream: Stream,
    /// `None`: the camera tells its sizes only when it runs, and none is asked for.
    pub(super) size: Option<(u32, u32)>,
    /// Asked for; else the camera runs at its own.
    pub(super) fps: Option<u32>,
    /// What it will be, for the length of a GOP.
    pub(super) likely_fps: f32,
}

/// Chooses from what the camera's element offers once it is open. `unhurried`: frame rate of cameras that tell none.
pub(super) fn pick(caps: &gst::Caps, options: &RawOptions, unhurried: f32) -> Result<Mode, String> {
    let plain: Vec<&gst::StructureRef> = plain(caps).collect();
    if !plain.is_empty() && plain.iter().all(|s| !s.has_field("width")) {
        let likely_fps = options.fps.map_or(unhurried, |fps| fps as f32);
        return Ok(Mode { stream: Stream::Raw("NV12"), size: options.size, fps: options.fps, likely_fps });
    }
    let modes: Vec<DeviceMode> = plain.iter().flat_map(|s| modes(s, options.size)).collect();
    let mut mode = choose(&modes, options, unhurried)?;
    // Of a range of rates an element takes what it likes.
    if mode.fps.is_none() && mode.likely_fps > 30.0 && is_range(&filter(&mode, caps), caps) {
        (mode.fps, mode.likely_fps) = (Some(30), 30.0);
    }
    Ok(mode)
}

fn is_range(chosen: &gst::Caps, offered: &gst::Caps) -> bool {
    let both = offered.intersect(chosen);
    both.structure(0).is_some_and(|s| s.get::<gst::FractionRange>("framerate").is_ok())
}

/// Caps of the chosen mode, as the camera offers it.
pub(super) fn filter(mode: &Mode, offered: &gst::Caps) -> gst::Caps {
    let mut s = match mode.stream {
        Stream::H264 => gst::Structure::new_empty("video/x-h264"),
        Stream::Mjpeg => gst::Structure::new_empty("image/jpeg"),
        Stream::Any => gst::Structure::new_empty("video/x-raw"),
        Stream::Raw(layout) => gst::Structure::builder("video/x-raw").field("format", layout).build(),
    };
    if let Some((width, height)) = mode.size {
        s.set("width", width.cast_signed());
        s.set("height", height.cast_signed());
    }
    if let Some(fps) = mode.fps {
        let exact = gst::Fraction::new(fps.cast_signed(), 1);
        // 29.97 is taken for 30.
        let near = offered.intersect(&gst::Caps::builder_full().structure(s.clone()).build());
        let near = near.structure(0).filter(|n| n.has_field("framerate")).and_then(|n| {
            let mut n = n.to_owned();
            n.fixate_field_nearest_fraction("framerate", exact);
            n.get::<gst::Fraction>("framerate").ok()
        });
        s.set("framerate", near.unwrap_or(exact));
    }
    gst::Caps::builder_full().structure(s).build()
}

/// Structures without features of memory, which the camera gives to any element.
fn plain(caps: &gst::Caps) -> impl Iterator<Item = &gst::StructureRef> {
    let plain = caps
        .iter_with_features()
        .filter(|(_, features)| features.is_equal(gst::CAPS_FEATURES_MEMORY_SYSTEM_MEMORY.as_ref()));
    plain.map(|(s, _)| s)
}

/// The modes of one structure; of a range of sizes the one that is asked for or the usual one.
fn modes(s: &gst::StructureRef, wanted: Option<(u32, u32)>) -> Vec<DeviceMode> {
    let formats: Vec<String> = match s.name().as_str() {
        "video/x-h264" => vec!["h264".into()],
        "image/jpeg" => vec!["mjpeg".into()],
        "video/x-raw" => {
            let listed = texts(s, "format");
            LAYOUTS
                .iter()
                .filter(|(_, gst)| listed.iter().any(|l| l == gst))
                .map(|(drm, _)| (*drm).to_owned())
                .collect()
        }
        _ => Vec::new(),
    };
    let (wanted_width, wanted_height) = wanted.unzip();
    let widths = numbers(s, "width", wanted_width, USUAL.0);
    let heights = numbers(s, "height", wanted_height, USUAL.1);
    let max_fps = fastest(s);
    let sizes = widths.iter().flat_map(|w| heights.iter().map(move |h| (*w, *h)));
    let of_size = |(width, height)| {
        formats.iter().map(move |f| DeviceMode { format: f.clone(), width, height, smallest: None, max_fps })
    };
    sizes.flat_map(of_size).collect()
}

fn texts(s: &gst::StructureRef, field: &str) -> Vec<String> {
    if let Ok(list) = s.get::<gst::List>(field) {
        return list.iter().filter_map(|v| v.get::<String>().ok()).collect();
    }
    s.get::<String>(field).into_iter().collect()
}

fn numbers(s: &gst::StructureRef, field: &str, wanted: Option<u32>, usual: u32) -> Vec<u32> {
    let positive = |n: i32| u32::try_from(n).ok().filter(|n| *n > 0);
    if let Ok(range) = s.get::<gst::IntRange<i32>>(field) {
        let (Some(min), Some(max)) = (positive(range.min().max(1)), positive(range.max())) else { return Vec::new() };
        let step = positive(range.step()).unwrap_or(1);
        let best = wanted.filter(|w| (min..=max).contains(w) && w % step == 0);
        return vec![best.unwrap_or_else(|| usual.clamp(min, max) / step * step)];
    }
    if let Ok(list) = s.get::<gst::List>(field) {
        return list.iter().filter_map(|v| positive(v.get::<i32>().ok()?)).collect();
    }
    s.get::<i32>(field).ok().and_then(positive).into_iter().collect()
}

/// The highest frame rate; 0 if none is told.
fn fastest(s: &gst::StructureRef) -> f32 {
    let rate = |f: gst::Fraction| f.numer() as f32 / f.denom().max(1) as f32;
    let fastest = if let Ok(range) = s.get::<gst::FractionRange>("framerate") {
        rate(range.max())
    } else if let Ok(list) = s.get::<gst::List>("framerate") {
        list.iter().filter_map(|v| v.get::<gst::Fraction>().ok()).map(rate).fold(0.0, f32::max)
    } else {
        s.get::<gst::Fraction>("framerate").map_or(0.0, rate)
    };
    if fastest > FASTEST { 0.0 } else { fastest }
}

/// The best mode: coded by the camera if it can and nothing is asked of an encoder, else the largest usual picture that moves
/// smoothly, raw rather than JPEG.
fn choose(modes: &[DeviceMode], options: &RawOptions, unhurried: f32) -> Result<Mode, String> {
    let RawOptions { size, fps, codec, bitrate, gop } = *options;
    let as_it_comes = codec != Some(VideoCodec::H265) && bitrate.is_none() && gop.is_none();
    let stream = |m: &DeviceMode| match m.format.as_str() {
        "h264" => as_it_comes.then_some(Stream::H264),
        "mjpeg" => Some(Stream::Mjpeg),
        other => LAYOUTS.iter().find(|(drm, _)| *drm == other).map(|(_, gst)| Stream::Raw(gst)),
    };
    let wanted_fps = fps.map_or(SMOOTH, |f| f as f32 - 0.1);
    let fits = |m: &DeviceMode| match size {
        Some(size) => (m.width, m.height) == size,
        None => true,
    };
    let rank = |m: &DeviceMode, s: Stream| {
        let usual = m.width <= USUAL.0 && m.height <= USUAL.1;
        // A device that lists no rate may have any.
        let smooth = m.max_fps == 0.0 || m.max_fps >= wanted_fps;
        let area = u64::from(m.width) * u64::from(m.height);
        let area = if usual { area } else { u64::MAX - area };
        let order = match s {
            Stream::H264 => LAYOUTS.len() + 1,
            Stream::Raw(layout) => LAYOUTS.len() - LAYOUTS.iter().position(|(_, gst)| *gst == layout).unwrap_or(0),
            Stream::Mjpeg | Stream::Any => 0,
        };
        let best_effort = if smooth { 0 } else { (m.max_fps * 1000.0) as u64 };
        (smooth, usual, s == Stream::H264, area, best_effort, order)
    };
    let best = modes.iter().filter(|m| fits(m)).filter_map(|m| Some((m, stream(m)?))).max_by_key(|(m, s)| rank(m, *s));
    let Some((mode, stream)) = best else {
        let listed: Vec<_> = modes.iter().map(|m| format!("{} {}x{}", m.format, m.width, m.height)).collect();
        return Err(format!("the camera has no such mode; it lists {}", listed.join(", ")));
    };
    if let Some(fps) = fps
        && mode.max_fps != 0.0
        && mode.max_fps < fps as f32 - 0.1
    {
        let (w, h, max) = (mode.width, mode.height, mode.max_fps);
        return Err(format!("at {w}x{h} the camera reaches {max} frames/s, not {fps}"));
    }
    let likely_fps = match fps {
        Some(fps) => fps as f32,
        None if mode.max_fps >= 1.0 => mode.max_fps,
        None => unhurried,
    };
    Ok(Mode { stream, size: Some((mode.width, mode.height)), fps, likely_fps })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::str::FromStr;

    use super::*;

    fn mode(format: &str, width: u32, height: u32, max_fps: f32) -> DeviceMode {
        DeviceMode { format: format.into(), width, height, smallest: None, max_fps }
    }

    fn asked(size: Option<(u32, u32)>, fps: Option<u32>) -> RawOptions {
        RawOptions { size, fps, ..RawOptions::default() }
    }

    #[test]
    fn the_best_mode_is_chosen() {
        // A common USB camera: raw is slow at full size.
        let usual = [
            mode("YUYV", 640, 480, 30.0),
            mode("YUYV", 1920, 1080, 5.0),
            mode("mjpeg", 640, 480, 30.0),
            mode("mjpeg", 1920, 1080, 30.0),
            mode("mjpeg", 3840, 2160, 30.0),
        ];
        let chosen =
            |m: &[DeviceMode], size, fps| choose(m, &asked(size, fps), 15.0).map(|c| (c.stream, c.size.unwrap()));
        let yuyv = Stream::Raw("YUY2");
        assert_eq!(chosen(&usual, None, None), Ok((Stream::Mjpeg, (1920, 1080))));
        assert_eq!(chosen(&usual, Some((640, 480)), None), Ok((yuyv, (640, 480))));
        assert_eq!(chosen(&usual, Some((1920, 1080)), Some(5)), Ok((yuyv, (1920, 1080))));
        assert!(chosen(&usual, Some((1920, 1080)), Some(60)).unwrap_err().contains("30 frames/s"));
        assert!(chosen(&usual, Some((800, 600)), None).unwrap_err().contains("YUYV 640x480"));
        assert!(chosen(&[mode("pBAA", 640, 480, 30.0)], None, None).is_err(), "Bayer is not taken");
        let coded = [mode("YUYV", 1920, 1080, 30.0), mode("h264", 1280, 720, 30.0)];
        assert_eq!(chosen(&coded, None, None), Ok((Stream::H264, (1280, 720))));
        let fraction = [mode("YUYV", 640, 480, 29.97)];
        assert_eq!(chosen(&fraction, None, Some(30)), Ok((yuyv, (640, 480))));
        let sensor = [mode("YUYV", 1920, 1080, 30.0), mode("NV12", 1920, 1080, 30.0), mode("NV16", 1920, 1080, 30.0)];
        assert_eq!(chosen(&sensor, None, None), Ok((Stream::Raw("NV12"), (1920, 1080))));
    }

    #[test]
    fn who_asks_for_an_encoder_gets_one() {
        let coded = [mode("YUYV", 1920, 1080, 30.0), mode("h264", 1920, 1080, 30.0)];
        let stream = |options: &RawOptions| choose(&coded, options, 15.0).unwrap().stream;
        assert_eq!(stream(&RawOptions { codec: Some(VideoCodec::H264), ..RawOptions::default() }), Stream::H264);
        for options in [
            RawOptions { codec: Some(VideoCodec::H265), ..RawOptions::default() },
            RawOptions { bitrate: Some(1_000_000), ..RawOptions::default() },
            RawOptions { gop: Some(10), ..RawOptions::default() },
        ] {
            assert_eq!(stream(&options), Stream::Raw("YUY2"), "{options:?}");
        }
    }

    /// Elements of cameras list sizes, ranges or nothing.
    #[test]
    fn caps_are_read_as_modes() {
        gst::init().unwrap();
        let picked = |caps: &str, options: &RawOptions| {
            let caps = gst::Caps::from_str(caps).unwrap();
            let mode = pick(&caps, options, 30.0).unwrap();
            (mode, filter(&mode, &caps).to_string())
        };
        let uvc = "video/x-raw,format=YUY2,width=640,height=480,framerate={(fraction)30000/1001,(fraction)15/1};\
                   image/jpeg,width=1920,height=1080,framerate=30/1";
        let (mode, filter) = picked(uvc, &asked(Some((640, 480)), Some(30)));
        assert_eq!(mode.stream, Stream::Raw("YUY2"));
        assert_eq!(
            filter,
            "video/x-raw, format=(string)YUY2, width=(int)640, height=(int)480, framerate=(fraction)30000/1001"
        );
        assert_eq!(picked(uvc, &asked(None, None)).1, "image/jpeg, width=(int)1920, height=(int)1080");

        let service = "video/x-raw(memory:GBM),format={NV12,P010_10LE},width=[16,8192],height=[16,8192];\
                       video/x-raw,format={NV16,NV12},width=[16,8192],height=[16,8192],framerate=[0/1,120/1]";
        let (_, filter) = picked(service, &asked(None, Some(30)));
        assert_eq!(
            filter,
            "video/x-raw, format=(string)NV12, width=(int)1920, height=(int)1080, framerate=(fraction)30/1"
        );
        let (mode, _) = picked(service, &asked(Some((1280, 720)), None));
        assert_eq!((mode.size, mode.fps), (Some((1280, 720)), Some(30)), "not 120, which no encoder takes");

        let (mode, filter) = picked("video/x-raw; video/x-bayer; image/jpeg", &asked(None, None));
        assert_eq!((mode.size, filter.as_str()), (None, "video/x-raw, format=(string)NV12"));
        let (mode, _) =
            picked("video/x-raw,format=NV12,width=640,height=480,framerate=[0/1,2147483647/1]", &asked(None, None));
        assert!(mode.likely_fps > 29.9 && mode.likely_fps < 30.1);
    }
}
