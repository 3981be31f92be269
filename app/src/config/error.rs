//! Why a configuration is refused. One line each; no credentials.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use nix::errno::Errno;

/// Where a setting stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of the file, from 1.
    Line(PathBuf, usize),
    /// An environment variable.
    Variable(String),
    /// Nowhere: the file does not have it.
    File(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(file, line) => write!(f, "{}:{line}", file.display()),
            Self::Variable(name) => write!(f, "environment variable {}", plain(name)),
            Self::File(file) => write!(f, "{}", file.display()),
        }
    }
}

/// Whether an error of reading says nothing of what was to be read, and may pass by itself.
pub(super) fn passes(e: &io::Error) -> bool {
    use Errno::{EAGAIN, EINTR, EIO, EMFILE, ENFILE, ENOMEM, ESTALE, ETIMEDOUT};
    let passing = [EAGAIN, EINTR, EIO, EMFILE, ENFILE, ENOMEM, ESTALE, ETIMEDOUT];
    e.raw_os_error().is_some_and(|errno| passing.contains(&Errno::from_raw(errno)))
}

/// What somebody wrote, made fit for a line of ours: it may not steer a terminal.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        reason: String,
        /// It says nothing of the file, and may pass by itself: the system is short of something, or a device failed.
        passes: bool,
    },
    /// The file is no TOML.
    #[error("{place}: not valid TOML: {}", plain(reason))]
    Syntax {
        /// The line.
        place: Place,
        /// What the parser said; it quotes no values.
        reason: String,
    },
    /// A key that MOS does not know.
    #[error("{place}: unknown key {}; accepted: {accepted}", plain(key))]
    UnknownKey {
        /// Where it stands.
        place: Place,
        /// The key with its section.
        key: String,
        /// The keys that are known there.
        accepted: String,
    },
    /// A value that cannot be used.
    #[error("{place}: {}{}; accepted: {accepted}", plain(key), found.as_ref().map_or_else(|| " is refused".to_owned(), |v| format!(" = {} is refused", plain(v))))]
    BadValue {
        /// Where it stands.
        place: Place,
        /// The key with its section.
        key: String,
        /// The value, unless it may hold credentials.
        found: Option<String>,
        /// What would be accepted.
        accepted: String,
    },
    /// A key that must be there and is not.
    #[error("{place}: {} is missing; accepted: {accepted}", plain(key))]
    Missing {
        /// The section, or the file.
        place: Place,
        /// The key with its section.
        key: String,
        /// What would be accepted.
        accepted: String,
    },
}

impl ConfigError {
    pub(super) fn unreadable(file: &Path, e: &io::Error) -> Self {
        Self::Unreadable { file: file.to_owned(), reason: e.to_string(), passes: passes(e) }
    }
}
