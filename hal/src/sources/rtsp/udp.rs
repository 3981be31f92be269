//! Network cameras over UDP, by GStreamer's `rtspsrc`, which orders packets and asks for none twice.
//!
//! Promises the same access units, times and errors as over TCP. Packets that come out of order are put in order within
//! [`ORDERING`] by our clock, whatever the camera's does; one that does not come by then costs the pictures up to the next keyframe. One pipeline per camera: only
//! cameras that need UDP get one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSinkCallbacks};

use super::super::outlet::Outlet;
use super::super::samples::{self, Samples};
use super::media_time;
use super::opening::Raw;
use super::receiver::Receiver;
use super::{Camera, HANDSHAKE};
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
    receiver: Mutex<Receiver>,
    /// A packet was lost since the last picture.
    damaged: AtomicBool,
    /// A picture came.
    delivered: AtomicBool,
    /// What to do with the end of the session.
    end: Box<dyn Fn(SourceError, bool) + Send + Sync>,
}

impl Session {
    fn receiver(&self) -> MutexGuard<'_, Receiver> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, why: SourceError) {
        self.receiver().settle();
        (self.end)(why, self.delivered.load(Ordering::SeqCst));
    }
}

/// Starts a session. `end` hears how it ended and whether it had delivered a picture; it may be called before this returns.
pub(super) fn start(
    camera: Camera,
    opened: Mono,
    end: impl Fn(SourceError, bool) + Send + Sync + 'static,
) -> Result<Udp, SourceError> {
    let outlet = Arc::clone(&camera.outlet);
    let unsupported = |why: String| outlet.unsupported(why);
    common::init().map_err(unsupported)?;
    let element = |name: &str| {
        let made = gst::ElementFactory::make(name).build();
        made.map_err(|_| unsupported(format!("UDP needs GStreamer's element {name}, which is not installed")))
    };
    let source = element("rtspsrc")?;
    let receiver = Mutex::new(Receiver::new(&outlet, opened));
    let (damaged, delivered) = (AtomicBool::new(false), AtomicBool::new(false));
    let session = Arc::new(Session { camera, receiver, damaged, delivered, end: Box::new(end) });
    configure(&source, &session.camera).map_err(unsupported)?;
    let pipeline = gst::Pipeline::new();
    pipeline.add(&source).map_err(|e| outlet.broken(e.to_string()))?;
    choose(&source, &session);
    connect(&source, &pipeline, &session);
    watch(&pipeline, &session);
    let udp = Udp { pipeline: Some(pipeline.clone()), outlet: Arc::clone(&outlet) };
    if pipeline.set_state(gst::State::Playing).is_err() && !outlet.is_over() {
        return Err(outlet.broken("the pipeline for UDP does not start"));
    }
    Ok(udp)
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

/// What a stream of the description is for us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Track {
    H264,
    H265,
    Sound,
}

impl Track {
    fn of(caps: &gst::CapsRef) -> Option<Self> {
        let described = caps.structure(0)?;
        match (described.get::<&str>("media").ok()?, described.get::<&str>("encoding-name").ok()?) {
            ("video", "H264") => Some(Self::H264),
            ("video", "H265") => Some(Self::H265),
            ("audio", "MPEG4-GENERIC") => Some(Self::Sound),
            _ => None,
        }
    }

    fn text(self) -> String {
        let (line, caps) = match self {
            Self::H264 => ("rtph264depay name=depay ! h264parse config-interval=0", samples::H264),
            Self::H265 => ("rtph265depay name=depay ! h265parse config-interval=0", samples::H265),
            Self::Sound => ("rtpmp4gdepay name=depay ! aacparse", samples::AAC),
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
            Some(Track::Sound) => session.camera.audio && !std::mem::replace(&mut taken[1], true),
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
    if track != Track::Sound {
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
    let number = usize::from(track == Track::Sound);
    let callbacks = AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Flushing)?;
        let arrival = session.camera.outlet.clock.mono();
        match samples.unit(&sample, arrival, Mono) {
            Ok(mut unit) => {
                if unit.kind != FrameKind::Audio {
                    session.delivered.store(true, Ordering::SeqCst);
                    unit.discontinuity |= session.damaged.swap(false, Ordering::SeqCst);
                }
                if let Some(Mono(media)) = unit.pts.take() {
                    session.receiver().pass(Raw { track: number, media, unit });
                } else {
                    // Without a time it goes as it came; the recorder finds one.
                    session.receiver().settle();
                    session.camera.outlet.unit(unit);
                }
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
            gst::MessageView::Error(e) => session.finish(failure(&session.camera, e)),
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
fn failure(camera: &Camera, error: &gst::message::Error) -> SourceError {
    use gst::{ResourceError as R, StreamError};
    let what = camera.outlet.what.clone();
    match error.error().kind::<R>() {
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
