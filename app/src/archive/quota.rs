//! How much of something that is not a segment may stay, and how long: clips and pictures, torn files in quarantine.

use std::time::Duration;

/// Bounds of a folder; none by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Most bytes of allocated blocks.
    pub max_bytes: u64,
    /// How long each file is held.
    pub max_age: Duration,
}

impl Default for Quota {
    fn default() -> Self {
        Self { max_bytes: u64::MAX, max_age: Duration::MAX }
    }
}
