//! The streams that test cameras send: one for every kind of coding that MOS promises to record.
//!
//! Promise: [`Stream::get`] returns a file whose every frame carries its number (0, 1, 2… in order of display, see
//! [`crate::picture`]); it is made once by ffmpeg and kept beside the build output. A stream loops without a seam: its
//! length is a whole number of frames, of seconds and of AAC access units. Safe to call from any thread or process.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::cli;
use crate::picture;

/// A kind of coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// H.264 High, no B-frames, IDR every second.
    H264,
    /// The frames of [`Self::H264`] at 960×540.
    H264Large,
    /// H.264 with three B-frames and a B-pyramid.
    H264B3,
    /// H.264, no IDR after the first frame: intra refresh with recovery points.
    H264Refresh,
    /// H.264, 30 frames in one second and 10 in the next.
    H264Variable,
    /// H.264 with AAC stereo, 48 kHz.
    H264Aac,
    /// H.264 with G.711 A-law, 8 kHz.
    H264Pcma,
    /// H.264 with G.711 µ-law, 8 kHz.
    H264Pcmu,
    /// H.265 Main, closed GOP, B-frames.
    H265,
    /// H.265 Main, open GOP: CRA with RASL pictures, B-frames.
    H265Open,
    /// H.265 Main 10, closed GOP.
    H265Ten,
    /// H.264 at 12 Mbit/s: fills a small disk.
    H264Heavy,
    /// H.264 1920×1080 at 25 frames/s and 4 Mbit/s: the load of the recording benchmark.
    Load4M,
    /// H.264 640×360 at 25 frames/s and 1 Mbit/s: one of many cameras.
    Load1M,
    /// H.264 1920×1080 at 30 frames/s and 8 Mbit/s: the load of the clip benchmark.
    Load8M,
    /// H.264 1920×1080 at 30 frames/s and 80 Mbit/s: a segment of 12 s has 100 MB and more, for uploads and reductions.
    Bulk,
}

impl Kind {
    /// Every kind that the black-box tests record.
    pub const RECORDED: [Self; 8] = [
        Self::H264,
        Self::H264B3,
        Self::H264Refresh,
        Self::H264Variable,
        Self::H264Aac,
        Self::H265,
        Self::H265Open,
        Self::H265Ten,
    ];

    /// A name that may be a lens id and a file name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::H264Large => "h264_large",
            Self::H264B3 => "h264_b3",
            Self::H264Refresh => "h264_refresh",
            Self::H264Variable => "h264_variable",
            Self::H264Aac => "h264_aac",
            Self::H264Pcma => "h264_pcma",
            Self::H264Pcmu => "h264_pcmu",
            Self::H265 => "h265",
            Self::H265Open => "h265_open",
            Self::H265Ten => "h265_ten",
            Self::H264Heavy => "h264_heavy",
            Self::Load1M => "load_1m",
            Self::Load4M => "load_4m",
            Self::Load8M => "load_8m",
            Self::Bulk => "bulk",
        }
    }

    /// `h264` or `h265`, as the API says it.
    #[must_use]
    pub fn codec(self) -> &'static str {
        match self {
            Self::H265 | Self::H265Open | Self::H265Ten => "h265",
            _ => "h264",
        }
    }

    fn is_load(self) -> bool {
        matches!(self, Self::Load4M | Self::Load8M | Self::Bulk)
    }
}

/// A stream on disk.
#[derive(Clone, Debug)]
pub struct Stream {
    /// What it is.
    pub kind: Kind,
    /// The MP4 file.
    pub path: PathBuf,
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Mean frames per second.
    pub fps: u32,
    /// Frames in the file, numbered from 0.
    pub frames: u32,
    /// Length of the loop in seconds.
    pub seconds: u32,
}

impl Stream {
    /// The stream of this kind; made by ffmpeg on first use, which takes a few seconds.
    pub fn get(kind: Kind) -> Self {
        static MAKING: Mutex<()> = Mutex::new(());
        let seconds = match kind {
            Kind::Load4M | Kind::Load8M => 64,
            Kind::H264Heavy | Kind::Bulk => 16,
            _ => 32,
        };
        let fps = match kind {
            Kind::H264Variable => 20,
            Kind::Load8M | Kind::Bulk => 30,
            _ => 25,
        };
        let (width, height) = match kind {
            Kind::H264Large => (960, 540),
            _ if kind.is_load() => (1920, 1080),
            _ => (640, 360),
        };
        let path = folder().join(format!("{}-v2.mp4", kind.name()));
        let stream = Self { kind, path, width, height, fps, frames: fps * seconds, seconds };
        let _one = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !stream.path.exists() {
            stream.make();
        }
        stream
    }

    /// Writes it ten times over, in the container that the name of the file says.
    pub fn ten_times(&self, into: &Path) {
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-nostdin", "-v", "error", "-stream_loop", "9", "-i"]).arg(&self.path);
        cli::tool(ffmpeg.args(["-c", "copy"]).arg(into));
    }

