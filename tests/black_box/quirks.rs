//! Cameras with quirks that others have met (`tests/peers/quirks`, one file for each, with the places that tell of it), played
//! over real TCP and over UDP: every one is recorded.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mos_tests::cli;
use mos_tests::daemon::{Daemon, Setup, span};
use mos_tests::judge::archive::{assert_each_picture, assert_pictures, assert_tiled};
use mos_tests::judge::ffmpeg;
use mos_tests::onvif::peers;
use mos_tests::streams::{Kind, Stream};
use serde_json::Value;

const LONG: Duration = Duration::from_mins(3);
/// 20 ms of G.711.
const PIECE: usize = 160;

/// A camera that behaves as a file says.
struct Quirk {
    name: String,
    url: String,
    /// Recorded by the other of our readers, which comes with UDP.
    needs_udp: bool,
    /// Cannot be met over UDP.
    only_tcp: bool,
    child: Child,
}

/// A stream as it is sent: pictures and sound without their container.
struct Elementary {
    stream: Stream,
    video: PathBuf,
    aac: PathBuf,
    /// A-law of 8 kHz, as long as the pictures: noise, of which no two pieces are alike.
    law: PathBuf,
    _folder: tempfile::TempDir,
}

impl Elementary {
    fn make() -> Self {
        let (stream, folder) = (Stream::get(Kind::H264Aac), tempfile::tempdir().unwrap());
        let [video, aac, law] = ["video.h264", "sound.aac", "sound.al"].map(|name| folder.path().join(name));
        let ffmpeg = |from: &[&str], filter: &[&str], to: &Path| {
            let mut command = Command::new("ffmpeg");
            command.args(["-nostdin", "-v", "error", "-y"]).args(from).args(filter).arg(to);
            cli::tool(&mut command);
        };
        let file = ["-i", stream.path.to_str().unwrap()];
        let units = "h264_mp4toannexb,h264_metadata=aud=insert";
        ffmpeg(&file, &["-map", "0:v", "-c", "copy", "-bsf:v", units, "-f", "h264"], &video);
        ffmpeg(&file, &["-map", "0:a", "-c", "copy", "-f", "adts"], &aac);
        let noise = format!("anoisesrc=seed=7:sample_rate=8000:duration={}", stream.seconds);
        ffmpeg(&["-f", "lavfi", "-i", &noise], &["-f", "alaw"], &law);
        Self { stream, video, aac, law, _folder: folder }
    }

    /// All cameras.
    fn cameras(&self) -> Vec<Quirk> {
        let files = std::fs::read_dir(peers().join("quirks")).unwrap();
        let quirks: Vec<Quirk> = files.map(|file| Quirk::start(&file.unwrap().path(), self)).collect();
        assert!(quirks.len() >= 10, "the quirks are gone");
        quirks
    }
}

impl Quirk {
    fn start(file: &Path, sent: &Elementary) -> Self {
        let mut command = Command::new("python3");
        command.arg(peers().join("rtsp_quirks.py")).args([file, &sent.video, &sent.aac, &sent.law]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("python3 is installed");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("port ").unwrap_or_else(|| panic!("{}: {line:?}", file.display()));
        let text = std::fs::read_to_string(file).unwrap();
        let path = text.lines().find_map(|l| l.strip_prefix("path = \"")).unwrap().trim_end_matches('"');
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let (needs_udp, only_tcp) = (text.contains("\nneeds_udp = true"), text.contains("\nonly_tcp = "));
        Self { name, url: format!("rtsp://127.0.0.1:{port}{path}"), needs_udp, only_tcp, child }
    }

    /// Its sound, as ffprobe calls it.
    fn sound(&self) -> Option<&'static str> {
        match &*self.name {
            "hikvision" | "dahua_aac" => Some("aac"),
            "dahua" | "dahua_back" => Some("pcm_alaw"),
            _ => None,
        }
    }

    /// It begins seconds after the pictures.
    fn is_late(&self) -> bool {
        ["dahua", "dahua_aac"].contains(&&*self.name)
    }

    /// Its closed segments, as many as are looked at. Sound may begin anywhere in those before the last.
    fn segments(&self, daemon: &Daemon) -> Vec<Value> {
        let count = if self.is_late() { 4 } else { 3 };
        let segments = daemon.await_closed(&self.name, count, LONG);
        assert_tiled(&segments, &daemon.gaps(&self.name), 0.05);
        segments.into_iter().filter(|s| s["state"] != "open").take(count).collect()
    }

