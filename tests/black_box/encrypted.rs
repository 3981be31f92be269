//! Cameras over TLS: recorded when their certificate is believed, refused with what to do when it is not, never in clear.

use std::net::TcpListener;
use std::time::Duration;

use mos_tests::camera::{Camera, Manner, PASSWORD, USER};
use mos_tests::certificates::{Authority, Certificate, Valid};
use mos_tests::daemon::{Daemon, Setup};
use mos_tests::judge::archive::{assert_pictures, assert_tiled};
use mos_tests::onvif::OnvifCamera;
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;

const LONG: Duration = Duration::from_mins(3);

fn camera(stream: &Stream, certificate: &Certificate) -> Camera {
    let manner = Manner { login: true, certificate: Some(certificate.clone()), ..Manner::default() };
    Camera::with(std::slice::from_ref(stream), manner)
}

/// Waits until the last error of a lens holds one of `words`: on a busy machine another attempt may just have been too slow.
fn await_error(daemon: &Daemon, lens: &str, words: &[&str]) {
    wait_for(&format!("an error of {lens} with one of {words:?}"), LONG, || {
        let status = daemon.client.get("/v1/capture/status").json();
        let lenses = status["lenses"].as_array().unwrap();
        let view = lenses.iter().find(|view| view["lens"] == lens).unwrap();
        let error = view["last_error"].as_str()?;
        words.iter().any(|words| error.contains(words)).then_some(())
    });
}

fn assert_recorded(daemon: &Daemon, lens: &str, stream: &Stream) {
    let segments = daemon.await_closed(lens, 2, LONG);
    for segment in segments.iter().filter(|s| s["state"] != "open") {
        let _ = assert_pictures(&daemon.file(segment), stream);
    }
    assert_tiled(&segments, &daemon.gaps(lens), 0.05);
}

/// Y1, Y2, Y3 of the HAL's TLS: every kind of certificate, each with what it takes and what it is told.
#[test]
fn a_camera_is_recorded_if_and_only_if_its_certificate_is_believed() {
    let stream = Stream::get(Kind::H264);
    let authority = Authority::new();
    let good = authority.issue("good", "IP:127.0.0.1,DNS:camera.example", Valid::Now);
    let own = authority.self_signed("own");
    let expired = authority.issue("expired", "IP:127.0.0.1", Valid::Past);
    let early = authority.issue("early", "IP:127.0.0.1", Valid::Future);
    let foreign = authority.issue("foreign", "DNS:elsewhere.example", Valid::Now);
    let [by_good, by_own, by_expired, by_early, by_foreign] =
        [&good, &own, &expired, &early, &foreign].map(|shown| camera(&stream, shown));
    let in_clear = Camera::locked(std::slice::from_ref(&stream));
    let ca = format!("tls_ca = \"{}\"", authority.pem().display());
    let pin = |certificate: &Certificate| format!("tls_fingerprint = \"{}\"", certificate.fingerprint());
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let setup = Setup::new()
        .environment("MOS_LOG__LEVEL", "trace")
        .storage("segment_seconds", "2")
        .camera_with("by_authority", &by_good.url(0), &ca)
        .camera_with("by_pin", &by_own.url(0), &pin(&own))
        .camera_with("expired_by_pin", &by_expired.url(0), &format!("{}\ntransport = \"tcp\"", pin(&expired)))
        .camera("unknown", &by_good.url(0))
        .camera("self_signed", &by_own.url(0))
        .camera_with("expired", &by_expired.url(0), &ca)
        .camera_with("early", &by_early.url(0), &ca)
        .camera_with("foreign", &by_foreign.url(0), &ca)
        .camera_with("other", &by_good.url(0), &pin(&own))
        .camera_with("in_clear", &in_clear.url(0).replace("rtsp://", "rtsps://"), &ca)
        .camera_with("no_authority", &by_good.url(0), "tls_ca = \"/nowhere/ca.pem\"")
        .camera_with("mute", &format!("rtsps://127.0.0.1:{}/0", mute.local_addr().unwrap().port()), &ca)
        .camera_with("wrong", &by_good.url(0).replace(PASSWORD, "hunter2"), &ca);
    let daemon = setup.start();
    for lens in ["by_authority", "by_pin", "expired_by_pin"] {
        assert_recorded(&daemon, lens, &stream);
    }
    for (lens, words) in [
        ("unknown", format!("tls_fingerprint = \"{}\"", good.fingerprint())),
        ("unknown", "tls_ca".into()),
        ("self_signed", format!("tls_fingerprint = \"{}\"", own.fingerprint())),
        ("expired", "has expired at 2021-01-01T00:00:00Z".into()),
        ("early", "set this machine's clock".into()),
        ("foreign", "not for 127.0.0.1".into()),
        ("other", format!("but {}", good.fingerprint())),
        ("in_clear", "no TLS is spoken".into()),
        ("no_authority", "/nowhere/ca.pem cannot be read".into()),
        ("wrong", "user name and password".into()),
    ] {
        await_error(&daemon, lens, &[&words]);
    }
    await_error(&daemon, "mute", &["no answer", "sent nothing"]);
    for lens in ["unknown", "self_signed", "expired", "foreign", "other", "in_clear", "wrong"] {
        assert!(daemon.segments(lens).is_empty(), "{lens} was recorded");
    }
    assert!(in_clear.sent(0).is_empty() && by_foreign.sent(0).is_empty(), "a refused camera was asked for pictures");
    let shown = format!("{}{}", daemon.client.get("/v1/capture/status").text(), daemon.log());
    assert!(!shown.contains(PASSWORD) && !shown.contains("hunter2"), "a password shows up");
}

