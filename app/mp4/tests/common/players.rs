//! Players as judges: what ffmpeg and GStreamer decode from a file, picture by picture.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One decoded picture, in short.
pub type Picture = u64;

/// How GStreamer is to read the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduling {
    /// The demuxer reads where it wants.
    Pull,
    /// The demuxer is fed from the beginning.
    Push,
}

fn pictures(raw: &Path, bytes: usize) -> Vec<Picture> {
    let data = std::fs::read(raw).unwrap_or_default();
    assert_eq!(data.len() % bytes, 0, "{}: half a picture", raw.display());
    data.chunks(bytes)
        .map(|c| {
            let mut h = DefaultHasher::new();
            c.hash(&mut h);
            h.finish()
        })
        .collect()
}

fn raw_name(file: &Path, player: &str) -> PathBuf {
    file.with_extension(format!("{player}.raw"))
}

/// What ffmpeg decodes from each file.
pub fn ffmpeg(files: &[PathBuf], picture_bytes: usize) -> Vec<Vec<Picture>> {
    let mut all = Vec::new();
    for batch in files.chunks(24) {
        let mut cmd = Command::new("ffmpeg");
        cmd.args(["-v", "fatal", "-y", "-threads", "1"]);
        for f in batch {
            cmd.arg("-i").arg(f);
        }
        for (i, f) in batch.iter().enumerate() {
            cmd.args(["-map", &format!("{i}:v"), "-fps_mode", "passthrough", "-pix_fmt", "yuv420p", "-f", "rawvideo"]);
            cmd.arg(raw_name(f, "ffmpeg"));
        }
        let out = cmd.output().unwrap();
        assert!(out.status.success(), "ffmpeg: {}", String::from_utf8_lossy(&out.stderr));
        all.extend(batch.iter().map(|f| pictures(&raw_name(f, "ffmpeg"), picture_bytes)));
    }
    all
}

/// Presentation times in seconds that ffprobe gives the shown pictures.
pub fn ffprobe_times(file: &Path) -> Vec<f64> {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v:0", "-show_entries", "frame=pts_time", "-of", "csv=p=0"])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().map(|l| l.trim_end_matches(',').parse().unwrap()).collect()
}

/// What GStreamer decodes from each file; `codec` is `h264` or `h265`.
pub fn gstreamer(files: &[PathBuf], picture_bytes: usize, codec: &str, scheduling: Scheduling) -> Vec<Vec<Picture>> {
    let mut all = Vec::new();
    for batch in files.chunks(24) {
        let mut cmd = Command::new("timeout");
        cmd.args(["60", "gst-launch-1.0", "-q"]);
        for f in batch {
            let raw = raw_name(f, "gst");
            let _ = std::fs::remove_file(&raw);
            cmd.arg("filesrc").arg(format!("location={}", f.display())).arg("!");
            if scheduling == Scheduling::Push {
                cmd.args(["queue", "!"]);
            }
            let parse = format!("{codec}parse");
            let decode = format!("avdec_{codec}");
            cmd.args(["qtdemux", "!", &parse, "!", &decode, "max-threads=1", "!", "video/x-raw,format=I420", "!"]);
            cmd.args(["filesink", "sync=false"]).arg(format!("location={}", raw.display()));
        }
        let out = judgement(&mut cmd);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "gst-launch-1.0 for {batch:?}: {said}");
        all.extend(batch.iter().map(|f| pictures(&raw_name(f, "gst"), picture_bytes)));
    }
    all
}

/// Runs a player that is bounded by `timeout`. GStreamer 1.22 can deadlock while many pipelines with queues start at once
/// (a query waits in a queue that is not running yet): then it has said nothing about the files and is asked again.
#[allow(clippy::print_stderr, reason = "a test's own output")]
fn judgement(cmd: &mut Command) -> std::process::Output {
    const HUNG: i32 = 124;
    let mut out = cmd.output().unwrap();
    for _ in 0..2 {
        if out.status.code() != Some(HUNG) {
            break;
        }
        eprintln!("GStreamer hung before it played anything to its end; asking it again");
        out = cmd.output().unwrap();
    }
    out
}

/// Whether mp4parse takes the file; gives the number of tracks.
pub fn mp4parse(file: &[u8]) -> Result<usize, String> {
    mp4parse::read_mp4(&mut std::io::Cursor::new(file)).map(|c| c.tracks.len()).map_err(|e| format!("{e:?}"))
}

/// Whether mp4san takes the file.
pub fn mp4san(file: &[u8]) -> Result<(), String> {
    mp4san::sanitize(std::io::Cursor::new(file)).map(|_| ()).map_err(|e| format!("{e:?}"))
}
