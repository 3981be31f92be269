//! The processes of `bench bus`: `bus_peer ROLE SOCKET FPS`, where ROLE is `publish` or `subscribe` (the frame bus) or
//! `shmsink` or `shmsrc` (GStreamer's shared memory, without a copy where it can).
//!
//! Producers send a 1080p NV12 picture whose first 16 bytes are its number and its capture time, and paint nothing else:
//! what is measured is the transport. Readers look at these bytes, print `go` at their first frame, and when their standard input ends a line `number latency_ns` for each frame.

#![allow(clippy::unwrap_used, clippy::print_stdout, unsafe_code, reason = "a benchmark prints and fails by panicking")]

mod shm;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mos_frame::sys::{self, Mapping};
use mos_frame::{Frame, Lent, Memory, MemoryKind, Picture, Pixels, Publisher, Received, Settings, Subscriber, Wish};

const WIDTH: u32 = 1920;
const HEIGHT: u32 = 1080;
const SIZE: usize = (WIDTH * HEIGHT * 3 / 2) as usize;

/// The standard input has ended.
static STOP: AtomicBool = AtomicBool::new(false);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [role, socket, fps] = &args[..] else { panic!("bus_peer ROLE SOCKET FPS") };
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        STOP.store(true, Ordering::Relaxed);
    });
    let fps = fps.parse().unwrap();
    match role.as_str() {
        "publish" => publish(Path::new(socket), fps),
        "subscribe" => subscribe(Path::new(socket)),
        "shmsink" => shm::sink(socket, fps),
        "shmsrc" => shm::source(socket),
        _ => panic!("no role {role}"),
    }
}

/// Calls `frame` with each number at its time.
fn paced(fps: u32, mut frame: impl FnMut(u64)) {
    println!("go");
    let (start, interval) = (Instant::now(), Duration::from_secs(1) / fps);
    for number in 1.. {
        std::thread::sleep((start + interval * number).saturating_duration_since(Instant::now()));
        if STOP.load(Ordering::Relaxed) {
            return;
        }
        frame(u64::from(number));
    }
}

/// Number and capture time, as the first bytes of a picture.
fn stamp(number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..].copy_from_slice(&sys::monotonic().to_le_bytes());
    bytes
}

/// What a reader has seen.
#[derive(Default)]
struct Seen(Vec<(u64, u64)>);

impl Seen {
    fn frame(&mut self, number: u64, captured: u64) {
        if self.0.is_empty() {
            println!("go");
        }
        self.0.push((number, sys::monotonic().saturating_sub(captured)));
    }

    fn print(&self) {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        for (number, latency) in &self.0 {
            writeln!(out, "{number} {latency}").unwrap();
        }
    }
}

/// A buffer on loan. The pool is larger than what the bus may hold, so the camera goes round without asking.
struct Loan;

impl Lent for Loan {}

fn publish(socket: &Path, fps: u32) {
    let publisher = Publisher::open(Settings { max_peers: 40, ..Settings::new(socket.into()) }, None).unwrap();
    let pool: Vec<_> = (0..6)
        .map(|_| {
            let fd = sys::memory("bench", SIZE as u64).unwrap();
            let mapping = Mapping::new(fd.as_fd(), SIZE, true).unwrap();
            // SAFETY: the mapping is that long.
            unsafe { std::ptr::write_bytes(mapping.start(), 0, SIZE) };
            let memory = Memory { fd, size: SIZE as u64 };
            (publisher.add_buffer(MemoryKind::Memfd, vec![memory]).unwrap(), mapping)
        })
        .collect();
    let picture = Picture::nv12(WIDTH, HEIGHT, WIDTH);
    paced(fps, |sequence| {
        let (id, mapping) = &pool[sequence as usize % pool.len()];
        let stamp = stamp(sequence);
        // SAFETY: the mapping is longer than a stamp.
        unsafe { std::ptr::copy_nonoverlapping(stamp.as_ptr(), mapping.start(), stamp.len()) };
        let (captured, picture) = (u64::from_le_bytes(stamp[8..].try_into().unwrap()), picture.clone());
        publisher.publish(Frame { pixels: Pixels::Buffer(*id), sequence, captured, picture, hold: Loan });
    });
}

fn subscribe(socket: &Path) {
    let mut subscriber = Subscriber::connect(socket, Wish::default()).unwrap();
    let mut seen = Seen::default();
    // Ends with the producer, or with the standard input.
    while let Ok(received) = subscriber.next(None) {
        let Some(Received::Frame(frame)) = received else { continue };
        let bytes = subscriber.plane(&frame, 0).unwrap();
        // SAFETY: mapped as long as the subscriber lives, and longer than a stamp.
        let number = unsafe { bytes.cast::<u64>().read_unaligned() };
        if subscriber.is_intact(&frame) {
            assert_eq!(number, frame.sequence());
            seen.frame(number, frame.captured());
        }
        subscriber.release(frame).unwrap();
        if STOP.load(Ordering::Relaxed) {
            break;
        }
    }
    seen.print();
}
