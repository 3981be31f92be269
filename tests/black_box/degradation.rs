//! The degradation ladder in the running program: a thermal zone that the test heats and cools.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use mos_tests::daemon::{Daemon, Setup};
use mos_tests::judge::archive::assert_tiled;
use mos_tests::judge::ffmpeg;
use mos_tests::wait_for;
use serde_json::{Value, json};
use tempfile::TempDir;

const LONG: Duration = Duration::from_mins(2);
const SCENE: &str = "test:?width=384&height=192&fps=10&gop=10&bitrate=200000";

fn lenses(daemon: &Daemon) -> Vec<Value> {
    daemon.client.get("/v1/capture/status").ok()["lenses"].as_array().unwrap().clone()
}

/// Waits until the lenses have taken these steps; "" for none.
fn await_steps(daemon: &Daemon, road: &str, cabin: &str) -> Vec<Value> {
    wait_for(&format!("road '{road}' and cabin '{cabin}'"), LONG, || {
        let lenses = lenses(daemon);
        let step = |at: usize| lenses[at]["degraded"]["step"].as_str().unwrap_or_default().to_owned();
        (step(0) == road && step(1) == cabin).then_some(lenses)
    })
}

fn is_halved(file: &Path) -> bool {
    let numbers = ffmpeg::scene_numbers(file, "");
    numbers.len() >= 8 && numbers.windows(2).all(|pair| pair[1] - pair[0] == 2)
}

#[test]
fn a_hot_machine_gives_up_lens_by_lens_without_a_hole_in_the_books_and_takes_them_back() {
    let sysfs = TempDir::new().unwrap();
    let zone = sysfs.path().join("class/thermal/thermal_zone0");
    std::fs::create_dir_all(&zone).unwrap();
    let put = |file: &str, text: &str| std::fs::write(zone.join(file), format!("{text}\n")).unwrap();
    put("type", "cpu-thermal");
    put("trip_point_0_type", "passive");
    put("trip_point_0_temp", "85000");
    put("temp", "50000");
    let sections = format!(
        "[board]\nsysfs = \"{}\"\n\n[degradation]\nstep_down = \"1s\"\nstep_up = \"1s\"\n",
        sysfs.path().display()
    );
    let setup = Setup::new().camera("road", SCENE).camera("cabin", SCENE).storage("segment_seconds", "2");
    let setup = setup.sections(&sections);
    let daemon = setup.start();
    let _ = daemon.await_open("road", 1.0, LONG);
    let _ = daemon.await_open("cabin", 1.0, LONG);
    let mut events = UnixStream::connect(setup.folder().join("mos.sock")).unwrap();
    events.write_all(b"GET /v1/capture/events HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    events.set_read_timeout(Some(LONG)).unwrap();
    let mut events = BufReader::new(events).lines().map_while(Result::ok);
    assert!(events.any(|line| line == "event: lens"), "it is followed");

    let opened = lenses(&daemon)[0]["reconnects"].clone();
    put("temp", "88000");
    let _ = await_steps(&daemon, "reduced", "stopped");
    let stopped = wait_for("cabin to be idle", LONG, || {
        Some(lenses(&daemon)).filter(|all| all[1]["state"] == "idle" && all[1]["cause"] == "degraded")
    });
    assert_eq!(stopped[1]["degraded"]["why"], "cpu-thermal is at 88.0 °C, too hot from 85.0 °C on");
    assert_eq!(stopped[0]["reconnects"], opened, "a reduced lens goes on without a pause");
    let half = wait_for("half of the pictures", LONG, || {
        let road = lenses(&daemon)[0].clone();
        (road["frame_rate"].as_f64().unwrap() < 7.0).then_some(road)
    });
    assert_eq!((&half["state"], &half["cause"]), (&json!("streaming"), &Value::Null));
    let metrics = daemon.client.get("/v1/metrics").text();
    for line in [
        "mos_lens_degraded{lens=\"cabin\"} 2",
        "mos_lens_degraded{lens=\"road\"} 1",
        "mos_thermal_zone_celsius{zone=\"thermal_zone0\",type=\"cpu-thermal\"} 88",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    let alarms = || daemon.client.get("/v1/health").ok()["alarms"].clone();
    wait_for("the alarm", LONG, || (alarms()[0]["kind"] == "lenses_degraded").then_some(()));
    let shown = daemon.mos.run(&["capture", "status"]).out;
    assert!(shown.contains("idle (degraded)") && shown.contains("cabin is stopped since"), "{shown}");
    let refused = daemon.client.request("POST", "/v1/capture/lenses/cabin/start", None);
    assert_eq!(refused.status, 409);
    assert!(events.any(|line| line == "event: degraded"));

    // A busy machine may leave out another picture in one of them.
    let mut judged = daemon.segments("road").len();
    wait_for("a segment of nothing but every second picture", LONG, || {
        let closed: Vec<Value> = daemon.segments("road").into_iter().filter(|s| s["state"] != "open").collect();
        let new = closed.get(judged..).unwrap_or_default();
        judged += new.len();
        new.iter().any(|segment| is_halved(&daemon.file(segment))).then_some(())
    });
    put("temp", "60000");
    let lenses = await_steps(&daemon, "", "");
    assert_eq!(lenses[1]["degraded"], Value::Null);
    let known = daemon.segments("cabin").len();
    let _ = daemon.await_closed("cabin", known + 1, LONG);
    wait_for("the end of the alarm", LONG, || (alarms() == json!([])).then_some(()));
    daemon.stop();

    let daemon = setup.start();
    let (road, cabin) = (daemon.segments("road"), daemon.segments("cabin"));
    assert_tiled(&road, &daemon.gaps("road"), 0.15);
    assert_tiled(&cabin, &daemon.gaps("cabin"), 0.15);
    assert!(daemon.gaps("cabin").iter().any(|gap| gap["cause"] == "degraded"));
    assert!(daemon.gaps("road").iter().all(|gap| gap["cause"] != "degraded"), "a reduced lens lacks nothing");
    for segment in road.iter().filter(|segment| segment["state"] != "open") {
        ffmpeg::assert_decodes(&daemon.file(segment));
    }
}
