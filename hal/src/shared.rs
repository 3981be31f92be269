//! What all lenses of a machine share, whichever process they run in: cameras, the encoder, and what was learned of both.
//!
//! Promises:
//! - S1: a camera is taken once, until it is given back.
//! - S2: the parts of the encoder never add up to more than it takes: one lens too many would cost all of them pictures.
//! - S3: what one opening learned of a camera is known at the next, also where that is in another process.
//!
//! Opens and asks nothing. [`Ledger`] is the one book of a recorder; a worker asks the recorder through its own [`Shared`].

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Cameras of which something is remembered, at most.
const REMEMBERED: usize = 256;

/// What an opening shows of a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// Its pictures come in CPU memory.
    InSystemMemory,
    /// It gives no NV12.
    WithoutNv12,
}

/// What was learned of a camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lesson {
    /// The camera's own name, as `v4l2:/dev/video0`.
    pub camera: String,
    /// What was seen.
    pub fact: Fact,
    /// Whether it is so; false takes an earlier lesson back.
    pub holds: bool,
}

/// The book, or the way to it.
pub trait Shared: Send + Sync + fmt::Debug {
    /// Takes a camera; false while somebody has it.
    fn take(&self, camera: &str) -> bool;
    /// Takes a part of the hardware encoder for a camera that was taken; what would fit if it does not. Replaces an earlier
    /// part of the same camera, which stays if it does not.
    fn encode(&self, camera: &str, pixels_per_second: u64) -> Result<(), String>;
    /// Gives a camera and its part of the encoder back.
    fn give_back(&self, camera: &str);
    /// Remembers.
    fn learn(&self, lesson: Lesson);
    /// All that is remembered and holds.
    fn lessons(&self) -> Vec<Lesson>;
}

/// The book.
#[derive(Debug)]
pub struct Ledger {
    /// Whose encoder it is.
    soc: &'static str,
    /// Pixels per second that it takes in all, if that is known.
    budget: Option<u64>,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    cameras: BTreeSet<String>,
    /// Pixels per second that the hardware encoder is to code, and for whom.
    encoding: Vec<(String, u64)>,
    learned: BTreeSet<(String, Fact)>,
}

impl Ledger {
    /// An empty book.
    #[must_use]
    pub fn new(soc: &'static str, budget: Option<u64>) -> Self {
        Self { soc, budget, used: Mutex::default() }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared for Ledger {
    fn take(&self, camera: &str) -> bool {
        self.used().cameras.insert(camera.to_owned())
    }

    fn encode(&self, camera: &str, pixels_per_second: u64) -> Result<(), String> {
        let Some(most) = self.budget else { return Ok(()) };
        let mut used = self.used();
        let of_others = used.encoding.iter().filter(|(of, _)| of != camera);
        let others: u64 = of_others.map(|(_, pixels)| pixels).sum();
        let left = most.saturating_sub(others);
        if pixels_per_second > left {
            let full_hd = |pixels: u64| pixels / (1920 * 1080);
            return Err(format!(
                "the encoder of {} takes {} frames/s of 1920x1080 in all, of which {} are free; this lens needs {}: ask for a \
                 smaller picture or fewer frames per second, of this lens or of another",
                self.soc,
                full_hd(most),
                full_hd(left),
                pixels_per_second.div_ceil(1920 * 1080)
            ));
        }
        used.encoding.retain(|(of, _)| of != camera);
        used.encoding.push((camera.to_owned(), pixels_per_second));
        Ok(())
    }

    fn give_back(&self, camera: &str) {
        let mut used = self.used();
        used.cameras.remove(camera);
        used.encoding.retain(|(of, _)| of != camera);
    }

    fn learn(&self, lesson: Lesson) {
        let mut used = self.used();
        let entry = (lesson.camera, lesson.fact);
        if !lesson.holds {
            used.learned.remove(&entry);
        } else if used.learned.len() < REMEMBERED {
            used.learned.insert(entry);
        }
    }

    fn lessons(&self) -> Vec<Lesson> {
        let lesson = |(camera, fact): &(String, Fact)| Lesson { camera: camera.clone(), fact: *fact, holds: true };
        self.used().learned.iter().map(lesson).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HD30: u64 = 1920 * 1080 * 30;

    #[test]
    fn s1_a_camera_is_taken_once_and_given_back() {
        let book = Ledger::new("generic", None);
        assert!(book.take("v4l2:/dev/video0"));
        assert!(!book.take("v4l2:/dev/video0"));
        assert!(book.take("v4l2:/dev/video1"));
        book.give_back("v4l2:/dev/video0");
        assert!(book.take("v4l2:/dev/video0"));
    }

    #[test]
    fn s2_the_encoder_is_shared_by_all_lenses_and_says_what_is_left() {
        let book = Ledger::new("imx8mp", Some(2 * HD30));
        assert_eq!(book.encode("a", HD30), Ok(()));
        assert_eq!(book.encode("a", HD30), Ok(()));
        assert_eq!(book.encode("b", HD30), Ok(()));
        let why = book.encode("c", 1280 * 720 * 30).unwrap_err();
        assert!(
            why.starts_with(
                "the encoder of imx8mp takes 60 frames/s of 1920x1080 in all, of which 0 are free; this lens needs 14"
            ),
            "{why}"
        );
        book.give_back("a");
        assert_eq!(book.encode("c", HD30), Ok(()));
        assert!(book.encode("c", HD30 + 1).is_err());
        assert_eq!(Ledger::new("generic", None).encode("a", u64::MAX), Ok(()));
    }

    #[test]
    fn s3_lessons_are_kept_taken_back_and_bounded() {
        let book = Ledger::new("generic", None);
        let lesson = |camera: &str, holds| Lesson { camera: camera.into(), fact: Fact::WithoutNv12, holds };
        book.learn(lesson("a", true));
        book.learn(lesson("b", true));
        book.learn(lesson("a", true));
        assert_eq!(book.lessons(), [lesson("a", true), lesson("b", true)]);
        book.learn(lesson("a", false));
        assert_eq!(book.lessons(), [lesson("b", true)]);
        (0..1000).for_each(|n| book.learn(lesson(&n.to_string(), true)));
        assert_eq!(book.lessons().len(), REMEMBERED);
    }
}