    /// Asserts that the last of its segments has the sound that it sends, and the others that or none.
    fn assert_sound(&self, daemon: &Daemon, segments: &[Value], sent: &Elementary, every_byte: bool) {
        for (i, segment) in segments.iter().enumerate() {
            let file = daemon.file(segment);
            let probed = ffmpeg::probe(&file);
            let streams = probed["streams"].as_array().unwrap();
            let found = streams.iter().find(|s| s["codec_type"] == "audio").map(|s| s["codec_name"].as_str().unwrap());
            let settled = !self.is_late() || i + 1 == segments.len();
            assert!(found == self.sound() || (!settled && found.is_none()), "{}: {found:?} in segment {i}", self.name);
            if found == Some("pcm_alaw") {
                let judge = if every_byte { assert_g711 } else { assert_g711_pieces };
                judge(&file, &sent.law, "alaw", &self.name);
            }
        }
    }
}

impl Drop for Quirk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sound of a file without its container.
fn g711(file: &Path, law: &str, what: &str) -> Vec<u8> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-i"]).arg(file).args(["-map", "0:a", "-c", "copy", "-f", law, "-"]);
    let kept = cli::tool(&mut command);
    assert!(kept.len() > 800, "{what}: {} bytes of sound", kept.len());
    kept
}

/// Asserts that the sound of a file is made of pieces of what was sent: a busy machine drops datagrams, and nine of ten pieces
/// lie in no such seam.
pub(crate) fn assert_g711_pieces(file: &Path, sent: &Path, law: &str, what: &str) {
    let (kept, sent) = (g711(file, law, what), std::fs::read(sent).unwrap());
    let twice = [&sent[..], &sent[..]].concat();
    let known: HashSet<&[u8]> = twice.windows(PIECE).take(sent.len()).collect();
    let pieces: Vec<bool> = kept.chunks_exact(PIECE).map(|piece| known.contains(piece)).collect();
    let whole = pieces.iter().filter(|known| **known).count();
    assert!(whole * 10 >= pieces.len() * 9, "{what}: {whole} of {} pieces of its sound were sent", pieces.len());
}

/// Asserts that the sound of a file is a piece of what was sent over and over.
pub(crate) fn assert_g711(file: &Path, sent: &Path, law: &str, what: &str) {
    let (kept, sent) = (g711(file, law, what), std::fs::read(sent).unwrap());
    let twice = [&sent[..], &sent[..]].concat();
    let whole = (0..sent.len()).any(|at| twice[at..].starts_with(&kept));
    assert!(whole, "{what}: its sound is not what was sent");
}

#[test]
fn cameras_with_quirks_are_recorded() {
    let sent = Elementary::make();
    let quirks = sent.cameras();
    let mut setup = Setup::new().storage("segment_seconds", "2");
    for quirk in &quirks {
        // What does not need UDP does without: a fault of ours over TCP shall not hide behind it.
        let transport = if quirk.needs_udp { "auto" } else { "tcp" };
        setup = setup.camera_with(&quirk.name, &quirk.url, &format!("audio = true\ntransport = \"{transport}\""));
    }
    let daemon = setup.start();
    for quirk in &quirks {
        let segments = quirk.segments(&daemon);
        quirk.assert_sound(&daemon, &segments, &sent, !quirk.needs_udp);
        for segment in &segments {
            let file = daemon.file(segment);
            if quirk.needs_udp {
                let _ = assert_each_picture(&file, &sent.stream);
                continue;
            }
            let shown = assert_pictures(&file, &sent.stream);
            let seconds = shown.len() as f64 / f64::from(sent.stream.fps);
            assert!((span(segment) - seconds).abs() < 0.5, "{}: {} s for {seconds} s", quirk.name, span(segment));
        }
    }
}

/// The same cameras over UDP, by the other of our readers.
#[test]
fn cameras_with_quirks_are_recorded_over_udp() {
    let sent = Elementary::make();
    let mut quirks = sent.cameras();
    quirks.retain(|quirk| !quirk.only_tcp);
    let mut setup = Setup::new().storage("segment_seconds", "2");
    for quirk in &quirks {
        setup = setup.camera_with(&quirk.name, &quirk.url, "audio = true\ntransport = \"udp\"");
    }
    let daemon = setup.start();
    for quirk in &quirks {
        let segments = quirk.segments(&daemon);
        quirk.assert_sound(&daemon, &segments, &sent, false);
        for segment in &segments {
            let _ = assert_each_picture(&daemon.file(segment), &sent.stream);
        }
    }
}
