//! Events of ONVIF cameras: what a camera reports protects the footage around it, whatever becomes of the subscription.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mos_tests::camera::Camera;
use mos_tests::daemon::{Daemon, Setup, id};
use mos_tests::judge::accounts::causes;
use mos_tests::judge::archive::assert_tiled;
use mos_tests::kernel::{Call, Kernel};
use mos_tests::onvif::OnvifCamera;
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;
use serde_json::Value;

const LONG: Duration = Duration::from_mins(2);
const MOTION: &str = "RuleEngine/CellMotionDetector/Motion";
const INPUT: &str = "Device/Trigger/DigitalInput";
const REFUSED: &str = "road: what its camera reported is not protected: ";
const KIND: &str = "events_unprotected";

/// The events of that name that a stream of the API tells from now on.
fn follow(setup: &Setup, path: &str, wanted: &'static str) -> mpsc::Receiver<Value> {
    let mut stream = UnixStream::connect(setup.folder().join("mos.sock")).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream);
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    assert!(first.contains("200"), "{first}");
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut name = String::new();
        for line in lines.lines().map_while(Result::ok) {
            if let Some(event) = line.strip_prefix("event: ") {
                event.clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ").filter(|_| name == wanted)
                && tell.send(serde_json::from_str(data).unwrap()).is_err()
            {
                return;
            }
        }
    });
    told
}

fn told(events: &mpsc::Receiver<Value>, kind: &str, active: bool) -> i64 {
    let event = events.recv_timeout(LONG).unwrap_or_else(|e| panic!("{kind} {active}: {e}"));
    assert_eq!((&event["event"], &event["active"], &event["lens"]), (&kind.into(), &active.into(), &"road".into()));
    event["at_ts"].as_i64().unwrap()
}

fn is_protected(segment: &Value) -> bool {
    segment["protected"].as_bool().unwrap()
}

/// G1: what overlaps the event and its surroundings is protected, and nothing else.
fn assert_protected(daemon: &Daemon, from: i64, until: i64) {
    let bounds = |segment: &Value| ["start_ts", "end_ts"].map(|key| segment[key].as_i64().unwrap());
    // The bounds are known to the microsecond, a segment of which less is touched may go either way.
    let within = |segment: &Value| bounds(segment)[0] < until - 1000 && bounds(segment)[1] > from + 1000;
    let outside = |segment: &Value| bounds(segment)[0] > until + 1000 || bounds(segment)[1] < from - 1000;
    let segments = wait_for("footage behind the event, and its protection", LONG, || {
        let segments = daemon.segments("road");
        let last = segments.iter().rfind(|s| s["state"] != "open")?;
        // Every look of the recorder at what it protects is over by then, unless the disk is slow.
        let behind = last["start_ts"].as_i64()? > until + 3_000_000;
        (behind && segments.iter().all(|s| !within(s) || is_protected(s))).then_some(segments)
    });
    for segment in segments.iter().filter(|segment| outside(segment)) {
        let shown = format!("{} {:?}, the event {from} to {until}", id(segment), bounds(segment));
        assert!(!is_protected(segment), "protected: {shown}");
    }
    assert!(segments.iter().any(is_protected) && !is_protected(&segments[0]), "{segments:?}");
}

