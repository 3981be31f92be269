//! Cameras that refuse OPTIONS (Foscam answers 400), with which `rtspsrc` begins and without whose answer it goes no further.
//!
//! Promises that OPTIONS is left out only for a camera that refused it, from its next session on. It is not left out for all: its
//! answer tells by which request a session is kept alive. Kept by the address that streams, for the life of the process.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use url::Url;

/// Most cameras that are remembered; some stream at another address each time.
const MOST: usize = 256;

/// Who refused.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<BTreeSet<Url>>);

impl Refusals {
    /// Those of this process.
    pub(super) fn get() -> &'static Self {
        static REFUSALS: Refusals = Refusals(Mutex::new(BTreeSet::new()));
        &REFUSALS
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Url>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the camera is to be asked without OPTIONS.
    pub(super) fn has(&self, url: &Url) -> bool {
        self.lock().contains(url)
    }

    /// A camera refused.
    pub(super) fn add(&self, url: &Url) {
        let mut table = self.lock();
        if table.len() >= MOST {
            table.clear();
        }
        table.insert(url.clone());
    }
}

/// The status that ends what an error of `rtspsrc` says besides: "Bad Request (400)".
pub(super) fn status(said: &str) -> Option<u16> {
    let (_, status) = said.trim_end().strip_suffix(')')?.rsplit_once('(')?;
    status.parse().ok().filter(|status| (300..600).contains(status))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_status_stands_at_the_end() {
        let said =
            "../gst/rtsp/gstrtspsrc.c(6954): gst_rtspsrc_send (): /GstPipeline:p/GstRTSPSrc:s:\nBad Request (400)";
        assert_eq!(status(said), Some(400));
        for none in ["", ")", "()", "Could not receive message. (Timeout while waiting for server response)", "x (7)"] {
            assert_eq!(status(none), None, "{none}");
        }
    }

    #[test]
    fn no_more_than_some_are_remembered() {
        let refusals = Refusals::default();
        for port in 1..=MOST + 1 {
            refusals.add(&Url::parse(&format!("rtsp://h:{port}/s")).unwrap());
        }
        assert!(refusals.lock().len() <= MOST);
        assert!(refusals.has(&Url::parse(&format!("rtsp://h:{}/s", MOST + 1)).unwrap()));
    }
}
