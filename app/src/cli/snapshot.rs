//! `mos snapshot`

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::client::Client;
use super::{Outcome, Report, copy, print, times};
use crate::http::SnapshotView;

#[derive(Debug, Args)]
pub(super) struct SnapshotArgs {
    /// The segment's id, as `mos segments` prints it
    segment: String,
    /// Seconds from the segment's start; the keyframe at or before it is taken
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    at: String,
    /// Copy the picture to this file; otherwise it only lies in the archive's snapshots folder
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// JPEG quality, 1 to 100
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: Option<u8>,
    /// Most pixels across; the picture is scaled down to fit, never up
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(16..=16384))]
    width: Option<u32>,
    /// Most pixels down
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(16..=16384))]
    height: Option<u32>,
    #[command(flatten)]
    report: Report,
}

pub(super) async fn execute(client: &Client, args: &SnapshotArgs) -> Outcome {
    let at = times::offset("--at", &args.at)?;
    let body = json!({
        "keyframe_offset": at,
        "quality": args.quality,
        "width": args.width,
        "height": args.height,
    });
    let picture: SnapshotView = client.post(&super::segment_path(&args.segment, "/snapshot")?, &body).await?;
    if let Some(to) = &args.output {
        let output = copy::Output {
            path: Path::new(&picture.path),
            bytes: picture.bytes,
            url: format!("/v1/snapshots/{}/file", picture.id),
        };
        copy::out(client, &output, to).await?;
    }
    if args.report.json {
        return print::json(&picture);
    }
    let place = args.output.as_ref().map_or_else(|| picture.path.clone(), |to| to.display().to_string());
    let (size, time) = (print::size(picture.bytes), times::show(picture.ts));
    print::line(&format!("{place}: {}x{}, {size}, captured {time}", picture.width, picture.height))
}
