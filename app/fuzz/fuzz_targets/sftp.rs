//! Any packets of an SFTP server: bounded memory, and words that are fit for a line.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mos::fuzzing::sftp(data));
