//! Any headers and description of a WHEP server: credentials stay with their host.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mos_hal::fuzzing::whep(data));
