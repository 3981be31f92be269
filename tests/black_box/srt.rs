//! Cameras over SRT: called and calling, encrypted, refused, gone and back.

use std::time::Duration;

use mos_tests::daemon::{Daemon, Setup, span};
use mos_tests::judge::archive::{assert_pictures, assert_tiled};
use mos_tests::judge::ffmpeg;
use mos_tests::srt::{PASSPHRASE, SrtCamera};
use mos_tests::streams::{Kind, Stream};
use mos_tests::{free_port, wait_for};
use serde_json::Value;

const LONG: Duration = Duration::from_mins(3);

fn view(daemon: &Daemon, lens: &str) -> Value {
    let status = daemon.client.get("/v1/capture/status").json();
    status["lenses"].as_array().unwrap().iter().find(|view| view["lens"] == lens).unwrap().clone()
}

fn error(daemon: &Daemon, lens: &str, words: &str) -> String {
    wait_for(&format!("{lens}: {words}"), LONG, || {
        view(daemon, lens)["last_error"].as_str().filter(|e| e.contains(words)).map(str::to_owned)
    })
}

/// Who calls before somebody listens is not heard.
fn await_listener(daemon: &Daemon, lens: &str, port: u16) {
    wait_for("the listener", LONG, || {
        let sockets = std::fs::read_to_string("/proc/net/udp").unwrap();
        let listens = sockets.contains(&format!(":{port:04X} 00000000:0000"));
        (view(daemon, lens)["state"] == "connecting" && listens).then_some(())
    });
}

/// H.264 with sound and H.265 arrive bit by bit, from a camera that is called and from one that calls.
#[test]
fn coded_streams_are_recorded_as_they_were_sent() {
    let (sound, h265) = (Stream::get(Kind::H264Aac), Stream::get(Kind::H265));
    let (called, calling) = (free_port(), free_port());
    let key = format!("passphrase={PASSPHRASE}");
    let setup = Setup::new()
        .environment("MOS_LOG__LEVEL", "trace")
        .storage("segment_seconds", "2")
        // What comes later than the latency is dropped by SRT itself, which a busy machine may well bring about.
        .camera_with("called", &format!("srt://127.0.0.1:{called}?{key}&latency=3000"), "audio = true")
        .camera("calling", &format!("srt://127.0.0.1:{calling}?mode=listener&{key}&latency=3000"));
    let _first = SrtCamera::start(&sound, &format!("srt://:{called}?mode=listener&{key}"));
    let daemon = setup.start();
    await_listener(&daemon, "calling", calling);
    let _second = SrtCamera::start(&h265, &format!("srt://127.0.0.1:{calling}?mode=caller&{key}"));
    for (lens, stream) in [("called", &sound), ("calling", &h265)] {
        let segments = daemon.await_closed(lens, 2, LONG);
        // What comes last ends where the sender did, which sends sound but once: a slow machine gets as far before it judges.
        let (_last, before) = segments.split_last().unwrap();
        let whole: Vec<&Value> = before.iter().filter(|s| s["state"] != "open").collect();
        assert!(!whole.is_empty(), "{segments:?}");
        for segment in whole {
            let file = daemon.file(segment);
            let _ = assert_pictures(&file, stream);
            let tracks = ffmpeg::probe(&file)["streams"].as_array().unwrap().len();
            assert_eq!(tracks, if lens == "called" { 2 } else { 1 });
        }
        assert_tiled(&segments, &daemon.gaps(lens), 0.05);
    }
    let shown = format!("{}{}", daemon.client.get("/v1/capture/status").text(), daemon.log());
    assert!(!shown.contains(PASSPHRASE), "the passphrase shows up");
}

#[test]
fn a_wrong_passphrase_is_refused_and_a_camera_that_comes_back_is_recorded_again() {
    let stream = Stream::get(Kind::H264);
    let (port, nobody, uncalled, apart) = (free_port(), free_port(), free_port(), free_port());
    let at = format!("srt://:{port}?mode=listener&passphrase={PASSPHRASE}&wait-for-connection=false");
    let setup = Setup::new()
        .camera("road", &format!("srt://127.0.0.1:{port}?passphrase={PASSPHRASE}"))
        .camera("absent", &format!("srt://127.0.0.1:{nobody}"))
        .camera("uncalled", &format!("srt://127.0.0.1:{uncalled}?mode=listener"))
        .camera_with("apart", &format!("srt://127.0.0.1:{apart}?mode=listener"), "isolation = \"process\"");
    let daemon = setup.start();
    // A slow machine may need more than one attempt until it listens.
    let listening = [("uncalled", uncalled), ("apart", apart)].map(|(lens, port)| {
        await_listener(&daemon, lens, port);
        (lens, view(&daemon, lens)["reconnects"].clone())
    });
    let mut camera = SrtCamera::start(&stream, &at);
    let _ = daemon.await_open("road", 1.0, LONG);
    camera.die();
    wait_for("the end of the stream", LONG, || (view(&daemon, "road")["state"] != "streaming").then_some(()));
    let camera = SrtCamera::start(&stream, &at);
    let frames = || daemon.segments("road").iter().map(|s| s["frames"].as_u64().unwrap()).sum::<u64>();
    let before = frames();
    wait_for("frames of the camera that came back", LONG, || (frames() > before + 50).then_some(()));
    assert_tiled(&daemon.segments("road"), &daemon.gaps("road"), 0.05);
    let absent = error(&daemon, "absent", "absent");
    assert!(absent.contains("Connection"), "{absent}");
    // Nobody called: it goes on listening, and says so.
    for (lens, opened) in listening {
        let _ = error(&daemon, lens, "nobody has called");
        assert_eq!(view(&daemon, lens)["state"], "connecting", "{lens}");
        assert_eq!(view(&daemon, lens)["reconnects"], opened, "{lens}");
    }
    drop((camera, daemon));

    let _locked = SrtCamera::start(&stream, &at);
    let wrong = Setup::new().camera("road", &format!("srt://127.0.0.1:{port}?passphrase={PASSPHRASE}-wrong"));
    let daemon = wrong.start();
    let refused = error(&daemon, "road", "does not accept this passphrase");
    assert!(refused.contains("refused") && !refused.contains(PASSPHRASE), "{refused}");
    wait_for("the gap by the refusal", LONG, || {
        daemon.gaps("road").iter().any(|gap| gap["cause"] == "camera_refused").then_some(())
    });
}

/// Whoever calls first and says nothing does not keep the camera out.
#[test]
fn a_caller_who_sends_nothing_makes_way_for_the_camera() {
    let stream = Stream::get(Kind::H264);
    let port = free_port();
    let setup = Setup::new().camera("road", &format!("srt://127.0.0.1:{port}?mode=listener"));
    let daemon = setup.start();
    let at = format!("srt://127.0.0.1:{port}?mode=caller");
    await_listener(&daemon, "road", port);
    let mut dumb = SrtCamera::dumb(&at);
    let _ = error(&daemon, "road", "sent nothing since it was opened");
    dumb.die();
    await_listener(&daemon, "road", port);
    // As cameras do, it calls again if who took its call was the listener of before, which a busy machine had yet to close.
    let mut camera = SrtCamera::start(&stream, &at);
    wait_for("footage of the camera", LONG, || {
        if camera.has_ended() {
            camera = SrtCamera::start(&stream, &at);
        }
        daemon.segments("road").iter().any(|s| s["state"] == "open" && span(s) >= 1.0).then_some(())
    });
}
