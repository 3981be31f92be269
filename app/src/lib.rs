//! The services of MOS: capture, recording, archive, index, clips, snapshots, uploads, HTTP API and CLI.
//!
//! The binary `mos` is a thin shell around this library. See ARCHITECTURE.md for the way of the data.

pub mod access;
pub mod alarms;
pub mod archive;
pub mod capture;
pub mod cli;
pub mod clip;
pub mod config;
pub mod daemon;
#[cfg(any(test, feature = "demo"))]
pub mod demo;
pub mod error;
pub mod evidence;
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod index;
pub mod outputs;
pub mod pins;
pub mod power;
pub mod record;
pub mod reduce;
pub mod retention;
pub mod snapshot;
pub mod triggers;
pub mod upload;
pub mod wall_clock;
