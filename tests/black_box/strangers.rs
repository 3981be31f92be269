//! Strange files: unknown ones go to quarantine and are never deleted, newer ones stay listed and playable, damaged ones do not
//! stop anything; the index is rebuilt from the files alone.

use std::fs;
use std::process::Command;
use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::cli::outcome;
use mos_tests::daemon::{Setup, id};
use mos_tests::judge::archive::{assert_pictures, files_below};
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;

#[test]
fn strange_files_are_kept_aside_and_the_index_is_rebuilt() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().storage("segment_seconds", "1").camera("road", &camera.url(0));
    let daemon = setup.start();
    let before = daemon.await_closed("road", 4, Duration::from_mins(2));
    let files: Vec<_> = before.iter().map(|s| daemon.file(s)).collect();
    daemon.stop();

    let run = files[0].parent().unwrap();
    fs::write(run.join("holiday.mp4"), b"not ours").unwrap();
    fs::write(run.join("9999.mp4"), vec![7; 100_000]).unwrap();
    // The index is damaged all over.
    for file in files_below(&setup.archive().join("index")) {
        let mut bytes = fs::read(&file).unwrap();
        for byte in bytes.iter_mut().skip(100).step_by(997) {
            *byte ^= 0x55;
        }
        fs::write(&file, bytes).unwrap();
    }

    let daemon = setup.start();
    let segments = wait_for("all segments to be listed again", Duration::from_mins(2), || {
        let segments = daemon.segments("road");
        before.iter().all(|b| segments.iter().any(|s| id(s) == id(b))).then_some(segments)
    });
    for old in before.iter().filter(|s| s["state"] == "closed") {
        let now = segments.iter().find(|s| id(s) == id(old)).unwrap();
        for key in ["bytes", "frames", "codec", "width", "height", "protected"] {
            assert_eq!(now[key], old[key], "{key} of {} after the index was rebuilt", id(old));
        }
        // A file's times are whole ticks of 1/90,000 s.
        for key in ["start_ts", "end_ts"] {
            let apart = now[key].as_i64().unwrap().abs_diff(old[key].as_i64().unwrap());
            assert!(apart <= 12, "{key} of {} is {apart} µs off after the index was rebuilt", id(old));
        }
        let _ = assert_pictures(&daemon.file(now), &stream);
    }
    // Neither stranger is deleted, wherever it is now.
    let there = |content: &[u8]| files_below(setup.archive()).iter().any(|f| fs::read(f).is_ok_and(|b| b == content));
    wait_for("the quarantine", Duration::from_mins(2), || {
        (!files_below(&setup.archive().join("quarantine")).is_empty()).then_some(())
    });
    assert!(there(b"not ours") && there(&vec![7; 100_000]), "a stranger's file is gone");
    let health = daemon.client.get("/v1/health").json().to_string();
    let metrics = daemon.client.get("/v1/metrics").text();
    assert!(health.contains("quarantine") || metrics.contains("quarantine"), "quarantine is not visible: {health}");
    daemon.stop();

    let check = outcome(Command::new(mos_tests::binary("mos")).arg("check").arg(setup.archive()));
    assert_eq!(check.code, 0, "{}{}", check.out, check.err);
}

#[test]
fn check_finds_damage_and_needs_no_daemon() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().storage("segment_seconds", "1").camera("road", &camera.url(0));
    let daemon = setup.start();
    let segments = daemon.await_closed("road", 2, Duration::from_mins(2));
    assert_eq!(id(&segments[0]), "road-1-0");
    let file = daemon.file(&segments[0]);
    daemon.stop();
    let check =
        |more: &[&str]| outcome(Command::new(mos_tests::binary("mos")).arg("check").arg(setup.archive()).args(more));
    assert_eq!(check(&[]).code, 0);
    let mut bytes = fs::read(&file).unwrap();
    let half = bytes.len() / 2;
    bytes.truncate(half);
    fs::write(&file, &bytes).unwrap();
    let found = check(&[]);
    assert_eq!(found.code, 1, "{}{}", found.out, found.err);
    assert!(found.out.contains("segments/road/1/0.mp4"), "{}{}", found.out, found.err);
    assert!(fs::read(&file).unwrap() == bytes, "a check without --repair has changed a file");
    let queue = setup.archive().join("uploads/queue.db");
    fs::write(&queue, b"no database").unwrap();
    let found = check(&[]);
    assert!(found.code == 1 && found.out.contains("uploads/queue.db cannot be read"), "{}{}", found.out, found.err);
    assert_eq!(fs::read(&queue).unwrap(), b"no database", "a check without --repair has changed the queue");
    let mended = check(&["--repair"]);
    assert!(mended.out.contains("put aside as uploads/queue.db.damaged-1"), "{}{}", mended.out, mended.err);
    let left = check(&[]);
    assert!(
        left.out.contains("queue.db.damaged-1") && !left.out.contains("queue.db cannot"),
        "{}{}",
        left.out,
        left.err
    );
    let none = outcome(Command::new(mos_tests::binary("mos")).args(["check", "/nowhere"]));
    let _ = none.error();
}
