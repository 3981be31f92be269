//! The way of a WebRTC session's pictures from `webrtcbin` to the recorder.
//!
//! Promises:
//! - P1: no picture passes before the certificate of who sends was found to be the one that the answer names ([`certificate`]).
//! - P2: a keyframe is asked for with the first packet and behind a loss, and again every second until a picture comes out: a
//!   depayloader that begins in the middle of a group lets nothing out, and who sends keyframes only when asked sends none.
//! - P3: times are the sender's, placed like those of RTSP (`super::super::receiver`); a lost packet is told with the picture that
//!   follows it; who sends another stream in mid-session, or a picture without end, is left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSinkCallbacks};
use gstreamer_video::UpstreamForceKeyUnitEvent;

use super::super::endless::Gathered;
use super::super::outlet::Outlet;
use super::super::received::Received;
use super::super::samples::{self, Samples};
use super::super::{live, media_time};
use super::certificate::{self, Named};
use crate::gst as common;
use crate::source::SourceError;

/// The name of the sink.
pub(super) const OUT: &str = "out";
/// How long a keyframe that was asked for may take.
const AGAIN: Duration = Duration::from_secs(1);

/// The one stream that is recorded.
pub(super) struct Stream {
    outlet: Arc<Outlet>,
    pipeline: gst::glib::WeakRef<gst::Pipeline>,
    received: Arc<Received>,
    gathered: Gathered,
    /// Who may send; known before anything can come.
    named: OnceLock<Vec<Named>>,
    /// The certificate was looked at.
    believed: AtomicBool,
    /// There is one.
    taken: AtomicBool,
    /// A packet was lost since the last picture.
    damaged: AtomicBool,
    /// When a keyframe was asked for that a picture has not followed.
    asked: Mutex<Asked>,
}

/// Whether a keyframe is wanted.
enum Asked {
    No,
    Wanted(Option<Instant>),
}

impl Asked {
    /// Whether it is time to ask.
    fn is_due(&mut self, now: Instant) -> bool {
        let Self::Wanted(last) = self else { return false };
        let due = last.is_none_or(|last| now.duration_since(last) >= AGAIN);
        if due {
            *last = Some(now);
        }
        due
    }
}

impl Stream {
    /// Gives the first video stream that `webrtc` hands out its way.
    pub(super) fn await_one(pipeline: &gst::Pipeline, webrtc: &gst::Element, outlet: &Arc<Outlet>) -> Arc<Self> {
        let stream = Arc::new(Self {
            outlet: Arc::clone(outlet),
            pipeline: pipeline.downgrade(),
            received: Received::new(outlet, outlet.clock.mono()),
            gathered: Gathered::default(),
            named: OnceLock::new(),
            believed: AtomicBool::new(false),
            taken: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            asked: Mutex::new(Asked::Wanted(None)),
        });
        let this = Arc::clone(&stream);
        webrtc.connect_pad_added(move |_, pad| {
            if pad.direction() == gst::PadDirection::Src
                && let Some(pipeline) = this.pipeline.upgrade()
            {
                this.take(&pipeline, pad);
            }
        });
        stream
    }

    /// Whose certificate is believed (P1).
    pub(super) fn believe(&self, named: Vec<Named>) {
        // An answer is taken once.
        let _ = self.named.set(named);
    }

    fn take(self: &Arc<Self>, pipeline: &gst::Pipeline, pad: &gst::Pad) {
        let caps = pad.current_caps().or_else(|| pad.allowed_caps()).unwrap_or_else(|| pad.query_caps(None));
        let name = caps.structure(0).and_then(|s| s.get::<String>("encoding-name").ok()).unwrap_or_default();
        let Some(text) = branch(&name) else {
            log::debug!("{}: a stream of {name} is left out", self.outlet.what);
            return;
        };
        if self.taken.swap(true, Ordering::SeqCst) {
            // It would stay unlinked, and the first one silent.
            self.outlet.end(self.outlet.broken("it began another stream"));
            return;
        }
        let linked = super::super::file::connect(pipeline, pad, &text);
        if let Err(why) = linked.and_then(|sink| self.deliver(&sink).ok_or_else(|| "no depayloader".to_owned())) {
            self.outlet.end(self.outlet.unsupported(why));
        }
    }

