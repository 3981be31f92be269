//! The kinds of source of every platform, one file each.

use std::sync::Arc;

use crate::clock::Clock;
use crate::source::{LensSource, SourceError, SourceSpec, UnitSink};

/// Opens any source; see [`crate::platform::Platform::open`].
pub(crate) fn open(
    spec: &SourceSpec,
    audio: bool,
    clock: Arc<dyn Clock>,
    sink: Arc<dyn UnitSink>,
) -> Result<Box<dyn LensSource>, SourceError> {
    let _ = (audio, clock, sink);
    Err(SourceError::Unsupported { what: spec.to_string(), detail: "this kind of source is being built".into() })
}
