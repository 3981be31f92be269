//! Instructions of the hot paths, counted by callgrind: what they cost must not grow unnoticed (`make counts`).
//!
//! Counts, unlike times, hold on a machine with any load. Each path runs twice as a process of its own, a short and a long
//! time; the difference, divided by the units between, is free of start and end. It is compared with `baseline.toml`, which
//! names the compiler that it was made with: another compiler gives other counts, so the margin is wider with it. On another
//! architecture nothing is judged, and that is said. Then one path is made to work every second unit twice, which must be
//! found: a check that cannot fail proves nothing.
//!
//! `counts PATH UNITS` runs a path by itself, `RENEW=1` writes the baseline anew.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, reason = "a tool that talks to people")]

mod judge;
mod paths;

use std::process::{Command, ExitCode};

use judge::{Baseline, Verdict};
use paths::{PATHS, Path};

/// A path by this name works every second unit twice: the negative control.
const CONTROL: &str = "fragment";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [name, units] = arguments.as_slice() {
        let path = PATHS.iter().find(|path| path.name == name).expect("a path");
        (path.run)(units.parse().expect("a number of units"), std::env::var_os("TWICE").is_some());
        return ExitCode::SUCCESS;
    }
    let counts: Vec<(&Path, u64)> = PATHS.iter().map(|path| (path, count(path, false))).collect();
    if std::env::var_os("RENEW").is_some() {
        Baseline::of(&counts).write();
        println!("the baseline is written: look at its difference before it is committed");
        return ExitCode::SUCCESS;
    }
    let baseline = Baseline::read();
    let Some(margin) = baseline.margin() else {
        println!("NOT JUDGED: the baseline is of {}, this machine is {}", baseline.arch, std::env::consts::ARCH);
        return ExitCode::SUCCESS;
    };
    println!("instructions per unit; baseline of {}, margin {margin} %", baseline.rustc);
    let mut held = true;
    for (path, now) in &counts {
        let verdict = baseline.verdict(path.name, *now);
        held &= verdict.holds();
        println!("{:9} {now:>9} per {:22} {verdict}", path.name, path.unit);
    }
    let control = PATHS.iter().find(|path| path.name == CONTROL).expect("the control is a path");
    let verdict = baseline.verdict(CONTROL, count(control, true));
    println!("{CONTROL}, every second unit twice: {verdict}");
    if !matches!(verdict, Verdict::Grown(_)) {
        println!("error: work that was done twice was not found: this check proves nothing");
        return ExitCode::FAILURE;
    }
    if !held {
        println!(
            "error: a hot path costs more or less than what app/benches/counts/baseline.toml says. If that is meant, run \
             `RENEW=1 make counts` and commit the file with the change that is the reason."
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Instructions for one unit of a path.
fn count(path: &Path, twice: bool) -> u64 {
    let (few, many) = path.units;
    (collected(path, many, twice) - collected(path, few, twice)) / (many - few)
}

fn collected(path: &Path, units: u64, twice: bool) -> u64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe().unwrap());
    command.args([path.name, &units.to_string()]);
    // Copying by whatever this processor has would make a difference; valgrind knows none of the newest anyway.
    command.env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM").env("LC_ALL", "C");
    if twice {
        command.env("TWICE", "1");
    }
    let done = command.output().unwrap_or_else(|e| panic!("valgrind (Debian package valgrind): {e}"));
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}: {told}", path.name);
    let line = told.lines().find_map(|line| line.split_once("Collected : ")).unwrap_or_else(|| panic!("{told}"));
    line.1.trim().parse().unwrap()
}
