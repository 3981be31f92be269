//! What the built program says of a real libcamera's cameras. Runs where the feature is built: `make libcamera`, which gives
//! the machine a virtual camera.
#![cfg(feature = "libcamera")]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;

use mos_hal::libcamera::{self, SurveyError};
use mos_hal::platform::Transport;
use mos_hal::probe::{Options, probe};

const MOS: &str = env!("CARGO_BIN_EXE_mos");

#[test]
fn a_camera_is_listed_with_modes_properties_and_controls() {
    let cameras = libcamera::ask(Path::new(MOS)).unwrap();
    let road = cameras.iter().find(|c| c.id == "Virtual0").expect("the virtual camera of .ci/libcamera");
    assert_eq!((road.model.as_deref(), road.location.as_deref()), (Some("Road"), Some("front")));
    assert_eq!(road.modes, [("NV12".to_owned(), 640, 480)]);
    assert!(road.properties.contains(&("Model".to_owned(), "Road".to_owned())), "{:?}", road.properties);
    let rate = road.controls.iter().find(|c| c.name == "FrameDurationLimits").unwrap();
    assert_eq!((rate.min.as_str(), rate.max.as_str()), ("33333", "33333"));
}

/// libcamera ends a process that makes a second manager of cameras: asking twice holds only if nobody asks in here.
#[test]
fn the_platform_lists_it_as_often_as_asked() {
    let platform = probe(&Options { worker: Some(MOS.into()), ..Options::default() });
    for _ in 0..2 {
        let devices = platform.devices();
        let road = devices.iter().find(|d| d.transport == Transport::Libcamera).unwrap();
        assert_eq!(
            (road.id.as_str(), road.name.as_str(), road.modes[0].max_fps.round() as u32),
            ("Virtual0", "Road", 30)
        );
    }
}

#[test]
fn a_program_that_does_not_answer_is_told() {
    let wrong = |program: &str| libcamera::ask(Path::new(program)).unwrap_err();
    assert!(matches!(wrong("/nonexistent"), SurveyError::Process { .. }));
    assert!(matches!(wrong("/bin/false"), SurveyError::Died { .. }));
    assert!(matches!(wrong("/bin/echo"), SurveyError::Answer(_)));
    let endless = wrong("/usr/bin/yes").to_string();
    assert!(endless.contains("does not end"), "{endless}");
}
