//! A daemon with network cameras only never starts GStreamer. Alone in its file: other tests of the process would start it.
#![allow(clippy::unwrap_used)]

mod rig;

use std::net::TcpListener;

use mos_hal::platform::probe;
use mos_hal::source::SourceError;
use rig::open;

/// Whether the library has loaded its plugins into this process.
fn started() -> bool {
    std::fs::read_to_string("/proc/self/maps").unwrap().contains("libgstcoreelements")
}

#[test]
fn network_cameras_and_device_lists_do_not_start_gstreamer() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (source, sink) = open(&format!("rtsp://127.0.0.1:{port}/x"), false);
    let source = source.unwrap();
    assert!(matches!(sink.end().1, SourceError::Absent { .. }));
    drop(source);
    let platform = probe();
    let _ = (platform.devices(), platform.codecs(), platform.evidence());
    let (source, sink) = open("v4l2:/dev/video-none", false);
    assert!(matches!(sink.end().1, SourceError::Absent { .. }));
    drop(source);
    assert!(!started());

    let (source, sink) = open("test:?width=384&height=64&fps=5", false);
    sink.video(1);
    drop(source);
    assert!(started(), "the probe of this test works");
}
