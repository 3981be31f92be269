//! Figures of the lenses for Prometheus, as capture knows them.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::capture::{BreakerState, CaptureState, Judged, LensStatus};
use crate::record::RecorderStatus;

type Figure = fn(&LensStatus) -> f64;

const COUNTERS: [(&str, &str, Figure); 5] = [
    ("lens_frames", "Video frames that the source delivered", |l| l.frames as f64),
    ("lens_bytes", "Bytes that the source delivered, all tracks", |l| l.bytes as f64),
    ("lens_discontinuities", "Units before which the source knew of a loss", |l| l.discontinuities as f64),
    ("lens_reconnects", "How often the source was opened again", |l| l.reconnects as f64),
    ("lens_breaker_openings", "How often the circuit breaker opened", |l| l.breaker.opened as f64),
];

const GAUGES: [(&str, &str, Figure); 5] = [
    ("lens_frame_rate", "Video frames per second, lately", |l| l.frame_rate),
    ("lens_bitrate", "Bits per second, lately, all tracks", |l| l.bitrate as f64),
    ("lens_keyframe_interval_seconds", "From keyframe to keyframe, as last seen; 0 while unknown", |l| {
        l.keyframe_interval.map_or(0.0, |span| span.as_secs_f64())
    }),
    ("lens_degraded", "How far the lens gives way to others: 1 reduced, 2 stopped", |l| {
        l.degraded.as_ref().map_or(0.0, |degraded| f64::from(degraded.step as u8))
    }),
    ("lens_failures_in_a_row", "Failures since a run last proved itself", |l| f64::from(l.breaker.failures)),
];

pub(super) fn encode(
    lenses: &[LensStatus],
    zones: &[Judged],
    device_changes: u64,
    recorder: &RecorderStatus,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let help = "How often capture devices came or went";
    let mut metric = encoder.encode_descriptor("device_changes", help, None, MetricType::Counter)?;
    metric.encode_counter::<[(&str, &str); 0], _, u64>(&device_changes, None)?;
    let help = "Temperature of a thermal zone";
    let mut metric = encoder.encode_descriptor("thermal_zone_celsius", help, None, MetricType::Gauge)?;
    for (zone, temperature) in zones.iter().filter_map(|zone| Some((zone, zone.temperature?))) {
        let labels = [("zone", zone.zone.as_str()), ("type", zone.kind.as_str())];
        metric.encode_family(&labels)?.encode_gauge(&f64::from(temperature))?;
    }
    for (name, help, figure) in COUNTERS {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for lens in lenses {
            let labels = [("lens", lens.lens.as_str())];
            metric.encode_family(&labels)?.encode_counter::<[(&str, &str); 0], _, u64>(&figure(lens), None)?;
        }
    }
    for (name, help, figure) in GAUGES {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for lens in lenses {
            metric.encode_family(&[("lens", lens.lens.as_str())])?.encode_gauge(&figure(lens))?;
        }
    }
    let help = "How much later than the first lens that streams it captures, up to half a frame";
    let mut metric = encoder.encode_descriptor("lens_skew_seconds", help, None, MetricType::Gauge)?;
    for (lens, skew) in lenses.iter().filter_map(|lens| Some((lens, lens.skew?))) {
        metric.encode_family(&[("lens", lens.lens.as_str())])?.encode_gauge(&skew)?;
    }
    let help = "From the capture of the oldest picture of the newest durable fragment until it was durable";
    let mut metric = encoder.encode_descriptor("lens_durable_latency_seconds", help, None, MetricType::Gauge)?;
    for (lens, recording) in &recorder.lenses {
        if let Some(latency) = recording.latency {
            metric.encode_family(&[("lens", lens.as_str())])?.encode_gauge(&latency.as_secs_f64())?;
        }
    }
    // One series per state, 1 for the present one, as Prometheus has state sets.
    let help = "1 for the state that the lens is in";
    let mut metric = encoder.encode_descriptor("lens_state", help, None, MetricType::Gauge)?;
    for lens in lenses {
        for state in CaptureState::ALL {
            let labels = [("lens", lens.lens.as_str()), ("state", state.name())];
            metric.encode_family(&labels)?.encode_gauge(&i64::from(lens.state == state))?;
        }
    }
    let help = "1 for the state that the lens's circuit breaker is in";
    let mut metric = encoder.encode_descriptor("lens_breaker", help, None, MetricType::Gauge)?;
    for lens in lenses {
        for state in [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen] {
            let labels = [("lens", lens.lens.as_str()), ("state", state.name())];
            metric.encode_family(&labels)?.encode_gauge(&i64::from(lens.breaker.state == state))?;
        }
    }
    Ok(())
}
