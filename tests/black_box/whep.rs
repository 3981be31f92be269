//! Cameras over WebRTC, fetched by WHEP: recorded as sent, refused with a reason, gone and back.

use std::time::Duration;

use mos_tests::certificates::{Authority, Valid};
use mos_tests::daemon::{Daemon, Setup};
use mos_tests::judge::archive::{assert_each_picture, assert_tiled};
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;
use mos_tests::whep::{Aiortc, TOKEN, free_port};
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

fn frames(daemon: &Daemon) -> u64 {
    daemon.segments("road").iter().map(|s| s["frames"].as_u64().unwrap()).sum()
}

/// From a server of others, over TLS and with a token; whoever lacks one of them is told what, and the token goes nowhere else.
#[test]
fn a_server_with_a_token_over_tls_is_recorded_and_every_refusal_says_why() {
    let stream = Stream::get(Kind::H264);
    let authority = Authority::new();
    let certificate = authority.issue("good", "DNS:localhost", Valid::Now);
    let Some(server) = Aiortc::start(&stream, free_port(), Some(&certificate)) else { return };
    let ca = format!("tls_ca = \"{}\"", authority.pem().display());
    let token = format!("{TOKEN}@");
    let with = |path: &str| server.source(&token, path);
    let setup = Setup::new()
        .environment("MOS_LOG__LEVEL", "trace")
        .storage("segment_seconds", "2")
        .camera_with("road", &with("whep"), &ca)
        .camera_with("moved", &with("moved"), &ca)
        .camera_with("elsewhere", &with("elsewhere"), &ca)
        .camera_with("missing", &with("nothing"), &ca)
        .camera_with("without", &server.source("", "whep"), &ca)
        .camera_with("wrong", &server.source("another-token@", "whep"), &ca)
        .camera("stranger", &with("whep"))
        .camera("nobody", &format!("whep+http://127.0.0.1:{}/whep", free_port()));
    let daemon = setup.start();
    for lens in ["road", "moved"] {
        let segments = daemon.await_closed(lens, 2, LONG);
        for segment in segments.iter().filter(|s| s["state"] != "open") {
            let _ = assert_each_picture(&daemon.file(segment), &stream);
        }
        assert_tiled(&segments, &daemon.gaps(lens), 0.05);
    }
    let _ = error(&daemon, "missing", "no stream of that path (404)");
    let _ = error(&daemon, "without", "it wants a token");
    let _ = error(&daemon, "wrong", "it does not accept this token (401)");
    let _ = error(&daemon, "stranger", "tls_ca");
    let _ = error(&daemon, "nobody", "absent");
    // The certificate is for localhost, the redirect to 127.0.0.1.
    let _ = error(&daemon, "elsewhere", "not for 127.0.0.1");
    let shown = format!("{}{}", daemon.client.get("/v1/capture/status").text(), daemon.log());
    assert!(!shown.contains(TOKEN), "the token shows up");
    let _ = daemon.client.post("/v1/capture/lenses/road/stop", &serde_json::json!({})).json();
    let deleted = |line: &str| line.starts_with("DELETE localhost /whep/") && line.ends_with("with a token: 200");
    wait_for("the end of the session at the server", LONG, || server.log().lines().any(deleted).then_some(()));
}

/// A server that dies without a word, and one that comes back at its place.
#[test]
fn a_server_that_comes_back_is_recorded_again() {
    let stream = Stream::get(Kind::H264);
    let port = free_port();
    let Some(server) = Aiortc::start(&stream, port, None) else { return };
    let setup = Setup::new().camera("road", &server.source(&format!("{TOKEN}@"), "whep"));
    let daemon = setup.start();
    let _ = daemon.await_open("road", 1.0, LONG);
    drop(server);
    wait_for("the end of the stream", LONG, || (view(&daemon, "road")["state"] != "streaming").then_some(()));
    let before = frames(&daemon);
    let Some(_again) = Aiortc::start(&stream, port, None) else { return };
    wait_for("frames of the server that came back", LONG, || (frames(&daemon) > before + 50).then_some(()));
    assert_tiled(&daemon.segments("road"), &daemon.gaps("road"), 0.05);
    assert!(daemon.gaps("road").iter().any(|gap| gap["cause"] != "starting"), "no gap of the outage");
}
