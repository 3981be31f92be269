//! Real access units with a number in every picture.
//!
//! The number of a frame is drawn as 32 black or white blocks (16 bits and their complement), coded by ffmpeg, and read back
//! from decoded pictures scaled to one pixel a block. So the judge compares what a decoder shows with what the source sent.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use mos_hal::clock::Mono;
use mos_hal::media::{AccessUnit, AudioFormat, FrameKind, TrackFormat, VideoCodec, VideoFormat};
use mos_hal::nal;

pub(crate) const FPS: usize = 25;
const WIDTH: usize = 160;
const HEIGHT: usize = 96;
const COLUMNS: usize = 8;
const ROWS: usize = 4;
/// Bytes of a decoded picture in [`read_number`].
pub(crate) const BLOCKS: usize = COLUMNS * ROWS;

/// A coded unit and when it was captured, relative to the stream's start.
#[derive(Clone, Debug)]
pub(crate) struct Coded {
    pub(crate) kind: FrameKind,
    pub(crate) pts: i64,
    /// When the encoder has it ready: one after the other, so that the disk's work falls between reordered frames too.
    pub(crate) ready: i64,
    pub(crate) data: Bytes,
}

/// A coded stream.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) format: Arc<TrackFormat>,
    pub(crate) units: Vec<Coded>,
}

impl Stream {
    /// The number drawn into the frame captured at `pts`.
    pub(crate) fn number_at(pts: i64) -> u16 {
        ((pts * FPS as i64 + 500_000_000) / 1_000_000_000) as u16
    }

    /// The unit as a source delivers it when the stream began at `start`.
    pub(crate) fn unit(&self, n: usize, start: Mono, latency: i64) -> AccessUnit {
        let coded = &self.units[n];
        AccessUnit {
            format: Arc::clone(&self.format),
            kind: coded.kind,
            pts: Some(Mono(start.0 + coded.pts)),
            duration: None,
            arrival: Mono(start.0 + coded.ready + latency),
            discontinuity: false,
            data: coded.data.clone(),
        }
    }
}

/// Codes `seconds` of numbered frames with `args` for the encoder.
pub(crate) fn video(dir: &Path, name: &str, codec: VideoCodec, seconds: usize, args: &[&str]) -> Stream {
    let path = dir.join(format!("{name}.mp4"));
    let size = format!("{WIDTH}x{HEIGHT}");
    let mut child = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "gray", "-s", &size, "-r", &FPS.to_string()])
        .args(["-i", "-", "-pix_fmt", "yuv420p"])
        .args(args)
        .args(["-video_track_timescale", "90000", "-bf", "2"])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("ffmpeg is installed");
    {
        let mut stdin = child.stdin.take().unwrap();
        for n in 0..seconds * FPS {
            stdin.write_all(&picture(n as u16)).unwrap();
        }
    }
    assert!(child.wait().unwrap().success(), "ffmpeg could not encode {name}");
    let file = std::fs::read(&path).unwrap();
    let config = match codec {
        VideoCodec::H264 => inner_box(&file, *b"avcC"),
        VideoCodec::H265 => inner_box(&file, *b"hvcC"),
    };
    let reorder = nal::picture(codec, &config).and_then(|p| p.reorder).unwrap_or(0);
    let format = Arc::new(TrackFormat::Video(VideoFormat {
        codec,
        width: WIDTH as u32,
        height: HEIGHT as u32,
        pixel_aspect: (1, 1),
        config,
        reorder,
        frame_duration: None,
        rotation: mos_hal::media::Rotation::None,
    }));
    let units = packets(&path, &file, "v:0", 90_000, |data| nal::classify(codec, data));
    assert_eq!(units.len(), seconds * FPS);
    Stream { format, units }
}

