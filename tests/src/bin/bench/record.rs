//! Recording 8 RTSP cameras, 1080p25 at 4 Mbit/s each, in steady state, against 8 × ffmpeg and 8 pipelines of GStreamer.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::daemon::{Daemon, Setup, span};
use mos_tests::proc::Process;
use mos_tests::streams::{Kind, Stream};

use crate::scratch;
use crate::table::Table;

const CAMERAS: usize = 8;
/// Seconds that are measured: two whole segments, so that two closes of each lens are in it, and one tick more or less at
/// the window's ends is below a hundredth.
const WINDOW: u64 = 60;
/// Seconds before, in which handshakes end and buffers find their size.
const WARM_UP: Duration = Duration::from_secs(12);

/// What a recorder used during the window.
pub(crate) struct Used {
    cpu: f64,
    /// Proportional set size at the end, in bytes.
    pub(crate) pss: f64,
    written: f64,
    payload: f64,
    cameras: usize,
}

impl Used {
    /// CPU seconds per camera and second.
    pub(crate) fn cpu_per_camera(&self) -> f64 {
        self.cpu / (self.cameras as f64 * WINDOW as f64)
    }

    /// Bytes written for each byte of the streams.
    pub(crate) fn written(&self) -> f64 {
        self.written / self.payload
    }
}

pub(crate) fn run(table: &mut Table) {
    let stream = Stream::get(Kind::Load4M);
    let camera = Camera::open(&vec![stream; CAMERAS]);
    let ours = mos(&camera, CAMERAS);
    let theirs = ffmpeg(&camera, CAMERAS);
    let pipelines = gstreamer(&camera);
    let peer = ("8 × ffmpeg -c copy", theirs.cpu_per_camera());
    table.against("record 8 cameras: CPU-s per camera-second", "s", ours.cpu_per_camera(), peer, 0.54);
    let peer = ("8 × rtspsrc ! splitmuxsink, one process", pipelines.cpu_per_camera());
    table.beside("record 8 cameras: CPU-s per camera-second", "s", ours.cpu_per_camera(), peer);
    let megabytes = |bytes: f64| bytes / 1e6;
    let limit = 20.0 + CAMERAS as f64;
    table.within(
        "record 8 cameras: PSS",
        "MB",
        megabytes(ours.pss),
        Some(("8 × ffmpeg", megabytes(theirs.pss))),
        limit,
    );
    let peer = ("8 × ffmpeg", theirs.written());
    table.within("record 8 cameras: bytes written ÷ payload", "", ours.written(), Some(peer), 1.03);
}

pub(crate) fn mos(camera: &Camera, cameras: usize) -> Used {
    with(camera, cameras, "", |_| ())
}

/// The same with more of a configuration; `then` looks at the daemon once it was measured.
pub(crate) fn with(camera: &Camera, cameras: usize, sections: &str, then: impl FnOnce(&Daemon<'_>)) -> Used {
    let setup = (0..cameras).fold(Setup::new(), |setup, i| setup.camera(&format!("cam{i}"), &camera.url(i)));
    let setup = setup.root(&scratch("record-mos")).storage("segment_seconds", "30").sections(sections);
    let daemon = setup.start();
    for i in 0..cameras {
        let _ = daemon.await_open(&format!("cam{i}"), 1.0, Duration::from_secs(30));
    }
    let used = measure(&[daemon.process()], camera, cameras);
    for i in 0..cameras {
        let lens = format!("cam{i}");
        let footage: f64 = daemon.segments(&lens).iter().map(span).sum();
        assert!(footage > WINDOW as f64, "{lens} holds {footage} s only: {:?}", daemon.gaps(&lens));
        let gaps = daemon.gaps(&lens);
        assert!(gaps.iter().all(|g| g["cause"] == "starting"), "{lens} has lost footage: {gaps:?}");
    }
    then(&daemon);
    used
}

pub(crate) fn ffmpeg(camera: &Camera, cameras: usize) -> Used {
    let folder = scratch("record-ffmpeg");
    let start = |i: usize| -> Child {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error", "-rtsp_transport", "tcp", "-i", &camera.url(i), "-c", "copy"]);
        command.args(["-f", "segment", "-segment_time", "30"]).arg(folder.join(format!("cam{i}-%03d.mp4")));
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    };
    let mut children: Vec<Child> = (0..cameras).map(start).collect();
    let processes: Vec<Process> = children.iter().map(|c| Process(c.id())).collect();
    let used = measure(&processes, camera, cameras);
    children.iter_mut().for_each(end);
    used
}

fn gstreamer(camera: &Camera) -> Used {
    let folder = scratch("record-gstreamer");
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q");
    for i in 0..CAMERAS {
        command.args(["rtspsrc", &format!("location={}", camera.url(i)), "protocols=tcp", "latency=0", "!"]);
        command.args(["rtph264depay", "!", "h264parse", "!", "splitmuxsink", "max-size-time=30000000000"]);
        command.arg(format!("location={}/cam{i}-%03d.mp4", folder.display()));
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let used = measure(&[Process(child.id())], camera, CAMERAS);
    end(&mut child);
    let files = std::fs::read_dir(&folder).unwrap().count();
    assert!(files >= 2 * CAMERAS, "GStreamer has recorded {files} files only");
    used
}

/// Ends a peer, which must have run until now.
fn end(child: &mut Child) {
    assert!(child.try_wait().unwrap().is_none(), "a peer has ended early");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn measure(processes: &[Process], camera: &Camera, cameras: usize) -> Used {
    // Steady state is a matter of time, not of an event: this is a measurement, not a test.
    std::thread::sleep(WARM_UP);
    let payload = || (0..cameras).flat_map(|i| camera.sent(i)).map(|s| s.bytes).sum::<u64>() as f64;
    let written = || processes.iter().map(|p| p.bytes_written()).sum::<u64>() as f64;
    let cpu = || processes.iter().map(|p| p.cpu_seconds()).sum::<f64>();
    let before = (payload(), written(), cpu());
    std::thread::sleep(Duration::from_secs(WINDOW));
    let after = (payload(), written(), cpu());
    let pss = processes.iter().map(|p| p.pss()).sum::<u64>() as f64;
    Used { cpu: after.2 - before.2, pss, written: after.1 - before.1, payload: after.0 - before.0, cameras }
}
