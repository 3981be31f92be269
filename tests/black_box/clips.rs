//! Clips: the first and last shown frame are exactly the asked ones in every player, sound stays in step, and what cannot be
//! cut is refused with its reason.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::cli::tool;
use mos_tests::daemon::{Daemon, Setup, id};
use mos_tests::judge::archive::{assert_pictures, source_md5};
use mos_tests::judge::{chromium, ffmpeg, gstreamer, parsers};
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_mins(2);

/// A closed segment of so many frames: one that a busy machine had to begin again may be shorter.
pub(crate) fn closed(daemon: &Daemon, lens: &str, frames: u64) -> Value {
    wait_for(&format!("a closed segment of {lens}"), LONG, || {
        let mut segments = daemon.segments(lens).into_iter();
        segments.find(|s| s["state"] != "open" && s["frames"].as_u64() >= Some(frames))
    })
}

pub(crate) fn cut(daemon: &Daemon, segment: &Value, from: f64, to: f64, out: &Path) -> Value {
    let (from, to) = (format!("{from:.6}"), format!("{to:.6}"));
    let args = ["clip", id(segment), "--from", &from, "--to", &to, "-o", out.to_str().unwrap(), "--json"];
    daemon.mos.run(&args).json()
}

#[test]
fn edges_are_exact_for_every_cut() {
    let streams = [Stream::get(Kind::H264), Stream::get(Kind::H264B3), Stream::get(Kind::H265)];
    let camera = Camera::open(&streams);
    let setup =
        streams.iter().enumerate().fold(Setup::new(), |setup, (i, s)| setup.camera(s.kind.name(), &camera.url(i)));
    let daemon = setup.start();
    for stream in &streams {
        let segment = closed(&daemon, stream.kind.name(), 80);
        let file = daemon.file(&segment);
        let (numbers, times) = (ffmpeg::all_numbers(&file), ffmpeg::times(&file, "v"));
        assert_eq!(numbers.len(), times.len());
        // A keyframe, one before and one after it, a frame in the middle of a GOP; a clip of one frame.
        for (first, end) in [(0, 25), (1, 60), (24, 50), (25, 51), (26, 76), (40, 41)] {
            let out = setup.folder().join(format!("{}-{first}-{end}.mp4", stream.kind.name()));
            let clip = cut(&daemon, &segment, times[first], times[end], &out);
            let expected = &numbers[first..end];
            assert_eq!(ffmpeg::all_numbers(&out), expected, "{}: ffmpeg, frames {first} to {end}", stream.kind.name());
            // GStreamer 1.22 takes the way from the keyframe to the start for the clip itself, and shows nothing where that way
            // is the longer one (README).
            if end - first > 2 * (first % 25) {
                gstreamer::assert_shows(&out, 640, 360, expected);
            }
            // Debian's Chromium has no H.265.
            if stream.kind.codec() == "h264" && first % 2 == 1 {
                let edges = (expected[0], expected[expected.len() - 1]);
                assert_eq!(
                    chromium::first_and_last(&out),
                    edges,
                    "{}: Chromium, frames {first} to {end}",
                    stream.kind.name()
                );
            }
            assert!(clip["payload"].is_object(), "the reply tells the payload span: {clip}");
        }
    }
}

#[test]
fn a_cut_does_not_touch_a_coded_byte() {
    let stream = Stream::get(Kind::H264B3);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().camera("road", &camera.url(0));
    let daemon = setup.start();
    let segment = closed(&daemon, "road", 80);
    let out = setup.folder().join("cut.mp4");
    let times = ffmpeg::times(&daemon.file(&segment), "v");
    let _ = cut(&daemon, &segment, times[10], times[70], &out);
    let source = source_md5(&stream);
    for (number, sum) in ffmpeg::all_numbers(&out).iter().zip(ffmpeg::frame_md5(&out)) {
        assert_eq!(sum, source[usize::from(*number)]);
    }
    let packets = |file: &Path| -> Vec<String> {
        let args = ["-v", "error", "-ignore_editlist", "1", "-i", file.to_str().unwrap(), "-map", "0:v", "-c", "copy"];
        let text = tool(Command::new("ffmpeg").arg("-nostdin").args(args).args(["-f", "framemd5", "-"]));
        let text = String::from_utf8(text).unwrap();
        text.lines().filter(|l| !l.starts_with('#')).map(|l| l.rsplit(',').next().unwrap().trim().to_owned()).collect()
    };
    let (all, of_clip) = (packets(&daemon.file(&segment)), packets(&out));
    let place = all.windows(of_clip.len()).position(|w| w == of_clip);
    assert!(place.is_some(), "the clip's packets are not a run of the segment's");
}

#[test]
fn sound_stays_in_step() {
    let stream = Stream::get(Kind::H264Aac);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().camera_with("cabin", &camera.url(0), "audio = true");
    let daemon = setup.start();
    let segment = closed(&daemon, "cabin", 80);
    let times = ffmpeg::times(&daemon.file(&segment), "v");
    let out = setup.folder().join("sound.mp4");
    let _ = cut(&daemon, &segment, times[13], times[63], &out);
    assert_eq!(parsers::assert_mp4parse(&out), 2);
    let _ = assert_pictures(&out, &stream);
    // Decoded sound, trimmed by its edit list, is as long as the pictures to within one access unit.
    let raw = tool(
        Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-i", out.to_str().unwrap()])
            .args(["-map", "0:a", "-f", "s16le", "-"]),
    );
    let seconds = raw.len() as f64 / (2.0 * 2.0 * 48_000.0);
    assert!((seconds - 2.0).abs() <= 1024.0 / 48_000.0 + 0.001, "{seconds} s of sound for 2 s of pictures");
    let audio = ffmpeg::times(&out, "a");
    assert!(audio[0] <= 0.022, "sound starts {} s late", audio[0]);
}

