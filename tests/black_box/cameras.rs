//! Cameras in trouble: absent, locked, silent, dead. Each becomes a gap with its cause and a word in the status; every other
//! camera goes on, and the troubled one is recorded again when it can be.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mos_tests::camera::{Camera, Manner};
use mos_tests::daemon::{Daemon, Setup, span};
use mos_tests::judge::archive::{assert_pictures, assert_tiled};
use mos_tests::streams::{Kind, Stream};
use mos_tests::{DeadPort, wait_for};

const LONG: Duration = Duration::from_mins(3);

/// Seconds that are durable in the newest segment of a lens.
fn footage(daemon: &Daemon, lens: &str) -> f64 {
    daemon.segments(lens).iter().map(span).sum()
}

fn await_more(daemon: &Daemon, lens: &str) {
    let before = footage(daemon, lens);
    wait_for(&format!("more footage of {lens}"), LONG, || (footage(daemon, lens) > before + 1.0).then_some(()));
}

fn await_gap(daemon: &Daemon, lens: &str, cause: &str) {
    wait_for(&format!("a gap of {lens} by {cause}"), LONG, || {
        daemon.gaps(lens).iter().any(|g| g["cause"] == cause).then_some(())
    });
}

#[test]
fn absent_and_locked_cameras_do_not_disturb_the_good_one() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::locked(std::slice::from_ref(&stream));
    let nobody = DeadPort::new();
    let setup = Setup::new()
        .storage("segment_seconds", "2")
        .camera("good", &camera.url(0))
        .camera("locked", &camera.wrong_url())
        .camera("absent", &format!("rtsp://127.0.0.1:{}/0", nobody.port()));
    let daemon = setup.start();
    let segments = daemon.await_closed("good", 3, LONG);
    for segment in segments.iter().filter(|s| s["state"] != "open") {
        let _ = assert_pictures(&daemon.file(segment), &stream);
    }
    assert_tiled(&segments, &daemon.gaps("good"), 0.05);
    assert!(daemon.segments("locked").is_empty() && daemon.segments("absent").is_empty());
    await_gap(&daemon, "locked", "camera_refused");
    await_gap(&daemon, "absent", "camera_absent");
    let status = daemon.mos.run(&["status"]);
    assert_eq!(status.code, 0, "{}", status.err);
    for lens in ["good", "locked", "absent"] {
        assert!(status.out.contains(lens), "{}", status.out);
    }
    // On a busy machine another attempt may just have been too slow.
    wait_for("both in health", LONG, || {
        let health = daemon.client.get("/v1/health").json().to_string();
        (health.contains("camera_refused") && health.contains("camera_absent")).then_some(())
    });
}

#[test]
fn a_camera_that_dies_and_comes_back_is_recorded_again() {
    let streams = [Stream::get(Kind::H264B3)];
    let other = Camera::open(&[Stream::get(Kind::H264)]);
    let camera = Camera::open(&streams);
    let setup = Setup::new().camera("road", &camera.url(0)).camera("cabin", &other.url(0));
    let daemon = setup.start();
    await_more(&daemon, "road");
    let camera = camera.revive(&streams);
    await_gap(&daemon, "road", "camera_broke_off");
    let frames = || daemon.segments("road").iter().map(|s| s["frames"].as_u64().unwrap()).sum::<u64>();
    let before = frames();
    wait_for("frames of the camera that came back", LONG, || (frames() > before + 50).then_some(()));
    let (segments, gaps) = (daemon.segments("road"), daemon.gaps("road"));
    assert_tiled(&segments, &gaps, 0.05);
    let cabin = daemon.segments("cabin");
    assert_tiled(&cabin, &[], 0.05);
    assert!(!camera.sent(0).is_empty());
}

#[test]
fn a_silent_camera_is_given_up_and_asked_again() {
    let stream = Stream::get(Kind::H264);
    let mut camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().camera("road", &camera.url(0));
    let daemon = setup.start();
    await_more(&daemon, "road");
    camera.stall();
    await_gap(&daemon, "road", "camera_stalled");
    let stalled = footage(&daemon, "road");
    camera.go_on();
    wait_for("footage after the silence", LONG, || (footage(&daemon, "road") > stalled + 1.0).then_some(()));
    assert_tiled(&daemon.segments("road"), &daemon.gaps("road"), 0.05);
}

#[test]
fn what_a_slow_server_gathered_is_recorded_at_the_time_of_its_capture() {
    let stream = Stream::get(Kind::H264B3);
    let gathered = Duration::from_secs(4);
    let camera = Camera::with(std::slice::from_ref(&stream), Manner { slow: gathered, ..Manner::default() });
    let setup = Setup::new().storage("segment_seconds", "2").camera("road", &camera.url(0));
    let daemon = setup.start();
    let segments = daemon.await_closed("road", 2, LONG);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
    let ahead = wall - mos_tests::monotonic_ns() as i64 / 1000;
    let first = segments.first().unwrap();
    let number = u64::from(assert_pictures(&daemon.file(first), &stream)[0]);
    let sent = camera.sent(0).into_iter().find(|s| s.number % u64::from(stream.frames) == number).unwrap();
    // It would be as late as the server was slow, if its arrival counted.
    let late = first["start_ts"].as_i64().unwrap() - (sent.capture_ns as i64 / 1000 + ahead);
    assert!(late.abs() < gathered.as_micros() as i64 / 2, "recorded {} ms late", late / 1000);
    assert_tiled(&segments, &daemon.gaps("road"), 0.05);
}
