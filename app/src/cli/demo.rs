//! `mos demo`: shows the whole recorder on throw-away cameras and a throw-away server (cargo feature `demo`).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::print::{self, Table};
use super::{Failure, Outcome};
use crate::daemon::signals::StopSignals;
use crate::demo::DemoError;
use crate::demo::story::{self, Options, Report};

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Take `road` from this file, rtsp:// URL or /dev/videoN, not from a synthetic scene
    input: Option<String>,
    /// Seconds that every lens records before the recorder is killed
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=30))]
    seconds: u64,
    /// Leave everything in this folder, which must be new or empty
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub(super) fn execute(args: &DemoArgs) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::Failed(format!("cannot start: {e}")))?;
    let options = Options { input: args.input.clone(), seconds: args.seconds, keep: args.keep.clone() };
    let begun = Instant::now();
    let say = |step: &str| print::to_stderr(&format!("{:5.1} s  {step}", begun.elapsed().as_secs_f64()));
    // Whichever ends first: what the story holds (cameras, server, recorder, folder) is cleared away when it is dropped.
    let told = runtime.block_on(async {
        let mut signals = StopSignals::listen().map_err(|e| DemoError::stage("listen for signals", &e))?;
        tokio::select! {
            // First: Ctrl-C reaches the recorder as well, whose end is no news then.
            biased;
            _ = signals.next() => Err(DemoError::Interrupted),
            told = story::tell(&options, &say) => told,
        }
    });
    let report = told.map_err(|e| Failure::Failed(e.to_string()))?;
    show(&report, begun.elapsed())?;
    match &args.keep {
        Some(dir) => print::line(&format!("Everything is kept in {}.", dir.display())),
        None => Ok(()),
    }
}

fn show(report: &Report, took: Duration) -> Outcome {
    let ms = |d: Duration| format!("{} ms", d.as_millis());
    let mut lenses = Table::new([
        "LENS",
        ">SEGMENTS",
        ">FOOTAGE",
        ">FRAMES",
        ">SIZE",
        ">LOST BY THE KILL",
        ">SOURCE LATE BY",
        ">GAP UNTIL BACK",
        "CAUSES",
    ]);
    for lens in &report.lenses {
        lenses.row([
            lens.lens.clone(),
            lens.segments.to_string(),
            format!("{:.1} s", lens.footage.as_secs_f64()),
            lens.frames.to_string(),
            print::size(lens.bytes),
            ms(lens.lost),
            ms(lens.lateness),
            ms(lens.gap),
            lens.causes.join(", "),
        ]);
    }
    let mut files = Table::new(["FILE", "NAME", ">SIZE", ">TIME", "CHECKED"]);
    for file in &report.files {
        files.row([file.what.clone(), file.name.clone(), print::size(file.bytes), ms(file.took), file.checked.clone()]);
    }
    print::line("")?;
    lenses.print()?;
    print::line("")?;
    files.print()?;
    print::line("")?;
    let back = report.back_after.as_secs_f64();
    print::line(&format!(
        "Recording again {back:.1} s after the kill. Every step held; {:.0} s in all.",
        took.as_secs_f64()
    ))
}
