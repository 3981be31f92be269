//! Any Linux machine: network cameras, V4L2 devices, files and the synthetic scene, with encoding and decoding on the CPU.
//!
//! Promises to work without any board support. It is what [`crate::platform::probe`] finds today; boards with their own
//! module come before it in the probe.

use std::sync::{Arc, OnceLock};

use crate::clock::Clock;
use crate::codecs::Jpegs;
use crate::platform::{Codecs, Device, Platform};
use crate::source::{LensSource, SourceError, SourceSpec, UnitSink};
use crate::sources;

pub(crate) mod devices;

/// The platform without board support.
#[derive(Default)]
pub struct Generic {
    codecs: OnceLock<Arc<Jpegs>>,
}

impl Generic {
    /// Touches no device and starts nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Platform for Generic {
    fn name(&self) -> &'static str {
        "generic"
    }

    fn evidence(&self) -> String {
        "no supported board recognised; this works on every Linux".to_owned()
    }

    fn devices(&self) -> Vec<Device> {
        devices::v4l2()
    }

    fn open(
        &self,
        spec: &SourceSpec,
        audio: bool,
        clock: Arc<dyn Clock>,
        sink: Arc<dyn UnitSink>,
    ) -> Result<Box<dyn LensSource>, SourceError> {
        sources::open(spec, audio, clock, sink)
    }

    fn codecs(&self) -> Arc<dyn Codecs> {
        Arc::clone(self.codecs.get_or_init(|| Arc::new(Jpegs::new()))) as Arc<dyn Codecs>
    }
}
