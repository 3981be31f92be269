//! Codes one of so many pictures only, when the machine is too hot or its encoder too weak for all ([`UnitSink::one_in`]).
//!
//! Promises that a change takes effect with the next picture, without a pause; that keyframes keep their distance in time;
//! that a lens takes a larger part of the encoder only if it gets it, and goes on with fewer pictures until then; that what is
//! really coded is told; and that no picture waits for an answer. What is left out was not wanted, so it is no gap. Encoders
//! are told of one frame rate and spread their bits over pictures, so the bitrate falls as the rate does. Holds no picture.
//!
//! [`UnitSink::one_in`]: crate::source::UnitSink::one_in

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::outlet::Outlet;
use crate::source::Share;

/// Pictures after which a part of the encoder that was refused is asked for again.
const AGAIN: u32 = 30;

/// What a line has of an encoder.
pub(super) trait Room: Send + Sync + 'static {
    /// Whether somebody counts what the encoder takes: else there is room for everything.
    fn is_counted(&self) -> bool;
    /// At least so many pictures have to go for each that is coded, however few others code.
    fn least(&self) -> u32 {
        1
    }
    /// Takes the part for one of so many pictures instead of what the line had; false if there is none. May take its time.
    fn take(&self, one_in: u32) -> bool;
    /// One of so many pictures is coded now, and so many were wanted.
    fn tell(&self, one_in: u32, wanted: u32);
}

pub(super) struct Thinner {
    /// Pictures from keyframe to keyframe when all are coded.
    gop: u32,
    room: Arc<dyn Room>,
    /// To the question that was asked last.
    answer: Arc<AtomicU8>,
    state: Mutex<State>,
}

/// No answer yet.
const OPEN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;

struct State {
    one_in: u32,
    /// The part of the encoder that the line may use: for one of so many pictures.
    held: u32,
    /// The part that was asked for and is not answered.
    asked: Option<u32>,
    /// Whoever counts has not heard yet that less is used.
    owed: bool,
    /// What was last told, and what was wanted then.
    told: Option<(u32, u32)>,
    /// Pictures until the next one that is coded.
    skip: u32,
    /// Coded pictures until a keyframe is to be asked for.
    key: u32,
    /// Pictures until a refused part is asked for again.
    refused: u32,
    /// Where questions go, once there was one.
    desk: Option<Sender<u32>>,
}

impl Thinner {
    /// Of a line that begins with one of `one_in` pictures, and has that part of the encoder.
    pub(super) fn new(one_in: u32, gop: u32, room: Arc<dyn Room>) -> Self {
        let state = State {
            one_in,
            held: one_in,
            asked: None,
            owed: false,
            told: None,
            skip: 0,
            key: 0,
            refused: 0,
            desk: None,
        };
        Self { gop, room, answer: Arc::default(), state: Mutex::new(state) }
    }

