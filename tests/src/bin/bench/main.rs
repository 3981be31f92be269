//! `make bench`: one table of ours, the peer in the same run, the ratio and the limit.
//!
//! `bench [record|evidence|cameras|raw|control|clip|snapshot|segments|start|reduce|upload|bus]…` runs all or the named parts; `bench million`
//! what takes too long for that. Every part starts its own daemon on a real
//! disk (below the build output) and measures from outside: /proc, HTTP round trips, files. Peers run right after or in
//! turns with MOS, because machines drift.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints and fails by panicking"
)]

mod bus;
mod cameras;
mod clip;
mod control;
mod evidence;
mod million;
mod peers;
mod plenty;
mod raw;
mod record;
mod reduce;
mod segments;
mod snapshot;
mod start;
mod table;
mod upload;

use std::path::PathBuf;

use table::Table;

/// A part of the benchmark: its name and what measures it.
type Part = (&'static str, fn(&mut Table));

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let parts: [Part; 13] = [
        ("record", record::run),
        ("evidence", evidence::run),
        ("cameras", cameras::run),
        ("raw", raw::run),
        ("control", control::run),
        ("clip", clip::run),
        ("snapshot", snapshot::run),
        ("segments", segments::run),
        ("start", start::run),
        ("reduce", reduce::run),
        ("upload", upload::run),
        ("bus", bus::run),
        ("million", million::run),
    ];
    for name in &wanted {
        assert!(
            parts.iter().any(|(part, _)| part == name),
            "no part '{name}': record, evidence, cameras, raw, control, clip, snapshot, segments, start, reduce, upload, bus, million"
        );
    }
    let mut table = Table::default();
    for (name, part) in parts {
        if (wanted.is_empty() && name != "million") || wanted.iter().any(|w| w == name) {
            eprintln!("{name}…");
            part(&mut table);
        }
    }
    println!("{}", table::machine());
    println!("{table}");
    if table.missed() {
        std::process::exit(1);
    }
}

/// A fresh folder on the disk that holds the build output.
fn scratch(name: &str) -> PathBuf {
    let folder = mos_tests::binary_folder().parent().unwrap().join("bench").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
