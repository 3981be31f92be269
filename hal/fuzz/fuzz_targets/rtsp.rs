//! Anything that an RTSP camera sends in a session: no text holds the login or steers a terminal, and units that can be recorded.
#![no_main]

use std::panic;

// A panic is a crash, but where the session is known to survive it: in the readers of others, which give up at some descriptions.
libfuzzer_sys::fuzz_target!(
    init: {
        let crash = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let of_others = |file: &str| file.contains("/sdp-types-") || file.contains("/retina-");
            if !info.location().is_some_and(|at| of_others(at.file())) {
                crash(info);
            }
        }));
    },
    |data: &[u8]| mos_hal::fuzzing::rtsp(data)
);
