//! `mos status`

use clap::Args;

use super::client::Client;
use super::print::{self, Table};
use super::{Outcome, Report, times};
use crate::http::{HealthView, LensView};

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

fn lenses(lenses: &[LensView]) -> Outcome {
    let mut table =
        Table::new(["LENS", "STATE", "SINCE (UTC)", "PICTURE", ">FPS", ">MBIT/S", ">STORED", ">DROPPED", "SOURCE"]);
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
            format!("{:.1}", lens.frame_rate),
            format!("{:.2}", lens.bitrate as f64 / 1e6),
            lens.stored.to_string(),
            lens.dropped.values().sum::<u64>().to_string(),
            lens.source.clone(),
        ]);
    }
    if table.is_empty() { print::line("no cameras are configured") } else { table.print() }
}