    /// Whether the next picture is coded, if one of `wanted` is wanted.
    pub(super) fn takes(&self, wanted: u32) -> bool {
        let mut state = self.lock();
        let now = self.settle(&mut state, wanted);
        let takes = state.skip == 0;
        state.skip = if takes { state.one_in - 1 } else { state.skip - 1 };
        drop(state);
        if let Some((one_in, wanted)) = now {
            self.room.tell(one_in, wanted);
        }
        takes
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

    /// Follows what is wanted, as far as there is room; what is to be told, if that is news.
    fn settle(&self, state: &mut State, wanted: u32) -> Option<(u32, u32)> {
        state.refused = state.refused.saturating_sub(1);
        self.hear(state);
        let aim = wanted.max(self.room.least());
        if !self.room.is_counted() {
            state.held = aim;
        } else if state.asked.is_none() && state.refused == 0 && (aim != state.held || state.owed) {
            self.ask(state, aim);
        }
        // Never more than there is room for.
        let one_in = aim.max(state.held);
        if one_in != state.one_in {
            (state.one_in, state.skip, state.key) = (one_in, 0, 0);
        }
        let now = (one_in, wanted);
        let settled = state.asked.is_none() || one_in == wanted;
        (settled && state.told.replace(now) != Some(now)).then_some(now)
    }

    fn hear(&self, state: &mut State) {
        let Some(asked) = state.asked else { return };
        let answer = self.answer.swap(OPEN, Ordering::AcqRel);
        if answer == OPEN {
            return;
        }
        state.asked = None;
        if answer == YES {
            (state.held, state.owed) = (asked, false);
        } else {
            state.refused = AGAIN;
        }
    }

    /// Asks on a thread of its own: whoever answers may be in another process.
    fn ask(&self, state: &mut State, one_in: u32) {
        state.asked = Some(one_in);
        if one_in > state.held {
            // What is given back is not used from now on.
            (state.held, state.owed) = (one_in, true);
        }
        let (room, answer) = (&self.room, &self.answer);
        let desk = state.desk.take().or_else(|| desk(room, answer)).filter(|desk| desk.send(one_in).is_ok());
        if desk.is_none() {
            self.answer.store(NO, Ordering::Release);
        }
        state.desk = desk;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that asks one question after the other, until nobody has any more.
fn desk(room: &Arc<dyn Room>, answer: &Arc<AtomicU8>) -> Option<Sender<u32>> {
    let (room, answer) = (Arc::clone(room), Arc::clone(answer));
    let (ask, questions) = mpsc::channel();
    let asking = move || {
        for one_in in questions {
            answer.store(if room.take(one_in) { YES } else { NO }, Ordering::Release);
        }
    };
    std::thread::Builder::new().name("mos-share".into()).stack_size(256 << 10).spawn(asking).ok()?;
    Some(ask)
}

/// An encoder of which nobody counts what it takes.
pub(super) struct Uncounted(pub(super) Arc<Outlet>);

impl Room for Uncounted {
    fn is_counted(&self) -> bool {
        false
    }
    fn take(&self, _: u32) -> bool {
        true
    }
    fn tell(&self, one_in: u32, wanted: u32) {
        self.0.coded(Share { one_in, wanted, needs: 0, budget: 0 });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    use super::*;

    /// Room for everything, which nobody counts.
    struct Plenty;

    impl Room for Plenty {
        fn is_counted(&self) -> bool {
            false
        }
        fn take(&self, _: u32) -> bool {
            true
        }
        fn tell(&self, _: u32, _: u32) {}
    }

    /// Answers as the test says, when it says so.
    struct Desk {
        answers: Mutex<mpsc::Receiver<bool>>,
        asked: mpsc::Sender<u32>,
        told: mpsc::Sender<(u32, u32)>,
        alone_too_much: AtomicBool,
    }

    impl Room for Desk {
        fn is_counted(&self) -> bool {
            true
        }
        fn least(&self) -> u32 {
            if self.alone_too_much.load(Ordering::Relaxed) { 2 } else { 1 }
        }
        fn take(&self, one_in: u32) -> bool {
            self.asked.send(one_in).unwrap();
            self.answers.lock().unwrap().recv().unwrap()
        }
        fn tell(&self, one_in: u32, wanted: u32) {
            self.told.send((one_in, wanted)).unwrap();
        }
    }

    struct Rig {
        thinner: Thinner,
        answer: mpsc::Sender<bool>,
        asked: mpsc::Receiver<u32>,
        told: mpsc::Receiver<(u32, u32)>,
    }

    fn rig(one_in: u32, alone_too_much: bool) -> Rig {
        let ((answer, answers), (ask, asked), (tell, told)) = (mpsc::channel(), mpsc::channel(), mpsc::channel());
        let alone_too_much = AtomicBool::new(alone_too_much);
        let desk = Desk { answers: Mutex::new(answers), asked: ask, told: tell, alone_too_much };
        Rig { thinner: Thinner::new(one_in, 30, Arc::new(desk)), answer, asked, told }
    }

    impl Rig {
        fn next_question(&self) -> u32 {
            self.asked.recv_timeout(Duration::from_mins(1)).unwrap()
        }

        /// Lets pictures come until that is told.
        fn until(&self, wanted: u32, told: (u32, u32)) {
            let end = Instant::now() + Duration::from_mins(1);
            while self.told.try_recv() != Ok(told) {
                assert!(Instant::now() < end, "{told:?} is not told");
                self.thinner.takes(wanted);
                std::thread::yield_now();
            }
        }

        fn coded(&self, wanted: u32, pictures: u32) -> usize {
            (0..pictures).filter(|_| self.thinner.takes(wanted)).count()
        }
    }

    #[test]
    fn one_of_so_many_is_coded_and_keyframes_keep_their_distance() {
        let thinner = Thinner::new(1, 6, Arc::new(Plenty));
        let coded = |wanted: u32, pictures: u32| (0..pictures).filter(|_| thinner.takes(wanted)).count();
        assert_eq!((coded(1, 5), coded(2, 10), coded(4, 8)), (5, 5, 2));
        assert!(thinner.takes(2));
        let keys: Vec<bool> = (0..7).map(|_| thinner.key_due()).collect();
        assert_eq!(keys, [true, false, false, true, false, false, true]);
        assert!(thinner.takes(1) && !thinner.key_due());
    }

    #[test]
    fn a_larger_part_is_taken_only_when_there_is_one_and_what_is_coded_is_told() {
        let rig = rig(2, false);
        assert!(rig.thinner.takes(2));
        assert_eq!(rig.told.try_recv(), Ok((2, 2)));
        rig.thinner.takes(1);
        assert_eq!(rig.next_question(), 1);
        rig.answer.send(false).unwrap();
        rig.until(1, (2, 1));
        // It is asked again by itself.
        rig.answer.send(true).unwrap();
        rig.until(1, (1, 1));
        assert_eq!(rig.coded(1, 60), 60);
    }

    #[test]
    fn no_picture_waits_for_an_answer_and_none_is_coded_before_it() {
        let rig = rig(2, false);
        rig.thinner.takes(2);
        // Nobody answers yet; with an answer in the line of the pictures this would stand still.
        assert_eq!(rig.coded(1, 1000), 500);
        assert_eq!(rig.next_question(), 1);
        assert!(rig.asked.try_recv().is_err(), "one question at a time");
        rig.answer.send(true).unwrap();
        rig.until(1, (1, 1));
        // Less is used at once, and told behind.
        assert_eq!(rig.coded(2, 100), 50);
        assert_eq!(rig.next_question(), 2);
        // A silent book is told again, until it knows.
        rig.answer.send(false).unwrap();
        let end = Instant::now() + Duration::from_mins(1);
        while rig.asked.try_recv() != Ok(2) {
            assert!(Instant::now() < end, "it is not asked again");
            rig.thinner.takes(2);
            std::thread::yield_now();
        }
        rig.answer.send(true).unwrap();
    }

    #[test]
    fn what_can_never_have_all_does_not_ask_for_it() {
        let rig = rig(2, true);
        assert_eq!(rig.coded(1, 100), 50);
        assert_eq!(rig.told.try_recv(), Ok((2, 1)));
        assert!(rig.asked.try_recv().is_err());
    }
}
