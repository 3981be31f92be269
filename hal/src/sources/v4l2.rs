//! `v4l2:`, a camera on this machine: USB or another V4L2 capture node.
//!
//! Promises to pass H.264 on as it is where the camera encodes, and else to encode on the host; to stamp frames with the
//! driver's monotonic capture time; and that a slow encoder costs raw frames, each of which is told, and never blocks the
//! driver.

use std::io;
use std::path::Path;
use std::sync::Arc;

use gstreamer::prelude::*;

use super::encoder::{self, Encoding};
use super::leaks;
use super::live::{self, Live};
use super::outlet::Outlet;
use super::samples;
use crate::generic::devices;
use crate::gst as common;
use crate::media::VideoCodec;
use crate::platform::DeviceMode;
use crate::source::SourceError;

/// Largest picture taken without being asked for.
const USUAL: (u32, u32) = (1920, 1080);
/// Frame rate that a mode should reach if none is asked for.
const SMOOTH: f32 = 24.0;
/// Bits per pixel for the host's fast encoder with a real camera's noise.
const BITS_PER_PIXEL: f64 = 0.1;

/// Starts the camera.
pub(super) fn open(
    device: &Path,
    size: Option<(u32, u32)>,
    fps: Option<u32>,
    outlet: &Arc<Outlet>,
) -> Result<Live, SourceError> {
    let modes = devices::capture_modes(device).map_err(|e| {
        let (what, detail) = (outlet.what.clone(), e.to_string());
        match e.kind() {
            io::ErrorKind::NotFound => SourceError::Absent { what, detail },
            io::ErrorKind::Unsupported => SourceError::Unsupported { what, detail },
            // ENODEV and ENXIO: the node is there, the device is not.
            _ if matches!(e.raw_os_error(), Some(6 | 19)) => SourceError::Absent { what, detail },
            _ => SourceError::Refused { what, detail },
        }
    })?;
    let choice = choose(&modes, size, fps).map_err(|why| outlet.unsupported(why))?;
    let start = || {
        common::init()?;
        let pipeline = common::build(&text("v4l2src name=camera", &choice)?)?;
        let camera: gstreamer::Element = common::named(&pipeline, "camera")?;
        camera.set_property("device", device.to_str().ok_or("the path is not UTF-8")?);
        Ok(pipeline)
    };
    let pipeline = start().map_err(|why: String| outlet.unsupported(why))?;
    if let Ok(queue) = common::named(&pipeline, leaks::QUEUE) {
        leaks::watch(&queue, outlet);
    }
    log::info!("{}: {:?} {}x{}", outlet.what, choice.stream, choice.size.0, choice.size.1);
    let kind = if choice.stream == Stream::H264 { live::Kind::Passed } else { live::Kind::Encoded };
    Live::start(&pipeline, outlet, kind)
}

/// What is taken from a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    H264,
    Mjpeg,
    Raw,
}

/// The mode to run.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Choice {
    stream: Stream,
    size: (u32, u32),
    /// Asked for; else the camera runs at its own.
    fps: Option<u32>,
    /// What it will be, for the length of a GOP.
    likely_fps: f32,
}

/// The best mode: coded by the camera if it can, else the largest usual picture that moves smoothly, raw rather than JPEG.
fn choose(modes: &[DeviceMode], size: Option<(u32, u32)>, fps: Option<u32>) -> Result<Choice, String> {
    let stream = |m: &DeviceMode| match m.format.as_str() {
        "h264" => Some(Stream::H264),
        "mjpeg" => Some(Stream::Mjpeg),
        // What videoconvert reads: no Bayer, no grey-only depth formats.
        "YUYV" | "UYVY" | "YVYU" | "VYUY" | "NV12" | "NV21" | "NV16" | "NV61" | "YU12" | "YV12" | "YU16" | "BG24"
        | "RG24" | "R8" => Some(Stream::Raw),
        _ => None,
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
            Stream::H264 => 2,
            Stream::Raw => 1,
            Stream::Mjpeg => 0,
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
        None => 15.0,
    };
    Ok(Choice { stream, size: (mode.width, mode.height), fps, likely_fps })
}

