//! Real streams, made by ffmpeg and taken apart into units.

use std::path::{Path, PathBuf};
use std::process::Command;

use mos_mp4::boxes::{Children, child};
use mos_mp4::{SampleEntry, VIDEO_TIMESCALE};

use super::Unit;

/// Streams for one test: pictures and sound in decoding order, with their entries.
#[derive(Debug)]
pub struct Stream {
    /// ffmpeg's own file: the reference.
    pub path: PathBuf,
    pub video: (SampleEntry, Vec<Unit>),
    pub audio: Option<(SampleEntry, Vec<Unit>)>,
    pub width: usize,
    pub height: usize,
}

/// What to make.
#[derive(Clone, Copy, Debug)]
pub struct Make<'a> {
    pub name: &'a str,
    pub encoder: &'a str,
    /// Options of the encoder.
    pub options: &'a [&'a str],
    pub size: (usize, usize),
    pub frames: usize,
    pub audio: bool,
}

/// 90 pictures of H.264 with three B-frames and two reference levels, a keyframe every 20, and AAC.
pub const H264: Make<'static> = Make {
    name: "h264",
    encoder: "libx264",
    options: &[
        "-x264-params",
        "bframes=3:b-pyramid=normal:b-adapt=0:keyint=20:min-keyint=20:scenecut=0:ref=3:threads=1",
    ],
    size: (96, 64),
    frames: 90,
    audio: true,
};

/// H.265 with closed groups of pictures.
pub const H265: Make<'static> = Make {
    name: "h265",
    encoder: "libx265",
    options: &[
        "-x265-params",
        "bframes=3:b-adapt=0:keyint=20:min-keyint=20:scenecut=0:open-gop=0:log-level=none:pools=1",
    ],
    ..H264
};

/// H.265 with open groups of pictures: CRA with leading pictures.
pub const H265_OPEN: Make<'static> = Make {
    name: "h265open",
    options: &[
        "-x265-params",
        "bframes=3:b-adapt=0:keyint=20:min-keyint=20:scenecut=0:open-gop=1:log-level=none:pools=1",
    ],
    ..H265
};

impl Make<'_> {
    /// Runs ffmpeg and takes its file apart.
    pub fn run(&self, dir: &Path) -> Stream {
        let path = dir.join(format!("{}.mp4", self.name));
        let (width, height) = self.size;
        let mut cmd = Command::new("ffmpeg");
        cmd.args(["-v", "error", "-y", "-f", "lavfi", "-i", &format!("testsrc2=s={width}x{height}:r=30")]);
        if self.audio {
            cmd.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]);
            cmd.args(["-c:a", "aac", "-b:a", "64k"]);
        }
        cmd.args(["-t", &format!("{}", self.frames as f64 / 30.0), "-pix_fmt", "yuv420p", "-c:v", self.encoder]);
        cmd.args(self.options).args(["-video_track_timescale", "90000", "-tag:v"]);
        cmd.arg(if self.encoder == "libx265" { "hvc1" } else { "avc1" }).arg(&path);
        let done = cmd.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let file = std::fs::read(&path).unwrap();
        let video = (entry(&file, 0, 90_000), packets(&path, &file, "v:0"));
        assert_eq!(video.1.len(), self.frames);
        let audio = self.audio.then(|| (entry(&file, 1, 48_000), packets(&path, &file, "a:0")));
        Stream { path, video, audio, width, height }
    }
}

/// Sample entry of track number `index`.
fn entry(file: &[u8], index: usize, timescale: u32) -> SampleEntry {
    let moov = child(file, *b"moov").unwrap();
    let (_, trak) = Children::new(moov).filter(|(k, _)| k == b"trak").nth(index).unwrap();
    let within = |b, path: &[&[u8; 4]]| path.iter().fold(b, |b, k| child(b, **k).unwrap());
    let stsd = within(trak, &[b"mdia", b"minf", b"stbl", b"stsd"]);
    let (kind, body) = Children::new(&stsd[8..]).next().unwrap();
    SampleEntry::parse(kind, body, timescale).unwrap()
}

/// Packets of a stream as ffprobe lists them: presentation times from 0 on.
fn packets(path: &Path, file: &[u8], stream: &str) -> Vec<Unit> {
    let out = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-select_streams",
            stream,
            "-show_entries",
            "packet=pts,size,pos,flags",
            "-of",
            "csv=p=0",
        ])
        .arg(path)
        .output()
        .unwrap();
    assert!(out.status.success());
    let mut units: Vec<Unit> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        // Side data prints blank lines.
        .filter(|line| !line.is_empty())
        .map(|line| {
            let f: Vec<_> = line.split(',').collect();
            let (size, pos): (usize, usize) = (f[1].parse().unwrap(), f[2].parse().unwrap());
            Unit { pts: f[0].parse().unwrap(), sync: f[3].starts_with('K'), data: file[pos..pos + size].to_vec() }
        })
        .collect();
    // The encoder's priming lies before 0; a recorder would not have it.
    units.retain(|u| u.pts >= 0);
    units
}

impl Stream {
    /// Bytes of one decoded picture, planar 4:2:0.
    pub fn picture_bytes(&self) -> usize {
        self.width * self.height * 3 / 2
    }

    /// `video` and `audio` from `from` to `to` ticks of video, moved to 0: what a recorder puts into one segment.
    pub fn cut(&self, from: i64, to: i64) -> (Vec<Unit>, Vec<Unit>) {
        let moved = |units: &[Unit], from: i64, to: i64| {
            let inside = units.iter().filter(|u| (from..to).contains(&u.pts));
            inside.map(|u| Unit { pts: u.pts - from, ..u.clone() }).collect()
        };
        let rate = mos_mp4::Timescale::new(48_000).unwrap();
        let scaled = |t| VIDEO_TIMESCALE.rescale(t, rate);
        let sound = self.audio.as_ref().map_or(&[][..], |a| &a.1);
        (moved(&self.video.1, from, to), moved(sound, scaled(from), scaled(to)))
    }
}
