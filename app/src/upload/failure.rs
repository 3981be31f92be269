//! Why an upload was refused at the door ([`Refused`]) or failed on its way ([`Failure`]), with kinds that stay stable.
//!
//! Texts say what, where and what to do. They never hold a credential.

use serde::{Deserialize, Serialize};

/// What went wrong with a job that had been accepted. The snake_case names are part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The server showed another host key than the pinned one. No credential was sent.
    HostKeyMismatch,
    /// The server did not accept the credential.
    AuthFailed,
    /// The server forbids the path.
    PermissionDenied,
    /// The target exists and `overwrite` was not asked for. Nothing was changed there.
    DestinationExists,
    /// The server has no room, or a quota is reached.
    ServerFull,
    /// No connection: name, route, port.
    Unreachable,
    /// The connection broke off.
    ConnectionLost,
    /// The server did not answer in time.
    TimedOut,
    /// The server holds another number of bytes than was sent.
    SizeMismatch,
    /// The server holds other bytes than were sent.
    HashMismatch,
    /// The server refuses or breaks the protocol.
    ServerError,
    /// The file could not be read, or changed while it was sent.
    SourceError,
    /// The named destination is not in the configuration any more.
    NoDestination,
    /// The daemon's own credential for the destination cannot be had: variable, file or agent.
    CredentialUnavailable,
    /// A fault of the program; the log tells more.
    Internal,
}

impl FailureKind {
    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HostKeyMismatch => "host_key_mismatch",
            Self::AuthFailed => "auth_failed",
            Self::PermissionDenied => "permission_denied",
            Self::DestinationExists => "destination_exists",
            Self::ServerFull => "server_full",
            Self::Unreachable => "unreachable",
            Self::ConnectionLost => "connection_lost",
            Self::TimedOut => "timed_out",
            Self::SizeMismatch => "size_mismatch",
            Self::HashMismatch => "hash_mismatch",
            Self::ServerError => "server_error",
            Self::SourceError => "source_error",
            Self::NoDestination => "no_destination",
            Self::CredentialUnavailable => "credential_unavailable",
            Self::Internal => "internal",
        }
    }

    /// Whether the same job may succeed later without anybody changing anything about it: the road is to blame, or the
    /// server has no room now. These alone are tried again.
    #[must_use]
    pub fn is_road_fault(self) -> bool {
        matches!(self, Self::Unreachable | Self::ConnectionLost | Self::TimedOut | Self::ServerFull)
    }
}

/// How a job failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", kind.name())]
pub struct Failure {
    /// The stable kind.
    pub kind: FailureKind,
    /// One sentence for people.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The file cannot be read.
    pub(super) fn unreadable(e: &std::io::Error) -> Self {
        Self::new(FailureKind::SourceError, format!("the file cannot be read to its end: {e}"))
    }
}

/// Why an upload was not accepted. Nothing was opened, sent or remembered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The destination cannot be used. The text never repeats the URI, which might hold a password.
    #[error("destination_uri: {0}")]
    Destination(String),
    /// No host key was pinned.
    #[error(
        "no host key is pinned for {host}: give SHA256:… as `ssh-keyscan {host} | ssh-keygen -lf -` prints it, \
         after comparing it with the server's own, or its known_hosts line"
    )]
    NoHostKey {
        /// The host.
        host: String,
    },
    /// The pin cannot be read.
    #[error("host_key: {0}")]
    HostKey(String),
    /// The credential is missing or cannot be used.
    #[error("identity: {0}")]
    Credential(String),
    /// An option is out of its range.
    #[error("options: {0}")]
    Options(String),
    /// The path names nothing that may be sent.
    #[error("path '{path}': {why}")]
    Path {
        /// The path as asked.
        path: String,
        /// What is wrong with it and what would be accepted.
        why: String,
    },
    /// The path is allowed but there is no such file.
    #[error("path '{path}': there is no such file in the archive")]
    NotFound {
        /// The path as asked.
        path: String,
    },
    /// The segment may be one of those that are not listed yet.
    #[error("path '{path}': what earlier runs left is still being listed; try again in a moment")]
    StillListing {
        /// The path as asked.
        path: String,
    },
    /// The segment is still being recorded.
    #[error("path '{path}': the segment is still open; wait until it is closed, or cut a clip of it and send that")]
    Open {
        /// The path as asked.
        path: String,
    },
    /// The segment was given up after an error, and recovery has not judged it yet.
    #[error(
        "path '{path}': the segment was given up after an error of the disk; the next start of the recorder closes what is intact of \
         it. Until then a clip of it can be cut and sent"
    )]
    Unfinished {
        /// The path as asked.
        path: String,
    },
    /// Two files of one call would get the same name.
    #[error("two of the paths would both become '{name}' at the destination; send them in separate calls")]
    SameName {
        /// The remote name.
        name: String,
    },
    /// There is no such job.
    #[error("there is no upload '{id}'")]
    NoJob {
        /// The id as asked.
        id: String,
    },
    /// The job is over; nothing can be changed.
    #[error("upload {id} is over; ask for a new one")]
    Over {
        /// The job.
        id: String,
    },
    /// The job is being carried out.
    #[error("upload {id} is on its way; it is tried again by itself if the road breaks off")]
    Running {
        /// The job.
        id: String,
    },
    /// The queue cannot be written down, and what is not durable is not promised.
    #[error("{0}")]
    NotDurable(String),
    /// Too many jobs wait.
    #[error("{waiting} uploads wait or have failed already; try again when some have ended or were cancelled")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}
