//! B4, B5: 32 peers of which half are hostile. The camera never lacks a buffer, good readers get their frames, memory and
//! descriptors stay bounded, and whoever breaks the protocol is cut.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::hostile::{break_rules, cheat, die, frame, greeted, storm};
use common::{Camera, Process, distrusting, example, settings, wait_for};
use mos_frame::{HANDOVER, Settings};
use nix::sys::signal::Signal;

const GOOD: usize = 16;
/// Frames that every good reader must get.
const COUNT: u64 = 300;

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// KiB of memory that is this process' own.
fn own_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Ends the hostile threads also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn siege(settings: Settings) {
    let socket = settings.socket.clone();
    let settings = Settings { lease_time: Duration::from_millis(200), max_others: 32, ..settings };
    // What the bus may hold, and the one that the camera is writing.
    let mut camera = Camera::open(settings.clone(), settings.lease_budget + HANDOVER + 1);
    // The memory for copies is there before anything is counted.
    let first = greeted(&socket);
    camera.await_peers(1);
    camera.shoot();
    assert!(frame(&first).is_some());
    drop(first);
    camera.await_peers(0);
    let descriptors = open_descriptors();
    let memory = own_memory();

    let over = AtomicBool::new(false);
    let reader = example("subscriber");
    std::thread::scope(|scope| {
        let _end = End(&over);
        let mut good: Vec<Process> =
            (0..GOOD).map(|_| Process::start(Command::new(&reader).arg(&socket).arg(COUNT.to_string()))).collect();
        let lines = good.iter_mut().map(|process| process.0.stdout.take().unwrap());
        let readers: Vec<_> = lines.map(|out| scope.spawn(|| BufReader::new(out).lines().count() as u64)).collect();
        camera.await_peers(GOOD);

        // Four that never read, two that are stopped, and ten more.
        let deaf: Vec<OwnedFd> = (0..4).map(|_| greeted(&socket)).collect();
        let stopped: Vec<Process> = (0..2).map(|_| Process::start(Command::new(&reader).arg(&socket))).collect();
        let pids: Vec<i32> = stopped.iter().map(|process| process.0.id().cast_signed()).collect();
        camera.await_peers(GOOD + 6);
        let begun = |camera: &Camera| {
            let reports = camera.publisher.reports();
            pids.iter().all(|pid| reports.iter().any(|report| report.pid == *pid && report.delivered > 0))
        };
        wait_for("frames at the readers that will be stopped", || {
            camera.shoot();
            begun(&camera)
        });
        for process in &stopped {
            process.signal(Signal::SIGSTOP);
        }
        let (socket, over, reader) = (&socket, &over, &reader);
        let in_threads = [break_rules, break_rules, break_rules, cheat, cheat, storm];
        let mut hostile: Vec<_> = in_threads.map(|hostile| scope.spawn(move || hostile(socket, over))).into();
        hostile.extend((0..2).map(|_| scope.spawn(move || die(reader, socket, over))));

        // `shoot` panics if the camera lacks a buffer.
        let mut cut = 0;
        while !readers.iter().all(std::thread::ScopedJoinHandle::is_finished) || cut < 50 {
            camera.shoot();
            cut = camera.publisher.totals().cut;
            std::thread::sleep(Duration::from_millis(4));
        }
        let reports = camera.publisher.reports();
        for report in reports.iter().filter(|report| pids.contains(&report.pid)) {
            // Starved: it was given what it may hold, and nothing since.
            assert!(report.leased <= 3 && report.revoked > 0, "{report:?}");
        }
        assert!(own_memory() < memory + 16 * 1024, "memory grew from {memory} KiB to {} KiB", own_memory());
        over.store(true, Ordering::Relaxed);
        // Whoever waits for a frame or a cut gets one.
        while !hostile.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            camera.shoot();
            std::thread::sleep(Duration::from_millis(4));
        }
        for reader in readers {
            assert_eq!(reader.join().unwrap(), COUNT);
        }
        for mut process in good {
            assert!(process.0.wait().unwrap().success(), "a good reader was cut");
        }
        drop((deaf, stopped));
    });
    camera.await_peers(0);
    camera.all_back();
    wait_for("all descriptors to be closed", || open_descriptors() == descriptors);
    let totals = camera.publisher.totals();
    assert_eq!(totals.refused - totals.overtaken, 0, "{totals:?}");
}

#[test]
fn half_of_32_peers_are_hostile() {
    let (_folder, settings) = settings();
    siege(settings);
    let (_folder, settings) = distrusting();
    siege(settings);
}
