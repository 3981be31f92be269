//! What the frame bus may move, all lenses together.
//!
//! Promises that the sum of what lenses have claimed never exceeds the limit: one too many would take memory bandwidth from
//! cameras and encoders of all of them, so it is the next lens that is refused, not the ones that run. A claim is what a lens moves
//! at most: the bytes of its pictures times its frame rate. Never waits.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes per second, shared by all lenses of a recorder.
#[derive(Debug, Default)]
pub struct Budget {
    /// `None`: no limit.
    limit: Option<u64>,
    claimed: AtomicU64,
}

impl Budget {
    /// At most `limit` bytes per second; any number without one.
    #[must_use]
    pub fn new(limit: Option<u64>) -> Self {
        Self { limit, claimed: AtomicU64::new(0) }
    }

    /// The limit in bytes per second.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// What lenses have claimed, in bytes per second.
    #[must_use]
    pub fn claimed(&self) -> u64 {
        self.claimed.load(Ordering::Relaxed)
    }

    /// Claims so many bytes per second; whether they fit.
    pub(super) fn claim(&self, rate: u64) -> bool {
        let most = self.limit.unwrap_or(u64::MAX);
        let fits = |claimed: u64| claimed.checked_add(rate).filter(|sum| *sum <= most);
        self.claimed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Gives back what was claimed.
    pub(super) fn release(&self, rate: u64) {
        self.claimed.fetch_sub(rate, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_lens_is_refused_and_those_that_run_stay() {
        let budget = Budget::new(Some(100));
        assert!(budget.claim(60) && budget.claim(40));
        assert!(!budget.claim(1) && budget.claimed() == 100);
        budget.release(60);
        assert!(!budget.claim(61) && budget.claim(60));
        let free = Budget::new(None);
        assert!(free.claim(u64::MAX - 1) && !free.claim(2), "a sum that cannot be told is refused");
    }
}
