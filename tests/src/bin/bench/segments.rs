//! GetSegments over an hour among 100,000 segments, over HTTP and inside the process, and the memory of the index.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mos_tests::daemon::{Daemon, Setup};
use mos_tests::wait_for;

use serde_json::Value;

use crate::peers::milliseconds;
use crate::plenty::{self, LENSES, SECONDS, SEGMENTS};
use crate::scratch;
use crate::table::{Table, percentile};

const ROUNDS: usize = 4000;
const HOUR: i64 = 3_600_000_000;

/// Waits until the oldest segment of every lens is listed, and gives the start of the first one.
pub(crate) fn await_all(daemon: &Daemon) -> i64 {
    let starts = LENSES.map(|lens| {
        wait_for("the whole archive to be listed", Duration::from_mins(1), || {
            let answer = daemon.client.get(&format!("/v1/segments?lens={lens}&limit=1"));
            let first = (answer.status == 200).then(|| answer.json())?["segments"].get(0)?.clone();
            (first["id"] == format!("{lens}-1-0")).then(|| first["start_ts"].as_i64().unwrap())
        })
    });
    starts[0]
}

pub(crate) fn run(table: &mut Table) {
    let empty = {
        let setup = Setup::new().root(&scratch("segments-empty"));
        let daemon = setup.start();
        for _ in 0..50 {
            let _ = daemon.client.get("/v1/segments").ok();
        }
        daemon.process().pss()
    };
    let setup = plenty::archive("segments");
    // The first start builds the index from the files and leaves a snapshot; the second is the ordinary case.
    let daemon = setup.start();
    await_all(&daemon);
    daemon.stop();
    let daemon = setup.start();
    let first = await_all(&daemon);
    let span = i64::from(SEGMENTS) / LENSES.len() as i64 * SECONDS * 1_000_000 - HOUR;
    let mut connection = daemon.client.connect();
    let mut times = Vec::new();
    let mut place: i64 = 12_345;
    for round in 0..ROUNDS {
        place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let from = first + (place >> 1).rem_euclid(span);
        let path = format!("/v1/segments?lens={}&start_ts={from}&end_ts={}", LENSES[round % 4], from + HOUR);
        let mut answer = None;
        times.push(milliseconds(|| answer = Some(connection.request("GET", &path, None))));
        let found = answer.unwrap().ok()["segments"].as_array().unwrap().len();
        assert!((119..=122).contains(&found), "{found} segments in an hour");
    }
    let full = daemon.process().pss();
    let (half, most) = (percentile(&mut times, 50.0), percentile(&mut times, 99.0));
    table.within("GetSegments, an hour of 100,000, over HTTP, p50", "ms", half, None, 1.0);
    table.within("GetSegments, an hour of 100,000, over HTTP, p99", "ms", most, None, 1.0);
    daemon.stop();
    let inside = inside(setup.archive());
    let (work, array) = ("GetSegments, an hour of 100,000, inside the process", "sorted array");
    for name in ["p50", "p99"] {
        let peer = (array, inside[format!("array_{name}")].as_f64().unwrap());
        table.within(&format!("{work}, {name}"), "ms", inside[name].as_f64().unwrap(), Some(peer), 0.1);
    }
    let memory = full.saturating_sub(empty) as f64 / 1e6;
    table.within("memory of the index with 100,000 segments (PSS above an empty daemon)", "MB", memory, None, 12.0);
}

/// What `app/examples/get_segments.rs` prints about the archive.
fn inside(root: &Path) -> Value {
    let program = mos_tests::binary_folder().join("examples/get_segments");
    let output = Command::new(&program).arg(root).output().unwrap();
    assert!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["segments"], SEGMENTS);
    report
}
