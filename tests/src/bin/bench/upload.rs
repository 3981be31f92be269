//! SFTP of a segment of 100 MB and more to OpenSSH on loopback, against OpenSSH's own `sftp`: time and CPU.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mos_tests::daemon::{Daemon, Setup};
use mos_tests::sshd::Sshd;
use mos_tests::streams::{Kind, Stream};
use serde_json::json;

use crate::peers::milliseconds;
use crate::scratch;
use crate::table::{Table, percentile};

const ROUNDS: usize = 9;

pub(crate) fn run(table: &mut Table) {
    let (setup, file) = one_segment();
    let sshd = Sshd::start();
    let daemon = setup.start();
    let (mut ours, mut our_cpu, mut theirs, mut their_cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let before = daemon.process().cpu_ns();
        ours.push(milliseconds(|| upload(&daemon, &sshd, &file, &format!("ours-{round}.mp4"))) / 1e3);
        our_cpu.push((daemon.process().cpu_ns() - before) as f64 / 1e9);
        let (seconds, cpu) = sftp(&sshd, &file, &format!("theirs-{round}.mp4"));
        theirs.push(seconds);
        their_cpu.push(cpu);
        for name in ["ours", "theirs"] {
            let arrived = sshd.upload().join(format!("{name}-{round}.mp4"));
            assert_eq!(arrived.metadata().unwrap().len(), file.metadata().unwrap().len());
            std::fs::remove_file(arrived).unwrap();
        }
    }
    let work = format!("SFTP of {} MB on loopback, p50", file.metadata().unwrap().len() / 1_000_000);
    let p50 = |samples: &mut Vec<f64>| percentile(samples, 50.0);
    table.against(&work, "s", p50(&mut ours), ("sftp", p50(&mut theirs)), 0.65);
    table.against(&format!("{work}, CPU"), "s", p50(&mut our_cpu), ("sftp", p50(&mut their_cpu)), 0.5);
}

/// Records one segment of 12 s at 80 Mbit/s.
fn one_segment() -> (Setup, PathBuf) {
    let stream = Stream::get(Kind::Bulk);
    let root = scratch("upload");
    let source = format!("file:{}?loop=true", stream.path.display());
    let setup = Setup::new().root(&root).storage("segment_seconds", "12").camera("road", &source);
    let daemon = setup.start();
    let segments = daemon.await_closed("road", 1, Duration::from_mins(1));
    let file = daemon.file(&segments[0]);
    daemon.stop();
    (Setup::new().root(&root), file)
}

fn upload(daemon: &Daemon, sshd: &Sshd, file: &Path, name: &str) {
    let identity = std::fs::read_to_string(sshd.identity()).unwrap();
    let options = json!({"host_key": sshd.fingerprint(), "identity": identity});
    let uri = format!("{}{name}", sshd.uri());
    let body = json!({"paths": [file.to_str().unwrap()], "destination_uri": uri, "options": options});
    let job = daemon.client.post("/v1/uploads", &body).ok()["uploads"][0]["id"].as_str().unwrap().to_owned();
    // The stream of events ends with the job.
    let events = daemon.client.get(&format!("/v1/uploads/{job}/events")).text();
    assert!(events.contains("\"done\""), "{events}");
}

/// Seconds and CPU seconds (its `ssh` included) of OpenSSH's client.
fn sftp(sshd: &Sshd, file: &Path, name: &str) -> (f64, f64) {
    let target = sshd.uri();
    let (user_and_host, rest) = target.strip_prefix("sftp://").unwrap().split_once(':').unwrap();
    let port = rest.split('/').next().unwrap();
    let script = format!(
        "TIMEFORMAT='%R %U %S'; time sftp -q -b <(echo 'put {} {}/{name}') -P {port} -i {} -o StrictHostKeyChecking=no \
         -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR {user_and_host} >/dev/null",
        file.display(),
        sshd.upload().display(),
        sshd.identity().display(),
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let times: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (times[0], times[1] + times[2])
}
