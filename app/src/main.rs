//! The program `mos`.

fn main() {}
