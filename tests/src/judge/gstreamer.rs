//! GStreamer as a judge: what playbin-like players show, and whether a push-mode player gets through the file.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cli::tool;
use crate::judge::ffmpeg::probe;
use crate::picture::{STRIP_HEIGHT, STRIP_WIDTH, read_number};

/// The parser and decoder of the first video track. Named here instead of `decodebin`, so that no other
/// decoder of the machine is taken.
fn decoder(file: &Path) -> &'static str {
    match probe(file)["streams"][0]["codec_name"].as_str() {
        Some("hevc") => "h265parse ! avdec_h265",
        _ => "h264parse ! avdec_h264",
    }
}

/// The burnt-in numbers of all frames that GStreamer shows of the first video track.
///
/// Without a parser between demuxer and decoder: h264parse and h265parse put the nominal frame duration of the stream in place
/// of the file's. Where a camera's clock makes the true one shorter, the frame before an edit then seems to reach into it,
/// and a pipeline with a parser (playbin) shows that one frame more.
#[must_use]
pub fn numbers(file: &Path, width: usize, height: usize) -> Vec<Option<u16>> {
    let crop = format!("right={} bottom={}", width - STRIP_WIDTH, height - STRIP_HEIGHT);
    let decoder = decoder(file).rsplit(' ').next().unwrap_or_default();
    let text = format!(
        "filesrc location={} ! qtdemux name=d d.video_0 ! {decoder} ! videoconvert ! video/x-raw,format=GRAY8 \
         ! videocrop {crop} ! fdsink fd=1 sync=false",
        file.display()
    );
    let raw = tool(launch().args(text.split_whitespace()));
    raw.chunks_exact(STRIP_WIDTH * STRIP_HEIGHT).map(read_number).collect()
}

/// Asserts that GStreamer shows exactly these frames; the one before them is forgiven.
///
/// GStreamer takes a frame's duration from the decode times, not from when the next frame is displayed. Where a camera's
/// clock makes display a little quicker, the frame before an edit seems to reach into it and is shown for an instant.
pub fn assert_shows(file: &Path, width: usize, height: usize, expected: &[u16]) {
    let shown: Vec<u16> = numbers(file, width, height).into_iter().flatten().collect();
    let forgiven = shown.len() == expected.len() + 1 && shown[0].wrapping_add(1) == shown[1];
    let judged = if forgiven { &shown[1..] } else { &shown[..] };
    assert_eq!(judged, expected, "GStreamer on {}", file.display());
}

/// Plays the file as a network player does: through a pipe, in which qtdemux cannot seek back.
pub fn assert_plays_pushed(file: &Path) {
    let text = format!("fdsrc fd=0 ! qtdemux name=d d.video_0 ! {} ! fakesink sync=false", decoder(file));
    let mut command = launch();
    let mut player =
        command.args(text.split_whitespace()).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = player.stdin.take().unwrap();
    let bytes = std::fs::read(file).unwrap();
    // A player that ends early closes the pipe; its status tells.
    let _ = pipe.write_all(&bytes);
    drop(pipe);
    let done = player.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "GStreamer, pushed, on {}: {} {said}", file.display(), done.status);
}

fn launch() -> Command {
    // A player that hangs has failed.
    let mut command = Command::new("timeout");
    command.args(["240", "gst-launch-1.0", "-q", "-e"]);
    command
}
