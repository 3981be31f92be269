//! Network cameras over UDP, by GStreamer's `rtspsrc`, which orders packets and asks for none twice.
//!
//! Promises the same access units, times and errors as over TCP. Packets that come out of order are put in order within
//! [`ORDERING`] by our clock, whatever the camera's does; one that does not come by then costs the pictures up to the next keyframe. One pipeline per camera: only
//! cameras that need UDP get one.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSinkCallbacks};

use super::super::endless::Gathered;
use super::super::media_time;
use super::super::outlet::Outlet;
use super::super::received::Received;
use super::super::samples::{self, Samples};
use super::refusals::{self, Refusals};
use super::{Camera, HANDSHAKE, OverUdp};
use crate::clock::Mono;
use crate::gst as common;
use crate::media::FrameKind;
use crate::source::SourceError;

/// How long a missing packet is waited for.
const ORDERING: Duration = Duration::from_millis(200);
/// Nothing came over UDP for so long: it does not get through.
pub(super) const SILENT: Duration = Duration::from_secs(4);

/// A running session. Dropping it stops it.
pub(super) struct Udp {
    pipeline: Option<gst::Pipeline>,
    outlet: Arc<Outlet>,
}

impl Drop for Udp {
    fn drop(&mut self) {
        self.outlet.silence();
        if let Some(pipeline) = self.pipeline.take() {
            common::stop(pipeline);
        }
    }
}

/// What the threads of a session share.
struct Session {
    camera: Camera,
    received: Arc<Received>,
    gathered: Gathered,
    /// A packet was lost since the last picture.
    damaged: AtomicBool,
    /// A picture came.
    delivered: AtomicBool,
    /// Requests that were to be sent.
    requests: AtomicU32,
    /// Who hears of the first picture and of the end.
    way: Arc<OverUdp>,
}

impl Session {
    fn finish(&self, why: SourceError) {
        self.received.settle();
        self.way.end(why, self.delivered.load(Ordering::SeqCst));
    }
}

/// Starts a session. `way` hears of its first picture and of its end, perhaps before this returns; of an error here it does not.
pub(super) fn start(camera: Camera, opened: Mono, way: Arc<OverUdp>) -> Result<Udp, SourceError> {
    let outlet = Arc::clone(&camera.outlet);
    let unsupported = |why: String| outlet.unsupported(why);
    common::init().map_err(unsupported)?;
    let element = |name: &str| {
        let made = gst::ElementFactory::make(name).build();
        made.map_err(|_| unsupported(format!("UDP needs GStreamer's element {name}, which is not installed")))
    };
    let source = element("rtspsrc")?;
    let received = Received::new(&outlet, opened);
    let (damaged, delivered) = (AtomicBool::new(false), AtomicBool::new(false));
    let (gathered, requests) = (Gathered::default(), AtomicU32::new(0));
    let session = Arc::new(Session { camera, received, gathered, damaged, delivered, requests, way });
    configure(&source, &session.camera).map_err(unsupported)?;
    let pipeline = gst::Pipeline::new();
    pipeline.add(&source).map_err(|e| outlet.broken(e.to_string()))?;
    ask(&source, &session);
    choose(&source, &session);
    connect(&source, &pipeline, &session);
    watch(&pipeline, &session);
    if pipeline.set_state(gst::State::Playing).is_err() && !outlet.is_over() {
        // Not by a drop of what is returned below, behind which the reason would not be told.
        common::stop(pipeline);
        return Err(outlet.broken("the pipeline for UDP does not start"));
    }
    Ok(Udp { pipeline: Some(pipeline), outlet })
}

fn configure(source: &gst::Element, camera: &Camera) -> Result<(), String> {
    let micros = |time: Duration| time.as_micros().to_string();
    source.set_property("location", camera.url.as_str());
    if let Some(login) = &camera.credentials {
        source.set_property("user-id", &login.user);
        source.set_property("user-pw", &login.password);
    }
    for (name, value) in [
        ("protocols", "udp"),
        ("latency", &ORDERING.as_millis().to_string()),
        // It waits by our clock; the times as the camera gives them are put back behind it, and what follows maps them.
        ("buffer-mode", "slave"),
        ("timeout", &micros(SILENT)),
        ("tcp-timeout", &micros(HANDSHAKE)),
        ("udp-reconnect", "false"),
        ("do-retransmission", "false"),
        ("user-agent", concat!("mos/", env!("CARGO_PKG_VERSION"))),
    ] {
        common::set(source, name, value)?;
    }
    // No later report shifts when packets leave. Tracks are related by what PLAY answered, as over TCP.
    source.connect("new-manager", false, |values| {
        if let Some(Ok(manager)) = values.get(1).map(gst::glib::Value::get::<gst::Element>)
            && let Err(why) = common::set(&manager, "rtcp-sync", "rtp-info")
        {
            log::warn!("{why}");
        }
        None
    });
    Ok(())
}

