//! Peers that break every rule, in threads and processes: what they do, not what becomes of it.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test uses its part")]

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mos_frame::wire::{Announce, FrameNote, Hello, Message, Welcome};
use mos_frame::{Picture, sys};
use nix::sys::signal::Signal;

use super::Process;

pub fn hello() -> Vec<u8> {
    Message::Hello(Hello { waiting: 1, leases: 2, max_rate: 0 }).encode().as_slice().to_vec()
}

pub fn release(index: u8, generation: u64) -> Vec<u8> {
    Message::Release { index, generation }.encode().as_slice().to_vec()
}

/// A connection, as soon as the publisher has room for one.
fn connected(socket: &Path) -> OwnedFd {
    loop {
        match sys::connect(socket) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
            connected => return connected.unwrap(),
        }
    }
}

/// A connection that has said hello and gets frames.
pub fn greeted(socket: &Path) -> OwnedFd {
    let peer = connected(socket);
    let _ = sys::send(peer.as_fd(), &hello(), &[], 0);
    peer
}

/// The next message; none if the connection is closed. Its descriptors are dropped.
pub fn next(peer: &OwnedFd) -> Option<Message> {
    assert!(
        sys::wait(&[peer.as_fd()], Some(Duration::from_mins(2))).unwrap(),
        "neither an answer nor a cut in two minutes"
    );
    let (mut room, mut fds) = ([0; 256], sys::Descriptors::new());
    match sys::receive(peer.as_fd(), &mut room, Some(&mut fds), 0) {
        Ok(got) if got.len > 0 => Some(Message::decode(&room[..got.len]).unwrap()),
        _ => None,
    }
}

/// The first frame that comes; none if there is no room for another peer.
pub fn frame(peer: &OwnedFd) -> Option<FrameNote> {
    loop {
        if let Message::Frame(note) = next(peer)? {
            return Some(note);
        }
    }
}

/// What to send after saying hello (or not), and that it is a violation.
pub fn violations() -> Vec<(bool, Vec<u8>)> {
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
pub fn break_rules(socket: &Path, over: &AtomicBool) {
    loop {
        for (after_hello, message) in violations() {
            let peer = if after_hello { greeted(socket) } else { connected(socket) };
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
pub fn cheat(socket: &Path, over: &AtomicBool) {
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
pub fn storm(socket: &Path, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        match sys::connect(socket) {
            Ok(peer) => drop(sys::send(peer.as_fd(), &hello(), &[], 0)),
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// Processes that are killed or stopped while they hold frames.
pub fn die(reader: &Path, socket: &Path, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let mut victim = Process::start(Command::new(reader).arg(socket).stderr(Stdio::null()));
        let mut line = String::new();
        BufReader::new(victim.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        victim.signal(Signal::SIGSTOP);
        victim.signal(Signal::SIGKILL);
    }
}
