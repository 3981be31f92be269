//! The processes of `bench bus`: `bus_peer ROLE SOCKET FPS`, where ROLE is `publish` or `subscribe` (the frame bus),
//! `shmsink` or `shmsrc` (GStreamer's shared memory, without a copy where it can), or `bare` or `listen` (a message to each
//! reader and nothing else: the floor under every transport).
//!
//! Producers send a 1080p NV12 picture whose first 16 bytes are its number and its capture time, and paint nothing else:
//! what is measured is the transport. Readers look at these bytes, print `go` at their first frame, and when their standard
//! input ends a line `number latency_ns` for each frame. `publish` tells at its end for how many frames no buffer was free.

#![allow(clippy::unwrap_used, clippy::print_stdout, unsafe_code, reason = "a benchmark prints and fails by panicking")]

mod shm;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mos_frame::sys::{self, Mapping};
use mos_frame::{
    Frame, HANDOVER, Lent, Memory, MemoryKind, Picture, Pixels, Publisher, Received, Settings, Subscriber, Wish,
};

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
        "bare" => bare(Path::new(socket), fps),
        "listen" => listen(Path::new(socket)),
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

/// A buffer on loan: its drop sets its bit among those that are free.
struct Loan(usize, Arc<AtomicU64>);

impl Lent for Loan {}

impl Drop for Loan {
    fn drop(&mut self) {
        self.1.fetch_or(1 << self.0, Ordering::Release);
    }
}

fn publish(socket: &Path, fps: u32) {
    let settings = Settings { max_peers: 40, ..Settings::new(socket.into()) };
    // As a camera has them: what the bus may hold, and the one that is being written.
    let buffers = settings.lease_budget + HANDOVER + 1;
    let publisher = Publisher::open(settings, None).unwrap();
    let pool: Vec<_> = (0..buffers)
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
    let free = Arc::new(AtomicU64::new((1 << buffers) - 1));
    let mut starved = 0;
    paced(fps, |sequence| {
        let buffer = free.load(Ordering::Acquire).trailing_zeros() as usize;
        let Some((id, mapping)) = pool.get(buffer) else {
            starved += 1;
            return;
        };
        free.fetch_and(!(1 << buffer), Ordering::Relaxed);
        let stamp = stamp(sequence);
        // SAFETY: the mapping is longer than a stamp, and the buffer is back.
        unsafe { std::ptr::copy_nonoverlapping(stamp.as_ptr(), mapping.start(), stamp.len()) };
        let (captured, picture) = (u64::from_le_bytes(stamp[8..].try_into().unwrap()), picture.clone());
        let hold = Loan(buffer, Arc::clone(&free));
        publisher.publish(Frame { pixels: Pixels::Buffer(*id), sequence, captured, picture, hold });
    });
    println!("{starved}");
}

/// A message of the bus' size to whoever has connected.
fn bare(socket: &Path, fps: u32) {
    let listener = sys::listen(socket, 0o600, 64).unwrap();
    let mut peers = Vec::new();
    paced(fps, |number| {
        while let Ok(peer) = sys::accept(listener.as_fd()) {
            peers.push(peer);
        }
        let mut message = [0; 128];
        message[..16].copy_from_slice(&stamp(number));
        for peer in &peers {
            let _ = sys::send(peer.as_fd(), &message, &[], libc::MSG_DONTWAIT);
        }
    });
}

fn listen(socket: &Path) {
    let socket = sys::connect(socket).unwrap();
    let (mut seen, mut room) = (Seen::default(), [0; 128]);
    while !STOP.load(Ordering::Relaxed) && sys::receive(socket.as_fd(), &mut room, None, 0).is_ok_and(|got| got.len > 0)
    {
        let number = |at: usize| u64::from_le_bytes(room[at..at + 8].try_into().unwrap());
        seen.frame(number(0), number(8));
    }
    seen.print();
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
