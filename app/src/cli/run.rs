//! `mos run`: the daemon.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, Outcome};
use crate::config::{self, Config, TokenSource};
use crate::daemon;

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The settings; each can be set from the environment as well (MOS_STORAGE__ROOT=…)
    #[arg(long, value_name = "FILE", default_value = "/etc/mos/mos.toml")]
    config: PathBuf,
}

pub(super) fn execute(args: &RunArgs) -> Outcome {
    let tokens = TokenSource::new(&args.config, variables());
    daemon::run(settings(&args.config)?, tokens).map_err(|e| Failure::Failed(e.to_string()))
}

/// The settings in a file and the environment.
pub(super) fn settings(file: &Path) -> Result<Config, Failure> {
    config::load(file, variables()).map_err(|e| Failure::Failed(e.to_string()))
}

/// Names and values that are no text cannot be settings of MOS.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
}
