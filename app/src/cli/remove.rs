//! `mos remove`

use clap::Args;

use super::client::Client;
use super::{Outcome, Report, print};

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// The segment's id, as `mos segments` prints it
    segment: String,
    #[command(flatten)]
    report: Report,
}

pub(super) async fn execute(client: &Client, args: &RemoveArgs) -> Outcome {
    client.delete::<()>(&super::segment_path(&args.segment, "")?).await?;
    if args.report.json {
        print::json(&serde_json::json!({ "id": args.segment, "removed": true }))
    } else {
        print::line(&format!("{} is removed", args.segment))
    }
}
