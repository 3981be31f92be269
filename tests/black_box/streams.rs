//! Every kind of stream passes the whole way: record, list, decode, cut, picture, protect, kill, recover, remove, upload.

use std::path::Path;
use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::daemon::{Daemon, Setup, id, ts};
use mos_tests::judge::archive::{
    assert_no_frame_between, assert_pictures, assert_pictures_but_tail, assert_tiled, refresh_frames,
};
use mos_tests::judge::{ffmpeg, gstreamer, parsers};
use mos_tests::sshd::Sshd;
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;
use serde_json::{Value, json};

/// Eight lenses and their judges at once, beside other tests.
const LONG: Duration = Duration::from_mins(3);

/// Runs `check` for every kind at the same time, and fails with all that failed.
fn for_all(streams: &[Stream], check: impl Fn(&Stream) + Sync) {
    let failures: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = streams.iter().map(|s| (s.kind, scope.spawn(|| check(s)))).collect();
        let ended = running.into_iter().map(|(kind, thread)| (kind, thread.join()));
        ended.filter_map(|(kind, end)| end.err().map(|why| format!("{}: {}", kind.name(), text(&*why)))).collect()
    });
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let string = panic.downcast_ref::<String>().cloned();
    string.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
}

#[test]
fn every_kind_of_stream_goes_the_whole_way() {
    let streams: Vec<Stream> = Kind::RECORDED.into_iter().map(Stream::get).collect();
    let camera = Camera::locked(&streams);
    let mut setup = Setup::new();
    for (mount, stream) in streams.iter().enumerate() {
        let audio = if stream.kind == Kind::H264Aac { "audio = true" } else { "" };
        setup = setup.camera_with(stream.kind.name(), &camera.url(mount), audio);
    }
    let daemon = setup.start();
    for_all(&streams, |stream| {
        let segments = daemon.await_closed(stream.kind.name(), 2, LONG);
        recorded(&daemon, stream, &segments);
    });
    for_all(&streams, |stream| clip_across_a_border(&daemon, stream, setup.folder()));
    for_all(&streams, |stream| picture(&daemon, stream, setup.folder()));

    let protected: Vec<Value> = streams.iter().map(|s| daemon.segments(s.kind.name())[0].clone()).collect();
    for segment in &protected {
        assert_eq!(daemon.mos.run(&["protect", id(segment)]).code, 0);
    }
    for stream in &streams {
        let _ = daemon.await_open(stream.kind.name(), 1.5, LONG);
    }
    daemon.kill();
    // Dead for some frames: otherwise the next run would begin within the last frame, and nothing would be missing.
    std::thread::sleep(Duration::from_millis(300));

    let daemon = setup.start();
    for_all(&streams, |stream| {
        let lens = stream.kind.name();
        let segments = wait_for(&format!("recovery of {lens}"), LONG, || {
            let segments = daemon.segments(lens);
            segments.iter().any(|s| s["state"] == "recovered").then_some(segments)
        });
        recovered(&daemon, stream, &segments);
        // The hole between the runs is accounted for when the recovery of all lenses is through.
        let _ = wait_for(&format!("the gap of the kill in {lens}"), LONG, || {
            daemon.gaps(lens).into_iter().find(|g| g["cause"] == "recorder_killed")
        });
        let kept = &protected.iter().find(|s| s["lens"] == lens).unwrap();
        let refused = daemon.client.request("DELETE", &format!("/v1/segments/{}", id(kept)), None);
        assert_eq!(refused.error(409), "protected");
        assert_eq!(daemon.mos.run(&["unprotect", id(kept)]).code, 0);
        assert_eq!(daemon.mos.run(&["remove", id(kept)]).code, 0);
        assert!(!daemon.file(kept).exists());
        assert!(daemon.segments(lens).iter().all(|s| id(s) != id(kept)));
    });
    let sshd = Sshd::start();
    for_all(&streams, |stream| upload(&daemon, stream, &sshd));
}

/// What is listed is on disk, plays everywhere, and is the source's, frame by frame.
fn recorded(daemon: &Daemon, stream: &Stream, segments: &[Value]) {
    let mut seen = Vec::new();
    for segment in segments.iter().filter(|s| s["state"] != "open") {
        assert_eq!(segment["codec"], stream.kind.codec(), "{segment}");
        assert_eq!((segment["width"].as_u64(), segment["height"].as_u64()), (Some(640), Some(360)), "{segment}");
        let file = daemon.file(segment);
        assert_eq!(segment["bytes"].as_u64(), std::fs::metadata(&file).ok().map(|m| m.len()), "{segment}");
        let numbers = assert_pictures(&file, stream);
        let frames = segment["frames"].as_u64().unwrap() as usize;
        assert!(
            frames.abs_diff(numbers.len()) <= refresh_frames(stream),
            "{frames} frames listed, {} shown",
            numbers.len()
        );
        gstreamer::assert_plays_pushed(&file);
        let tracks = parsers::assert_mp4parse(&file);
        assert_eq!(tracks, if stream.kind == Kind::H264Aac { 2 } else { 1 });
        parsers::assert_mp4san(&file);
        seen.push((segment.clone(), numbers));
    }
    assert_no_frame_between(&seen, stream);
    assert_tiled(segments, &daemon.gaps(stream.kind.name()), 0.11);
}

