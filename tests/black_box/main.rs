//! Black-box tests of the built `mos` binary against real peers; one file per subject.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rigs;
