//! `file:` in real time.
#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::BTreeSet;

use mos_hal::media::{FrameKind, TrackFormat};
use mos_hal::source::SourceError;
use rig::{footage, is_video, open, picture_hashes, raw_file, video_format};

/// Every picture of the file, bit by bit, once, at the file's own times.
fn plays_whole(codec: &[&str], reorder: u8) {
    let dir = tempfile::tempdir().unwrap();
    let file = footage(dir.path(), "a.mp4", 2, 25, codec);
    let (source, sink) = open(&format!("file:{}", file.display()), false);
    let source = source.unwrap();
    let (units, end) = sink.end();
    drop(source);
    assert!(matches!(end, SourceError::Ended { .. }), "{end}");
    assert!(units.iter().all(is_video), "sound was not asked for");
    assert_eq!(units.len(), 50);
    assert_eq!(video_format(&units[0]).reorder, reorder);
    assert_eq!(picture_hashes(&raw_file(dir.path(), &units)), picture_hashes(&file));
    let times: BTreeSet<i64> = units.iter().map(|u| u.pts.unwrap().0).collect();
    let times: Vec<i64> = times.into_iter().collect();
    assert_eq!(times.len(), 50);
    assert!(times.windows(2).all(|w| (w[1] - w[0] - 40_000_000).abs() < 2), "{times:?}");
    assert!(units.iter().all(|u| u.pts.unwrap() <= u.arrival), "nothing comes before its time");
}

#[test]
fn h264_in_order() {
    plays_whole(&["libx264", "-bf", "0", "-g", "25"], 0);
}

#[test]
fn h264_with_b_frames() {
    plays_whole(&["libx264", "-bf", "3", "-b_strategy", "0", "-g", "25"], 2);
}

#[test]
fn h265_with_b_frames() {
    plays_whole(&["libx265", "-g", "25", "-x265-params", "log-level=error:bframes=3:b-adapt=0", "-tag:v", "hvc1"], 2);
}

#[test]
fn rounds_follow_each_other_without_a_hole() {
    let dir = tempfile::tempdir().unwrap();
    let file = footage(dir.path(), "a.mp4", 1, 25, &["libx264", "-bf", "2", "-b_strategy", "0"]);
    let (source, sink) = open(&format!("file:{}?loop=true", file.display()), true);
    let source = source.unwrap();
    let units = sink.video(60);
    drop(source);
    let video: Vec<_> = units.iter().filter(|u| is_video(u)).cloned().collect();
    let starts: Vec<usize> =
        video.iter().enumerate().filter(|(_, u)| u.kind == FrameKind::Idr).map(|(i, _)| i).collect();
    assert_eq!(starts, [0, 25, 50]);
    let whole = &video[..50];
    let times: BTreeSet<i64> = whole.iter().map(|u| u.pts.unwrap().0).collect();
    let times: Vec<i64> = times.into_iter().collect();
    assert_eq!(times.len(), 50, "times rise from round to round");
    let steps: Vec<i64> = times.windows(2).map(|w| (w[1] - w[0]) / 1_000_000).collect();
    // A round ends with its longest track; the tone's last frame may stick out by some milliseconds.
    assert!(
        steps.iter().enumerate().all(|(i, s)| if i == 24 { (39..110).contains(s) } else { (39..=40).contains(s) }),
        "{steps:?}"
    );
    assert!(whole.iter().all(|u| !u.discontinuity));
    let hashes = picture_hashes(&raw_file(dir.path(), whole));
    assert_eq!(hashes[..25], hashes[25..]);
    let sound: Vec<_> = units.iter().filter(|u| !is_video(u)).collect();
    assert!(sound.len() > 80, "{} frames of sound", sound.len());
    assert!(matches!(&*sound[0].format, TrackFormat::Audio(a) if a.sample_rate() == 48_000));
    assert!(sound.windows(2).all(|w| w[0].pts < w[1].pts));
}

