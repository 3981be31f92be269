//! Passwords are nowhere but in the configuration: not in the log, the process list, the API, an error, nor the archive.

use std::time::Duration;

use mos_tests::DeadPort;
use mos_tests::camera::{Camera, PASSWORD, USER};
use mos_tests::daemon::{Daemon, Setup, id};
use mos_tests::judge::archive::files_below;
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_mins(2);
/// `USER:PASSWORD` as HTTP Basic sends it.
const BASIC: &str = "dmlld2VyOnRyMHViNGRvci1zM2NyZXQ";

/// Lenses that fail, each with the password in its source in another way.
fn failing(camera: &Camera, dead: u16) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("bad", camera.wrong_url()),
        ("rtsp", format!("rtsp://{USER}:{PASSWORD}@127.0.0.1:{dead}/0")),
        ("rtsps", format!("rtsps://{USER}:{PASSWORD}@127.0.0.1:{dead}/0")),
        ("onvif", format!("onvif://{USER}:{PASSWORD}@127.0.0.1:{dead}/")),
        ("srt", format!("srt://127.0.0.1:{dead}?passphrase={PASSWORD}")),
    ];
    if cfg!(feature = "whep") {
        all.push(("whep", format!("whep+http://{PASSWORD}@127.0.0.1:{dead}/whep")));
        all.push(("basic", format!("whep+http://{USER}:{PASSWORD}@127.0.0.1:{dead}/whep")));
    }
    all
}

/// Every answer to a GET that the document knows, with what it was asked for. All are successes: an operation that cannot be asked with
/// these ids is to be thought of here.
fn all_that_can_be_asked(daemon: &Daemon, lenses: &[&str], ids: &[(&str, &str)]) -> Vec<(String, String)> {
    let document = daemon.client.get("/v1/openapi.json").ok();
    let mut said = Vec::new();
    for (template, operation) in document["paths"].as_object().unwrap() {
        let Some(operation) = operation.get("get") else { continue };
        let mut path = template.clone();
        for (begins, id) in ids {
            if path.starts_with(begins) {
                path = path.replace("{id}", id);
            }
        }
        assert!(!path.contains('{'), "nobody says what {template} is to be asked about");
        let of_lens = |p: &Value| p["name"] == "lens" && p["in"] == "query";
        let by_lens = operation["parameters"].as_array().is_some_and(|all| all.iter().any(of_lens));
        let asked =
            if by_lens { lenses.iter().map(|lens| format!("{path}?lens={lens}")).collect() } else { vec![path] };
        for path in asked {
            let is_stream = operation["responses"]["200"]["content"].get("text/event-stream").is_some();
            let answer = if is_stream {
                // The state of every lens; of what else there are events of, the first.
                let count = if path.starts_with("/v1/capture/") { lenses.len() } else { 1 };
                let events = daemon.client.events(&path, count);
                assert!(events.starts_with("HTTP/1.1 200") && events.contains("\ndata:"), "{path}: {events}");
                events
            } else {
                let answer = daemon.client.get(&path);
                assert_eq!(answer.status, 200, "{path}: {}", answer.text());
                answer.headers.join("\n") + &answer.text()
            };
            said.push((format!("GET {path}"), answer));
        }
    }
    said
}

#[test]
fn a_camera_password_shows_up_nowhere() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::locked(std::slice::from_ref(&stream));
    let dead = DeadPort::new();
    let failing = failing(&camera, dead.port());
    let setup = Setup::new()
        .environment("MOS_LOG__LEVEL", "trace")
        .environment("RUST_LOG", "trace")
        .storage("segment_seconds", "1")
        // No disk has that: an alarm, so that there is something to hear of.
        .storage("min_free_bytes", "\"1024TiB\"")
        .sections("[evidence]\nenabled = true\n")
        .camera("good", &camera.url(0));
    let setup = failing.iter().fold(setup, |setup, (lens, source)| setup.camera(lens, source));
    let daemon = setup.start();
    let segment = id(&daemon.await_closed("good", 1, LONG)[0]).to_owned();
    let lenses: Vec<&str> = std::iter::once("good").chain(failing.iter().map(|(lens, _)| *lens)).collect();
    for (lens, _) in &failing {
        wait_for(&format!("the error of {lens}"), LONG, || {
            let status = daemon.client.get("/v1/capture/status").ok();
            let of = |s: &&Value| s["lens"] == *lens;
            status["lenses"].as_array().unwrap().iter().find(of).unwrap()["last_error"].as_str().map(drop)
        });
    }

    let mut places = vec![("process list".to_owned(), daemon.process().command_line())];
    let clip = daemon
        .client
        .post(&format!("/v1/segments/{segment}/clip"), &json!({"start_offset": 0.0, "end_offset": 0.5}))
        .ok();
    let picture =
        daemon.client.post(&format!("/v1/segments/{segment}/snapshot"), &json!({"keyframe_offset": 0.0})).ok();
    let upload = |uri: String| {
        let options = json!({"host_key": format!("SHA256:{}", "A".repeat(43)), "password": PASSWORD});
        let body = json!({"paths": [clip["path"]], "destination_uri": uri, "options": options});
        daemon.client.post("/v1/uploads", &body)
    };
    let refused = upload(format!("sftp://{USER}:{PASSWORD}@127.0.0.1:{}/a.mp4", dead.port()));
    assert_eq!(refused.status, 400, "{}", refused.text());
    places.push(("refusal of a password in a URI".to_owned(), refused.text()));
    let job = upload(format!("sftp://{USER}@127.0.0.1:{}/a.mp4", dead.port())).ok();
    let job = job["uploads"][0]["id"].as_str().unwrap();
    wait_for("the upload to fail", LONG, || {
        daemon.client.get(&format!("/v1/uploads/{job}")).ok()["message"].as_str().map(drop)
    });
    let (clip, picture) = (clip["id"].as_str().unwrap(), picture["id"].as_str().unwrap());
    wait_for("the clip's evidence", LONG, || {
        (daemon.client.get(&format!("/v1/clips/{clip}/manifest")).status == 200).then_some(())
    });
    let ids = [("/v1/clips/", clip), ("/v1/snapshots/", picture), ("/v1/uploads/", job)];
    places.extend(all_that_can_be_asked(&daemon, &lenses, &ids));
    // What the document leaves to the caller: the search for cameras asks those of the configuration by their logins.
    for path in ["/v1/capture/devices?network=true", "/v1/none"] {
        places.push((format!("GET {path}"), daemon.client.get(path).text()));
    }

    let mut commands: Vec<Vec<&str>> = [
        "status",
        "status --json",
        "devices",
        "devices --json",
        "capture list",
        "capture status",
        "capture status --json",
        "capture power",
        "uploads",
        "uploads --json",
    ]
    .iter()
    .map(|line| line.split(' ').collect())
    .collect();
    commands.extend(lenses.iter().map(|lens| vec!["segments", "--lens", lens]));
    for args in commands {
        let done = daemon.mos.run(&args);
        assert_eq!(done.code, 0, "{args:?}: {}", done.err);
        places.push((args.join(" "), done.out + &done.err));
    }
    daemon.stop();
    let log = setup.log();
    assert!(!log.is_empty(), "the daemon logs nothing, even at trace level");
    places.push(("log".to_owned(), log));
    for file in files_below(setup.archive()) {
        places.push((file.display().to_string(), String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned()));
    }
    for (place, text) in places {
        for secret in [PASSWORD, BASIC] {
            assert!(!text.contains(secret), "the password is in the {place}");
        }
    }
}