/// Leaves the first request out, which is OPTIONS, if the camera refused it before.
fn ask(source: &gst::Element, session: &Arc<Session>) {
    let session = Arc::clone(session);
    source.connect("before-send", false, move |_| {
        let first = session.requests.fetch_add(1, Ordering::SeqCst) == 0;
        Some(!(first && Refusals::get().has(&session.camera.url))).map(|send| send.to_value())
    });
}

/// What a stream of the description is for us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Track {
    H264,
    H265,
    Aac,
    ALaw,
    MuLaw,
}

impl Track {
    fn of(caps: &gst::CapsRef) -> Option<Self> {
        let described = caps.structure(0)?;
        match (described.get::<&str>("media").ok()?, described.get::<&str>("encoding-name").ok()?) {
            ("video", "H264") => Some(Self::H264),
            ("video", "H265") => Some(Self::H265),
            // The way to the camera's loudspeaker.
            ("audio", _) if described.has_field("a-sendonly") => None,
            ("audio", "MPEG4-GENERIC") => Some(Self::Aac),
            ("audio", "PCMA") => Some(Self::ALaw),
            ("audio", "PCMU") => Some(Self::MuLaw),
            _ => None,
        }
    }

    fn is_sound(self) -> bool {
        matches!(self, Self::Aac | Self::ALaw | Self::MuLaw)
    }

    fn text(self) -> String {
        let (line, caps) = match self {
            Self::H264 => ("rtph264depay name=depay ! h264parse config-interval=0", samples::H264),
            Self::H265 => ("rtph265depay name=depay ! h265parse config-interval=0", samples::H265),
            Self::Aac => ("rtpmp4gdepay name=depay ! aacparse", samples::AAC),
            Self::ALaw => ("rtppcmadepay name=depay", samples::A_LAW),
            Self::MuLaw => ("rtppcmudepay name=depay", samples::MU_LAW),
        };
        format!("{line} ! {caps} ! appsink name=units sync=false async=false qos=false enable-last-sample=false")
    }
}

/// Sets up the first video stream, and sound if it is asked for; nothing else enters the process.
fn choose(source: &gst::Element, session: &Arc<Session>) {
    let session = Arc::clone(session);
    let seen: Mutex<(Vec<String>, [bool; 2])> = Mutex::default();
    source.connect("select-stream", false, move |values| {
        let caps = values.get(2).and_then(|v| v.get::<gst::Caps>().ok());
        let track = caps.as_ref().and_then(|caps| Track::of(caps));
        let (_, taken) = &mut *seen.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = match track {
            Some(track) if track.is_sound() => session.camera.audio && !std::mem::replace(&mut taken[1], true),
            Some(_) => !std::mem::replace(&mut taken[0], true),
            None => false,
        };
        Some(wanted.to_value())
    });
}

/// Gives each stream that comes its way to the receiver.
fn connect(source: &gst::Element, pipeline: &gst::Pipeline, session: &Arc<Session>) {
    let (pipeline, session) = (pipeline.downgrade(), Arc::clone(session));
    source.connect_pad_added(move |_, pad| {
        let Some(pipeline) = pipeline.upgrade() else { return };
        let track = pad.current_caps().or_else(|| Some(pad.query_caps(None))).and_then(|caps| Track::of(&caps));
        let Some(track) = track else { return };
        if let Err(why) = attach(&pipeline, pad, track, &session) {
            session.finish(session.camera.outlet.unsupported(why));
        }
    });
}

