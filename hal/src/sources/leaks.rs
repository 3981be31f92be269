//! Pictures that the queue before an encoder gives up because the encoder is too slow.
//!
//! Promises that each of them is told to the sink, with its capture time, when the next one that stays reaches the encoder.
//! Holds up neither side of the queue.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::outlet::Outlet;
use crate::clock::Mono;

/// Name of the queue in a pipeline's text.
pub(super) const QUEUE: &str = "waiting";
/// Pictures remembered; a queue holds less.
const REMEMBERED: usize = 64;

/// Watches a leaking queue. Its buffers' times are capture times, as in every pipeline of [`super::live`].
pub(super) fn watch(queue: &gst::Element, outlet: &Arc<Outlet>) {
    let inside: Arc<Mutex<VecDeque<gst::ClockTime>>> = Arc::default();
    let entering = Arc::clone(&inside);
    probe(queue, "sink", move |time| {
        let mut inside = entering.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.len() == REMEMBERED {
            inside.pop_front();
        }
        inside.push_back(time);
    });
    let outlet = Arc::clone(outlet);
    probe(queue, "src", move |time| {
        let mut inside = inside.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = inside.iter().position(|t| *t == time) else { return };
        let first = inside[0];
        inside.drain(..=place);
        drop(inside);
        if place > 0 {
            outlet.left_out(mono(first), mono(time), place as u64);
        }
    });
}

fn probe(queue: &gst::Element, pad: &str, see: impl Fn(gst::ClockTime) + Send + Sync + 'static) {
    let Some(pad) = queue.static_pad(pad) else { return };
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(time) = info.buffer().and_then(|buffer| buffer.pts()) {
            see(time);
        }
        gst::PadProbeReturn::Ok
    });
}

fn mono(time: gst::ClockTime) -> Mono {
    Mono(i64::try_from(time.nseconds()).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use gstreamer_app::AppSink;

    use super::*;
    use crate::clock::SystemClock;
    use crate::gst as common;
    use crate::media::AccessUnit;
    use crate::source::{SourceError, UnitSink};

    #[derive(Default)]
    struct Told(Mutex<Vec<(Mono, Mono, u64)>>);

    impl UnitSink for Told {
        fn unit(&self, _: AccessUnit) {}
        fn left_out(&self, from: Mono, to: Mono, pictures: u64) {
            self.0.lock().unwrap().push((from, to, pictures));
        }
        fn ended(&self, _: SourceError) {}
    }

    #[test]
    fn every_picture_comes_out_or_is_told() {
        const STEP: i64 = 20_000_000;
        common::init().unwrap();
        let text = "videotestsrc is-live=true num-buffers=60 ! video/x-raw,width=64,height=64,framerate=50/1 \
            ! queue name=waiting leaky=downstream max-size-buffers=4 max-size-bytes=0 max-size-time=0 \
            ! identity sleep-time=90000 ! appsink name=video sync=false";
        let pipeline = common::build(text).unwrap();
        let told = Arc::new(Told::default());
        let outlet = Outlet::new("queue".into(), Arc::new(SystemClock::new().unwrap()), told.clone());
        watch(&common::named(&pipeline, QUEUE).unwrap(), &outlet);
        let sink: AppSink = common::named(&pipeline, "video").unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let mut spans = Vec::new();
        while let Ok(sample) = sink.pull_sample() {
            let at = mono(sample.buffer().unwrap().pts().unwrap());
            spans.push((at, Mono(at.0 + STEP), 1));
        }
        common::stop(pipeline);
        let came = spans.len();
        let told = told.0.lock().unwrap().clone();
        assert!(!told.is_empty() && came < 60, "{came} pictures came");
        spans.extend(told);
        spans.sort_unstable();
        for pair in spans.windows(2) {
            assert!(pair[1].0.since(pair[0].1).abs() < STEP / 2, "{pair:?}");
        }
        assert_eq!(spans.iter().map(|s| s.2).sum::<u64>(), 60);
    }
}
