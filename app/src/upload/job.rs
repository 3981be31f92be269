//! A job as the API shows it: its id, where it stands, and what came of it. Holds no credential.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::failure::{Failure, FailureKind};

/// A job's name, stable and never used again: 8 random hex digits of the daemon's life, a hyphen and a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct JobId(pub String);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a job stands. Only forwards, in this order; `done` and `failed` are the ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JobState {
    /// Waits for its turn; one job at a time goes to each destination.
    Queued,
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
    /// Everything is acknowledged; size check, sync, rename.
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
    },
}

impl JobState {
    /// Whether nothing follows.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed { .. })
    }
}

impl From<Failure> for JobState {
    fn from(f: Failure) -> Self {
        Self::Failed { kind: f.kind, message: f.message }
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
    /// Where it stands.
    #[serde(flatten)]
    pub state: JobState,
}
