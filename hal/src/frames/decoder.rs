//! Raw frames of a camera that codes by itself.
//!
//! Promises that nothing is decoded while nobody subscribes; that decoding begins at a keyframe, in a pipeline of its own
//! behind a bounded queue; and that it never holds up the recorder: what the queue cannot take is left out up to the next
//! keyframe.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSrc;

use super::{Feed, LensFrames};
use crate::gst as common;
use crate::media::{AccessUnit, FrameKind, TrackFormat, VideoCodec, VideoFormat};
use crate::sources::contract;

/// Units that may wait for the decoder.
const QUEUE: usize = 16;
/// How often the decoder's thread looks whether anybody still subscribes, while no unit comes.
const LOOK: Duration = Duration::from_millis(500);

/// Names the decoder of a codec as pipeline text, where there is one. Asked when it is needed first: it starts GStreamer.
pub type Decoders = Arc<dyn Fn(VideoCodec) -> Option<String> + Send + Sync>;

/// Feeds the decoder while it is wanted.
pub(super) struct Decoding {
    // Weak: a sink that a source forgets to drop must not keep the socket.
    frames: Weak<LensFrames>,
    feed: Feed,
    decoders: Decoders,
}

/// The thread that decodes a lens, if there is one. One that hangs in a driver is never joined by a second, however often
/// the lens is opened.
#[derive(Default)]
pub(super) struct Run {
    queue: Option<SyncSender<AccessUnit>>,
    thread: Option<JoinHandle<()>>,
}

impl Decoding {
    pub(super) fn new(frames: &Arc<LensFrames>, decoders: Decoders) -> Self {
        Self { frames: Arc::downgrade(frames), feed: frames.feed(), decoders }
    }

    pub(super) fn frames(&self) -> Option<Arc<LensFrames>> {
        self.frames.upgrade()
    }

    pub(super) fn stop(&self) {
        if let Some(frames) = self.frames() {
            frames.decoding().stop();
        }
    }

    pub(super) fn unit(&self, unit: &AccessUnit) {
        let Some(frames) = self.frames.upgrade() else { return };
        let TrackFormat::Video(format) = &*unit.format else { return };
        let mut run = frames.decoding();
        if frames.raw.load(std::sync::atomic::Ordering::Relaxed) || !frames.publisher.wanted() {
            run.stop();
            return;
        }
        let idle = run.thread.as_ref().is_none_or(JoinHandle::is_finished);
        if run.queue.is_none() && idle && starts(unit.kind) {
            *run = start(&frames, self.feed, &self.decoders, format.clone());
        }
        if run.queue.as_ref().is_some_and(|queue| queue.try_send(unit.clone()).is_err()) {
            // Too slow, ended, or failed: again from the next keyframe.
            run.queue = None;
        }
    }
}

impl Run {
    /// The thread ends with its queue.
    pub(super) fn stop(&mut self) {
        self.queue = None;
    }
}

fn starts(kind: FrameKind) -> bool {
    matches!(kind, FrameKind::Idr | FrameKind::Bla | FrameKind::Cra)
}

/// Starts the thread with a pipeline for this format.
fn start(frames: &Arc<LensFrames>, feed: Feed, decoders: &Decoders, format: VideoFormat) -> Run {
    let (queue, units) = sync_channel(QUEUE);
    let (frames, decoders) = (Arc::clone(frames), Arc::clone(decoders));
    let run = move || {
        let decoded = match decoders(format.codec) {
            Some(decoder) => decode(&frames, feed, &decoder, &format, &units),
            None => Err(format!("this machine has no decoder for {}", format.codec.name())),
        };
        if let Err(why) = decoded
            && !frames.told.swap(true, std::sync::atomic::Ordering::Relaxed)
        {
            log::warn!("no raw frames for the frame bus: {why}");
        }
    };
    let thread = std::thread::Builder::new().name("mos-decode".into()).spawn(run).ok();
    Run { queue: thread.is_some().then_some(queue), thread }
}

/// Runs until the queue ends, the format changes or the decoder fails.
fn decode(
    frames: &Arc<LensFrames>,
    fed: Feed,
    decoder: &str,
    format: &VideoFormat,
    units: &Receiver<AccessUnit>,
) -> Result<(), String> {
    common::init().and_then(|()| contract::register())?;
    let (parser, media, framing) = match format.codec {
        VideoCodec::H264 => ("h264parse", "video/x-h264", "avc"),
        VideoCodec::H265 => ("h265parse", "video/x-h265", "hvc1"),
    };
    let text = format!(
        "appsrc name=in format=time is-live=true max-buffers=4 block=true ! {parser} ! {decoder} ! \
         {} name=out ! fakesink sync=false async=false enable-last-sample=false",
        contract::ELEMENT
    );
    let pipeline = common::build(&text)?;
    let input: AppSrc = common::named(&pipeline, "in")?;
    let output: gst::Element = common::named(&pipeline, "out")?;
    let caps = gst::Caps::builder(media)
        .field("stream-format", framing)
        .field("alignment", "au")
        .field("codec_data", gst::Buffer::from_slice(format.config.clone()))
        .field("width", format.width.cast_signed())
        .field("height", format.height.cast_signed());
    input.set_caps(Some(&caps.build()));
    // The contract answers for the sink how many buffers there are to be, and that their layout may be the decoder's own.
    if let Some(pad) = output.static_pad("sink") {
        frames.pass(&pad, fed);
    }
    let result = if pipeline.set_state(gst::State::Playing).is_err() {
        Err(format!("{decoder} does not start"))
    } else {
        feed(frames, &pipeline, &input, format, units)
    };
    common::stop(pipeline);
    // The decoder's buffers ended with it; their descriptors would keep the memory.
    frames.forget_of(fed);
    result
}

fn feed(
    frames: &LensFrames,
    pipeline: &gst::Pipeline,
    input: &AppSrc,
    format: &VideoFormat,
    units: &Receiver<AccessUnit>,
) -> Result<(), String> {
    let bus = pipeline.bus();
    loop {
        let unit = match units.recv_timeout(LOOK) {
            Ok(unit) => unit,
            Err(RecvTimeoutError::Timeout) if frames.publisher.wanted() => continue,
            Err(_) => return Ok(()),
        };
        if !matches!(&*unit.format, TrackFormat::Video(now) if now == format) {
            return Ok(());
        }
        let mut buffer = gst::Buffer::from_slice(unit.data.clone());
        if let (Some(buffer), Some(pts)) = (buffer.get_mut(), unit.pts) {
            buffer.set_pts(gst::ClockTime::from_nseconds(pts.0.max(0).unsigned_abs()));
        }
        if input.push_buffer(buffer).is_err() {
            let error = bus.as_ref().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
            return Err(match error.as_ref().map(|message| message.view()) {
                Some(gst::MessageView::Error(e)) => common::words(e),
                _ => "the decoder has stopped".into(),
            });
        }
    }
}
