//! Any datagram that answers a search for cameras: words that are fit for a line, and not too many of them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mos_hal::fuzzing::discovery(data));
