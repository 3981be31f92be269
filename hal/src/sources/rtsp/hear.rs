//! What becomes of anything that an RTSP camera may send: for the fuzz targets (`crate::fuzzing`).
//!
//! Runs a real session over loopback with a camera that sends all it has at once, whatever it is asked, and closes. Panics if a
//! promise of this room does not hold: no text holds the login or steers a terminal, and units are what a recorder can take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use url::Url;

use super::reactor::Busy;
use super::{Camera, Met};
use crate::clock::SystemClock;
use crate::media::{AccessUnit, AudioFormat, TrackFormat};
use crate::source::{Credentials, SourceError, UnitSink};
use crate::sources::outlet::Outlet;

/// The configured login, which a camera may repeat.
const USER: &str = "an-operator";
const SECRET: &str = "a-password";

/// All that the camera sends.
pub(crate) fn session(data: &[u8]) {
    // All of a session ends with its runtime: its farewell too, which would reach the next one's camera.
    let Ok(runtime) = Builder::new_current_thread().enable_io().enable_time().build() else { return };
    let Ok(clock) = SystemClock::new() else { return };
    let judge = Arc::new(Judge::default());
    let ended = runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.ok()?;
        let url = Url::parse(&format!("rtsp://{}/stream", listener.local_addr().ok()?)).ok()?;
        let outlet = Outlet::new(url.to_string(), Arc::new(clock), judge.clone());
        let credentials = Some(Credentials { user: USER.into(), password: SECRET.into() });
        let camera = Camera { url, credentials, trust: None, audio: true, known_as: None, outlet };
        let mut met = Met::default();
        let talk = async {
            if let Ok((mut connection, _)) = listener.accept().await {
                let _ = connection.write_all(data).await;
                let _ = connection.shutdown().await;
                let mut asked = [0; 4096];
                while connection.read(&mut asked).await.is_ok_and(|n| n > 0) {}
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = camera.survive(Busy::alone(), &mut met) => Some(ended),
            () = talk => None,
        }
    });
    assert!(!judge.bad.load(Ordering::Relaxed), "a unit that nobody can record");
    if let Some(why) = ended {
        let told = why.to_string();
        assert!(!told.contains(SECRET) && !told.contains(USER), "{told:?}");
        assert!(told.chars().count() < 600 && told.chars().all(|c| !c.is_control()), "{told:?}");
    }
}

/// Looks at what comes.
#[derive(Default)]
struct Judge {
    /// A unit came that nobody can record. A panic would only end the session.
    bad: AtomicBool,
}

impl UnitSink for Judge {
    fn unit(&self, unit: AccessUnit) {
        let good = match &*unit.format {
            TrackFormat::Video(video) => video.width > 0 && video.height > 0 && !video.config.is_empty(),
            TrackFormat::Audio(AudioFormat::Aac { sample_rate, .. } | AudioFormat::G711 { sample_rate, .. }) => {
                *sample_rate > 0
            }
        };
        self.bad.fetch_or(!good || unit.pts.is_none(), Ordering::Relaxed);
    }

    fn ended(&self, _: SourceError) {}
}
