//! `test:`, the synthetic scene, encoded on the host in real time.
//!
//! Promises frame n of the clock: its number is the capture time divided by the frame duration, so that it goes on across
//! restarts of the program within one boot, and its capture time is exactly n frame durations. Frames are made up to three
//! seconds late before one is left out; those that nobody wants ([`super::thin`]) are not painted. The strip in the picture is described in `scene.rs`.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSrc;
use gstreamer_video::{DownstreamForceKeyUnitEvent, VideoFormat, VideoInfo};

use super::encoder::{self, Encoding};
use super::live::{self, Live};
use super::outlet::Outlet;
use super::scene::{Planes, Scene};
use super::thin::Thinner;
use crate::clock::Mono;
use crate::gst as common;
use crate::source::{LeftOutBy, SourceError, TestPattern};

/// How far the scene may fall behind the clock before frames are left out, in ns.
const LATE: i64 = 3_000_000_000;

/// Starts the scene; `audio` adds a tone.
pub(super) fn open(pattern: &TestPattern, audio: bool, outlet: &Arc<Outlet>) -> Result<Live, SourceError> {
    let (pipeline, feed) = build(pattern, audio && pattern.audio).map_err(|why| outlet.unsupported(why))?;
    let live = Live::start(&pipeline, outlet, live::Kind::Encoded, ())?;
    let outlet = Arc::clone(outlet);
    let on_error = Arc::clone(&outlet);
    let spawned = std::thread::Builder::new().name("mos-scene".into()).spawn(move || feed.run(&outlet));
    spawned.map_err(|e| on_error.broken(format!("no thread: {e}")))?;
    Ok(live)
}

fn build(pattern: &TestPattern, audio: bool) -> Result<(gst::Pipeline, Feed), String> {
    common::init()?;
    let encoding = Encoding { codec: pattern.codec, bitrate: pattern.bitrate, gop: pattern.gop };
    let mut text = format!(
        "appsrc name={} is-live=true format=time max-buffers=3 max-bytes=0 block=true ! {} ! {}",
        live::PAINTER,
        encoder::text(&encoding)?,
        live::sink(live::VIDEO)
    );
    if audio {
        let tone = "audiotestsrc is-live=true wave=sine freq=440 volume=0.1 ! audio/x-raw,rate=48000,channels=1";
        text = format!("{text} {tone} ! {} ! {}", encoder::aac()?, live::sink(live::AUDIO));
    }
    let pipeline = common::build(&text)?;
    let src = common::named(&pipeline, live::PAINTER)?;
    Ok((pipeline, Feed::new(src, pattern)?))
}

/// The thread that paints.
pub(crate) struct Feed {
    src: AppSrc,
    pool: gst::BufferPool,
    scene: Scene,
    fps: i64,
    gop: u32,
}

impl Feed {
    /// Prepares an `appsrc`.
    pub(crate) fn new(src: AppSrc, pattern: &TestPattern) -> Result<Self, String> {
        let fps = gst::Fraction::new(pattern.fps.cast_signed(), 1);
        let info = VideoInfo::builder(VideoFormat::I420, pattern.width, pattern.height).fps(fps).build();
        let info = info.map_err(|e| e.to_string())?;
        let caps = info.to_caps().map_err(|e| e.to_string())?;
        src.set_caps(Some(&caps));
        let pool = gst::BufferPool::new();
        let mut config = pool.config();
        config.set_params(Some(&caps), u32::try_from(info.size()).map_err(|e| e.to_string())?, 0, 0);
        pool.set_config(config).map_err(|e| e.to_string())?;
        pool.set_active(true).map_err(|e| e.to_string())?;
        let plane = |i: usize| usize::try_from(info.stride()[i]).map_err(|e| e.to_string());
        let planes = Planes {
            width: pattern.width as usize,
            height: pattern.height as usize,
            offsets: [info.offset()[0], info.offset()[1], info.offset()[2]],
            strides: [plane(0)?, plane(1)?, plane(2)?],
            size: info.size(),
        };
        Ok(Self { src, pool, scene: Scene::new(planes), fps: i64::from(pattern.fps), gop: pattern.gop })
    }

