//! Codes one of so many pictures only, when the machine is too hot or its encoder too weak for all ([`UnitSink::one_in`]).
//!
//! Promises that a change takes effect with the next picture, without a pause; that keyframes keep their distance in time;
//! and that a lens takes a larger part of the encoder only if it gets it: until then it goes on with fewer pictures. What is
//! left out was not wanted, so it is no gap. Encoders are told of one frame rate and spread their bits over pictures, so the
//! bitrate falls as the rate does. Holds no picture.
//!
//! [`UnitSink::one_in`]: crate::source::UnitSink::one_in

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Pictures after which a part of the encoder that was refused is asked for again.
const AGAIN: u32 = 30;

/// Whether the encoder has room for one of so many pictures.
type Afford = Box<dyn Fn(u32) -> bool + Send + Sync>;

pub(super) struct Thinner {
    /// Pictures from keyframe to keyframe when all are coded.
    gop: u32,
    afford: Afford,
    state: Mutex<State>,
}

struct State {
    one_in: u32,
    /// Pictures until the next one that is coded.
    skip: u32,
    /// Coded pictures until a keyframe is to be asked for.
    key: u32,
    /// Pictures until a larger part is asked for again.
    refused: u32,
}

impl Thinner {
    /// Of a line that begins with one of `one_in` pictures.
    pub(super) fn new(one_in: u32, gop: u32, afford: impl Fn(u32) -> bool + Send + Sync + 'static) -> Self {
        let state = State { one_in, skip: 0, key: 0, refused: 0 };
        Self { gop, afford: Box::new(afford), state: Mutex::new(state) }
    }

    /// Whether the next picture is coded, if one of `wanted` is wanted.
    pub(super) fn takes(&self, wanted: u32) -> bool {
        let mut state = self.lock();
        state.refused = state.refused.saturating_sub(1);
        if wanted != state.one_in && state.refused == 0 {
            if (self.afford)(wanted) {
                *state = State { one_in: wanted, skip: 0, key: 0, refused: 0 };
            } else {
                state.refused = AGAIN;
            }
        }
        if state.skip > 0 {
            state.skip -= 1;
            return false;
        }
        state.skip = state.one_in - 1;
        true
    }

    /// Whether the next coded picture is to be a keyframe: the encoder counts pictures, of which there are fewer.
    pub(super) fn key_due(&self) -> bool {
        let mut state = self.lock();
        if state.one_in == 1 {
            return false;
        }
        let due = state.key == 0;
        state.key = if due { (self.gop / state.one_in).max(1) } else { state.key } - 1;
        due
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn one_of_so_many_is_coded_and_keyframes_keep_their_distance() {
        let thinner = Thinner::new(1, 6, |_| true);
        let coded = |wanted: u32, pictures: u32| (0..pictures).filter(|_| thinner.takes(wanted)).count();
        assert_eq!((coded(1, 5), coded(2, 10), coded(4, 8)), (5, 5, 2));
        assert!(thinner.takes(2));
        let keys: Vec<bool> = (0..7).map(|_| thinner.key_due()).collect();
        assert_eq!(keys, [true, false, false, true, false, false, true]);
        assert!(thinner.takes(1) && !thinner.key_due());
    }

    #[test]
    fn a_larger_part_is_taken_only_when_there_is_one() {
        let least = Arc::new(AtomicU32::new(2));
        let limit = Arc::clone(&least);
        let thinner = Thinner::new(2, 30, move |one_in| one_in >= limit.load(Ordering::Relaxed));
        assert_eq!((0..60).filter(|_| thinner.takes(1)).count(), 30);
        least.store(1, Ordering::Relaxed);
        assert!((0..AGAIN).filter(|_| thinner.takes(1)).count() >= AGAIN as usize / 2);
        assert!((0..60).all(|_| thinner.takes(1)));
    }
}
