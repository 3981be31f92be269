//! `mos clip`

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::client::Client;
use super::print;
use super::{Failure, Outcome, Report, copy, times};
use crate::http::ClipView;

#[derive(Debug, Args)]
pub(super) struct ClipArgs {
    /// Cut from this segment; --from and --to are then seconds from its start
    #[arg(required_unless_present = "lens", conflicts_with = "lens")]
    segment: Option<String>,
    /// Cut from this lens, across segments; --from and --to are then times (RFC 3339 or UTC microseconds)
    #[arg(long, value_name = "LENS")]
    lens: Option<String>,
    /// Where the clip begins
    #[arg(long, value_name = "S|TIME", allow_hyphen_values = true)]
    from: String,
    /// Where it ends, exclusive
    #[arg(long, value_name = "S|TIME", allow_hyphen_values = true)]
    to: String,
    /// Copy the clip to this file; otherwise it only lies in the archive's clips folder
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// `exact`: an edit list shows exactly the asked frames; `gop`: whole groups of pictures are shown
    #[arg(long, value_parser = ["exact", "gop"], default_value = "exact")]
    edges: String,
    #[command(flatten)]
    report: Report,
}

pub(super) async fn execute(client: &Client, args: &ClipArgs) -> Outcome {
    let clip = ask(client, args).await?;
    if let Some(to) = &args.output {
        let output =
            copy::Output { path: Path::new(&clip.path), bytes: clip.bytes, url: format!("/v1/clips/{}/file", clip.id) };
        copy::out(client, &output, to).await?;
    }
    if args.report.json {
        return print::json(&clip);
    }
    let place = args.output.as_ref().map_or_else(|| clip.path.clone(), |to| to.display().to_string());
    print::line(&format!("{place}: {} of {}", print::size(clip.bytes), clip.lens))?;
    for (name, span) in [("asked", &clip.asked), ("shown", &clip.shown), ("payload", &clip.payload)] {
        let length = times::length(span.end_ts - span.start_ts);
        let (start, end) = (times::show(span.start_ts), times::show(span.end_ts));
        print::line(&format!("  {name:<8} {start} to {end}  {length}"))?;
    }
    for gap in &clip.gaps {
        let length = times::length(gap.end_ts - gap.start_ts);
        print::line(&format!("  gap      {} for {length}: {}", times::show(gap.start_ts), gap.cause))?;
    }
    if let Some(note) = &clip.note {
        print::line(&format!("  note     {note}"))?;
    }
    Ok(())
}

async fn ask(client: &Client, args: &ClipArgs) -> Result<ClipView, Failure> {
    let edges = &args.edges;
    match (&args.segment, &args.lens) {
        (Some(segment), _) => {
            let start = times::offset("--from", &args.from)?;
            let end = times::offset("--to", &args.to)?;
            let body = json!({ "start_offset": start, "end_offset": end, "edges": edges });
            Ok(client.post(&super::segment_path(segment, "/clip")?, &body).await?)
        }
        (None, Some(lens)) => {
            let start = times::parse("--from", &args.from)?;
            let end = times::parse("--to", &args.to)?;
            let body = json!({ "start_ts": start, "end_ts": end, "edges": edges });
            let lens = mos_hal::media::LensId::new(lens).map_err(|e| Failure::Usage(e.to_string()))?;
            Ok(client.post(&format!("/v1/lenses/{lens}/clip"), &body).await?)
        }
        (None, None) => Err(Failure::Usage("name a segment or a --lens".to_owned())),
    }
}
