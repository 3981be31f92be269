//! A running GStreamer pipeline of a live source.
//!
//! Promises that the running time of every pipeline is `CLOCK_MONOTONIC` itself, so that capture times need no mapping, that
//! the first error ends the source with the element's own words, and that drop stops it.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSinkCallbacks};
use gstreamer_video::UpstreamForceKeyUnitEvent;

use super::outlet::Outlet;
use super::samples::Samples;
use crate::clock::Mono;
use crate::codecs::families::Memory;
use crate::frames::LensFrames;
use crate::gst as common;
use crate::source::{LensSource, SourceError};

/// Name of the video sink in a pipeline's text; there is always one.
pub(super) const VIDEO: &str = "video";
/// Name of the audio sink, if there is sound.
pub(super) const AUDIO: &str = "audio";
/// Name of the element at which a camera's raw branch begins.
pub(super) const RAW: &str = "contract";
/// Name of the source of a painted raw branch.
pub(super) const PAINTER: &str = "scene";

/// How a sink is written at the end of a branch.
pub(super) fn sink(name: &str) -> String {
    // Sinks pass on at once: pacing is the source's matter. The queue is short because the callback never blocks.
    format!("appsink name={name} sync=false async=false qos=false enable-last-sample=false max-buffers=64")
}

/// Who makes the stream, and who takes it from the sinks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An encoder in the pipeline; units are delivered as they come.
    Encoded,
    /// The device; units are delivered as they come.
    Passed,
    /// A file; somebody else takes and paces the samples, and sees their end.
    Played,
}

/// The running pipeline.
pub(super) struct Live {
    pipeline: Option<gst::Pipeline>,
    outlet: Arc<Outlet>,
    kind: Kind,
    /// Let go when the pipeline is gone.
    held: Option<Box<dyn Send + Sync>>,
}

impl Live {
    /// Connects the sinks and starts. `held` is dropped when the pipeline has really stopped.
    pub(super) fn start(
        pipeline: &gst::Pipeline,
        outlet: &Arc<Outlet>,
        kind: Kind,
        held: impl Send + Sync + 'static,
    ) -> Result<Self, SourceError> {
        let held: Option<Box<dyn Send + Sync>> = Some(Box::new(held));
        for name in [VIDEO, AUDIO] {
            if let Ok(sink) = common::named::<AppSink>(pipeline, name) {
                deliver(&sink, Arc::clone(outlet), Samples::new(kind == Kind::Passed), |media, _| Mono(media));
            }
        }
        watch(pipeline, outlet, kind);
        // Before it runs, so that the camera's pool is asked for what readers may hold.
        if let Some(frames) = outlet.frames().filter(|_| kind == Kind::Encoded) {
            share(pipeline, &frames);
        }
        // GStreamer's system clock is CLOCK_MONOTONIC by default (GstSystemClock, "clock-type").
        pipeline.use_clock(Some(&gst::SystemClock::obtain()));
        pipeline.set_start_time(gst::ClockTime::NONE);
        pipeline.set_base_time(gst::ClockTime::ZERO);
        // An error is on its way to the sink by the bus if this fails; its words are better than "state change failed".
        if pipeline.set_state(gst::State::Playing).is_err() && !outlet.is_over() {
            // Not by a drop of what is returned below, behind which the reason would not be told.
            common::stop_and_release(pipeline.clone(), held);
            return Err(outlet.broken("the pipeline does not start"));
        }
        Ok(Self { pipeline: Some(pipeline.clone()), outlet: Arc::clone(outlet), kind, held })
    }

    /// For tests that look inside.
    #[cfg(test)]
    pub(super) fn pipeline(&self) -> &gst::Pipeline {
        self.pipeline.as_ref().expect("it is taken only by drop")
    }
}

impl LensSource for Live {
    fn request_keyframe(&self) -> bool {
        let Some(pipeline) = self.pipeline.as_ref().filter(|_| self.kind == Kind::Encoded) else { return false };
        let Ok(sink) = common::named::<AppSink>(pipeline, VIDEO) else { return false };
        let Some(pad) = sink.static_pad("sink") else { return false };
        pad.push_event(UpstreamForceKeyUnitEvent::builder().all_headers(true).build())
    }

