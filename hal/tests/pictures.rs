//! Keyframes to JPEG, judged by ffmpeg.
#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::path::Path;

use mos_hal::media::{AccessUnit, FrameKind, VideoFormat};
use mos_hal::platform::{CodecError, JpegOptions, probe};
use rig::{ffmpeg, is_video, open, raw_file, video_format};

const OPTIONS: JpegOptions = JpegOptions { quality: 85, max_edge: None };

/// The keyframes of a stream that ffmpeg encodes, read as the file source reads them.
fn keyframes(dir: &Path, picture: &str, codec: &[&str]) -> Vec<AccessUnit> {
    let file = dir.join("a.mp4");
    let mut args = vec!["-f", "lavfi", "-i", picture];
    args.extend(codec);
    args.extend(["-g", "5", file.to_str().unwrap()]);
    ffmpeg(&args);
    let (source, sink) = open(&format!("file:{}", file.display()), false);
    let source = source.unwrap();
    let (units, _) = sink.end();
    drop(source);
    units.into_iter().filter(|u| is_video(u) && u.kind != FrameKind::Delta && u.kind != FrameKind::Rasl).collect()
}

/// Luma of a JPEG, as ffmpeg decodes it.
fn luma_of_jpeg(dir: &Path, jpeg: &[u8]) -> Vec<u8> {
    let file = dir.join("a.jpg");
    fs::write(&file, jpeg).unwrap();
    ffmpeg(&["-i", file.to_str().unwrap(), "-vf", "extractplanes=y", "-pix_fmt", "gray", "-f", "rawvideo", "-"])
}

/// Luma of a keyframe in BT.601, full range, as ffmpeg decodes it.
fn luma_of_keyframe(dir: &Path, unit: &AccessUnit) -> Vec<u8> {
    let file = raw_file(dir, std::slice::from_ref(unit));
    let filter =
        "scale=out_color_matrix=bt601:out_range=pc:flags=accurate_rnd+full_chroma_int,format=yuvj444p,extractplanes=y";
    ffmpeg(&["-i", file.to_str().unwrap(), "-vf", filter, "-pix_fmt", "gray", "-f", "rawvideo", "-"])
}

fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |(a, b): (&u8, &u8)| u64::from(a.abs_diff(*b)).pow(2);
    let sum: u64 = a.iter().zip(b).map(square).sum();
    10.0 * (255.0f64.powi(2) * a.len() as f64 / (sum as f64).max(1e-9)).log10()
}

/// All keyframes in two rounds: each picture is its own, warm or cold.
fn matches_ffmpeg(size: &str, codec: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let frames = keyframes(dir.path(), &format!("testsrc2=size={size}:rate=10:duration=2"), codec);
    assert_eq!(frames.len(), 4);
    let wanted: Vec<_> = frames.iter().map(|unit| luma_of_keyframe(dir.path(), unit)).collect();
    let codecs = probe().codecs();
    let picture = |unit: &AccessUnit| codecs.jpeg(video_format(unit), &unit.data, OPTIONS).unwrap();
    let cold: Vec<_> = frames.iter().map(picture).collect();
    for (i, jpeg) in cold.iter().enumerate() {
        let format = video_format(&frames[i]);
        assert_eq!((jpeg.width, jpeg.height), (format.width, format.height));
        let luma = luma_of_jpeg(dir.path(), &jpeg.data);
        let own = psnr(&luma, &wanted[i]);
        assert!(own >= 35.0, "keyframe {i}: {own:.1} dB");
        let other = psnr(&luma, &wanted[(i + 1) % 4]);
        assert!(other < own, "keyframe {i} is like another: {other:.1} and {own:.1} dB");
    }
    let warm: Vec<_> = frames.iter().map(picture).collect();
    assert!(warm == cold, "a warm decoder makes the same pictures");
}

#[test]
fn h264_of_unnamed_colours() {
    matches_ffmpeg("640x360", &["-c:v", "libx264", "-pix_fmt", "yuv420p", "-bf", "3"]);
}

