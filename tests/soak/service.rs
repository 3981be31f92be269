//! Everything that is asked of a recorder at once, for long: clips, pictures, uploads to an OpenSSH server and retention beside the
//! recording. Memory, threads, descriptors and the times of requests stay what they were.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mos_tests::camera::Camera;
use mos_tests::client::Answer;
use mos_tests::daemon::{Daemon, Setup, id, span};
use mos_tests::judge::ffmpeg;
use mos_tests::road::Random;
use mos_tests::sshd::Sshd;
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;
use serde_json::{Value, json};

use crate::figures::{Requests, Watch};
use crate::{LONG, given, lens};

/// What segments may take: two minutes of eight cameras, so that retention is at work for most of a run.
const QUOTA: u64 = 128 << 20;
/// What clips and snapshots may take together.
const OUTPUT: u64 = 32 << 20;
/// From round to round of requests.
const ROUND: Duration = Duration::from_millis(500);
/// Files at the server are counted and removed when there are so many.
const DEPOT: usize = 200;

struct Work<'a> {
    daemon: &'a Daemon<'a>,
    sshd: &'a Sshd,
    random: Random,
    requests: Requests,
    watch: Watch,
    uploads: usize,
    arrived: usize,
    removed_by_retention: usize,
}

impl Work<'_> {
    fn ask(&mut self, kind: &'static str, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let begin = Instant::now();
        let answer = self.daemon.client.request(method, path, body);
        self.requests.add(kind, self.watch.minute(), begin.elapsed());
        answer
    }

    /// One round: what an operator's page asks, and every other time a clip, a picture and an upload of the clip.
    fn round(&mut self, number: usize, cameras: u64) {
        let _ = self.ask("status", "GET", "/v1/capture/status", None).ok();
        let lens = lens(self.random.below(cameras) as usize);
        let page = self.ask("segments", "GET", &format!("/v1/segments?lens={lens}"), None).ok();
        if !number.is_multiple_of(2) {
            return;
        }
        let closed: Vec<&Value> =
            page["segments"].as_array().unwrap().iter().filter(|s| s["state"] != "open").collect();
        // Not the oldest, which retention takes in these moments.
        let newest = closed.len() / 2;
        if closed.len() < 3 {
            return;
        }
        let segment = closed[newest + self.random.below((closed.len() - newest) as u64) as usize];
        let offset = self.random.below((span(segment) * 1000.0 - 2000.0).max(1.0) as u64) as f64 / 1000.0;
        let body = json!({"start_offset": offset, "end_offset": offset + 1.5});
        let clip = self.ask("clip", "POST", &format!("/v1/segments/{}/clip", id(segment)), Some(&body)).ok();
        let body = json!({"keyframe_offset": offset});
        let picture = self.ask("snapshot", "POST", &format!("/v1/segments/{}/snapshot", id(segment)), Some(&body)).ok();
        if number.is_multiple_of(40) {
            ffmpeg::assert_decodes(&self.daemon.file(&clip));
            ffmpeg::assert_decodes(&self.daemon.file(&picture));
        }
        let body = json!({"paths": [clip["path"]], "destination_uri": "depot"});
        let _ = self.ask("upload", "POST", "/v1/uploads", Some(&body)).ok();
        self.uploads += 1;
        self.empty_depot(DEPOT);
    }

    fn empty_depot(&mut self, from: usize) {
        let files: Vec<_> = std::fs::read_dir(self.sshd.upload()).unwrap().map(|e| e.unwrap().path()).collect();
        let whole = |p: &std::path::Path| !p.file_name().unwrap().to_str().unwrap().starts_with('.');
        let files: Vec<_> = files.into_iter().filter(|p| whole(p)).collect();
        if files.len() >= from {
            self.arrived += files.len();
            for file in files {
                std::fs::remove_file(file).unwrap();
            }
        }
    }
}

fn depot(sshd: &Sshd) -> String {
    let uri = sshd.uri();
    let user = uri.trim_start_matches("sftp://").split('@').next().unwrap();
    format!(
        "[[destination]]\nname = \"depot\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"{user}\"\n\
         path = \"{}/{{name}}\"\nhost_key = \"{}\"\nkey_file = \"{}\"\n",
        sshd.address().port(),
        sshd.upload().display(),
        sshd.fingerprint(),
        sshd.identity().display()
    )
}

