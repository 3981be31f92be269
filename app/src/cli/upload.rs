//! `mos upload`
//!
//! The key file is read here, by the user who asks, and travels with the request: the daemon has no credentials of its own.

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::Client;
use super::{Failure, Outcome, Report, print, times};
use crate::upload::job::{Job, JobState};

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "independent flags of a command line")]
pub(super) struct UploadArgs {
    /// Files of the archive, as `mos segments` and `mos clip` print them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Where to: sftp://USER@HOST[:PORT]/DIRECTORY/ or …/FILE
    #[arg(long, value_name = "URI")]
    to: String,
    /// The server's host key: its SHA256:… fingerprint or its known_hosts line
    #[arg(long, value_name = "KEY")]
    host_key: Option<String>,
    /// The private key to log in with, in OpenSSH format; its passphrase, if it has one, from $MOS_PASSPHRASE
    #[arg(long, value_name = "KEYFILE")]
    identity: Option<PathBuf>,
    /// Replace a file of the same name
    #[arg(long)]
    overwrite: bool,
    /// Who goes first when several files wait: event, normal or background
    #[arg(long, value_name = "PRIORITY", default_value = "normal", value_parser = ["event", "normal", "background"])]
    priority: String,
    /// Most bytes per second
    #[arg(long, value_name = "BYTES")]
    max_rate: Option<u64>,
    /// Read the whole file back and compare it before it gets its final name, if the server cannot tell its hash
    #[arg(long)]
    read_back: bool,
    /// Leave out of MP4 files what no player needs; every frame stays bit for bit
    #[arg(long)]
    reduce: bool,
    /// Do not wait for the end; `mos uploads` tells where it stands
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    report: Report,
}

/// The reply of Upload, and what `--json` prints.
#[derive(Debug, Serialize, Deserialize)]
struct Uploads {
    group: String,
    uploads: Vec<Job>,
}

pub(super) async fn execute(client: &Client, args: &UploadArgs) -> Outcome {
    let options = json!({
        "host_key": args.host_key,
        "identity": key_text(args.identity.as_ref())?,
        "passphrase": passphrase(),
        "overwrite": args.overwrite,
        "priority": args.priority,
        "max_rate": args.max_rate,
        "read_back": args.read_back,
        "reduce": args.reduce,
    });
    let request = json!({ "paths": args.paths, "destination_uri": args.to, "options": options });
    let mut queued: Uploads = client.post("/v1/uploads", &request).await?;
    if !args.detach {
        for job in &mut queued.uploads {
            *job = follow(client, job).await?;
        }
    }
    if args.report.json {
        print::json(&queued)?;
    } else {
        for job in &queued.uploads {
            print::line(&shown(job))?;
        }
    }
    verdict(&queued.uploads)
}

/// The text of a key file.
pub(super) fn key_text(path: Option<&PathBuf>) -> Result<Option<String>, Failure> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).map_err(|e| Failure::Failed(format!("cannot read {}: {e}", path.display())))
    };
    path.map(read).transpose()
}

/// The passphrase of the key file. Never an option: those show in the process list.
pub(super) fn passphrase() -> Option<String> {
    std::env::var("MOS_PASSPHRASE").ok().filter(|text| !text.is_empty())
}

/// Waits for the end of a job, with a progress bar if somebody looks.
async fn follow(client: &Client, job: &Job) -> Result<Job, Failure> {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(name(&job.path).to_owned());
    let mut events = client.events(&format!("/v1/uploads/{}/events", job.id)).await?;
    while let Some(now) = events.next::<Job>().await? {
        match &now.state {
            state if state.is_end() => {
                bar.finish_and_clear();
                return Ok(now);
            }
            JobState::Transferring { bytes, total, .. } => {
                bar.set_length(*total);
                bar.set_position(*bytes);
                bar.set_message(name(&job.path).to_owned());
            }
            JobState::Failed { kind, next_try_ts, .. } => {
                let next = next_try_ts.map_or_else(String::new, times::show);
                bar.set_message(format!("{}: {}, next try {next}", name(&job.path), kind.name()));
            }
            _ => {}
        }
    }
    Err(Failure::Failed(format!("the daemon ended before upload {} did; it goes on when the daemon does", job.id)))
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn shown(job: &Job) -> String {
    match &job.state {
        JobState::Done { bytes, sha256, .. } => {
            format!("{} -> {} ({}, sha256 {sha256})", job.path, job.destination, print::size(*bytes))
        }
        JobState::Failed { kind, .. } => format!("{} failed: {}", job.path, kind.name()),
        _ => format!("{} -> {} is upload {}", job.path, job.destination, job.id),
    }
}

/// Success only if no job failed; else the first failure.
fn verdict(jobs: &[Job]) -> Outcome {
    let failures: Vec<String> = jobs
        .iter()
        .filter_map(|job| match &job.state {
            JobState::Cancelled => Some(format!("{}: cancelled", job.path)),
            JobState::Failed { kind, message, .. } => Some(format!("{}: {}: {message}", job.path, kind.name())),
            _ => None,
        })
        .collect();
    match failures.as_slice() {
        [] => Ok(()),
        [only] => Err(Failure::Failed(only.clone())),
        [first, ..] => Err(Failure::Failed(format!("{} of {} uploads failed; {first}", failures.len(), jobs.len()))),
    }
}
