//! Evidence: whoever has a piece of footage can prove, without this machine, that it is as it was recorded, and where not.
//!
//! Every closed segment gets a link in the chain of its lens and run: the digest of its access units and their times, the hash
//! of all links before, and the signature of this device's key. A clip's manifest carries what an offline verifier needs.
//!
//! Promises:
//! - V1: links are made by a thread of their own from what is durable; recording neither waits for it nor fails by it. What fails
//!   is the alarm `evidence`.
//! - V2: what a power cut leaves is linked by the next start, and says so (`later`); a torn last link is made anew. Footage
//!   without a link is `unlinked`, never `tampered`; what was linked long after it was closed is `late`, never `intact`.
//! - V3: the key is made at the first start, readable by its owner only, and never leaves the machine.
//!
//! It never touches media. Whoever can read the key can forge: a stolen box is no witness against its thief.

pub mod chain;
pub mod digest;
pub mod joints;
pub mod judged;
mod keeper;
pub mod key;
mod ledger;
pub mod manifest;
mod past;
mod present;
#[cfg(test)]
mod tests;
mod tidy;
pub mod verify;

use std::path::PathBuf;

pub use keeper::{Counts, Evidence, ManifestFailure};

/// Why evidence cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A file cannot be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The key cannot be used.
    #[error("the device's key {} cannot be used: {reason}", path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The clip was cut while no evidence was kept.
    #[error("{0} was cut without evidence: switch [evidence] on and cut it anew")]
    NoSources(String),
    /// A segment that a clip was cut from was linked when this recorder had another key.
    #[error(
        "{0} was linked by another key, {1}: no manifest can be signed for it by this one. The segment itself is judged by \
         `mos verify FILE --key {1}`"
    )]
    OtherKey(String, String),
    /// A segment that a clip was cut from has no link yet.
    #[error("{0} is not linked yet: it is being recorded, or was closed a moment ago; try again")]
    NotYet(String),
    /// A segment that a clip was cut from is gone.
    #[error("{0} is gone or cannot be read any more, so nothing ties the clip to its chain: {1}")]
    Gone(String, String),
}
