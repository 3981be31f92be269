//! Files and folders that somebody takes away from under the recorder.

use std::fs;
use std::time::Duration;

use mos_tests::daemon::{Daemon, Setup, id, ts};
use mos_tests::judge::accounts::absences;
use mos_tests::judge::archive::assert_tiled;
use mos_tests::wait_for;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_mins(3);
const SCENE: &str = "test:?width=160&height=120&fps=10";

fn health(daemon: &Daemon<'_>) -> Value {
    daemon.client.get("/v1/health").ok()
}

/// Otherwise up to a whole segment would go into a file that nobody can open any more.
#[test]
fn a_segment_that_is_deleted_while_it_is_written_is_a_gap_and_the_next_begins_at_once() {
    let setup = Setup::new().storage("segment_seconds", "600").camera("road", SCENE);
    let daemon = setup.start();
    let open = daemon.await_open("road", 1.0, PATIENCE);
    fs::remove_file(daemon.file(&open)).unwrap();
    let next = wait_for("a segment with a file", PATIENCE, || {
        let segments = daemon.segments("road");
        segments.into_iter().find(|s| id(s) != id(&open) && daemon.file(s).exists() && s["frames"].as_u64() > Some(10))
    });
    // However long it takes a busy machine to show a keyframe: it is one absence, in one piece or in several.
    let gaps = daemon.gaps("road");
    let lost = absences(&gaps, "disk_error");
    assert_eq!(lost.first().map(|lost| lost.1), Some(ts(&next, "start_ts")), "{gaps:?}, then {next}");
    wait_for("the log to tell", PATIENCE, || {
        daemon.log().contains("somebody deleted the file while it was written").then_some(())
    });
    let lens = &health(&daemon)["lenses"][0];
    let of = |key: &str| lens[key].as_u64().unwrap();
    let dropped: u64 = lens["dropped"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(of("captured"), of("stored") + of("pending") + dropped, "{lens}");
    daemon.stop();
}

/// Nothing can be made durable in a folder that is gone. The daemon ends with that word, so that whoever started it starts it
/// again, and the next run makes new folders.
#[test]
fn a_folder_that_vanishes_ends_the_run_in_order_and_the_next_one_records_again() {
    let setup = Setup::new().camera("road", SCENE).camera("cabin", SCENE);
    for gone in ["segments/road", ""] {
        let mut daemon = setup.start();
        let _ = daemon.await_open("cabin", 1.0, PATIENCE);
        let _ = daemon.await_open("road", 1.0, PATIENCE);
        fs::remove_dir_all(setup.archive().join(gone)).unwrap();
        let status = daemon.ended(PATIENCE);
        assert_eq!(status.code(), Some(1), "{}", daemon.log());
        assert!(daemon.log().contains("has vanished while it was recorded into; a restart records again"));
        drop(daemon);
        let daemon = setup.start();
        for lens in ["road", "cabin"] {
            let _ = daemon.await_open(lens, 1.0, PATIENCE);
        }
        // The other lens was closed in order and has everything.
        if !gone.is_empty() {
            let segments = daemon.segments("cabin");
            assert!(segments.iter().filter(|s| s["state"] == "closed").count() >= 1, "{segments:?}");
            assert_tiled(&segments, &daemon.gaps("cabin"), 0.2);
        }
        wait_for("health to be well", PATIENCE, || (health(&daemon)["status"] == "ok").then_some(()));
        daemon.stop();
    }
}
