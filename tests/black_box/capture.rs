//! Capture control: lenses are stopped, started, configured and reset while they are recorded; every absence keeps its
//! cause, what was configured survives a restart, and who follows the events hears of every change.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mos_tests::daemon::{Daemon, Setup, span};
use mos_tests::judge::archive::assert_tiled;
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_mins(3);
const SCENE: &str = "test:?width=320&height=180&fps=10&gop=10&bitrate=200000";

fn lens(daemon: &Daemon) -> Value {
    daemon.client.get("/v1/capture/status").ok()["lenses"][0].clone()
}

fn await_state(daemon: &Daemon, state: &str) -> Value {
    wait_for(&format!("the lens to be {state}"), LONG, || Some(lens(daemon)).filter(|l| l["state"] == state))
}

fn await_gap(daemon: &Daemon, cause: &str) {
    await_gap_of(daemon, "road", cause);
}

fn await_gap_of(daemon: &Daemon, lens: &str, cause: &str) {
    wait_for(&format!("a gap by {cause}"), LONG, || {
        daemon.gaps(lens).iter().any(|g| g["cause"] == cause).then_some(())
    });
}

fn await_width(daemon: &Daemon, width: u32) {
    wait_for(&format!("a segment {width} pixels wide"), LONG, || {
        daemon.segments("road").iter().any(|s| s["width"] == width).then_some(())
    });
}

#[test]
fn a_lens_is_stopped_started_configured_and_reset_and_every_absence_keeps_its_cause() {
    let setup = Setup::new().camera("road", SCENE);
    let daemon = setup.start();
    let mut events = UnixStream::connect(setup.folder().join("mos.sock")).unwrap();
    events.write_all(b"GET /v1/capture/events HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    events.set_read_timeout(Some(LONG)).unwrap();
    let mut events = BufReader::new(events)
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("data: ").map(|data| serde_json::from_str::<Value>(data).unwrap()));

    await_state(&daemon, "streaming");
    let said = daemon.mos.run(&["capture", "start", "road"]).error();
    assert!(said.contains("lens road is streaming"), "{said}");
    let _ = daemon.await_open("road", 1.0, LONG);

    let stopped = daemon.mos.run(&["capture", "stop", "road"]);
    assert!(stopped.out.contains("road is idle (capture_stopped)"), "{stopped:?}");
    let again = daemon.client.request("POST", "/v1/capture/lenses/road/stop", None);
    assert!(again.text().contains("lens road is idle"), "{}", again.text());
    assert_eq!(again.error(409), "conflict");
    assert_eq!(daemon.client.request("POST", "/v1/capture/lenses/nobody/stop", None).error(404), "not_found");
    await_gap(&daemon, "capture_stopped");
    let _ = daemon.client.request("POST", "/v1/capture/lenses/road/start", None).ok();
    await_state(&daemon, "streaming");

    let configured =
        daemon.mos.run(&["capture", "configure", "road", "--size", "160x96", "--frame-rate", "5", "--json"]);
    assert_eq!(
        configured.json()["target"],
        json!({"width": 160, "height": 96, "frame_rate": 5, "codec": "h264", "bitrate": 200_000, "gop": 5})
    );
    await_width(&daemon, 160);
    for (body, accepted) in [
        (json!({"frame_rate": 999}), "a whole number from 1 to 240"),
        (json!({"rotation": 45}), "rotation must be 0, 90, 180 or 270"),
        (json!({"colour": "red"}), "expected one of"),
    ] {
        let answer = daemon.client.post("/v1/capture/lenses/road/configure", &body);
        assert!(answer.text().contains(accepted), "{}", answer.text());
        assert_eq!(answer.error(400), "bad_request");
    }
    assert_eq!(lens(&daemon)["target"]["frame_rate"], 5, "what was refused changed nothing");

    let reset = daemon.client.request("POST", "/v1/capture/lenses/road/reset", None).ok();
    assert_eq!(reset["cause"], "capture_reset");
    // An interval in which the machine was busy with others is followed by another.
    let streaming = wait_for("figures of the lens", LONG, || {
        let apart = |l: &Value| l["keyframe_interval"].as_f64().is_some_and(|seconds| (seconds - 1.0).abs() < 0.3);
        Some(lens(&daemon)).filter(|l| l["state"] == "streaming" && apart(l))
    });
    assert!(streaming["durable_latency"].as_f64().unwrap() > 0.0, "{streaming}");
    // It goes on with each frame, not only with those that are durable.
    let newest = streaming["newest_ts"].as_i64().unwrap();
    let apart = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64 - newest;
    assert!((0..5_000_000).contains(&apart), "{streaming}");
    wait_for("a newer frame", LONG, || lens(&daemon)["newest_ts"].as_i64().filter(|later| *later > newest));
    await_gap(&daemon, "capture_reset");
    let metrics = daemon.client.get("/v1/metrics").text();
    for figure in
        ["mos_lens_state{lens=\"road\",state=\"circuit_open\"} 0", "mos_lens_breaker{lens=\"road\",state=\"closed\"} 1"]
    {
        assert!(metrics.contains(figure), "{metrics}");
    }
    let table = daemon.mos.run(&["capture", "status"]);
    assert!(table.out.contains("streaming") && table.out.contains("160x96"), "{table:?}");
    assert_eq!(daemon.mos.run(&["capture", "list", "--json"]).json()["platform"], "generic");

    // Each change in its turn; how often a state was told before the stop depends on when the stream was joined.
    let told: Vec<Value> = std::iter::from_fn(|| events.next()).take_while(|e| e["cause"] != "capture_reset").collect();
    let states: Vec<&str> = told.iter().map(|e| e["state"].as_str().unwrap()).collect();
    assert!(states.windows(4).any(|w| w == ["streaming", "idle", "connecting", "streaming"]), "{states:?}");
    assert!(told.iter().any(|e| e["cause"] == "capture_stopped" && e["from"] == "streaming"), "{told:?}");
    daemon.stop();
    let daemon = setup.start();
    assert_tiled(&daemon.segments("road"), &daemon.gaps("road"), 0.05);
}

