//! The API: HTTP and JSON under `/v1`, one file per group of operations.
//!
//! Promises: each operation is in the OpenAPI document under the name of its service operation; every reply that is no
//! success is `{"error":{"kind","message"}}`; all times are UTC microseconds; nothing that a client sends can hold up a
//! camera. Every operation asks for its least role (`roles.rs`): users of this machine have it by `SO_PEERCRED`, others by their
//! token over TCP. Only this room knows status codes.

mod capture;
mod capture_control;
mod capture_events;
mod capture_metrics;
mod clips;
mod crowd;
mod events;
mod evidence;
mod extract;
pub mod fault;
mod file;
mod frames;
mod gmsl;
mod guard;
mod health;
pub(crate) mod hear;
mod metrics;
mod openapi;
mod peer;
mod power;
mod roles;
mod routes;
mod segments;
pub mod serve;
mod snapshots;
mod storage;
mod storage_metrics;
#[cfg(test)]
pub(crate) mod tests;
pub mod tls;
mod tokens;
mod uploads;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::DefaultBodyLimit;

use crate::archive::Archive;
use crate::capture::{CaptureControlService, Degradation};
use crate::clip::Clips;
use crate::evidence::Evidence;
use crate::pins::BoxPins;
use crate::power::Power;
use crate::record::Recorder;
use crate::retention::Retention;
use crate::snapshot::Snapshots;
use crate::upload::queue::Uploads;
use routes::Routes;

pub use capture::{ControlView, DeviceList, DeviceView, ModeView};
pub use capture_control::{
    BreakerView, CaptureStatusView, CaptureView, DegradedView, EventsView, TargetView, ThermalZoneView,
};
pub use capture_events::{CameraEvent, CaptureChange, DevicesChange, LensRemoved, LensWoken, PowerChange};
pub use clips::{ClipView, SpanView};
pub use evidence::EvidenceView;
pub use frames::{FramesView, LensFramesView, SubscriberView};
pub(crate) use gmsl::alarm as dark_links;
pub use gmsl::{GmslLinkView, GmslStateView};
pub use guard::Door;
pub use health::{HealthView, LensView};
pub use openapi::document;
pub use power::{PowerView, WakeView};
pub use segments::{GapView, ProtectionView, SegmentPage, SegmentView};
pub use snapshots::SnapshotView;
pub use storage::{DeviceStateView, ForecastView, StorageView};
pub use tokens::Tokens;
pub use uploads::UploadList;

/// Bytes that a request's body may have.
pub(crate) const MAX_BODY: usize = 256 << 10;

/// The services behind the API.
pub struct Services {
    /// What is stored.
    pub archive: Archive,
    /// The archive's root, absolute.
    pub root: PathBuf,
    /// The recorder.
    pub recorder: Recorder,
    /// Ignition and parking.
    pub power: Power,
    /// The cameras.
    pub capture: CaptureControlService,
    /// Who of them gives way to heat and to the limits of the encoder.
    pub degradation: Degradation,
    /// Clips.
    pub clips: Clips,
    /// Pictures.
    pub snapshots: Snapshots,
    /// Uploads.
    pub uploads: Uploads,
    /// What may stay.
    pub retention: Retention,
    /// Evidence, if it is kept.
    pub evidence: Option<Evidence>,
    /// The lines of the box.
    pub pins: BoxPins,
    /// How far the listing of earlier runs is.
    pub loading: Mutex<Loading>,
}

/// How far the listing of what earlier runs left is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loading {
    /// Under way.
    Busy,
    /// Everything is listed.
    Done,
    /// It ended early; why.
    Failed(String),
}

impl Services {
    /// Notes how far the listing is.
    pub fn set_loading(&self, loading: Loading) {
        *self.loading.lock().unwrap_or_else(PoisonError::into_inner) = loading;
    }

    fn load_error(&self) -> Option<String> {
        match &*self.loading.lock().unwrap_or_else(PoisonError::into_inner) {
            Loading::Failed(why) => Some(format!("what earlier runs left is not completely listed: {why}")),
            Loading::Busy | Loading::Done => None,
        }
    }
}

/// The API for the Unix socket, whose listener says who asks.
pub fn local(services: &Arc<Services>) -> Router {
    finish(all().into_router(), services)
}

/// The API for TCP: the same behind its door.
pub fn remote(services: &Arc<Services>, door: Door) -> Router {
    let guard = axum::middleware::from_fn_with_state(Arc::new(door), guard::tcp);
    finish(all().into_router(), services).layer(guard)
}

fn finish(router: Router<Arc<Services>>, services: &Arc<Services>) -> Router {
    router.layer(DefaultBodyLimit::max(MAX_BODY)).with_state(services.clone())
}

/// All operations.
fn all() -> Routes {
    let mut routes = Routes::default();
    capture::routes(&mut routes);
    capture_control::routes(&mut routes);
    capture_events::routes(&mut routes);
    clips::routes(&mut routes);
    events::routes(&mut routes);
    evidence::routes(&mut routes);
    frames::routes(&mut routes);
    health::routes(&mut routes);
    metrics::routes(&mut routes);
    openapi::routes(&mut routes);
    power::routes(&mut routes);
    segments::routes(&mut routes);
    snapshots::routes(&mut routes);
    uploads::routes(&mut routes);
    routes
}