/// The pipeline after `source`, which delivers the chosen mode.
fn text(source: &str, choice: &Choice) -> Result<String, String> {
    let (width, height) = choice.size;
    let rate = choice.fps.map(|f| format!(",framerate={f}/1")).unwrap_or_default();
    let mode = format!("width={width},height={height}{rate}");
    let sink = live::sink(live::VIDEO);
    let encode = || {
        let pixels = f64::from(width) * f64::from(height) * f64::from(choice.likely_fps);
        let bitrate = (pixels * BITS_PER_PIXEL).clamp(500_000.0, 50_000_000.0) as u32;
        let gop = (choice.likely_fps as u32).max(1);
        // Four raw frames may wait for the encoder; then the oldest goes.
        let queue =
            format!("queue name={} leaky=downstream max-size-buffers=4 max-size-bytes=0 max-size-time=0", leaks::QUEUE);
        let encoder = encoder::text(&Encoding { codec: VideoCodec::H264, bitrate, gop })?;
        Ok::<_, String>(format!("{queue} ! videoconvert ! video/x-raw,format=I420 ! {encoder} ! {sink}"))
    };
    Ok(match choice.stream {
        Stream::H264 => {
            format!("{source} ! video/x-h264,{mode} ! h264parse config-interval=0 ! {} ! {sink}", samples::H264)
        }
        Stream::Mjpeg => format!("{source} ! image/jpeg,{mode} ! jpegdec ! {}", encode()?),
        Stream::Raw => format!("{source} ! video/x-raw,{mode} ! {}", encode()?),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::media::{AccessUnit, FrameKind};
    use crate::source::UnitSink;

    fn mode(format: &str, width: u32, height: u32, max_fps: f32) -> DeviceMode {
        DeviceMode { format: format.into(), width, height, max_fps }
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
        let chosen = |m: &[DeviceMode], size, fps| choose(m, size, fps).map(|c| (c.stream, c.size));
        assert_eq!(chosen(&usual, None, None), Ok((Stream::Mjpeg, (1920, 1080))));
        assert_eq!(chosen(&usual, Some((640, 480)), None), Ok((Stream::Raw, (640, 480))));
        assert_eq!(chosen(&usual, Some((1920, 1080)), Some(5)), Ok((Stream::Raw, (1920, 1080))));
        assert!(choose(&usual, Some((1920, 1080)), Some(60)).unwrap_err().contains("30 frames/s"));
        assert!(choose(&usual, Some((800, 600)), None).unwrap_err().contains("YUYV 640x480"));
        assert!(choose(&[mode("pBAA", 640, 480, 30.0)], None, None).is_err(), "Bayer is not taken");
        let coded = [mode("YUYV", 1920, 1080, 30.0), mode("h264", 1280, 720, 30.0)];
        assert_eq!(chosen(&coded, None, None), Ok((Stream::H264, (1280, 720))));
        let fraction = [mode("YUYV", 640, 480, 29.97)];
        assert_eq!(chosen(&fraction, None, Some(30)), Ok((Stream::Raw, (640, 480))));
    }

    struct Forward(mpsc::Sender<Result<AccessUnit, SourceError>>);

    impl UnitSink for Forward {
        fn unit(&self, unit: AccessUnit) {
            let _ = self.0.send(Ok(unit));
        }
        fn ended(&self, why: SourceError) {
            let _ = self.0.send(Err(why));
        }
    }

    /// Each branch with another element in the place of the camera.
    #[test]
    fn every_branch_delivers() {
        common::init().unwrap();
        let scene = "videotestsrc is-live=true";
        let raw = format!("{scene} ! video/x-raw,format=YUY2 ! identity");
        let jpeg = format!("{scene} ! jpegenc");
        let coded = format!(
            "{scene} ! x264enc tune=zerolatency key-int-max=10 ! video/x-h264,stream-format=byte-stream ! identity"
        );
        for (stream, source) in [(Stream::Raw, raw), (Stream::Mjpeg, jpeg), (Stream::H264, coded)] {
            let choice = Choice { stream, size: (320, 240), fps: Some(30), likely_fps: 30.0 };
            let pipeline = common::build(&text(&source, &choice).unwrap()).unwrap();
            let (sender, receiver) = mpsc::channel();
            let clock = Arc::new(SystemClock::new().unwrap());
            let outlet = Outlet::new("branch".into(), clock, Arc::new(Forward(sender)));
            let running = Live::start(&pipeline, &outlet, live::Kind::Passed).unwrap();
            drop(pipeline);
            let units: Vec<_> =
                receiver.iter().take(5).map(|u| u.unwrap_or_else(|why| panic!("{stream:?}: {why}"))).collect();
            assert_eq!(units[0].kind, FrameKind::Idr);
            assert!(units.windows(2).all(|w| w[0].pts < w[1].pts));
            assert!(units.iter().all(|u| u.pts.unwrap() <= u.arrival));
            drop(running);
        }
    }
}
