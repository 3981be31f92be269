//! Lenses in processes of their own: vendor code that crashes, hangs or floods costs a gap of its lens and nothing else.
//!
//! The child is the same program, called with [`COMMAND`]. A socket pair, which is the child's standard input, carries its
//! work, then access units; nothing secret is in its arguments or environment.
//!
//! Promises:
//! - P1: nothing that a child sends can harm the recorder: messages are bounded and checked, and what is none ends the child
//!   as broken.
//! - P2: what a child cannot get rid of ends its source with a cause; it never leaves out a unit in silence.
//! - P3: a source that is dropped is gone within 2 s: the child is asked, after [`parent::PATIENCE`] killed, and always
//!   reaped. When the recorder ends in any way, so do its children.
//! - P4: what comes through a worker is bit for bit what the source delivered, with the same times: both processes read
//!   CLOCK_MONOTONIC.
//! - P5: cameras and the encoder are shared with the lenses of all other processes, and what an opening learned of its camera
//!   is known at the next ([`mos_hal::shared`]): the recorder keeps the book, a worker asks.
//! - P6: raw pictures are lent to the recorder by the protocol of the frame bus and published there
//!   ([`mos_hal::frames::Relay`]): readers keep their socket, and the end of a worker is a change of buffers to them.
//!
//! Only the capture service opens workers.

pub(crate) mod child;
mod parent;
mod queue;
mod sharing;
pub(crate) mod wire;
mod work;

use std::path::PathBuf;
use std::sync::Arc;

use mos_hal::clock::Clock;
use mos_hal::frames::LensFrames;
use mos_hal::probe::Options;
use mos_hal::shared::Shared;
use mos_hal::source::{LensSource, SourceError, SourceSpec, UnitSink};

/// The program's argument that makes it a worker.
pub(crate) const COMMAND: &str = "lens-worker";

/// Starts workers.
#[derive(Clone, Debug)]
pub struct Workers {
    /// The program; it must understand the same messages as this one.
    pub program: PathBuf,
    /// The board as the workers shall see it.
    pub board: Options,
    /// What their lenses share with all others.
    pub shared: Arc<dyn Shared>,
}

impl Workers {
    /// Workers by this very program, even if its file has been replaced since.
    #[must_use]
    pub fn of_this_program(board: Options, shared: Arc<dyn Shared>) -> Self {
        Self { program: "/proc/self/exe".into(), board, shared }
    }

    /// Opens a source in a process of its own, which hands its raw pictures to `frames`; otherwise as [`mos_hal::platform::Platform::open`].
    pub fn open(
        &self,
        spec: &SourceSpec,
        audio: bool,
        clock: Arc<dyn Clock>,
        sink: Arc<dyn UnitSink>,
        frames: Option<&Arc<LensFrames>>,
    ) -> Result<Box<dyn LensSource>, SourceError> {
        let what = spec.to_string();
        let work =
            work::Work::new(spec, audio, &self.board, &self.shared.lessons(), frames.map(AsRef::as_ref), sink.one_in());
        let source = parent::WorkerSource::start(self, &work, what.clone(), clock, sink, frames);
        match source {
            Ok(source) => Ok(Box::new(source)),
            Err(e) => Err(SourceError::Broken { what, detail: format!("its process could not be started: {e}") }),
        }
    }
}
