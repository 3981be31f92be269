//! The publisher's books and the reader's check under the model checker `loom`, which tries every interleaving and every
//! order that the memory model allows (`make loom`).
//!
//! A camera with three buffers writes frame after frame into whichever is free; the bus may hold one, so that every frame is
//! taken back from the reader to make room for the next, and one may wait. The reader, which is the thread of the bus at the
//! same time, takes the lock, reads both halves of a frame without it, looks at the generation and returns its lease. Held: no
//! torn frame is reported good (B2), no buffer is lost (B3, L1), the camera always finds a free buffer (L2, H3).
//!
//! The hand-over alone, with the bell that wakes the thread of the bus, is tried with more frames (H2 to H4).

use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::generation::{self, Generations};
use crate::handover::Handover;
use crate::ledger::{Audience, Entry, Ledger, Pool, Post, Sent, Terms};
use crate::picture::Picture;
use crate::sync::{AtomicU64, Ordering};
use crate::wire::{Class, Encoded, FrameNote, Message, Reason};

const BUFFERS: usize = 3;
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

type Books = (Ledger<Loan, Arc<Memory>>, Socket);
type Bus = Arc<Handover<Books, (u64, Loan)>>;

/// As the publisher's state does it.
fn deliver((ledger, socket): &mut Books, (number, loan): (u64, Loan)) -> bool {
    let buffer = loan.0;
    assert!(ledger.make_room(Pool::Camera, buffer, socket));
    let generation = ledger.generation(buffer);
    let picture = Picture::nv12(2, 2, 2);
    let note = FrameNote { index: buffer, generation, sequence: number, captured: number, picture };
    let entry = Entry {
        pool: Pool::Camera,
        audience: Audience::All,
        buffer,
        captured: number,
        hold: Some(loan),
        message: Message::Frame(note).encode(),
    };
    ledger.publish(entry, false, number, socket);
    false
}

fn camera(memory: &Memory, bus: &Bus, free: &Arc<Mutex<Vec<u8>>>) {
    for number in 1..=FRAMES {
        let buffer = free.lock().unwrap().pop().expect("L2, H3: the camera finds a free buffer");
        for half in &memory.pixels[usize::from(buffer)] {
            half.store(number, Ordering::Relaxed);
        }
        bus.publish((number, Loan(buffer, free.clone())), deliver);
    }
}

/// What waits is delivered, as the thread of the bus does it.
fn enter<R>(bus: &Bus, then: impl FnOnce(&mut Books) -> R) -> R {
    let mut books = bus.lock();
    if let Some(frame) = bus.take() {
        deliver(&mut books, frame);
    }
    then(&mut books)
}

fn reader(memory: &Memory, bus: &Bus) {
    for _ in 0..3 {
        let note = enter(bus, |(_, socket)| if socket.0.is_empty() { None } else { Some(socket.0.remove(0)) });
        let Some(note) = note else {
            thread::yield_now();
            continue;
        };
        let buffer = usize::from(note.index);
        let seen = [0, 1].map(|half: usize| memory.pixels[buffer][half].load(Ordering::Relaxed));
        if generation::holds(&memory.generations[buffer], note.generation) {
            assert_eq!(seen, [note.sequence; 2], "B2: a torn frame was reported good");
        }
        let (ledger, socket) = &mut *bus.lock();
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
        let bus: Bus = Arc::new(Handover::new((ledger, Socket::default())));
        let reading = {
            let (memory, bus) = (memory.clone(), bus.clone());
            thread::spawn(move || reader(&memory, &bus))
        };
        camera(&memory, &bus, &free);
        reading.join().unwrap();
        enter(&bus, |(ledger, _)| ledger.dismiss(READER));
        let mut back = free.lock().unwrap().clone();
        back.sort_unstable();
        assert_eq!(back, [0, 1, 2], "B3: a buffer was lost");
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

/// A frame of the hand-over alone; its drop gives it back.
struct Token(u64, Arc<AtomicU64>);

impl Drop for Token {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn every_frame_is_delivered_once_or_given_back_and_none_is_forgotten() {
    let mut checker = loom::model::Builder::new();
    checker.preemption_bound = Some(4);
    checker.check(|| {
        // The kernel keeps the bell, which orders what is done before ringing before what is done after hushing.
        let (back, bell) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(false)));
        // What the thread of the bus does while it holds the lock; the checker switches threads only where they meet.
        let work = Arc::new(AtomicU64::new(0));
        let hand: Arc<Handover<Vec<u64>, Token>> = Arc::new(Handover::new(Vec::new()));
        let put = |delivered: &mut Vec<u64>, token: Token| {
            delivered.push(token.0);
            false
        };
        let bus = {
            let (hand, bell, work) = (hand.clone(), bell.clone(), work.clone());
            // Asleep until the bell rings; it may be at work for another reason, as at first.
            thread::spawn(move || {
                for round in 0..2 {
                    let rung = std::mem::take(&mut *bell.lock().unwrap());
                    if !rung && round > 0 {
                        break;
                    }
                    let mut delivered = hand.lock();
                    work.fetch_add(1, Ordering::Relaxed);
                    if let Some(token) = hand.take() {
                        put(&mut delivered, token);
                    }
                    work.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        for number in 1..=FRAMES {
            work.load(Ordering::Relaxed);
            if hand.publish(Token(number, back.clone()), put) {
                *bell.lock().unwrap() = true;
            }
        }
        bus.join().unwrap();
        let waits = hand.take();
        assert!(waits.is_none() || *bell.lock().unwrap(), "H4: a frame waits and nobody knows");
        let delivered = hand.lock().clone();
        assert!(delivered.windows(2).all(|pair| pair[0] < pair[1]), "H2: {delivered:?}");
        let all = delivered.len() as u64 + hand.overtaken() + u64::from(waits.is_some());
        assert_eq!(all, FRAMES, "H2: delivered, overtaken or waiting");
        drop(waits);
        assert_eq!(back.load(Ordering::Relaxed), FRAMES, "H2: given back");
    });
}
