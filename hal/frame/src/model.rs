//! The publisher's books and the reader's check under the model checker `loom`, which tries every interleaving and every
//! order that the memory model allows (`make loom`).
//!
//! A camera with two buffers writes frame after frame into whichever is free; the bus may hold one, so that every frame is
//! taken back from the reader to make room for the next. The reader reads both halves of a frame, looks at the generation
//! and returns its lease. Held: no torn frame is reported good (B2), no buffer is lost (B3, L1), the camera always finds a
//! free buffer (L2).

use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::generation::{self, Generations};
use crate::ledger::{Audience, Entry, Ledger, Pool, Post, Sent, Terms};
use crate::picture::Picture;
use crate::sync::{AtomicU64, Ordering};
use crate::wire::{Class, Encoded, FrameNote, Message, Reason};

const BUFFERS: usize = 2;
const FRAMES: u64 = 4;
const READER: u8 = 0;

/// What both sides see: generations, and pixels in two halves.
struct Memory {
    generations: [AtomicU64; BUFFERS],
    pixels: [[AtomicU64; 2]; BUFFERS],
    /// Whether the fence of G1 is there; the model must notice if it is not.
    fenced: bool,
}

impl Generations for Arc<Memory> {
    fn current(&self, buffer: u8) -> u64 {
        self.generations[usize::from(buffer)].load(Ordering::Relaxed)
    }

    fn raise(&self, buffer: u8) {
        let cell = &self.generations[usize::from(buffer)];
        if self.fenced {
            generation::raise(cell);
        } else {
            cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }
}

/// The socket to the reader.
#[derive(Default)]
struct Socket(Vec<FrameNote>);

impl Post for Socket {
    fn frame(&mut self, _: u8, _: u8, message: &Encoded) -> Sent {
        match Message::decode(message.as_slice()) {
            Ok(Message::Frame(note)) => self.0.push(note),
            other => panic!("a frame, not {other:?}"),
        }
        Sent::Done
    }

    fn revoked(&mut self, _: u8, _: u8, _: u64, _: Reason) -> Sent {
        Sent::Done
    }
}

/// A buffer on loan to the bus.
struct Loan(u8, Arc<Mutex<Vec<u8>>>);

impl Drop for Loan {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(self.0);
    }
}

type Bus = Arc<Mutex<(Ledger<Loan, Arc<Memory>>, Socket)>>;

fn camera(memory: &Memory, bus: &Bus, free: &Arc<Mutex<Vec<u8>>>) {
    for number in 1..=FRAMES {
        let buffer = free.lock().unwrap().pop().expect("L2: the camera finds a free buffer");
        for half in &memory.pixels[usize::from(buffer)] {
            half.store(number, Ordering::Relaxed);
        }
        let mut bus = bus.lock().unwrap();
        let (ledger, socket) = &mut *bus;
        assert!(ledger.make_room(Pool::Camera, buffer, socket));
        let generation = ledger.generation(buffer);
        let picture = Picture::nv12(2, 2, 2);
        let note = FrameNote { index: buffer, generation, sequence: number, captured: number, picture };
        let entry = Entry {
            pool: Pool::Camera,
            audience: Audience::All,
            buffer,
            captured: number,
            hold: Some(Loan(buffer, free.clone())),
            message: Message::Frame(note).encode(),
        };
        ledger.publish(entry, false, number, socket);
    }
}

fn reader(memory: &Memory, bus: &Bus) {
    for _ in 0..3 {
        let note = {
            let (_, socket) = &mut *bus.lock().unwrap();
            if socket.0.is_empty() { None } else { Some(socket.0.remove(0)) }
        };
        let Some(note) = note else {
            thread::yield_now();
            continue;
        };
        let buffer = usize::from(note.index);
        let seen = [0, 1].map(|half: usize| memory.pixels[buffer][half].load(Ordering::Relaxed));
        if generation::holds(&memory.generations[buffer], note.generation) {
            assert_eq!(seen, [note.sequence; 2], "B2: a torn frame was reported good");
        }
        let (ledger, socket) = &mut *bus.lock().unwrap();
        assert_eq!(ledger.release(READER, note.index, note.generation, note.sequence, socket), Ok(()));
    }
}

fn model(fenced: bool) {
    let mut checker = loom::model::Builder::new();
    checker.preemption_bound = Some(3);
    checker.check(move || {
        let cells = || std::array::from_fn(|_| AtomicU64::new(0));
        let pixels = std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0)));
        let memory = Arc::new(Memory { generations: cells(), pixels, fenced });
        let free = Arc::new(Mutex::new((0..BUFFERS as u8).collect::<Vec<_>>()));
        let mut ledger = Ledger::new(memory.clone(), [1, 1], u64::MAX);
        ledger.admit(READER, Terms { class: Class::Trusted, waiting: 1, leases: 2, interval: 0 });
        let bus: Bus = Arc::new(Mutex::new((ledger, Socket::default())));
        let reading = {
            let (memory, bus) = (memory.clone(), bus.clone());
            thread::spawn(move || reader(&memory, &bus))
        };
        camera(&memory, &bus, &free);
        reading.join().unwrap();
        bus.lock().unwrap().0.dismiss(READER);
        let mut back = free.lock().unwrap().clone();
        back.sort_unstable();
        assert_eq!(back, [0, 1], "B3: a buffer was lost");
    });
}

#[test]
fn no_torn_frame_is_good_and_no_buffer_is_lost() {
    model(true);
}

#[test]
#[should_panic(expected = "a torn frame was reported good")]
fn the_model_notices_a_missing_fence() {
    model(false);
}
