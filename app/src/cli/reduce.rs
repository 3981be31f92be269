//! `mos reduce`: leaves out of an MP4 file what no player needs. Needs no daemon.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Outcome, Report, print};
use crate::reduce::{How, reduce};

#[derive(Debug, Args)]
pub(super) struct ReduceArgs {
    /// An MP4 file
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The file to write; it may be IN itself
    #[arg(value_name = "OUT")]
    output: PathBuf,
    #[command(flatten)]
    report: Report,
}

pub(super) fn execute(args: &ReduceArgs) -> Outcome {
    let made = reduce(&args.input, &args.output).map_err(|e| Failure::Failed(e.to_string()))?;
    if args.report.json {
        return print::json(&made);
    }
    let share = made.saved_bytes as f64 * 100.0 / made.input_bytes.max(1) as f64;
    let how = match made.how {
        How::Written => "",
        How::Truncated => ", cut off in place",
        How::Unchanged => ", left as it was",
    };
    print::line(&format!(
        "{}: {} of {}, {} saved ({share:.1} %): {} in free boxes, {} of media that no sample uses{how}",
        args.output.display(),
        print::size(made.output_bytes),
        print::size(made.input_bytes),
        print::size(made.saved_bytes),
        print::size(made.free_bytes),
        print::size(made.media_bytes),
    ))
}
