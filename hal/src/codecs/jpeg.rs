//! Keyframes to JPEG.
//!
//! Promises that each picture is the one that was asked for: a decoder is drained by end of stream and flushed before it is
//! used again, pictures carry the number of their request, and another number is never returned. Decoders stay warm, at
//! most [`DECODERS`] of them; more requests at a time wait for one. A decoder that does not answer is thrown away. The board's
//! decoder comes first; where it fails and the CPU does not, the CPU takes over until the program ends.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSrc, AppSrcCallbacks};
use gstreamer_video::prelude::*;
use gstreamer_video::{VideoColorMatrix, VideoColorRange, VideoColorimetry, VideoFrameRef, VideoInfo};

use super::chain::{By, Chain, ENCODER};
use super::families::{Family, Task};
use super::jfif::{self, Plane, ToJfif};
use crate::gst as common;
use crate::machine::Machine;
use crate::media::{Rotation, VideoCodec, VideoFormat};
use crate::platform::{CodecError, Codecs, Jpeg, JpegOptions};

/// Decoders that exist at most, warm or at work; each holds a few pictures, 3 MB apiece at 1080p.
const DECODERS: usize = 4;
/// How long one picture may take; generous for a cold start on a small board under load.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keyframes to JPEG by warm decoders.
pub struct Jpegs {
    machine: Arc<Machine>,
    /// By what each codec is decoded, once that was asked.
    ways: Mutex<HashMap<VideoCodec, By>>,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Default)]
struct Pool {
    /// Waiting decoders, the one used last at the end.
    idle: Vec<Decoder>,
    /// Decoders at work.
    busy: usize,
}

impl Jpegs {
    /// Starts nothing until the first picture is asked for.
    pub(crate) fn new(machine: Arc<Machine>) -> Self {
        Self { machine, ways: Mutex::default(), pool: Mutex::default(), returned: Condvar::new() }
    }

    fn ways(&self) -> MutexGuard<'_, HashMap<VideoCodec, By>> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn way(&self, codec: VideoCodec) -> By {
        let hardware = || Chain::hardware(codec, &self.machine).map_or(By::Software, |_| By::Hardware);
        *self.ways().entry(codec).or_insert_with(hardware)
    }

    fn by(&self, by: By, format: &VideoFormat, keyframe: &[u8], options: JpegOptions) -> Result<Jpeg, CodecError> {
        let key = Key::new(format, options.max_edge, by);
        let (place, found) = self.enter(&key)?;
        let mut decoder = match found {
            Some(decoder) => decoder,
            None => Decoder::start(key, &self.machine)?,
        };
        // A decoder that failed in any way is dropped here, not kept.
        let jpeg = decoder.picture(keyframe, options.quality)?;
        self.pool().idle.push(decoder);
        drop(place);
        Ok(jpeg)
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place among the [`DECODERS`], with a warm decoder of this kind if there is one.
    fn enter(&self, key: &Key) -> Result<(Place<'_>, Option<Decoder>), CodecError> {
        let full = |pool: &mut Pool| pool.busy >= DECODERS;
        let waited = self.returned.wait_timeout_while(self.pool(), PATIENCE, full);
        let (mut pool, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return Err(CodecError::Timeout(PATIENCE.as_millis() as u64));
        }
        pool.busy += 1;
        let found = pool.idle.iter().rposition(|d| d.key == *key).map(|i| pool.idle.remove(i));
        // The one unused longest makes room, before a new one is started.
        let too_many = found.is_none() && pool.idle.len() + pool.busy > DECODERS;
        let evicted = too_many.then(|| pool.idle.remove(0));
        drop(pool);
        drop(evicted);
        Ok((Place(self), found))
    }
}

/// One decoder at work.
struct Place<'a>(&'a Jpegs);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.pool().busy -= 1;
        self.0.returned.notify_one();
    }
}

