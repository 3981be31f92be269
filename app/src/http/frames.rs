//! Who reads live frames of which lens: GetFrames, and the same as figures for Prometheus. The frames themselves never pass
//! the API.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use mos_hal::frames::{LensFrames, Report, Totals};
use mos_hal::media::LensId;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Services;
use super::fault::Fault;
use super::routes::Routes;
use crate::error::ErrorBody;

/// All lenses whose live frames are to be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FramesView {
    /// In the order of the configuration.
    pub lenses: Vec<LensFramesView>,
}

/// A lens on the frame bus. Counters are frames since the daemon started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LensFramesView {
    /// The lens.
    pub lens: String,
    /// The socket to read from; see hal/frame/PROTOCOL.md.
    pub socket: String,
    /// Captured while somebody subscribed.
    pub published: u64,
    /// That nobody got, because the bus was behind.
    pub refused: u64,
    /// Those among the refused that a newer frame overtook before the bus had time for them.
    #[serde(default)]
    pub overtaken: u64,
    /// Bytes of pictures that were given to the bus.
    #[serde(default)]
    pub moved_bytes: u64,
    /// Bytes per second that it has claimed of what all lenses may move; 0 while nobody subscribes.
    #[serde(default)]
    pub claimed_rate: u64,
    /// Somebody subscribes and gets nothing, because all lenses together would move more than `frames.max_rate`.
    #[serde(default)]
    pub denied: bool,
    /// Copied for subscribers that are not given the camera's buffers.
    pub copied: u64,
    /// That could not be copied, because their memory cannot be read.
    pub unreadable: u64,
    /// Sent, to all subscribers together.
    pub delivered: u64,
    /// That newer ones took the place of.
    pub replaced: u64,
    /// Taken back from subscribers that held them for too long.
    pub revoked: u64,
    /// Subscribers that were cut for breaking a rule.
    pub cut: u64,
    /// Who subscribes now.
    pub subscribers: Vec<SubscriberView>,
}

/// A subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscriberView {
    /// Its process.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Whether it is given the camera's own buffers.
    pub trusted: bool,
    /// Frames sent to it.
    pub delivered: u64,
    /// Frames that newer ones took the place of while they waited.
    pub replaced: u64,
    /// Frames taken back from it.
    pub revoked: u64,
    /// Frames left out for the rate that it asked for.
    pub thinned: u64,
    /// Frames that it has not returned.
    pub leased: u64,
    /// Bytes of buffers that it can hold on to.
    pub pinned_bytes: u64,
}

pub(super) fn routes(routes: &mut Routes) {
    routes.get("/v1/frames", get_frames);
}

/// Who reads live frames.
#[utoipa::path(get, path = "/v1/frames", operation_id = "GetFrames", tag = "capture",
    responses((status = 200, body = FramesView), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn get_frames(State(services): State<Arc<Services>>) -> Result<Json<FramesView>, Fault> {
    Ok(Json(FramesView { lenses: views(&services.capture.frames()) }))
}

/// All published lenses.
pub(super) fn views(lenses: &[(LensId, Arc<LensFrames>)]) -> Vec<LensFramesView> {
    lenses.iter().map(|(lens, frames)| view(lens, frames)).collect()
}

fn view(lens: &LensId, frames: &LensFrames) -> LensFramesView {
    let Totals { published, refused, overtaken, copied, unreadable, cut, delivered, replaced, revoked } =
        frames.totals();
    let subscriber = |report: Report| SubscriberView {
        pid: report.pid,
        uid: report.uid,
        trusted: report.trusted,
        delivered: report.delivered,
        replaced: report.replaced,
        revoked: report.revoked,
        thinned: report.thinned,
        leased: report.leased as u64,
        pinned_bytes: report.pinned,
    };
    LensFramesView {
        lens: lens.to_string(),
        socket: frames.socket().display().to_string(),
        published,
        refused,
        overtaken,
        moved_bytes: frames.moved(),
        claimed_rate: frames.claimed(),
        denied: frames.denied(),
        copied,
        unreadable,
        delivered,
        replaced,
        revoked,
        cut,
        subscribers: frames.reports().into_iter().map(subscriber).collect(),
    }
}

type Figure = fn(&LensFramesView) -> u64;

/// Counters and gauges of all published lenses.
pub(super) fn encode(lenses: &[LensFramesView], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let counters: [(&str, &str, Figure); 7] = [
        ("bus_moved_bytes", "Bytes of pictures that were given to the bus", |l| l.moved_bytes),
        ("bus_published_frames", "Frames captured while somebody subscribed", |l| l.published),
        ("bus_refused_frames", "Frames that nobody got, because the bus was behind", |l| l.refused),
        ("bus_delivered_frames", "Frames sent to subscribers", |l| l.delivered),
        ("bus_replaced_frames", "Frames that newer ones took the place of", |l| l.replaced),
        ("bus_revoked_frames", "Frames taken back from subscribers", |l| l.revoked),
        ("bus_cut_subscribers", "Subscribers cut for breaking a rule", |l| l.cut),
    ];
    for (name, help, figure) in counters {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for lens in lenses {
            let labels = [("lens", lens.lens.as_str())];
            metric.encode_family(&labels)?.encode_counter::<[(&str, &str); 0], _, u64>(&figure(lens), None)?;
        }
    }
    let gauges: [(&str, &str, Figure); 4] = [
        ("bus_claimed_bytes_per_second", "What the lens may move, of what all may together", |l| l.claimed_rate),
        ("bus_denied", "1 while somebody gets nothing because the limit of all lenses is reached", |l| {
            u64::from(l.denied)
        }),
        ("bus_subscribers", "Who reads live frames now", |l| l.subscribers.len() as u64),
        ("bus_pinned_bytes", "Bytes of buffers that subscribers can hold on to", |l| {
            l.subscribers.iter().map(|s| s.pinned_bytes).sum()
        }),
    ];
    for (name, help, figure) in gauges {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for lens in lenses {
            metric.encode_family(&[("lens", lens.lens.as_str())])?.encode_gauge(&(figure(lens) as i64))?;
        }
    }
    Ok(())
}
