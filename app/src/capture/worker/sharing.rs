//! What lenses share ([`mos_hal::shared`]), across the socket: a worker asks, the recorder keeps the book.
//!
//! Promises that what a worker took is given back when its process is really gone, and not before; that no worker can fill the
//! book; and that an answer that comes late is taken for no other question's.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mos_hal::shared::{Ledger, Lesson, Shared};

use super::queue::Queue;
use super::wire::Message;

/// How long a worker waits for an answer. The recorder answers at once; a machine under load takes its time.
const ANSWER: Duration = Duration::from_secs(10);
/// Cameras that one source may take, and lessons that it may learn.
const CAMERAS: usize = 4;
const LESSONS: u32 = 64;

/// The recorder's answer to [`Message::Take`] and [`Message::Encode`].
pub(super) type Answer = Result<(), String>;

/// The way to the book, in a worker.
#[derive(Debug)]
pub(super) struct Asking {
    queue: Arc<Queue>,
    desk: Mutex<Desk>,
    /// How long an answer may take.
    patience: Duration,
    learned: Ledger,
}

#[derive(Debug)]
struct Desk {
    answers: Receiver<(u32, Answer)>,
    /// The number of the last question.
    asked: u32,
}

impl Asking {
    pub(super) fn new(
        queue: Arc<Queue>,
        answers: Receiver<(u32, Answer)>,
        lessons: impl Iterator<Item = Lesson>,
    ) -> Self {
        let learned = Ledger::new("", None);
        lessons.for_each(|lesson| learned.learn(lesson));
        Self { queue, desk: Mutex::new(Desk { answers, asked: 0 }), patience: ANSWER, learned }
    }

    fn ask(&self, question: impl FnOnce(u32) -> Message) -> Answer {
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        desk.asked = desk.asked.wrapping_add(1);
        let silent = || "the recorder does not answer its worker".to_owned();
        if !self.queue.push(&question(desk.asked)) {
            return Err(silent());
        }
        let end = Instant::now() + self.patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match desk.answers.recv_timeout(left) {
                Ok((number, answer)) if number == desk.asked => return answer,
                // To a question that was given up.
                Ok(_) => {}
                Err(_) => return Err(silent()),
            }
        }
    }
}

impl Shared for Asking {
    fn take(&self, camera: &str) -> bool {
        self.ask(|number| Message::Take(number, camera.to_owned())).is_ok()
    }

    fn encode(&self, camera: &str, pixels_per_second: u64) -> Answer {
        self.ask(|number| Message::Encode(number, camera.to_owned(), pixels_per_second))
    }

    /// A worker has one source: what it took goes back with the process.
    fn give_back(&self, _: &str) {}

    fn learn(&self, lesson: Lesson) {
        self.queue.push(&Message::Learned(lesson.clone()));
        self.learned.learn(lesson);
    }

    fn lessons(&self) -> Vec<Lesson> {
        self.learned.lessons()
    }
}

/// What one worker has of the book, in the recorder.
pub(super) struct Holding {
    shared: Arc<dyn Shared>,
    state: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    cameras: Vec<String>,
    lessons: u32,
}

impl Holding {
    pub(super) fn new(shared: Arc<dyn Shared>) -> Self {
        Self { shared, state: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer; `None` if no worker in its right mind would ask.
    pub(super) fn take(&self, camera: String) -> Option<Answer> {
        let mut held = self.held();
        if held.cameras.len() >= CAMERAS {
            return None;
        }
        if !self.shared.take(&camera) {
            return Some(Err("taken".to_owned()));
        }
        held.cameras.push(camera);
        Some(Ok(()))
    }

    pub(super) fn encode(&self, camera: &str, pixels_per_second: u64) -> Option<Answer> {
        let taken = self.held().cameras.iter().any(|mine| mine == camera);
        taken.then(|| self.shared.encode(camera, pixels_per_second))
    }

    /// Whether that may be.
    pub(super) fn learn(&self, lesson: Lesson) -> bool {
        let mut held = self.held();
        held.lessons += 1;
        if held.lessons > LESSONS || !held.cameras.contains(&lesson.camera) {
            return false;
        }
        self.shared.learn(lesson);
        true
    }

    /// The process is gone.
    pub(super) fn give_back(&self) {
        for camera in self.held().cameras.drain(..) {
            self.shared.give_back(&camera);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mos_hal::shared::Fact;

    use super::*;

    #[test]
    fn two_workers_share_one_book_and_what_one_took_goes_back_at_its_end() {
        let book: Arc<dyn Shared> = Arc::new(Ledger::new("soc", Some(1920 * 1080 * 60)));
        let [one, two] = [Holding::new(book.clone()), Holding::new(book.clone())];
        assert_eq!(one.take("qmmf:0".into()), Some(Ok(())));
        assert!(two.take("qmmf:0".into()).unwrap().is_err());
        assert_eq!(two.take("qmmf:1".into()), Some(Ok(())));
        assert_eq!(one.encode("qmmf:0", 1920 * 1080 * 40), Some(Ok(())));
        assert!(two.encode("qmmf:1", 1920 * 1080 * 30).unwrap().unwrap_err().contains("20 are free"));
        one.give_back();
        assert_eq!(two.encode("qmmf:1", 1920 * 1080 * 30), Some(Ok(())));
        assert_eq!(two.take("qmmf:0".into()), Some(Ok(())));
    }

    #[test]
    fn an_answer_that_came_too_late_is_no_answer_to_the_next_question() {
        let (answer, answers) = std::sync::mpsc::channel();
        let queue = Arc::new(Queue::default());
        let asking =
            Asking { patience: Duration::ZERO, ..Asking::new(Arc::clone(&queue), answers, std::iter::empty()) };
        assert_eq!(asking.encode("qmmf:0", 9), Err("the recorder does not answer its worker".to_owned()));
        // It comes now, and so does the next one.
        answer.send((1, Ok(()))).unwrap();
        answer.send((2, Err("others have it".to_owned()))).unwrap();
        answer.send((3, Ok(()))).unwrap();
        let asking = Asking { patience: ANSWER, ..asking };
        assert_eq!(asking.encode("qmmf:0", 9), Err("others have it".to_owned()));
        assert_eq!(asking.encode("qmmf:0", 9), Ok(()));
    }

    #[test]
    fn no_worker_fills_the_book_or_speaks_for_another() {
        let book: Arc<dyn Shared> = Arc::new(Ledger::new("soc", None));
        let worker = Holding::new(book.clone());
        let lesson = |camera: &str| Lesson { camera: camera.into(), fact: Fact::InSystemMemory, holds: true };
        assert!(!worker.learn(lesson("qmmf:7")) && worker.encode("qmmf:7", 1).is_none());
        assert!(book.lessons().is_empty());
        for n in 0..CAMERAS {
            assert_eq!(worker.take(n.to_string()), Some(Ok(())));
        }
        assert_eq!(worker.take("more".into()), None);
        let taken = (0..1000).take_while(|_| worker.learn(lesson("0"))).count();
        assert!(taken < LESSONS as usize && book.lessons() == [lesson("0")]);
    }
}