#[test]
fn a_camera_over_tls_that_dies_and_comes_back_is_recorded_again() {
    let stream = Stream::get(Kind::H264Aac);
    let authority = Authority::new();
    let certificate = authority.issue("camera", "IP:127.0.0.1", Valid::Now);
    let first = camera(&stream, &certificate);
    let trust = format!("audio = true\ntls_ca = \"{}\"", authority.pem().display());
    let setup = Setup::new().camera_with("road", &first.url(0), &trust);
    let daemon = setup.start();
    let _ = daemon.await_open("road", 1.0, LONG);
    let _second = first.revive(std::slice::from_ref(&stream));
    let frames = || daemon.segments("road").iter().map(|s| s["frames"].as_u64().unwrap()).sum::<u64>();
    let until = frames();
    wait_for("frames of the camera that came back", LONG, || (frames() > until + 50).then_some(()));
    assert_tiled(&daemon.segments("road"), &daemon.gaps("road"), 0.05);
}

/// N5: asked over TLS 1.2 and 1.3, streamed over TLS where the camera offers it, and nothing is asked in clear.
#[test]
fn a_camera_is_asked_over_tls() {
    let stream = Stream::get(Kind::H264);
    let authority = Authority::new();
    let good = authority.issue("good", "IP:127.0.0.1", Valid::Now);
    let own = authority.self_signed("own");
    let locked = camera(&stream, &good);
    let plain = Camera::locked(std::slice::from_ref(&stream));
    let unwanted = Camera::locked(std::slice::from_ref(&stream));
    let address = |camera: &Camera| camera.url(0).replace(&format!("{USER}:{PASSWORD}@"), "");
    let tls = |certificate: &Certificate| {
        ["--certificate", certificate.certificate.to_str().unwrap(), "--key", certificate.key.to_str().unwrap()]
            .map(str::to_owned)
    };
    let start = |certificate: &Certificate, uri: &str, more: &[&str]| {
        let shown = tls(certificate);
        let options: Vec<&str> = shown.iter().map(String::as_str).chain(more.iter().copied()).collect();
        OnvifCamera::start("digest", uri, &options)
    };
    let secure = start(&good, &address(&plain), &["--media2", "--secure-uri", &address(&locked)]);
    let old = start(&good, &address(&plain), &["--newest-tls", "1.2"]);
    let unknown = start(&own, &address(&plain), &[]);
    // It says that it has no stream over TLS.
    let clear = start(&good, &address(&unwanted), &["--media2"]);
    let source = |camera: &OnvifCamera| camera.source("main").replace("onvif://", "onvifs://");
    let ca = format!("tls_ca = \"{}\"", authority.pem().display());
    let setup = Setup::new()
        .environment("MOS_LOG__LEVEL", "trace")
        .storage("segment_seconds", "2")
        .camera_with("secure", &source(&secure), &ca)
        .camera_with("old", &source(&old), &format!("{ca}\nplain_stream = true"))
        .camera_with("clear", &source(&clear), &ca)
        .camera_with("unknown", &source(&unknown), &ca)
        .camera("in_clear", &secure.source("main"));
    let daemon = setup.start();
    for lens in ["secure", "old"] {
        assert_recorded(&daemon, lens, &stream);
    }
    assert!(!locked.sent(0).is_empty(), "the stream over TLS was offered and not taken");
    await_error(&daemon, "clear", &["plain_stream = true"]);
    assert!(clear.answered("GetStreamUri") >= 2 && unwanted.sent(0).is_empty() && daemon.segments("clear").is_empty());
    await_error(&daemon, "unknown", &[&own.fingerprint()]);
    assert!(unknown.requests().is_empty(), "somebody unknown was asked");
    await_error(&daemon, "in_clear", &["no answer over HTTP", "no whole answer"]);
    assert!(daemon.segments("in_clear").is_empty());
    let listed = daemon.mos.run(&["devices", "--network"]);
    assert!(listed.out.contains("Example Dome <1>"), "{}", listed.out);
    let shown = format!("{}{}{}", listed.out, daemon.client.get("/v1/capture/status").text(), daemon.log());
    assert!(!shown.contains(PASSWORD), "the password shows up");
}
