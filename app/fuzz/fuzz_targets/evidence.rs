//! Any chain or manifest with any file: a verdict, and never a good one by a key that signed nothing.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mos::fuzzing::evidence(data));