#[test]
fn what_was_configured_survives_restarts_and_a_broken_file_costs_nothing() {
    let setup = Setup::new().camera("road", SCENE);
    let daemon = setup.start();
    let _ = daemon.client.post("/v1/capture/lenses/road/configure", &json!({"width": 160, "height": 96})).ok();
    daemon.kill();
    let daemon = setup.start();
    await_width(&daemon, 160);
    assert_eq!(lens(&daemon)["configured"], json!({"width": 160, "height": 96}));
    daemon.stop();

    let file = setup.archive().join("capture");
    let kept = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, kept.replace("160", "161")).unwrap();
    let daemon = setup.start();
    await_width(&daemon, 320);
    let health = daemon.client.get("/v1/health").ok()["problems"].to_string();
    assert!(health.contains("the settings in capture beside the archive cannot be read"), "{health}");
    let _ = daemon.client.post("/v1/capture/lenses/road/configure", &json!({"frame_rate": 5})).ok();
    assert!(setup.archive().join("capture.broken").exists(), "what cannot be read is not overwritten");
    let health = daemon.client.get("/v1/health").ok()["problems"].to_string();
    assert!(!health.contains("beside the archive"), "{health}");
    let path = "/v1/capture/lenses/road/configure?from_file=true";
    assert_eq!(daemon.client.post(path, &json!({})).ok()["target"]["frame_rate"], 10);
    daemon.stop();
}

