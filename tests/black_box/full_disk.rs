//! A small disk: retention keeps MOS within its limit, protected segments stay, and a disk that somebody else fills stops the
//! recording only for as long as it is full.

use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::daemon::{Setup, id, span};
use mos_tests::disk::SmallDisk;
use mos_tests::judge::archive::{assert_pictures, assert_tiled, files_below};
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;

const LONG: Duration = Duration::from_mins(3);

#[test]
fn retention_keeps_to_the_limit_and_spares_what_is_protected() {
    let stream = Stream::get(Kind::H264Heavy);
    let camera = Camera::open(std::slice::from_ref(&stream));
    // About 1.5 MB/s are recorded: the limit is reached after some ten seconds.
    let limit = 16 << 20;
    let setup = Setup::new()
        .storage("segment_seconds", "1")
        .storage("max_bytes", &limit.to_string())
        .camera("road", &camera.url(0));
    let daemon = setup.start();
    let first = daemon.await_closed("road", 1, LONG).remove(0);
    assert_eq!(daemon.mos.run(&["protect", id(&first)]).code, 0);
    // Segments are gone from the middle: after the protected one, before the newest.
    wait_for("retention to remove a segment", LONG, || {
        daemon.gaps("road").iter().any(|g| g["cause"] == "retention").then_some(())
    });
    for _ in 0..4 {
        let count = daemon.segments("road").len();
        let newest = id(daemon.segments("road").last().unwrap()).to_owned();
        wait_for("another segment", LONG, || {
            (id(daemon.segments("road").last().unwrap()) != newest || daemon.segments("road").len() > count)
                .then_some(())
        });
        let bytes: u64 = files_below(&setup.archive().join("segments"))
            .iter()
            .filter_map(|f| f.metadata().ok())
            .map(|m| m.len())
            .sum();
        assert!(bytes <= limit, "{bytes} bytes with a limit of {limit}");
    }
    let segments = daemon.segments("road");
    assert!(segments.iter().any(|s| id(s) == id(&first)), "the protected segment is gone");
    assert_tiled(&segments, &daemon.gaps("road"), 0.05);
    // Nothing goes any more after a stop: what is there now must play.
    daemon.stop();
    let files = files_below(&setup.archive().join("segments"));
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "mp4")) {
        let _ = assert_pictures(file, &stream);
    }
}

/// Everything is tried on a real file system with a journal: first MOS alone on a disk that is too small for its limit, then
/// a disk on which nothing may go any more, then one on which something may.
#[test]
fn on_a_full_ext4_recording_stops_last_and_goes_on_by_itself() {
    let disk = SmallDisk::mount_ext4(32);
    let stream = Stream::get(Kind::H264Heavy);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::on(&disk)
        .storage("segment_seconds", "1")
        .storage("protected_max_bytes", "\"40MiB\"")
        .camera("road", &camera.url(0));
    let daemon = setup.start();
    let cause = |cause: &str| daemon.gaps("road").iter().any(|g| g["cause"] == cause);
    let first = daemon.await_closed("road", 1, LONG).remove(0);
    assert_eq!(daemon.mos.run(&["protect", id(&first)]).code, 0);
    // Nobody limits it: it fills the disk, and makes its own room.
    wait_for("retention to remove segments", LONG, || {
        let health = daemon.client.get("/v1/health").json();
        (health["storage"]["removed_segments"].as_u64().unwrap() >= 5).then_some(())
    });
    assert!(!cause("disk_full"), "retention came too late: {:?}", daemon.gaps("road"));
    // Everything is protected as soon as it is closed, so that in the end nothing may go.
    // Also what began meanwhile: a beginning that found room for a frame or two may go, and the recording goes on.
    let kept = wait_for("the recording to stop", LONG, || {
        for segment in daemon.segments("road").iter().filter(|s| s["protected"] == false) {
            // Asked directly: a command for each would take a busy machine longer than the next segment.
            let _ = daemon.client.request("PUT", &format!("/v1/segments/{}/protection", id(segment)), None);
        }
        let kept = daemon.segments("road");
        let may_go = kept.iter().any(|s| s["state"] != "open" && s["protected"] == false);
        (cause("disk_full") && !may_go).then_some(kept)
    });
    let health = daemon.client.get("/v1/health").json();
    assert_ne!(health["status"], "ok", "health does not tell of the full disk");
    wait_for("the alarm", LONG, || {
        let health = daemon.client.get("/v1/health").json();
        health["alarms"].as_array().unwrap().iter().any(|a| a["kind"] == "storage_short").then_some(())
    });
    // One protection less is room enough; a removal works although there is not a block left.
    let _ = disk.fill();
    let oldest: Vec<&str> = kept.iter().filter(|s| s["state"] != "open").map(id).take(6).collect();
    for id in &oldest {
        assert_eq!(daemon.mos.run(&["unprotect", id]).code, 0);
    }
    wait_for("the recording to go on by itself", LONG, || {
        let segments = daemon.segments("road");
        let newest = segments.last().unwrap();
        (!kept.iter().any(|s| id(s) == id(newest)) && newest["state"] == "open" && span(newest) > 0.4).then_some(())
    });
    let (segments, gaps) = (daemon.segments("road"), daemon.gaps("road"));
    assert!(
        kept.iter()
            .filter(|s| s["protected"] == true && !oldest.contains(&id(s)))
            .all(|k| segments.iter().any(|s| id(s) == id(k)))
    );
    assert!(!gaps.iter().any(|g| g["cause"] == "unknown"), "{gaps:?}");
    // A beginning for which there was no room leaves no file without a frame.
    assert!(segments.iter().all(|s| s["frames"].as_u64() > Some(0)), "{segments:?}");
    assert_tiled(&segments, &gaps, 0.05);
    let closed: Vec<_> = segments.iter().filter(|s| s["state"] != "open").map(|s| daemon.file(s)).collect();
    daemon.stop();
    // Retention may have gone on in the meantime.
    for file in closed.iter().filter(|file| file.exists()) {
        let _ = assert_pictures(file, &stream);
    }
}

#[test]
fn a_disk_that_somebody_else_fills_stops_the_recording_only_while_it_is_full() {
    let disk = SmallDisk::mount(48);
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::on(&disk).storage("segment_seconds", "2").camera("road", &camera.url(0));
    let daemon = setup.start();
    let first = daemon.await_closed("road", 1, LONG).remove(0);
    assert_eq!(daemon.mos.run(&["protect", id(&first)]).code, 0);
    let foreign = disk.fill();
    wait_for("the disk to be reported full", LONG, || {
        // What retention frees is eaten again, as by a process that writes without end.
        let _ = disk.fill();
        daemon.gaps("road").iter().any(|g| g["cause"] == "disk_full").then_some(())
    });
    assert_ne!(daemon.client.get("/v1/health").json()["status"], "ok", "health does not tell of the full disk");
    assert!(foreign.exists(), "somebody else's file was deleted");
    let count = daemon.segments("road").len();
    std::fs::remove_file(&foreign).unwrap();
    let segments = wait_for("the recording to resume by itself", LONG, || {
        let segments = daemon.segments("road");
        let newest = segments.last().unwrap();
        (segments.len() > count && newest["state"] == "open" && span(newest) > 1.0).then_some(segments)
    });
    for segment in segments.iter().filter(|s| s["state"] != "open") {
        let _ = assert_pictures(&daemon.file(segment), &stream);
    }
    assert!(segments.iter().any(|s| id(s) == id(&first)), "the protected segment is gone");
    assert_tiled(&segments, &daemon.gaps("road"), 0.05);
    daemon.stop();
}
