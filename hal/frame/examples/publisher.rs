//! Publishes NV12 frames of which every byte holds the number of the frame: `publisher SOCKET [FPS] [WIDTH HEIGHT]`.
//!
//! Runs until its standard input ends. What a camera's driver would do stands here in the place of the camera: a pool of
//! buffers, each painted only when it has come back.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example prints and fails by panicking")]

use std::io::Read;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use mos_frame::sys::{self, Mapping};
use mos_frame::{Frame, Lent, Memory, MemoryKind, Picture, Pixels, Publisher, Settings};

/// A buffer on loan; its drop brings it back to the pool.
struct Loan(usize, Sender<usize>);

impl Lent for Loan {}

impl Drop for Loan {
    fn drop(&mut self) {
        let _ = self.1.send(self.0);
    }
}

/// The standard input has ended.
static STOP: AtomicBool = AtomicBool::new(false);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default| args.get(at).map_or(default, |text| text.parse().unwrap());
    let (fps, width, height): (u32, u32, u32) = (number(1, 30), number(2, 320), number(3, 240));
    let socket = args.first().expect("publisher SOCKET [FPS] [WIDTH HEIGHT]");
    let publisher = Publisher::open(Settings::new(socket.into()), None).unwrap();
    let picture = Picture::nv12(width, height, width);
    let size = u64::from(width) * u64::from(height) * 3 / 2;
    let (back, free) = channel();
    let pool: Vec<_> = (0..6)
        .map(|buffer| {
            let fd = sys::memory("example", size).unwrap();
            let mapping = Mapping::new(fd.as_fd(), size as usize, true).unwrap();
            let id = publisher.add_buffer(MemoryKind::Memfd, vec![Memory { fd, size }]).unwrap();
            back.send(buffer).unwrap();
            (id, mapping)
        })
        .collect();
    println!("publishing at {socket}");

    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        STOP.store(true, Ordering::Relaxed);
    });
    let (start, interval) = (Instant::now(), Duration::from_secs(1) / fps);
    for sequence in 1u64.. {
        let due = start + interval * sequence as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if STOP.load(Ordering::Relaxed) {
            break;
        }
        // There are more buffers than the bus may hold, so one is always free.
        let buffer = free.recv().unwrap();
        let (id, mapping) = &pool[buffer];
        // SAFETY: the buffer is back, and the mapping is that long.
        unsafe { std::ptr::write_bytes(mapping.start(), sequence as u8, mapping.len()) };
        let (captured, hold) = (sys::monotonic(), Loan(buffer, back.clone()));
        publisher.publish(Frame { pixels: Pixels::Buffer(*id), sequence, captured, picture: picture.clone(), hold });
    }
    println!("{:?}", publisher.totals());
}
