//! Live frames of the frame bus in GStreamer pipelines: the element `mosframesrc`.
//!
//! ```text
//! gst-launch-1.0 mosframesrc lens=road ! videoconvert ! autovideosink
//! ```
//!
//! Promises pictures where they lie (`video/x-raw` in memory that is mapped once, or dmabufs), with the time at which the
//! camera took them, and that a buffer goes back to its publisher when the pipeline has freed it. It never holds up the
//! camera: what the pipeline is too slow for is left out. As a plugin it is the library `libmos_frame_gst.so` in a folder
//! of `GST_PLUGIN_PATH`; a program that links this crate calls [`register`].
//!
//! | Property | Meaning | Default |
//! |---|---|---|
//! | `lens` | id of the lens; its socket is `directory`/`lens`.sock | |
//! | `directory` | folder of the sockets | `/run/mos/frames` |
//! | `socket` | path of the socket, in the place of the two | |
//! | `waiting` | frames that may wait at the publisher; the newest | 1 |
//! | `leases` | frames that the pipeline may hold at once, as far as the publisher grants them | 3 |
//! | `max-framerate` | frames per second at most; 0/1 is all | 0/1 |
//! | `reconnect` | wait for a publisher that is not there, and connect again when it has gone | true |
//! | `stats` | counts, readable: `frames`, `copied`, `void`, `stale`, `connections` | |
//!
//! **Memory.** A frame is passed on without a copy, with a `GstVideoMeta`, as `GstDmaBufMemory` if the bus tells that its
//! memories are dmabufs. Linear dmabufs are offered as plain `video/x-raw`, and as `memory:DMABuf` where nothing else is
//! taken downstream (from GStreamer 1.24 on as `DMA_DRM`); what is not linear goes out as `DMA_DRM` with its modifier only.
//! Memory is read-only: elements that write get GStreamer's own copy. A frame is copied in two cases: downstream cannot do
//! with the camera's strides, or holds all leases but one, as encoders that look ahead do. So a pipeline that keeps frames
//! for long slows down, but does not stop.
//!
//! **Time.** `pts` is the running time of the capture; the capture time itself, ns of `CLOCK_MONOTONIC`, is in a
//! `GstReferenceTimestampMeta` with the caps `timestamp/x-monotonic`. `offset` is the camera's number of the frame. The age
//! at which frames arrive is told as latency.
//!
//! **Frames that the camera takes back.** A lease ends when the publisher's lease time is over or the camera needs the
//! buffer (`PROTOCOL.md`). A frame that became void before it was passed on, or while it was copied, is left out (`void`).
//! One that became void while the pipeline read it cannot be called back; it is counted when the pipeline frees it
//! (`stale`). Who cannot bear that holds frames no longer than the lease time.
//!
//! **Reconnecting.** When the publisher's buffers change (the camera was opened anew) the source connects again, always, and
//! negotiates anew; the next buffer is marked `DISCONT`. When it has gone or is not there yet, the source tries every 100 ms
//! to 1 s until it is stopped, or ends the stream if `reconnect` is false. It fails at once if this user may not read the
//! socket, or if the publisher refuses it.

mod format;
mod memory;
mod source;
mod stream;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;

pub use format::{fourcc, video_format};
pub use source::MosFrameSrc;

/// The element's name.
pub const ELEMENT: &str = "mosframesrc";

/// Registers the element in this process, which must have started GStreamer.
///
/// # Errors
/// If GStreamer refuses.
pub fn register() -> Result<(), glib::BoolError> {
    gst::Element::register(None, ELEMENT, gst::Rank::NONE, MosFrameSrc::static_type())
}

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), ELEMENT, gst::Rank::NONE, MosFrameSrc::static_type())
}

/// What GStreamer looks for in a plugin, by the name of its file.
#[allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "generated")]
mod plugin {
    use super::{gst, plugin_init};

    gst::plugin_define!(
        mos_frame_gst,
        "Live frames of MOS' frame bus",
        plugin_init,
        env!("CARGO_PKG_VERSION"),
        "MIT/X11",
        "mos-frame-gst",
        "mos-frame-gst",
        "https://example.invalid/mos"
    );
}
