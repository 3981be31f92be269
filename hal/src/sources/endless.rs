//! A bound on what may be gathered for one picture.
//!
//! GStreamer's depayloaders put the fragments of a picture together without any bound, so a sender whose picture never ends would
//! fill the memory. Promises to tell when more than [`MOST`] bytes have come since the last unit. Used by RTSP over UDP and by WHEP.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Most bytes of packets for one picture: ten times the largest keyframe of a camera of 8K.
const MOST: usize = 32 << 20;

/// What has come since the last unit.
#[derive(Debug, Default)]
pub(super) struct Gathered(AtomicUsize);

impl Gathered {
    /// A packet came; the words of what is wrong if it is one too many.
    pub(super) fn packet(&self, bytes: usize) -> Result<(), String> {
        if self.0.fetch_add(bytes, Ordering::Relaxed) > MOST {
            return Err(format!("it sends more than {} MB without a picture", MOST >> 20));
        }
        Ok(())
    }

    /// A unit came out.
    pub(super) fn unit(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_without_end_is_told_and_others_are_not() {
        let gathered = Gathered::default();
        for _ in 0..10 {
            assert_eq!((0..MOST / 1000).find(|_| gathered.packet(1000).is_err()), None);
            gathered.unit();
        }
        assert!((0..MOST / 1000 + 2).any(|_| gathered.packet(1000).is_err()));
    }
}
