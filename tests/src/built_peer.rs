//! Peers that are Cargo projects of their own below `tests/peers`: programs of others, with their own lock files, of which nothing
//! is in the workspace.
//!
//! Promise: what is built is what the lock file says, beside the build output, once, in a folder of its own, so that nobody waits for
//! the building of another; crates that cannot be fetched fail the test unless `MOS_TESTS_OFFLINE=1`, and so does a project that
//! does not build.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::onvif::peers;

/// The program of a project; `None` where its crates cannot be had and need not.
#[must_use]
pub fn built_peer(name: &str) -> Option<PathBuf> {
    let target = crate::binary_folder().parent()?.join("peers").join(name);
    let project = peers().join(name);
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(arguments).args(["--locked", "--quiet"]).current_dir(&project).stdin(Stdio::null());
        let done = command.env("CARGO_TARGET_DIR", &target).output().expect("cargo runs");
        if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
    };
    if let Err(why) = cargo(&["fetch"]) {
        crate::unavailable(&format!("the crates of {name}"), &why);
        return None;
    }
    cargo(&["build", "--offline"]).unwrap_or_else(|why| panic!("{name} does not build: {why}"));
    Some(target.join("debug").join(name))
}
