//! Cameras with quirks that others have met (`tests/peers/quirks`, one file for each, with the places that tell of it), played
//! over real TCP: every one is recorded.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mos_tests::cli;
use mos_tests::daemon::{Setup, span};
use mos_tests::judge::archive::{assert_pictures, assert_tiled};
use mos_tests::judge::ffmpeg;
use mos_tests::onvif::peers;
use mos_tests::streams::{Kind, Stream};

/// A camera that behaves as a file says.
struct Quirk {
    name: String,
    url: String,
    /// Recorded by the other of our readers, which comes with UDP.
    needs_udp: bool,
    child: Child,
}

impl Quirk {
    fn start(file: &Path, video: &Path, sound: &Path) -> Self {
        let mut command = Command::new("python3");
        command.arg(peers().join("rtsp_quirks.py")).args([file, video, sound]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 is installed");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("port ").unwrap_or_else(|| panic!("{}: {line:?}", file.display()));
        let text = std::fs::read_to_string(file).unwrap();
        let path = text.lines().find_map(|l| l.strip_prefix("path = \"")).unwrap().trim_end_matches('"');
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let needs_udp = text.contains("\nneeds_udp = true");
        Self { name, url: format!("rtsp://127.0.0.1:{port}{path}"), needs_udp, child }
    }
}

impl Drop for Quirk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The stream as it is sent: pictures and sound without their container.
fn elementary(stream: &Stream, folder: &Path) -> (PathBuf, PathBuf) {
    let (video, sound) = (folder.join("video.h264"), folder.join("sound.aac"));
    let ffmpeg = |filter: &[&str], to: &Path| {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error", "-y", "-i"]).arg(&stream.path).args(filter).arg(to);
        cli::tool(&mut command);
    };
    let units = "h264_mp4toannexb,h264_metadata=aud=insert";
    ffmpeg(&["-map", "0:v", "-c", "copy", "-bsf:v", units, "-f", "h264"], &video);
    ffmpeg(&["-map", "0:a", "-c", "copy", "-f", "adts"], &sound);
    (video, sound)
}

#[test]
fn cameras_with_quirks_are_recorded() {
    let stream = Stream::get(Kind::H264Aac);
    let folder = tempfile::tempdir().unwrap();
    let (video, sound) = elementary(&stream, folder.path());
    let files = std::fs::read_dir(peers().join("quirks")).unwrap();
    let quirks: Vec<Quirk> = files.map(|file| Quirk::start(&file.unwrap().path(), &video, &sound)).collect();
    assert!(quirks.len() >= 10, "the quirks are gone");
    let mut setup = Setup::new().storage("segment_seconds", "2");
    for quirk in &quirks {
        // What does not need UDP does without: a fault of ours over TCP shall not hide behind it.
        let transport = if quirk.needs_udp { "auto" } else { "tcp" };
        setup = setup.camera_with(&quirk.name, &quirk.url, &format!("audio = true\ntransport = \"{transport}\""));
    }
    let daemon = setup.start();
    for quirk in &quirks {
        let is_late = quirk.name == "dahua_aac";
        let count = if is_late { 4 } else { 3 };
        let segments = daemon.await_closed(&quirk.name, count, Duration::from_mins(2));
        for (i, segment) in segments.iter().filter(|s| s["state"] != "open").take(count).enumerate() {
            let file = daemon.file(segment);
            if quirk.needs_udp {
                // A busy machine drops datagrams; what is missing then is other tests' matter.
                assert!(ffmpeg::all_numbers(&file).len() > 25, "{}", quirk.name);
                continue;
            }
            let shown = assert_pictures(&file, &stream);
            let seconds = shown.len() as f64 / f64::from(stream.fps);
            assert!((span(segment) - seconds).abs() < 0.5, "{}: {} s for {seconds} s", quirk.name, span(segment));
            let tracks = ffmpeg::probe(&file)["streams"].as_array().unwrap().len();
            let sound = quirk.name == "hikvision" || (is_late && i + 1 == count);
            // Sound may begin anywhere in the segments before the last that is looked at.
            if !is_late || sound {
                assert_eq!(tracks, if sound { 2 } else { 1 }, "{}: only AAC is recorded", quirk.name);
            }
        }
        assert_tiled(&segments, &daemon.gaps(&quirk.name), 0.05);
    }
}
