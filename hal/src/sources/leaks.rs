//! Pictures that are given up before an encoder: by the queue because the encoder is too slow, or because it could not take
//! them.
//!
//! Promises that each of them is told to the sink, with its capture time, when the next one that stays reaches the encoder.
//! Those that are not wanted ([`super::thin`]) are left out before the queue and are none of them. Holds up neither side of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video::DownstreamForceKeyUnitEvent;

use super::outlet::Outlet;
use super::thin::Thinner;
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
pub(super) fn watch(entering: &gst::Pad, queue: &gst::Element, outlet: &Arc<Outlet>, thinner: Thinner) {
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
    let Some(leaving) = queue.static_pad("src") else { return };
    let thinner = Arc::new(thinner);
    // Where they are pushed: GStreamer 1.22 complains of what a probe drops at a sink.
    let Some(before) = queue.static_pad("sink").and_then(|pad| pad.peer()) else { return };
    unwanted(&before, outlet, &thinner, &inside);
    keys(&leaving, &thinner);
    let outlet = Arc::clone(outlet);
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

/// Leaves out what is not wanted.
fn unwanted(pad: &gst::Pad, outlet: &Arc<Outlet>, thinner: &Arc<Thinner>, inside: &Arc<Mutex<Inside>>) {
    let (outlet, thinner, inside) = (Arc::clone(outlet), Arc::clone(thinner), Arc::clone(inside));
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if thinner.takes(outlet.one_in()) {
            return gst::PadProbeReturn::Ok;
        }
        if let Some(time) = info.buffer().and_then(|buffer| buffer.pts()) {
            inside.lock().unwrap_or_else(PoisonError::into_inner).times.retain(|t| *t != time);
        }
        gst::PadProbeReturn::Drop
    });
}

/// Asks the encoder for keyframes where it would count too long.
fn keys(pad: &gst::Pad, thinner: &Arc<Thinner>) {
    let thinner = Arc::clone(thinner);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, _| {
        if thinner.key_due() {
            pad.push_event(DownstreamForceKeyUnitEvent::builder().all_headers(true).build());
        }
        gst::PadProbeReturn::Ok
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

    use super::super::thin::Uncounted;
    use super::*;
    use crate::clock::SystemClock;
    use crate::gst as common;
    use crate::media::AccessUnit;
    use crate::source::{SourceError, UnitSink};

    #[derive(Default)]
    struct Told(Mutex<Vec<(Mono, Mono, u64)>>, u32);

    impl UnitSink for Told {
        fn unit(&self, _: AccessUnit) {}
        fn left_out(&self, from: Mono, to: Mono, pictures: u64, _: LeftOutBy) {
            self.0.lock().unwrap().push((from, to, pictures));
        }
        fn ended(&self, _: SourceError) {}
        fn one_in(&self) -> u32 {
            self.1
        }
    }

    #[test]
    fn every_picture_comes_out_or_is_told() {
        all_come_or_are_told(50, 60, 90_000, 1);
    }

    #[test]
    fn an_encoder_that_stands_still_for_more_than_is_remembered_loses_none_in_silence() {
        all_come_or_are_told(500, 600, 400_000, 1);
    }

    #[test]
    fn what_is_not_wanted_is_no_loss() {
        all_come_or_are_told(50, 60, 90_000, 2);
    }

    /// `encoding` in microseconds per picture.
    fn all_come_or_are_told(rate: i64, pictures: usize, encoding: u32, one_in: u32) {
        let step = 1_000_000_000 / rate * i64::from(one_in);
        common::init().unwrap();
        let text = format!(
            "videotestsrc is-live=true num-buffers={pictures} ! video/x-raw,width=64,height=64,framerate={rate}/1 \
            ! queue name=waiting leaky=downstream max-size-buffers=4 max-size-bytes=0 max-size-time=0 \
            ! identity sleep-time={encoding} ! appsink name=video sync=false"
        );
        let pipeline = common::build(&text).unwrap();
        let told = Arc::new(Told(Mutex::default(), one_in));
        let outlet = Outlet::new("queue".into(), Arc::new(SystemClock::new().unwrap()), told.clone());
        let queue: gst::Element = common::named(&pipeline, QUEUE).unwrap();
        watch(
            &queue.static_pad("sink").unwrap(),
            &queue,
            &outlet,
            Thinner::new(one_in, 30, Arc::new(Uncounted(Arc::clone(&outlet)))),
        );
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
        let pictures = pictures.div_ceil(one_in as usize);
        assert!(!told.is_empty() && came < pictures, "{came} pictures came");
        spans.extend(told);
        spans.sort_unstable();
        for pair in spans.windows(2) {
            assert!(pair[1].0.since(pair[0].1).abs() < step / 2, "{pair:?}");
        }
        assert_eq!(spans.iter().map(|s| s.2).sum::<u64>(), pictures as u64);
    }
}