/// What a kill left plays up to its end.
fn recovered(daemon: &Daemon, stream: &Stream, segments: &[Value]) {
    for segment in segments.iter().filter(|s| s["state"] == "recovered") {
        let file = daemon.file(segment);
        let frames = segment["frames"].as_u64().unwrap() as usize;
        let shown = match stream.kind {
            // Of one that had only begun, decoders may show nothing: it holds no whole refresh.
            Kind::H264Refresh if frames <= refresh_frames(stream) => frames,
            Kind::H264Refresh => assert_pictures(&file, stream).len(),
            _ => assert_pictures_but_tail(&file, stream).len(),
        };
        assert!(shown > 0, "{segment}");
        gstreamer::assert_plays_pushed(&file);
        parsers::assert_mp4san(&file);
    }
    assert_tiled(segments, &daemon.gaps(stream.kind.name()), 0.11);
}

/// How many frames of a segment are shown from `from` to `to`, as ffmpeg sees its file.
fn frames_within(daemon: &Daemon, segment: &Value, (from, to): (i64, i64)) -> usize {
    let at = |time: f64| ts(segment, "start_ts") + (time * 1e6).round() as i64;
    ffmpeg::times(&daemon.file(segment), "v").into_iter().filter(|time| (from..to).contains(&at(*time))).count()
}

/// A clip by time that begins in one segment and ends in the next holds the frames of both, without a seam.
fn clip_across_a_border(daemon: &Daemon, stream: &Stream, folder: &Path) {
    const PART: i64 = 1_500_000;
    let lens = stream.kind.name();
    // A busy machine may have had to begin again behind a short one.
    let sides = wait_for(&format!("two whole segments of {lens} that touch"), LONG, || {
        let segments = daemon.segments(lens);
        let long = |s: &Value| s["state"] == "closed" && ts(s, "end_ts") - ts(s, "start_ts") > PART;
        let touch = |pair: &&[Value]| (ts(&pair[1], "start_ts") - ts(&pair[0], "end_ts")).abs() < 20_000;
        segments.windows(2).filter(|pair| pair.iter().all(long)).find(touch).map(<[Value]>::to_vec)
    });
    let border = ts(&sides[0], "end_ts");
    let span = (border - PART, border + PART);
    let out = folder.join(format!("{lens}-clip.mp4"));
    let (from, to) = (span.0.to_string(), span.1.to_string());
    let clip =
        daemon.mos.run(&["clip", "--lens", lens, "--from", &from, "--to", &to, "-o", out.to_str().unwrap(), "--json"]);
    let clip = clip.json();
    assert!(clip["id"].is_string() && clip["path"].is_string(), "{clip}");
    assert_eq!(clip["bytes"].as_u64(), std::fs::metadata(&out).ok().map(|m| m.len()), "{clip}");
    parsers::assert_mp4parse(&out);
    parsers::assert_mp4san(&out);
    let numbers = assert_pictures(&out, stream);
    // Where a server's clock is caught up with after its start, more than 75 are shown in 3 s: the segments tell how many.
    let expected: usize = sides.iter().map(|side| frames_within(daemon, side, span)).sum();
    // Decoding begins in the middle of a refresh: what is not whole yet is not shown.
    let (least, most) = (expected - 1 - refresh_frames(stream), expected + 1);
    assert!((least..=most).contains(&numbers.len()), "{} frames of {expected} in 3 s", numbers.len());
    if stream.kind != Kind::H264Refresh {
        gstreamer::assert_shows(&out, stream.width, stream.height, &numbers);
    }
}

/// A picture of a closed and of the open segment is the keyframe at or before the asked offset.
fn picture(daemon: &Daemon, stream: &Stream, folder: &Path) {
    let lens = stream.kind.name();
    // One that has just begun is shorter than what is asked for.
    let open = daemon.await_open(lens, 0.5, LONG);
    for segment in [&daemon.segments(lens)[0], &open] {
        let out = folder.join(format!("{}.jpg", id(segment)));
        let done = daemon.mos.run(&["snapshot", id(segment), "--at", "0.3", "-o", out.to_str().unwrap(), "--json"]);
        let done = done.json();
        assert!(done["path"].is_string(), "{done}");
        let shown = ffmpeg::probe(&out);
        assert_eq!(shown["streams"][0]["codec_name"], "mjpeg");
        assert_eq!((&shown["streams"][0]["width"], &shown["streams"][0]["height"]), (&json!(640), &json!(360)));
        if stream.kind != Kind::H264Refresh {
            let number = ffmpeg::all_numbers(&out)[0];
            let first = ffmpeg::all_numbers(&daemon.file(segment))[0];
            assert_eq!(number, first, "the picture at 0.3 s is not the first keyframe of {}", id(segment));
        }
    }
}

/// The file arrives at a real server, byte by byte.
fn upload(daemon: &Daemon, stream: &Stream, sshd: &Sshd) {
    let segments = daemon.segments(stream.kind.name());
    let segment = segments.iter().find(|s| s["state"] != "open").unwrap();
    let file = daemon.file(segment);
    let identity = sshd.identity();
    let to = format!("{}{}.mp4", sshd.uri(), stream.kind.name());
    let args = ["upload", file.to_str().unwrap(), "--to", &to, "--host-key", &sshd.fingerprint(), "--identity"];
    let done = daemon.mos.run(&[&args[..], &[identity.to_str().unwrap()]].concat());
    assert_eq!(done.code, 0, "{}", done.err);
    let arrived = std::fs::read(sshd.upload().join(format!("{}.mp4", stream.kind.name()))).unwrap();
    assert!(arrived == std::fs::read(&file).unwrap(), "other bytes arrived");
}
