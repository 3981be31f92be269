//! Stopping: SIGTERM and the power signal close cleanly, the gap tells, and one archive has one recorder.

use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::daemon::{Daemon, Setup, id};
use mos_tests::judge::archive::{assert_pictures, assert_pictures_but_tail, assert_tiled};
use mos_tests::judge::parsers;
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;
use nix::sys::signal::Signal;

/// Waits until at least a quarter of a second of pictures has reached the recorder and is not durable; gives how many have to be
/// stored by then. Pictures are counted as they come, what is stored once a tick.
fn pictures_at_stake(daemon: &Daemon) -> u64 {
    wait_for("pictures that are not durable yet", Duration::from_mins(2), || {
        let frames = daemon.client.get("/v1/capture/status").ok()["lenses"][0]["frames"].as_u64().unwrap();
        let lens = daemon.client.get("/v1/health").ok()["lenses"][0].clone();
        let dropped: u64 = lens["dropped"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
        // The last one is counted before it is handed over.
        let frames = frames - dropped - 1;
        (frames >= lens["stored"].as_u64().unwrap() + 6).then_some(frames)
    })
}

#[test]
fn a_clean_stop_closes_the_segment_and_the_gap_says_stopped() {
    let stream = Stream::get(Kind::H264B3);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().storage("segment_seconds", "600").camera("road", &camera.url(0));
    let daemon = setup.start();
    let open = daemon.await_open("road", 2.0, Duration::from_mins(2));
    let file = daemon.file(&open);
    let pictures = pictures_at_stake(&daemon);
    daemon.stop();
    // The file is an ordinary MP4 although the segment was cut short, perhaps between a picture and its B-frames.
    let _ = assert_pictures_but_tail(&file, &stream);
    parsers::assert_mp4san(&file);
    let daemon = setup.start();
    let again = daemon.await_open("road", 1.0, Duration::from_mins(2));
    let segments = daemon.segments("road");
    // A busy machine may have had to begin more than once.
    let old = segments.iter().filter(|s| id(s).starts_with("road-1-"));
    assert!(id(&again).starts_with("road-2-"), "{again}");
    assert!(old.clone().any(|s| id(s) == id(&open)) && old.clone().all(|s| s["state"] == "closed"), "{segments:?}");
    let stored: u64 = old.map(|s| s["frames"].as_u64().unwrap()).sum();
    assert!(stored >= pictures, "{pictures} pictures, and {segments:?}");
    let gaps = daemon.gaps("road");
    assert!(gaps.iter().any(|g| g["cause"] == "stopped"), "{gaps:?}");
    assert_tiled(&segments, &gaps, 0.05);
}

#[test]
fn a_power_signal_flushes_and_reports_the_hold_up() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().storage("segment_seconds", "600").camera("road", &camera.url(0));
    let daemon = setup.start();
    let open = daemon.await_open("road", 1.0, Duration::from_mins(2));
    let file = daemon.file(&open);
    let pictures = pictures_at_stake(&daemon);
    daemon.process().signal(Signal::SIGPWR);
    wait_for("the hold-up time in the log", Duration::from_mins(2), || {
        let log = daemon.log();
        log.lines().any(|l| l.contains("durable") && l.contains(" ms ")).then_some(())
    });
    // Power goes now: the kernel stops everything at once.
    daemon.kill();
    let shown = assert_pictures(&file, &stream);
    assert!(shown.len() as u64 >= pictures, "{pictures} pictures, and {} are shown", shown.len());
}

#[test]
fn one_archive_has_one_recorder() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    // One segment, so that it grows as long as it is looked at.
    let setup = Setup::new().storage("segment_seconds", "600").camera("road", &camera.url(0));
    let first = setup.start();
    let _ = first.await_open("road", 1.0, Duration::from_mins(2));
    let second = Setup::new().root(setup.archive()).camera("road", &camera.url(0));
    second.write();
    let mut command = std::process::Command::new(mos_tests::binary("mos"));
    let refused = mos_tests::cli::outcome(command.arg("run").arg("--config").arg(second.config()));
    assert_eq!(refused.code, 1, "{}", refused.err);
    let line = refused.err.lines().find(|l| l.starts_with("error: ")).unwrap_or_else(|| panic!("{}", refused.err));
    assert!(line.contains(setup.archive().to_str().unwrap()), "{line}");
    let before = mos_tests::daemon::span(&first.await_open("road", 1.0, Duration::from_mins(2)));
    let _ = first.await_open("road", before + 1.0, Duration::from_mins(2));
}
