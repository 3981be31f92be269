//! A test camera over SRT: `gst-launch-1.0` sends a stream of [`crate::streams`] as MPEG-TS through `srtsink`.

use std::process::{Child, Command, Stdio};

use crate::streams::{Kind, Stream};

/// A passphrase: a word that occurs nowhere else, so that a leak can be found by searching.
pub const PASSPHRASE: &str = "srt-s3cret-tr0ub4dor";

/// A running sender; it dies when dropped.
#[derive(Debug)]
pub struct SrtCamera {
    child: Child,
    /// Where what it sends lies.
    _folder: Option<tempfile::TempDir>,
}

impl SrtCamera {
    /// Sends `stream` in real time, to or at `uri` (`srt://127.0.0.1:PORT?mode=…`): with sound once, else ten times over.
    #[must_use]
    pub fn start(stream: &Stream, uri: &str) -> Self {
        let parser = if stream.kind.codec() == "h265" { "h265parse" } else { "h264parse" };
        let folder = tempfile::tempdir().unwrap();
        let mut file = stream.path.clone();
        if stream.kind != Kind::H264Aac {
            file = folder.path().join("long.mp4");
            stream.ten_times(&file);
        }
        let file = format!("location={}", file.display());
        let mut line = vec!["-q", "filesrc", &file, "!", "qtdemux", "name=d", "d.video_0", "!", "queue", "!", parser];
        line.extend(["config-interval=-1", "!", "m."]);
        if stream.kind == Kind::H264Aac {
            line.extend(["d.audio_0", "!", "queue", "!", "aacparse", "!", "m."]);
        }
        let uri = format!("uri={uri}");
        // Seven packets of MPEG-TS for each message, as SRT carries them.
        line.extend(["mpegtsmux", "name=m", "alignment=7", "!", "srtsink", "sync=true", &uri]);
        let mut command = Command::new("gst-launch-1.0");
        command.args(line).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("gst-launch-1.0 is installed (make test-deps)");
        Self { child, _folder: Some(folder) }
    }

    /// Connects to `uri` and sends nothing.
    #[must_use]
    pub fn dumb(uri: &str) -> Self {
        let mut command = Command::new("gst-launch-1.0");
        command.args(["-q", "fdsrc", "!", "srtsink", &format!("uri={uri}")]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("gst-launch-1.0 is installed (make test-deps)");
        Self { child, _folder: None }
    }

    /// Whether it has given up: nobody took its call, or who did is gone.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Dies without a word.
    pub fn die(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for SrtCamera {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
