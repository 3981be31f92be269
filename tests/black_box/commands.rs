//! The commands: exit codes, one `error:` line, JSON that is the API's.

use std::process::Command;
use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::cli::{Mos, outcome};
use mos_tests::daemon::{Setup, id};
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;

const LONG: Duration = Duration::from_mins(2);

#[test]
fn wrong_usage_is_exit_2() {
    let mos = || Command::new(mos_tests::binary("mos"));
    for args in [
        &["no-such-command"][..],
        &["clip"],
        &["clip", "road-1-1", "--from", "1"],
        &["snapshot", "road-1-1", "--at", "soon", "-o", "x.jpg"],
        &["upload", "x"],
        &["status", "--no-such-option"],
    ] {
        let done = outcome(mos().args(args));
        assert_eq!(done.code, 2, "{args:?}: {}", done.err);
        assert!(!done.err.trim().is_empty() && done.out.is_empty(), "{args:?}");
    }
    for args in [&["--help"][..], &["clip", "--help"], &["--version"]] {
        let done = outcome(mos().args(args));
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{args:?}");
        assert!(!done.out.is_empty());
    }
}

#[test]
fn without_a_daemon_every_command_says_so_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let mos = Mos::new(&folder.path().join("nobody.sock"));
    let out = folder.path().join("x");
    let out = out.to_str().unwrap();
    for args in [
        &["status"][..],
        &["devices"],
        &["segments", "--lens", "road"],
        &["clip", "road-1-1", "--from", "0", "--to", "1", "-o", out],
        &["snapshot", "road-1-1", "--at", "0", "-o", out],
        &["protect", "road-1-1"],
        &["unprotect", "road-1-1"],
        &["remove", "road-1-1"],
    ] {
        let line = mos.run(args).error();
        assert!(line.contains("nobody.sock"), "{args:?}: {line}");
    }
}

#[test]
fn commands_and_api_tell_the_same() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().storage("segment_seconds", "2").camera("road", &camera.url(0));
    let daemon = setup.start();
    let segments = daemon.await_closed("road", 2, LONG);
    let first = &segments[0];
    let keys = [
        "id",
        "lens",
        "start_ts",
        "end_ts",
        "bytes",
        "frames",
        "codec",
        "width",
        "height",
        "state",
        "protected",
        "path",
    ];
    for key in keys {
        assert!(!first[key].is_null(), "no {key}: {first}");
    }
    let (start, end) = (first["start_ts"].as_i64().unwrap(), first["end_ts"].as_i64().unwrap());
    let by_api = daemon.client.get(&format!("/v1/segments?lens=road&start_ts={start}&end_ts={end}")).ok();
    assert_eq!(by_api["segments"].as_array().map(Vec::len), Some(1), "{by_api}");
    assert_eq!(&by_api["segments"][0], first);
    let (from, to) = (start.to_string(), end.to_string());
    let by_command = daemon.mos.run(&["segments", "--lens", "road", "--from", &from, "--to", &to, "--json"]).json();
    assert_eq!(by_command["segments"], by_api["segments"]);

    for _ in 0..2 {
        assert_eq!(daemon.mos.run(&["protect", id(first)]).code, 0, "Protect is idempotent");
    }
    let line = daemon.mos.run(&["remove", id(first)]).error();
    assert!(line.contains(id(first)) && line.contains("protect"), "{line}");
    for _ in 0..2 {
        assert_eq!(daemon.mos.run(&["unprotect", id(first)]).code, 0, "Unprotect is idempotent");
    }
    // One that is closed just then is removed.
    let refused = wait_for("an open segment to be refused", LONG, || {
        let open = daemon.await_open("road", 0.1, LONG);
        let answer = daemon.client.request("DELETE", &format!("/v1/segments/{}", id(&open)), None);
        Some(answer).filter(|answer| answer.status >= 300)
    });
    assert_eq!(refused.error(409), "open");
    assert_eq!(daemon.mos.run(&["remove", id(first)]).code, 0);
    assert!(daemon.mos.run(&["protect", id(first)]).error().contains(id(first)));

    for args in [&["status"][..], &["devices"], &["segments", "--lens", "road"]] {
        let plain = daemon.mos.run(args);
        assert_eq!(plain.code, 0, "{}", plain.err);
        let json = daemon.mos.run(&[args, &["--json"]].concat()).json();
        assert!(json.is_object(), "{json}");
    }
    let document = daemon.client.get("/v1/openapi.json").ok();
    let text = document.to_string();
    for operation in
        ["GetSegments", "ExtractClip", "Snapshot", "Protect", "Unprotect", "Remove", "Upload", "ListDevices"]
    {
        assert!(text.contains(&format!("\"{operation}")), "OpenAPI does not know {operation}");
    }
    let metrics = daemon.client.get("/v1/metrics");
    assert!(metrics.status == 200 && metrics.text().contains("# TYPE mos_"), "{}", metrics.text());
    assert_eq!(daemon.client.get("/v1/no-such-thing").error(404), "not_found");
    assert_eq!(daemon.client.request("PATCH", "/v1/segments", None).error(405), "method_not_allowed");
}
