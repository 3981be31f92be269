//! What one more camera costs: 1, 8, 32 and 64 RTSP cameras, 640×360 at 25 frames/s and 1 Mbit/s each, in one daemon.
//!
//! Flat is the aim: the 64th camera may not cost more than the eighth.

use mos_tests::camera::Camera;
use mos_tests::streams::{Kind, Stream};

use crate::record::{ffmpeg, mos};
use crate::table::Table;

const COUNTS: [usize; 4] = [1, 8, 32, 64];

pub(crate) fn run(table: &mut Table) {
    let stream = Stream::get(Kind::Load1M);
    let camera = Camera::open(&vec![stream; COUNTS[3]]);
    let used = COUNTS.map(|count| mos(&camera, count));
    let peer = ffmpeg(&camera, COUNTS[1]).cpu_per_camera();
    let [one, eight, many, most] = &used;
    let row = |count: usize| format!("{count} cameras of 1 Mbit/s: CPU-s per camera-second");
    table.beside(&row(COUNTS[0]), "s", one.cpu_per_camera(), ("8 × ffmpeg -c copy", peer));
    table.against(&row(COUNTS[1]), "s", eight.cpu_per_camera(), ("8 × ffmpeg -c copy", peer), 0.54);
    table.against(&row(COUNTS[2]), "s", many.cpu_per_camera(), ("MOS with 8", eight.cpu_per_camera()), 1.1);
    table.against(&row(COUNTS[3]), "s", most.cpu_per_camera(), ("MOS with 8", eight.cpu_per_camera()), 1.1);
    let megabytes = |bytes: f64| bytes / 1e6;
    let each = (most.pss - eight.pss) / (COUNTS[3] - COUNTS[1]) as f64;
    table.within(
        "64 cameras of 1 Mbit/s: PSS",
        "MB",
        megabytes(most.pss),
        Some(("8", megabytes(eight.pss))),
        20.0 + 64.0,
    );
    table.within("one more camera of 1 Mbit/s: PSS", "MB", megabytes(each), None, 1.0);
}
