//! The circuit breaker: who fails again and again is left alone for a while.
//!
//! Promises (K5): [`FAILURES`] failures in a row open it; [`REST`] later it is half open and lets trial runs through; one
//! failure then opens it again, [`TRIALS`] successes close it. Pure: the caller brings the time. A success is a run that has
//! proved itself; one that goes on counts again each time it has delivered for as long once more.

use std::time::Duration;

use mos_hal::clock::Mono;

/// So many failures in a row open it.
pub(crate) const FAILURES: u32 = 5;
/// How long it stays open.
pub(crate) const REST: Duration = Duration::from_mins(1);
/// So many successes close it again.
pub(crate) const TRIALS: u32 = 2;

/// How a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Attempts as usual.
    Closed,
    /// No attempts.
    Open,
    /// Trial runs.
    HalfOpen,
}

impl BreakerState {
    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// The breaker of one lens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// How it stands.
    pub state: BreakerState,
    /// Failures in a row.
    pub failures: u32,
    /// Successful trial runs while half open.
    pub successes: u32,
    /// How often it opened.
    pub opened: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: BreakerState::Closed, failures: 0, successes: 0, opened: 0 }
    }
}

impl Breaker {
    /// A run failed. Until when to leave it alone, if the breaker is open now.
    pub(crate) fn failure(&mut self, now: Mono) -> Option<Mono> {
        self.failures = self.failures.saturating_add(1);
        self.successes = 0;
        if self.state == BreakerState::Closed && self.failures < FAILURES {
            return None;
        }
        self.state = BreakerState::Open;
        self.opened += 1;
        Some(now + REST)
    }

    /// The rest is over.
    pub(crate) fn trial(&mut self) {
        if self.state == BreakerState::Open {
            self.state = BreakerState::HalfOpen;
        }
    }

    /// A run proved itself.
    pub(crate) fn success(&mut self) {
        self.failures = 0;
        if self.state == BreakerState::HalfOpen {
            self.successes += 1;
            if self.successes >= TRIALS {
                self.state = BreakerState::Closed;
                self.successes = 0;
            }
        }
    }

    /// As if nothing had ever failed; only the count of openings stays.
    pub(crate) fn reset(&mut self) {
        *self = Self { opened: self.opened, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k5_five_failures_open_it_and_two_proven_runs_close_it() {
        let mut breaker = Breaker::default();
        for n in 1..FAILURES {
            assert_eq!(breaker.failure(Mono(i64::from(n))), None);
        }
        breaker.success();
        for _ in 1..FAILURES {
            assert_eq!(breaker.failure(Mono(0)), None);
        }
        assert_eq!(breaker.failure(Mono(7)), Some(Mono(7) + REST));
        breaker.trial();
        breaker.success();
        assert_eq!((breaker.state, breaker.successes), (BreakerState::HalfOpen, 1));
        assert_eq!(breaker.failure(Mono(9)), Some(Mono(9) + REST), "one failure of a trial is enough");
        breaker.trial();
        breaker.success();
        breaker.success();
        assert_eq!(breaker, Breaker { opened: 2, ..Breaker::default() });
        assert_eq!(breaker.failure(Mono(0)), None);
    }
}
