//! `max_rate`: a token bucket in the caller's time.

use std::time::{Duration, Instant};

/// What may be sent at once after a pause, as time at the full rate.
const BURST: Duration = Duration::from_millis(250);

/// The bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Bytes per second.
    rate: u64,
    /// When everything that was sent has been paid for.
    paid: Instant,
}

impl Bucket {
    pub(super) fn new(rate: u64, now: Instant) -> Self {
        Self { rate: rate.max(1), paid: now }
    }

    /// Most bytes to send in one go, so that the road is used evenly.
    pub(super) fn portion(&self) -> usize {
        usize::try_from(self.rate / 8).unwrap_or(usize::MAX).max(1024)
    }

    /// How long to wait before the next bytes; zero: they may go.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.paid.saturating_duration_since(now)
    }

    /// These bytes go now.
    pub(super) fn spend(&mut self, bytes: u64, now: Instant) {
        let from = self.paid.max(now.checked_sub(BURST).unwrap_or(now));
        self.paid = from + Duration::from_nanos((u128::from(bytes) * 1_000_000_000 / u128::from(self.rate)) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In simulated time: whatever the pauses, no window carries more than the rate and one burst.
    #[test]
    fn no_window_carries_more_than_the_rate_and_a_burst() {
        let start = Instant::now();
        let rate = 100_000;
        let mut bucket = Bucket::new(rate, start);
        let (mut now, mut sent) = (start, Vec::new());
        while now < start + Duration::from_mins(1) {
            // A pause of ten seconds in the middle earns a burst, not ten seconds' worth.
            if now.duration_since(start).as_secs() == 20 {
                now += Duration::from_secs(10);
            }
            now += bucket.wait(now);
            let portion = bucket.portion() as u64;
            bucket.spend(portion, now);
            sent.push((now, portion));
        }
        let total: u64 = sent.iter().map(|(_, bytes)| bytes).sum();
        assert!((4_900_000..=5_100_000).contains(&total), "50 s at 100 kB/s, not {total}");
        for (at, _) in &sent {
            let window = sent.iter().filter(|(t, _)| t >= at && t.duration_since(*at) < Duration::from_secs(1));
            let bytes: u64 = window.map(|(_, bytes)| bytes).sum();
            assert!(bytes <= rate + rate / 4 + 2 * bucket.portion() as u64, "{bytes} in a second");
        }
    }
}
