//! Many uploads over several bad roads at once: each ends byte-exact under its final name, whatever befell it.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mos_tests::daemon::{Daemon, Setup};
use mos_tests::road::{Ends, Fate, Fates, Random, Road};
use mos_tests::sshd::Sshd;
use serde_json::{Value, json};

use crate::cargo::{bytes, destination, key, lay_out, name, names, submit, submit_by_name};

/// Uploads of the short form.
const SHORT: usize = 24;
/// Roads at the same time, each a server of its own to the daemon: every other one is a destination of the configuration, the
/// others are URIs of callers, whose keys the daemon forgets when it is killed.
const ROADS: usize = 4;
/// Uploads that wait or run at a time.
const WINDOW: usize = 32;
/// Nothing is said of time but that there is an end of it.
const PATIENCE: Duration = Duration::from_mins(4);

/// A number from the environment.
fn given(key: &str) -> Option<u64> {
    std::env::var(key).ok().and_then(|text| text.parse().ok())
}

/// Sizes from nothing to a few MB: the borders of blocks, and each order of magnitude.
fn size(random: &mut Random) -> usize {
    match random.below(10) {
        0 => [0, 1, 32_767, 32_768, 32_769, 261_120, 261_121][random.below(7) as usize],
        1 => 1_000_000 + random.below(3_000_000) as usize,
        _ => random.spread(20) as usize,
    }
}

#[test]
fn every_upload_over_a_bad_road_arrives_whole() {
    let (count, seed) = (given("N").map_or(SHORT, |n| n as usize), given("SEED").unwrap_or(1));
    let long = count > 200;
    let (sshd, impostor, setup) = (Sshd::start(), Sshd::start(), Setup::new());
    let ends = Ends { server: sshd.address(), impostor: impostor.address() };
    // The short form has no time for connections that die without a sign: noticing takes the daemon a minute.
    let fates = |road: usize| Fates::drawn(seed.wrapping_mul(1000) + road as u64, if long { 60 } else { 0 });
    let roads: Vec<Road> = (0..ROADS).map(|road| Road::open(ends, fates(road))).collect();
    let named = |road: usize| road.is_multiple_of(2).then(|| format!("road-{road}"));
    let sections = (0..ROADS).filter_map(|road| Some(destination(&named(road)?, &sshd, roads[road].port())));
    let setup = setup.sections(&sections.collect::<String>());
    let mut told = Told::default();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch(&sshd.upload(), &over));
        // The watcher ends also when this thread panics.
        let end = End(&over);
        let mut daemon = setup.start();
        let mut random = Random::new(seed);
        let (mut made, mut done) = (0, 0);
        let mut waiting: BTreeMap<String, (String, bool)> = BTreeMap::new();
        // Kills when so many have arrived.
        let lives = if long { 7 } else { 2 };
        let mut kills = (1..lives).map(|k| k * count / lives).peekable();
        let mut last = Instant::now();
        while done < count {
            while made < count && waiting.len() < WINDOW {
                let name = name(made, size(&mut random));
                let (path, road) = (lay_out(&setup, &name), made % ROADS);
                let id = match named(road) {
                    Some(destination) => submit_by_name(&daemon, &destination, &path),
                    None => submit(&daemon, &sshd, (roads[road].port(), &sshd.upload()), &path, &json!({})),
                };
                waiting.insert(id, (name, named(road).is_some()));
                made += 1;
            }
            for (id, job) in listed(&daemon) {
                let Some((name, named)) = waiting.get(&id).cloned() else { continue };
                assert!(
                    !named || job["state"] != "needs_credentials",
                    "a destination of the configuration has its key: {job}"
                );
                if told.look(&daemon, &sshd, &id, &job) {
                    waiting.remove(&id);
                    arrived(&sshd.upload().join(&name), &name);
                    std::fs::remove_file(setup.archive().join("clips").join(&name)).unwrap();
                    (done, last) = (done + 1, Instant::now());
                }
            }
            if kills.next_if(|at| done >= *at).is_some() {
                let _ = daemon.kill();
                daemon = setup.start();
                let there = listed(&daemon);
                assert!(waiting.keys().all(|id| there.contains_key(id)), "a job was forgotten: {there:#?}");
            }
            assert!(last.elapsed() < PATIENCE, "{} of {count} stand still: {:#?}", count - done, listed(&daemon));
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(end);
        assert_eq!(watch.join().unwrap(), count);
    });
    let (whole, partial) = names(&sshd.upload());
    tell(&roads, &told, &whole);
    assert_eq!((whole.len(), partial), (count, Vec::new()), "nothing is left over at the server");

    for fault in ["panicked", "fault of the program"] {
        assert!(!setup.log().contains(fault), "{}", setup.log());
    }

    // To the wrong server nobody ever tried to log in.
    let log = impostor.log();
    let met = roads.iter().flat_map(Road::met).filter(|fate| *fate == Fate::Impostor).count();
    assert!(met > 0 && log.matches("Connection from").count() >= met, "{met} connections met another server: {log}");
    for sign in ["Accepted", "Failed publickey", "Postponed", "subsystem"] {
        assert!(!log.contains(sign), "{log}");
    }
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// All jobs that the daemon knows, by id.
fn listed(daemon: &Daemon<'_>) -> BTreeMap<String, Value> {
    let list = daemon.client.get("/v1/uploads").ok();
    let jobs = list["uploads"].as_array().unwrap();
    jobs.iter().map(|job| (job["id"].as_str().unwrap().to_owned(), job.clone())).collect()
}

