//! Every reader that comes with the crate, as a process of its own against a publisher in a third process.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::{Process, example, in_c, in_python};

const COUNT: u64 = 40;

/// Runs a reader against a publisher and judges each of its lines.
fn judge(reader: &mut Command) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("road.sock");
    // So slowly that no busy machine keeps a reader from giving a frame back before the next four.
    let mut publisher = Command::new(example("publisher"));
    publisher.arg(&socket).arg("8").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut publisher = publisher.spawn().unwrap();
    let mut line = String::new();
    let mut says = BufReader::new(publisher.stdout.take().unwrap());
    says.read_line(&mut line).unwrap();
    assert!(line.starts_with("publishing"), "{line}");

    let mut reader = Process::start(reader.arg(&socket).arg(COUNT.to_string()));
    let mut last = 0;
    let mut lines = 0;
    for line in BufReader::new(reader.0.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let fields: Vec<&str> = line.split(' ').collect();
        let [sequence, format, size, sum, latency] = fields[..] else { panic!("{line}") };
        let sequence: u64 = sequence.parse().unwrap();
        assert_eq!((format, size), ("NV12", "320x240"));
        assert_eq!(sum.parse::<u64>().unwrap(), (sequence & 0xff) * 320 * 240, "frame {sequence} is torn");
        assert!(latency.parse::<u64>().unwrap() < 30_000_000);
        assert!(sequence > last, "{sequence} after {last}");
        last = sequence;
        lines += 1;
    }
    assert_eq!(lines, COUNT);
    assert!(reader.0.wait().unwrap().success());
    drop(publisher.stdin.take());
    line.clear();
    says.read_line(&mut line).unwrap();
    assert!(line.contains("revoked: 0"), "{line}");
    assert!(publisher.wait().unwrap().success());
}

#[test]
fn rust() {
    judge(&mut Command::new(example("subscriber")));
}

#[test]
fn python() {
    judge(&mut Command::new(in_python()));
}

#[test]
fn c() {
    let folder = tempfile::tempdir().unwrap();
    for program in in_c(folder.path()) {
        judge(&mut Command::new(&program));
    }
}
