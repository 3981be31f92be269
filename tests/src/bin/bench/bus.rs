//! The frame bus beside GStreamer's shared memory and the floor under both: 1080p NV12 to 1, 8 and 32 processes at 30 and 60
//! frames/s.
//!
//! CPU time is that of whole processes, pacing included. The latency of a frame is that of the reader that got it last.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use mos_tests::proc::Process;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scratch;
use crate::table::{Table, percentile};

/// Seconds over which one set-up is measured.
const SECONDS: u64 = 6;
/// How long one reader is stopped.
const STOPPED: u64 = 10;
/// Frames at the start that are left out: buffers are announced and mapped.
const WARM: u64 = 60;

/// A transport: its name and its two roles.
type Transport = (&'static str, &'static str, &'static str);

const OURS: Transport = ("MOS", "publish", "subscribe");
const PEER: Transport = ("shmsink", "shmsink", "shmsrc");
/// A message to each reader, without a frame: what waking processes takes on this machine just now.
const FLOOR: Transport = ("a bare message", "bare", "listen");

pub(crate) fn run(table: &mut Table) {
    for fps in [30, 60] {
        for readers in [1, 8, 32] {
            let ours = measure(OURS, fps, readers);
            let peer = measure(PEER, fps, readers);
            let floor = measure(FLOOR, fps, readers);
            let judged = (fps, readers) == (60, 8);
            let rows = [
                ("producer CPU per frame", ours.producer, peer.producer, 120.0),
                ("reader CPU per frame", ours.reader, peer.reader, 20.0),
                ("last reader's latency p50", ours.p50, peer.p50, 130.0),
                ("last reader's latency p99", ours.p99, peer.p99, 300.0),
            ];
            for (what, ours, peer, limit) in rows {
                let work = format!("bus {fps} frames/s to {readers}: {what}");
                if judged {
                    table.within(&work, "µs", ours, Some((PEER.0, peer)), limit);
                } else {
                    table.beside(&work, "µs", ours, (PEER.0, peer));
                }
            }
            for (what, ours, floor) in [("p50", ours.p50, floor.p50), ("p99", ours.p99, floor.p99)] {
                let work = format!("bus {fps} frames/s to {readers}: last reader's latency {what} above the floor");
                table.beside(&work, "µs", ours, (FLOOR.0, floor));
            }
        }
    }
    one_stopped(table);
}

/// One reader of eight is stopped for ten seconds.
fn one_stopped(table: &mut Table) {
    let [ours, peer] = [OURS, PEER].map(|transport| {
        let stage = Stage::start(transport, 60, 8);
        std::thread::sleep(Duration::from_secs(SECONDS));
        let (from, memory) = (stage.producer.rss(), sample(&stage));
        let stopped = Pid::from_raw(stage.readers[0].child.id().cast_signed());
        kill(stopped, Signal::SIGSTOP).unwrap();
        std::thread::sleep(Duration::from_secs(STOPPED));
        let after = sample(&stage);
        let grown = (stage.producer.rss() as f64 - from as f64).max(0.0) / 1e6;
        kill(stopped, Signal::SIGCONT).unwrap();
        let cpu = (after.0 - memory.0) as f64 / 1e3 / (60 * STOPPED) as f64;
        let (seen, starved) = stage.end();
        // The others' frames while it stood: those of the last `STOPPED` seconds before the first of the readers was ended;
        // what came later only those could get that were ended after it.
        let last = seen[1..].iter().filter_map(|seen| seen.keys().next_back()).min().copied().unwrap_or(0);
        let first = last.saturating_sub(60 * (STOPPED - 1));
        let lost = seen[1..].iter().map(|seen| (first..last).filter(|number| !seen.contains_key(number)).count());
        let mut late: Vec<f64> =
            latencies(&seen[1..]).into_iter().filter(|(n, _)| *n >= first).map(|(_, l)| l).collect();
        // Where everybody stood still there is none.
        let p99 = if late.is_empty() { f64::INFINITY } else { percentile(&mut late, 99.0) };
        (lost.max().unwrap_or(0) as f64, grown, cpu, p99, starved)
    });
    let work = |what| format!("bus 60 frames/s to 8, one stopped for {STOPPED} s: {what}");
    table.within(&work("frames another reader lacks"), "", ours.0, Some((PEER.0, peer.0)), 0.0);
    table.within(&work("frames for which no buffer was free"), "", ours.4, None, 0.0);
    table.within(&work("producer's memory grew by"), "MB", ours.1, Some((PEER.0, peer.1)), 2.0);
    table.within(&work("producer CPU per frame"), "µs", ours.2, Some((PEER.0, peer.2)), 120.0);
    table.within(&work("last other reader's latency p99"), "µs", ours.3, Some((PEER.0, peer.3)), 300.0);
}

/// What one set-up costs, in µs.
struct Cost {
    producer: f64,
    reader: f64,
    p50: f64,
    p99: f64,
}

fn measure(transport: Transport, fps: u32, readers: usize) -> Cost {
    let stage = Stage::start(transport, fps, readers);
    std::thread::sleep(Duration::from_secs(1));
    let from = sample(&stage);
    std::thread::sleep(Duration::from_secs(SECONDS));
    let to = sample(&stage);
    let frames = u64::from(fps) * SECONDS;
    let per_frame = |from: u64, to: u64| (to - from) as f64 / 1e3 / frames as f64;
    let (producer, all) = (per_frame(from.0, to.0), per_frame(from.1, to.1));
    let (seen, _) = stage.end();
    let mut late: Vec<f64> = latencies(&seen).into_iter().filter(|(n, _)| *n > WARM).map(|(_, l)| l).collect();
    let (p50, p99) = (percentile(&mut late, 50.0), percentile(&mut late, 99.0));
    eprintln!("{} {fps}/{readers}: {producer:.0} {:.0} {p50:.0} {p99:.0}", transport.0, all / readers as f64);
    Cost { producer, reader: all / readers as f64, p50, p99 }
}

/// CPU ns of the producer and of all readers.
fn sample(stage: &Stage) -> (u64, u64) {
    (stage.producer.cpu_ns(), stage.readers.iter().map(|reader| Process(reader.child.id()).cpu_ns()).sum())
}

/// Latency in µs of every frame that all readers got, at the last of them.
fn latencies(seen: &[BTreeMap<u64, u64>]) -> Vec<(u64, f64)> {
    let frames = seen[0].keys().filter_map(|number| {
        let latest = seen.iter().map(|seen| seen.get(number).copied()).collect::<Option<Vec<u64>>>()?;
        Some((*number, *latest.iter().max()? as f64 / 1e3))
    });
    frames.collect()
}

/// A process and what it prints.
struct Role {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Role {
    /// Starts it; returns once it has sent or got a frame.
    fn start(role: &str, socket: &Path, fps: u32) -> Self {
        let mut command = Command::new(mos_tests::binary_folder().join("bus_peer"));
        command.arg(role).arg(socket).arg(fps.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut says = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        says.read_line(&mut line).unwrap();
        assert_eq!(line, "go\n", "{role}");
        Self { child, says }
    }

    fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let text = std::io::read_to_string(&mut self.says).unwrap();
        self.child.wait().unwrap();
        text
    }
}

/// A producer and its readers.
struct Stage {
    maker: Role,
    producer: Process,
    readers: Vec<Role>,
}

impl Stage {
    fn start((_, producer, reader): Transport, fps: u32, readers: usize) -> Self {
        let socket = scratch("bus").join("road.sock");
        let maker = Role::start(producer, &socket, fps);
        let readers = (0..readers).map(|_| Role::start(reader, &socket, fps)).collect();
        Self { producer: Process(maker.child.id()), maker, readers }
    }

    /// What each reader saw: latency in ns by frame; and for how many frames the producer, if it tells, had no buffer.
    fn end(self) -> (Vec<BTreeMap<u64, u64>>, f64) {
        let frame = |line: &str| {
            let (number, latency) = line.split_once(' ').unwrap();
            (number.parse().unwrap(), latency.parse().unwrap())
        };
        let seen = self.readers.into_iter().map(|reader| reader.end().lines().map(frame).collect()).collect();
        (seen, self.maker.end().trim().parse().unwrap_or(0.0))
    }
}
