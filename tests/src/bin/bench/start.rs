//! Starting with 100,000 segments, with a good and with a corrupt snapshot of the index.

use std::fs;
use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::daemon::{Setup, span};
use mos_tests::judge::archive::files_below;
use mos_tests::streams::{Kind, Stream};
use mos_tests::{monotonic_ns, wait_for};

use crate::plenty::{self, LENSES};
use crate::segments::await_all;
use crate::table::Table;

pub(crate) fn run(table: &mut Table) {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = plenty::archive("start").camera("front", &camera.url(0));
    let daemon = setup.start();
    await_all(&daemon);
    daemon.stop();
    one_start(table, "good snapshot", &setup, &camera);
    for file in files_below(&setup.archive().join("index")) {
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(&file, bytes).unwrap();
    }
    one_start(table, "corrupt snapshot", &setup, &camera);
}

fn one_start(table: &mut Table, which: &str, setup: &Setup, camera: &Camera) {
    let already = camera.sent(0).len();
    let exec = monotonic_ns();
    let daemon = setup.spawn();
    let wait = Duration::from_mins(1);
    // All listed: the newest and the oldest of every lens are there, and the count is whole.
    wait_for("the API", wait, || daemon.client.try_request("GET", "/v1/health", None).ok());
    await_all(&daemon);
    let listed = since(exec);
    // The camera sends as soon as somebody watches: its first unit after exec tells when the source was started.
    let first = wait_for("the source to start", wait, || camera.sent(0).get(already).copied());
    let started = first.capture_ns.saturating_sub(exec) as f64 / 1e6;
    let open = wait_for("the first durable footage", wait, || {
        let listing = daemon.listing("front");
        listing["segments"].as_array()?.iter().find(|s| s["state"] == "open" && span(s) > 0.0).cloned()
    });
    let synced = since(exec);
    table.within(
        &format!("start with 100,000 segments, {which}: exec to first frame sent"),
        "ms",
        started,
        None,
        200.0,
    );
    table.within(&format!("start with 100,000 segments, {which}: all listed"), "ms", listed, None, 2000.0);
    let keyframe = first_keyframe_ms(camera, already, exec);
    let slack = synced - keyframe;
    table.within(
        &format!("start with 100,000 segments, {which}: first keyframe to first sync"),
        "ms",
        slack,
        None,
        600.0,
    );
    assert!(LENSES.iter().all(|lens| *lens != "front") && open["lens"] == "front");
    daemon.stop();
}

/// Milliseconds from `exec` to the capture of the first keyframe that was sent after the first `already` units.
fn first_keyframe_ms(camera: &Camera, already: usize, exec: u64) -> f64 {
    let sent = camera.sent(0);
    let keyframe = sent[already..].iter().find(|s| s.number % 25 == 0).expect("a keyframe a second");
    keyframe.capture_ns.saturating_sub(exec) as f64 / 1e6
}

fn since(ns: u64) -> f64 {
    (monotonic_ns() - ns) as f64 / 1e6
}