    /// Paints until the outlet is over or the pipeline stops.
    pub(crate) fn run(self, outlet: &Outlet) {
        let mut number = self.number_at(outlet.clock.mono()) + 1;
        let thinner = Thinner::new(outlet.one_in(), self.gop, |_| true);
        loop {
            if !outlet.wait_until(self.time_of(number)) {
                break;
            }
            if !thinner.takes(outlet.one_in()) {
                number += 1;
                continue;
            }
            if thinner.key_due() {
                self.src.send_event(DownstreamForceKeyUnitEvent::builder().all_headers(true).build());
            }
            if self.push(number, outlet).is_err() {
                // The pipeline was stopped, or has ended the source with its own words.
                break;
            }
            let now = outlet.clock.mono();
            if now.since(self.time_of(number + 1)) > LATE {
                let next = self.number_at(now);
                let left_out = (next - number - 1).unsigned_abs();
                outlet.left_out(self.time_of(number + 1), self.time_of(next), left_out, LeftOutBy::Encoder);
                number = next;
            } else {
                number += 1;
            }
        }
        let _ = self.pool.set_active(false);
    }

    /// The capture time of a frame: whole nanoseconds, without rounding errors that add up.
    fn time_of(&self, number: i64) -> Mono {
        let (seconds, rest) = (number / self.fps, number % self.fps);
        Mono(seconds * 1_000_000_000 + rest * 1_000_000_000 / self.fps)
    }

    fn number_at(&self, time: Mono) -> i64 {
        let (seconds, rest) = (time.0 / 1_000_000_000, time.0 % 1_000_000_000);
        seconds * self.fps + rest * self.fps / 1_000_000_000
    }

    fn push(&self, number: i64, outlet: &Outlet) -> Result<(), gst::FlowError> {
        let at = self.time_of(number);
        // Running time counts from the element's base time: zero in a pipeline of ours, the moment of PLAY in a server's.
        let since = self.src.base_time().map(|base| at.0.unsigned_abs().checked_sub(base.nseconds()));
        let (Some(Some(since)), gst::State::Playing) = (since, self.src.current_state()) else {
            return Ok(());
        };
        let mut buffer = self.pool.acquire_buffer(None)?;
        {
            let buffer = buffer.get_mut().ok_or(gst::FlowError::Error)?;
            buffer.set_pts(gst::ClockTime::from_nseconds(since));
            buffer.set_duration(gst::ClockTime::from_nseconds(self.time_of(number + 1).since(at).unsigned_abs()));
            let mut map = buffer.map_writable().map_err(|_| gst::FlowError::Error)?;
            self.scene.paint(&mut map, number.unsigned_abs(), outlet.clock.utc());
        }
        self.src.push_buffer(buffer).map(|_| ())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::media::AccessUnit;
    use crate::source::{SourceSpec, UnitSink};

    /// Each span that was left out, and the end.
    struct Told(mpsc::Sender<(Mono, Mono, u64)>);

    impl UnitSink for Told {
        fn unit(&self, _: AccessUnit) {}
        fn left_out(&self, from: Mono, to: Mono, pictures: u64, _: LeftOutBy) {
            let _ = self.0.send((from, to, pictures));
        }
        fn ended(&self, _: SourceError) {}
    }

    #[test]
    fn what_a_slow_encoder_costs_is_told_exactly() {
        common::init().unwrap();
        let Ok(SourceSpec::Test(pattern)) = SourceSpec::parse("test:?width=64&height=64&fps=50") else {
            panic!("a test pattern");
        };
        // In the place of the encoder: half a second for each picture.
        let slow = "appsrc name=scene is-live=true format=time max-buffers=1 max-bytes=0 block=true \
            ! identity sleep-time=500000 ! appsink name=video sync=false max-buffers=1000";
        let pipeline = common::build(slow).unwrap();
        let feed = Feed::new(common::named(&pipeline, "scene").unwrap(), &pattern).unwrap();
        let sink: gstreamer_app::AppSink = common::named(&pipeline, "video").unwrap();
        let (sender, told) = mpsc::channel();
        let outlet = Outlet::new("scene".into(), Arc::new(SystemClock::new().unwrap()), Arc::new(Told(sender)));
        pipeline.use_clock(Some(&gst::SystemClock::obtain()));
        pipeline.set_start_time(gst::ClockTime::NONE);
        pipeline.set_base_time(gst::ClockTime::ZERO);
        pipeline.set_state(gst::State::Playing).unwrap();
        let painter = std::thread::spawn({
            let outlet = Arc::clone(&outlet);
            move || feed.run(&outlet)
        });
        let (from, to, pictures) = told.recv().unwrap();
        let mut before = None;
        // Coded pictures reach up to the first that was left out, and go on with the next one.
        loop {
            let at = Mono(sink.pull_sample().unwrap().buffer().unwrap().pts().unwrap().nseconds().cast_signed());
            if at >= from {
                assert_eq!(at, to);
                break;
            }
            before = Some(at);
        }
        assert_eq!(before.unwrap() + std::time::Duration::from_millis(20), from);
        assert_eq!(to.since(from), pictures.cast_signed() * 20_000_000);
        outlet.silence();
        common::stop(pipeline);
        painter.join().unwrap();
    }
}