#[test]
fn what_is_absent_is_captured_as_soon_as_it_comes() {
    let setup = Setup::new();
    let film = setup.folder().join("film.mp4");
    let setup = setup.camera("road", &format!("file:{}?loop=true", film.display()));
    let daemon = setup.start();
    let mut events = UnixStream::connect(setup.folder().join("mos.sock")).unwrap();
    events.write_all(b"GET /v1/capture/events HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    events.set_read_timeout(Some(LONG)).unwrap();
    let mut events = BufReader::new(events).lines().map_while(Result::ok);
    assert_eq!(await_state(&daemon, "absent")["cause"], "camera_absent");
    std::fs::copy(Stream::get(Kind::H264).path, &film).unwrap();
    let told: Vec<String> = std::iter::from_fn(|| events.next()).take_while(|line| line != "event: devices").collect();
    assert!(told.iter().any(|line| line.contains("\"state\":\"absent\"")), "{told:?}");
    await_state(&daemon, "streaming");
    let _ = daemon.await_open("road", 1.0, LONG);
    let metrics = daemon.client.get("/v1/metrics").text();
    let changes = metrics.lines().find_map(|line| line.strip_prefix("mos_device_changes_total "));
    assert!(changes.is_some_and(|n| n.parse::<u64>().unwrap() > 0), "{changes:?}");
    daemon.stop();
    let daemon = setup.start();
    assert_tiled(&daemon.segments("road"), &daemon.gaps("road"), 0.05);
}

#[test]
fn a_lens_is_added_and_taken_out_at_run_time_and_its_footage_stays() {
    let setup = Setup::new().camera("road", SCENE);
    let daemon = setup.start();
    let states = |daemon: &Daemon| {
        let lenses = daemon.client.get("/v1/capture/status").ok()["lenses"].as_array().unwrap().clone();
        lenses.iter().map(|l| (l["lens"].as_str().unwrap().to_owned(), l["added"] == true)).collect::<Vec<_>>()
    };
    let path = "/v1/capture/lenses/door/configure";
    assert_eq!(daemon.client.post(path, &json!({})).error(404), "not_found");
    let nowhere = daemon.client.post(&format!("{path}?device=usb-nowhere"), &json!({}));
    assert!(nowhere.text().contains("ListDevices has none of that id"), "{}", nowhere.text());
    let secret = daemon.client.post(&format!("{path}?device=rtsp://user:hunter2@192.0.2.1/s"), &json!({}));
    assert!(!secret.text().contains("hunter2") && secret.text().contains("configuration file"), "{}", secret.text());

    let added =
        daemon.mos.run(&["capture", "configure", "door", "--device", SCENE, "--frame-rate", "5", "--json"]).json();
    assert_eq!((&added["added"], &added["target"]["frame_rate"]), (&json!(true), &json!(5)));
    let _ = daemon.await_open("door", 1.0, LONG);
    let other = daemon.client.post("/v1/capture/lenses/road/configure?device=test:", &json!({}));
    assert_eq!(other.error(409), "conflict");
    let configured = daemon.mos.run(&["capture", "remove", "road"]).error();
    assert!(configured.contains("configuration file"), "{configured}");

    // Taken out and added again within one run: what lies between is a gap with its cause.
    let removed = daemon.mos.run(&["capture", "remove", "door"]);
    assert!(removed.out.contains("door is gone"), "{removed:?}");
    assert_eq!(states(&daemon), [("road".to_owned(), false)]);
    assert_eq!(daemon.client.request("POST", "/v1/capture/lenses/door/stop", None).error(404), "not_found");
    let first = daemon.await_closed("door", 1, LONG);
    let kept = |daemon: &Daemon| {
        wait_for("the first footage", LONG, || {
            Some(daemon.segments("door")).filter(|segments| segments.iter().any(|s| s["id"] == first[0]["id"]))
        })
    };
    let _ = daemon.mos.run(&["capture", "configure", "door", "--device", SCENE]);
    wait_for("footage after the return", LONG, || {
        daemon.segments("door").iter().any(|s| s["state"] == "open" && span(s) > 1.0).then_some(())
    });
    await_gap_of(&daemon, "door", "capture_stopped");
    daemon.kill();
    // Dead for some frames: otherwise the next run would begin within the last frame, and nothing would be missing.
    std::thread::sleep(Duration::from_millis(300));

    let daemon = setup.start();
    assert_eq!(states(&daemon), [("road".to_owned(), false), ("door".to_owned(), true)]);
    let _ = daemon.await_open("door", 1.0, LONG);
    let _ = daemon.client.request("POST", "/v1/capture/lenses/door/stop", None).ok();
    daemon.stop();
    let daemon = setup.start();
    let door = daemon.client.get("/v1/capture/status").ok()["lenses"][1].clone();
    assert_eq!((&door["state"], &door["cause"]), (&json!("idle"), &json!("capture_stopped")), "over restarts");
    await_gap_of(&daemon, "door", "recorder_killed");
    assert_tiled(&kept(&daemon), &daemon.gaps("door"), 0.05);
    let _ = daemon.client.request("DELETE", "/v1/capture/lenses/door", None).ok();
    daemon.stop();
    let daemon = setup.start();
    assert_eq!(states(&daemon), [("road".to_owned(), false)]);
    let kept = kept(&daemon);
    assert!(kept.iter().all(|s| daemon.file(s).exists()));
    assert_tiled(&kept, &daemon.gaps("door"), 0.05);
}

/// The workers of a daemon, by their process ids, also those that nobody has reaped.
fn workers(daemon: &Daemon) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.process().0)).unwrap().flatten();
    let children = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    children.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect()
}

#[test]
fn a_worker_that_dies_or_hangs_costs_its_lens_a_gap_and_the_others_nothing() {
    let setup = Setup::new().camera_with("road", SCENE, "isolation = \"process\"").camera("cabin", SCENE);
    let daemon = setup.start();
    let seconds = |lens: &str| daemon.segments(lens).iter().map(span).sum::<f64>();
    let await_more = || {
        let before = seconds("road");
        wait_for("more footage", LONG, || (seconds("road") > before + 1.0).then_some(()));
    };
    // On a busy machine one that was given up may not have been reaped yet.
    let one_worker =
        || wait_for("one worker", LONG, || if let [worker] = workers(&daemon)[..] { Some(worker) } else { None });
    await_more();
    assert_eq!(lens(&daemon)["isolation"], "process");
    for (signal, cause) in [(Signal::SIGKILL, "camera_broke_off"), (Signal::SIGSTOP, "camera_stalled")] {
        let worker = one_worker();
        nix::sys::signal::kill(Pid::from_raw(worker), signal).unwrap();
        await_gap(&daemon, cause);
        if signal == Signal::SIGSTOP {
            wait_for("the error", LONG, || {
                lens(&daemon)["last_error"].as_str().is_some_and(|e| e.contains("went silent")).then_some(())
            });
        }
        await_more();
        wait_for("it to be gone and reaped", LONG, || (!workers(&daemon).contains(&worker)).then_some(()));
    }
    assert_tiled(&daemon.segments("road"), &daemon.gaps("road"), 0.05);
    assert_tiled(&daemon.segments("cabin"), &[], 0.05);
    // Credentials could stand there: the work goes over the socket only.
    let worker = one_worker();
    let arguments = std::fs::read_to_string(format!("/proc/{worker}/cmdline")).unwrap();
    assert_eq!(arguments, "mos\0lens-worker\0");
    daemon.kill();
    wait_for("the end of the worker of a recorder that was killed", LONG, || {
        (!std::path::Path::new(&format!("/proc/{worker}")).exists()).then_some(())
    });
}