#[test]
fn h264_in_bt709() {
    let colours = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"];
    let filter = ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-pix_fmt", "yuv420p", "-c:v", "libx264"];
    matches_ffmpeg("1280x720", &[&filter[..], &colours].concat());
}

#[test]
fn h264_of_full_range() {
    let args = ["-vf", "scale=out_range=pc", "-pix_fmt", "yuvj420p", "-color_range", "pc", "-c:v", "libx264"];
    matches_ffmpeg("640x360", &args);
}

#[test]
fn h264_of_ten_bits_and_an_odd_crop() {
    matches_ffmpeg("642x362", &["-c:v", "libx264", "-pix_fmt", "yuv420p10le"]);
}

#[test]
fn h265() {
    matches_ffmpeg(
        "640x360",
        &["-c:v", "libx265", "-pix_fmt", "yuv420p", "-x265-params", "log-level=error", "-tag:v", "hvc1"],
    );
}

#[test]
fn h265_of_ten_bits_with_open_gops() {
    let params = "log-level=error:open-gop=1:keyint=5:min-keyint=5:scenecut=0";
    let args = ["-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", params, "-tag:v", "hvc1"];
    matches_ffmpeg("640x360", &args);
}

#[test]
fn quality_and_size_are_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let frames =
        keyframes(dir.path(), "testsrc2=size=1280x720:rate=10:duration=1", &["-c:v", "libx264", "-pix_fmt", "yuv420p"]);
    let codecs = probe().codecs();
    let make = |quality, max_edge| {
        codecs.jpeg(video_format(&frames[0]), &frames[0].data, JpegOptions { quality, max_edge }).unwrap()
    };
    let (low, high, small) = (make(20, None), make(95, None), make(85, Some(320)));
    assert!(low.data.len() * 2 < high.data.len(), "{} and {} bytes", low.data.len(), high.data.len());
    assert_eq!((small.width, small.height), (320, 180));
    let file = dir.path().join("small.jpg");
    fs::write(&file, &small.data).unwrap();
    assert_eq!(luma_of_jpeg(dir.path(), &small.data).len(), 320 * 180);
}

#[test]
fn what_is_no_picture_is_an_error_and_the_next_one_comes() {
    let dir = tempfile::tempdir().unwrap();
    let frames =
        keyframes(dir.path(), "testsrc2=size=320x240:rate=10:duration=1", &["-c:v", "libx264", "-pix_fmt", "yuv420p"]);
    let codecs = probe().codecs();
    let format: &VideoFormat = video_format(&frames[0]);
    let picture = |data: &[u8]| codecs.jpeg(format, data, OPTIONS);
    let first = picture(&frames[0].data).unwrap();
    for bad in [&b""[..], b"\0\0\0\x05hello", &[0xff; 300], &frames[0].data[..20]] {
        // A truncated picture may come out damaged; what must not come is the picture before.
        match picture(bad) {
            Err(CodecError::Undecodable(_)) => {}
            Ok(damaged) => assert_ne!(damaged.data, first.data),
            Err(other) => panic!("{other}"),
        }
        assert_eq!(picture(&frames[0].data).unwrap(), first);
    }
    let mut broken = format.clone();
    broken.config = vec![1, 2, 3].into();
    assert!(matches!(codecs.jpeg(&broken, &frames[0].data, OPTIONS), Err(CodecError::Undecodable(_)) | Ok(_)));
}

#[test]
fn any_thread_may_ask() {
    let dir = tempfile::tempdir().unwrap();
    let frames =
        keyframes(dir.path(), "testsrc2=size=320x240:rate=10:duration=2", &["-c:v", "libx264", "-pix_fmt", "yuv420p"]);
    let codecs = probe().codecs();
    let picture = |unit: &AccessUnit| codecs.jpeg(video_format(unit), &unit.data, OPTIONS).unwrap();
    let alone: Vec<_> = frames.iter().map(picture).collect();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let (picture, frames, alone) = (&picture, &frames, &alone);
            scope.spawn(move || {
                for _ in 0..5 {
                    assert_eq!(picture(&frames[i % 4]), alone[i % 4]);
                }
            });
        }
    });
}
