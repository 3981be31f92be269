//! What the peers have in common: running them and taking their time.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;

/// Milliseconds that `work` takes.
pub(crate) fn milliseconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e3
}

/// Runs a program to its end; it must succeed.
pub(crate) fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "{program} {args:?}");
}

/// Makes a file durable.
pub(crate) fn fsync(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

/// A decoder and a JPEG encoder of GStreamer that stay warm: what a snapshot costs at least with these libraries.
pub(crate) struct WarmDecoder {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    sink: gst_app::AppSink,
}

impl WarmDecoder {
    /// Starts the pipeline.
    pub(crate) fn start() -> Self {
        gst::init().unwrap();
        let text = "appsrc name=source format=time caps=video/x-h264,stream-format=byte-stream,alignment=au ! avdec_h264 \
                    max-threads=1 ! jpegenc ! appsink name=sink sync=false";
        let pipeline = gst::parse::launch(text).unwrap().downcast::<gst::Pipeline>().unwrap();
        let source = pipeline.by_name("source").unwrap().downcast().unwrap();
        let sink = pipeline.by_name("sink").unwrap().downcast().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { pipeline, source, sink }
    }

    /// Decodes one keyframe to a JPEG and gives its size.
    pub(crate) fn picture(&self, keyframe: &[u8], at: u64) -> usize {
        let mut buffer = gst::Buffer::from_slice(keyframe.to_vec());
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_seconds(at));
        self.source.push_buffer(buffer).unwrap();
        self.sink.pull_sample().unwrap().buffer().unwrap().size()
    }
}

impl Drop for WarmDecoder {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// The keyframe at or before `seconds` as an H.264 byte stream.
pub(crate) fn keyframe(file: &Path, seconds: f64) -> Vec<u8> {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-v", "error", "-ss", &seconds.to_string(), "-i"]).arg(file);
    mos_tests::cli::tool(ffmpeg.args(["-frames:v", "1", "-c", "copy", "-bsf:v", "h264_mp4toannexb", "-f", "h264", "-"]))
}
