//! What only a program can see of the doubles: signals, states, request pads, keyframes on demand.

#![allow(clippy::unwrap_used)]

use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_allocators as allocators;
use gstreamer_video as video;

fn start() {
    static START: Once = Once::new();
    START.call_once(|| {
        gst::init().unwrap();
        mos_doubles::register("qcs6490-camx,libcamerasrc").unwrap();
    });
}

/// Camera 1 is opened once at a time, and tests run side by side.
fn camera_1() -> MutexGuard<'static, ()> {
    static CAMERA: Mutex<()> = Mutex::new(());
    CAMERA.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn frames_are_dmabufs_that_cannot_be_mapped_and_caps_say_nothing_of_it() {
    start();
    let text = "qticamsrc camera=0 ! video/x-raw,format=NV12,width=640,height=480,framerate=30/1 ! fakesink name=sink signal-handoffs=true";
    let pipeline = gst::parse::launch(text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    pipeline.by_name("sink").unwrap().connect("handoff", false, move |values| {
        let buffer = values[1].get::<gst::Buffer>().unwrap();
        let pad = values[2].get::<gst::Pad>().unwrap();
        let _ = send.send((buffer, pad.current_caps()));
        None
    });
    // A camera does not preroll.
    assert_eq!(pipeline.set_state(gst::State::Paused), Ok(gst::StateChangeSuccess::NoPreroll));
    pipeline.set_state(gst::State::Playing).unwrap();
    let (buffer, caps) = receive.recv().unwrap();
    assert!(caps.unwrap().features(0).unwrap().is_equal(gst::CAPS_FEATURES_MEMORY_SYSTEM_MEMORY.as_ref()));
    assert!(buffer.peek_memory(0).is_memory_type::<allocators::DmaBufMemory>());
    assert!(buffer.map_readable().is_err(), "a camera's pixels were mapped");
    assert!(buffer.meta::<video::VideoMeta>().is_some());
    let (next, _) = receive.recv().unwrap();
    assert!(next.pts() > buffer.pts());
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn the_image_pad_is_silent_until_a_picture_is_asked_for() {
    start();
    let _mine = camera_1();
    let text = "qticamsrc name=camera camera=1 camera.video_0 ! video/x-raw,format=NV12,width=640,height=480,framerate=30/1 ! \
                fakesink name=video signal-handoffs=true camera.image_1 ! image/jpeg,width=640,height=480 ! \
                fakesink name=image signal-handoffs=true async=false";
    let pipeline = gst::parse::launch(text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    for name in ["video", "image"] {
        let send = send.clone();
        pipeline.by_name(name).unwrap().connect("handoff", false, move |values| {
            let _ = send.send((name, values[1].get::<gst::Buffer>().unwrap()));
            None
        });
    }
    pipeline.set_state(gst::State::Playing).unwrap();
    for _ in 0..15 {
        assert_eq!(receive.recv().unwrap().0, "video");
    }
    let camera = pipeline.by_name("camera").unwrap();
    let signal = glib::subclass::SignalId::lookup("capture-image", camera.type_()).unwrap();
    let types = signal.query().param_types().iter().map(glib::subclass::SignalType::type_).collect::<Vec<_>>();
    let still = glib::EnumClass::with_type(types[0]).unwrap().to_value(1).unwrap();
    let none = glib::Value::from_type(types[2]);
    let taken = camera.emit_by_name_with_values("capture-image", &[still, 1_u32.to_value(), none]);
    assert!(taken.unwrap().get::<bool>().unwrap());
    let picture = receive.iter().find(|r| r.0 == "image").unwrap().1;
    assert!(picture.map_readable().unwrap().starts_with(&[0xff, 0xd8]));
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_camera_that_nobody_has_cannot_be_opened_by_name() {
    start();
    let element = gst::ElementFactory::make("libcamerasrc").build().unwrap();
    assert!(element.find_property("camera-name").is_some() && element.find_property("camera").is_none());
    // Without cameras the element cannot become READY, whatever its name.
    element.set_property("camera-name", "/base/nobody");
    assert!(element.set_state(gst::State::Ready).is_err());
    element.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_camera_is_chosen_before_it_is_opened() {
    start();
    let camera = gst::ElementFactory::make("qticamsrc").property("camera", 3_u32).build().unwrap();
    let pipeline = gst::Pipeline::new();
    pipeline.add(&camera).unwrap();
    // There is no camera 3 by default, and the element says nothing of it.
    assert!(pipeline.set_state(gst::State::Ready).is_err());
    assert!(pipeline.bus().unwrap().pop_filtered(&[gst::MessageType::Error]).is_none());
    pipeline.set_state(gst::State::Null).unwrap();
    camera.set_property("camera", 0_u32);
    // Another test of this process may have camera 0 for a while.
    let end = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while pipeline.set_state(gst::State::Ready).is_err() {
        pipeline.set_state(gst::State::Null).unwrap();
        assert!(std::time::Instant::now() < end);
        std::thread::yield_now();
    }
    camera.set_property("camera", 1_u32);
    let said = pipeline.bus().unwrap().pop_filtered(&[gst::MessageType::Error]);
    let Some(gst::MessageView::Error(e)) = said.as_ref().map(|m| m.view()) else { panic!("nothing was said") };
    assert!(e.error().message().contains("camera = 1: cannot be changed in Ready"), "{}", e.error());
    assert_eq!(camera.property::<u32>("camera"), 0, "the old value stays");
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_keyframe_comes_when_it_is_asked_for() {
    start();
    let text = "videotestsrc is-live=true ! video/x-raw,format=NV12,width=320,height=240,framerate=30/1 ! \
                qtic2venc name=encoder ! h264parse ! fakesink name=sink signal-handoffs=true sync=false";
    let pipeline = gst::parse::launch(text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    pipeline.by_name("sink").unwrap().connect("handoff", false, move |values| {
        let buffer = values[1].get::<gst::Buffer>().unwrap();
        let _ = send.send(!buffer.flags().contains(gst::BufferFlags::DELTA_UNIT));
        None
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    assert!(receive.recv().unwrap(), "the first frame is a keyframe");
    for _ in 0..20 {
        assert!(!receive.recv().unwrap(), "idr-interval is -1: no more keyframes");
    }
    let encoder = pipeline.by_name("encoder").unwrap();
    encoder
        .static_pad("src")
        .unwrap()
        .send_event(video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
    assert!(receive.iter().take(60).any(|key| key));
    // Changes while it plays act.
    encoder.set_property("idr-interval", 1_i32);
    assert!(receive.iter().skip(5).take(5).all(|key| key));
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_camera_is_opened_once_at_a_time_and_again_after_it_was_closed() {
    start();
    let _mine = camera_1();
    let make = || {
        let camera = gst::ElementFactory::make("qtiqmmfsrc").property("camera", 1_u32).build().unwrap();
        let pipeline = gst::Pipeline::new();
        pipeline.add(&camera).unwrap();
        (pipeline, camera)
    };
    // The other test of this process that opens camera 1 may hold it for a while.
    let ((first, _), (second, camera)) = (make(), make());
    let end = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while first.set_state(gst::State::Ready).is_err() {
        first.set_state(gst::State::Null).unwrap();
        assert!(std::time::Instant::now() < end);
        std::thread::yield_now();
    }
    assert!(second.set_state(gst::State::Ready).is_err());
    second.set_state(gst::State::Null).unwrap();
    first.set_state(gst::State::Null).unwrap();
    let pad = camera.request_pad_simple("video_%u").unwrap();
    assert_eq!(pad.name(), "video_0");
    assert!(pad.has_property("extra-buffers"));
    camera.release_request_pad(&pad);
    assert!(camera.pads().is_empty());
}
