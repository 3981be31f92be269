//! Live frames reach other processes, from raw and coded cameras, and whoever reads them costs the recording nothing.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::cli;
use mos_tests::daemon::{Daemon, Setup};
use mos_tests::judge::accounts::causes;
use mos_tests::judge::ffmpeg;
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const LONG: Duration = Duration::from_mins(3);
const ROAD: &str = "test:?width=320&height=240&fps=25&gop=25";

pub(super) fn reader_in_python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../hal/frame/examples/subscriber.py")
}

/// `gst-launch-1.0` with our plugin beside GStreamer's own; `pipeline` has no spaces but between its words.
fn launch(folder: &Path, pipeline: &str) -> Command {
    let library = std::env::current_exe().unwrap().with_file_name("libmos_frame_gst.so");
    assert!(library.exists(), "{} is not built", library.display());
    let plugins = folder.join("plugins");
    if std::fs::create_dir(&plugins).is_ok() {
        std::os::unix::fs::symlink(&library, plugins.join("libmos_frame_gst.so")).unwrap();
    }
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q").args(pipeline.split_whitespace());
    command.env("GST_PLUGIN_PATH", &plugins).env("GST_REGISTRY", folder.join("registry.bin"));
    command
}

pub(super) fn on_the_bus(daemon: &Daemon, lens: &str) -> Value {
    let view = daemon.client.get("/v1/frames").ok();
    let lenses = view["lenses"].as_array().unwrap();
    lenses.iter().find(|view| view["lens"] == lens).unwrap_or_else(|| panic!("no {lens} in {view}")).clone()
}

fn subscribers(daemon: &Daemon, lens: &str) -> usize {
    on_the_bus(daemon, lens)["subscribers"].as_array().unwrap().len()
}

#[test]
fn the_next_lens_is_refused_where_the_bus_may_not_move_more() {
    // The one moves 3.5 MB/s; the other's process does not tell its rate, which counts as 30 frames/s: 10.4 MB/s.
    let scene = "test:?width=640&height=360&fps=10&gop=10&bitrate=500000";
    // One is captured by this process, one by another, as boards' cameras are.
    let setup = Setup::new().camera("road", scene).camera_with("cabin", scene, "isolation = \"process\"");
    let setup = setup.sections("[frames]\nmax_rate = \"12MB\"\n");
    let daemon = setup.start();
    let subscribe = |lens: &str| {
        let socket = setup.folder().join(format!("frames/{lens}.sock"));
        mos_frame::Subscriber::connect(&socket, mos_frame::Wish::default()).unwrap()
    };
    let await_moved = |lens: &str| {
        wait_for(&format!("frames of {lens}"), LONG, || {
            (on_the_bus(&daemon, lens)["moved_bytes"].as_u64() > Some(0)).then_some(())
        });
    };
    let road = subscribe("road");
    await_moved("road");
    let cabin = subscribe("cabin");
    wait_for("the refusal of cabin", LONG, || (on_the_bus(&daemon, "cabin")["denied"] == true).then_some(()));
    assert_eq!(on_the_bus(&daemon, "cabin")["moved_bytes"], 0);
    assert_eq!(on_the_bus(&daemon, "road")["claimed_rate"], 640 * 360 * 3 / 2 * 10);
    let metrics = daemon.client.get("/v1/metrics").text();
    assert!(metrics.contains("mos_bus_denied{lens=\"cabin\"} 1"), "{metrics}");
    let _ = daemon.await_open("cabin", 1.0, LONG);
    // What is not read any more makes room.
    drop(road);
    await_moved("cabin");
    drop(cabin);
}