fn attach(pipeline: &gst::Pipeline, pad: &gst::Pad, track: Track, session: &Arc<Session>) -> Result<(), String> {
    let bin = gst::parse::bin_from_description(&track.text(), false).map_err(|e| e.message().to_owned())?;
    let depay = bin.by_name("depay").ok_or("no depayloader")?;
    let input = depay.static_pad("sink").ok_or("no input")?;
    let sink: AppSink = bin.by_name("units").and_then(|e| e.downcast().ok()).ok_or("no sink")?;
    media_time::keep(&depay).ok_or("a depayloader without pads")?;
    deliver(&sink, track, session);
    if !track.is_sound() {
        let counting = Arc::clone(session);
        input.add_probe(gst::PadProbeType::BUFFER, move |_, info| match counting.gathered.packet(info.buffer()) {
            Ok(()) => gst::PadProbeReturn::Ok,
            Err(why) => {
                counting.finish(counting.camera.outlet.broken(why));
                common::REFUSED
            }
        });
        let session = Arc::clone(session);
        input.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            let lost = |event: &gst::EventRef| event.structure().is_some_and(|s| s.name() == "GstRTPPacketLost");
            if info.event().is_some_and(|event| lost(event)) {
                session.damaged.store(true, Ordering::SeqCst);
            }
            gst::PadProbeReturn::Ok
        });
    }
    let ghost = gst::GhostPad::with_target(&input).map_err(|e| e.to_string())?;
    ghost.set_active(true).map_err(|e| e.to_string())?;
    bin.add_pad(&ghost).map_err(|e| e.to_string())?;
    pipeline.add(&bin).map_err(|e| e.to_string())?;
    bin.sync_state_with_parent().map_err(|e| e.to_string())?;
    pad.link(&ghost).map_err(|e| format!("a stream cannot be linked: {e}"))?;
    Ok(())
}

fn deliver(sink: &AppSink, track: Track, session: &Arc<Session>) {
    let session = Arc::clone(session);
    let mut samples = Samples::new(true);
    let number = usize::from(track.is_sound());
    let callbacks = AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Flushing)?;
        let arrival = session.camera.outlet.clock.mono();
        match samples.unit(&sample, arrival, Mono) {
            Ok(mut unit) => {
                if unit.kind != FrameKind::Audio {
                    session.gathered.unit();
                    if !session.delivered.swap(true, Ordering::SeqCst) {
                        session.way.delivers();
                    }
                    unit.discontinuity |= session.damaged.swap(false, Ordering::SeqCst);
                }
                session.received.unit(number, unit);
                Ok(gst::FlowSuccess::Ok)
            }
            Err(why) => {
                session.finish(session.camera.outlet.unsupported(why));
                Err(gst::FlowError::Error)
            }
        }
    });
    sink.set_callbacks(callbacks.build());
}

/// Turns bus messages into the end of the session, in the thread that posts them.
fn watch(pipeline: &gst::Pipeline, session: &Arc<Session>) {
    let Some(bus) = pipeline.bus() else { return };
    let session = Arc::clone(session);
    bus.set_sync_handler(move |_, message| {
        let outlet = &session.camera.outlet;
        match message.view() {
            gst::MessageView::Error(e) => session.finish(failure(&session, e)),
            gst::MessageView::Eos(_) => session.finish(outlet.broken("the camera ended its stream")),
            // The packets would go on for a while, or not; the session is over.
            gst::MessageView::Warning(w)
                if w.error().kind::<gst::ResourceError>() == Some(gst::ResourceError::Read) =>
            {
                session.finish(outlet.broken("the camera closed the connection"));
            }
            _ => {}
        }
        gst::BusSyncReply::Drop
    });
}

/// Which kind of failure an error of `rtspsrc` is: the same as over TCP, in words that hold nothing of the address.
fn failure(session: &Session, error: &gst::message::Error) -> SourceError {
    use gst::{ResourceError as R, StreamError};
    let camera = &session.camera;
    let what = camera.outlet.what.clone();
    let kind = error.error().kind::<R>();
    let refused = error.debug().filter(|_| kind == Some(R::Read)).and_then(|said| refusals::status(&said));
    if let Some(status) = refused {
        let options = session.requests.load(Ordering::SeqCst) == 1;
        if options {
            Refusals::get().add(&camera.url);
        }
        let asked = if options { "OPTIONS; the next attempt does without" } else { "a request" };
        return SourceError::Broken { what, detail: format!("over UDP it answers {status} to {asked}") };
    }
    match kind {
        Some(R::NotAuthorized) => SourceError::Refused { what, detail: camera.login_refused().into() },
        Some(R::NotFound) => SourceError::Refused { what, detail: "it has no stream of that path (404)".into() },
        Some(R::OpenReadWrite | R::OpenRead) => {
            SourceError::Absent { what, detail: "no connection to its RTSP port".into() }
        }
        Some(R::Settings) => SourceError::Refused { what, detail: "it does not send over UDP".into() },
        Some(R::Read) => {
            SourceError::Broken { what, detail: format!("nothing comes over UDP for {} s", SILENT.as_secs()) }
        }
        None if error.error().is::<StreamError>() => {
            SourceError::Unsupported { what, detail: "it offers no H.264 or H.265 over UDP".into() }
        }
        _ => SourceError::Broken { what, detail: camera.shown(&common::words(error)) },
    }
}
