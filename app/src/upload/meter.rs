//! Turns acknowledgements into a few states a second, with a rate over the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Progress;
use super::job::JobState;

/// The meter of one try.
pub(super) struct Meter {
    /// When and at how many bytes; the span of the rate.
    marks: VecDeque<(Instant, u64)>,
    told: Option<Instant>,
}

impl Meter {
    /// Between two states that differ only in figures.
    const PERIOD: Duration = Duration::from_millis(100);
    /// What the rate is taken over.
    const SPAN: Duration = Duration::from_secs(3);

    pub(super) fn new() -> Self {
        Self { marks: VecDeque::new(), told: None }
    }

    /// The state to tell, if it is time to tell one.
    pub(super) fn state(&mut self, progress: Progress, now: Instant) -> Option<JobState> {
        let (bytes, total) = match progress {
            Progress::Verifying => return Some(JobState::Verifying),
            Progress::Sent { bytes, total } => (bytes, total),
        };
        let due = self.told.is_none_or(|t| now.duration_since(t) >= Self::PERIOD);
        if !due && bytes < total {
            return None;
        }
        self.told = Some(now);
        self.marks.push_back((now, bytes));
        while self.marks.len() > 2 && now.duration_since(self.marks[1].0) >= Self::SPAN {
            self.marks.pop_front();
        }
        let (then, before) = self.marks[0];
        let span = now.duration_since(then).as_secs_f64();
        let rate = if span > 0.0 { (bytes.saturating_sub(before) as f64 / span) as u64 } else { 0 };
        Some(JobState::Transferring { bytes, total, rate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds_and_begins_where_the_transfer_does() {
        let mut meter = Meter::new();
        let start = Instant::now();
        let at = |seconds: u64, bytes| (Progress::Sent { bytes, total: 10_000 }, start + Duration::from_secs(seconds));
        let mut rate = |seconds, bytes| {
            let (progress, now) = at(seconds, bytes);
            match meter.state(progress, now) {
                Some(JobState::Transferring { rate, .. }) => rate,
                other => panic!("{other:?}"),
            }
        };
        // Resumed at 5000: what lay there already is no speed.
        assert_eq!(rate(0, 5000), 0);
        assert_eq!(rate(1, 5100), 100);
        assert_eq!(rate(2, 5200), 100);
        for second in 3..=9 {
            rate(second, 5200);
        }
        assert_eq!(rate(10, 5200), 0);
        assert!(meter.state(at(10, 5300).0, at(10, 0).1).is_none(), "a few a second");
        assert!(meter.state(at(10, 10_000).0, at(10, 0).1).is_some(), "the last one always");
    }
}
