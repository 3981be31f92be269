//! `mos status`

use clap::Args;

use super::client::Client;
use super::print::{self, Table};
use super::{Outcome, Report, times};
use crate::http::{HealthView, LensView, StorageView};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    report: Report,
}

pub(super) async fn execute(client: &Client, args: &StatusArgs) -> Outcome {
    let health: HealthView = client.get("/v1/health").await?;
    if args.report.json {
        return print::json(&health);
    }
    let storage = &health.storage;
    let (version, run, clock) = (&health.version, health.run, &health.clock_quality);
    print::line(&format!("{}: mos {version}, run {run}, clock {clock}", health.status))?;
    let (stored, used) = (storage.segments, print::size(storage.segment_bytes));
    let free = print::size(storage.free_bytes);
    let total = print::size(storage.total_bytes);
    let (last, worst) = (storage.last_sync_ms, storage.worst_sync_ms);
    print::line(&format!("{}: {stored} segments, {used}; {free} of {total} free", storage.root))?;
    print::line(&room(storage))?;
    if let Some(device) = device(storage) {
        print::line(&device)?;
    }
    print::line(&format!("syncs take {last:.1} ms, the slowest took {worst:.1} ms"))?;
    if !storage.listed {
        print::line("segments of earlier runs are still being listed")?;
    }
    if storage.quarantine > 0 {
        print::line(&format!("{} in quarantine", storage.quarantine))?;
    }
    lenses(&health.lenses)?;
    for problem in &health.problems {
        print::line(&format!("! {problem}"))?;
    }
    Ok(())
}

/// What segments may take, how far that reaches, and how much of it is protected.
fn room(storage: &StorageView) -> String {
    let forecast = &storage.forecast;
    let holds = forecast.holds_seconds.map(|time| format!(", {} at the present rate", days(time)));
    let full = forecast.full_in_seconds.filter(|time| *time > 0).map(|time| format!(", full in {}", days(time)));
    let (budget, protected) = (print::size(storage.budget_bytes), print::size(storage.protected_bytes));
    format!(
        "segments may take {budget}{}{}; {} are protected, {protected} of at most {}",
        holds.unwrap_or_default(),
        full.unwrap_or_default(),
        storage.protected_segments,
        print::size(storage.protected_max_bytes)
    )
}

/// The device as far as it tells something, and what is written.
fn device(storage: &StorageView) -> Option<String> {
    let mut parts = Vec::new();
    let forecast = &storage.forecast;
    if let Some(device) = &storage.device {
        parts.push(format!("{} ({})", device.name, device.kind));
        match device.life_used_a_percent.max(device.life_used_b_percent) {
            Some(used) if used > 100 => parts.push("beyond the end of its life".to_owned()),
            Some(used) => parts.push(format!("at most {used} % of its life used")),
            None => parts.push("tells nothing of its wear".to_owned()),
        }
        parts.extend(device.pre_eol.as_ref().map(|eol| format!("reserve {eol}")));
    }
    if let Some(footage) = forecast.footage_bytes_per_day {
        parts.push(format!("{} of footage a day", print::size(footage)));
    }
    if let Some(all) = forecast.device_bytes_per_day {
        parts.push(format!("{} written in all", print::size(all)));
    }
    parts.extend(forecast.wear_end_in_seconds.map(|end| format!("lasts {} at least", days(end))));
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn days(seconds: u64) -> String {
    match seconds {
        0..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn lenses(lenses: &[LensView]) -> Outcome {
    let mut table = Table::new([
        "LENS",
        "STATE",
        "SINCE (UTC)",
        "PICTURE",
        "MEMORY",
        ">FPS",
        ">MBIT/S",
        ">STORED",
        ">DROPPED",
        "SOURCE",
    ]);
    for lens in lenses {
        let state = match &lens.absent {
            Some(cause) => format!("{} ({cause})", lens.state),
            None => lens.state.clone(),
        };
        let picture = lens.codec.as_ref().map(|codec| format!("{codec} {}x{}", lens.width, lens.height));
        table.row([
            lens.lens.clone(),
            state,
            times::show(lens.since_ts),
            picture.unwrap_or_default(),
            lens.memory.clone().unwrap_or_default(),
            format!("{:.1}", lens.frame_rate),
            format!("{:.2}", lens.bitrate as f64 / 1e6),
            lens.stored.to_string(),
            lens.dropped.values().sum::<u64>().to_string(),
            lens.source.clone(),
        ]);
    }
    if table.is_empty() { print::line("no cameras are configured") } else { table.print() }
}
