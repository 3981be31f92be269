//! Any destination with tokens and their values: no value leaves its part of the path.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mos::fuzzing::names(data));
