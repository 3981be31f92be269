//! The commands. Each is a client of the HTTP API like any other; only this room prints.
//!
//! Exit status: 0 done; 1 failed, with one line `error: …` on standard error; 2 wrong usage. Tables for people by default,
//! JSON on standard output with `--json`. Never reads the archive's files itself (but
//! `mos check`, which needs no daemon; nor do `mos reduce`, `mos probe`, `mos token` and `mos verify`).

mod capture;
mod check;
pub mod client;
mod clip;
mod copy;
#[cfg(feature = "demo")]
mod demo;
mod devices;
mod frames;
mod print;
mod probe;
mod protection;
mod reduce;
mod remove;
mod run;
mod segments;
mod snapshot;
mod status;
mod times;
mod token;
mod upload;
mod uploads;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::archive::ids::{BadSegmentId, SegmentId};
use client::{Address, Client, ClientError, DEFAULT_SOCKET};

/// Records cameras, answers for what it recorded, and hands it out.
#[derive(Debug, Parser)]
#[command(name = "mos", version, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    daemon: DaemonArgs,
    #[command(subcommand)]
    command: Command,
}

/// Which daemon to ask. TCP needs its token in the environment variable MOS_TOKEN.
#[derive(Debug, Args)]
struct DaemonArgs {
    /// The daemon's Unix socket [default: $MOS_SOCKET or /run/mos/mos.sock]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The daemon's address on TCP, http://HOST:PORT or https://HOST:PORT [default: $MOS_URL]
    #[arg(long, global = true, value_name = "URL", conflicts_with = "socket")]
    url: Option<String>,
    /// Who signed the certificate of an https daemon, a PEM file [default: $MOS_CA]
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: record the configured cameras and serve the API
    Run(run::RunArgs),
    /// Tell how the recorder is and what is wrong with which lens
    Status(status::StatusArgs),
    /// Tell how the lenses are captured; start, stop, configure and reset them
    Capture(capture::CaptureArgs),
    /// List capture devices
    Devices(devices::DevicesArgs),
    /// Read live frames of a lens from the frame bus and tell how they come
    Frames(frames::FramesArgs),
    /// List stored segments and gaps
    Segments(segments::SegmentsArgs),
    /// Cut a clip out of what was recorded, without decoding
    Clip(clip::ClipArgs),
    /// Take a picture: the keyframe at or before a moment
    Snapshot(snapshot::SnapshotArgs),
    /// Protect a segment from removal and retention
    Protect(protection::ProtectArgs),
    /// Lift the protection of a segment
    Unprotect(protection::UnprotectArgs),
    /// Remove a segment for good
    Remove(remove::RemoveArgs),
    /// Send files of the archive to a server
    Upload(upload::UploadArgs),
    /// List uploads, call them off, try them again
    Uploads(uploads::UploadsArgs),
    /// Leave out of an MP4 file what no player needs, without touching a frame
    Reduce(reduce::ReduceArgs),
    /// Look through an archive that no daemon uses, and mend it with --repair
    Check(check::CheckArgs),
    /// Judge a clip or segment by its evidence: intact, tampered or incomplete, and where
    Verify(verify::VerifyArgs),
    /// Print the signed manifest of a clip, by which others can verify it
    Manifest(verify::ManifestArgs),
    /// Make a token for the API over TCP, with a role
    Token(token::TokenArgs),
    /// Tell what this machine is: board, cameras of its device tree, codec elements and why
    Probe(probe::ProbeArgs),
    /// What `ListDevices` runs in a process of its own
    #[cfg(feature = "libcamera")]
    #[command(name = mos_hal::libcamera::COMMAND, hide = true)]
    LibcameraSurvey,
    /// What a lens with a process of its own runs in
    #[command(name = crate::capture::worker::COMMAND, hide = true)]
    LensWorker,
    /// Show it all on throw-away cameras and a throw-away server
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
}

