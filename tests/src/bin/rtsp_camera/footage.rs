//! A coded file in memory: its tracks as access units with relative times.
//!
//! Promise: [`load`] reads the whole file once; afterwards nothing is read or parsed. Decoding order is kept.

use std::path::Path;

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;

/// One access unit. Times are nanoseconds after the first capture of the file.
pub(crate) struct Unit {
    pub(crate) data: gst::Buffer,
    pub(crate) capture: u64,
    /// When an encoder could have it ready: never before its capture, in decoding order.
    pub(crate) ready: u64,
    /// A decoder may begin here.
    pub(crate) key: bool,
    /// Place in order of display.
    pub(crate) number: u64,
}

/// One track.
pub(crate) struct Track {
    pub(crate) caps: gst::Caps,
    pub(crate) units: Vec<Unit>,
    pub(crate) is_video: bool,
}

/// A file: video, perhaps audio, and the length after which it starts again.
pub(crate) struct Footage {
    pub(crate) tracks: Vec<Track>,
    pub(crate) length: u64,
}

/// Reads `file` with qtdemux; panics if it is no MP4 with H.264 or H.265.
pub(crate) fn load(file: &Path) -> Footage {
    let pipeline = gst::Pipeline::new();
    let source = gst::ElementFactory::make("filesrc").property("location", file.to_str().unwrap()).build().unwrap();
    let demux = gst::ElementFactory::make("qtdemux").build().expect("gstreamer1.0-plugins-good is installed");
    pipeline.add_many([&source, &demux]).unwrap();
    source.link(&demux).unwrap();
    let (found, sinks) = std::sync::mpsc::channel();
    let weak = pipeline.downgrade();
    demux.connect_pad_added(move |_, pad| {
        let sink = gst_app::AppSink::builder().sync(false).max_buffers(0).wait_on_eos(false).build();
        let pipeline = weak.upgrade().expect("the pipeline outlives its pads");
        pipeline.add(&sink).unwrap();
        sink.sync_state_with_parent().unwrap();
        pad.link(&sink.static_pad("sink").unwrap()).unwrap();
        found.send(sink).unwrap();
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let end =
        bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &[gst::MessageType::Eos, gst::MessageType::Error]);
    assert!(end.is_some_and(|m| m.type_() == gst::MessageType::Eos), "{} cannot be read", file.display());
    let mut tracks: Vec<Track> = sinks.try_iter().map(|sink| track(&sink)).collect();
    pipeline.set_state(gst::State::Null).unwrap();
    tracks.sort_by_key(|track| !track.is_video);
    let video = tracks.first().filter(|track| track.is_video).expect("the file has video");
    // The loop is as long as its frames: a whole number of milliseconds in all files that are served.
    let last =
        video.units.iter().map(|u| u.capture + u.data.duration().map_or(0, gst::ClockTime::nseconds)).max().unwrap();
    let length = (last + 500_000) / 1_000_000 * 1_000_000;
    for track in &mut tracks {
        track.units.retain(|unit| unit.capture + 1_000_000 < length);
    }
    Footage { tracks, length }
}

fn track(sink: &gst_app::AppSink) -> Track {
    let mut caps = None;
    let mut samples = Vec::new();
    while let Some(sample) = sink.try_pull_sample(gst::ClockTime::ZERO) {
        caps = sample.caps_owned();
        samples.push(sample.buffer_owned().expect("a sample has a buffer"));
    }
    let caps = caps.expect("the track is not empty");
    let is_video = caps.structure(0).is_some_and(|s| s.name().starts_with("video/"));
    let pts: Vec<u64> = samples.iter().map(|b| b.pts().expect("MP4 samples have times").nseconds()).collect();
    let first = *pts.iter().min().unwrap();
    let mut displayed = pts.clone();
    displayed.sort_unstable();
    let mut ready = 0;
    let units = samples.into_iter().zip(&pts).map(|(mut data, pts)| {
        let capture = pts - first;
        ready = capture.max(ready);
        let number = displayed.binary_search(pts).unwrap() as u64;
        let key = !data.flags().contains(gst::BufferFlags::DELTA_UNIT);
        data.make_mut().set_flags(gst::BufferFlags::empty());
        Unit { data, capture, ready, key, number }
    });
    Track { caps, units: units.collect(), is_video }
}
