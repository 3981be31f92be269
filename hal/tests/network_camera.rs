//! `rtsp://` against a real server.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used)]

mod rig;

use std::net::TcpListener;
use std::path::Path;

use mos_hal::demo::{Login, RtspServer};
use mos_hal::media::{FrameKind, TrackFormat, VideoCodec};
use mos_hal::source::{SourceError, TestPattern};
use rig::{Collector, footage, frame_numbers, is_video, open, picture_hashes, raw_file, video_format};

/// A file of H.264 or H.265 as a camera.
fn camera(file: &Path, codec: &str, login: Login) -> RtspServer {
    let text = format!(
        "( filesrc location={} ! qtdemux name=d d.video_0 ! queue ! {codec}parse ! rtp{codec}pay name=pay0 pt=96 config-interval=-1 d.audio_0 ! queue ! aacparse ! rtpmp4gpay name=pay1 pt=97 )",
        file.display()
    );
    RtspServer::launch(&text, login).unwrap()
}

fn end_of(spec: &str) -> SourceError {
    let (source, sink) = open(spec, false);
    let _source = source.unwrap();
    sink.end().1
}

fn contains_secret(why: &SourceError, server: &RtspServer) -> bool {
    let text = format!("{why} {why:?}");
    text.contains(server.password()) || text.contains("viewer")
}

#[test]
fn a_scene_with_digest_login_arrives_whole() {
    let dir = tempfile::tempdir().unwrap();
    let server = RtspServer::start().unwrap();
    let (source, sink) = open(&server.url(), false);
    let source = source.unwrap();
    let units = sink.video(60);
    drop(source);
    let format = video_format(&units[0]);
    assert_eq!((format.codec, format.width, format.height, format.reorder), (VideoCodec::H264, 1280, 720, 0));
    assert_eq!(units[0].kind, FrameKind::Idr);
    let numbers = frame_numbers(&raw_file(dir.path(), &units));
    assert_eq!(numbers.len(), units.len());
    assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "{numbers:?}");
    assert!(units.windows(2).all(|w| w[0].pts < w[1].pts && !w[1].discontinuity));
}

/// All pictures of a file that a server sends, as they are in the file, with the file's spacing.
fn arrives_whole(codec: &[&str], name: &str, login: Login, reorder: u8) {
    let dir = tempfile::tempdir().unwrap();
    let file = footage(dir.path(), "a.mp4", 3, 25, codec);
    let server = camera(&file, name, login);
    let (source, sink) = open(&server.url(), true);
    let source = source.unwrap();
    let units = sink.video(60);
    drop(source);
    let video: Vec<_> = units.iter().filter(|u| is_video(u)).take(50).cloned().collect();
    assert_eq!(video_format(&video[0]).reorder, reorder);
    assert!(video[0].kind != FrameKind::Delta, "{:?}", video[0].kind);
    let sent = picture_hashes(&file);
    let got = picture_hashes(&raw_file(dir.path(), &video));
    // The last pictures of a cut stream may lack the ones they refer to.
    assert_eq!(got[..40], sent[..40]);
    let mut times: Vec<i64> = video.iter().map(|u| u.pts.unwrap().0).collect();
    times.sort_unstable();
    let steps: Vec<i64> = times.windows(2).map(|w| (w[1] - w[0]) / 1_000_000).collect();
    assert!(steps[..40].iter().all(|s| (38..=42).contains(s)), "{steps:?}");
    let sound: Vec<_> = units.iter().filter(|u| !is_video(u)).collect();
    assert!(sound.len() > 50, "{} frames of sound", sound.len());
    assert!(matches!(&*sound[0].format, TrackFormat::Audio(a) if a.sample_rate() == 48_000));
}

#[test]
fn h264_with_b_frames_and_sound() {
    arrives_whole(&["libx264", "-bf", "3", "-b_strategy", "0", "-g", "25"], "h264", Login::Digest, 2);
}

#[test]
fn h265_with_basic_login() {
    let params = "log-level=error:bframes=0";
    arrives_whole(&["libx265", "-g", "25", "-x265-params", params, "-tag:v", "hvc1"], "h265", Login::Basic, 0);
}

#[test]
fn h265_with_open_gops() {
    let params = "log-level=error:bframes=3:b-adapt=0:open-gop=1:keyint=25:min-keyint=25:scenecut=0";
    arrives_whole(&["libx265", "-x265-params", params, "-tag:v", "hvc1"], "h265", Login::Digest, 2);
}

#[test]
fn sound_is_not_set_up_unless_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = footage(dir.path(), "a.mp4", 2, 25, &["libx264", "-bf", "0"]);
    let server = camera(&file, "h264", Login::Digest);
    let (source, sink) = open(&server.url(), false);
    let source = source.unwrap();
    assert!(sink.video(25).iter().all(is_video));
    drop(source);
}

#[test]
fn refusals_have_their_kind_and_no_secret() {
    let server = RtspServer::start().unwrap();
    let wrong = end_of(&server.url_as("viewer", "hunter2"));
    assert!(matches!(wrong, SourceError::Refused { .. }), "{wrong}");
    assert!(!wrong.to_string().contains("hunter2") && !contains_secret(&wrong, &server), "{wrong}");
    let none = end_of(&format!("rtsp://127.0.0.1:{}/cabin", server.port()));
    assert!(matches!(none, SourceError::Refused { .. }), "{none}");
    let path = end_of(&server.url().replace("/cabin", "/nowhere"));
    assert!(matches!(path, SourceError::Refused { .. }), "{path}");
    assert!(!contains_secret(&path, &server), "{path}");
}

#[test]
fn a_dead_port_is_absent() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let why = end_of(&format!("rtsp://viewer:hunter2@127.0.0.1:{port}/cabin"));
    assert!(matches!(why, SourceError::Absent { .. }), "{why}");
    assert!(!why.to_string().contains("hunter2"), "{why}");
}

#[test]
fn a_camera_that_dies_broke_off() {
    let server = RtspServer::start().unwrap();
    let (source, sink) = open(&server.url(), false);
    let source = source.unwrap();
    sink.video(10);
    drop(server);
    let (_, why) = sink.end();
    drop(source);
    assert!(matches!(why, SourceError::Broken { .. }), "{why}");
}

#[test]
fn what_is_no_camera_is_not_taken_for_one() {
    let pattern = "( videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=64 ! jpegenc ! rtpjpegpay name=pay0 pt=26 )";
    let server = RtspServer::launch(pattern, Login::Digest).unwrap();
    let why = end_of(&server.url());
    assert!(matches!(why, SourceError::Unsupported { .. }), "{why}");
    assert!(why.to_string().contains("video/jpeg"), "{why}");
}

#[test]
fn eight_cameras_share_one_thread_and_keep_their_pace() {
    let pattern = TestPattern { width: 384, height: 128, fps: 25, gop: 25, bitrate: 200_000, ..TestPattern::default() };
    let server = RtspServer::scene(pattern).unwrap();
    let running: Vec<(_, std::sync::Arc<Collector>)> = (0..8).map(|_| open(&server.url(), false)).collect();
    let threads = || {
        let names = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        names.filter(|t| std::fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.trim() == "mos-rtsp")).count()
    };
    for (_, sink) in &running {
        let units = sink.video(50);
        let last = &units[units.len() - 1];
        let late = last.arrival.since(last.pts.unwrap());
        assert!(late < 2_000_000_000, "{late} ns late");
    }
    assert_eq!(threads(), 1);
}
