//! A throw-away camera for the demo: real RTSP over TCP on the loopback, with Digest authentication.
//!
//! Firmware leaves it out (cargo feature `demo`).

/// Why the camera could not be started.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot serve the demo camera: {0}")]
pub struct DemoError(pub String);

/// A running 720p H.264 camera; dropping it stops it.
#[derive(Debug)]
pub struct RtspServer {
    url: String,
}

impl RtspServer {
    /// Serves on a free port of 127.0.0.1 with a user and password of its own.
    pub fn start() -> Result<Self, DemoError> {
        Err(DemoError("not yet".into()))
    }

    /// `rtsp://user:password@127.0.0.1:port/cabin`: a source as for the configuration. Holds a password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}
