//! `whep+https://`, a camera or server that sends H.264 or H.265 over WebRTC, fetched by WHEP.
//!
//! Promises that coded pictures are passed on as they were sent ([`stream`]), by nobody else than who answered ([`certificate`]),
//! that token and password go nowhere but to the host of the configuration ([`http`]), and that a session ends at the server when
//! its source is dropped. Sound of WebRTC (Opus,
//! G.711) is not asked for: nothing here records it.
//!
//! Names are resolved, the elements started and the session agreed on a thread of its own.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use url::Url;

use super::later;
use super::live::{self, Live};
use super::outlet::Outlet;
use crate::source::{Credentials, LensSource, SourceError, Trust};

mod certificate;
pub(crate) mod hear;
mod http;
mod ice;
mod peer;
mod stream;

use http::{Endpoint, Failure};
use peer::Peer;

/// How long the server may take to name servers for ICE; most do not know the question.
const ASKING: Duration = Duration::from_secs(2);
/// How long all steps may take, from the first connection to the answer that is taken. A source that delivers nothing is given up
/// after 10 s, and none may be opened beside one that is still being prepared.
const OPENING: Duration = Duration::from_secs(9);
/// How long the server may take to answer an offer.
const ANSWERING: Duration = Duration::from_secs(6);
/// How long the end of a session may take.
const LEAVING: Duration = Duration::from_secs(1);

/// Starts connecting.
pub(super) fn open(
    url: &Url,
    credentials: Option<&Credentials>,
    trust: &Trust,
    audio: bool,
    outlet: &Arc<Outlet>,
) -> Result<Box<dyn LensSource>, SourceError> {
    if audio {
        outlet.warn("sound of WebRTC is Opus or G.711, which is not recorded; pictures are");
    }
    let (endpoint, out) = (Endpoint::new(url, credentials, trust), Arc::clone(outlet));
    let source = later::begin(outlet, |place| {
        let open = move || place.fill(start(endpoint, &out));
        std::thread::Builder::new().name("mos-whep".into()).spawn(open)
    });
    Ok(Box::new(source?))
}

/// A session.
struct Whep {
    live: Option<Live>,
    pipeline: gst::glib::WeakRef<gst::Pipeline>,
    session: Option<Endpoint>,
}

impl Whep {
    /// Offers, and takes the answer.
    fn agree(
        &mut self,
        peer: &Peer,
        endpoint: Endpoint,
        runtime: &tokio::runtime::Runtime,
        named_before: bool,
        deadline: Instant,
        outlet: &Outlet,
    ) -> Result<(), SourceError> {
        let offer = peer.offer(deadline).map_err(|why| outlet.broken(why))?;
        if outlet.is_over() {
            return Err(unwanted(outlet));
        }
        let limit = ANSWERING.min(deadline.saturating_duration_since(Instant::now()));
        let late = |_| Failure::Absent(format!("no answer to the offer within {} s", limit.as_secs()));
        let agreed = runtime.block_on(async { tokio::time::timeout(limit, endpoint.offer(&offer)).await });
        let agreed = agreed.map_err(late).flatten().map_err(|e| e.of(&outlet.what))?;
        if agreed.late_ice && !named_before {
            outlet.warn("it names servers for ICE (STUN, TURN) with its answer only, which is too late for them");
        }
        // From here on its end is told to the server, whatever comes.
        self.session = agreed.session;
        peer.accept(&agreed.answer, deadline).map_err(|why| outlet.unsupported(why))
    }
}

impl LensSource for Whep {
    fn request_keyframe(&self) -> bool {
        self.pipeline.upgrade().is_some_and(|pipeline| Peer::request_keyframe(&pipeline))
    }
}

impl Drop for Whep {
    fn drop(&mut self) {
        let begun = Instant::now();
        let left = self.session.take().and_then(leave);
        drop(self.live.take());
        if let Some(left) = left {
            // Late or not at all: the server notices by itself that nobody listens.
            let _ = left.recv_timeout(LEAVING.saturating_sub(begun.elapsed()));
        }
    }
}

/// Ends a session at its server, beside what the caller does.
fn leave(session: Endpoint) -> Option<mpsc::Receiver<()>> {
    let (tell, left) = mpsc::channel();
    let work = move || {
        let runtime = runtime();
        if let Ok(runtime) = &runtime {
            let _ = runtime.block_on(async { tokio::time::timeout(LEAVING, session.delete()).await });
        }
        let _ = tell.send(());
        // A name that is still being looked for is not waited for.
        let _ = runtime.map(tokio::runtime::Runtime::shutdown_background);
    };
    std::thread::Builder::new().name("mos-whep-end".into()).spawn(work).ok().map(|_| left)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()
}

/// What becomes of a source that was dropped while it was prepared: nobody hears it.
fn unwanted(outlet: &Outlet) -> SourceError {
    outlet.broken("nobody wants it any more")
}

fn start(endpoint: Endpoint, outlet: &Arc<Outlet>) -> Result<Box<dyn LensSource>, SourceError> {
    let runtime = runtime().map_err(|e| outlet.broken(format!("no runtime: {e}")))?;
    let started = start_with(&runtime, endpoint, outlet);
    // A name that is still being looked for is not waited for.
    runtime.shutdown_background();
    started
}

fn start_with(
    runtime: &tokio::runtime::Runtime,
    endpoint: Endpoint,
    outlet: &Arc<Outlet>,
) -> Result<Box<dyn LensSource>, SourceError> {
    let deadline = Instant::now() + OPENING;
    // Before a key and a certificate are made, which an absent server is not worth.
    let ice = runtime.block_on(async { tokio::time::timeout(ASKING, endpoint.ice_servers()).await });
    let ice = ice.unwrap_or(Ok(Vec::new())).map_err(|e| e.of(&outlet.what))?;
    if outlet.is_over() {
        return Err(unwanted(outlet));
    }
    let peer = Peer::build(outlet, &ice).map_err(|why| outlet.unsupported(why))?;
    let live = Live::start(&peer.pipeline, outlet, live::Kind::Passed, ())?;
    let mut session = Whep { live: Some(live), pipeline: peer.pipeline.downgrade(), session: None };
    match session.agree(&peer, endpoint, runtime, !ice.is_empty(), deadline, outlet) {
        Ok(()) => Ok(Box::new(session)),
        Err(why) => {
            // Before the session is dropped, behind which nothing is told.
            outlet.end(why.clone());
            Err(why)
        }
    }
}
