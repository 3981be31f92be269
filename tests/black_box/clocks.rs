//! The whole recorder under a wall clock that is absent, late, set back and years ahead: nothing is lost, nothing overlaps, nothing is
//! deleted, and when the right time comes every picture lies at the moment of its capture.

use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::daemon::{Daemon, Setup, id, span, ts};
use mos_tests::judge::accounts::{assert_accounted, causes, utc_ahead};
use mos_tests::judge::archive::assert_tiled;
use mos_tests::kernel::Kernel;
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;
use serde_json::Value;

const LONG: Duration = Duration::from_mins(3);
const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const YEAR: i64 = 365 * 24 * HOUR;

/// True UTC, µs.
fn utc() -> i64 {
    utc_ahead() + (mos_tests::monotonic_ns() / 1000) as i64
}

/// The segments of this run.
fn of_run(daemon: &Daemon, run: u32) -> Vec<Value> {
    daemon.segments("road").into_iter().filter(|s| id(s).starts_with(&format!("road-{run}-"))).collect()
}

/// Waits until the run's newest footage lies about `ahead` µs from true time, and judges all of it: it is one piece, without
/// overlap, by its old names, and each segment is found at its time.
fn await_mapped(daemon: &Daemon, run: u32, ahead: i64) -> Vec<Value> {
    let before: Vec<String> = of_run(daemon, run).iter().map(|s| id(s).to_owned()).collect();
    let segments = wait_for("footage at the time of the wall clock", LONG, || {
        let segments = of_run(daemon, run);
        let newest = segments.last().map(|s| ts(s, "end_ts"))?;
        ((newest - utc() - ahead).abs() < 20 * SECOND).then_some(segments)
    });
    let names: Vec<String> = segments.iter().map(|s| id(s).to_owned()).collect();
    assert!(names.starts_with(&before), "{before:?} became {names:?}");
    let first = ts(&segments[0], "start_ts");
    // However long a slow machine takes, that is less than what the clock is wrong by.
    assert!((first - utc() - ahead).abs() < HOUR / 2, "the run began long before its end: {segments:#?}");
    let gaps: Vec<Value> = daemon.gaps("road").into_iter().filter(|g| g["cause"] != "starting").collect();
    assert_tiled(&segments, &gaps, 0.05);
    let closed = segments.iter().filter(|s| s["state"] != "open");
    for segment in closed {
        let (start, end) = (ts(segment, "start_ts"), ts(segment, "end_ts"));
        let found = daemon.client.get(&format!("/v1/segments?lens=road&start_ts={start}&end_ts={end}")).ok();
        let found = found["segments"].as_array().unwrap().iter().any(|s| id(s) == id(segment));
        assert!(found, "{} is not found from {start} to {end}", id(segment));
    }
    segments
}

fn await_more(daemon: &Daemon, run: u32, seconds: f64) {
    let footage = || of_run(daemon, run).iter().map(span).sum::<f64>();
    let before = footage();
    wait_for("more footage", LONG, || (footage() > before + seconds).then_some(()));
}

#[test]
fn a_clock_that_is_absent_late_and_stepping_costs_nothing() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let kernel = Kernel::new();
    // Over TCP alone: a camera on a loaded machine may take so long over its first picture that it would be asked over UDP, and refuse.
    let setup = Setup::new().storage("segment_seconds", "2").storage("max_age", "\"2d\"").camera_with(
        "road",
        &camera.url(0),
        "transport = \"tcp\"",
    );
    let setup = kernel.under(setup);
    // A board without a clock chip begins in 1970.
    let in_1970 = 300 * SECOND - utc();
    kernel.set_clock(in_1970, false);
    let daemon = setup.start();
    await_more(&daemon, 1, 5.0);
    let segments = await_mapped(&daemon, 1, in_1970);
    assert!(ts(&segments[0], "start_ts") < HOUR, "{}", segments[0]);
    // A network's or satellites' time comes late; then an hour back, ten years ahead, and the right time again.
    for ahead in [20 * SECOND, -HOUR, 10 * YEAR, 0] {
        kernel.set_clock(ahead, true);
        let _ = await_mapped(&daemon, 1, ahead);
        await_more(&daemon, 1, 3.0);
        let _ = await_mapped(&daemon, 1, ahead);
    }
    let (shown, missing) = assert_accounted(&daemon, "road", &[&stream], &camera);
    assert!(missing == 0 && shown > 300, "{missing} pictures are missing beside {shown}");
    assert_eq!(causes(&daemon, "road"), Vec::<String>::new(), "{:?}", daemon.gaps("road"));
    daemon.stop();

    // The next start has no time again, until it comes; the footage before stays where it is, and is not too old for anybody.
    let in_1970 = 300 * SECOND - utc();
    kernel.set_clock(in_1970, false);
    let daemon = setup.start();
    await_more(&daemon, 2, 3.0);
    let old = of_run(&daemon, 1);
    let _ = await_mapped(&daemon, 2, in_1970);
    kernel.set_clock(0, true);
    let _ = await_mapped(&daemon, 2, 0);
    assert_eq!(of_run(&daemon, 1), old);
    assert_tiled(&daemon.segments("road"), &daemon.gaps("road"), 0.11);
    let (shown, _) = assert_accounted(&daemon, "road", &[&stream], &camera);
    assert!(shown > 300);
    assert_eq!(causes(&daemon, "road"), ["stopped"], "{:?}", daemon.gaps("road"));
    daemon.stop();
}