/// Codes `seconds` of a tone as AAC.
pub(crate) fn audio(dir: &Path, seconds: usize) -> Stream {
    let path = dir.join("tone.mp4");
    let input = format!("sine=frequency=440:sample_rate=16000:duration={seconds}");
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-f", "lavfi", "-i", &input, "-c:a", "aac", "-b:a", "24k"])
        .arg(&path)
        .status()
        .expect("ffmpeg is installed");
    assert!(status.success(), "ffmpeg could not encode the tone");
    let file = std::fs::read(&path).unwrap();
    // AudioSpecificConfig of AAC-LC, 16 kHz, mono (ISO/IEC 14496-3, 1.6.2.1): object type 2, frequency index 8, channels 1.
    let config = Bytes::from_static(&[0x14, 0x08]);
    let format = Arc::new(TrackFormat::Audio(AudioFormat::Aac { sample_rate: 16_000, channels: 1, config }));
    let units = packets(&path, &file, "a:0", 16_000, |_| FrameKind::Audio);
    Stream { format, units }
}

/// The number in a decoded picture of one pixel a block; `None` if it is not a whole picture of a stream.
pub(crate) fn read_number(blocks: &[u8]) -> Option<u16> {
    let bit = |at: usize| match blocks[at] {
        0..=80 => Some(0),
        175..=255 => Some(1),
        _ => None,
    };
    let mut number = 0;
    for at in 0..16 {
        let (plain, inverse) = (bit(at)?, bit(at + 16)?);
        if plain == inverse {
            return None;
        }
        number = number << 1 | plain;
    }
    Some(number)
}

fn picture(number: u16) -> Vec<u8> {
    let mut pixels = vec![0; WIDTH * HEIGHT];
    for (at, pixel) in pixels.iter_mut().enumerate() {
        let (x, y) = (at % WIDTH, at / WIDTH);
        let block = y / (HEIGHT / ROWS) * COLUMNS + x / (WIDTH / COLUMNS);
        let plain = number >> (15 - block % 16) & 1 == 1;
        *pixel = if plain == (block < 16) { 235 } else { 16 };
    }
    pixels
}

/// Contents of the first box of this type, found by its name: enough for files that ffmpeg just wrote.
fn inner_box(file: &[u8], kind: [u8; 4]) -> Bytes {
    let at = file.windows(4).position(|w| w == kind).expect("the file has a decoder configuration");
    let size = u32::from_be_bytes(file[at - 4..at].try_into().unwrap()) as usize;
    Bytes::copy_from_slice(&file[at + 4..at - 4 + size])
}

/// The packets of a track as ffprobe sees them.
fn packets(path: &Path, file: &[u8], track: &str, scale: i64, kind: impl Fn(&[u8]) -> FrameKind) -> Vec<Coded> {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", track, "-show_entries", "packet=pts,size,pos", "-of", "csv=p=0"])
        .arg(path)
        .output()
        .expect("ffprobe is installed");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let mut rows = Vec::new();
    for line in text.lines() {
        // A packet with side data is followed by lines of another shape.
        let fields: Vec<i64> = line.split(',').filter_map(|f| f.trim().parse().ok()).collect();
        if let [pts, size, pos] = fields[..] {
            rows.push((pts, pos as usize, size as usize));
        }
    }
    let first = rows.iter().map(|r| r.0).min().unwrap();
    let last = rows.iter().map(|r| r.0).max().unwrap();
    let pace = (last - first) * 1_000_000_000 / scale / (rows.len() as i64 - 1);
    let mut ready = -pace;
    let coded = |(pts, pos, size): (i64, usize, usize)| {
        let pts = ((i128::from(pts - first) * 1_000_000_000 + i128::from(scale) / 2) / i128::from(scale)) as i64;
        // At an even pace, in decoding order, and none before its capture.
        ready = pts.max(ready + pace);
        let data = Bytes::copy_from_slice(&file[pos..pos + size]);
        Coded { kind: kind(&data), pts, ready, data }
    };
    rows.into_iter().map(coded).collect()
}
