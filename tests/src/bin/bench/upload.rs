//! SFTP of a segment of 100 MB and more to OpenSSH, against OpenSSH's own `sftp`: time and CPU on loopback, then over a long
//! road, a narrow one and one that breaks. The roads are the proxy of [`mos_tests::road`].

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mos_tests::daemon::{Daemon, Setup, id};
use mos_tests::road::{Ends, Fate, Fates, Road, Way};
use mos_tests::sshd::Sshd;
use mos_tests::streams::{Kind, Stream};
use serde_json::json;

use crate::peers::milliseconds;
use crate::scratch;
use crate::table::{Table, percentile};

const ROUNDS: usize = 9;
/// Rounds at 50 ms, of seconds each.
const LONG_ROUNDS: usize = 3;
/// 20 Mbit/s.
const NARROW: u64 = 2500;
/// Seconds of the clip that goes over the narrow road: 60 MB.
const CLIP: f64 = 6.0;

pub(crate) fn run(table: &mut Table) {
    let (setup, id, file) = one_segment();
    let sshd = Sshd::start();
    let daemon = setup.start();
    loopback(table, &daemon, &sshd, &file);
    long(table, &daemon, &sshd, &file);
    broken(table, &daemon, &sshd, &file);
    let body = json!({"start_offset": 1.0, "end_offset": 1.0 + CLIP});
    let clip = daemon.client.post(&format!("/v1/segments/{id}/clip"), &body).ok();
    narrow(table, &daemon, &sshd, &daemon.file(&clip));
}

fn loopback(table: &mut Table, daemon: &Daemon, sshd: &Sshd, file: &Path) {
    let (mut ours, mut our_cpu, mut theirs, mut their_cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = daemon.process().cpu_ns();
        ours.push(seconds(|| upload(daemon, sshd, sshd.address().port(), file)));
        our_cpu.push((daemon.process().cpu_ns() - before) as f64 / 1e9);
        let (seconds, cpu) = sftp(sshd, sshd.address().port(), file);
        theirs.push(seconds);
        their_cpu.push(cpu);
    }
    let work = format!("SFTP of {} MB on loopback, p50", size(file) / 1_000_000);
    let p50 = |samples: &mut Vec<f64>| percentile(samples, 50.0);
    table.against(&work, "s", p50(&mut ours), ("sftp", p50(&mut theirs)), 0.65);
    table.against(&format!("{work}, CPU"), "s", p50(&mut our_cpu), ("sftp", p50(&mut their_cpu)), 0.5);
}

/// 50 ms there and back.
fn long(table: &mut Table, daemon: &Daemon, sshd: &Sshd, file: &Path) {
    let road = road(sshd, Fate::Delay { millis: 25 });
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..LONG_ROUNDS {
        ours.push(seconds(|| upload(daemon, sshd, road.port(), file)));
        theirs.push(sftp(sshd, road.port(), file).0);
    }
    let work = format!("SFTP of {} MB at 50 ms round trip, p50", size(file) / 1_000_000);
    let p50 = |samples: &mut Vec<f64>| percentile(samples, 50.0);
    table.against(&work, "s", p50(&mut ours), ("sftp", p50(&mut theirs)), 0.5);
}

/// A connection that is lost when nine tenths are there.
fn broken(table: &mut Table, daemon: &Daemon, sshd: &Sshd, file: &Path) {
    let road = road(sshd, Fate::Reset { way: Way::Up, after: size(file) / 10 * 9 });
    std::thread::scope(|scope| {
        let upload = scope.spawn(|| upload(daemon, sshd, road.port(), file));
        mos_tests::wait_for("the first connection", Duration::from_secs(20), || (!road.met().is_empty()).then_some(()));
        road.change(Fates::all(Fate::Clean));
        upload.join().unwrap();
    });
    assert_eq!(road.met().len(), 2, "it broke once: {:?}", road.met());
    let again = road.bytes_up() as f64 / size(file) as f64 - 1.0;
    table.within("resume after a drop at 90 %: share sent again", "", again, None, 0.12);
}

/// 20 Mbit/s and 100 ms there and back.
fn narrow(table: &mut Table, daemon: &Daemon, sshd: &Sshd, file: &Path) {
    let road = road(sshd, Fate::Link { millis: 50, kilobytes_per_second: NARROW });
    let least = size(file) as f64 / (NARROW as f64 * 1e3);
    let ours = seconds(|| upload(daemon, sshd, road.port(), file));
    let theirs = sftp(sshd, road.port(), file).0;
    let work = format!("SFTP of {} MB over 20 Mbit/s, 100 ms", size(file) / 1_000_000);
    // At least 90 % of the link.
    table.against(&work, "s", ours, ("what the link needs", least), 1.0 / 0.9);
    table.beside(&work, "s", ours, ("sftp", theirs));
}

fn road(sshd: &Sshd, fate: Fate) -> Road {
    Road::open(Ends { server: sshd.address(), impostor: sshd.address() }, Fates::all(fate))
}

fn seconds(work: impl FnOnce()) -> f64 {
    milliseconds(work) / 1e3
}

fn size(file: &Path) -> u64 {
    file.metadata().unwrap().len()
}

/// Records one segment of 12 s at 80 Mbit/s.
fn one_segment() -> (Setup, String, PathBuf) {
    let stream = Stream::get(Kind::Bulk);
    let root = scratch("upload");
    let source = format!("file:{}?loop=true", stream.path.display());
    let setup = Setup::new().root(&root).storage("segment_seconds", "12").camera("road", &source);
    let daemon = setup.start();
    let segments = daemon.await_closed("road", 1, Duration::from_mins(1));
    let (id, file) = (id(&segments[0]).to_owned(), daemon.file(&segments[0]));
    daemon.stop();
    (Setup::new().root(&root), id, file)
}

/// Sends the file by a port that leads to the server, and takes it away there.
fn upload(daemon: &Daemon, sshd: &Sshd, port: u16, file: &Path) {
    let identity = std::fs::read_to_string(sshd.identity()).unwrap();
    let options = json!({"host_key": sshd.fingerprint(), "identity": identity});
    let uri = format!("{}ours.mp4", sshd.uri_by(port, &sshd.upload()));
    let body = json!({"paths": [file.to_str().unwrap()], "destination_uri": uri, "options": options});
    let job = daemon.client.post("/v1/uploads", &body).ok()["uploads"][0]["id"].as_str().unwrap().to_owned();
    // The stream of events ends with the job.
    let events = daemon.client.get(&format!("/v1/uploads/{job}/events")).text();
    assert!(events.contains("\"done\""), "{events}");
    arrived(sshd, "ours.mp4", file);
}

/// The same with OpenSSH's client: seconds, and CPU seconds with its `ssh`.
fn sftp(sshd: &Sshd, port: u16, file: &Path) -> (f64, f64) {
    let target = sshd.uri();
    let (user_and_host, _) = target.strip_prefix("sftp://").unwrap().split_once(':').unwrap();
    let script = format!(
        "TIMEFORMAT='%R %U %S'; time sftp -q -b <(echo 'put {} {}/theirs.mp4') -P {port} -i {} -o StrictHostKeyChecking=no \
         -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR {user_and_host} >/dev/null",
        file.display(),
        sshd.upload().display(),
        sshd.identity().display(),
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    arrived(sshd, "theirs.mp4", file);
    let times: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (times[0], times[1] + times[2])
}

fn arrived(sshd: &Sshd, name: &str, file: &Path) {
    let there = sshd.upload().join(name);
    assert_eq!(size(&there), size(file), "{name}");
    std::fs::remove_file(there).unwrap();
}
