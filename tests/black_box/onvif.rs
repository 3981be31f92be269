//! Network cameras by ONVIF: where they stream is asked at each start, they are found, and no password leaves in clear.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use mos_tests::camera::{Camera, Manner, PASSWORD, USER};
use mos_tests::cli;
use mos_tests::daemon::{Daemon, Setup};
use mos_tests::judge::archive::{assert_pictures, assert_tiled};
use mos_tests::onvif::{OnvifCamera, OnvifDevice, peers, python_with};
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;
use serde_json::Value;

const LONG: Duration = Duration::from_mins(3);
/// What judges our camera and stands for cameras of others.
const PACKAGES: &str = "onvif-zeep==0.2.12 WSDiscovery==2.1.2";

/// The last error of a lens, once it holds `words`: on a busy machine an attempt may just have been too slow.
fn status_error(daemon: &Daemon, lens: &str, words: &str) -> Option<String> {
    let status = daemon.client.get("/v1/capture/status").json();
    let lenses = status["lenses"].as_array().unwrap();
    let view = lenses.iter().find(|view| view["lens"] == lens).unwrap();
    view["last_error"].as_str().filter(|error| error.contains(words)).map(str::to_owned)
}

fn assert_no_leak(camera: &OnvifCamera) {
    let requests = camera.requests();
    assert!(!requests.is_empty());
    for request in requests {
        assert_eq!(request["leaks"], false, "the password went over the network: {request}");
    }
}

/// Every way to log in, both media services, old and lying cameras, a wrong clock, a wrong password.
#[test]
fn cameras_say_where_they_stream() {
    let stream = Stream::get(Kind::H264);
    let locked = Camera::locked(std::slice::from_ref(&stream));
    // The address names another host and holds a login, as some cameras do: neither is used.
    let uri = locked.url(0).replace(&format!("{USER}:{PASSWORD}@127.0.0.1"), "other:login@192.0.2.1");
    let digest = OnvifCamera::start("digest", &uri, &["--media2", "--lie", "192.0.2.1"]);
    let token = OnvifCamera::start("token", &uri, &["--old", "--clock", "-863913600"]);
    let refusing = OnvifCamera::start("token", &uri, &[]);
    let setup = Setup::new()
        .environment("MOS_LOG__LEVEL", "trace")
        .storage("segment_seconds", "2")
        .camera("digest", &digest.source("main"))
        .camera("token", &token.source("Main%20stream"))
        .camera("wrong", &refusing.source("").replace(PASSWORD, &format!("{PASSWORD}-wrong")))
        .camera("nameless", &token.source("third"));
    let daemon = setup.start();
    for lens in ["digest", "token"] {
        let segments = daemon.await_closed(lens, 2, LONG);
        for segment in segments.iter().filter(|s| s["state"] != "open") {
            let _ = assert_pictures(&daemon.file(segment), &stream);
        }
        assert_tiled(&segments, &daemon.gaps(lens), 0.05);
    }
    let wrong = wait_for("the refusal", LONG, || status_error(&daemon, "wrong", "does not permit"));
    assert!(wrong.contains("refused"), "{wrong}");
    let nameless = wait_for("the profile's absence", LONG, || status_error(&daemon, "nameless", "no such profile"));
    assert!(nameless.contains("sub (h264 320x180)"), "{nameless}");
    // A list of devices tells what the configured ones offer, and no login.
    let listed = daemon.mos.run(&["devices", "--network"]);
    assert_eq!(listed.code, 0, "{}", listed.err);
    assert!(listed.out.contains("Example Dome <1>") && listed.out.contains("profile main: Main stream h265 640x360"));
    let shown =
        format!("{}{}{}{wrong}{nameless}", listed.out, daemon.client.get("/v1/capture/status").text(), daemon.log());
    for secret in [PASSWORD, "other:login"] {
        assert!(!shown.contains(secret), "{secret} shows up");
    }
    for camera in [&digest, &token, &refusing] {
        assert_no_leak(camera);
    }
    assert!(digest.requests().iter().any(|r| r["path"] == "/onvif/media2" && r["allowed"] == true));
    assert!(refusing.requests().iter().all(|r| r["operation"] == "GetSystemDateAndTime" || r["allowed"] == false));
}

