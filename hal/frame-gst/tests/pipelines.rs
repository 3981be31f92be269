//! `mosframesrc` in real pipelines: as a plugin of `gst-launch-1.0` in a process of its own, and linked in.
#![allow(clippy::unwrap_used)]

#[path = "../../frame/tests/common/mod.rs"]
mod common;

use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Camera, HEIGHT, Process, WIDTH, distrusting, settings, wait_for};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_allocators::{DmaBufMemory, FdMemory};
use gstreamer_app::AppSink;
use mos_frame::{HANDOVER, MemoryKind, Picture, Settings, sys};

/// A frame, tightly packed.
const SIZE: usize = (WIDTH * HEIGHT * 3 / 2) as usize;

/// `gst-launch-1.0` with our plugin and GStreamer's core elements, and no others.
fn launch(folder: &Path, pipeline: &str) -> Child {
    gst::init().unwrap();
    let plugins = folder.join("plugins");
    if std::fs::create_dir(&plugins).is_ok() {
        let ours = std::env::current_exe().unwrap().with_file_name("libmos_frame_gst.so");
        assert!(ours.exists(), "{} is not built", ours.display());
        let core = gst::Registry::get().find_plugin("coreelements").unwrap().filename().unwrap();
        for library in [ours, core] {
            std::os::unix::fs::symlink(&library, plugins.join(library.file_name().unwrap())).unwrap();
        }
    }
    let mut command = Command::new("gst-launch-1.0");
    command.args(["-q", "--no-fault"]).args(pipeline.split_whitespace());
    command.env("GST_PLUGIN_PATH", &plugins).env("GST_PLUGIN_SYSTEM_PATH", &plugins);
    command.env("GST_REGISTRY", folder.join("registry.bin")).current_dir(folder);
    command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A picture, if anybody is there for it, and no sooner than a busy machine takes them: of numbers that go round the judge sees the
/// order only if no reader misses 128 of them.
fn shoot(camera: &mut Camera) {
    std::thread::sleep(Duration::from_millis(10));
    if camera.publisher.wanted() {
        camera.shoot();
    }
}

/// Publishes until a process has ended; gives what it said of errors.
fn shoot_until_end(camera: &mut Camera, process: Child) -> (bool, String) {
    let mut process = Process(process);
    while process.0.try_wait().unwrap().is_none() {
        shoot(camera);
    }
    let status = process.0.wait().unwrap();
    let said = std::io::read_to_string(process.0.stderr.take().unwrap()).unwrap();
    (status.success(), said)
}

/// Judges raw pictures: of one size, each of one frame, in order. Gives their numbers modulo 256.
fn judge(file: &Path, size: usize, count: usize) -> Vec<u8> {
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(bytes.len(), size * count, "{count} pictures of {size} bytes");
    let number = |picture: &[u8]| {
        assert!(picture.iter().all(|byte| *byte == picture[0]), "torn, or padding among the pixels");
        picture[0]
    };
    let numbers: Vec<u8> = bytes.chunks(size).map(number).collect();
    // Numbers go round: a step back would be a step of nearly 256.
    assert!(numbers.windows(2).all(|pair| (1..128).contains(&pair[1].wrapping_sub(pair[0]))), "{numbers:?}");
    numbers
}

/// A pipeline in another process takes 40 pictures.
fn pictures(settings: Settings, picture: Picture, middle: &str) {
    let folder = settings.socket.parent().unwrap().to_owned();
    let size = (picture.width * picture.height * 3 / 2) as usize;
    let buffers = settings.lease_budget + HANDOVER + 1;
    let mut camera = Camera::open(settings, buffers);
    camera.picture = picture;
    let source = "mosframesrc lens=road directory=. num-buffers=40";
    let process = launch(&folder, &format!("{source} {middle} ! filesink location=out"));
    let (good, said) = shoot_until_end(&mut camera, process);
    assert!(good, "{said}");
    judge(&folder.join("out"), size, 40);
    camera.await_peers(0);
    camera.all_back();
}

#[test]
fn a_plugin_gives_the_cameras_pictures() {
    let (_folder, settings) = settings();
    pictures(settings, Picture::nv12(WIDTH, HEIGHT, WIDTH), "");
}

#[test]
fn users_who_are_not_trusted_get_pictures_too() {
    let (_folder, settings) = distrusting();
    pictures(settings, Picture::nv12(WIDTH, HEIGHT, WIDTH), "");
}

#[test]
fn padding_is_no_pixels_to_those_who_know_no_strides() {
    let (_folder, settings) = settings();
    pictures(settings, Picture::nv12(WIDTH - 16, HEIGHT, WIDTH), "! video/x-raw,format=NV12,width=48,height=48");
}

/// Far more frames than there are leases wait in the pipeline before the first is freed.
#[test]
fn a_pipeline_that_keeps_frames_does_not_stop() {
    let (_folder, settings) = settings();
    let queue = "! queue min-threshold-buffers=20 max-size-buffers=30 max-size-time=0 max-size-bytes=0";
    // Leases must not end by time while the frames lie in the queue, however slow this machine.
    let settings = Settings { lease_time: Duration::from_secs(100), lease_budget: 8, ..settings };
    pictures(settings, Picture::nv12(WIDTH, HEIGHT, WIDTH), queue);
}

#[test]
fn the_source_follows_a_camera_that_is_opened_anew_and_a_publisher_that_comes_back() {
    let (folder, settings) = settings();
    let source = "mosframesrc socket=road.sock num-buffers=300 ! filesink buffer-mode=unbuffered location=out";
    // It may be there before its publisher.
    let mut process = Process(launch(folder.path(), source));
    let mut camera = Camera::open(settings.clone(), 6);
    let wait = |camera: &mut Camera, least: u64| {
        wait_for("frames", || {
            shoot(camera);
            camera.publisher.totals().delivered >= least
        });
    };
    wait(&mut camera, 20);
    camera.renew();
    wait(&mut camera, 40);
    let sequence = camera.sequence;
    drop(camera);
    let mut camera = Camera::open(settings, 6);
    camera.sequence = sequence;
    wait_for("the end", || {
        shoot(&mut camera);
        process.0.try_wait().unwrap().is_some()
    });
    assert!(process.0.wait().unwrap().success());
    judge(&folder.path().join("out"), SIZE, 300);
}

#[test]
fn without_reconnecting_the_stream_ends_with_its_publisher() {
    let (folder, settings) = settings();
    let source = "mosframesrc socket=road.sock reconnect=false";
    let process = launch(folder.path(), &format!("{source} ! fakesink"));
    let absent = process.wait_with_output().unwrap();
    let said = String::from_utf8(absent.stderr).unwrap();
    assert!(!absent.status.success() && said.contains("road.sock: No such file"), "{said}");
    let mut camera = Camera::open(settings, 6);
    let process = launch(folder.path(), &format!("{source} ! filesink buffer-mode=unbuffered location=out"));
    wait_for("frames", || {
        camera.shoot();
        camera.publisher.totals().delivered > 5
    });
    drop(camera);
    let ended = process.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

/// A publisher that is stuck holds no pipeline.
#[test]
fn a_pipeline_stops_while_its_source_connects() {
    gst::init().unwrap();
    mos_frame_gst::register().unwrap();
    let (_folder, settings) = settings();
    let stuck = sys::listen(&settings.socket, 0o600, 1).unwrap();
    // What the source gave up by: it was told to, or had waited for too long.
    let (sender, said) = std::sync::mpsc::channel();
    gst::log::set_threshold_for_name("mosframesrc", gst::DebugLevel::Info);
    let listening = gst::log::add_log_function(move |category, _, _, _, _, _, message| {
        if category.name() == "mosframesrc" {
            let _ = sender.send(message.get().map(|text| text.to_string()).unwrap_or_default());
        }
    });
    let text = format!("mosframesrc name=source socket={} ! fakesink", settings.socket.display());
    let pipeline = gst::parse::launch(&text).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    // It has connected, and waits for an answer that never comes.
    assert!(sys::wait(&[stuck.as_fd()], Some(Duration::from_mins(1))).unwrap(), "nobody connects within a minute");
    pipeline.set_state(gst::State::Null).unwrap();
    gst::log::remove_log_function(listening);
    // Others in this process have sockets, too.
    let socket = settings.socket.display().to_string();
    let said: Vec<String> = said.try_iter().filter(|text| text.contains(&socket)).collect();
    let told = std::io::ErrorKind::Interrupted.to_string();
    assert!(said.len() == 1 && said[0].contains(&told), "{said:?}");
}

/// Linked in: memory, caps and times of what the pipeline gets, and that frames go back when it is done with them.
fn linked_in(kind: MemoryKind, filter: &str) {
    gst::init().unwrap();
    mos_frame_gst::register().unwrap();
    let (_folder, settings) = settings();
    let socket = settings.socket.clone();
    // What is held here must not come back by time.
    let settings = Settings { lease_time: Duration::from_secs(100), ..settings };
    let mut camera = Camera::of(kind, settings, 6);
    let text = format!("mosframesrc name=source socket={} ! {filter} ! appsink name=out sync=false", socket.display());
    let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let sink: AppSink = pipeline.by_name("out").unwrap().downcast().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    camera.await_peers(1);
    let mut last = None;
    for _ in 0..20 {
        let sent = camera.shoot();
        let sample = sink.try_pull_sample(gst::ClockTime::from_seconds(120)).expect("a frame in two minutes");
        let (buffer, caps) = (sample.buffer().unwrap(), sample.caps().unwrap());
        assert_eq!(buffer.offset(), sent);
        let memory = buffer.peek_memory(0);
        let dmabuf = memory.is_memory_type::<DmaBufMemory>();
        assert_eq!((dmabuf, memory.is_memory_type::<FdMemory>()), (kind == MemoryKind::Dmabuf, true));
        assert_eq!(caps.features(0).unwrap().contains("memory:DMABuf"), filter.contains("DMABuf"), "{caps}");
        let meta = buffer.meta::<gst::ReferenceTimestampMeta>().unwrap();
        assert_eq!(buffer.pts().unwrap(), meta.timestamp().saturating_sub(pipeline.base_time().unwrap()));
        assert!(meta.timestamp().nseconds() <= mos_frame::sys::monotonic());
        let map = buffer.map_readable().unwrap();
        assert_eq!(map.as_slice(), vec![sent as u8; SIZE]);
        assert!(last.replace(buffer.pts()) < Some(buffer.pts()));
    }
    let source = pipeline.by_name("source").unwrap();
    let stats = source.property::<gst::Structure>("stats");
    let count = |name: &str| stats.get::<u64>(name).unwrap();
    assert_eq!((count("frames"), count("copied"), count("void"), count("stale")), (20, 0, 0, 0), "{stats}");
    pipeline.set_state(gst::State::Null).unwrap();
    drop((sink, pipeline, source));
    camera.await_peers(0);
    camera.all_back();
    assert_eq!(camera.publisher.totals().revoked, 0);
}

#[test]
fn frames_come_where_they_lie_with_the_time_of_their_capture() {
    linked_in(MemoryKind::Memfd, "video/x-raw,format=NV12");
    linked_in(MemoryKind::Dmabuf, "video/x-raw,format=NV12");
    linked_in(MemoryKind::Dmabuf, "video/x-raw(memory:DMABuf)");
}
