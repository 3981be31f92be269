//! Long runs of the built daemon: network cameras in random trouble, and eight cameras with everything that is asked of a recorder.
//!
//! `make soak MINUTES=n CAMERAS=n` runs both, one after the other, on the release build; `ONLY=trouble` or `ONLY=service` one of
//! them, `SEED` another schedule. They are no part of `make test`: each kind of trouble has a test of its own there
//! (`black_box/faults.rs`), and a leak shows over minutes only.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "rigs fail by panicking, tables are printed"
)]

mod accounts;
mod figures;
mod injector;
mod service;
mod trouble;

use std::time::Duration;

/// The longest wait for anything: a camera whose circuit opened is left alone for a minute.
const LONG: Duration = Duration::from_mins(4);

/// A number from the environment.
fn given(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} wants a number")))
}

fn lens(camera: usize) -> String {
    format!("lens{camera}")
}