#[test]
fn frames_of_a_raw_and_of_a_coded_camera_reach_other_processes() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().camera("road", ROAD).camera("rear", &camera.url(0));
    let daemon = setup.start();
    for lens in ["road", "rear"] {
        let _ = daemon.await_open(lens, 1.0, LONG);
        let png = setup.folder().join(format!("{lens}.png"));
        // A busy machine may take most of the three seconds to begin.
        let told = wait_for(&format!("frames of {lens}"), LONG, || {
            let dump = ["--dump", png.to_str().unwrap()];
            let told = daemon.mos.run(&[&["frames", lens, "--seconds", "3", "--json"][..], &dump].concat()).json();
            (told["delivered"].as_u64().unwrap() > 5).then_some(told)
        });
        assert!(told["revoked"].is_u64() && told["replaced"].is_u64(), "{told}");
        let latency = &told["latency_us"];
        assert!(latency["p50"].as_u64().unwrap() <= latency["p99"].as_u64().unwrap(), "{told}");
        let video = ffmpeg::probe(&png)["streams"][0].clone();
        assert_eq!((&video["width"], &video["height"]), (&told["width"], &told["height"]), "{video}");
        if lens == "rear" {
            let shown = ffmpeg::numbers(&png);
            assert!(matches!(shown[..], [Some(_)]), "a picture of the camera's, not {shown:?}");
        }
        let socket = on_the_bus(&daemon, lens)["socket"].as_str().unwrap().to_owned();
        let lines = cli::tool(Command::new(reader_in_python()).args([&socket, "5"]));
        assert_eq!(String::from_utf8(lines).unwrap().lines().count(), 5);

        let (folder, file) =
            (Path::new(&socket).parent().unwrap().display(), setup.folder().join(format!("{lens}-gst.png")));
        let source = format!("mosframesrc lens={lens} directory={folder} num-buffers=1");
        let pipeline = format!("{source} ! videoconvert ! pngenc ! filesink location={}", file.display());
        cli::tool(&mut launch(setup.folder(), &pipeline));
        let taken = ffmpeg::probe(&file)["streams"][0].clone();
        assert_eq!((&taken["width"], &taken["height"]), (&told["width"], &told["height"]), "{taken}");
        if lens == "rear" {
            let shown = ffmpeg::numbers(&file);
            assert!(matches!(shown[..], [Some(_)]), "a picture of the camera's, not {shown:?}");
        }
    }
    wait_for("readers to be gone", LONG, || {
        (subscribers(&daemon, "road") + subscribers(&daemon, "rear") == 0).then_some(())
    });
    let metrics = daemon.client.get("/v1/metrics").text();
    assert!(metrics.contains("mos_bus_delivered_frames_total{lens=\"rear\"}"), "{metrics}");
    let error = daemon.mos.run(&["frames", "roof"]).error();
    assert!(error.contains("there are road, rear"), "{error}");
}

#[test]
fn readers_that_hang_or_die_cost_the_recording_nothing() {
    let setup = Setup::new().storage("segment_seconds", "2").camera("road", ROAD);
    let daemon = setup.start();
    let _ = daemon.await_open("road", 1.0, LONG);
    let socket = on_the_bus(&daemon, "road")["socket"].as_str().unwrap().to_owned();
    let read = || Command::new(reader_in_python()).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    let mut readers: Vec<Child> = (0..8).map(|_| read()).collect();
    wait_for("frames at all readers", LONG, || {
        let view = on_the_bus(&daemon, "road");
        let all = view["subscribers"].as_array().unwrap();
        (all.len() == 8 && all.iter().all(|s| s["delivered"].as_u64() > Some(3))).then_some(())
    });
    for (at, reader) in readers.iter().enumerate() {
        let signal = if at % 2 == 0 { Signal::SIGSTOP } else { Signal::SIGKILL };
        kill(Pid::from_raw(reader.id().cast_signed()), signal).unwrap();
    }
    let before = daemon.segments("road").len();
    let segments = daemon.await_closed("road", before + 2, LONG);
    assert!(segments.len() >= before + 2);
    assert_eq!(causes(&daemon, "road"), Vec::<String>::new(), "{:?}", daemon.gaps("road"));
    wait_for("the dead to be gone and the stopped to be starved", LONG, || {
        let view = on_the_bus(&daemon, "road");
        let stopped = view["subscribers"].as_array().unwrap();
        (stopped.len() == 4 && stopped.iter().all(|s| s["revoked"].as_u64() > Some(0))).then_some(())
    });
    for reader in &mut readers {
        reader.kill().unwrap();
        reader.wait().unwrap();
    }
}

#[test]
fn nobody_gets_frames_where_that_is_switched_off() {
    let setup = Setup::new().camera("road", ROAD).sections("[frames]\nenabled = false\n");
    let daemon = setup.start();
    assert_eq!(daemon.client.get("/v1/frames").ok()["lenses"].as_array().unwrap().len(), 0);
    let error = daemon.mos.run(&["frames", "road"]).error();
    assert!(error.contains("no lens is"), "{error}");
}
