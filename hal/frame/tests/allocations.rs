//! B1: a frame costs no allocation, neither where it is published nor in the thread of the bus nor at its reader.
//!
//! A test binary of its own, because it counts the allocations of the whole process.
#![allow(clippy::unwrap_used, unsafe_code)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{distrusting, settings, wait_for};
use mos_frame::{
    Frame, Lent, Memory, MemoryKind, Picture, Pixels, Publisher, Received, Settings, Subscriber, Wish, sys,
};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: passes every call on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Loan;

impl Lent for Loan {}

fn count(settings: Settings) {
    let socket = settings.socket.clone();
    let publisher = Publisher::open(settings, None).unwrap();
    let picture = Picture::nv12(64, 64, 64);
    let buffers: Vec<_> = (0..6)
        .map(|_| {
            let fd: OwnedFd = sys::memory("camera", 6144).unwrap();
            publisher.add_buffer(MemoryKind::Memfd, vec![Memory { fd, size: 6144 }]).unwrap()
        })
        .collect();
    let mut subscriber = Subscriber::connect(&socket, Wish::default()).unwrap();
    wait_for("hello", || publisher.reports().len() == 1);
    let mut luma = Vec::with_capacity(8192);
    let (mut allocations, mut got) = (0, 0);
    for sequence in 0..10_000 {
        // A busy machine may need more rounds.
        if sequence >= 300 && got >= 150 {
            break;
        }
        // Every buffer is known to everybody after the first rounds.
        if sequence == 50 {
            allocations = ALLOCATIONS.load(Ordering::Relaxed);
        }
        let pixels = Pixels::Buffer(buffers[sequence as usize % buffers.len()]);
        let (captured, picture) = (sys::monotonic(), picture.clone());
        publisher.publish(Frame { pixels, sequence, captured, picture, hold: Loan });
        // A frame for which no copy is free, since the last ones are still on their way back, is nobody's.
        let Some(received) = subscriber.next(Some(Duration::from_millis(20))).unwrap() else { continue };
        let Received::Frame(frame) = received else { panic!("{received:?}") };
        got += 1;
        assert!(subscriber.copy_plane(&frame, 0, &mut luma).unwrap());
        subscriber.release(frame).unwrap();
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - allocations, 0, "allocations for 250 frames and more");
    assert!(got >= 150, "{got} frames came");
}

#[test]
fn b1_a_frame_costs_no_allocation() {
    let (_folder, settings) = settings();
    count(settings);
    let (_folder, settings) = distrusting();
    count(settings);
}
