//! The server: one shared media per file, fed by one thread per track while somebody watches.

use std::fs::File;
use std::io::Write;
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
use crate::tamper::{self, Orders};

/// What all mounts share.
pub(crate) struct Camera {
    epoch: u64,
    /// How long it thinks about a request to play, while pictures gather.
    slow: Duration,
    log: Option<Mutex<File>>,
    /// By mount.
    pub(crate) orders: Vec<Arc<Orders>>,
    pub(crate) protocols: gst_rtsp::RTSPLowerTrans,
    /// RTP times wrap round five seconds after the start.
    pub(crate) wraps: bool,
}

impl Camera {
    /// A camera whose time begins now.
    pub(crate) fn new(wanted: &crate::Wanted) -> Self {
        let log = wanted.log.as_ref().map(|path| Mutex::new(File::create(path).expect("the log can be written")));
        let protocols = match wanted.protocols.as_str() {
            "tcp" => gst_rtsp::RTSPLowerTrans::TCP,
            "udp" => gst_rtsp::RTSPLowerTrans::UDP,
            other => panic!("protocols are tcp or udp, not {other}"),
        };
        let orders = wanted.files.iter().map(|_| Arc::default()).collect();
        let epoch = mos_tests::monotonic_ns();
        Self { epoch, slow: wanted.slow, log, orders, protocols, wraps: wanted.wraps }
    }

    fn sent(&self, mount: usize, number: u64, capture: u64, bytes: usize) {
        if let Some(log) = &self.log {
            let line = format!("{mount} {number} {capture} {bytes} {}\n", mos_tests::monotonic_ns());
            log.lock().unwrap().write_all(line.as_bytes()).expect("the log can be written");
        }
    }
}

/// Starts listening; gives the loop to run and the port.
pub(crate) fn start(
    wanted: &crate::Wanted,
    footage: Vec<Vec<Arc<Footage>>>,
    camera: &Arc<Camera>,
) -> (glib::MainLoop, u16) {
    let server = gst_rtsp_server::RTSPServer::new();
    server.set_address(wanted.address.as_deref().unwrap_or("127.0.0.1"));
    server.set_service(&wanted.port.to_string());
    let guarded = wanted.login.is_some() || wanted.tls.is_some();
    let mounts = server.mount_points().expect("a server has mount points");
    for (i, footage) in footage.into_iter().enumerate() {
        mounts.add_factory(&format!("/{i}"), mount(i, footage, guarded, camera));
    }
    if guarded {
        let auth = gst_rtsp_server::RTSPAuth::new();
        let mut token = gst_rtsp_server::RTSPToken::builder().field("media.factory.role", "viewer").build();
        match &wanted.login {
            Some((user, password)) => {
                auth.set_supported_methods(gst_rtsp::RTSPAuthMethod::Digest);
                auth.add_digest(user, password, &token);
            }
            None => auth.set_default_token(Some(&mut token)),
        }
        if let Some((certificate, key)) = &wanted.tls {
            let certificate = gst_rtsp_server::gio::TlsCertificate::from_files(certificate, key);
            auth.set_tls_certificate(Some(&certificate.expect("a certificate, and glib-networking to read it")));
        }
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

fn mount(
    i: usize,
    footage: Vec<Arc<Footage>>,
    guarded: bool,
    camera: &Arc<Camera>,
) -> gst_rtsp_server::RTSPMediaFactory {
    let factory = gst_rtsp_server::RTSPMediaFactory::new();
    factory.set_launch(&launch(&footage[0], camera.wraps));
    factory.set_shared(true);
    factory.set_protocols(camera.protocols);
    if guarded {
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
        for (t, track) in footage[0].tracks.iter().enumerate() {
            let source = bin.by_name(&format!("src{t}")).unwrap().downcast::<gst_app::AppSrc>().unwrap();
            source.set_caps(Some(&track.caps));
            if track.is_video {
                tamper::watch(&bin.by_name(&format!("pay{t}")).unwrap(), camera.orders[i].clone());
            }
            let (footage, camera, gone) = (footage.clone(), camera.clone(), gone.clone());
            std::thread::spawn(move || {
                if let Some(base) = base_time(&source, &gone) {
                    feed(&source, base, &footage, t, &camera, i);
                }
            });
        }
    });
    factory
}

fn launch(footage: &Footage, wraps: bool) -> String {
    // Of a clock of 90 kHz, as all video has.
    let wrap = if wraps { format!("timestamp-offset={}", u32::MAX - 5 * 90_000) } else { String::new() };
    let pay = |t: usize, track: &Track| {
        let name = track.caps.structure(0).unwrap().name().to_string();
        let pay = match name.as_str() {
            "video/x-h264" => "rtph264pay config-interval=-1",
            "video/x-h265" => "rtph265pay config-interval=-1",
            "audio/mpeg" => "rtpmp4gpay",
            "audio/x-alaw" => "rtppcmapay min-ptime=20000000 max-ptime=20000000",
            "audio/x-mulaw" => "rtppcmupay min-ptime=20000000 max-ptime=20000000",
            other => panic!("a track of {other} cannot be served"),
        };
        format!("appsrc name=src{t} is-live=true format=time max-bytes=0 ! {pay} name=pay{t} pt={} {wrap}", 96 + t)
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

/// Sends track `t` from the camera's present on, until the media is torn down. All codings of a file have the same frames.
fn feed(source: &gst_app::AppSrc, base: u64, codings: &[Arc<Footage>], t: usize, camera: &Camera, mount: usize) {
    let length = codings[0].length;
    let orders = &camera.orders[mount];
    let mut coding = 0;
    let elapsed = mos_tests::monotonic_ns() - camera.epoch;
    let (mut turn, offset) = (elapsed / length, elapsed % length);
    let mut at = codings[0].tracks[t].units.iter().position(|u| u.ready >= offset).unwrap_or(0);
    loop {
        let wanted = usize::from(orders.swapped.load(Ordering::SeqCst)) % codings.len();
        if wanted != coding && codings[wanted].tracks[t].units.get(at).is_some_and(|unit| unit.key) {
            coding = wanted;
            source.set_caps(Some(&codings[coding].tracks[t].caps));
        }
        let track = &codings[coding].tracks[t];
        let Some(unit) = track.units.get(at) else {
            (turn, at) = (turn + 1, 0);
            continue;
        };
        let start = camera.epoch + turn * length;
        while let Some(wait) = (start + unit.ready).checked_sub(mos_tests::monotonic_ns()).filter(|w| *w > 0) {
            std::thread::sleep(Duration::from_nanos(wait));
        }
        at += 1;
        if orders.stalled.load(Ordering::SeqCst) {
            if source.current_state() == gst::State::Null {
                return;
            }
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
