//! A job as the API shows it: its id, where it stands, and what came of it. Holds no credential.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::failure::FailureKind;

/// A job's name, stable and never used again: 8 random hex digits of the daemon's life, a hyphen and a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct JobId(pub String);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who goes first when several jobs wait for the same server.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// When nothing else waits.
    Background,
    /// In the order in which they were asked for.
    #[default]
    Normal,
    /// Clips of events, before all others.
    Event,
}

/// Where a job stands: `queued`, `connecting`, `transferring`, `verifying`, then an end. A fault of the road is `failed`
/// with the time of the next try, after which the job goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JobState {
    /// Waits for its turn; one job at a time goes to each server.
    Queued,
    /// The credential came with the call and was forgotten when the daemon ended; retry with a new one.
    NeedsCredentials,
    /// Name, TCP, host key, login.
    Connecting,
    /// On its way.
    Transferring {
        /// Bytes that the server acknowledged.
        bytes: u64,
        /// Bytes of the file.
        total: u64,
        /// Bytes per second over the last seconds.
        rate: u64,
    },
    /// Everything is acknowledged; size check, hash check, sync, rename.
    Verifying,
    /// It lies under its final name, with the right size.
    Done {
        /// The path at the server.
        remote_path: String,
        /// Bytes.
        bytes: u64,
        /// SHA-256 of the bytes that were sent, hex.
        sha256: String,
        /// Whether the server confirmed that the bytes are on its disk (`fsync@openssh.com`).
        synced: bool,
    },
    /// It does not lie under its final name.
    Failed {
        /// The stable kind.
        kind: FailureKind,
        /// One sentence for people.
        message: String,
        /// When it is tried again, UTC microseconds by the clock of the daemon; null: only when somebody asks for it.
        next_try_ts: Option<i64>,
    },
    /// Somebody called it off.
    Cancelled,
}

impl JobState {
    /// The stable names of all states.
    pub const NAMES: [&'static str; 8] =
        ["queued", "needs_credentials", "connecting", "transferring", "verifying", "done", "failed", "cancelled"];

    /// The stable name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let at = match self {
            Self::Queued => 0,
            Self::NeedsCredentials => 1,
            Self::Connecting => 2,
            Self::Transferring { .. } => 3,
            Self::Verifying => 4,
            Self::Done { .. } => 5,
            Self::Failed { .. } => 6,
            Self::Cancelled => 7,
        };
        Self::NAMES[at]
    }

    /// Whether nothing follows unless somebody asks for it.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed { next_try_ts: None, .. } | Self::Cancelled)
    }

    /// Whether a try is under way.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Connecting | Self::Transferring { .. } | Self::Verifying)
    }

    /// Whether the job is over for good, so that its file need not be kept.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Cancelled)
    }
}

/// One job. What `GET /uploads/{id}` and each server-sent event show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The id that all jobs of one call share.
    pub group: String,
    /// What is sent, relative to the archive's root.
    pub path: String,
    /// Where to, without credentials: `sftp://user@host:port/path`.
    pub destination: String,
    /// What the wall clock was worth when times of the file got into its name: `unset`, `rtc`, `ntp` or `gnss`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<String>,
    /// Who goes first.
    pub priority: Priority,
    /// Where it stands.
    #[serde(flatten)]
    pub state: JobState,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_those_of_the_wire() {
        let failed = JobState::Failed { kind: FailureKind::TimedOut, message: String::new(), next_try_ts: Some(1) };
        let done = JobState::Done { remote_path: String::new(), bytes: 1, sha256: String::new(), synced: true };
        let moving = JobState::Transferring { bytes: 1, total: 2, rate: 3 };
        for state in [
            JobState::Queued,
            JobState::NeedsCredentials,
            JobState::Connecting,
            moving,
            JobState::Verifying,
            done,
            failed,
            JobState::Cancelled,
        ] {
            assert_eq!(serde_json::to_value(&state).unwrap()["state"], state.name());
            assert!(JobState::NAMES.contains(&state.name()));
        }
    }
}
