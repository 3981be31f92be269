//! Any media times and arrivals: what is in order comes out in order.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mos_hal::fuzzing::timeline(data));