/// What the jobs said on their way.
#[derive(Default)]
struct Told {
    failures: BTreeMap<String, usize>,
    asked: usize,
}

impl Told {
    /// Whether the job is done. One that failed or waits is asked to go on: the waiting times are tested elsewhere.
    fn look(&mut self, daemon: &Daemon<'_>, sshd: &Sshd, id: &str, job: &Value) -> bool {
        let retry = |body: &Value| {
            let answer = daemon.client.post(&format!("/v1/uploads/{id}/retry"), body);
            // It may have begun by itself meanwhile.
            assert!(answer.status == 200 || answer.status == 409, "{}", answer.text());
        };
        match job["state"].as_str().unwrap() {
            "done" => return true,
            "failed" => {
                let kind = job["kind"].as_str().unwrap();
                let of_road = ["unreachable", "connection_lost", "timed_out"].contains(&kind);
                // Before the keys are agreed on nothing guards the bytes: a flipped one looks like another server.
                let of_flip = ["host_key_mismatch", "server_error"].contains(&kind);
                assert!(of_road || of_flip, "{job}");
                assert_eq!(job["next_try_ts"].is_null(), of_flip, "{job}");
                *self.failures.entry(kind.to_owned()).or_default() += 1;
                retry(&json!({}));
            }
            "needs_credentials" => {
                self.asked += 1;
                retry(&json!({"identity": key(sshd)}));
            }
            "cancelled" => panic!("{job}"),
            _ => {}
        }
        false
    }
}

fn arrived(file: &Path, name: &str) {
    let there = std::fs::read(file).unwrap_or_else(|e| panic!("{name} is said to be there: {e}"));
    assert!(there == bytes(name), "{name} has other bytes");
}

/// Looks at every file that appears under a final name, at once; gives how many did.
fn watch(folder: &Path, over: &AtomicBool) -> usize {
    let mut seen = HashSet::new();
    loop {
        let last = over.load(Ordering::SeqCst);
        for name in names(folder).0 {
            if seen.insert(name.clone()) {
                arrived(&folder.join(&name), &name);
            }
        }
        if last {
            return seen.len();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[allow(clippy::print_stdout, reason = "what the long form is asked for")]
fn tell(roads: &[Road], told: &Told, whole: &[String]) {
    let mut fates: BTreeMap<String, usize> = BTreeMap::new();
    for fate in roads.iter().flat_map(Road::met) {
        let text = format!("{fate:?}");
        *fates.entry(text.split([' ', '{']).next().unwrap().to_owned()).or_default() += 1;
    }
    let payload: u64 = whole.iter().map(|name| bytes(name).len() as u64).sum();
    let passed: u64 = roads.iter().map(Road::bytes_up).sum();
    println!("{} uploads of {payload} bytes arrived whole; {passed} bytes went up", whole.len());
    println!("connections: {fates:?}");
    println!("failures on the way: {:?}; asked for their key after a kill: {}", told.failures, told.asked);
}