/// `--json`, for commands that report.
#[derive(Clone, Copy, Debug, Args)]
struct Report {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line cannot be understood: exit status 2.
    Usage(String),
    /// What was asked could not be done: exit status 1.
    Failed(String),
    /// Whoever read standard output went away; nothing is left to be said.
    NobodyReads,
}

pub(crate) type Outcome = Result<(), Failure>;

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Url(_) => Self::Usage(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => e.exit(),
    };
    match cli.execute() {
        Ok(()) | Err(Failure::NobodyReads) => ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => Cli::command().error(ErrorKind::ValueValidation, message).exit(),
        Err(Failure::Failed(message)) => {
            // One line, whatever it holds.
            print::to_stderr(&format!("error: {}", message.split_whitespace().collect::<Vec<_>>().join(" ")));
            ExitCode::FAILURE
        }
    }
}

impl Cli {
    fn execute(self) -> Outcome {
        let client = || self.daemon.client();
        match self.command {
            Command::Run(args) => run::execute(&args),
            Command::Status(args) => asked(status::execute(&client()?, &args)),
            Command::Capture(args) => asked(capture::execute(&client()?, &args)),
            Command::Devices(args) => asked(devices::execute(&client()?, &args)),
            Command::Frames(args) => asked(frames::execute(&client()?, &args)),
            Command::Segments(args) => asked(segments::execute(&client()?, &args)),
            Command::Clip(args) => asked(clip::execute(&client()?, &args)),
            Command::Snapshot(args) => asked(snapshot::execute(&client()?, &args)),
            Command::Protect(args) => asked(protection::protect(&client()?, &args)),
            Command::Unprotect(args) => asked(protection::unprotect(&client()?, &args)),
            Command::Remove(args) => asked(remove::execute(&client()?, &args)),
            Command::Upload(args) => asked(upload::execute(&client()?, &args)),
            Command::Uploads(args) => asked(uploads::execute(&client()?, &args)),
            Command::Reduce(args) => reduce::execute(&args),
            Command::Check(args) => check::execute(&args),
            Command::Verify(args) => verify::execute(&args),
            Command::Manifest(args) => asked(verify::manifest(&client()?, &args)),
            Command::Token(args) => token::execute(&args),
            Command::Probe(args) => probe::execute(&args),
            #[cfg(feature = "libcamera")]
            Command::LibcameraSurvey => {
                print::line(&mos_hal::libcamera::survey_json().map_err(|e| Failure::Failed(e.to_string()))?)
            }
            Command::LensWorker => crate::capture::worker::child::run().map_err(Failure::Failed),
            #[cfg(feature = "demo")]
            Command::Demo(args) => demo::execute(&args),
        }
    }
}

impl DaemonArgs {
    /// Options win over the environment, and there `MOS_URL` over `MOS_SOCKET`.
    fn client(&self) -> Result<Client, Failure> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let address = match (&self.socket, &self.url) {
            (Some(socket), _) => Address::Unix(socket.clone()),
            (None, Some(url)) => Address::from_url(url)?,
            (None, None) => match (variable("MOS_URL"), variable("MOS_SOCKET")) {
                (Some(url), _) => Address::from_url(&url)?,
                (None, Some(socket)) => Address::Unix(socket.into()),
                (None, None) => Address::Unix(DEFAULT_SOCKET.into()),
            },
        };
        let client = Client::new(address, variable("MOS_TOKEN"));
        match self.ca.clone().or_else(|| variable("MOS_CA").map(PathBuf::from)) {
            Some(authorities) => Ok(client.trusting(&authorities)?),
            None => Ok(client),
        }
    }
}

/// The API's path of a segment; a text that is no segment id never gets into a path.
fn segment_path(id: &str, rest: &str) -> Result<String, Failure> {
    let id: SegmentId = id.parse().map_err(|e: BadSegmentId| Failure::Usage(e.to_string()))?;
    Ok(format!("/v1/segments/{id}{rest}"))
}

/// Waits for a command that asks the daemon.
fn asked(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Failure::Failed(format!("cannot start: {e}")))?.block_on(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