    /// Pictures of our own are painted by the CPU; cameras tell of theirs by themselves.
    fn memory(&self) -> Option<Memory> {
        (self.kind == Kind::Encoded).then_some(Memory::System)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.outlet.silence();
        if let Some(pipeline) = self.pipeline.take() {
            common::stop_and_release(pipeline, self.held.take());
        }
    }
}

/// Publishes what passes behind the contract of a camera or the painter of a scene.
fn share(pipeline: &gst::Pipeline, frames: &Arc<LensFrames>) {
    let pad = [(RAW, "sink"), (PAINTER, "src")]
        .into_iter()
        .find_map(|(name, pad)| common::named::<gst::Element>(pipeline, name).ok()?.static_pad(pad));
    if let Some(pad) = pad {
        frames.tap(&pad);
    }
}

/// Hands on what reaches a sink. `place` turns a running time in ns and the arrival into a presentation time.
pub(super) fn deliver(
    sink: &AppSink,
    outlet: Arc<Outlet>,
    mut samples: Samples,
    mut place: impl FnMut(i64, Mono) -> Mono + Send + 'static,
) {
    let callbacks = AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Flushing)?;
        let arrival = outlet.clock.mono();
        match samples.unit(&sample, arrival, |media| place(media, arrival)) {
            Ok(unit) => {
                outlet.unit(unit);
                Ok(gst::FlowSuccess::Ok)
            }
            Err(why) => {
                outlet.end(outlet.unsupported(why));
                Err(gst::FlowError::Error)
            }
        }
    });
    sink.set_callbacks(callbacks.build());
}

/// Turns bus messages into the end of the source, in the thread that posts them.
fn watch(pipeline: &gst::Pipeline, outlet: &Arc<Outlet>, kind: Kind) {
    let Some(bus) = pipeline.bus() else { return };
    let outlet = Arc::clone(outlet);
    bus.set_sync_handler(move |_, message| {
        match message.view() {
            gst::MessageView::Error(e) => outlet.end(failure(&outlet, e)),
            gst::MessageView::Eos(_) if kind != Kind::Played => {
                // A camera has no regular end; only files do.
                outlet.end(outlet.broken("the camera ended its stream"));
            }
            gst::MessageView::Warning(w) => outlet.warn(w.error().message()),
            _ => {}
        }
        gst::BusSyncReply::Drop
    });
}

/// Which kind of failure an element's error is.
pub(super) fn failure(outlet: &Outlet, error: &gst::message::Error) -> SourceError {
    use gst::{CoreError, ResourceError as R, StreamError as S};
    // What GstBaseSrc says of elements that do not agree on a format is an error of no kind.
    let disagreed = error.debug().is_some_and(|debug| debug.contains("reason not-negotiated"));
    let (what, detail, error) = (outlet.what.clone(), common::words(error), error.error());
    if detail.starts_with("srtsrc:")
        && let Some(meant) = super::srt::meaning(&what, &detail)
    {
        return meant;
    }
    match error.kind::<R>() {
        Some(R::NotFound) => return SourceError::Absent { what, detail },
        Some(R::Busy | R::OpenRead | R::OpenReadWrite | R::NotAuthorized) => {
            return SourceError::Refused { what, detail };
        }
        Some(R::Settings) => return SourceError::Unsupported { what, detail },
        _ => {}
    }
    let unsupported = matches!(
        error.kind::<S>(),
        Some(S::TypeNotFound | S::WrongType | S::CodecNotFound | S::Demux | S::Format | S::NotImplemented)
    ) || matches!(
        error.kind::<CoreError>(),
        Some(CoreError::MissingPlugin | CoreError::Negotiation | CoreError::Caps)
    );
    if unsupported || disagreed {
        SourceError::Unsupported { what, detail }
    } else {
        SourceError::Broken { what, detail }
    }
}
