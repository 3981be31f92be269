//! Any configuration and variables: taken, or refused in words.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mos::fuzzing::config(data));
