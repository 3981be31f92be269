//! The conformance suite: what every platform and every kind of source must do, written once against the traits and run on
//! doubles of every board's elements.
//!
//! Each machine runs in a process of its own, this program with `MOS_CONFORMANCE` set: GStreamer knows one set of elements per
//! process, and the doubles take their cameras and faults from the environment. `cargo test --test conformance -- NAME` runs
//! the machines whose names hold NAME.

#![allow(clippy::unwrap_used)]

mod machines;
#[path = "../rig/mod.rs"]
mod rig;
mod suite;
#[allow(dead_code, missing_docs, unreachable_pub, reason = "shared with the black-box tests")]
#[path = "../../../tests/src/board_tree.rs"]
mod tree;

use std::io::Write;
use std::process::Command;

use machines::{MACHINES, Surroundings};

const NAME: &str = "MOS_CONFORMANCE";

fn main() {
    if let Ok(name) = std::env::var(NAME) {
        let machine = MACHINES.iter().find(|m| m.name == name).expect("a machine of the table");
        return suite::run(machine, &Surroundings::given());
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Test runners ask for a list first; options of theirs are taken and mean nothing here.
    let filter = arguments.iter().find(|a| !a.starts_with('-'));
    let chosen = MACHINES.iter().filter(|m| filter.is_none_or(|f| m.name.contains(f.as_str())));
    let mut out = std::io::stdout();
    if arguments.iter().any(|a| a == "--list") {
        for machine in chosen {
            writeln!(out, "{}: test", machine.name).unwrap();
        }
        return;
    }
    let mut failed = 0;
    for machine in chosen {
        let surroundings = Surroundings::make(machine);
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.env(NAME, machine.name).env("RUST_BACKTRACE", "0").envs(surroundings.environment(machine));
        let done = child.output().unwrap();
        let verdict = if done.status.success() { "ok" } else { "FAILED" };
        writeln!(out, "test {} ... {verdict}", machine.name).unwrap();
        if !done.status.success() {
            failed += 1;
            out.write_all(&done.stdout).unwrap();
            out.write_all(&done.stderr).unwrap();
        }
    }
    assert_eq!(failed, 0, "machines that do not conform");
}
