//! What waits in a worker for the recorder to read it.
//!
//! Promises (P2) that nothing is left out of the middle: when more than [`LIMIT`] waits, the source is over, the reason is the
//! last message, and what waited before it still goes out.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::wire::{self, End, Message};

/// Most bytes that wait: seconds of any camera.
const LIMIT: usize = 48 << 20;
/// What a message costs beside its bytes.
const OVERHEAD: usize = 128;

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<(Vec<u8>, Bytes)>,
    bytes: usize,
    over: bool,
}

impl Queue {
    /// Takes a message; after the last one ([`Message::Ended`]) nothing more. Whether it was taken.
    pub(super) fn push(&self, message: &Message) -> bool {
        let mut state = self.lock();
        if state.over {
            return false;
        }
        let (head, tail) = wire::write(message);
        if tail.len() >= wire::LONGEST - OVERHEAD {
            state.end(&format!("an access unit of {} bytes is more than a worker hands over", tail.len()));
        } else if state.bytes + head.len() + tail.len() + OVERHEAD > LIMIT {
            state.end("the recorder did not take what the camera delivered");
        } else {
            state.over = matches!(message, Message::Ended(..));
            state.put(head, tail);
        }
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Writes what comes until the last message is out or nobody reads.
    pub(super) fn drain(&self, mut to: impl Write) -> io::Result<()> {
        loop {
            let mut state = self.lock();
            while state.messages.is_empty() {
                if state.over {
                    return Ok(());
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let Some((head, tail)) = state.messages.pop_front() else { continue };
            // Counted until it is written: else a message that cannot be written would make room for another.
            drop(state);
            write_both(&mut to, &head, &tail)?;
            self.lock().bytes -= head.len() + tail.len() + OVERHEAD;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, head: Vec<u8>, tail: Bytes) {
        self.bytes += head.len() + tail.len() + OVERHEAD;
        self.messages.push_back((head, tail));
    }

    fn end(&mut self, why: &str) {
        self.over = true;
        let (head, tail) = wire::write(&Message::Ended(End::Broken, why.to_owned()));
        self.put(head, tail);
    }
}

/// Head and data in one call where the system takes them at once.
fn write_both(to: &mut impl Write, head: &[u8], tail: &[u8]) -> io::Result<()> {
    let written = to.write_vectored(&[IoSlice::new(head), IoSlice::new(tail)])?;
    if written < head.len() {
        to.write_all(&head[written..])?;
        return to.write_all(tail);
    }
    to.write_all(&tail[written - head.len()..])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mos_hal::clock::Mono;
    use mos_hal::media::FrameKind;

    use super::super::wire::Unit;
    use super::*;

    #[test]
    fn p2_a_recorder_that_does_not_read_ends_the_source_with_a_cause_and_nothing_is_missing_before() {
        let queue = Queue::default();
        let unit = |n: u64| {
            Message::Unit(Unit {
                kind: FrameKind::Delta,
                pts: None,
                duration: Some(n),
                arrival: Mono(0),
                discontinuity: false,
                data: vec![0; 1 << 20].into(),
            })
        };
        for n in 0..100 {
            queue.push(&unit(n));
        }
        let mut sent = Vec::new();
        queue.drain(&mut sent).unwrap();
        let mut rest = sent.as_slice();
        let mut count = 0;
        let end = loop {
            match wire::read(&mut rest).unwrap().unwrap().unwrap() {
                Message::Unit(unit) => {
                    assert_eq!(unit.duration, Some(count));
                    count += 1;
                }
                other => break other,
            }
        };
        assert!((40..48).contains(&count), "{count}");
        assert!(matches!(end, Message::Ended(End::Broken, why) if why.contains("did not take")));
        assert!(rest.is_empty());
    }
}
