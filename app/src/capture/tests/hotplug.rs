//! Devices that come and go in simulated time: promise K8.

use mos_hal::source::RawOptions;
use tokio::sync::broadcast::error::TryRecvError;

use super::*;

fn camera(n: usize) -> SourceSpec {
    SourceSpec::V4l2 { device: format!("/dev/v4l/by-path/port{n}-video-index0").into(), options: RawOptions::default() }
}

impl Rig {
    fn is(&self, lens: usize, presence: Presence) {
        lock(&self.platform.presence).insert(self.names[lens].clone(), presence);
        self.service.devices_changed();
        self.service.step();
    }
}

#[test]
fn k8_a_camera_that_is_plugged_in_is_tried_at_once_as_soon_as_it_may_be_opened() {
    let rig = rig_of(vec![(0..8).map(|_| Outcome::Fails(absent())).collect()], camera);
    rig.service.step();
    rig.is(0, Presence::Gone);
    // Until the delays have grown: the next attempt is far away.
    rig.pass(60, &[]);
    let opened = || rig.service.status()[0].reconnects;
    while opened() < 8 {
        rig.pass(1, &[]);
    }
    lock(&rig.platform.scripts).get_mut(&rig.names[0]).unwrap().push_front(Outcome::Fails(absent()));
    while opened() < 9 {
        rig.pass(1, &[]);
    }
    rig.is(0, Presence::Barred);
    assert_eq!((rig.state(0), opened()), (CaptureState::Absent, 9), "udev has not given it to us yet");
    rig.is(0, Presence::Here);
    rig.service.step();
    assert_eq!((rig.state(0), opened()), (CaptureState::Connecting, 10), "in the same moment");
    rig.unit(0);
    rig.service.step();
    assert_eq!(rig.state(0), CaptureState::Streaming);
}

#[test]
fn k8_a_camera_that_is_pulled_out_is_absent_at_once_and_the_others_do_not_notice() {
    let rig = rig_of(vec![vec![], vec![]], camera);
    rig.service.step();
    rig.pass(2, &[0, 1]);
    rig.is(0, Presence::Gone);
    assert_eq!((rig.state(0), rig.state(1)), (CaptureState::Absent, CaptureState::Streaming));
    assert_eq!(*lock(&rig.platform.dropped), [rig.names[0].clone()]);
    assert_eq!(rig.causes(0), [(GapCause::CameraAbsent, 2)]);
    let status = rig.service.status().remove(0);
    assert!(status.last_error.unwrap().0.ends_with("is absent: the device was removed"));
    assert_eq!(status.breaker.failures, 0, "absence is no failure");
    // The same port again is the same lens.
    rig.is(0, Presence::Here);
    rig.pass(1, &[0, 1]);
    assert_eq!(rig.state(0), CaptureState::Streaming);
    assert_eq!(rig.service.status()[1].reconnects, 0);
}

#[test]
fn k8_a_stopped_lens_and_a_network_camera_do_not_care() {
    let rig = rig_of(vec![vec![], vec![]], |n| match n {
        0 => camera(0),
        _ => SourceSpec::parse("rtsp://192.0.2.1/stream").unwrap(),
    });
    rig.service.step();
    rig.pass(1, &[0, 1]);
    rig.service.stop_capture(&LensId::new("lens0").unwrap()).unwrap();
    rig.is(0, Presence::Gone);
    rig.is(0, Presence::Here);
    rig.is(1, Presence::Gone);
    assert_eq!((rig.state(0), rig.state(1)), (CaptureState::Idle, CaptureState::Streaming));
}

#[test]
fn followers_hear_of_devices_once_it_is_quiet() {
    let rig = rig_of(vec![vec![]], camera);
    let (_, mut news) = rig.service.follow();
    rig.is(0, Presence::Barred);
    rig.is(0, Presence::Here);
    rig.service.step();
    rig.service.step();
    let told: Vec<News> = std::iter::from_fn(|| match news.try_recv() {
        Ok(told) => Some(told),
        Err(TryRecvError::Empty) => None,
        Err(e) => panic!("{e}"),
    })
    .collect();
    assert_eq!(told.iter().filter(|told| matches!(told, News::Devices(_))).count(), 1, "{told:?}");
    assert_eq!(rig.service.device_changes(), 2);
}
