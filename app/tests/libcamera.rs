//! What the built program says of a real libcamera's cameras. Runs where the feature is built: `make libcamera`, which gives
//! the machine a virtual camera.
#![cfg(feature = "libcamera")]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use mos::capture::worker::Workers;
use mos_hal::clock::SystemClock;
use mos_hal::libcamera::{self, SurveyError};
use mos_hal::media::{AccessUnit, FrameKind, TrackFormat};
use mos_hal::platform::Transport;
use mos_hal::probe::{Options, probe};
use mos_hal::shared::Ledger;
use mos_hal::source::{SourceError, SourceSpec, UnitSink};

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

struct Sink(Sender<Result<AccessUnit, SourceError>>);

impl UnitSink for Sink {
    fn unit(&self, unit: AccessUnit) {
        let _ = self.0.send(Ok(unit));
    }
    fn ended(&self, why: SourceError) {
        let _ = self.0.send(Err(why));
    }
}

/// By `libcamerasrc`, in a process of its own: the element of libcamera 0.4 ends some of them (an assertion on its queue of
/// requests), which costs the source, never the recorder.
#[test]
fn a_camera_streams_from_a_worker() {
    let workers =
        Workers { program: MOS.into(), board: Options::default(), shared: Arc::new(Ledger::new("none", None)) };
    let open = |id: &str, sender| {
        let spec = SourceSpec::parse(&format!("libcamera:{id}?width=640&height=480")).unwrap();
        workers.open(&spec, false, Arc::new(SystemClock::new().unwrap()), Arc::new(Sink(sender)), None).unwrap()
    };
    let next = |units: &Receiver<Result<AccessUnit, SourceError>>| units.recv_timeout(Duration::from_mins(1)).unwrap();
    let run = || {
        let (sender, units) = channel();
        let lens = open("Virtual0", sender);
        let first = next(&units)?;
        assert_eq!(first.kind, FrameKind::Idr);
        assert!(matches!(&*first.format, TrackFormat::Video(v) if (v.width, v.height) == (640, 480)));
        let mut last = first.pts.unwrap();
        for _ in 0..60 {
            let unit = next(&units)?;
            assert!(unit.pts.unwrap() > last, "capture times rise");
            last = unit.pts.unwrap();
        }
        assert!(lens.request_keyframe());
        while next(&units)?.kind != FrameKind::Idr {}
        Ok::<(), SourceError>(())
    };
    let died = |e: &SourceError| matches!(e, SourceError::Broken { detail, .. } if detail.contains("SIGABRT"));
    let mut ran = run();
    for _ in 0..4 {
        match ran {
            Err(e) if died(&e) => ran = run(),
            _ => break,
        }
    }
    ran.unwrap();
    let (sender, units) = channel();
    let _absent = open("Virtual7", sender);
    let why = next(&units).unwrap_err();
    assert!(matches!(why, SourceError::Absent { .. }), "{why}");
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