impl Codecs for Jpegs {
    fn jpeg(&self, format: &VideoFormat, keyframe: &[u8], options: JpegOptions) -> Result<Jpeg, CodecError> {
        let codec = format.codec;
        // Asking what the board has starts GStreamer.
        common::init().map_err(CodecError::Undecodable)?;
        if self.way(codec) == By::Software {
            return self.by(By::Software, format, keyframe, options);
        }
        let failed = match self.by(By::Hardware, format, keyframe, options) {
            Ok(jpeg) => return Ok(jpeg),
            Err(why) => why,
        };
        // What neither can decode is the fault of the stream.
        let jpeg = self.by(By::Software, format, keyframe, options)?;
        if self.ways().insert(codec, By::Software) == Some(By::Hardware) {
            log::error!("{} is pictured by the CPU from now on, the board's decoder failed: {failed}", codec.name());
        }
        Ok(jpeg)
    }

    fn encoder(&self, codec: VideoCodec) -> Option<&'static Family> {
        self.machine.element(Task::Encode(codec)).ok()
    }

    fn decoder(&self, codec: VideoCodec) -> Option<&'static Family> {
        self.machine.element(Task::Decode(codec)).ok()
    }

    fn jpeg_encoder(&self) -> Option<&'static Family> {
        self.machine.element(Task::EncodeJpeg).ok()
    }
}

/// What a decoder was set up for.
#[derive(Clone, PartialEq, Eq)]
struct Key {
    codec: VideoCodec,
    config: Bytes,
    coded: (u32, u32),
    /// Size of the picture to make: square pixels, at most the wanted edge.
    picture: (u32, u32),
    rotation: Rotation,
    by: By,
}

impl Key {
    fn new(format: &VideoFormat, max_edge: Option<u32>, by: By) -> Self {
        let coded = (format.width, format.height);
        let (n, d) = format.pixel_aspect;
        let width = (u64::from(coded.0) * u64::from(n) / u64::from(d.max(1))).clamp(1, 65_535) as u32;
        let picture = fit((width, coded.1.max(1)), max_edge);
        Self { codec: format.codec, config: format.config.clone(), coded, picture, rotation: format.rotation, by }
    }
}

/// Scales down to the longest edge, never up.
fn fit((width, height): (u32, u32), max_edge: Option<u32>) -> (u32, u32) {
    let edge = width.max(height);
    let wanted = max_edge.unwrap_or(edge).max(1);
    if edge <= wanted {
        return (width, height);
    }
    let scaled = |n: u32| ((u64::from(n) * u64::from(wanted) + u64::from(edge) / 2) / u64::from(edge)).max(1) as u32;
    (scaled(width), scaled(height))
}

/// A running pipeline that waits for a keyframe.
struct Decoder {
    key: Key,
    pipeline: Option<gst::Pipeline>,
    input: AppSrc,
    output: AppSink,
    encoder: gst::Element,
    /// Number of the next request; it travels as the buffer's time.
    next: u64,
}

impl Drop for Decoder {
    fn drop(&mut self) {
        if let Some(pipeline) = self.pipeline.take() {
            common::stop(pipeline);
        }
    }
}

impl Decoder {
    fn start(key: Key, machine: &Machine) -> Result<Self, CodecError> {
        let failed = |why: String| CodecError::Undecodable(why);
        let chain = match key.by {
            By::Hardware => Chain::hardware(key.codec, machine).ok_or_else(|| failed("no decoder".into()))?,
            By::Software => Chain::software(key.codec, machine)?,
        };
        let chain = if key.rotation == Rotation::None { chain } else { chain.turning() };
        let (parser, media, framing) = match key.codec {
            VideoCodec::H264 => ("h264parse", "video/x-h264", "avc"),
            VideoCodec::H265 => ("h265parse", "video/x-h265", "hvc1"),
        };
        let text = format!(
            "appsrc name=in format=time stream-type=seekable max-buffers=2 ! {parser} name=parse ! {} ! \
             appsink name=sink sync=false async=false qos=false enable-last-sample=false max-buffers=4",
            chain.text(key.coded, key.picture, key.rotation)
        );
        let pipeline = common::build(&text).map_err(failed)?;
        let input: AppSrc = common::named(&pipeline, "in").map_err(failed)?;
        let output = common::named(&pipeline, "sink").map_err(failed)?;
        let encoder: gst::Element = common::named(&pipeline, ENCODER).map_err(failed)?;
        let parser: gst::Element = common::named(&pipeline, "parse").map_err(failed)?;
        let caps = gst::Caps::builder(media)
            .field("stream-format", framing)
            .field("alignment", "au")
            .field("codec_data", gst::Buffer::from_slice(key.config.clone()))
            .field("width", key.coded.0.cast_signed())
            .field("height", key.coded.1.cast_signed());
        input.set_caps(Some(&caps.build()));
        // Any position is right: a seek is how end of stream is taken back.
        input.set_callbacks(AppSrcCallbacks::builder().seek_data(|_, _| true).build());
        if chain.is_by_cpu() {
            convert_before(&encoder, &parser);
        }
        let decoder = Self { key, pipeline: Some(pipeline.clone()), input, output, encoder, next: 1 };
        if pipeline.set_state(gst::State::Playing).is_err() {
            return Err(CodecError::Undecodable(
                decoder.last_words().unwrap_or_else(|| "the decoder does not start".into()),
            ));
        }
        Ok(decoder)
    }

