//! GStreamer samples as access units.
//!
//! Promises one [`TrackFormat`] object as long as the format stays the same, and coded bytes that are not copied unless they
//! hold parameter sets.

use std::sync::Arc;

use bytes::Bytes;
use gstreamer as gst;

use crate::clock::Mono;
use crate::media::{AccessUnit, AudioFormat, FrameKind, Law, Rotation, TrackFormat, VideoCodec, VideoFormat};
use crate::nal;

/// What the last element of a track must produce, as caps text.
pub(super) const H264: &str = "video/x-h264,stream-format=avc,alignment=au";
pub(super) const H265: &str = "video/x-h265,stream-format=hvc1,alignment=au";
pub(super) const AAC: &str = "audio/mpeg,mpegversion=4,stream-format=raw,framed=true";
pub(super) const A_LAW: &str = "audio/x-alaw";
pub(super) const MU_LAW: &str = "audio/x-mulaw";

/// Remembers the format of one track between its samples.
#[derive(Default)]
pub(super) struct Samples {
    seen: Option<(gst::Caps, Arc<TrackFormat>)>,
    /// Whether a gap in the sample flow is a gap in the coded stream: not if the encoder comes after the gap.
    coded_gaps: bool,
}

impl Samples {
    pub(super) fn new(coded_gaps: bool) -> Self {
        Self { seen: None, coded_gaps }
    }

    /// The unit of a sample. `place` turns its running time in ns into its presentation time.
    pub(super) fn unit(
        &mut self,
        sample: &gst::Sample,
        arrival: Mono,
        place: impl FnOnce(i64) -> Mono,
    ) -> Result<AccessUnit, String> {
        let buffer = sample.buffer_owned().ok_or("a sample without data")?;
        let caps = sample.caps().ok_or("a sample without format")?;
        let first = self.seen.is_none();
        let format = self.format(caps)?;
        let discontinuity = self.coded_gaps
            && !first
            && buffer.flags().intersects(gst::BufferFlags::DISCONT | gst::BufferFlags::CORRUPTED);
        let running = sample
            .segment()
            .and_then(gst::Segment::downcast_ref::<gst::ClockTime>)
            .and_then(|s| s.to_running_time_full(buffer.pts()?))
            .map(signed_nanos);
        let duration = buffer.duration().map(gst::ClockTime::nseconds);
        let data = buffer.into_mapped_buffer_readable().map_err(|_| "a buffer that cannot be read")?;
        let data = Bytes::from_owner(data);
        let (kind, data) = match &*format {
            TrackFormat::Video(v) => (nal::classify(v.codec, &data), nal::stored(v.codec, data)),
            TrackFormat::Audio(_) => (FrameKind::Audio, data),
        };
        Ok(AccessUnit { format, kind, pts: running.map(place), duration, arrival, discontinuity, data })
    }

    fn format(&mut self, caps: &gst::CapsRef) -> Result<Arc<TrackFormat>, String> {
        if let Some((seen, format)) = &self.seen
            && std::ptr::eq(seen.as_ref(), caps)
        {
            return Ok(Arc::clone(format));
        }
        let new = read(caps)?;
        let format = match &self.seen {
            Some((_, old)) if **old == new => Arc::clone(old),
            _ => Arc::new(new),
        };
        self.seen = Some((caps.to_owned(), Arc::clone(&format)));
        Ok(format)
    }
}

fn signed_nanos(time: gst::Signed<gst::ClockTime>) -> i64 {
    match time {
        gst::Signed::Positive(t) => i64::try_from(t.nseconds()).unwrap_or(i64::MAX),
        gst::Signed::Negative(t) => i64::try_from(t.nseconds()).map_or(i64::MIN, |t| -t),
    }
}

/// The format that caps describe.
fn read(caps: &gst::CapsRef) -> Result<TrackFormat, String> {
    let s = caps.structure(0).ok_or("a sample without format")?;
    let positive = |name| s.get::<i32>(name).ok().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    let rate = || positive("rate").ok_or("sound without a rate");
    let channels = || positive("channels").and_then(|n| u16::try_from(n).ok()).ok_or("sound without channels");
    if let A_LAW | MU_LAW = s.name().as_str() {
        let law = if s.name() == A_LAW { Law::A } else { Law::Mu };
        return Ok(TrackFormat::Audio(AudioFormat::G711 { law, sample_rate: rate()?, channels: channels()? }));
    }
    let config = s.get::<gst::Buffer>("codec_data").map_err(|_| format!("{} without codec_data", s.name()))?;
    let config = Bytes::copy_from_slice(&config.map_readable().map_err(|_| "unreadable codec_data")?);
    let codec = match s.name().as_str() {
        "video/x-h264" => VideoCodec::H264,
        "video/x-h265" => VideoCodec::H265,
        "audio/mpeg" => {
            let (sample_rate, channels) = (rate()?, channels()?);
            return Ok(TrackFormat::Audio(AudioFormat::Aac { sample_rate, channels, config }));
        }
        other => return Err(format!("a stream of {other}")),
    };
    let picture = nal::picture(codec, &config);
    let size = picture.map(|p| (p.width, p.height)).or_else(|| Some((positive("width")?, positive("height")?)));
    let (width, height) = size.ok_or("a picture without a size")?;
    let fraction = |name| {
        let f = s.get::<gst::Fraction>(name).ok()?;
        Some((u32::try_from(f.numer()).ok()?, u32::try_from(f.denom()).ok()?)).filter(|f| f.0 > 0 && f.1 > 0)
    };
    Ok(TrackFormat::Video(VideoFormat {
        codec,
        width,
        height,
        pixel_aspect: fraction("pixel-aspect-ratio").unwrap_or((1, 1)),
        config,
        reorder: picture.and_then(|p| p.reorder).unwrap_or(0),
        frame_duration: fraction("framerate").map(|(n, d)| u64::from(d) * 1_000_000_000 / u64::from(n)),
        rotation: Rotation::None,
    }))
}
