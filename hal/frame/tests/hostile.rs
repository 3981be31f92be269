//! B4, B5: 32 peers of which half are hostile. The camera never lacks a buffer, good readers get their frames, memory and
//! descriptors stay bounded, and whoever breaks the protocol is cut.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Camera, Process, distrusting, example, settings, wait_for};
use mos_frame::wire::{Announce, FrameNote, Hello, Message, Welcome};
use mos_frame::{Picture, Settings, sys};
use nix::sys::signal::Signal;

const GOOD: usize = 16;
/// Frames that every good reader must get.
const COUNT: u64 = 300;

fn hello() -> Vec<u8> {
    Message::Hello(Hello { waiting: 1, leases: 2, max_rate: 0 }).encode().as_slice().to_vec()
}

fn release(index: u8, generation: u64) -> Vec<u8> {
    Message::Release { index, generation }.encode().as_slice().to_vec()
}

/// A connection that has said hello and gets frames.
fn greeted(socket: &Path) -> OwnedFd {
    let peer = sys::connect(socket).unwrap();
    let _ = sys::send(peer.as_fd(), &hello(), &[], 0);
    peer
}

/// The next message; none if the connection is closed. Its descriptors are dropped.
fn next(peer: &OwnedFd) -> Option<Message> {
    assert!(sys::wait(&[peer.as_fd()], Some(Duration::from_secs(30))).unwrap(), "neither an answer nor a cut in 30 s");
    let (mut room, mut fds) = ([0; 256], sys::Descriptors::new());
    match sys::receive(peer.as_fd(), &mut room, Some(&mut fds), 0) {
        Ok(got) if got.len > 0 => Some(Message::decode(&room[..got.len]).unwrap()),
        _ => None,
    }
}

/// The first frame that comes; none if there is no room for another peer.
fn frame(peer: &OwnedFd) -> Option<FrameNote> {
    loop {
        if let Message::Frame(note) = next(peer)? {
            return Some(note);
        }
    }
}

/// What to send after saying hello (or not), and that it is a violation.
fn violations() -> Vec<(bool, Vec<u8>)> {
    let goodbye = Message::Goodbye(mos_frame::wire::Farewell::Leaving).encode().as_slice().to_vec();
    let with = |at: usize, byte: u8, mut message: Vec<u8>| {
        message[at] = byte;
        message
    };
    let class = mos_frame::wire::Class::Trusted;
    let welcome = Message::Welcome(Welcome { waiting: 1, leases: 1, class, lease_ms: 1 }).encode();
    let announce = Announce { index: 0, memories: 1, dmabuf: false, sizes: [4096, 0, 0, 0] };
    let picture = Picture::nv12(2, 2, 2);
    let note = Message::Frame(FrameNote { index: 0, generation: 0, sequence: 0, captured: 0, picture });
    vec![
        (false, vec![0xff; 64]),                                          // not a message
        (false, vec![1]),                                                 // one byte
        (false, hello()[..31].to_vec()),                                  // a cut hello
        (false, [hello(), vec![0]].concat()),                             // a long hello
        (false, vec![1; 60_000]),                                         // an oversized message
        (false, with(2, 9, hello())),                                     // another version
        (false, with(8, 0, hello())),                                     // another magic
        (false, with(16, 0, hello())),                                    // no waiting frames
        (false, with(28, 1, hello())),                                    // reserved bytes
        (false, release(0, 0)),                                           // a release before hello
        (true, hello()),                                                  // a second hello
        (true, release(63, 77)),                                          // a release of nothing
        (true, with(8, 64, release(0, 0))),                               // an index out of range
        (true, welcome.as_slice().to_vec()),                              // a welcome
        (true, Message::Announce(announce).encode().as_slice().to_vec()), // an announce
        (true, note.encode().as_slice().to_vec()),                        // a frame
        (true, with(0, 200, goodbye)),                                    // an unknown type
    ]
}

/// Each violation in turn, until the test is over: every one must end in a cut.
fn break_rules(socket: &Path, over: &AtomicBool) {
    loop {
        for (after_hello, message) in violations() {
            let peer = if after_hello { greeted(socket) } else { sys::connect(socket).unwrap() };
            // It may have been turned away already, for want of room.
            if sys::send(peer.as_fd(), &message, &[], 0).is_ok() {
                while next(&peer).is_some() {}
            }
            if over.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

/// Returns a frame twice; sends descriptors along; both must end in a cut.
fn cheat(socket: &Path, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let peer = greeted(socket);
        let Some(note) = frame(&peer) else { continue };
        for _ in 0..2 {
            let _ = sys::send(peer.as_fd(), &release(note.index, note.generation), &[], 0);
        }
        while next(&peer).is_some() {}
        let file = std::fs::File::open("/dev/null").unwrap();
        let peer = greeted(socket);
        let Some(note) = frame(&peer) else { continue };
        let _ = sys::send(peer.as_fd(), &release(note.index, note.generation), &[file.as_fd(); 4], 0);
        while next(&peer).is_some() {}
    }
}

/// Comes and goes.
fn storm(socket: &Path, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        if let Ok(peer) = sys::connect(socket) {
            let _ = sys::send(peer.as_fd(), &hello(), &[], 0);
        }
    }
}

/// Processes that are killed or stopped while they hold frames.
fn die(socket: &Path, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let mut victim = Process::start(Command::new(example("subscriber")).arg(socket));
        let mut line = String::new();
        BufReader::new(victim.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        victim.signal(Signal::SIGSTOP);
        victim.signal(Signal::SIGKILL);
    }
}

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
    // One buffer more than the bus may hold, and one that the camera is writing.
    let mut camera = Camera::open(settings.clone(), settings.lease_budget + 1);
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
    std::thread::scope(|scope| {
        let _end = End(&over);
        let mut good: Vec<Process> = (0..GOOD)
            .map(|_| Process::start(Command::new(example("subscriber")).arg(&socket).arg(COUNT.to_string())))
            .collect();
        let lines = good.iter_mut().map(|process| process.0.stdout.take().unwrap());
        let readers: Vec<_> = lines.map(|out| scope.spawn(|| BufReader::new(out).lines().count() as u64)).collect();
        camera.await_peers(GOOD);

        // Four that never read, two that are stopped, and ten more.
        let deaf: Vec<OwnedFd> = (0..4).map(|_| greeted(&socket)).collect();
        let stopped: Vec<Process> =
            (0..2).map(|_| Process::start(Command::new(example("subscriber")).arg(&socket))).collect();
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
        let hostile = [break_rules, break_rules, break_rules, cheat, cheat, storm, die, die].map(|hostile| {
            let (socket, over) = (&socket, &over);
            scope.spawn(move || hostile(socket, over))
        });

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
    assert_eq!(camera.publisher.totals().refused, 0);
}

#[test]
fn half_of_32_peers_are_hostile() {
    let (_folder, settings) = settings();
    siege(settings);
    let (_folder, settings) = distrusting();
    siege(settings);
}
