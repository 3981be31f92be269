//! Any messages of a worker: taken or refused, and texts that are fit for a line.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mos::fuzzing::worker(data));
