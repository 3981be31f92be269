//! What the peers have in common: running them and taking their time.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Milliseconds that `work` takes.
pub(crate) fn milliseconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e3
}

/// Runs a program to its end; it must succeed.
pub(crate) fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "{program} {args:?}");
}

/// Makes a file durable.
pub(crate) fn fsync(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}
