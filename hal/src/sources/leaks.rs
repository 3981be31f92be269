//! Pictures that are given up before an encoder: by the queue because the encoder is too slow, or because it could not take
//! them.
//!
//! Promises that each of them is told to the sink, with its capture time, when the next one that stays reaches the encoder.
//! Holds up neither side of the queue.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::outlet::Outlet;
use crate::clock::Mono;
use crate::source::LeftOutBy;

/// Name of the queue in a pipeline's text.
pub(super) const QUEUE: &str = "waiting";
/// Pictures whose times are remembered. An encoder that stands still leaves more behind than its queue holds; of those between
/// the first and the newest only the number matters.
const REMEMBERED: usize = 64;

/// What went into the queue and has not come out.
#[derive(Default)]
struct Inside {
    times: VecDeque<gst::ClockTime>,
    /// Behind the first of them, and remembered as a number only.
    unnamed: u64,
}

/// Watches what goes in at `entering` and comes out of a leaking queue behind. Buffers' times are capture times, as in every pipeline of [`super::live`].
pub(super) fn watch(entering: &gst::Pad, queue: &gst::Element, outlet: &Arc<Outlet>) {
    let inside: Arc<Mutex<Inside>> = Arc::default();
    let outside = Arc::clone(&inside);
    probe(entering, move |time| {
        let mut inside = outside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.times.len() == REMEMBERED {
            inside.times.remove(1);
            inside.unnamed += 1;
        }
        inside.times.push_back(time);
    });
    let outlet = Arc::clone(outlet);
    let Some(leaving) = queue.static_pad("src") else { return };
    probe(&leaving, move |time| {
        let mut inside = inside.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = inside.times.iter().position(|t| *t == time) else { return };
        let first = inside.times[0];
        inside.times.drain(..=place);
        let left_out = if place > 0 { place as u64 + std::mem::take(&mut inside.unnamed) } else { 0 };
        drop(inside);
        if left_out > 0 {
            outlet.left_out(mono(first), mono(time), left_out, LeftOutBy::Encoder);
        }
    });
}

fn probe(pad: &gst::Pad, see: impl Fn(gst::ClockTime) + Send + Sync + 'static) {
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
        fn left_out(&self, from: Mono, to: Mono, pictures: u64, _: LeftOutBy) {
            self.0.lock().unwrap().push((from, to, pictures));
        }
        fn ended(&self, _: SourceError) {}
    }

    #[test]
    fn every_picture_comes_out_or_is_told() {
        all_come_or_are_told(50, 60, 90_000);
    }

    #[test]
    fn an_encoder_that_stands_still_for_more_than_is_remembered_loses_none_in_silence() {
        all_come_or_are_told(500, 600, 400_000);
    }

    /// `encoding` in microseconds per picture.
    fn all_come_or_are_told(rate: i64, pictures: usize, encoding: u32) {
        let step = 1_000_000_000 / rate;
        common::init().unwrap();
        let text = format!(
            "videotestsrc is-live=true num-buffers={pictures} ! video/x-raw,width=64,height=64,framerate={rate}/1 \
            ! queue name=waiting leaky=downstream max-size-buffers=4 max-size-bytes=0 max-size-time=0 \
            ! identity sleep-time={encoding} ! appsink name=video sync=false"
        );
        let pipeline = common::build(&text).unwrap();
        let told = Arc::new(Told::default());
        let outlet = Outlet::new("queue".into(), Arc::new(SystemClock::new().unwrap()), told.clone());
        let queue: gst::Element = common::named(&pipeline, QUEUE).unwrap();
        watch(&queue.static_pad("sink").unwrap(), &queue, &outlet);
        let sink: AppSink = common::named(&pipeline, "video").unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let mut spans = Vec::new();
        while let Ok(sample) = sink.pull_sample() {
            let at = mono(sample.buffer().unwrap().pts().unwrap());
            spans.push((at, Mono(at.0 + step), 1));
        }
        common::stop(pipeline);
        let came = spans.len();
        let told = told.0.lock().unwrap().clone();
        assert!(!told.is_empty() && came < pictures, "{came} pictures came");
        spans.extend(told);
        spans.sort_unstable();
        for pair in spans.windows(2) {
            assert!(pair[1].0.since(pair[0].1).abs() < step / 2, "{pair:?}");
        }
        assert_eq!(spans.iter().map(|s| s.2).sum::<u64>(), pictures as u64);
    }
}