#[test]
fn another_address_of_the_stream_heals_by_itself() {
    let streams = [Stream::get(Kind::H264)];
    let mut before = Camera::open(&streams);
    let mut camera = OnvifCamera::start("none", &before.url(0), &[]);
    let setup = Setup::new().camera("road", &camera.source(""));
    let daemon = setup.start();
    let _ = daemon.await_open("road", 1.0, LONG);
    let after = Camera::open(&streams);
    camera.tell(&format!("uri {}", after.url(0)));
    before.die();
    let frames = || daemon.segments("road").iter().map(|s| s["frames"].as_u64().unwrap()).sum::<u64>();
    let until = frames();
    wait_for("frames from the new address", LONG, || (frames() > until + 50).then_some(()));
    assert!(camera.answered("GetStreamUri") >= 2 && !after.sent(0).is_empty());
    assert_tiled(&daemon.segments("road"), &daemon.gaps("road"), 0.05);
}

fn network_devices(daemon: &Daemon) -> Vec<Value> {
    daemon.client.get("/v1/capture/devices?network=true").json()["devices"].as_array().unwrap().clone()
}

/// Over real multicast. The camera is configured by its UUID, so that its address may change.
#[test]
fn a_camera_is_found_and_recorded_by_its_uuid() {
    let stream = Stream::get(Kind::H264);
    let streaming = Camera::open(std::slice::from_ref(&stream));
    let uuid = &own_uuid(1);
    let camera = OnvifCamera::start("none", &streaming.url(0), &["--discoverable", "--uuid", uuid]);
    // Another that is configured by its address, and whose answers to searches name a wrong one.
    let behind = &own_uuid(2);
    let lying =
        OnvifCamera::start("token", &streaming.url(0), &["--discoverable", "--uuid", behind, "--lie", "192.0.2.1"]);
    let setup = Setup::new().camera("road", &format!("onvif://{uuid}/main")).camera("behind", &lying.source("main"));
    let daemon = setup.start();
    let _ = daemon.await_open("road", 1.0, LONG);
    assert!(camera.answered("GetStreamUri") >= 1);
    // A busy camera may be listed before it has told its name.
    let device = wait_for("the camera in the list", LONG, || {
        network_devices(&daemon).into_iter().find(|d| d.to_string().contains(uuid) && d["name"] == "Example Dome <1>")
    });
    assert_eq!((&device["transport"], &device["name"]), (&"onvif".into(), &"Example Dome <1>".into()), "{device}");
    assert!(device["properties"]["stream main"].as_str().unwrap().starts_with("rtsp://"), "{device}");
    let listed = wait_for("the search to find both", LONG, || {
        let listed = network_devices(&daemon);
        [uuid, behind].iter().all(|uuid| !of_endpoint(&listed, uuid).is_empty()).then_some(listed)
    });
    // Who is configured and found is one device.
    for (uuid, id) in
        [(uuid, format!("onvif://{uuid}/main")), (behind, format!("onvif://127.0.0.1:{}/main", lying.port()))]
    {
        let its = of_endpoint(&listed, uuid);
        assert!(its.len() == 1 && its[0]["id"] == id, "{its:?}");
    }
}

/// A UUID of this run: others on this machine may search at the same time.
fn own_uuid(number: u16) -> String {
    format!("6f1d2c54-8a41-4c2e-{number:04x}-{:012x}", std::process::id())
}

/// The devices that have answered a search as the camera of a UUID.
fn of_endpoint<'a>(listed: &'a [Value], uuid: &str) -> Vec<&'a Value> {
    listed.iter().filter(|d| d["properties"]["endpoint"] == format!("urn:uuid:{uuid}")).collect()
}

/// What our camera says is ONVIF by ONVIF's own WSDL files, and cameras that others publish are found.
#[test]
fn others_agree() {
    let Some(python) = python_with("onvif", PACKAGES) else { return };
    let mut camera = OnvifCamera::start("token", "rtsp://127.0.0.1:8554/main", &["--clock", "3600"]);
    camera.tell("event RuleEngine/CellMotionDetector/Motion true");
    let port = camera.port().to_string();
    let judged =
        cli::tool(Command::new(&python).arg(peers().join("onvif_judge.py")).args(["127.0.0.1", &port, USER, PASSWORD]));
    let judged: Value = serde_json::from_slice(&judged).unwrap();
    assert_eq!((&judged["model"], &judged["widths"]["main"]), (&"Dome <1>".into(), &640.into()), "{judged}");
    assert_eq!(judged["uris"]["main"], "rtsp://127.0.0.1:8554/main");
    assert!(judged["event"].as_array().unwrap().contains(&"true".into()) && judged["renewed"].is_string(), "{judged}");
    assert_eq!(camera.answered("Unsubscribe"), 1);

    let address = format!("http://127.0.0.1:{port}/onvif/device_service");
    let mut target = Command::new(&python);
    target.arg(peers().join("ws_target.py")).arg(&address);
    let mut target = target.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let setup = Setup::new();
    let daemon = setup.start();
    let device = wait_for("the camera that others publish", LONG, || {
        network_devices(&daemon).into_iter().find(|d| d["name"] == "Elsewhere")
    });
    assert_eq!(device["properties"]["hardware"], "X2", "{device}");
    assert!(device["properties"]["source"].as_str().unwrap().ends_with(&format!(":{port}")), "{device}");
    target.kill().unwrap();
    target.wait().unwrap();
}

