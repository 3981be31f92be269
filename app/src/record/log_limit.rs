//! One log line per cause and period, with a counter of what was left out.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use mos_hal::clock::Mono;

/// Decides which of many equal messages reach the log.
#[derive(Debug)]
pub struct LogLimit<K> {
    period: Duration,
    seen: HashMap<K, Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Mono,
    left_out: u64,
}

/// Causes remembered at most; beyond that the oldest goes.
const KEYS: usize = 256;

impl<K: Hash + Eq + Clone> LogLimit<K> {
    /// One line per key and `period`.
    #[must_use]
    pub fn new(period: Duration) -> Self {
        Self { period, seen: HashMap::new() }
    }

    /// `Some(n)` if a line may be written now; `n` like it were left out since the last one.
    pub fn allow(&mut self, key: &K, now: Mono) -> Option<u64> {
        if let Some(seen) = self.seen.get_mut(key) {
            if now < seen.at + self.period {
                seen.left_out += 1;
                return None;
            }
            let left_out = seen.left_out;
            *seen = Seen { at: now, left_out: 0 };
            return Some(left_out);
        }
        if self.seen.len() >= KEYS
            && let Some(oldest) = self.seen.iter().min_by_key(|(_, s)| s.at).map(|(k, _)| k.clone())
        {
            self.seen.remove(&oldest);
        }
        self.seen.insert(key.clone(), Seen { at: now, left_out: 0 });
        Some(0)
    }
}

/// How many alike were left out, for the end of a log line.
#[must_use]
pub fn and_more(left_out: u64) -> String {
    if left_out == 0 { String::new() } else { format!(" ({left_out} more like this since the last line)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_cause_and_period_with_a_counter() {
        let mut limit = LogLimit::new(Duration::from_mins(1));
        let mut lines = Vec::new();
        for s in 0..125 {
            if let Some(n) = limit.allow(&"sync", Mono(s * 1_000_000_000)) {
                lines.push((s, n));
            }
        }
        assert_eq!(lines, [(0, 0), (60, 59), (120, 59)]);
        assert_eq!(limit.allow(&"write", Mono(0)), Some(0));
    }
}
