//! `mos protect` and `mos unprotect`

use clap::Args;
use serde_json::json;

use super::client::Client;
use super::{Outcome, Report, print};
use crate::http::ProtectionView;

#[derive(Debug, Args)]
pub(super) struct ProtectArgs {
    /// The segment's id, as `mos segments` prints it
    segment: String,
    /// Why, for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
    #[command(flatten)]
    report: Report,
}

#[derive(Debug, Args)]
pub(super) struct UnprotectArgs {
    /// The segment's id
    segment: String,
    #[command(flatten)]
    report: Report,
}

pub(super) async fn protect(client: &Client, args: &ProtectArgs) -> Outcome {
    let path = super::segment_path(&args.segment, "/protection")?;
    let reply: ProtectionView = client.put(&path, &json!({ "why": args.why })).await?;
    if args.report.json {
        return print::json(&reply);
    }
    let who = reply.who.unwrap_or_default();
    let since = reply.since_ts.map(super::times::show).unwrap_or_default();
    print::line(&format!("{} is protected since {since} by {who}", reply.id))
}

pub(super) async fn unprotect(client: &Client, args: &UnprotectArgs) -> Outcome {
    let path = super::segment_path(&args.segment, "/protection")?;
    let reply: ProtectionView = client.delete(&path).await?;
    if args.report.json { print::json(&reply) } else { print::line(&format!("{} is not protected", reply.id)) }
}
