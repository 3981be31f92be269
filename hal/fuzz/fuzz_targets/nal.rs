//! Any access unit and any parameter set: told apart within their bytes, and sizes that a level allows.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mos_hal::fuzzing::nal(data));