#[test]
fn what_a_camera_reports_is_protected() {
    let streaming = Camera::open(&[Stream::get(Kind::H264)]);
    let mut camera = OnvifCamera::start("token", &streaming.url(0), &["--clock", "-86400", "--lie", "192.0.2.1"]);
    let more = "events = \"motion\"\nprotect_before = \"2s\"\nprotect_after = \"3s\"";
    let setup = Setup::new().storage("segment_seconds", "1").camera_with("road", &camera.source(""), more);
    let daemon = setup.start();
    let events = follow(&setup, "/v1/capture/events", "camera");
    // An input that is off when the subscription begins is no event.
    camera.tell(&format!("event {MOTION} false"));
    let _ = daemon.await_closed("road", 6, LONG);
    wait_for("the subscription", LONG, || (camera.answered("PullMessages") > 0).then_some(()));
    // What does not count is not told.
    camera.tell(&format!("event {INPUT} true"));
    camera.tell(&format!("event {MOTION} true"));
    let begun = told(&events, "motion", true);
    camera.tell(&format!("event {MOTION} true"));
    let count = daemon.segments("road").len();
    wait_for("an event that goes on", LONG, || (daemon.segments("road").len() > count + 5).then_some(()));
    camera.tell(&format!("event {MOTION} false"));
    let ended = told(&events, "motion", false);
    assert!(ended > begun + 3_000_000);
    assert_protected(&daemon, begun - 2_000_000, ended + 3_000_000);
    let segment = daemon.segments("road").into_iter().find(is_protected).unwrap();
    let again = daemon.client.request("PUT", &format!("/v1/segments/{}/protection", id(&segment)), None).json();
    // Who protects what an event did takes over.
    assert!(again["who"] != "camera" && again["why"] == "event: motion", "{again}");
    assert_tiled(&daemon.segments("road"), &daemon.gaps("road"), 0.05);
    for request in camera.requests() {
        assert_eq!(request["leaks"], false, "the password went over the network: {request}");
    }
}

/// G4, and a subscription that ends, a camera that is away, one that must be renewed.
#[test]
fn a_lost_subscription_is_made_again_and_a_living_one_renewed() {
    let streaming = Camera::open(&[Stream::get(Kind::H264)]);
    let mut camera = OnvifCamera::start("digest", &streaming.url(0), &["--media2"]);
    let more = "events = \"motion digital_input\"\nprotect_before = \"1s\"\nprotect_after = \"1s\"";
    let setup = Setup::new().storage("segment_seconds", "1").camera_with("road", &camera.source(""), more);
    let daemon = setup.start();
    let events = follow(&setup, "/v1/capture/events", "camera");
    let pulled = |camera: &OnvifCamera, times| {
        wait_for("a subscription", LONG, || (camera.answered("CreatePullPointSubscription") >= times).then_some(()));
        let before = camera.answered("PullMessages");
        wait_for("a question for events", LONG, || (camera.answered("PullMessages") > before).then_some(()));
    };
    wait_for("a question for events", LONG, || (camera.answered("PullMessages") > 0).then_some(()));
    // Before what is protected there is to be footage, though a busy camera shows its first picture late.
    let _ = daemon.await_closed("road", 3, LONG);
    let heard = || daemon.client.get("/v1/capture/status").json()["lenses"][0]["events"].clone();
    let before = heard();
    assert!(before["subscribed_ts"].is_i64(), "{before}");
    camera.tell("end");
    // It hears of the end with its next question only; an event ends the present one.
    camera.tell(&format!("event {INPUT} true"));
    pulled(&camera, 2);
    let begun = told(&events, "digital_input", true);
    let after = heard();
    assert!(after["subscribed_ts"].as_i64() > before["subscribed_ts"].as_i64(), "{after}");
    assert!(after["last_error"].as_str().unwrap().contains("PullMessages"), "{after}");
    camera.tell(&format!("event {INPUT} false"));
    let ended = told(&events, "digital_input", false);
    assert_protected(&daemon, begun - 1_000_000, ended + 1_000_000);
    wait_for("a renewal", LONG, || (camera.answered("Renew") > 0).then_some(()));
    assert_tiled(&daemon.segments("road"), &daemon.gaps("road"), 0.05);
    assert_eq!(causes(&daemon, "road"), Vec::<String>::new(), "events harmed the recording");
}

