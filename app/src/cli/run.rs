//! `mos run`: the daemon.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Outcome};
use crate::{config, daemon};

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The settings; each can be set from the environment as well (MOS_STORAGE__ROOT=…)
    #[arg(long, value_name = "FILE", default_value = "/etc/mos/mos.toml")]
    config: PathBuf,
}

pub(super) fn execute(args: &RunArgs) -> Outcome {
    // Names and values that are no text cannot be settings of MOS.
    let variables = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let config = config::load(&args.config, variables).map_err(|e| Failure::Failed(e.to_string()))?;
    daemon::run(config).map_err(|e| Failure::Failed(e.to_string()))
}
