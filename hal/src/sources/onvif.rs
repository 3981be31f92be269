//! `onvif://` and `onvifs://`, a network camera that says itself where it streams.
//!
//! Promises to ask at each start, so that another path, port, profile or (if it is named by its UUID) address heals by the
//! next attempt, and to be the camera's `rtsp://` source from then on, with the same login. What is asked over TLS is streamed
//! over TLS (`rtsps://`), unless the configuration permits otherwise: else the attempt ends, and no login leaves.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::outlet::Outlet;
use super::{later, rtsp};
use crate::onvif::{self, OnvifError};
use crate::source::{Credentials, LensSource, SourceError, Transport, Trust};

/// How long a camera may take to say where it streams.
const ASKING: Duration = Duration::from_secs(6);
/// The same over TLS, with a handshake for each question. A source that delivers nothing is given up after 10 s.
const ASKING_SECURELY: Duration = Duration::from_secs(9);

/// Starts asking. `url` holds no credentials.
pub(super) fn open(
    url: &Url,
    credentials: Option<&Credentials>,
    transport: Transport,
    trust: &Trust,
    audio: bool,
    outlet: &Arc<Outlet>,
) -> Result<Box<dyn LensSource>, SourceError> {
    let (url, credentials, trust, out) = (url.clone(), credentials.cloned(), trust.clone(), Arc::clone(outlet));
    let limit = if url.scheme() == "onvifs" { ASKING_SECURELY } else { ASKING };
    let source = later::begin(outlet, |place| {
        onvif::spawn(async move {
            let opened = match tokio::time::timeout(limit, onvif::resolve(&url, credentials.as_ref(), &trust)).await {
                Ok(Ok((profile, uri))) => {
                    log::debug!("{}: profile {} at port {:?}", out.what, profile.token, uri.port());
                    rtsp::open(&url, &uri, credentials.as_ref(), transport, &trust, audio, &out)
                }
                Ok(Err(e)) => Err(failure(&out, e)),
                Err(_) => {
                    let detail = format!("it does not say within {} s where it streams", limit.as_secs());
                    Err(SourceError::Absent { what: out.what.clone(), detail })
                }
            };
            place.fill(opened);
        })
    });
    Ok(Box::new(source?))
}

fn failure(outlet: &Outlet, e: OnvifError) -> SourceError {
    let what = outlet.what.clone();
    match e {
        OnvifError::Unreachable(detail) => SourceError::Absent { what, detail },
        OnvifError::BrokeOff(detail) => SourceError::Broken { what, detail },
        OnvifError::Refused(detail) => SourceError::Refused { what, detail },
        e @ (OnvifError::Fault { .. } | OnvifError::Nonsense { .. } | OnvifError::NoStream(_)) => {
            SourceError::Unsupported { what, detail: e.to_string() }
        }
    }
}
