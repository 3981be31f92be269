//! The recorder: access units become fragments, segments and gaps.
//!
//! One writer thread serves all lenses. Sources push into one bounded [`Intake`] per lens and never wait; every 500 ms the
//! writer drains them all, writes one fragment per lens, and commits all of them together. The way of a unit is
//! [`intake`] → `line` ([`repair`], [`splitter`], [`absence`]) → `segment_file` ([`timing`]) → archive.
//!
//! Promises: nothing is lost in silence (status invariant R1; each loss is a gap with its cause); one second at most (a
//! frame waits for one tick and one sync, for nothing else); no lens holds up another, no disk a camera.

pub mod absence;
#[cfg(test)]
mod arrivals;
pub mod intake;
mod line;
pub mod log_limit;
pub mod repair;
mod repeat;
mod segment_file;
pub mod splitter;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod timing;
pub mod writer;

pub use intake::{Intake, IntakeCounters};
pub use status::{LensRecording, RecorderStatus, StopReport, SyncTimes};
pub use writer::{Recorder, RecorderOptions};
