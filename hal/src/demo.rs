//! A throw-away camera for demo and tests: real RTSP on the loopback, with Digest authentication.
//!
//! Promises a port of its own, a password of its own, and that nothing is left of it after drop. Firmware leaves it out
//! (cargo feature `demo`).

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use gstreamer as gst;
use gstreamer::glib::translate::ToGlibPtr;
use gstreamer::prelude::*;
use gstreamer_rtsp_server as server;
use gstreamer_rtsp_server::gst_rtsp::RTSPAuthMethod;
use gstreamer_rtsp_server::prelude::*;

use crate::clock::{Clock, SystemClock};
use crate::media::{AccessUnit, VideoCodec};
use crate::source::{SourceError, TestPattern, UnitSink};
use crate::sources::encoder::{self, Encoding};
use crate::sources::outlet::Outlet;
use crate::sources::test_pattern::Feed;

/// The mount point.
const PATH: &str = "/cabin";
/// The role of whoever knows the password.
const ROLE: &str = "viewer";

/// Why the camera could not be started.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot serve the demo camera: {0}")]
pub struct DemoError(pub String);

/// How the camera asks for the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// RFC 2617 Digest.
    Digest,
    /// RFC 2617 Basic.
    Basic,
}

/// A running camera; dropping it cuts all connections and stops it.
pub struct RtspServer {
    port: u16,
    user: String,
    password: String,
    context: gst::glib::MainContext,
    main: gst::glib::MainLoop,
    server: server::RTSPServer,
    thread: Option<JoinHandle<()>>,
    scenes: Arc<Mutex<Vec<Arc<Outlet>>>>,
}

impl fmt::Debug for RtspServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RtspServer(127.0.0.1:{})", self.port)
    }
}

impl RtspServer {
    /// Serves a 720p H.264 scene of 25 frames/s at 2 Mbit/s with a keyframe every second. It holds the frame number like
    /// `test:` (the low 24 bits in the strip described in `sources/scene.rs`).
    pub fn start() -> Result<Self, DemoError> {
        let pattern =
            TestPattern { width: 1280, height: 720, fps: 25, gop: 25, bitrate: 2_000_000, ..TestPattern::default() };
        Self::scene(pattern)
    }

    /// Serves a synthetic scene of other properties; its sound is left out.
    pub fn scene(pattern: TestPattern) -> Result<Self, DemoError> {
        crate::gst::init().map_err(DemoError)?;
        let encoding = Encoding { codec: pattern.codec, bitrate: pattern.bitrate, gop: pattern.gop };
        let pay = match pattern.codec {
            VideoCodec::H264 => "rtph264pay",
            VideoCodec::H265 => "rtph265pay",
        };
        let text = format!(
            "( appsrc name=scene is-live=true format=time max-buffers=3 max-bytes=0 block=true ! {} ! \
             {pay} name=pay0 pt=96 config-interval=-1 )",
            encoder::text(&encoding).map_err(DemoError)?
        );
        Self::run(&text, Login::Digest, Some(pattern))
    }

    /// Serves what a `gst-rtsp-server` launch line makes, e.g. a file: `( filesrc … ! qtdemux ! rtph264pay name=pay0 )`.
    pub fn launch(text: &str, login: Login) -> Result<Self, DemoError> {
        crate::gst::init().map_err(DemoError)?;
        Self::run(text, login, None)
    }

    fn run(text: &str, login: Login, pattern: Option<TestPattern>) -> Result<Self, DemoError> {
        let scenes = Arc::default();
        let (user, password) = ("viewer".to_owned(), random_word()?);
        let rtsp = server::RTSPServer::new();
        rtsp.set_address("127.0.0.1");
        rtsp.set_service("0");
        // Clients are served by the server's own thread, which is also the one that cuts them: cut from elsewhere, a client's
        // thread may spin on a closed stream.
        let threads = rtsp.thread_pool().ok_or_else(|| DemoError("no thread pool".into()))?;
        threads.set_max_threads(0);
        rtsp.set_auth(Some(&auth(&user, &password, login)));
        let factory = server::RTSPMediaFactory::new();
        factory.set_launch(text);
        // Each client has a pipeline of its own: one that dies takes nothing down with it while the next one joins.
        factory.set_shared(false);
        allow(&factory);
        if let Some(pattern) = pattern {
            let scenes = Arc::clone(&scenes);
            factory.connect_media_configure(move |_, media| {
                if let Err(why) = feed(media, &pattern, &scenes) {
                    log::error!("demo camera: {why}");
                }
            });
        }
        let mounts = rtsp.mount_points().ok_or_else(|| DemoError("no mount points".into()))?;
        mounts.add_factory(PATH, factory);

        let context = gst::glib::MainContext::new();
        rtsp.attach(Some(&context)).map_err(|e| DemoError(e.to_string()))?;
        let port = u16::try_from(rtsp.bound_port()).map_err(|_| DemoError("no port".into()))?;
        let main = gst::glib::MainLoop::new(Some(&context), false);
        let running = main.clone();
        let (started, wait) = mpsc::channel();
        let thread = std::thread::Builder::new().name("mos-demo-rtsp".into()).spawn(move || {
            let _ = started.send(());
            running.run();
        });
        let thread = thread.map_err(|e| DemoError(e.to_string()))?;
        let _ = wait.recv();
        Ok(Self { port, user, password, context, main, server: rtsp, thread: Some(thread), scenes })
    }

