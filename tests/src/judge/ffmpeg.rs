//! ffmpeg and ffprobe as judges: every frame that they show, its burnt-in number, its checksum.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::cli::tool;
use crate::picture::{STRIP_HEIGHT, STRIP_WIDTH, read_number};

fn ffmpeg(file: &Path) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-i"]).arg(file);
    command
}

/// Decodes the whole file and asserts that ffmpeg has nothing to complain about.
pub fn assert_decodes(file: &Path) {
    // In the file's own time base: in that of a constant rate the jitter of a camera on a loaded machine looks like an error.
    let done = ffmpeg(file).args(["-enc_time_base", "-1", "-f", "null", "-"]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.trim().is_empty(), "ffmpeg on {}: {said}", file.display());
}

/// The burnt-in numbers of all shown frames, in order of display; `None` for a frame that has none.
#[must_use]
pub fn numbers(file: &Path) -> Vec<Option<u16>> {
    let crop = format!("crop={STRIP_WIDTH}:{STRIP_HEIGHT}:0:0");
    let raw = tool(
        ffmpeg(file)
            .args(["-map", "0:v:0", "-fps_mode", "passthrough", "-vf", &crop])
            .args(["-pix_fmt", "gray", "-f", "rawvideo", "-"]),
    );
    raw.chunks_exact(STRIP_WIDTH * STRIP_HEIGHT).map(read_number).collect()
}

/// [`numbers`] of a file in which every frame has one.
#[must_use]
pub fn all_numbers(file: &Path) -> Vec<u16> {
    let numbers = numbers(file);
    let whole: Option<Vec<u16>> = numbers.iter().copied().collect();
    whole.unwrap_or_else(|| panic!("{}: damaged pictures among {numbers:?}", file.display()))
}

/// The numbers that the scene of `test:` paints, of all frames as they are coded, whatever rotation the file asks for, after
/// `turned`, an ffmpeg filter or nothing.
#[must_use]
pub fn scene_numbers(file: &Path, turned: &str) -> Vec<u32> {
    let turned = if turned.is_empty() { String::new() } else { format!("{turned},") };
    let filter = format!("{turned}crop=384:16:0:0,scale=24:1:flags=area,format=gray");
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-noautorotate", "-i"]).arg(file);
    let raw =
        tool(command.args(["-map", "0:v:0", "-fps_mode", "passthrough", "-vf", &filter]).args(["-f", "rawvideo", "-"]));
    let number = |bits: &[u8]| bits.iter().fold(0, |number, luma| number << 1 | u32::from(*luma > 125));
    raw.chunks_exact(24).map(number).collect()
}

/// The MD5 of every shown decoded frame, in order of display.
#[must_use]
pub fn frame_md5(file: &Path) -> Vec<String> {
    let text = tool(ffmpeg(file).args(["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framemd5", "-"]));
    let text = String::from_utf8(text).unwrap();
    let sums = text.lines().filter(|l| !l.starts_with('#'));
    sums.map(|l| l.rsplit(',').next().unwrap().trim().to_owned()).collect()
}

/// The MD5 of every coded audio packet, in order.
#[must_use]
pub fn audio_md5(file: &Path) -> Vec<String> {
    let text = tool(ffmpeg(file).args(["-map", "0:a:0", "-c", "copy", "-f", "framemd5", "-"]));
    let text = String::from_utf8(text).unwrap();
    let sums = text.lines().filter(|l| !l.starts_with('#'));
    sums.map(|l| l.rsplit(',').next().unwrap().trim().to_owned()).collect()
}

/// The times in seconds at which ffmpeg shows the frames of the first track of `kind` (`v` or `a`).
#[must_use]
pub fn times(file: &Path, kind: &str) -> Vec<f64> {
    let mut command = Command::new("ffprobe");
    command.args([
        "-v",
        "error",
        "-select_streams",
        &format!("{kind}:0"),
        "-show_entries",
        "frame=best_effort_timestamp_time",
    ]);
    let text = tool(command.args(["-of", "csv=p=0"]).arg(file));
    let text = String::from_utf8(text).unwrap();
    text.lines().filter_map(|l| l.trim_matches(',').split(',').next()?.parse().ok()).collect()
}

/// What ffprobe says of streams and format.
#[must_use]
pub fn probe(file: &Path) -> Value {
    let args = ["-v", "error", "-show_streams", "-show_format", "-of", "json"];
    serde_json::from_slice(&tool(Command::new("ffprobe").args(args).arg(file))).unwrap()
}

/// The luma PSNR in dB between a picture file and the frame of `video` that is displayed `index`th.
#[must_use]
pub fn luma_psnr(picture: &Path, video: &Path, index: usize) -> f64 {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "info", "-i"]).arg(picture).arg("-i").arg(video);
    // The JPEG is full range: both sides are compared as full-range luma.
    let graph = format!(
        "[0:v]scale=in_range=full:out_range=full,format=yuv444p[a];\
         [1:v]select=eq(n\\,{index}),scale=in_range=limited:out_range=full,format=yuv444p,setpts=0[b];[a][b]psnr"
    );
    let done = command.args(["-filter_complex", &graph, "-frames:v", "1", "-f", "null", "-"]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    let value = said.rsplit("PSNR y:").next().and_then(|rest| rest.split_whitespace().next());
    match value {
        Some("inf") => f64::INFINITY,
        Some(number) => number.parse().unwrap_or_else(|_| panic!("no PSNR: {said}")),
        None => panic!("no PSNR: {said}"),
    }
}

/// Asserts that numbers follow one another without loss or repetition, round the end of a loop of `frames`.
pub fn assert_consecutive(numbers: &[u16], frames: u32) {
    for pair in numbers.windows(2) {
        let next = (u32::from(pair[0]) + 1) % frames;
        assert_eq!(u32::from(pair[1]), next, "after frame {} in {numbers:?}", pair[0]);
    }
}
