//! `mos uploads`: what waits, runs, has failed or is done; calling off and trying again.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::client::Client;
use super::print::{self, Table};
use super::{Failure, Outcome, Report, times};
use crate::http::UploadList;
use crate::upload::job::{Job, JobState};

#[derive(Debug, Args)]
pub(super) struct UploadsArgs {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    report: Report,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the uploads (the default)
    List(ListArgs),
    /// Call uploads off and let go of their files
    Cancel(CancelArgs),
    /// Try uploads again now
    Retry(RetryArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    report: Report,
}

#[derive(Debug, Args)]
struct CancelArgs {
    /// As `mos uploads` prints them
    #[arg(required = true, value_name = "UPLOAD")]
    ids: Vec<String>,
    #[command(flatten)]
    report: Report,
}

#[derive(Debug, Args)]
struct RetryArgs {
    /// As `mos uploads` prints them
    #[arg(required = true, value_name = "UPLOAD")]
    ids: Vec<String>,
    /// The private key to log in with, if the daemon has forgotten it; its passphrase from $MOS_PASSPHRASE
    #[arg(long, value_name = "KEYFILE")]
    identity: Option<PathBuf>,
    /// Another host key of the server, if its owner confirms that it was changed
    #[arg(long, value_name = "KEY")]
    host_key: Option<String>,
    #[command(flatten)]
    report: Report,
}

pub(super) async fn execute(client: &Client, args: &UploadsArgs) -> Outcome {
    match &args.what {
        None => list(client, args.report).await,
        Some(What::List(list_args)) => list(client, list_args.report).await,
        Some(What::Cancel(cancel)) => {
            let mut jobs = Vec::new();
            for id in &cancel.ids {
                jobs.push(client.delete::<Job>(&path(id, "")?).await?);
            }
            show(jobs, cancel.report)
        }
        Some(What::Retry(retry)) => {
            let request = json!({
                "identity": super::upload::key_text(retry.identity.as_ref())?,
                "passphrase": super::upload::passphrase(),
                "host_key": retry.host_key,
            });
            let mut jobs = Vec::new();
            for id in &retry.ids {
                jobs.push(client.post::<_, Job>(&path(id, "/retry")?, &request).await?);
            }
            show(jobs, retry.report)
        }
    }
}

async fn list(client: &Client, report: Report) -> Outcome {
    let found: UploadList = client.get("/v1/uploads").await?;
    show(found.uploads, report)
}

fn show(uploads: Vec<Job>, report: Report) -> Outcome {
    if report.json {
        return print::json(&UploadList { uploads });
    }
    let mut table = Table::new(["UPLOAD", "STATE", "FILE", "DESTINATION", "WHAT"]);
    for job in uploads {
        let (state, what) = state(&job.state);
        table.row([job.id.0, state.to_owned(), job.path, job.destination, what]);
    }
    if table.is_empty() { print::line("no uploads") } else { table.print() }
}

fn state(state: &JobState) -> (&'static str, String) {
    match state {
        JobState::Queued => ("queued", String::new()),
        JobState::NeedsCredentials => ("needs_credentials", "mos uploads retry … --identity KEYFILE".to_owned()),
        JobState::Connecting => ("connecting", String::new()),
        JobState::Transferring { bytes, total, rate } => {
            let what = format!("{} of {}, {}/s", print::size(*bytes), print::size(*total), print::size(*rate));
            ("transferring", what)
        }
        JobState::Verifying => ("verifying", String::new()),
        JobState::Done { bytes, sha256, .. } => ("done", format!("{}, sha256 {sha256}", print::size(*bytes))),
        JobState::Failed { kind, message, next_try_ts } => {
            let next = next_try_ts.map_or_else(String::new, |ts| format!("; next try {}", times::show(ts)));
            ("failed", format!("{}: {message}{next}", kind.name()))
        }
        JobState::Cancelled => ("cancelled", String::new()),
    }
}

/// The API's path of an upload; a text that is no upload's id never gets into a path.
fn path(id: &str, rest: &str) -> Result<String, Failure> {
    if !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        Ok(format!("/v1/uploads/{id}{rest}"))
    } else {
        Err(Failure::Usage(format!("'{}' is no upload's id; `mos uploads` lists them", id.escape_debug())))
    }
}