    /// `rtsp://user:password@127.0.0.1:port/cabin`: a source as for the configuration. Holds a password.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_as(&self.user, &self.password)
    }

    /// The URL with other credentials.
    #[must_use]
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("rtsp://{user}:{password}@127.0.0.1:{}{PATH}", self.port)
    }

    /// The TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }
}

impl Drop for RtspServer {
    fn drop(&mut self) {
        for scene in self.scenes.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            scene.silence();
        }
        // Cut the clients on the server's own thread, then end it.
        let (rtsp, main) = (self.server.clone(), self.main.clone());
        self.context.invoke(move || {
            let _ = rtsp.client_filter(Some(&mut |_, _| server::RTSPFilterResult::Remove));
            main.quit();
        });
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn auth(user: &str, password: &str, login: Login) -> server::RTSPAuth {
    let auth = server::RTSPAuth::new();
    let token = server::RTSPToken::builder().field(server::RTSP_TOKEN_MEDIA_FACTORY_ROLE, ROLE).build();
    match login {
        Login::Digest => {
            auth.set_supported_methods(RTSPAuthMethod::Digest);
            auth.add_digest(user, password, &token);
        }
        Login::Basic => {
            auth.set_supported_methods(RTSPAuthMethod::Basic);
            auth.add_basic(&server::RTSPAuth::make_basic(user, password), &token);
        }
    }
    auth
}

/// Lets [`ROLE`] watch.
fn allow(factory: &server::RTSPMediaFactory) {
    let rights = gst::Structure::builder(ROLE)
        .field(server::RTSP_PERM_MEDIA_FACTORY_ACCESS.as_str(), true)
        .field(server::RTSP_PERM_MEDIA_FACTORY_CONSTRUCT.as_str(), true)
        .build();
    // SAFETY: the bindings lack permissions. Both pointers live through the call, which copies the structure.
    unsafe {
        server::ffi::gst_rtsp_media_factory_add_role_from_structure(factory.to_glib_none().0, rights.as_mut_ptr());
    }
}

/// Starts to paint for a media that a client asked for; it ends with the media's pipeline.
fn feed(media: &server::RTSPMedia, pattern: &TestPattern, scenes: &Mutex<Vec<Arc<Outlet>>>) -> Result<(), String> {
    let bin = media.element().downcast::<gst::Bin>().map_err(|_| "no bin")?;
    let src = bin.by_name("scene").and_then(|s| s.downcast().ok()).ok_or("no source")?;
    let feed = Feed::new(src, pattern)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new().map_err(|e| e.to_string())?);
    let outlet = Outlet::new("demo camera".into(), clock, Arc::new(Nowhere));
    scenes.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&outlet));
    let over = Arc::clone(&outlet);
    media.connect_unprepared(move |_| over.silence());
    std::thread::Builder::new()
        .name("mos-demo-scene".into())
        .spawn(move || feed.run(&outlet))
        .map_err(|e| e.to_string())?;
    Ok(())
}

/// The scene's pictures leave by the server, not by access units.
struct Nowhere;

impl UnitSink for Nowhere {
    fn unit(&self, _: AccessUnit) {}
    fn ended(&self, _: SourceError) {}
}

/// 16 random bytes in hexadecimal.
fn random_word() -> Result<String, DemoError> {
    let mut bytes = [0u8; 16];
    let read = File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    read.map_err(|e| DemoError(e.to_string()))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
