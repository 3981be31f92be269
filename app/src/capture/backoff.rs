//! Waiting times between attempts: growing, jittered, bounded.

use std::time::Duration;

/// Shortest waiting time.
pub(crate) const FIRST: Duration = Duration::from_secs(1);
/// Longest waiting time.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);

/// Delays around 1, 2, 4 … 25 s, each up to a fifth longer or shorter but never outside [`FIRST`] to [`LONGEST`], so that
/// cameras on one switch do not all come at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    attempt: u32,
    seed: u64,
}

impl Backoff {
    /// `seed` makes the jitter differ between lenses and boots.
    pub(crate) fn new(seed: u64) -> Self {
        Self { attempt: 0, seed: seed | 1 }
    }

    /// The next waiting time.
    pub(crate) fn next(&mut self) -> Duration {
        let middle = FIRST.saturating_mul(1 << self.attempt.min(10)).min(LONGEST * 5 / 6);
        self.attempt = self.attempt.saturating_add(1);
        // xorshift64 (Marsaglia 2003): jitter needs spread, not secrecy.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let thousandths = 800 + (self.seed % 401) as u32;
        (middle * thousandths / 1000).max(FIRST)
    }

    /// It works again.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_differ_and_stay_bounded() {
        let (mut a, mut b) = (Backoff::new(7), Backoff::new(8));
        let first: Vec<Duration> = (0..12).map(|_| a.next()).collect();
        let second: Vec<Duration> = (0..12).map(|_| b.next()).collect();
        assert_ne!(first, second);
        for (n, d) in first.iter().chain(&second).enumerate() {
            assert!((FIRST..=LONGEST).contains(d), "{n}: {d:?}");
            let doubled = FIRST.saturating_mul(1 << (n % 12)).min(LONGEST);
            assert!(*d >= doubled * 2 / 3 && *d <= doubled * 6 / 5, "{n}: {d:?}");
        }
        a.reset();
        assert!(a.next() <= FIRST * 6 / 5);
    }
}
