//! Any answer of an ONVIF camera: no text of it steers a terminal, and nothing in it leads a request elsewhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mos_hal::fuzzing::onvif(data));
