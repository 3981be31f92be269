//! A test camera: gst-rtsp-server that loops coded files with continuous timestamps, at the pace of a real camera.
//!
//! `rtsp_camera [--port N] [--user U --password P] [--log FILE] [--slow MS] [--protocols tcp|udp] [--wraps] [--address IP] [--certificate PEM --key PEM] FILE[+FILE]…` serves each FILE as `/0`, `/1`… on loopback or at that address, with
//! Digest authentication if a user is given, and prints `port N` when it listens. The camera's time begins when the program
//! starts and goes on whether anybody watches or not, so a client joins wherever the picture happens to be. Each access
//! unit that was sent is appended to the log as `mount number capture_ns bytes sent_ns` (`number` counts displayed frames since
//! the start of the camera, times are CLOCK_MONOTONIC). With `--slow` it takes its time over PLAY while pictures gather, with `--wraps`
//! RTP times begin shortly before they wrap round, with a certificate it speaks TLS. Standard input takes orders (`tamper.rs`):
//! `stall` and `go` for all, `0 stall`, `0 lose 2`… for
//! one mount; at its end the camera dies.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test rig fails by panicking")]

mod footage;
mod serve;
mod tamper;

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gstreamer as gst;

/// What the command line asked for.
struct Wanted {
    port: u16,
    login: Option<(String, String)>,
    log: Option<PathBuf>,
    slow: Duration,
    protocols: String,
    wraps: bool,
    address: Option<String>,
    /// Files of certificate and key.
    tls: Option<(PathBuf, PathBuf)>,
    /// Each with all codings of one scene, joined by `+`.
    files: Vec<String>,
}

fn wanted() -> Wanted {
    let mut wanted = Wanted {
        port: 0,
        login: None,
        log: None,
        slow: Duration::ZERO,
        protocols: "tcp".into(),
        wraps: false,
        address: None,
        tls: None,
        files: Vec::new(),
    };
    let (mut user, mut password, mut certificate, mut key) = (None, None, None, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} wants a value"));
        match arg.as_str() {
            "--port" => wanted.port = value().parse().expect("--port wants a number"),
            "--user" => user = Some(value()),
            "--password" => password = Some(value()),
            "--slow" => wanted.slow = Duration::from_millis(value().parse().expect("--slow wants milliseconds")),
            "--protocols" => wanted.protocols = value(),
            "--certificate" => certificate = Some(value().into()),
            "--key" => key = Some(value().into()),
            "--wraps" => wanted.wraps = true,
            "--address" => wanted.address = Some(value()),
            "--log" => wanted.log = Some(value().into()),
            _ => wanted.files.push(arg),
        }
    }
    wanted.login = user.zip(password);
    wanted.tls = certificate.zip(key);
    assert!(!wanted.files.is_empty(), "usage: rtsp_camera [--port N] [--user U --password P] [--log FILE] FILE…");
    wanted
}

fn main() {
    let wanted = wanted();
    gst::init().expect("GStreamer starts");
    let mut loaded: Vec<(&str, Arc<footage::Footage>)> = Vec::new();
    let mut load = |file| {
        if !loaded.iter().any(|known| known.0 == file) {
            loaded.push((file, Arc::new(footage::load(Path::new(file)))));
        }
        loaded.iter().find(|known| known.0 == file).expect("it was loaded").1.clone()
    };
    let footage: Vec<Vec<_>> = wanted.files.iter().map(|codings| codings.split('+').map(&mut load).collect()).collect();
    let camera = Arc::new(serve::Camera::new(&wanted));
    let (main_loop, port) = serve::start(&wanted, footage, &camera);
    println!("port {port}");
    std::io::stdout().flush().expect("the starter reads the port");
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let mut words = line.split(' ');
            let first = words.next().unwrap_or_default();
            match first.parse::<usize>() {
                Ok(mount) => {
                    camera.orders[mount].follow(words.next().unwrap(), words.next().map(|n| n.parse().unwrap()));
                }
                Err(_) => camera.orders.iter().for_each(|orders| orders.follow(first, None)),
            }
        }
        std::process::exit(0);
    });
    main_loop.run();
}
