//! The table that is printed, and the statistics in it.

use std::fmt;
use std::fs;

/// A figure with its limit.
struct Row {
    work: String,
    ours: String,
    peer: String,
    ratio: String,
    limit: String,
    holds: bool,
}

/// Rows in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Adds a figure that is judged by its ratio to a peer: at most `limit` times.
    pub(crate) fn against(&mut self, work: &str, unit: &str, ours: f64, peer: (&str, f64), limit: f64) {
        let ratio = ours / peer.1;
        self.rows.push(Row {
            work: work.to_owned(),
            ours: format!("{} {unit}", short(ours)),
            peer: format!("{} {} {unit}", peer.0, short(peer.1)),
            ratio: format!("{ratio:.2}×"),
            limit: format!("≤ {}×", (limit * 100.0).round() / 100.0),
            holds: ratio <= limit,
        });
    }

    /// Adds a figure beside another peer's, to which no limit belongs.
    pub(crate) fn beside(&mut self, work: &str, unit: &str, ours: f64, peer: (&str, f64)) {
        self.against(work, unit, ours, peer, f64::INFINITY);
        if let Some(row) = self.rows.last_mut() {
            "–".clone_into(&mut row.limit);
        }
    }

    /// Adds a figure that is judged by itself: at most `limit`. A peer may stand beside it.
    pub(crate) fn within(&mut self, work: &str, unit: &str, ours: f64, peer: Option<(&str, f64)>, limit: f64) {
        self.rows.push(Row {
            work: work.to_owned(),
            ours: format!("{} {unit}", short(ours)),
            peer: peer.map_or("–".to_owned(), |(name, value)| format!("{name} {} {unit}", short(value))),
            ratio: peer.map_or("–".to_owned(), |(_, value)| format!("{:.2}×", ours / value)),
            limit: format!("≤ {} {unit}", short(limit)),
            holds: ours <= limit,
        });
    }

    /// Whether a limit was missed.
    pub(crate) fn missed(&self) -> bool {
        self.rows.iter().any(|row| !row.holds)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| Work | MOS | Peer in the same run | Ratio | Limit | |\n|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let holds = if row.holds { "holds" } else { "missed" };
            writeln!(f, "| {} | {} | {} | {} | {} | {holds} |", row.work, row.ours, row.peer, row.ratio, row.limit)?;
        }
        Ok(())
    }
}

/// A number with three significant digits.
fn short(value: f64) -> String {
    match value.abs() {
        v if v == 0.0 || v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        v if v >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.5}"),
    }
}

/// The value below which a share of the samples lies (nearest rank).
pub(crate) fn percentile(samples: &mut [f64], percent: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * samples.len() as f64).ceil() as usize;
    samples[rank.clamp(1, samples.len()) - 1]
}

/// One line about the machine.
pub(crate) fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown CPU", |l| l.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} × {model}, Linux {}", kernel.trim())
}
