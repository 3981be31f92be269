//! `mos segments`

use clap::Args;

use super::client::Client;
use super::print::{self, Table};
use super::{Outcome, Report, times};
use crate::http::{GapView, SegmentPage, SegmentView};

#[derive(Debug, Args)]
pub(super) struct SegmentsArgs {
    /// The lens
    #[arg(long, value_name = "LENS")]
    lens: String,
    /// Only what ends after this time (RFC 3339 or UTC microseconds)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Only what starts before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    #[command(flatten)]
    report: Report,
}

pub(super) async fn execute(client: &Client, args: &SegmentsArgs) -> Outcome {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("lens", &args.lens);
    for (option, key, time) in [("--from", "start_ts", &args.from), ("--to", "end_ts", &args.to)] {
        if let Some(time) = time {
            query.append_pair(key, &times::parse(option, time)?.to_string());
        }
    }
    let query = query.append_pair("limit", "5000").finish();
    let found = all(client, &query).await?;
    if args.report.json {
        return print::json(&found);
    }
    if found.listing {
        print::to_stderr("segments of earlier runs are still being listed; some may be missing here");
    } else if found.recovering {
        print::to_stderr(
            "segments of earlier runs are still being recovered; some may be missing here, with no gap in their place",
        );
    }
    if found.unreadable {
        print::to_stderr(
            "something that earlier runs left cannot be read and may be missing here: `mos status` says what",
        );
    }
    segments(&found.segments)?;
    if found.gaps.is_empty() { Ok(()) } else { gaps(&found.gaps) }
}

/// All pages as one.
async fn all(client: &Client, query: &str) -> Result<SegmentPage, super::Failure> {
    let mut whole = SegmentPage::default();
    let mut next = Some(String::new());
    while let Some(cursor) = next {
        let page: SegmentPage = client.get(&format!("/v1/segments?{query}{cursor}")).await?;
        whole.segments.extend(page.segments);
        whole.gaps.extend(page.gaps);
        whole.listing |= page.listing;
        whole.recovering |= page.recovering;
        whole.unreadable |= page.unreadable;
        next = page.next_cursor.map(|cursor| {
            let cursor: String = url::form_urlencoded::byte_serialize(cursor.as_bytes()).collect();
            format!("&cursor={cursor}")
        });
    }
    Ok(whole)
}

fn segments(segments: &[SegmentView]) -> Outcome {
    let mut table =
        Table::new(["SEGMENT", "START (UTC)", ">LENGTH", ">FRAMES", ">SIZE", "CODEC", "PICTURE", "STATE", "PROTECTED"]);
    for segment in segments {
        table.row([
            segment.id.clone(),
            times::show(segment.start_ts),
            times::length(segment.end_ts - segment.start_ts),
            segment.frames.to_string(),
            print::size(segment.bytes),
            segment.codec.clone().unwrap_or_default(),
            format!("{}x{}", segment.width, segment.height),
            segment.state.clone(),
            if segment.protected { "yes" } else { "" }.to_owned(),
        ]);
    }
    if table.is_empty() { print::line("no segments") } else { table.print() }
}

fn gaps(gaps: &[GapView]) -> Outcome {
    print::line("")?;
    let mut table = Table::new(["GAP OF", "START (UTC)", ">LENGTH", "CAUSE"]);
    for gap in gaps {
        let length = times::length(gap.end_ts - gap.start_ts);
        table.row([gap.lens.clone(), times::show(gap.start_ts), length, gap.cause.clone()]);
    }
    table.print()
}
