//! Any media times and arrivals: what is in order comes out in order.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mos::fuzzing::timeline(data));