    fn deliver(self: &Arc<Self>, sink: &AppSink) -> Option<()> {
        let depay = sink.parent()?.downcast::<gst::Bin>().ok()?.by_name("depay")?;
        let input = depay.static_pad("sink")?;
        let this = Arc::clone(self);
        input.add_probe(gst::PadProbeType::BUFFER, move |pad, info| this.packet(pad, info.buffer()));
        media_time::keep(&depay)?;
        let this = Arc::clone(self);
        input.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            let lost = |event: &gst::EventRef| event.structure().is_some_and(|s| s.name() == "GstRTPPacketLost");
            if info.event().is_some_and(|event| lost(event)) && !this.damaged.swap(true, Ordering::SeqCst) {
                *this.asked.lock().unwrap_or_else(PoisonError::into_inner) = Asked::Wanted(None);
            }
            gst::PadProbeReturn::Ok
        });
        let this = Arc::clone(self);
        let mut samples = Samples::new(true);
        let callbacks = AppSinkCallbacks::builder().new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Flushing)?;
            this.picture(&sample, &mut samples)
        });
        sink.set_callbacks(callbacks.build());
        Some(())
    }

    /// A packet on its way into the depayloader.
    fn packet(&self, pad: &gst::Pad, packet: Option<&gst::Buffer>) -> gst::PadProbeReturn {
        if let Err(why) = self.judge() {
            self.outlet.end(why);
            return common::REFUSED;
        }
        if self.asked.lock().unwrap_or_else(PoisonError::into_inner).is_due(Instant::now()) {
            pad.push_event(UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
        }
        if let Err(why) = self.gathered.packet(packet) {
            self.outlet.end(self.outlet.broken(why));
            return common::REFUSED;
        }
        gst::PadProbeReturn::Ok
    }

    /// P1. There are keys, and so packets, only after the certificate has been shown.
    fn judge(&self) -> Result<(), SourceError> {
        if self.believed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let named = self.named.get().map(Vec::as_slice).unwrap_or_default();
        let refused = |detail| SourceError::Refused { what: self.outlet.what.clone(), detail };
        let pipeline = self.pipeline.upgrade().ok_or_else(|| self.outlet.broken("it is over"))?;
        certificate::is_shown(&pipeline, named).map_err(refused)?;
        self.believed.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn picture(
        self: &Arc<Self>,
        sample: &gst::Sample,
        samples: &mut Samples,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let arrival = self.outlet.clock.mono();
        match samples.unit(sample, arrival, crate::clock::Mono) {
            Ok(mut unit) => {
                self.gathered.unit();
                *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Asked::No;
                unit.discontinuity |= self.damaged.swap(false, Ordering::SeqCst);
                self.received.unit(0, unit);
                Ok(gst::FlowSuccess::Ok)
            }
            Err(why) => {
                self.outlet.end(self.outlet.unsupported(why));
                Err(gst::FlowError::Error)
            }
        }
    }
}

fn branch(name: &str) -> Option<String> {
    let parser = match name {
        "H264" => {
            format!("rtph264depay name=depay ! h264parse config-interval=0 ! {}", samples::H264)
        }
        "H265" => format!("rtph265depay name=depay ! h265parse config-interval=0 ! {}", samples::H265),
        _ => return None,
    };
    Some(format!("{parser} ! {}", live::sink(OUT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p2_a_keyframe_is_asked_for_each_second_until_a_picture_comes() {
        let start = Instant::now();
        let mut asked = Asked::Wanted(None);
        let due: Vec<u64> = (0..25).filter(|n| asked.is_due(start + AGAIN / 10 * *n)).map(u64::from).collect();
        assert_eq!(due, [0, 10, 20]);
        assert!(!Asked::No.is_due(start));
    }
}
