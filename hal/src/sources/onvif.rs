//! `onvif://`, a network camera that says itself where it streams.
//!
//! Promises to ask at each start, so that another path, port, profile or (if it is named by its UUID) address heals by the
//! next attempt, and to be the camera's `rtsp://` source from then on, with the same login.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use url::Url;

use super::outlet::Outlet;
use super::rtsp;
use crate::onvif::{self, OnvifError};
use crate::source::{Credentials, LensSource, SourceError, Transport};

/// How long a camera may take to say where it streams.
const ASKING: Duration = Duration::from_secs(6);

/// A camera that is being asked, or streams.
struct Onvif {
    stage: Arc<Mutex<Stage>>,
    outlet: Arc<Outlet>,
    _asking: onvif::Task,
}

enum Stage {
    Asking,
    Streaming(Box<dyn LensSource>),
    Over,
}

fn lock(stage: &Mutex<Stage>) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LensSource for Onvif {
    fn request_keyframe(&self) -> bool {
        match &*lock(&self.stage) {
            Stage::Streaming(source) => source.request_keyframe(),
            Stage::Asking | Stage::Over => false,
        }
    }
}

impl Drop for Onvif {
    fn drop(&mut self) {
        self.outlet.silence();
        let stage = std::mem::replace(&mut *lock(&self.stage), Stage::Over);
        drop(stage);
    }
}

/// Starts asking. `url` holds no credentials.
pub(super) fn open(
    url: &Url,
    credentials: Option<&Credentials>,
    transport: Transport,
    audio: bool,
    outlet: &Arc<Outlet>,
) -> Result<Box<dyn LensSource>, SourceError> {
    let stage = Arc::new(Mutex::new(Stage::Asking));
    let (url, credentials) = (url.clone(), credentials.cloned());
    let (later, out) = (Arc::clone(&stage), Arc::clone(outlet));
    let asking = onvif::spawn(async move {
        match tokio::time::timeout(ASKING, onvif::resolve(&url, credentials.as_ref())).await {
            Ok(Ok((profile, uri))) => {
                log::debug!("{}: profile {} at port {:?}", out.what, profile.token, uri.port());
                begin(&later, rtsp::open(&uri, credentials.as_ref(), transport, audio, &out), &out);
            }
            Ok(Err(e)) => out.end(failure(&out, e)),
            Err(_) => {
                let detail = format!("it does not say within {} s where it streams", ASKING.as_secs());
                out.end(SourceError::Absent { what: out.what.clone(), detail });
            }
        }
    });
    let asking = asking.map_err(|e| outlet.broken(format!("no thread for network cameras: {e}")))?;
    Ok(Box::new(Onvif { stage, outlet: Arc::clone(outlet), _asking: asking }))
}

/// Keeps a stream that was opened, unless nobody wants it any more.
fn begin(stage: &Mutex<Stage>, opened: Result<Box<dyn LensSource>, SourceError>, outlet: &Outlet) {
    match opened {
        Ok(source) => {
            let mut stage = lock(stage);
            let unwanted = match *stage {
                Stage::Asking => {
                    *stage = Stage::Streaming(source);
                    None
                }
                Stage::Streaming(_) | Stage::Over => Some(source),
            };
            drop(stage);
            drop(unwanted);
        }
        Err(why) => outlet.end(why),
    }
}

fn failure(outlet: &Outlet, e: OnvifError) -> SourceError {
    let what = outlet.what.clone();
    match e {
        OnvifError::Unreachable(detail) => SourceError::Absent { what, detail },
        OnvifError::Refused(detail) => SourceError::Refused { what, detail },
        e @ (OnvifError::Fault { .. } | OnvifError::Nonsense { .. } | OnvifError::NoStream(_)) => {
            SourceError::Unsupported { what, detail: e.to_string() }
        }
    }
}
