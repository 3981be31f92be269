//! Settings: the smallest configuration runs, the environment wins, a bad value is refused with its place.

use std::process::Command;
use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::cli::outcome;
use mos_tests::daemon::Setup;
use mos_tests::streams::{Kind, Stream};

fn run(config: &str, environment: &[(&str, &str)]) -> mos_tests::cli::Outcome {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mos.toml");
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new(mos_tests::binary("mos"));
    outcome(command.arg("run").arg("--config").arg(&path).envs(environment.iter().copied()))
}

#[test]
fn the_smallest_configuration_records() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::locked(std::slice::from_ref(&stream));
    let setup =
        Setup::new().storage("segment_seconds", "30").storage("max_bytes", "\"64GiB\"").camera("road", &camera.url(0));
    let daemon = setup.start();
    let open = daemon.await_open("road", 1.0, Duration::from_mins(2));
    assert_eq!(open["codec"], "h264");
    daemon.stop();
}

#[test]
fn the_example_runs_with_its_values_set_from_the_environment() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::locked(std::slice::from_ref(&stream));
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("mos.sock");
    let mut command = Command::new(mos_tests::binary("mos"));
    command.arg("run").arg("--config").arg(mos_tests::repository().join("app/mos.toml"));
    command.env("MOS_STORAGE__ROOT", folder.path().join("archive")).env("MOS_HTTP__UNIX_SOCKET", &socket);
    command.env("MOS_CAMERA__ROAD__SOURCE", camera.url(0));
    let mut child = command.spawn().unwrap();
    let client = mos_tests::client::Client::new(&socket);
    mos_tests::wait_for("footage", Duration::from_mins(2), || {
        let answer = client.try_request("GET", "/v1/segments?lens=road", None).ok()?;
        (answer.status == 200 && answer.json()["segments"].as_array().is_some_and(|s| !s.is_empty())).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_bad_value_is_refused_with_its_place_and_what_is_accepted() {
    let camera = "[[camera]]\nid = \"road\"\nsource = \"test:\"\n";
    let refused = run(&format!("[storage]\nroot = \"/tmp/x\"\nsegment_seconds = 0\n{camera}"), &[]).error();
    for word in ["mos.toml:3", "segment_seconds", "1 to 600"] {
        assert!(refused.contains(word), "{refused}");
    }
    let refused =
        run(&format!("[storage]\nroot = \"/tmp/x\"\n{camera}"), &[("MOS_STORAGE__MAX_BYTES", "lots")]).error();
    assert!(refused.contains("MOS_STORAGE__MAX_BYTES"), "{refused}");
    let refused = run(&format!("[storage]\nrooot = \"/tmp/x\"\n{camera}"), &[]).error();
    assert!(refused.contains("rooot"), "{refused}");
    let secret = "[storage]\nroot = \"/tmp/x\"\n[[camera]]\nid = \"road\"\nsource = \"rtps://u:hunter2secret@h/s\"\n";
    let refused = run(secret, &[]).error();
    assert!(refused.contains(":5") && !refused.contains("hunter2secret"), "{refused}");
    let missing =
        outcome(Command::new(mos_tests::binary("mos")).args(["run", "--config", "/nowhere/mos.toml"])).error();
    assert!(missing.contains("/nowhere/mos.toml"), "{missing}");
}
