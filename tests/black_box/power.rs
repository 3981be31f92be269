//! Parking and waking by the API: lenses sleep and come back, the first durable keyframe is timed, a restart keeps what is parked.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mos_tests::daemon::{Daemon, Setup};
use mos_tests::judge::archive::assert_tiled;
use mos_tests::wait_for;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_mins(3);
const SCENE: &str = "test:?width=320&height=180&fps=10&gop=10&bitrate=200000";

fn await_states(daemon: &Daemon, road: &str, cabin: &str) -> Vec<Value> {
    wait_for(&format!("road {road} and cabin {cabin}"), LONG, || {
        let lenses = daemon.client.get("/v1/capture/status").ok()["lenses"].as_array().unwrap().clone();
        (lenses[0]["state"] == road && lenses[1]["state"] == cabin).then_some(lenses)
    })
}

#[test]
fn a_parked_recorder_is_woken_and_tells_how_long_the_first_durable_keyframe_took() {
    let setup = Setup::new().camera("road", SCENE).camera("cabin", SCENE);
    let setup = setup.sections("[power]\nparking_lenses = \"road\"\n");
    let daemon = setup.start();
    await_states(&daemon, "streaming", "streaming");
    let _ = daemon.await_open("cabin", 1.0, LONG);
    assert_eq!(daemon.client.get("/v1/capture/power").ok()["state"], "ignition");

    assert!(daemon.mos.run(&["capture", "park"]).out.starts_with("parking since"));
    let parked = await_states(&daemon, "streaming", "idle");
    assert_eq!((&parked[1]["asleep"], &parked[1]["cause"]), (&json!(true), &json!("capture_stopped")));
    daemon.kill();
    let daemon = setup.start();
    await_states(&daemon, "streaming", "idle");
    let _ = daemon.await_open("road", 1.0, LONG);
    assert!(
        daemon.client.get("/v1/health").ok()["problems"]
            .as_array()
            .unwrap()
            .iter()
            .all(|p| { !p.as_str().unwrap().contains("cabin") }),
        "what sleeps is no problem"
    );
    let mut events = UnixStream::connect(setup.folder().join("mos.sock")).unwrap();
    events.write_all(b"GET /v1/capture/events HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    events.set_read_timeout(Some(LONG)).unwrap();
    let mut events = BufReader::new(events).lines().map_while(Result::ok);
    assert!(events.any(|line| line == "event: lens"), "it is followed");

    let woken = daemon.client.request("POST", "/v1/capture/wake", None).ok();
    assert_eq!((&woken["state"], &woken["last_wake"]["waiting"]), (&json!("ignition"), &json!(["cabin"])));
    let power = wait_for("the first durable keyframe", LONG, || {
        Some(daemon.client.get("/v1/capture/power").ok()).filter(|p| p["last_wake"]["waiting"] == json!([]))
    });
    let took = power["last_wake"]["keyframe_seconds"]["cabin"].as_f64().unwrap();
    assert!(took > 0.0, "{power}");
    assert_eq!(power["last_wake"]["first_keyframe_seconds"].as_f64(), Some(took));
    let metrics = daemon.client.get("/v1/metrics").text();
    assert!(metrics.contains("mos_wakes_total 1") && metrics.contains("mos_wake_to_durable_seconds{lens=\"cabin\"}"));
    let told: Vec<String> = std::iter::from_fn(|| events.next()).take_while(|line| line != "event: woken").collect();
    assert!(told.iter().any(|line| line == "event: power"), "{told:?}");
    assert_eq!(daemon.client.request("POST", "/v1/capture/park", None).ok()["state"], "parking");
    await_states(&daemon, "streaming", "idle");
    assert!(daemon.mos.run(&["capture", "power"]).out.contains("cabin: the first keyframe was durable after"));
    daemon.stop();
    let daemon = setup.start();
    wait_for("footage of the wake", LONG, || (daemon.segments("cabin").len() >= 2).then_some(()));
    assert_tiled(&daemon.segments("cabin"), &daemon.gaps("cabin"), 0.05);
}
