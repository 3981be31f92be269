//! Black-box tests of the built `mos` binary against real peers; one file per subject.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench_page;
mod boards;
mod cameras;
mod capture;
mod clips;
mod clocks;
mod commands;
mod degradation;
mod disorder;
mod documents;
mod encrypted;
mod faults;
mod footage;
mod frames;
mod full_disk;
mod kernel_errors;
mod kills;
mod layers;
mod onvif;
mod onvif_events;
mod open_gops;
mod power;
mod probe;
mod quirks;
mod read_only;
mod reduce;
mod rigs;
mod roles;
mod rotation;
mod secrets;
mod settings;
mod siege;
mod snapshots;
mod sound;
mod srt;
mod stopping;
mod strangers;
mod streams;
mod tokens;
mod transports;
mod trees;
mod uploads;
mod vanished;
mod watchdog;
#[cfg(feature = "whep")]
mod whep;
