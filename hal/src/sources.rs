//! The kinds of source of every platform, one file each.

use std::sync::Arc;

use crate::clock::Clock;
use crate::machine::Machine;
use crate::source::{LensSource, SourceError, SourceSpec, UnitSink};

mod camera;
pub(crate) mod contract;
pub(crate) mod encoder;
mod endless;
mod file;
mod later;
mod leaks;
mod live;
mod media_time;
mod onvif;
mod opening;
pub(crate) mod outlet;
mod received;
mod receiver;
pub(crate) mod rtsp;
mod samples;
mod scene;
mod skips;
mod srt;
pub(crate) mod test_pattern;
mod thin;
#[cfg(feature = "whep")]
pub(crate) mod whep;

/// Opens any source; see [`crate::platform::Platform::open`].
pub(crate) fn open(
    spec: &SourceSpec,
    audio: bool,
    machine: &Arc<Machine>,
    clock: Arc<dyn Clock>,
    sink: Arc<dyn UnitSink>,
) -> Result<Box<dyn LensSource>, SourceError> {
    let outlet = |clock, sink| outlet::Outlet::new(spec.to_string(), clock, sink);
    match spec {
        SourceSpec::Test(_) if machine.production => {
            let detail = camera::only_dmabufs("it is painted and encoded on the CPU");
            Err(SourceError::Unsupported { what: spec.to_string(), detail })
        }
        SourceSpec::Test(pattern) => Ok(Box::new(test_pattern::open(pattern, audio, &outlet(clock, sink))?)),
        SourceSpec::File { path, looped } => Ok(Box::new(file::open(path, *looped, audio, &outlet(clock, sink))?)),
        SourceSpec::Rtsp { url, credentials, transport, trust } => {
            rtsp::open(url, url, credentials.as_ref(), *transport, trust, audio, &outlet(clock, sink))
        }
        SourceSpec::Onvif { url, credentials, transport, trust } => {
            onvif::open(url, credentials.as_ref(), *transport, trust, audio, &outlet(clock, sink))
        }
        #[cfg(feature = "whep")]
        SourceSpec::Whep { url, credentials, trust } => {
            whep::open(url, credentials.as_ref(), trust, audio, &outlet(clock, sink))
        }
        #[cfg(not(feature = "whep"))]
        SourceSpec::Whep { .. } => {
            let detail = "this program was built without WebRTC (cargo feature `whep`)".to_owned();
            Err(SourceError::Unsupported { what: spec.to_string(), detail })
        }
        SourceSpec::Srt { url, options } => srt::open(url, options, audio, &outlet(clock, sink)),
        SourceSpec::V4l2 { .. } | SourceSpec::Board { .. } | SourceSpec::Libcamera { .. } | SourceSpec::Qmmf { .. } => {
            Ok(Box::new(camera::open(spec, machine, clock, sink)?))
        }
    }
}
