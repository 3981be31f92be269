//! `srt://`, MPEG-TS over SRT with H.264 or H.265 and AAC, by `srtsrc` and `tsdemux`.
//!
//! Promises that coded pictures are passed on as they are, at the spacing of the sender's clock ([`Timeline`]); that a
//! connection that ends, or that is refused, ends the source, so that the capture service decides about the next attempt; and
//! that the passphrase is set on the element and written nowhere.
//!
//! Names are resolved and the element is started on a thread of its own.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use url::Url;

use super::live::{self, Live};
use super::outlet::Outlet;
use super::samples::{self, Samples};
use super::{file, later};
use crate::gst as common;
use crate::source::{LensSource, SourceError, SrtMode, SrtOptions, srt_address};
use crate::timeline::Timeline;

/// The signal of `srtsrc` that a listener was called.
const CALLED: &str = "caller-added";

/// Starts connecting or listening.
pub(super) fn open(
    url: &Url,
    options: &SrtOptions,
    audio: bool,
    outlet: &Arc<Outlet>,
) -> Result<Box<dyn LensSource>, SourceError> {
    let (address, options, out) = (srt_address(url), options.clone(), Arc::clone(outlet));
    let source = later::begin(outlet, |place| {
        let open = move || place.fill(start(&address, &options, audio, &out));
        std::thread::Builder::new().name("mos-srt".into()).spawn(open)
    });
    Ok(Box::new(source?))
}

/// A running pipeline that may wait for its camera.
struct Srt {
    _live: Live,
    listens: bool,
    /// Somebody has called; there is room for one.
    called: Arc<AtomicBool>,
}

impl LensSource for Srt {
    /// MPEG-TS has no way back.
    fn request_keyframe(&self) -> bool {
        false
    }

    /// Who calls and then sends nothing has to go like any silent camera, so that the next may call.
    fn awaits_caller(&self) -> bool {
        self.listens && !self.called.load(Ordering::SeqCst)
    }
}

fn start(
    address: &str,
    options: &SrtOptions,
    audio: bool,
    outlet: &Arc<Outlet>,
) -> Result<Box<dyn LensSource>, SourceError> {
    let pipeline = build(address, options, audio, outlet).map_err(|why| outlet.unsupported(why))?;
    let called = Arc::new(AtomicBool::new(false));
    if let Ok(src) = common::named::<gst::Element>(&pipeline, "srt")
        && gst::glib::subclass::SignalId::lookup(CALLED, src.type_()).is_some()
    {
        let called = Arc::clone(&called);
        src.connect(CALLED, false, move |_| {
            called.store(true, Ordering::SeqCst);
            None
        });
    }
    let live = Live::start(&pipeline, outlet, live::Kind::Passed, ())?;
    Ok(Box::new(Srt { _live: live, listens: options.mode == SrtMode::Listener, called }))
}

fn build(address: &str, options: &SrtOptions, audio: bool, outlet: &Arc<Outlet>) -> Result<gst::Pipeline, String> {
    common::init()?;
    let pipeline = common::build("srtsrc name=srt ! tsdemux name=demux")?;
    let src: gst::Element = common::named(&pipeline, "srt")?;
    let mode = match options.mode {
        SrtMode::Caller => "caller",
        SrtMode::Listener => "listener",
    };
    src.set_property("uri", format!("{address}?mode={mode}"));
    // One connection: the next is the capture service's matter.
    src.set_property("auto-reconnect", false);
    src.set_property("latency", i32::try_from(options.latency).unwrap_or(i32::MAX));
    if let Some(passphrase) = &options.passphrase {
        src.set_property("passphrase", passphrase);
    }
    if let Some(stream_id) = &options.stream_id {
        src.set_property("streamid", stream_id);
    }
    plain(&src)?;
    let demux: gst::Element = common::named(&pipeline, "demux")?;
    let timeline = Arc::new(Mutex::new(Timeline::new()));
    let (pictures, offered) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::<String>::new())));
    let tracks = AtomicUsize::new(0);
    let (parent, on_pad) = (pipeline.downgrade(), Arc::clone(outlet));
    let (seen, listed) = (Arc::clone(&pictures), Arc::clone(&offered));
    demux.connect_pad_added(move |_, pad| {
        let (Some(pipeline), Some(caps)) = (parent.upgrade(), pad.current_caps()) else { return };
        let name = caps.structure(0).map(|s| s.name().to_string()).unwrap_or_default();
        let is_video = name.starts_with("video/x-h26");
        // A transport stream may carry several programmes; the first picture counts.
        let wanted = if is_video { seen.fetch_add(1, Ordering::SeqCst) == 0 } else { audio };
        let Some(text) = branch(&name).filter(|_| wanted) else {
            listed.lock().unwrap_or_else(PoisonError::into_inner).push(name);
            return;
        };
        match file::connect(&pipeline, pad, &text) {
            Ok(sink) => {
                let track = tracks.fetch_add(1, Ordering::SeqCst);
                let timeline = Arc::clone(&timeline);
                live::deliver(&sink, Arc::clone(&on_pad), Samples::new(true), move |media, arrival| {
                    timeline.lock().unwrap_or_else(PoisonError::into_inner).place(track, media, arrival)
                });
            }
            Err(why) => on_pad.end(on_pad.unsupported(why)),
        }
    });
    let complete = Arc::clone(outlet);
    demux.connect_no_more_pads(move |_| {
        if pictures.load(Ordering::SeqCst) == 0 {
            let offered = offered.lock().unwrap_or_else(PoisonError::into_inner).join(", ");
            let offered = if offered.is_empty() { "nothing".to_owned() } else { offered };
            complete.end(complete.unsupported(format!("it offers {offered}; accepted are H.264 and H.265")));
        }
    });
    Ok(pipeline)
}

/// What follows a stream, if it is recorded.
fn branch(name: &str) -> Option<String> {
    let parser = match name {
        "video/x-h264" => format!("h264parse config-interval=0 ! {}", samples::H264),
        "video/x-h265" => format!("h265parse config-interval=0 ! {}", samples::H265),
        "audio/mpeg" => format!("aacparse ! {}", samples::AAC),
        _ => return None,
    };
    Some(format!("{parser} ! {}", live::sink("out")))
}

/// Takes the times of arrival off what the element receives, so that the demultiplexer keeps the sender's own spacing instead
/// of smoothing arrivals.
fn plain(src: &gst::Element) -> Result<(), String> {
    let pad = src.static_pad("src").ok_or("srtsrc without a pad")?;
    let types = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(types, |_, info| {
        match &mut info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                let buffer = buffer.make_mut();
                buffer.set_pts(gst::ClockTime::NONE);
                buffer.set_dts(gst::ClockTime::NONE);
            }
            Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::Segment => {
                let bytes = gst::FormattedSegment::<gst::format::Bytes>::new();
                *event = gst::event::Segment::builder(&bytes).seqnum(event.seqnum()).build();
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

/// What an error of `srtsrc` means; its own kinds say only that reading failed. libsrt's words (srtcore/srt_c_api.cpp).
pub(super) fn meaning(what: &str, detail: &str) -> Option<SourceError> {
    let what = what.to_owned();
    let tells = |words: &[&str]| words.iter().any(|word| detail.contains(word));
    if tells(&["authenticate", "passphrase", "Password"]) {
        let detail = "it does not accept this passphrase, or one side has none".to_owned();
        return Some(SourceError::Refused { what, detail });
    }
    if tells(&["Connection timeout", "Connection setup failure", "resolve", "Network is unreachable", "rejected"]) {
        return Some(SourceError::Absent { what, detail: detail.to_owned() });
    }
    None
}
