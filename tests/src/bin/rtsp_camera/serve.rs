//! The server: one shared media per file, fed by one thread per track while somebody watches.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst_rtsp_server::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server as gst_rtsp_server;
use gstreamer_rtsp_server::gst_rtsp;

use crate::footage::{Footage, Track};

/// What all mounts share.
pub(crate) struct Camera {
    epoch: u64,
    /// How long it thinks about a request to play, while pictures gather.
    slow: Duration,
    log: Option<Mutex<File>>,
    /// While set, nothing is sent; connections stay open.
    pub(crate) stalled: AtomicBool,
}

impl Camera {
    /// A camera whose time begins now.
    pub(crate) fn new(log: Option<&Path>, slow: Duration) -> Self {
        let log = log.map(|path| Mutex::new(File::create(path).expect("the log can be written")));
        Self { epoch: mos_tests::monotonic_ns(), slow, log, stalled: AtomicBool::new(false) }
    }

    fn sent(&self, mount: usize, number: u64, capture: u64, bytes: usize) {
        if let Some(log) = &self.log {
            let line = format!("{mount} {number} {capture} {bytes}\n");
            log.lock().unwrap().write_all(line.as_bytes()).expect("the log can be written");
        }
    }
}

/// Starts listening on loopback; gives the loop to run and the port.
pub(crate) fn start(
    port: u16,
    login: Option<&(String, String)>,
    footage: Vec<Arc<Footage>>,
    camera: &Arc<Camera>,
) -> (glib::MainLoop, u16) {
    let server = gst_rtsp_server::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service(&port.to_string());
    let mounts = server.mount_points().expect("a server has mount points");
    for (i, footage) in footage.into_iter().enumerate() {
        mounts.add_factory(&format!("/{i}"), mount(i, footage, login.is_some(), camera));
    }
    if let Some((user, password)) = login {
        let auth = gst_rtsp_server::RTSPAuth::new();
        auth.set_supported_methods(gst_rtsp::RTSPAuthMethod::Digest);
        let token = gst_rtsp_server::RTSPToken::builder().field("media.factory.role", "viewer").build();
        auth.add_digest(user, password, &token);
        server.set_auth(Some(&auth));
    }
    // Otherwise all clients wait while one media is prepared or torn down.
    let threads = gst_rtsp_server::RTSPThreadPool::new();
    threads.set_max_threads(-1);
    server.set_thread_pool(Some(&threads));
    let slow = camera.slow;
    server.connect_client_connected(move |_, client| {
        client.connect_pre_play_request(move |_, _| {
            std::thread::sleep(slow);
            gst_rtsp::RTSPStatusCode::Ok
        });
    });
    let main_loop = glib::MainLoop::new(None, false);
    // The source lives as long as the default main context.
    server.attach(None).expect("the port is free");
    let port = server.bound_port();
    // Kept alive for the life of the process.
    std::mem::forget(server);
    (main_loop, u16::try_from(port).expect("the server is bound"))
}

fn mount(i: usize, footage: Arc<Footage>, login: bool, camera: &Arc<Camera>) -> gst_rtsp_server::RTSPMediaFactory {
    let factory = gst_rtsp_server::RTSPMediaFactory::new();
    factory.set_launch(&launch(&footage));
    factory.set_shared(true);
    factory.set_protocols(gst_rtsp::RTSPLowerTrans::TCP);
    if login {
        let role = gst::Structure::builder("viewer")
            .field("media.factory.access", true)
            .field("media.factory.construct", true)
            .build();
        factory.add_role_from_structure(&role);
    }
    let camera = camera.clone();
    factory.connect_media_configure(move |_, media| {
        let bin = media.element().downcast::<gst::Bin>().expect("media is a bin");
        let gone = Arc::new(AtomicBool::new(false));
        let going = gone.clone();
        media.connect_unprepared(move |_| going.store(true, Ordering::SeqCst));
        for (t, track) in footage.tracks.iter().enumerate() {
            let source = bin.by_name(&format!("src{t}")).unwrap().downcast::<gst_app::AppSrc>().unwrap();
            source.set_caps(Some(&track.caps));
            let (footage, camera, gone) = (footage.clone(), camera.clone(), gone.clone());
            std::thread::spawn(move || {
                if let Some(base) = base_time(&source, &gone) {
                    feed(&source, base, &footage.tracks[t], footage.length, &camera, i);
                }
            });
        }
    });
    factory
}

fn launch(footage: &Footage) -> String {
    let pay = |t: usize, track: &Track| {
        let name = track.caps.structure(0).unwrap().name().to_string();
        let pay = match name.as_str() {
            "video/x-h264" => "rtph264pay config-interval=-1",
            "video/x-h265" => "rtph265pay config-interval=-1",
            "audio/mpeg" => "rtpmp4gpay",
            other => panic!("a track of {other} cannot be served"),
        };
        format!("appsrc name=src{t} is-live=true format=time max-bytes=0 ! {pay} name=pay{t} pt={}", 96 + t)
    };
    let branches: Vec<String> = footage.tracks.iter().enumerate().map(|(t, track)| pay(t, track)).collect();
    format!("( {} )", branches.join(" "))
}

/// The base time of a media. It is live: it plays before the first client asks for it to. A client that is gone by then may
/// take it along.
fn base_time(source: &gst_app::AppSrc, gone: &AtomicBool) -> Option<u64> {
    while !gone.load(Ordering::SeqCst) {
        match source.base_time() {
            Some(base) if source.current_state() == gst::State::Playing => return Some(base.nseconds()),
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    None
}

/// Sends the track from the camera's present on, until the media is torn down.
fn feed(source: &gst_app::AppSrc, base: u64, track: &Track, length: u64, camera: &Camera, mount: usize) {
    let elapsed = mos_tests::monotonic_ns() - camera.epoch;
    let (mut turn, offset) = (elapsed / length, elapsed % length);
    let mut at = track.units.iter().position(|u| u.ready >= offset).unwrap_or(0);
    loop {
        let Some(unit) = track.units.get(at) else {
            (turn, at) = (turn + 1, 0);
            continue;
        };
        let start = camera.epoch + turn * length;
        while let Some(wait) = (start + unit.ready).checked_sub(mos_tests::monotonic_ns()).filter(|w| *w > 0) {
            std::thread::sleep(Duration::from_nanos(wait));
        }
        at += 1;
        if camera.stalled.load(Ordering::SeqCst) {
            continue;
        }
        let capture = start + unit.capture;
        let mut data = unit.data.copy();
        let times = data.make_mut();
        times.set_pts(gst::ClockTime::from_nseconds(capture.saturating_sub(base)));
        times.set_dts(gst::ClockTime::NONE);
        if source.push_buffer(data).is_err() {
            return;
        }
        if track.is_video {
            camera.sent(mount, turn * track.units.len() as u64 + unit.number, capture, unit.data.size());
        }
    }
}
