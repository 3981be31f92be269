//! An archive of a million files: starting on it without and with an index, asking it, checking it, and the memory that takes.
//!
//! `make million`. The files lie below the build output and are removed again; N=n makes fewer of them.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mos_tests::camera::Camera;
use mos_tests::daemon::{Daemon, Setup, span};
use mos_tests::proc::Process;
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;
use serde_json::Value;

use crate::peers::milliseconds;
use crate::plenty::{self, Grown};
use crate::table::{Table, percentile};

const LENSES: [&str; 16] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];
const RUNS: u32 = 25;
/// One in so many is protected, by a file of its own.
const KEEPS: u32 = 50;
const SECONDS: i64 = 5;
const HOUR: i64 = 3_600_000_000;
const ROUNDS: usize = 400;

pub(crate) fn run(table: &mut Table) {
    let files: u32 = std::env::var("N").ok().map_or(1_000_000, |n| n.parse().expect("N is a number of files"));
    // What is asked for are files: segments, and protections beside some of them.
    let folders = LENSES.len() as u32 * RUNS;
    let each = files / folders * KEEPS / (KEEPS + 1);
    let segments = each * folders;
    let begun = Instant::now();
    let size = Grown { segments, lenses: &LENSES, runs: RUNS, keeps: Some(KEEPS), seconds: SECONDS };
    let setup = plenty::grown("million", &size);
    println!("{segments} segments and their protections were written in {:.0} s", begun.elapsed().as_secs_f64());
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = setup.camera("front", &camera.url(0));
    for (which, limit) in [("no index", 120.0), ("its index", 20.0)] {
        one_start(table, which, limit, &setup, u64::from(segments));
    }
    check(table, &setup, segments);
    fs::remove_dir_all(setup.archive()).unwrap();
}

fn one_start(table: &mut Table, which: &str, limit: f64, setup: &Setup, segments: u64) {
    let work = |what: &str| format!("a million files, {which}: {what}");
    let begun = Instant::now();
    let daemon = setup.spawn();
    let wait = Duration::from_mins(20);
    wait_for("the API", wait, || daemon.client.try_request("GET", "/v1/health", None).ok());
    let answers = begun.elapsed().as_secs_f64();
    let of = |query: &str| {
        let answer = daemon.client.get(&format!("/v1/segments?{query}"));
        (answer.status == 200).then(|| answer.json())
    };
    wait_for("durable footage", wait, || {
        of("lens=front")?["segments"].as_array()?.iter().any(|s| span(s) > 0.0).then_some(())
    });
    let recording = begun.elapsed().as_secs_f64();
    wait_for("everything listed", wait, || of("lens=a&limit=1")?.get("listing").is_none().then_some(()));
    let listed = begun.elapsed().as_secs_f64();
    wait_for("everything recovered", wait, || of("lens=a&limit=1")?.get("recovering").is_none().then_some(()));
    let loaded = begun.elapsed().as_secs_f64();
    assert_eq!(stored(&daemon) / 1000, segments / 1000, "segments are missing from the list");
    table.within(&work("start to an answer of the API"), "s", answers, None, 1.0);
    table.within(&work("start to durable footage of a camera"), "s", recording, None, 5.0);
    table.within(&work("start to all listed"), "s", listed, None, limit);
    table.within(&work("start to nothing left to recover"), "s", loaded, None, limit * 1.5);
    let (mut hours, mut pages) = ask(&daemon);
    table.within(&work("GetSegments, an hour of a lens, p50"), "ms", percentile(&mut hours, 50.0), None, 20.0);
    table.within(&work("GetSegments, an hour of a lens, p99"), "ms", percentile(&mut hours, 99.0), None, 60.0);
    table.within(
        &work("GetSegments, a page of 1000 of all lenses, p50"),
        "ms",
        percentile(&mut pages, 50.0),
        None,
        200.0,
    );
    let (now, most) = (daemon.process().rss() as f64 / 1e6, daemon.process().most_rss() as f64 / 1e6);
    table.within(&work("resident memory"), "MB", now, None, 250.0);
    table.within(&work("resident memory at most"), "MB", most, None, 500.0);
    let begun = Instant::now();
    daemon.stop();
    table.within(&work("stop, with the index written"), "s", begun.elapsed().as_secs_f64(), None, 10.0);
}

/// Segments that are counted as stored.
fn stored(daemon: &Daemon<'_>) -> u64 {
    let health: Value = daemon.client.get("/v1/health").ok();
    health["storage"]["segments"].as_u64().unwrap()
}

/// Milliseconds of hours of a lens here and there, and of pages of all lenses.
fn ask(daemon: &Daemon<'_>) -> (Vec<f64>, Vec<f64>) {
    let mut connection = daemon.client.connect();
    let first = connection.request("GET", "/v1/segments?lens=a&limit=1", None).ok();
    let begin = first["segments"][0]["start_ts"].as_i64().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
    let (mut hours, mut pages, mut place) = (Vec::new(), Vec::new(), 12_345_i64);
    for round in 0..ROUNDS {
        place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let from = begin + (place >> 1).rem_euclid(now - begin - HOUR);
        let hour = format!("lens={}&start_ts={from}&end_ts={}", LENSES[round % LENSES.len()], from + HOUR);
        let page = format!("start_ts={from}&limit=1000");
        for (query, times, most) in [(hour, &mut hours, usize::MAX), (page, &mut pages, ROUNDS / 10)] {
            if times.len() < most {
                let path = format!("/v1/segments?{query}");
                let mut answer = None;
                times.push(milliseconds(|| answer = Some(connection.request("GET", &path, None))));
                assert!(!answer.unwrap().ok()["segments"].as_array().unwrap().is_empty(), "{path}");
            }
        }
    }
    (hours, pages)
}

fn check(table: &mut Table, setup: &Setup, segments: u32) {
    let begun = Instant::now();
    let mut command = Command::new(mos_tests::binary("mos"));
    let out = setup.folder().join("check");
    let told = fs::File::create(&out).unwrap();
    command.arg("check").arg(setup.archive()).arg("--json").stdin(Stdio::null()).stdout(told);
    let mut child = command.spawn().unwrap();
    let mut most = 0;
    let status = loop {
        // While it can be asked: a process that has ended has no memory.
        most = Process(child.id()).most_rss_if_any().unwrap_or(most);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let took = begun.elapsed().as_secs_f64();
    let found: Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    assert!(status.success(), "mos check: {status}");
    assert!(found["closed"].as_u64().unwrap() >= u64::from(segments), "{}", found["closed"]);
    table.within("a million files: mos check", "s", took, None, 240.0);
    table.within("a million files: mos check, resident memory at most", "MB", most as f64 / 1e6, None, 500.0);
}
