//! `test:`, the synthetic scene, encoded on the host in real time.
//!
//! Promises frame n of the clock: its number is the capture time divided by the frame duration, so that it goes on across
//! restarts of the program within one boot, and its capture time is exactly n frame durations. Frames are made up to three
//! seconds late before one is left out; those that are not to be coded ([`super::thin`]) are painted all the same, for whoever
//! takes raw pictures, and count as none that was left out. The strip in the picture is described in `scene.rs`.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSrc;
use gstreamer_video::{DownstreamForceKeyUnitEvent, VideoFormat, VideoInfo};

use super::encoder::{self, Encoding};
use super::live::{self, Live};
use super::outlet::Outlet;
use super::scene::{Planes, Scene};
use super::thin::{Thinner, Uncounted};
use crate::clock::Mono;
use crate::gst as common;
use crate::source::{LeftOutBy, SourceError, TestPattern};

/// Name of the element behind the raw branch at which pictures go that are not to be coded. They bear a flag that nobody else
/// sets here.
const WANTED: &str = "wanted";
const UNWANTED: gst::BufferFlags = gst::BufferFlags::DROPPABLE;

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
        "appsrc name={} is-live=true format=time max-buffers=3 max-bytes=0 block=true ! identity name={WANTED} ! {} ! {}",
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
    leave_out_unwanted(&common::named(&pipeline, WANTED)?);
    Ok((pipeline, Feed::new(src, pattern)?))
}

/// Keeps from the encoder what is not to be coded.
fn leave_out_unwanted(element: &gst::Element) {
    let Some(pad) = element.static_pad("src") else { return };
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        let unwanted = info.buffer().is_some_and(|buffer| buffer.flags().contains(UNWANTED));
        if unwanted { gst::PadProbeReturn::Drop } else { gst::PadProbeReturn::Ok }
    });
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
    pub(crate) fn run(self, outlet: &Arc<Outlet>) {
        let mut number = self.number_at(outlet.clock.mono()) + 1;
        let thinner = Thinner::new(outlet.one_in(), self.gop, Arc::new(Uncounted(Arc::clone(outlet))));
        let takes = || thinner.takes(outlet.one_in());
        let mut wanted = takes();
        while outlet.wait_until(self.time_of(number)) {
            if wanted && thinner.key_due() {
                self.src.send_event(DownstreamForceKeyUnitEvent::builder().all_headers(true).build());
            }
            if self.push(number, wanted, outlet).is_err() {
                // The pipeline was stopped, or has ended the source with its own words.
                break;
            }
            (number, wanted) = (number + 1, takes());
            let now = outlet.clock.mono();
            if now.since(self.time_of(number)) > LATE {
                let (mut from, mut left_out) = (None, 0);
                let next = self.number_at(now);
                // Up to one that is coded: there the gap ends.
                while number < next || !wanted {
                    if wanted {
                        from = from.or(Some(number));
                        left_out += 1;
                    }
                    (number, wanted) = (number + 1, takes());
                }
                if let Some(from) = from {
                    outlet.left_out(self.time_of(from), self.time_of(number), left_out, LeftOutBy::Encoder);
                }
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

    fn push(&self, number: i64, wanted: bool, outlet: &Outlet) -> Result<(), gst::FlowError> {
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
            if wanted {
                buffer.unset_flags(UNWANTED);
            } else {
                buffer.set_flags(UNWANTED);
            }
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
    use std::time::Duration;

    use super::*;
    use crate::clock::SystemClock;
    use crate::media::AccessUnit;
    use crate::source::{SourceSpec, UnitSink};

    /// Each span that was left out; wants one of so many pictures.
    struct Told(mpsc::Sender<(Mono, Mono, u64)>, u32);

    impl UnitSink for Told {
        fn unit(&self, _: AccessUnit) {}
        fn left_out(&self, from: Mono, to: Mono, pictures: u64, _: LeftOutBy) {
            let _ = self.0.send((from, to, pictures));
        }
        fn ended(&self, _: SourceError) {}
        fn one_in(&self) -> u32 {
            self.1
        }
    }

    #[test]
    fn what_a_slow_encoder_costs_is_told_exactly() {
        told_exactly(1);
    }

    #[test]
    fn pictures_that_nobody_wanted_count_as_none_that_was_left_out() {
        told_exactly(2);
    }

    #[test]
    fn who_takes_raw_pictures_gets_those_too_that_are_not_coded() {
        common::init().unwrap();
        let Ok(SourceSpec::Test(pattern)) = SourceSpec::parse("test:?width=64&height=64&fps=50") else {
            panic!("a test pattern");
        };
        let (pipeline, feed) = build(&pattern, false).unwrap();
        let times = |name: &str, pad: &str| {
            let element: gst::Element = common::named(&pipeline, name).unwrap();
            let (sender, times) = mpsc::channel();
            element.static_pad(pad).unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                let at = info.buffer().and_then(|buffer| buffer.pts()).unwrap();
                let _ = sender.send(at.nseconds());
                gst::PadProbeReturn::Ok
            });
            times
        };
        let (raw, coded) = (times(live::PAINTER, "src"), times(live::VIDEO, "sink"));
        let outlet =
            Outlet::new("scene".into(), Arc::new(SystemClock::new().unwrap()), Arc::new(Told(mpsc::channel().0, 2)));
        let live = Live::start(&pipeline, &outlet, live::Kind::Encoded, ()).unwrap();
        let painter = std::thread::spawn({
            let outlet = Arc::clone(&outlet);
            move || feed.run(&outlet)
        });
        let steps = |times: mpsc::Receiver<u64>| {
            let times: Vec<u64> = (0..20).map(|_| times.recv_timeout(Duration::from_mins(1)).unwrap()).collect();
            times.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>()
        };
        assert_eq!(steps(coded), [40_000_000; 19]);
        assert_eq!(steps(raw), [20_000_000; 19]);
        outlet.silence();
        drop(live);
        painter.join().unwrap();
    }

    fn told_exactly(one_in: u32) {
        common::init().unwrap();
        let Ok(SourceSpec::Test(pattern)) = SourceSpec::parse("test:?width=64&height=64&fps=50") else {
            panic!("a test pattern");
        };
        // In the place of the encoder: half a second for each picture.
        let slow = "appsrc name=scene is-live=true format=time max-buffers=1 max-bytes=0 block=true \
            ! identity name=wanted ! identity sleep-time=500000 ! appsink name=video sync=false max-buffers=1000";
        let pipeline = common::build(slow).unwrap();
        let feed = Feed::new(common::named(&pipeline, "scene").unwrap(), &pattern).unwrap();
        leave_out_unwanted(&common::named(&pipeline, WANTED).unwrap());
        let sink: gstreamer_app::AppSink = common::named(&pipeline, "video").unwrap();
        let (sender, told) = mpsc::channel();
        let outlet = Outlet::new("scene".into(), Arc::new(SystemClock::new().unwrap()), Arc::new(Told(sender, one_in)));
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
        let step = Duration::from_millis(20) * one_in;
        assert_eq!(before.unwrap() + step, from);
        assert_eq!(to.since(from), pictures.cast_signed() * step.as_nanos() as i64);
        outlet.silence();
        common::stop(pipeline);
        painter.join().unwrap();
    }
}