#[test]
fn what_cannot_be_played_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let (absent, _) = open("file:/nowhere/a.mp4", false);
    assert!(matches!(absent.err().unwrap(), SourceError::Absent { .. }));

    let text = dir.path().join("text.mp4");
    std::fs::write(&text, "this is no film").unwrap();
    let (source, sink) = open(&format!("file:{}", text.display()), false);
    let source = source.unwrap();
    let (_, why) = sink.end();
    drop(source);
    assert!(matches!(why, SourceError::Unsupported { .. }), "{why}");

    let sound = dir.path().join("sound.mp4");
    rig::ffmpeg(&["-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", sound.to_str().unwrap()]);
    let (source, sink) = open(&format!("file:{}", sound.display()), true);
    let source = source.unwrap();
    let (_, why) = sink.end();
    drop(source);
    assert!(why.to_string().contains("no H.264 or H.265"), "{why}");
}

/// The kinds of the units of a stream of 50 pictures.
fn kinds(codec: &[&str]) -> (Vec<FrameKind>, Vec<mos_hal::media::AccessUnit>) {
    let dir = tempfile::tempdir().unwrap();
    let file = footage(dir.path(), "a.mp4", 2, 25, codec);
    let (source, sink) = open(&format!("file:{}", file.display()), false);
    let source = source.unwrap();
    let (units, _) = sink.end();
    drop(source);
    assert_eq!(units.len(), 50);
    (units.iter().map(|u| u.kind).collect(), units)
}

#[test]
fn open_gops_begin_with_cra_and_their_leading_pictures_are_known() {
    let params = "log-level=error:bframes=3:b-adapt=0:open-gop=1:keyint=10:min-keyint=10:scenecut=0";
    let (kinds, _) = kinds(&["libx265", "-x265-params", params, "-tag:v", "hvc1"]);
    assert!(matches!(kinds[0], FrameKind::Idr | FrameKind::Cra), "{kinds:?}");
    let entries: Vec<usize> = (1..50).filter(|i| kinds[*i] == FrameKind::Cra).collect();
    assert!(entries.len() >= 3, "{kinds:?}");
    assert!(entries.iter().take(3).all(|i| kinds[i + 1] == FrameKind::Rasl), "{kinds:?}");
    assert!(!kinds.contains(&FrameKind::RecoveryPoint));
}

#[test]
fn intra_refresh_has_recovery_points_and_they_make_a_picture() {
    let (kinds, units) = kinds(&["libx264", "-bf", "0", "-x264-params", "intra-refresh=1:keyint=10"]);
    assert_eq!(kinds[0], FrameKind::Idr);
    let entry = (1..50).find(|i| kinds[*i] == FrameKind::RecoveryPoint).unwrap();
    assert!(!kinds[1..].contains(&FrameKind::Idr), "{kinds:?}");
    let options = mos_hal::platform::JpegOptions { quality: 85, max_edge: None };
    let codecs = mos_hal::platform::probe().codecs();
    let jpeg = codecs.jpeg(video_format(&units[entry]), &units[entry].data, options).unwrap();
    assert_eq!((jpeg.width, jpeg.height), (640, 360));
}

#[test]
fn a_variable_rate_keeps_its_times() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.mp4");
    // Every third picture is missing: steps of 40 and 80 ms.
    let source = "testsrc2=size=320x240:rate=25:duration=2,select='mod(n\\,3)'";
    let args = [
        "-f",
        "lavfi",
        "-i",
        source,
        "-fps_mode",
        "vfr",
        "-enc_time_base",
        "1/25",
        "-c:v",
        "libx264",
        "-pix_fmt",
        "yuv420p",
        "-bf",
        "2",
    ];
    rig::ffmpeg(&[&args[..], &[file.to_str().unwrap()]].concat());
    let (source, sink) = open(&format!("file:{}", file.display()), false);
    let source = source.unwrap();
    let (units, _) = sink.end();
    drop(source);
    let mut times: Vec<i64> = units.iter().map(|u| u.pts.unwrap().0 / 1_000_000).collect();
    times.sort_unstable();
    let steps: Vec<i64> = times.windows(2).map(|w| (w[1] - w[0] + 1) / 40 * 40).collect();
    assert_eq!(steps.len(), 32);
    assert!(steps.iter().enumerate().all(|(i, s)| *s == if i % 2 == 0 { 40 } else { 80 }), "{steps:?}");
}