#[test]
fn sound_is_not_recorded_unless_asked_for() {
    let stream = Stream::get(Kind::H264Aac);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().storage("segment_seconds", "1").camera("cabin", &camera.url(0));
    let daemon = setup.start();
    let segment = closed(&daemon, "cabin", 1);
    assert_eq!(parsers::assert_mp4parse(&daemon.file(&segment)), 1);
}

#[test]
fn an_open_segment_can_be_cut() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().storage("segment_seconds", "600").camera("road", &camera.url(0));
    let daemon = setup.start();
    let segment = daemon.await_open("road", 3.0, LONG);
    let out = setup.folder().join("open.mp4");
    let _ = cut(&daemon, &segment, 0.5, 2.5, &out);
    let numbers = assert_pictures(&out, &stream);
    // Where a server's clock is caught up with after its start, more than 50 are shown in 2 s: the segment tells which.
    let mut bytes = std::fs::read(daemon.file(&segment)).unwrap();
    bytes.truncate(segment["bytes"].as_u64().unwrap() as usize);
    let whole = setup.folder().join("whole.mp4");
    std::fs::write(&whole, bytes).unwrap();
    let shown = ffmpeg::all_numbers(&whole).into_iter().zip(ffmpeg::times(&whole, "v"));
    let within: Vec<u16> = shown.filter(|(_, time)| (0.5..2.5).contains(time)).map(|(number, _)| number).collect();
    let missing = within.iter().filter(|number| !numbers.contains(number)).count();
    assert!(within.len() >= 49 && missing <= 1 && numbers.len() <= within.len() + 1, "{numbers:?} of {within:?}");
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().storage("segment_seconds", "1").camera("road", &camera.url(0));
    let daemon = setup.start();
    let segment = closed(&daemon, "road", 1);
    let post = |path: &str, body: &Value| daemon.client.post(path, body);
    let of_segment = format!("/v1/segments/{}/clip", id(&segment));
    for (from, to) in [(2.0, 1.0), (-1.0, 1.0), (0.5, 0.5)] {
        let refused = post(&of_segment, &json!({"start_offset": from, "end_offset": to}));
        assert_eq!(refused.error(400), "bad_request", "{from} to {to}");
    }
    let after = post(&of_segment, &json!({"start_offset": 500.0, "end_offset": 600.0}));
    assert!([400, 409].contains(&after.status), "{}", after.text());
    assert_eq!(
        post("/v1/segments/road-9-9/clip", &json!({"start_offset": 0.0, "end_offset": 1.0})).error(404),
        "not_found"
    );
    let nothing = post("/v1/lenses/road/clip", &json!({"start_ts": 1_000_000, "end_ts": 2_000_000}));
    assert_eq!(nothing.error(409), "no_footage");
    assert_eq!(post("/v1/lenses/nobody/clip", &json!({"start_ts": 1, "end_ts": 2})).error(404), "not_found");
    assert_eq!(post(&of_segment, &json!({"start": 0})).error(400), "bad_request");
    let out = setup.folder().join("never.mp4");
    let refused = daemon.mos.run(&["clip", id(&segment), "--from", "2", "--to", "1", "-o", out.to_str().unwrap()]);
    let _ = refused.error();
    assert!(!out.exists(), "a refused clip left a file");
}

#[test]
fn a_gap_inside_a_clip_is_told_and_shown_as_a_still() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().storage("segment_seconds", "600").camera("road", &camera.url(0));
    let daemon = setup.start();
    let _ = daemon.await_open("road", 2.0, LONG);
    daemon.kill();
    let daemon = setup.start();
    let segments = wait_for("a second run", LONG, || {
        let segments = daemon.segments("road");
        (segments.len() == 2 && mos_tests::daemon::span(&segments[1]) >= 2.0).then_some(segments)
    });
    let (end, start) = (segments[0]["end_ts"].as_i64().unwrap(), segments[1]["start_ts"].as_i64().unwrap());
    let clip =
        daemon.client.post("/v1/lenses/road/clip", &json!({"start_ts": end - 1_000_000, "end_ts": start + 1_000_000}));
    let clip = clip.ok();
    // Killed until the next start, then starting until the first keyframe: together they are the whole absence.
    let told: f64 = clip["gaps"].as_array().unwrap().iter().map(mos_tests::daemon::span).sum();
    // A quick restart begins before the last frame of the killed run would have ended.
    assert!((told - (start - end) as f64 / 1e6).abs() < 0.09, "{clip}");
    let file = daemon.file(&clip);
    let (numbers, times) = (ffmpeg::all_numbers(&file), ffmpeg::times(&file, "v"));
    assert_eq!(numbers.len(), times.len());
    let longest = times.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max);
    let gap = (start - end) as f64 / 1e6;
    assert!((longest - gap).abs() < 0.09, "a still of {longest} s stands for a gap of {gap} s");
    let shown: Vec<u16> = gstreamer::numbers(&file, 640, 360).into_iter().flatten().collect();
    assert_eq!(shown, numbers, "a player stops at the gap");
    parsers::assert_mp4san(&file);
}
