//! What evidence costs: recording 4 RTSP cameras, 1080p30 at 8 Mbit/s each, with and without the chains over their access units.

use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::daemon::Daemon;
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;

use crate::record::{Used, with};
use crate::table::Table;

const CAMERAS: usize = 4;
/// Both ways in turns, because machines drift.
const ROUNDS: usize = 2;

pub(crate) fn run(table: &mut Table) {
    let stream = Stream::get(Kind::Load8M);
    let camera = Camera::open(&vec![stream; CAMERAS]);
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        off.push(with(&camera, CAMERAS, "", |_| ()));
        on.push(with(&camera, CAMERAS, "[evidence]\nenabled = true\n", |daemon| {
            // Each lens has closed two segments and more.
            wait_for("links", Duration::from_secs(30), || (linked(daemon) >= 2 * CAMERAS as u64).then_some(()));
        }));
    }
    let mean = |runs: &[Used], of: fn(&Used) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
    let work = |what: &str| format!("record 4 cameras of 8 Mbit/s with evidence: {what}");
    let without = |of| ("MOS without", mean(&off, of));
    let cpu: fn(&Used) -> f64 = Used::cpu_per_camera;
    table.against(&work("CPU-s per camera-second"), "s", mean(&on, cpu), without(cpu), 2.0);
    let written: fn(&Used) -> f64 = Used::written;
    table.within(&work("bytes written ÷ payload"), "", mean(&on, written), Some(without(written)), 1.03);
    let pss: fn(&Used) -> f64 = |used| used.pss / 1e6;
    table.within(&work("PSS"), "MB", mean(&on, pss), Some(without(pss)), 40.0);
}

/// Segments that were linked to their chains.
fn linked(daemon: &Daemon<'_>) -> u64 {
    let metrics = daemon.client.get("/v1/metrics").text();
    let value = |line: &str| line.strip_prefix("mos_evidence_linked_segments_total ")?.parse().ok();
    metrics.lines().find_map(value).expect("evidence counts its links")
}