    /// Decodes one keyframe. After an error the decoder must not be used again.
    fn picture(&mut self, keyframe: &[u8], quality: u8) -> Result<Jpeg, CodecError> {
        let number = self.next;
        self.next += 1;
        let undecodable = |what: &str| CodecError::Undecodable(self.last_words().unwrap_or_else(|| what.to_owned()));
        common::set(&self.encoder, "quality", &quality.clamp(1, 100).to_string()).map_err(CodecError::Undecodable)?;
        let mut buffer = gst::Buffer::from_slice(Bytes::copy_from_slice(keyframe));
        if let Some(b) = buffer.get_mut() {
            b.set_pts(gst::ClockTime::from_seconds(number));
        }
        self.input.push_buffer(buffer).map_err(|_| undecodable("the decoder takes nothing"))?;
        // Drains the decoder: it would hold back a picture that could still be overtaken in output order.
        self.input.end_of_stream().map_err(|_| undecodable("the decoder takes nothing"))?;

        let end = Instant::now() + PATIENCE;
        let mut found = None;
        loop {
            let left = gst::ClockTime::try_from(end.saturating_duration_since(Instant::now())).unwrap_or_default();
            match self.output.try_pull_sample(left) {
                Some(sample) => {
                    let pts = sample.buffer().and_then(gst::BufferRef::pts);
                    if found.is_none() && pts == Some(gst::ClockTime::from_seconds(number)) {
                        found = Some(sample);
                    }
                }
                None if self.output.is_eos() => break,
                None if Instant::now() >= end => return Err(CodecError::Timeout(PATIENCE.as_millis() as u64)),
                None => return Err(undecodable("the decoder stopped")),
            }
            if let Some(why) = self.last_words() {
                return Err(CodecError::Undecodable(why));
            }
        }
        let sample = found.ok_or_else(|| undecodable("no picture came out"))?;
        // Ready for the next: end of stream is taken back and the decoder forgets what it saw.
        if self.input.seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::ZERO).is_err() {
            return Err(CodecError::Undecodable("the decoder cannot be flushed".into()));
        }
        let buffer = sample.buffer_owned().ok_or_else(|| undecodable("no picture came out"))?;
        let data = buffer.map_readable().map_err(|_| CodecError::Undecodable("an unreadable picture".into()))?;
        let (width, height) = self.key.rotation.of_size(self.key.picture);
        Ok(Jpeg { data: data.to_vec(), width, height })
    }

    /// What an element of the pipeline said when it failed.
    fn last_words(&self) -> Option<String> {
        let bus = self.pipeline.as_ref()?.bus()?;
        let message = bus.pop_filtered(&[gst::MessageType::Error])?;
        match message.view() {
            gst::MessageView::Error(e) => Some(common::words(e)),
            _ => None,
        }
    }
}

