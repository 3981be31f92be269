//! Anything that a client of the API sends, before an operation looks at what it is about: a refusal, or what it may ask.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mos::fuzzing::request(data));
