//! `mos demo`: the whole recorder shown on throw-away cameras and a throw-away server (cargo feature `demo`).
//!
//! [`story::tell`] runs it: a real daemon as a child process, a camera over real RTSP, a real SFTP server, everything asked
//! through the API as any client would. It succeeds only if every step held. [`stage`] builds what it plays on and clears it
//! away again, [`recorder`] starts, kills and stops the daemon, [`judge`] looks at files without trusting the daemon, [`kill`]
//! at what a kill costs.

#[cfg(feature = "demo")]
mod judge;
#[cfg(feature = "demo")]
mod kill;
#[cfg(feature = "demo")]
mod listing;
#[cfg(feature = "demo")]
mod recorder;
pub mod sftp_server;
#[cfg(feature = "demo")]
mod stage;
#[cfg(feature = "demo")]
pub mod story;

/// Why the demo did not hold. The texts are for people.
#[cfg(feature = "demo")]
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The stage could not be built.
    #[error("cannot {what}: {reason}")]
    Stage {
        /// What was tried.
        what: String,
        /// What the system said.
        reason: String,
    },
    /// The recorder ended by itself.
    #[error("the recorder ended by itself ({status}); the end of its log:\n{log}")]
    Ended {
        /// How.
        status: String,
        /// Its last lines.
        log: String,
    },
    /// Something did not come to pass in time.
    #[error("{what} did not happen within {seconds} s; the end of the recorder's log:\n{log}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// Its last lines.
        log: String,
    },
    /// A camera does not deliver.
    #[error("no footage of {lens}: {why}")]
    NoFootage {
        /// The lens.
        lens: String,
        /// What the recorder says about it.
        why: String,
    },
    /// A promise was broken.
    #[error("not held: {0}")]
    NotHeld(String),
    /// The API refused a step.
    #[error("{step}: {error}")]
    Api {
        /// What was asked for.
        step: &'static str,
        /// The answer.
        error: crate::cli::client::ClientError,
    },
    /// Somebody pressed Ctrl-C.
    #[error("interrupted; everything was cleared away")]
    Interrupted,
}

#[cfg(feature = "demo")]
impl DemoError {
    /// Adds what was tried to an error of the system.
    pub(crate) fn stage(what: &str, reason: &impl ToString) -> Self {
        Self::Stage { what: what.to_owned(), reason: reason.to_string() }
    }
}
