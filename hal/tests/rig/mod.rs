//! What the tests of the sources share: a sink that remembers, streams that ffmpeg makes, pictures that ffmpeg decodes.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use mos_hal::clock::{Clock, SystemClock};
use mos_hal::media::{AccessUnit, TrackFormat, VideoCodec, VideoFormat};
use mos_hal::nal;
use mos_hal::platform::probe;
use mos_hal::source::{LensSource, SourceError, SourceSpec, Transport, UnitSink};

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_mins(3);

/// Remembers all that a source delivers.
#[derive(Default)]
pub struct Collector {
    state: Mutex<(Vec<AccessUnit>, Option<SourceError>)>,
    changed: Condvar,
}

impl UnitSink for Collector {
    fn unit(&self, unit: AccessUnit) {
        let mut state = self.state.lock().unwrap();
        assert!(state.1.is_none(), "a unit after the end");
        state.0.push(unit);
        self.changed.notify_all();
    }
    fn ended(&self, why: SourceError) {
        let mut state = self.state.lock().unwrap();
        assert!(state.1.is_none(), "ended twice");
        state.1 = Some(why);
        self.changed.notify_all();
    }
}

impl Collector {
    /// Waits until `count` video units are there and returns all units.
    pub fn video(&self, count: usize) -> Vec<AccessUnit> {
        let until = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap();
        while state.0.iter().filter(|u| is_video(u)).count() < count {
            assert!(state.1.is_none(), "ended: {:?} after {} units", state.1, state.0.len());
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "only {} units", state.0.len());
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
        state.0.clone()
    }

    /// Waits for the end and returns all units with its reason.
    pub fn end(&self) -> (Vec<AccessUnit>, SourceError) {
        let until = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap();
        while state.1.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no end after {} units", state.0.len());
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
        (state.0.clone(), state.1.clone().unwrap())
    }

    /// Waits for the first unit; the reason if the source ends before.
    pub fn first(&self) -> Option<SourceError> {
        let until = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap();
        while state.0.is_empty() && state.1.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "neither a unit nor an end");
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
        if state.0.is_empty() { state.1.clone() } else { None }
    }

    pub fn count(&self) -> usize {
        self.state.lock().unwrap().0.len()
    }
}

pub fn is_video(unit: &AccessUnit) -> bool {
    matches!(&*unit.format, TrackFormat::Video(_))
}

pub fn video_format(unit: &AccessUnit) -> &VideoFormat {
    match &*unit.format {
        TrackFormat::Video(v) => v,
        TrackFormat::Audio(_) => panic!("sound"),
    }
}

/// Opens a source as the capture service does.
pub fn open(spec: &str, audio: bool) -> (Result<Box<dyn LensSource>, SourceError>, Arc<Collector>) {
    open_spec(&SourceSpec::parse(spec).unwrap(), audio)
}

/// The same of a network camera over that transport.
pub fn open_over(
    transport: Transport,
    spec: &str,
    audio: bool,
) -> (Result<Box<dyn LensSource>, SourceError>, Arc<Collector>) {
    open_spec(&SourceSpec::parse(spec).unwrap().over(transport).unwrap(), audio)
}

fn open_spec(spec: &SourceSpec, audio: bool) -> (Result<Box<dyn LensSource>, SourceError>, Arc<Collector>) {
    let sink = Arc::new(Collector::default());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new().unwrap());
    (probe().open(spec, audio, clock, Arc::clone(&sink) as Arc<dyn UnitSink>), sink)
}

/// The units as a raw stream with start codes, parameter sets first.
pub fn annex_b(units: &[AccessUnit]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut push = |unit: &[u8]| {
        out.extend_from_slice(&[0, 0, 0, 1]);
        out.extend_from_slice(unit);
    };
    let mut config = None;
    for unit in units.iter().filter(|u| is_video(u)) {
        let format = video_format(unit);
        if config != Some(&format.config) {
            for set in parameter_sets(format) {
                push(&set);
            }
            config = Some(&format.config);
        }
        nal::units(&unit.data).for_each(&mut push);
    }
    out
}

/// The parameter sets of a decoder configuration record.
pub fn parameter_sets(format: &VideoFormat) -> Vec<Vec<u8>> {
    let c = &format.config;
    let mut sets = Vec::new();
    let mut at = 0;
    let mut take = |at: &mut usize| {
        let length = usize::from(u16::from_be_bytes([c[*at], c[*at + 1]]));
        sets.push(c[*at + 2..*at + 2 + length].to_vec());
        *at += 2 + length;
    };
    match format.codec {
        VideoCodec::H264 => {
            at += 6;
            (0..c[5] & 0x1f).for_each(|_| take(&mut at));
            let pps = c[at];
            at += 1;
            (0..pps).for_each(|_| take(&mut at));
        }
        VideoCodec::H265 => {
            at += 23;
            for _ in 0..c[22] {
                let count = u16::from_be_bytes([c[at + 1], c[at + 2]]);
                at += 3;
                (0..count).for_each(|_| take(&mut at));
            }
        }
    }
    sets
}

/// Runs ffmpeg to its end and returns its standard output.
pub fn ffmpeg(args: &[&str]) -> Vec<u8> {
    let run = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(run.status.success(), "ffmpeg {args:?}: {}", String::from_utf8_lossy(&run.stderr));
    assert!(run.stderr.is_empty(), "ffmpeg {args:?}: {}", String::from_utf8_lossy(&run.stderr));
    run.stdout
}

/// A stream of ffmpeg's test picture with a tone: `rate` frames/s for `seconds`.
pub fn footage(dir: &Path, name: &str, seconds: u32, rate: u32, codec: &[&str]) -> PathBuf {
    let file = dir.join(name);
    let picture = format!("testsrc2=size=640x360:rate={rate}:duration={seconds}");
    let tone = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
    let mut args =
        vec!["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &tone, "-c:a", "aac", "-pix_fmt", "yuv420p", "-c:v"];
    args.extend(codec);
    args.push(file.to_str().unwrap());
    ffmpeg(&args);
    file
}

/// MD5 of each decoded picture of a file, in output order.
pub fn picture_hashes(file: &Path) -> Vec<String> {
    let text =
        ffmpeg(&["-i", file.to_str().unwrap(), "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framemd5", "-"]);
    let text = String::from_utf8(text).unwrap();
    text.lines().filter(|l| !l.starts_with('#')).map(|l| l.rsplit(',').next().unwrap().trim().to_owned()).collect()
}

/// Writes units to a raw stream file that ffmpeg recognises by its name.
pub fn raw_file(dir: &Path, units: &[AccessUnit]) -> PathBuf {
    let codec = units.iter().find(|u| is_video(u)).map(|u| video_format(u).codec).unwrap();
    let file = dir.join(format!("units.{}", codec.name().replace("h265", "hevc")));
    fs::write(&file, annex_b(units)).unwrap();
    file
}

/// The frame numbers of the synthetic scene's strip, as ffmpeg decodes it.
pub fn frame_numbers(file: &Path) -> Vec<u64> {
    let filter = "crop=384:16:0:0,scale=24:1:flags=area,format=gray";
    let bytes =
        ffmpeg(&["-i", file.to_str().unwrap(), "-fps_mode", "passthrough", "-vf", filter, "-f", "rawvideo", "-"]);
    bytes.chunks_exact(24).map(|bits| bits.iter().fold(0, |n, b| n << 1 | u64::from(*b > 125))).collect()
}
