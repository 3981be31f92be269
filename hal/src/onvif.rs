//! ONVIF: what network cameras say of themselves over SOAP, and where their streams are.
//!
//! Promises:
//! - N1: a password is sent only as a digest (HTTP Digest or WS-UsernameToken), and no error and no log holds it, a user name
//!   or what a camera put into an address.
//! - N2: everything is asked of the host that the configuration names. What a camera says of hosts is not believed: cameras
//!   behind a translated address name the wrong one, and nobody shall lead a password elsewhere.
//! - N3: an answer is bounded in size, depth of trust and time; what makes no sense is an error and never a panic.
//! - N4: a camera's clock may be wrong by any amount; tokens carry the camera's own time.
//! - N5: what is asked over TLS (`onvifs://`) is asked of a camera whose certificate is believed, and nothing of it in clear;
//!   nor is its stream fetched in clear, unless that is permitted by name.
//!
//! Facts: ONVIF Core, Media, Media2 and Event service specifications (onvif.org/profiles/specifications), WS-Discovery 1.0
//! (schemas.xmlsoap.org/ws/2005/04/discovery), WS-UsernameToken profile 1.1 (OASIS). Used by the source
//! of `onvif://`, by lists of devices and by what follows a camera's events.

mod client;
mod discovery;
mod events;
pub(crate) mod hear;
mod http;
mod identity;
mod runtime;
mod security;
mod soap;
mod survey;
mod tags;

pub use client::{Encoding, Information, Profile};
pub use discovery::Found;
pub use events::{EventKey, EventKind, EventNews, EventWatch, watch};
pub use survey::survey;

pub(crate) use client::resolve;
pub(crate) use runtime::spawn;

/// Why a camera could not be asked. Texts hold no credentials (N1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OnvifError {
    /// Nobody answers there.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// It was there and broke off.
    #[error("it broke off: {0}")]
    BrokeOff(String),
    /// It wants other credentials, or any.
    #[error("{0}")]
    Refused(String),
    /// It answered with a fault.
    #[error("{operation} failed: {reason}")]
    Fault {
        /// What was asked.
        operation: &'static str,
        /// Its words, or the HTTP status.
        reason: String,
    },
    /// It answered something that this protocol does not have.
    #[error("{operation} was answered with nonsense: {reason}")]
    Nonsense {
        /// What was asked.
        operation: &'static str,
        /// What is missing or wrong.
        reason: String,
    },
    /// It has no stream of the wanted kind.
    #[error("{0}")]
    NoStream(String),
}

/// A text of a camera as it may be shown: one line, at most 120 characters, nothing that could drive a terminal.
pub(crate) fn shown(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let plain: String = plain.take(120).collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}