    fn make(&self) {
        let part = self.path.with_extension(format!("{}.part", std::process::id()));
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-nostdin", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "yuv420p"]);
        ffmpeg.args(["-s", &format!("{}x{}", self.width, self.height), "-r", &self.fps.to_string(), "-i", "pipe:0"]);
        if self.kind == Kind::H264Aac {
            ffmpeg.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000,aformat=channel_layouts=stereo"]);
            ffmpeg.args(["-c:a", "aac", "-b:a", "96k", "-t", &self.seconds.to_string()]);
        }
        let law = match self.kind {
            Kind::H264Pcma => Some("pcm_alaw"),
            Kind::H264Pcmu => Some("pcm_mulaw"),
            _ => None,
        };
        if let Some(law) = law {
            // Noise, of which no two pieces are alike.
            let noise = format!("anoisesrc=seed=7:sample_rate=8000:duration={}", self.seconds);
            ffmpeg.args(["-f", "lavfi", "-i", &noise, "-c:a", law]);
        }
        // What is stored of MP4's own is the same in both; ffmpeg writes G.711 into MOV only.
        let container = if law.is_some() { "mov" } else { "mp4" };
        ffmpeg.args(coding(self.kind, self.fps)).args(["-video_track_timescale", "90000", "-f", container]).arg(&part);
        let mut child = ffmpeg.stdin(Stdio::piped()).spawn().expect("ffmpeg is installed (make test-deps)");
        let mut pipe = child.stdin.take().expect("stdin is piped");
        let mut picture = vec![0; self.width * self.height * 3 / 2];
        let texture = match self.kind {
            Kind::Load1M | Kind::Load4M => 60,
            Kind::Load8M => 20,
            Kind::H264Heavy | Kind::Bulk => 100,
            _ => 8,
        };
        for number in 0..self.frames {
            picture::paint(&mut picture, self.width, self.height, number as u16, texture);
            pipe.write_all(&picture).expect("ffmpeg reads its input");
        }
        drop(pipe);
        assert!(child.wait().expect("ffmpeg ends").success(), "ffmpeg could not make {}", self.path.display());
        std::fs::rename(&part, &self.path).expect("the finished stream takes its name");
    }
}

/// Where made streams are kept between runs: `{target}/streams`.
fn folder() -> PathBuf {
    let folder = crate::binary_folder().parent().unwrap_or(Path::new(".")).join("streams");
    std::fs::create_dir_all(&folder).expect("the build output is writable");
    folder
}

fn coding(kind: Kind, fps: u32) -> Vec<String> {
    let mut x264 = String::from("scenecut=0:open-gop=0");
    let mut x265 = String::from("log-level=error:scenecut=0:repeat-headers=0:pools=2");
    let mut args: Vec<&str> = vec!["-g"];
    let gop = fps.to_string();
    args.push(&gop);
    let is_265 = kind.codec() == "h265";
    match kind {
        Kind::H264 | Kind::H264Large | Kind::H264Aac | Kind::H264Pcma | Kind::H264Pcmu => x264.push_str(":bframes=0"),
        Kind::H264B3 => x264.push_str(":bframes=3:b-adapt=0:b-pyramid=normal"),
        Kind::H264Refresh => x264.push_str(":bframes=0:intra-refresh=1"),
        Kind::H264Variable => {
            x264.push_str(":bframes=0");
            let times = "setpts='(2*floor(N/40)+if(lt(mod(N,40),30),mod(N,40)/30,1+(mod(N,40)-30)/10))/TB'";
            args.extend(["-vf", times, "-fps_mode", "passthrough", "-enc_time_base", "1:90000"]);
            args.extend(["-force_key_frames", "expr:gte(t,n_forced)"]);
        }
        Kind::H265 => x265.push_str(":open-gop=0:bframes=3:b-adapt=0"),
        Kind::H265Open => x265.push_str(":open-gop=1:bframes=3:b-adapt=0"),
        Kind::H265Ten => x265.push_str(":open-gop=0:bframes=2:b-adapt=0"),
        Kind::H264Heavy => {
            x264.push_str(":bframes=0");
            args.extend(["-b:v", "12M", "-maxrate", "12M", "-bufsize", "12M"]);
        }
        Kind::Load1M => {
            x264.push_str(":bframes=0");
            args.extend(["-b:v", "1M", "-maxrate", "1M", "-bufsize", "1M"]);
        }
        Kind::Load4M => {
            x264.push_str(":bframes=0");
            args.extend(["-b:v", "4M", "-maxrate", "4M", "-bufsize", "4M"]);
        }
        Kind::Load8M => {
            x264.push_str(":bframes=0");
            args.extend(["-b:v", "8M", "-maxrate", "8M", "-bufsize", "8M"]);
        }
        Kind::Bulk => {
            x264.push_str(":bframes=0");
            args.extend(["-b:v", "80M", "-maxrate", "80M", "-bufsize", "80M"]);
        }
    }
    if !args.contains(&"-b:v") {
        args.extend(["-crf", "26"]);
    }
    if is_265 {
        args.extend(["-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1"]);
        args.extend(["-pix_fmt", if kind == Kind::H265Ten { "yuv420p10le" } else { "yuv420p" }]);
        let _ = write!(x265, ":keyint={gop}:min-keyint={gop}");
        args.extend(["-x265-params", &x265]);
    } else {
        // Keyframes of about 165 KB without CABAC, as the figures of the peers were taken with.
        let preset = if matches!(kind, Kind::Load8M | Kind::Bulk) { "ultrafast" } else { "veryfast" };
        args.extend(["-c:v", "libx264", "-preset", preset, "-pix_fmt", "yuv420p", "-x264-params", &x264]);
    }
    args.into_iter().map(str::to_owned).collect()
}
