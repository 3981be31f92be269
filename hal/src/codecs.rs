//! Decoders and encoders for stored media.

use crate::media::VideoFormat;
use crate::platform::{CodecError, Codecs, Jpeg, JpegOptions};

/// Keyframes to JPEG by warm decoders.
#[derive(Default)]
pub struct Jpegs {}

impl Jpegs {
    /// Starts nothing until the first picture is asked for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Codecs for Jpegs {
    fn jpeg(&self, format: &VideoFormat, _: &[u8], _: JpegOptions) -> Result<Jpeg, CodecError> {
        Err(CodecError::Missing { codec: format.codec.name(), tried: "nothing yet".into() })
    }
}
