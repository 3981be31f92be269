//! GStreamer as a judge: what playbin-like players show, and whether a push-mode player gets through the file.

use std::path::Path;
use std::process::Command;

use crate::cli::tool;
use crate::picture::{STRIP_HEIGHT, STRIP_WIDTH, read_number};

/// The burnt-in numbers of all frames that `decodebin` shows of the first video track.
#[must_use]
pub fn numbers(file: &Path, width: usize, height: usize) -> Vec<Option<u16>> {
    let crop = format!("right={} bottom={}", width - STRIP_WIDTH, height - STRIP_HEIGHT);
    let text = format!(
        "filesrc location={} ! qtdemux name=d d.video_0 ! decodebin ! videoconvert ! video/x-raw,format=GRAY8 \
         ! videocrop {crop} ! fdsink fd=1 sync=false",
        file.display()
    );
    let raw = tool(launch().args(text.split_whitespace()));
    raw.chunks_exact(STRIP_WIDTH * STRIP_HEIGHT).map(read_number).collect()
}

/// Plays the file as a network player does: qtdemux in push mode cannot seek back.
pub fn assert_plays_pushed(file: &Path) {
    let text = format!(
        "filesrc location={} ! queue ! qtdemux name=d d.video_0 ! decodebin ! fakesink sync=false",
        file.display()
    );
    tool(launch().args(text.split_whitespace()));
}

fn launch() -> Command {
    let mut command = Command::new("gst-launch-1.0");
    command.args(["-q", "-e"]);
    command
}
