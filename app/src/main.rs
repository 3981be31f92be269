//! The program `mos`.

use std::process::ExitCode;

fn main() -> ExitCode {
    mos::cli::main()
}
