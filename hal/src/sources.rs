//! The kinds of source of every platform, one file each.

use std::sync::Arc;

use crate::clock::Clock;
use crate::source::{LensSource, SourceError, SourceSpec, UnitSink};

pub(crate) mod encoder;
mod file;
mod leaks;
mod live;
pub(crate) mod outlet;
mod rtsp;
mod samples;
mod scene;
pub(crate) mod test_pattern;
mod v4l2;

/// Opens any source; see [`crate::platform::Platform::open`].
pub(crate) fn open(
    spec: &SourceSpec,
    audio: bool,
    clock: Arc<dyn Clock>,
    sink: Arc<dyn UnitSink>,
) -> Result<Box<dyn LensSource>, SourceError> {
    let outlet = outlet::Outlet::new(spec.to_string(), clock, sink);
    match spec {
        SourceSpec::Test(pattern) => Ok(Box::new(test_pattern::open(pattern, audio, &outlet)?)),
        SourceSpec::File { path, looped } => Ok(Box::new(file::open(path, *looped, audio, &outlet)?)),
        SourceSpec::Rtsp { url, credentials } => rtsp::open(url, credentials.as_ref(), audio, &outlet),
        SourceSpec::V4l2 { device, size, fps } => Ok(Box::new(v4l2::open(device, *size, *fps, &outlet)?)),
    }
}