/// A camera of others: found by a search, by its UUID and at its address, with tokens that it checks against time and repetition.
#[test]
fn a_camera_that_others_have_written_is_recorded() {
    let stream = Stream::get(Kind::H264);
    // Which of this machine's addresses a search finds it at is not said.
    let manner = Manner { login: true, address: Some(Ipv4Addr::UNSPECIFIED.into()), ..Manner::default() };
    let locked = Camera::with(std::slice::from_ref(&stream), manner);
    let uuid = &own_uuid(3);
    let uri = locked.url(0).replace(&format!("{USER}:{PASSWORD}@"), "");
    let Some(camera) = OnvifDevice::start(uuid, &uri, "http://127.0.0.1/picture.jpg?channel=1") else { return };
    let login = format!("{USER}:{PASSWORD}");
    let at = format!("127.0.0.1:{}", camera.port);
    let setup = Setup::new()
        .environment("MOS_LOG__LEVEL", "trace")
        .storage("segment_seconds", "2")
        .camera_with("road", &format!("onvif://{login}@{at}"), "events = \"motion\"")
        .camera("found", &format!("onvif://{login}@{uuid}/sub"))
        .camera("wrong", &format!("onvif://{login}-wrong@{at}"))
        .camera("without", &format!("onvif://{at}"));
    let daemon = setup.start();
    for lens in ["road", "found"] {
        let segments = daemon.await_closed(lens, 2, LONG);
        for segment in segments.iter().filter(|s| s["state"] != "open") {
            let _ = assert_pictures(&daemon.file(segment), &stream);
        }
        assert_tiled(&segments, &daemon.gaps(lens), 0.05);
    }
    // Without a word about it the largest profile is meant.
    let said = camera.said();
    for asked in ["GetStreamUri main", "GetStreamUri sub"] {
        assert!(said.lines().any(|line| line == asked), "{said}");
    }
    // Its faults have no code of ONVIF's for it, only words.
    let wrong = wait_for("the refusal", LONG, || status_error(&daemon, "wrong", "does not permit"));
    let without =
        wait_for("the refusal", LONG, || status_error(&daemon, "without", "it wants a user name and password"));
    assert!(wrong.contains("refused") && without.contains("refused"), "{wrong}; {without}");
    let events = wait_for("a subscription", LONG, || {
        let status = daemon.client.get("/v1/capture/status").json();
        let road = status["lenses"].as_array().unwrap().iter().find(|lens| lens["lens"] == "road").unwrap();
        Some(road["events"].clone()).filter(|events| events["subscribed_ts"].is_i64())
    });
    // Wherever the search has found it, it is what is configured: by its address, three times with the same words, and by its UUID.
    let ids = [format!("onvif://{at}"), format!("onvif://{uuid}/sub")];
    let listed = wait_for("the camera in the list", LONG, || {
        let listed = network_devices(&daemon);
        let whole = |device: &&Value| device["properties"]["snapshot main"].is_string();
        let its = of_endpoint(&listed, uuid);
        (!its.is_empty() && its.iter().all(whole)).then_some(listed)
    });
    let its = of_endpoint(&listed, uuid);
    assert_eq!(its.iter().map(|d| d["id"].as_str().unwrap()).collect::<Vec<_>>(), ids, "{listed:?}");
    let device = its[0];
    assert!(device["lens"] == "road" && device["properties"]["address"].is_string(), "{device}");
    assert_eq!(device["name"], "Others & Sons Box <2>", "{device}");
    let told = &device["properties"];
    assert_eq!((&told["serial"], &told["firmware"]), (&"OS-4711".into(), &"2.0.1".into()), "{device}");
    assert_eq!(told["profile main"], "Large h264 640x360", "{device}");
    assert_eq!(told["stream sub"].as_str().unwrap(), uri, "{device}");
    assert!(told["snapshot main"].as_str().unwrap().starts_with("http://127.0.0.1/picture.jpg"), "{device}");
    let shown = format!("{device}{events}{wrong}{without}{}", daemon.log());
    assert!(!shown.contains(PASSWORD), "the password shows up");
}
