//! A real file system that the kernel or somebody made read-only: nothing can be created, made, removed, written or renamed on it.
//! Errors that only some calls answer are in `kernel_errors.rs`.

use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::daemon::{Setup, id};
use mos_tests::disk::SmallDisk;
use mos_tests::judge::archive::{assert_pictures_but_tail, assert_tiled, files_below};
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;

use crate::kernel_errors::{assert_kept, await_new_footage};

const LONG: Duration = Duration::from_mins(2);
/// What the system says, and what is to be done.
const TOLD: [&str; 2] = ["Read-only file system", "mount it writable again"];

fn assert_told(text: &str) {
    assert!(TOLD.iter().all(|words| text.contains(words)), "{text}");
}

/// As after an error of an SD card: the recorder lives and tells, everything that was durable is served, nothing is promised; when
/// somebody has checked the file system, the next start records again.
#[test]
fn an_ext4_that_the_kernel_made_read_only_is_told_and_keeps_what_it_has() {
    let disk = SmallDisk::mount_ext4(64);
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::on(&disk).storage("segment_seconds", "2").camera("road", &camera.url(0));
    let daemon = setup.start();
    let closed = daemon.await_closed("road", 3, LONG);
    let (first, other) = (id(&closed[0]).to_owned(), id(&closed[1]).to_owned());
    assert_eq!(daemon.mos.run(&["protect", &first]).code, 0);
    let before = daemon.segments("road");
    disk.abort();
    wait_for("health to tell", LONG, || {
        let health = daemon.client.get("/v1/health").json();
        let problems = health["problems"].to_string();
        let told = problems.contains("road: disk_error") && TOLD.iter().all(|words| problems.contains(words));
        (health["status"] != "ok" && told).then_some(())
    });
    wait_for("the gap", LONG, || daemon.gaps("road").iter().any(|g| g["cause"] == "disk_error").then_some(()));
    // Whatever changes something is refused with the reason, and changes nothing.
    let picture = setup.folder().join("picture.jpg");
    for args in [
        &["protect", &other][..],
        &["unprotect", &first],
        &["remove", &other],
        &["clip", &other, "--from", "0.2", "--to", "0.8"],
        &["snapshot", &other, "--at", "0", "-o", picture.to_str().unwrap()],
    ] {
        assert_told(&daemon.mos.run(args).error());
    }
    let now = daemon.segments("road");
    for segment in &closed[..2] {
        let listed = now.iter().find(|s| id(s) == id(segment)).unwrap();
        assert_eq!(listed["protected"], id(segment) == first, "{listed}");
        let _ = assert_pictures_but_tail(&daemon.file(segment), &stream);
    }
    assert_told(&daemon.log());
    // It ends in order all the same, or nobody could unmount the file system to check it.
    daemon.stop();
    disk.repair();
    let daemon = setup.start();
    await_new_footage(&daemon, &now);
    wait_for("recovery", LONG, || {
        let storage = &daemon.client.get("/v1/health").json()["storage"];
        (storage["listed"] == true && storage["recovered"] == true).then_some(())
    });
    let segments = daemon.segments("road");
    for kept in before.iter().filter(|s| s["state"] == "closed") {
        assert!(segments.iter().any(|s| id(s) == id(kept)), "{kept} is gone");
    }
    // What was durable of the open one is there as well.
    let open = before.iter().find(|s| s["state"] == "open").unwrap();
    let after = segments.iter().find(|s| id(s) == id(open)).unwrap_or_else(|| panic!("{open} is gone"));
    assert!(after["frames"].as_u64() >= open["frames"].as_u64(), "{open} became {after}");
    assert_kept(&daemon, &stream, &first);
    wait_for("health to be well", LONG, || (daemon.client.get("/v1/health").json()["status"] == "ok").then_some(()));
    assert_eq!(files_below(&setup.archive().join("quarantine")), Vec::<std::path::PathBuf>::new());
    daemon.stop();
}

/// Whoever started it tries again (as `mos.service` does each second), and once it may write it records.
#[test]
fn a_start_on_a_read_only_file_system_says_so_and_changes_nothing() {
    let disk = SmallDisk::mount_ext4(64);
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::on(&disk).storage("segment_seconds", "2").camera("road", &camera.url(0));
    // There is nothing at first, then an archive.
    for began in [false, true] {
        let before = files_below(disk.path());
        disk.set_read_only(true);
        let mut daemon = setup.spawn();
        assert_eq!(daemon.ended(LONG).code(), Some(1));
        let log = setup.log();
        let said = log.lines().rev().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{log}"));
        assert_told(said);
        assert!(said.contains(setup.archive().to_str().unwrap()), "{said}");
        drop(daemon);
        assert_eq!(files_below(disk.path()), before);
        disk.set_read_only(false);
        let daemon = setup.start();
        let run = if began { "road-2-" } else { "road-1-" };
        // Its own: how many the run before has closed depends on how long a busy machine takes.
        let segments = wait_for("two closed segments of this run", LONG, || {
            let segments = daemon.segments("road");
            let own = segments.iter().filter(|s| id(s).starts_with(run) && s["state"] == "closed").count();
            (own >= 2).then_some(segments)
        });
        assert_tiled(&segments, &daemon.gaps("road"), 0.11);
        daemon.stop();
    }
}