/// G6: a disk that refuses protections alone. The alarm is raised once, stands while they are tried in vain, and goes by itself.
#[test]
fn what_cannot_be_protected_is_an_alarm_until_it_is() {
    let streaming = Camera::open(&[Stream::get(Kind::H264)]);
    let mut camera = OnvifCamera::start("token", &streaming.url(0), &[]);
    let more = "events = \"motion\"\nprotect_before = \"1s\"\nprotect_after = \"1s\"";
    let kernel = Kernel::new();
    let setup =
        kernel.under(Setup::new().storage("segment_seconds", "1").camera_with("road", &camera.source(""), more));
    let daemon = setup.start();
    let events = follow(&setup, "/v1/capture/events", "camera");
    let alarms = follow(&setup, "/v1/events", "alarm");
    // A busy machine may have other alarms, e.g. of slow syncs.
    let next_alarm = || {
        let due = Instant::now() + LONG;
        let told = || alarms.recv_timeout(due.saturating_duration_since(Instant::now()));
        let own = std::iter::from_fn(|| told().ok()).find(|alarm| alarm["kind"] == KIND);
        own.unwrap_or_else(|| panic!("no alarm: {}", daemon.log()))
    };
    let standing = |health: &Value| -> Vec<Value> {
        health["alarms"].as_array().unwrap().iter().filter(|alarm| alarm["kind"] == KIND).cloned().collect()
    };
    let shown = || daemon.client.get("/v1/health").json();
    let metric =
        |value| daemon.client.get("/v1/metrics").text().contains(&format!("mos_alarm{{kind=\"{KIND}\"}} {value}\n"));
    let _ = daemon.await_closed("road", 6, LONG);
    wait_for("the subscription", LONG, || (camera.answered("PullMessages") > 0).then_some(()));
    assert!(metric(0) && standing(&shown()).is_empty(), "{}", shown());
    kernel.fail(Call::Rename, libc::EIO);
    camera.tell(&format!("event {MOTION} true"));
    let begun = told(&events, "motion", true);
    let raised = next_alarm();
    assert_eq!(raised["raised"], true, "{raised}");
    let refused = |alarm: &Value| {
        let message = alarm["message"].as_str().unwrap();
        let (count, why) = message
            .strip_prefix(REFUSED)
            .and_then(|rest| rest.split_once(" segments, the first because "))
            .unwrap_or_else(|| panic!("{message}"));
        assert!(why.contains("rename") && why.contains("(os error 5)"), "{message}");
        count.parse::<usize>().unwrap()
    };
    let few = refused(&raised);
    // The event goes on: the next look finds more of it.
    let (health, alarm) = wait_for("another try in vain", LONG, || {
        let health = shown();
        let alarm = standing(&health).pop().unwrap_or_else(|| panic!("it does not stand: {health}"));
        (refused(&alarm) > few).then_some((health, alarm))
    });
    assert_eq!(alarm["at_ts"], raised["at_ts"], "it was raised once");
    assert_eq!(health["status"], "degraded", "{health}");
    assert!(health["problems"].as_array().unwrap().contains(&alarm["message"]), "{health}");
    assert!(metric(1));
    let status = daemon.mos.run(&["status"]).out;
    assert!(status.lines().any(|line| line.starts_with(&format!("! {REFUSED}"))), "{status}");
    assert!(!daemon.segments("road").iter().any(is_protected), "what was refused is shown as protected");
    camera.tell(&format!("event {MOTION} false"));
    let ended = told(&events, "motion", false);
    kernel.fail(Call::Rename, 0);
    let cleared = next_alarm();
    assert_eq!(cleared["raised"], false, "{cleared}");
    assert_protected(&daemon, begun - 1_000_000, ended + 1_000_000);
    wait_for("health to be well again", LONG, || (shown()["status"] == "ok").then_some(()));
    assert!(metric(0) && standing(&shown()).is_empty(), "{}", shown());
    assert!(!daemon.mos.run(&["status"]).out.contains(REFUSED));
    assert!(alarms.try_iter().all(|alarm| alarm["kind"] != KIND), "it came back");
    assert_tiled(&daemon.segments("road"), &daemon.gaps("road"), 0.05);
    assert_eq!(causes(&daemon, "road"), Vec::<String>::new(), "refusals harmed the recording");
    daemon.stop();
}
