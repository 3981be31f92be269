//! Uploads over a bad road and to bad servers: a fault proxy and real `sshd`s around the built daemon.
//!
//! `N=1000 cargo test -p mos-tests --test road -- --nocapture` is the long form (`make road N=1000`), `SEED` another schedule.
#![allow(clippy::unwrap_used, missing_docs)]

mod cargo;
mod kills;
mod servers;
mod soak;
