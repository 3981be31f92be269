//! Frames and bits per second of a lens, lately.

use mos_hal::clock::Mono;

/// Shortest span over which rates are measured.
const SPAN: i64 = 2_000_000_000;

#[derive(Default)]
pub(crate) struct Rate {
    at: Option<Mono>,
    frames: u64,
    bytes: u64,
    /// Video units per second.
    pub(crate) fps: f64,
    /// Bits per second.
    pub(crate) bitrate: u64,
}

impl Rate {
    /// Takes in the counters as of now.
    pub(crate) fn measure(&mut self, frames: u64, bytes: u64, now: Mono) {
        let Some(at) = self.at else {
            *self = Self { at: Some(now), frames, bytes, ..Self::default() };
            return;
        };
        let span = now.since(at);
        if span >= SPAN {
            let seconds = span as f64 / 1e9;
            self.fps = (frames - self.frames) as f64 / seconds;
            self.bitrate = ((bytes - self.bytes) as f64 * 8.0 / seconds) as u64;
            (self.at, self.frames, self.bytes) = (Some(now), frames, bytes);
        }
    }
}
