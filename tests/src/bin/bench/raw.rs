//! Four raw lenses of 1080p30 at once, each encoded on the CPU, recorded and read from the frame bus by a process of its own.
//!
//! Beside it stand four processes of ffmpeg that paint and encode as much, and what this machine's memory copies in a second:
//! the bus passes frames on without copying them, so that what it hands out may be a multiple of what it moves.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mos_tests::daemon::{Daemon, Setup};
use mos_tests::proc::Process;
use serde_json::Value;

use crate::scratch;
use crate::table::Table;

const LENSES: [&str; 4] = ["road", "cabin", "left", "right"];
const FPS: u64 = 30;
/// Bytes of one NV12 picture of 1920×1080.
const PICTURE: u64 = 1920 * 1080 * 3 / 2;
const WARM_UP: Duration = Duration::from_secs(10);
/// Seconds that are measured.
const WINDOW: u64 = 30;

pub(crate) fn run(table: &mut Table) {
    let setup = LENSES.iter().fold(Setup::new(), |setup, lens| {
        setup.camera(lens, &format!("test:?width=1920&height=1080&fps={FPS}&gop={FPS}"))
    });
    let setup = setup.root(&scratch("raw-mos")).storage("segment_seconds", "10");
    let daemon = setup.start();
    for lens in LENSES {
        let _ = daemon.await_open(lens, 1.0, Duration::from_mins(1));
    }
    let alone = measure(&daemon, &[]);
    let seconds = WINDOW + WARM_UP.as_secs();
    let read = |lens: &str| -> Child {
        let args = ["frames", lens, "--json", "--seconds", &seconds.to_string()];
        daemon.mos.command(&args).stdout(Stdio::piped()).spawn().unwrap()
    };
    let readers: Vec<Child> = LENSES.iter().map(|lens| read(lens)).collect();
    let read_by = measure(&daemon, &readers.iter().map(|r| Process(r.id())).collect::<Vec<_>>());
    let told: Vec<Value> = readers
        .into_iter()
        .map(|reader| serde_json::from_slice(&reader.wait_with_output().unwrap().stdout).unwrap())
        .collect();
    drop(daemon);
    let peer = ffmpeg();
    let pictures = (LENSES.len() as u64 * FPS * WINDOW) as f64;
    let name = "4 × ffmpeg testsrc2, libx264 ultrafast";
    let work = |what: &str| format!("4 raw lenses of 1080p30, encoded on the CPU: {what}");
    table.beside(&work("CPU-s per lens-second"), "s", alone.cpu, (name, peer));
    table.within(&work("pictures that are missing"), "%", alone.missing / pictures * 100.0, None, 0.0);
    let bus = read_by.cpu - alone.cpu;
    table.within(&work("what four readers add, CPU-s per lens-second"), "s", bus, Some(("without", alone.cpu)), 0.02);
    table.within(&work("pictures missing while they read"), "%", read_by.missing / pictures * 100.0, None, 0.0);
    let handed: f64 = told.iter().map(|told| told["delivered"].as_u64().unwrap() as f64 / seconds as f64).sum();
    let worst = told.iter().filter_map(|told| told["latency_us"]["p99"].as_u64()).max().unwrap_or(u64::MAX);
    table.beside(
        &work("what the bus hands out"),
        "MB/s",
        handed * PICTURE as f64 / 1e6,
        ("this machine's memcpy", memcpy() / 1e6),
    );
    table.within(&work("a reader's latency p99"), "µs", worst as f64, None, 1e6 / FPS as f64);
}

/// What recording took during a window.
struct Used {
    /// CPU seconds per lens and second, of the daemon and of `others`.
    cpu: f64,
    /// Pictures that should have come and were not stored.
    missing: f64,
}

fn measure(daemon: &Daemon<'_>, others: &[Process]) -> Used {
    std::thread::sleep(WARM_UP);
    let cpu = || daemon.process().cpu_seconds() + others.iter().map(|p| p.cpu_seconds()).sum::<f64>();
    let (before, left_out) = (cpu(), dropped(daemon));
    let since = Instant::now();
    // A measurement, not a test: steady state has no event.
    std::thread::sleep(Duration::from_secs(WINDOW).saturating_sub(since.elapsed()));
    let used = cpu() - before;
    Used { cpu: used / (LENSES.len() as u64 * WINDOW) as f64, missing: dropped(daemon) - left_out }
}

/// Pictures that all lenses are missing so far: every one is accounted for by cause.
fn dropped(daemon: &Daemon<'_>) -> f64 {
    let health = daemon.client.get("/v1/health").ok();
    let of_lens =
        |lens: &Value| -> f64 { lens["dropped"].as_object().unwrap().values().filter_map(Value::as_f64).sum() };
    health["lenses"].as_array().unwrap().iter().map(of_lens).sum()
}

/// CPU seconds per lens and second of the peer.
fn ffmpeg() -> f64 {
    let folder = scratch("raw-ffmpeg");
    let start = |lens: &&str| -> Child {
        let mut command = Command::new("ffmpeg");
        command
            .args(["-nostdin", "-v", "error", "-re", "-f", "lavfi", "-i"])
            .arg(format!("testsrc2=s=1920x1080:r={FPS}"));
        command.args(["-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency"]);
        command.args(["-threads", "1", "-b:v", "4M", "-g", "30", "-f", "segment", "-segment_time", "10"]);
        command.arg(folder.join(format!("{lens}-%03d.mp4"))).stdin(Stdio::null()).spawn().unwrap()
    };
    let mut children: Vec<Child> = LENSES.iter().map(start).collect();
    std::thread::sleep(WARM_UP);
    let cpu = |children: &[Child]| children.iter().map(|c| Process(c.id()).cpu_seconds()).sum::<f64>();
    let before = cpu(&children);
    std::thread::sleep(Duration::from_secs(WINDOW));
    let used = cpu(&children) - before;
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    used / (LENSES.len() as u64 * WINDOW) as f64
}

/// Bytes per second that one core copies between buffers that no cache holds.
fn memcpy() -> f64 {
    let from = vec![1_u8; 256 << 20];
    let mut to = vec![0_u8; from.len()];
    to.copy_from_slice(&from);
    let since = Instant::now();
    to.copy_from_slice(std::hint::black_box(&from));
    let copied = std::hint::black_box(&to).len() as f64;
    copied / since.elapsed().as_secs_f64()
}
