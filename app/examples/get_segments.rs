//! What GetSegments costs inside the process: `get_segments ROOT` opens an archive that no daemon uses and asks it for an hour
//! of one lens, over and over.
//!
//! Prints one line of JSON, in milliseconds: `{"segments","p50","p99","array_p50","array_p99"}`. `array` is the same question to a
//! sorted array of all rows, which is the least that any index can cost. `make bench` runs this.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use mos::archive::catalog::{SegmentRow, Window};
use mos::archive::disk::RealDisk;
use mos::archive::{Archive, ArchiveOptions};
use mos_hal::clock::{SystemClock, UtcMicros};
use mos_hal::media::LensId;

const ROUNDS: usize = 20_000;
const HOUR: i64 = 3_600_000_000;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let root = std::env::args_os().nth(1).ok_or("usage: get_segments ROOT")?;
    let disk = Arc::new(RealDisk::open(root.as_ref())?);
    let archive = Archive::open(disk, Arc::new(SystemClock::new()?), &ArchiveOptions::default())?;
    archive.load()?;
    let everything = Window { from: UtcMicros(i64::MIN), to: UtcMicros(i64::MAX) };
    let rows = archive.catalog().segments(None, everything, 0, usize::MAX);
    let mut arrays: BTreeMap<LensId, Vec<SegmentRow>> = BTreeMap::new();
    for row in rows {
        arrays.entry(row.row.id.lens.clone()).or_default().push(row);
    }
    let lenses: Vec<&LensId> = arrays.keys().collect();
    let (mut ours, mut array) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    let mut random: u64 = 0x2545_f491_4f6c_dd1d;
    for _ in 0..ROUNDS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let lens = *lenses.get((random >> 60) as usize % lenses.len().max(1)).ok_or("the archive is empty")?;
        let rows = &arrays[lens];
        let place = &rows[(random >> 20) as usize % rows.len()];
        let window = Window { from: place.start_ts, to: UtcMicros(place.start_ts.0.saturating_add(HOUR)) };

        let start = Instant::now();
        let found = archive.catalog().segments(Some(lens), window, 0, 1000);
        let gaps = archive.catalog().gaps(Some(lens), window);
        ours.push(start.elapsed().as_secs_f64() * 1e3);
        drop(gaps);

        let start = Instant::now();
        let first = rows.partition_point(|row| row.end_ts <= window.from);
        let same: Vec<SegmentRow> = rows[first..].iter().take_while(|row| row.start_ts < window.to).cloned().collect();
        array.push(start.elapsed().as_secs_f64() * 1e3);
        if found != same {
            return Err(format!("{lens}: the index gives {} segments, the array {}", found.len(), same.len()).into());
        }
    }
    let count: usize = arrays.values().map(Vec::len).sum();
    let [p50, p99] = percentiles(&mut ours);
    let [array_p50, array_p99] = percentiles(&mut array);
    let report = serde_json::json!({
        "segments": count, "p50": p50, "p99": p99, "array_p50": array_p50, "array_p99": array_p99,
    });
    #[allow(clippy::print_stdout, reason = "this is the report")]
    {
        println!("{report}");
    }
    Ok(())
}

fn percentiles(samples: &mut [f64]) -> [f64; 2] {
    samples.sort_by(f64::total_cmp);
    [50, 99].map(|percent| samples[(samples.len() - 1) * percent / 100])
}
