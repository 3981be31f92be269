//! What the kernel may answer when it is asked to store something: for each error what is shown, what is kept, and that recording goes
//! on by itself when the error is over. A full disk has its own file (`full_disk.rs`), so have things that vanish (`vanished.rs`).

use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::daemon::{Daemon, Setup, id, span};
use mos_tests::judge::accounts::causes;
use mos_tests::judge::archive::{assert_pictures_but_tail, assert_tiled, files_below};
use mos_tests::kernel::{Call, Kernel};
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;
use serde_json::Value;

const LONG: Duration = Duration::from_mins(3);

/// Footage that is newer than `than`, in a segment that was begun since.
pub(crate) fn await_new_footage(daemon: &Daemon, than: &[Value]) {
    wait_for("the recording to go on by itself", LONG, || {
        let segments = daemon.segments("road");
        let newest = segments.last()?;
        (!than.iter().any(|s| id(s) == id(newest)) && span(newest) > 1.0).then_some(())
    });
}

/// The books fit, nothing went that was kept, and every file plays.
pub(crate) fn assert_kept(daemon: &Daemon, stream: &Stream, protected: &str) {
    let (segments, gaps) = (daemon.segments("road"), daemon.gaps("road"));
    assert!(segments.iter().any(|s| id(s) == protected && s["protected"] == true), "{segments:#?}");
    assert!(gaps.iter().all(|g| g["cause"] != "unknown"), "{gaps:#?}");
    assert_tiled(&segments, &gaps, 0.11);
    for segment in segments.iter().filter(|s| s["state"] == "closed" || s["state"] == "recovered") {
        let _ = assert_pictures_but_tail(&daemon.file(segment), stream);
    }
    let lens = &daemon.client.get("/v1/health").json()["lenses"][0];
    let of = |key: &str| lens[key].as_u64().unwrap();
    let dropped: u64 = lens["dropped"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(of("captured"), of("stored") + of("pending") + dropped, "{lens}");
}

#[test]
fn what_cannot_be_written_or_synced_is_told_and_recording_goes_on_when_it_can() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let kernel = Kernel::new();
    let setup = kernel.under(Setup::new().storage("segment_seconds", "2").camera("road", &camera.url(0)));
    let daemon = setup.start();
    let closed = daemon.await_closed("road", 2, LONG);
    let (first, other) = (id(&closed[0]).to_owned(), id(&closed[1]).to_owned());
    assert_eq!(daemon.mos.run(&["protect", &first]).code, 0);
    let other_file = daemon.file(&closed[1]);
    let errors = || daemon.gaps("road").iter().filter(|g| g["cause"] == "disk_error").count();
    let faults: [(&[Call], i32); 4] = [
        (&[Call::Write], libc::EIO),
        (&[Call::Sync], libc::EIO),
        // As a file system is after the kernel has made it read-only; a real one is in `read_only.rs`.
        (&Call::CHANGES, libc::EROFS),
        (&[Call::Write, Call::Sync, Call::Rename], libc::EIO),
    ];
    for (calls, errno) in faults {
        let before = (daemon.segments("road"), errors());
        for call in calls {
            kernel.fail(*call, errno);
        }
        wait_for("health to tell", LONG, || {
            let health = daemon.client.get("/v1/health").json();
            (health["status"] != "ok" && health["problems"].to_string().contains("road: disk_error")).then_some(())
        });
        // Nothing can be promised now, and nothing is.
        let refused = daemon.mos.run(&["protect", &other]).error();
        assert!(refused.contains(&format!("(os error {errno})")), "{calls:?}: {refused}");
        if calls.len() == Call::CHANGES.len() {
            for args in [&["remove", &other][..], &["clip", &other, "--from", "0.2", "--to", "0.8"]] {
                let refused = daemon.mos.run(args).error();
                assert!(refused.contains("Read-only file system"), "{args:?}: {refused}");
            }
            assert!(other_file.exists(), "what could not be accounted for was removed");
        }
        for call in calls {
            kernel.fail(*call, 0);
        }
        await_new_footage(&daemon, &before.0);
        wait_for("the gap of the error", LONG, || (errors() > before.1).then_some(()));
        wait_for("health to be well again", LONG, || {
            (daemon.client.get("/v1/health").json()["status"] == "ok").then_some(())
        });
        assert_kept(&daemon, &stream, &first);
    }
    daemon.stop();
    // What was left as it was when the error came is judged by the next start.
    let daemon = setup.start();
    await_new_footage(&daemon, &[]);
    wait_for("recovery", LONG, || {
        let storage = &daemon.client.get("/v1/health").json()["storage"];
        (storage["listed"] == true && storage["recovered"] == true).then_some(())
    });
    let old = |s: &&Value| id(s).starts_with("road-1-");
    assert!(daemon.segments("road").iter().filter(old).all(|s| s["state"] != "open"));
    assert_kept(&daemon, &stream, &first);
    assert_eq!(files_below(&setup.archive().join("quarantine")), Vec::<std::path::PathBuf>::new());
    daemon.stop();
}

/// Names that cannot be changed cost no picture: the index, mappings and protections wait or are refused.
#[test]
fn a_disk_that_renames_nothing_costs_no_picture() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let kernel = Kernel::new();
    let setup = kernel.under(Setup::new().storage("segment_seconds", "2").camera("road", &camera.url(0)));
    let daemon = setup.start();
    let first = id(&daemon.await_closed("road", 1, LONG)[0]).to_owned();
    kernel.fail(Call::Rename, libc::EIO);
    let refused = daemon.mos.run(&["protect", &first]);
    assert!(refused.error().contains("rename"), "what failed is not told");
    let _ = daemon.await_closed("road", 3, LONG);
    kernel.fail(Call::Rename, 0);
    assert_eq!(daemon.mos.run(&["protect", &first]).code, 0);
    assert_eq!(causes(&daemon, "road"), Vec::<String>::new(), "{:?}", daemon.gaps("road"));
    assert_kept(&daemon, &stream, &first);
    daemon.stop();
}

/// EMFILE of the kernel itself: the recorder may open nothing more for a while.
#[test]
fn a_recorder_without_descriptors_goes_on_when_it_has_some() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().storage("segment_seconds", "2").camera("road", &camera.url(0));
    let daemon = setup.start();
    let first = id(&daemon.await_closed("road", 1, LONG)[0]).to_owned();
    assert_eq!(daemon.mos.run(&["protect", &first]).code, 0);
    let before = daemon.segments("road");
    let process = daemon.process();
    let had = process.limit_descriptors(8);
    wait_for("the log to tell", LONG, || daemon.log().contains("Too many open files").then_some(()));
    // How long the fault lasts: nobody can ask the recorder meanwhile, and its log tells the same trouble once.
    std::thread::sleep(Duration::from_secs(5));
    let _ = process.limit_descriptors(had);
    await_new_footage(&daemon, &before);
    assert_kept(&daemon, &stream, &first);
    daemon.stop();
}