/// Bytes of footage, and gaps by cause, over all lenses.
fn archive(daemon: &Daemon, cameras: usize) -> (u64, BTreeMap<String, usize>) {
    let mut gaps = BTreeMap::new();
    let mut bytes = 0;
    for at in 0..cameras {
        let listing = daemon.listing(&lens(at));
        bytes += listing["segments"].as_array().unwrap().iter().map(|s| s["bytes"].as_u64().unwrap()).sum::<u64>();
        for gap in listing["gaps"].as_array().unwrap() {
            *gaps.entry(gap["cause"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    (bytes, gaps)
}

#[test]
#[ignore = "takes minutes: make soak"]
fn a_busy_recorder_stays_as_it_is() {
    let (minutes, cameras, seed) = (given("MINUTES", 10), given("CAMERAS", 8) as usize, given("SEED", 1));
    let stream = Stream::get(Kind::Load1M);
    let camera = Camera::open(&vec![stream; cameras]);
    let sshd = Sshd::start();
    let setup = Setup::new()
        .storage("segment_seconds", "5")
        .storage("max_bytes", &QUOTA.to_string())
        .storage("output_max_bytes", &OUTPUT.to_string())
        .sections(&depot(&sshd));
    let setup =
        (0..cameras).fold(setup, |setup, at| setup.camera_with(&lens(at), &camera.url(at), "transport = \"tcp\""));
    let daemon = setup.start();
    for at in 0..cameras {
        let _ = daemon.await_closed(&lens(at), 3, LONG);
    }
    let mut work = Work {
        daemon: &daemon,
        sshd: &sshd,
        random: Random::new(seed),
        requests: Requests::default(),
        watch: Watch::new(daemon.process(), Duration::from_secs(2)),
        uploads: 0,
        arrived: 0,
        removed_by_retention: 0,
    };
    let mut sizes = Vec::new();
    let mut number = 0;
    while work.watch.minute() < minutes as f64 {
        let next = Instant::now() + ROUND;
        work.watch.look();
        work.round(number, cameras as u64);
        if number.is_multiple_of(60) {
            let (bytes, gaps) = archive(&daemon, cameras);
            assert!(bytes <= QUOTA + (QUOTA >> 3), "{bytes} bytes of segments");
            work.removed_by_retention = gaps.get("retention").copied().unwrap_or(0);
            sizes.push((work.watch.minute(), bytes));
        }
        number += 1;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    wait_for("the end of all uploads", LONG, || {
        let list = daemon.client.get("/v1/uploads").ok();
        list["uploads"].as_array().unwrap().iter().all(|job| job["state"] == "done").then_some(())
    });
    work.empty_depot(0);
    let footage = |minute: f64| {
        let known = sizes.iter().rev().find(|(at, _)| *at <= minute);
        known.map_or_else(String::new, |(_, bytes)| format!(" {:7.1} MB of footage", *bytes as f64 / 1e6))
    };
    work.requests.print(&work.watch, 10, footage);
    let (_, gaps) = archive(&daemon, cameras);
    println!("{} clips uploaded, {} arrived; gaps by cause: {gaps:?}", work.uploads, work.arrived);
    assert_eq!(work.uploads, work.arrived, "every upload arrived");
    let harmless = ["starting", "retention"];
    assert!(gaps.keys().all(|cause| harmless.contains(&cause.as_str())), "{gaps:?}");
    for at in 0..cameras {
        let segments = daemon.segments(&lens(at));
        // Not the oldest, which retention takes meanwhile.
        for segment in segments.iter().filter(|s| s["state"] != "open").rev().take(3) {
            ffmpeg::assert_decodes(&daemon.file(segment));
        }
    }
    if minutes >= 5 {
        assert!(work.removed_by_retention > 0, "retention had nothing to do");
        work.watch.assert_flat();
        work.requests.assert_flat(work.watch.minute());
    }
    for fault in ["panicked", "fault of the program"] {
        assert!(!daemon.log().contains(fault), "{}", daemon.log());
    }
    daemon.stop();
}