/// Converts each picture to JPEG colours as it enters the encoder, in the encoder's thread.
fn convert_before(encoder: &gst::Element, parser: &gst::Element) {
    let (Some(pad), Some(parsed)) = (encoder.static_pad("sink"), parser.static_pad("src")) else { return };
    let parsed = parsed.downgrade();
    // The encoder gives its picture back before it takes the next: one buffer is enough, and its memory stays mapped.
    let spare = Mutex::new(None);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let tagged = parsed
            .upgrade()
            .and_then(|p| p.current_caps())
            .is_some_and(|caps| caps.structure(0).is_some_and(|s| s.has_field("colorimetry")));
        let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
        let unused = spare.take();
        let converted =
            pad.current_caps().zip(info.buffer()).and_then(|(caps, buffer)| convert(buffer, &caps, tagged, unused));
        if let Some(converted) = converted {
            *spare = Some(converted.clone());
            info.data = Some(gst::PadProbeData::Buffer(converted));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Pixels that the encoder reads at once. It reads past the end of lines, the last one too, so that pictures of other widths
/// get a defined end; else bytes of unrelated memory would reach the file, unseen.
const MCU: u32 = 16;

/// A copy in JPEG colours; `None` if the picture can be taken as it is. `tagged`: the stream names its matrix. One that does not
/// is taken for BT.601, as ffmpeg does. `unused`: a buffer to write into, if it is free and fits.
fn convert(
    buffer: &gst::BufferRef,
    caps: &gst::CapsRef,
    tagged: bool,
    unused: Option<gst::Buffer>,
) -> Option<gst::Buffer> {
    let info = VideoInfo::from_caps(caps).ok()?;
    // Not as in `info`, which puts defaults in the place of what the stream does not name.
    let named = caps.structure(0)?.get::<&str>("colorimetry").ok().and_then(|c| c.parse::<VideoColorimetry>().ok());
    let matrix = named.as_ref().filter(|_| tagged).map(VideoColorimetry::matrix);
    let full = named.is_some_and(|c| c.range() == VideoColorRange::Range0_255);
    let from = match matrix {
        Some(VideoColorMatrix::Bt709) => jfif::BT709,
        Some(VideoColorMatrix::Bt2020) => jfif::BT2020,
        _ => jfif::BT601,
    };
    let conversion = ToJfif::new(from, full);
    if conversion.is_identity() && info.width().is_multiple_of(MCU) {
        return None;
    }
    let source = VideoFrameRef::from_buffer_ref_readable(buffer, &info).ok()?;
    let size = info.size() + MCU as usize;
    let unused = unused.filter(|b| b.size() == size && b.is_writable());
    let mut result = unused.map_or_else(|| gst::Buffer::with_size(size), Ok).ok()?;
    {
        let result = result.get_mut()?;
        result.set_pts(buffer.pts());
        let stride = |i: usize| usize::try_from(info.stride()[i]).ok();
        let mut map = result.map_writable().ok()?;
        map.get_mut(info.size()..)?.fill(128);
        let (luma, rest) = map.split_at_mut_checked(*info.offset().get(1)?)?;
        let (blue, red) = rest.split_at_mut_checked(info.offset().get(2)? - info.offset().get(1)?)?;
        let plane = |i: u32| {
            let stride = usize::try_from(*source.plane_stride().get(i as usize)?).ok()?;
            Some(Plane { data: source.plane_data(i).ok()?, stride })
        };
        let mut to = [
            Plane { data: luma, stride: stride(0)? },
            Plane { data: blue, stride: stride(1)? },
            Plane { data: red, stride: stride(2)? },
        ];
        conversion.convert(&[plane(0)?, plane(1)?, plane(2)?], &mut to, info.width() as usize, info.height() as usize);
    }
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_scaled_down_and_never_up() {
        assert_eq!(fit((1920, 1080), None), (1920, 1080));
        assert_eq!(fit((1920, 1080), Some(640)), (640, 360));
        assert_eq!(fit((1080, 1920), Some(640)), (360, 640));
        assert_eq!(fit((320, 240), Some(640)), (320, 240));
        assert_eq!(fit((7680, 2), Some(100)), (100, 1));
        assert_eq!(fit((2, 2), Some(0)), (1, 1));
    }
}
