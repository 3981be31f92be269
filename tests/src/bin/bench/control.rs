//! How soon a lens has durable footage: after StartCapture, and after its camera came back. And what the daemon takes while
//! it has nothing to do.

use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::daemon::{Daemon, Setup};
use mos_tests::streams::{Kind, Stream};
use mos_tests::{monotonic_ns, wait_for};
use serde_json::json;

use crate::scratch;
use crate::table::{Table, percentile};

const ROUNDS: usize = 10;
const WAIT: Duration = Duration::from_mins(1);

pub(crate) fn run(table: &mut Table) {
    let idle = Setup::new().root(&scratch("idle"));
    let resident = idle.start().process().rss() as f64 / 1e6;
    table.within("idle, no cameras: resident memory", "MB", resident, None, 30.0);
    let stream = Stream::get(Kind::H264);
    let streams = std::slice::from_ref(&stream);
    let mut camera = Camera::open(streams);
    let setup = Setup::new().camera("road", &camera.url(0)).root(&scratch("control"));
    let daemon = setup.start();
    let _ = daemon.await_open("road", 0.5, WAIT);
    let mut starts: Vec<f64> = (0..ROUNDS).map(|_| start(&daemon)).collect();
    let mut returns = Vec::new();
    for _ in 0..ROUNDS / 2 {
        camera.die();
        wait_for("the loss to be noticed", WAIT, || (state(&daemon) != "streaming").then_some(()));
        camera = camera.revive(streams);
        let back = monotonic_ns();
        let before = stored(&daemon);
        wait_for("footage after the return", WAIT, || (stored(&daemon) > before).then_some(()));
        returns.push(since_ms(back));
    }
    // A keyframe every second and a tick every half: what is beyond is MOS and the connection.
    table.within("StartCapture to the first durable keyframe, p50", "ms", percentile(&mut starts, 50.0), None, 2000.0);
    table.within("camera listens again to durable footage, p50", "ms", percentile(&mut returns, 50.0), None, 5000.0);
}

fn start(daemon: &Daemon<'_>) -> f64 {
    let _ = daemon.client.post("/v1/capture/lenses/road/stop", &json!({})).ok();
    wait_for("the lens to be idle", WAIT, || (state(daemon) == "idle").then_some(()));
    wait_for("what came to be durable", WAIT, || (lens(daemon)["pending"] == 0).then_some(()));
    let before = stored(daemon);
    let asked = monotonic_ns();
    let _ = daemon.client.post("/v1/capture/lenses/road/start", &json!({})).ok();
    wait_for("durable footage", WAIT, || (stored(daemon) > before).then_some(()));
    since_ms(asked)
}

fn lens(daemon: &Daemon<'_>) -> serde_json::Value {
    daemon.client.get("/v1/health").ok()["lenses"][0].clone()
}

fn stored(daemon: &Daemon<'_>) -> u64 {
    lens(daemon)["stored"].as_u64().unwrap()
}

fn state(daemon: &Daemon<'_>) -> String {
    lens(daemon)["state"].as_str().unwrap().to_owned()
}

fn since_ms(start: u64) -> f64 {
    (monotonic_ns() - start) as f64 / 1e6
}
