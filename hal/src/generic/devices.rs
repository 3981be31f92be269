//! The V4L2 capture devices of this machine.
//!
//! Promises one entry per node that captures video, with the modes it lists, keyed by its by-path name so that the key stays
//! while the device stays in its port. Only asks; changes no setting and starts no stream.

use std::collections::BTreeMap;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use drm_fourcc::DrmFourcc;
use v4l::capability::Flags;
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::video::Capture;

use crate::platform::{Device, DeviceMode, Transport};

/// udev's links that name a node by the port it hangs on (systemd's 60-persistent-v4l.rules). Cheap cameras share serial
/// numbers, ports never do.
const BY_PATH: &str = "/dev/v4l/by-path";

/// Most modes listed per device; a hostile device could list for ever.
const MAX_MODES: usize = 256;

/// Capture devices, ordered by id.
pub(crate) fn v4l2() -> Vec<Device> {
    let names = by_path_names(Path::new(BY_PATH));
    let mut found: Vec<Device> = nodes(Path::new("/dev")).iter().filter_map(|node| describe(node, &names)).collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found
}

/// The `videoN` nodes in `dev`.
fn nodes(dev: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dev).into_iter().flatten().flatten();
    let is_video = |path: &PathBuf| {
        let digits = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix("video"));
        digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
    };
    entries.map(|e| e.path()).filter(is_video).collect()
}

/// Node to the name of the link that points at it.
fn by_path_names(links: &Path) -> BTreeMap<PathBuf, String> {
    let entries = fs::read_dir(links).into_iter().flatten().flatten();
    let mut names: Vec<(PathBuf, String)> =
        entries.filter_map(|e| Some((fs::canonicalize(e.path()).ok()?, e.file_name().into_string().ok()?))).collect();
    // USB devices have two links since systemd 255 (`usb-` and `usbv2-`); the last insert wins: keep the older, shorter one.
    names.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then_with(|| b.1.cmp(&a.1)));
    names.into_iter().collect()
}

fn describe(node: &Path, names: &BTreeMap<PathBuf, String>) -> Option<Device> {
    let open = v4l::Device::with_path(node).ok()?;
    // The crate unwraps the device's texts as UTF-8, and a USB device may send any bytes.
    let caps = catch_unwind(|| open.query_caps()).ok()?.ok()?;
    if !caps.capabilities.intersects(Flags::VIDEO_CAPTURE | Flags::VIDEO_CAPTURE_MPLANE) {
        return None;
    }
    let modes = catch_unwind(|| modes(&open)).unwrap_or_default();
    let id = names.get(node).cloned().unwrap_or_else(|| node.display().to_string());
    let (properties, controls) = (Vec::new(), Vec::new());
    Some(Device {
        id,
        name: caps.card,
        transport: Transport::V4l2,
        node: Some(node.to_owned()),
        modes,
        properties,
        controls,
    })
}

fn modes(device: &v4l::Device) -> Vec<DeviceMode> {
    let mut modes = Vec::new();
    for format in device.enum_formats().unwrap_or_default() {
        let name = format_name(format.fourcc.repr);
        for size in device.enum_framesizes(format.fourcc).unwrap_or_default() {
            let (width, height, smallest) = match size.size {
                FrameSizeEnum::Discrete(s) => (s.width, s.height, None),
                FrameSizeEnum::Stepwise(s) => (s.max_width, s.max_height, Some((s.min_width, s.min_height))),
            };
            let intervals = device.enum_frameintervals(format.fourcc, width, height).unwrap_or_default();
            let max_fps = intervals.iter().map(|i| fps(&i.interval)).fold(0.0, f32::max);
            modes.push(DeviceMode { format: name.clone(), width, height, smallest, max_fps });
            if modes.len() == MAX_MODES {
                return modes;
            }
        }
    }
    modes
}

fn fps(interval: &FrameIntervalEnum) -> f32 {
    let shortest = match interval {
        FrameIntervalEnum::Discrete(f) => f,
        FrameIntervalEnum::Stepwise(s) => &s.min,
    };
    if shortest.numerator == 0 { 0.0 } else { shortest.denominator as f32 / shortest.numerator as f32 }
}

/// V4L2 and DRM name the same layouts with different codes; coded formats have no DRM code (V4L2 pixel formats,
/// Documentation/userspace-api/media/v4l; `drm_fourcc.h`).
fn format_name(v4l2: [u8; 4]) -> String {
    let drm = match &v4l2 {
        b"H264" => return "h264".into(),
        b"HEVC" => return "h265".into(),
        b"MJPG" | b"JPEG" => return "mjpeg".into(),
        b"RGB3" => Some(DrmFourcc::Bgr888),
        b"BGR3" => Some(DrmFourcc::Rgb888),
        b"YU12" => Some(DrmFourcc::Yuv420),
        b"YV12" => Some(DrmFourcc::Yvu420),
        b"422P" => Some(DrmFourcc::Yuv422),
        b"GREY" => Some(DrmFourcc::R8),
        // YUYV, UYVY, NV12, NV16, NV21… are the same four letters in both.
        same => DrmFourcc::try_from(u32::from_le_bytes(*same)).ok(),
    };
    match drm {
        Some(drm) => drm.to_string().trim().to_owned(),
        None => v4l2.iter().map(|b| if b.is_ascii_graphic() { char::from(*b) } else { '.' }).collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn raw_formats_have_drm_names_and_coded_ones_codec_names() {
        let named = |f: &[u8; 4]| format_name(*f);
        assert_eq!((&*named(b"NV12"), &*named(b"YUYV")), ("NV12", "YUYV"));
        assert_eq!((&*named(b"RGB3"), &*named(b"GREY")), ("BG24", "R8"));
        assert_eq!((&*named(b"H264"), &*named(b"HEVC"), &*named(b"MJPG")), ("h264", "h265", "mjpeg"));
        assert_eq!(named(b"\x00\xffpB"), "..pB");
    }

    #[test]
    fn nodes_are_found_by_name_and_keyed_by_port() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["video0", "video12", "video", "videox", "v4l-subdev0"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let root = fs::canonicalize(dir.path()).unwrap();
        let mut found = nodes(&root);
        found.sort();
        assert_eq!(found, [root.join("video0"), root.join("video12")]);

        let links = root.join("by-path");
        fs::create_dir(&links).unwrap();
        symlink("../video0", links.join("pci-0000:00:14.0-usb-0:1:1.0-video-index0")).unwrap();
        symlink("../video0", links.join("pci-0000:00:14.0-usbv2-0:1:1.0-video-index0")).unwrap();
        symlink("../gone", links.join("pci-0000:00:14.0-usb-0:2:1.0-video-index0")).unwrap();
        let names = by_path_names(&links);
        assert_eq!(names.len(), 1);
        assert_eq!(names[&root.join("video0")], "pci-0000:00:14.0-usb-0:1:1.0-video-index0");
    }

    #[test]
    fn a_file_is_no_device() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(describe(file.path(), &BTreeMap::new()), None);
        assert!(v4l2().iter().all(|d| d.node.is_some()), "enumeration of this machine does not fail");
    }
}
