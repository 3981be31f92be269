//! The doubles as a program sees them: by a plugin path and the environment, through gst-inspect and gst-launch of the system.
//!
//! Each test is a process of its own with its own registry, log and faults.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The plugin that Cargo built beside this test.
fn library() -> PathBuf {
    let library = std::env::current_exe().unwrap().with_file_name("libmos_doubles.so");
    assert!(library.exists(), "no plugin at {}", library.display());
    library
}

struct Rig {
    folder: TempDir,
    set: &'static str,
    cameras: Option<&'static str>,
}

impl Rig {
    fn new(set: &'static str) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), set, cameras: None }
    }

    fn cameras(mut self, list: &'static str) -> Self {
        self.cameras = Some(list);
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let plugins = self.path("plugins");
        if std::fs::create_dir(&plugins).is_ok() {
            mos_doubles::link(&library(), &plugins).unwrap();
        }
        let mut command = Command::new(program);
        command.env("GST_PLUGIN_PATH", &plugins).env("GST_REGISTRY", self.path("registry.bin"));
        command.env("MOS_DOUBLES", self.set).env("MOS_DOUBLES_LOG", self.path("log")).env("LC_ALL", "C");
        command.env("MOS_DOUBLES_FAULTS", self.path("faults"));
        match self.cameras {
            Some(list) => command.env("MOS_DOUBLES_CAMERAS", list),
            None => command.env_remove("MOS_DOUBLES_CAMERAS"),
        };
        command
    }

    fn launch(&self, pipeline: &str) -> Output {
        // Not with -e: gst-launch would wait for an end that a pipeline which failed may never reach.
        self.command("gst-launch-1.0").args(pipeline.split_whitespace()).output().unwrap()
    }

    /// Runs a pipeline that must end well.
    fn works(&self, pipeline: &str) -> String {
        let out = self.launch(pipeline);
        let text = text(&out);
        assert!(out.status.success() && !text.contains("ERROR"), "{pipeline}\n{text}");
        text
    }

    /// Runs a pipeline that must fail, and gives what was said.
    fn fails(&self, pipeline: &str) -> String {
        let out = self.launch(pipeline);
        let text = text(&out);
        assert!(!out.status.success() || text.contains("ERROR"), "did not fail: {pipeline}\n{text}");
        text
    }

    fn log(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    fn events(&self, event: &str) -> Vec<serde_json::Value> {
        self.log().into_iter().filter(|l| l["event"] == event).collect()
    }

    fn inspect(&self, element: &str) -> String {
        let out = self.command("gst-inspect-1.0").arg(element).output().unwrap();
        assert!(out.status.success(), "{element}: {}", text(&out));
        text(&out)
    }
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

/// Kinds of the pictures of a coded file, by ffprobe: one letter per picture.
fn pictures(path: &Path) -> String {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v", "-show_entries", "frame=pict_type", "-of", "csv=p=0"])
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout).chars().filter(char::is_ascii_alphabetic).collect()
}

/// The cameras of a set, feeding `rest` 30 pictures of 640 × 480.
const QMMF: &str =
    "qticamsrc camera=0 ! video/x-raw,format=NV12,width=640,height=480,framerate=30/1 ! identity eos-after=31";

#[test]
fn nothing_is_there_without_a_set_and_a_change_of_the_set_is_seen() {
    let rig = Rig::new("qcs6490-camx");
    let _ = rig.inspect("qtic2venc");
    let gone = rig.command("gst-inspect-1.0").env_remove("MOS_DOUBLES").arg("qtic2venc").output().unwrap();
    assert!(!gone.status.success());
    let other = rig.command("gst-inspect-1.0").env("MOS_DOUBLES", "imx8mp-vpu").arg("vpuenc_h264").output().unwrap();
    assert!(other.status.success());
}

#[test]
fn inspection_shows_every_element_of_every_set_with_its_properties() {
    for (set, files) in mos_doubles::SETS {
        let rig = Rig::new(set);
        for file in *files {
            let double = mos_doubles::data::double(file);
            let shown = rig.inspect(&double.element);
            for property in &double.property {
                assert!(shown.contains(&format!("  {}", property.name)), "{file}: {}\n{shown}", property.name);
            }
            for pad in &double.pad {
                assert!(shown.contains(&format!("template: '{}'", pad.name)), "{file}: {}\n{shown}", pad.name);
            }
        }
    }
}

#[test]
fn a_property_that_the_real_element_lacks_does_not_exist() {
    let said = Rig::new("qcs6490-camx").fails("qticamsrc video-profile=1 ! fakesink");
    assert!(said.contains("no property \"video-profile\""), "{said}");
    let said = Rig::new("imx8mp-vpu").fails("videotestsrc ! vpuenc_h264 target-bitrate=1000000 ! fakesink");
    assert!(said.contains("no property"), "{said}");
}

#[test]
fn bitrates_in_the_wrong_unit_fail_and_name_the_unit() {
    let rig = Rig::new("imx8mp-vpu");
    let said = rig.fails("videotestsrc num-buffers=5 ! vpuenc_h264 bitrate=4000000 ! fakesink");
    assert!(said.contains("kbit/s"), "{said}");
    assert!(!rig.events("fault").is_empty());
    let said = Rig::new("qcs6490-camx").fails("videotestsrc num-buffers=5 ! qtic2venc target-bitrate=4000 ! fakesink");
    assert!(said.contains("bit/s"), "{said}");
    let controls = "extra-controls=c,video_bitrate=4000,frame_level_rate_control_enable=1";
    let said = Rig::new("imx8mp-bsp").fails(&format!("videotestsrc num-buffers=5 ! v4l2h264enc {controls} ! fakesink"));
    assert!(said.contains("out of range") && said.contains("bit/s"), "{said}");
}

#[test]
fn values_out_of_range_and_unknown_controls_fail() {
    let said = Rig::new("imx8mp-vpu").fails("videotestsrc num-buffers=5 ! vpuenc_h264 gop-size=40000 ! fakesink");
    assert!(said.contains("out of range"), "{said}");
    let unknown = "videotestsrc num-buffers=5 ! v4l2h264enc extra-controls=c,h264_i_frame_period=30 ! fakesink";
    let said = Rig::new("imx8mp-bsp").fails(unknown);
    assert!(said.contains("no control h264_i_frame_period"), "{said}");
}

#[test]
fn b_frames_need_a_variable_rate() {
    let rig = |rate: &str| {
        let rig = Rig::new("qcs6490-camx");
        let source = "videotestsrc num-buffers=5 ! video/x-raw,format=NV12,width=320,height=240";
        (rig, format!("{source} ! qtic2venc {rate} b-frames=1 ! video/x-h264 ! fakesink"))
    };
    let (vbr, pipeline) = rig("control-rate=VBR-CFR");
    vbr.works(&pipeline);
    let (cbr, pipeline) = rig("control-rate=constant");
    let said = cbr.fails(&pipeline);
    assert!(said.contains("b-frames is taken only where control-rate is one of [3, 4]"), "{said}");
}

#[test]
fn sizes_beyond_the_encoder_do_not_negotiate() {
    let rig = Rig::new("imx8mp-vpu");
    let said = rig
        .fails("videotestsrc num-buffers=5 ! video/x-raw,format=NV12,width=2560,height=1440 ! vpuenc_h264 ! fakesink");
    assert!(
        said.contains("not-negotiated") || said.contains("could not link") || said.contains("can't handle caps"),
        "{said}"
    );
}

#[test]
fn camera_pixels_reach_the_encoder_without_a_copy_and_are_coded() {
    let rig = Rig::new("qcs6490-camx");
    let file = rig.path("out.h264");
    let encoder = "qtic2venc control-rate=constant target-bitrate=2000000 idr-interval=10";
    rig.works(&format!("{QMMF} ! {encoder} ! h264parse ! filesink location={}", file.display()));
    let kinds = pictures(&file);
    assert!(kinds.len() >= 25, "{kinds}");
    for (at, kind) in kinds.chars().enumerate() {
        assert_eq!(kind == 'I', at % 10 == 0, "{kinds}");
    }
    assert!(rig.events("copy").is_empty(), "{:?}", rig.events("copy"));
    assert!(rig.events("mapping-refused").is_empty());
    assert!(rig.events("import").iter().all(|e| e["camera"] == true) && !rig.events("import").is_empty());
    assert!(rig.events("rate").iter().all(|e| e["bits_per_second"] == 2_000_000 && e["controlled"] == true));
    assert_eq!(rig.events("camera-opened").len(), 1);
    assert_eq!(rig.events("camera-closed").len(), 1);
}

#[test]
fn mapping_the_pixels_of_a_camera_fails_and_is_written_down() {
    let rig = Rig::new("qcs6490-camx");
    // The converter only warns.
    let _ = rig.launch(&format!("{QMMF} ! videoconvert ! video/x-raw,format=RGB ! fakesink"));
    assert!(!rig.events("mapping-refused").is_empty(), "{:?}", rig.log());
}

#[test]
fn one_and_zero_make_every_frame_a_keyframe_and_the_default_only_the_first() {
    for (interval, keys) in [(" idr-interval=0", 30), (" idr-interval=1", 30), ("", 1)] {
        let rig = Rig::new("qcs6490-camx");
        let file = rig.path("out.h264");
        let source = "videotestsrc num-buffers=30 ! video/x-raw,format=NV12,width=320,height=240";
        rig.works(&format!("{source} ! qtic2venc{interval} ! h264parse ! filesink location={}", file.display()));
        assert_eq!(pictures(&file).matches('I').count(), keys, "idr-interval{interval}");
        // Memory without a descriptor is taken, but copied.
        assert!(!rig.events("copy").is_empty());
    }
}

#[test]
fn without_rate_control_the_bitrate_is_ignored_and_it_is_said() {
    let rig = Rig::new("imx8mp-bsp");
    let source = "videotestsrc num-buffers=10 ! video/x-raw,format=NV12,width=320,height=240";
    rig.works(&format!("{source} ! v4l2h264enc extra-controls=c,video_bitrate=1000000 ! h264parse ! fakesink"));
    assert!(!rig.events("bitrate-ignored").is_empty());
    let rig = Rig::new("imx8mp-bsp");
    let controls = "extra-controls=c,video_bitrate=1000000,frame_level_rate_control_enable=1";
    rig.works(&format!("{source} ! v4l2h264enc {controls} ! h264parse ! fakesink"));
    assert!(rig.events("bitrate-ignored").is_empty());
    assert!(rig.events("rate").iter().all(|e| e["controlled"] == true && e["bits_per_second"] == 1_000_000));
}

#[test]
fn nxp_encoders_give_baseline_unless_a_profile_is_set() {
    let source = "videotestsrc num-buffers=10 ! video/x-raw,format=NV12,width=320,height=240";
    let profile = |set, encoder: &str| {
        let rig = Rig::new(set);
        let file = rig.path("out.h264");
        let plain = "h264parse ! video/x-h264,stream-format=byte-stream";
        rig.works(&format!("{source} ! {encoder} ! {plain} ! filesink location={}", file.display()));
        let mut probe = Command::new("ffprobe");
        probe.args(["-v", "error", "-show_entries", "stream=profile", "-of", "csv=p=0"]).arg(&file);
        let out = probe.output().unwrap();
        text(&out).trim().to_owned()
    };
    assert!(profile("imx8mp-vpu", "vpuenc_h264").contains("Baseline"));
    assert_eq!(profile("imx8mp-vpu", "vpuenc_h264 profile=11"), "High");
    assert!(profile("imx8mp-bsp", "v4l2h264enc").contains("Baseline"));
    assert_eq!(profile("imx8mp-bsp", "v4l2h264enc extra-controls=c,h264_profile=4"), "High");
}

#[test]
fn a_v4l2_encoder_imports_only_in_the_mode_for_it() {
    for (mode, copies) in [("output-io-mode=dmabuf-import", false), ("output-io-mode=dmabuf", true), ("", true)] {
        let rig = Rig::new("imx8mp-bsp").cameras("/dev/video2");
        let camera =
            "v4l2src device=/dev/video2 io-mode=dmabuf ! video/x-raw,format=NV12,width=640,height=480,framerate=30/1";
        rig.works(&format!("{camera} ! identity eos-after=10 ! v4l2h264enc {mode} ! h264parse ! fakesink"));
        assert_eq!(!rig.events("copy").is_empty(), copies, "{mode:?}: {:?}", rig.log());
    }
}

#[test]
fn a_camera_that_does_not_exist_fails() {
    // The camera service's element says nothing on the bus.
    let rig = Rig::new("qcs6490-camx");
    let said = rig.fails("qticamsrc camera=7 ! fakesink");
    assert!(!said.contains("no camera") && rig.events("open-failed").len() == 1, "{said}");
    let rig = Rig::new("imx8mp-mainline").cameras("/base/soc@0/camera@10");
    let said = rig.fails("libcamerasrc camera-name=/base/nobody ! fakesink");
    assert!(said.contains("no camera"), "{said}");
    let camera = "libcamerasrc camera-name=/base/soc@0/camera@10 ! video/x-raw,width=640,height=480";
    rig.works(&format!("{camera} ! identity eos-after=5 ! fakesink"));
}

#[test]
fn a_camera_of_the_isi_prefers_yuyv() {
    let caps = |list: &'static str, filter: &str| {
        let rig = Rig::new("imx8mp-mainline").cameras(list);
        rig.works(&format!(
            "libcamerasrc ! video/x-raw,width=640,height=480{filter} ! identity eos-after=3 ! fakesink"
        ));
        rig.events("caps")[0]["caps"].as_str().unwrap().to_owned()
    };
    assert!(caps("cam=isi", "").contains("YUY2"));
    assert!(caps("cam=isi", ",format=NV12").contains("NV12"));
    assert!(caps("cam", "").contains("NV12"));
    // No source advertises dmabuf.
    let rig = Rig::new("imx8mp-mainline").cameras("cam");
    rig.fails("libcamerasrc ! video/x-raw(memory:DMABuf),format=NV12,width=640,height=480 ! fakesink");
}

#[test]
fn the_decoder_of_the_sdk_needs_a_parser_and_gives_descriptors() {
    let rig = Rig::new("qcs6490-camx");
    let coded = "videotestsrc num-buffers=5 ! video/x-raw,format=NV12,width=320,height=240 ! x264enc tune=zerolatency";
    let said = rig.fails(&format!("{coded} ! video/x-h264,stream-format=byte-stream ! qtic2vdec ! fakesink"));
    assert!(said.contains("caps lack"), "{said}");
    let jpegs = rig.path("picture.jpg");
    // A parser that repacks knows them; one that only passes on does not.
    let decode = "video/x-h264,stream-format=avc ! h264parse ! qtic2vdec ! qtivtransform ! video/x-raw,format=NV12,width=160,height=120 ! qtijpegenc";
    rig.works(&format!("{coded} ! {decode} ! filesink location={}", jpegs.display()));
    assert!(std::fs::read(jpegs).unwrap().starts_with(&[0xff, 0xd8]));
    // Plain memory is refused by the JPEG encoder.
    let said =
        rig.fails("videotestsrc num-buffers=2 ! video/x-raw,format=NV12,width=320,height=240 ! qtijpegenc ! fakesink");
    assert!(said.contains("file descriptor"), "{said}");
}

#[test]
fn other_decoders_decode() {
    let coded = "videotestsrc num-buffers=5 ! video/x-raw,format=NV12,width=320,height=240 ! x264enc tune=zerolatency ! h264parse";
    for (set, decoder) in
        [("imx8mp-vpu", "vpudec"), ("imx8mp-bsp", "v4l2h264dec"), ("imx8mp-mainline", "v4l2slh264dec")]
    {
        let rig = Rig::new(set);
        rig.works(&format!("{coded} ! {decoder} ! video/x-raw,format=NV12 ! jpegenc ! fakesink"));
    }
    let rig = Rig::new("v4l2jpegdec");
    rig.works("videotestsrc num-buffers=5 ! video/x-raw,width=320,height=240 ! jpegenc ! v4l2jpegdec ! video/x-raw,format=NV12 ! fakesink");
}

#[test]
fn h265_comes_out_where_it_is_asked_for() {
    let rig = Rig::new("qcs6490-camx");
    let file = rig.path("out.h265");
    let source = "videotestsrc num-buffers=12 ! video/x-raw,format=NV12,width=320,height=240";
    rig.works(&format!(
        "{source} ! qtic2venc idr-interval=5 ! video/x-h265 ! h265parse ! filesink location={}",
        file.display()
    ));
    assert_eq!(pictures(&file).matches('I').count(), 3);
}

/// Starts a pipeline that does not end, and waits for an event of it.
fn begin(rig: &Rig, pipeline: &str, event: &str) -> Child {
    let mut command = rig.command("gst-launch-1.0");
    command.args(pipeline.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = command.spawn().unwrap();
    let end = Instant::now() + Duration::from_mins(1);
    while rig.events(event).is_empty() {
        assert!(Instant::now() < end, "never {event}: {:?}", rig.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    running
}

#[test]
fn a_camera_that_goes_fails_and_cannot_be_opened_until_it_is_back() {
    let rig = Rig::new("qcs6490-camx");
    let mode = "video/x-raw,width=640,height=480,framerate=30/1";
    let mut running = begin(&rig, &format!("qticamsrc camera=1 ! {mode} ! fakesink"), "caps");
    std::fs::write(rig.path("faults"), "1 gone\n").unwrap();
    assert!(!running.wait().unwrap().success());
    assert_eq!(rig.events("camera-failed").len(), 1);
    rig.fails("qticamsrc camera=1 ! fakesink");
    std::fs::write(rig.path("faults"), "").unwrap();
    rig.works(&format!("qticamsrc camera=1 ! {mode} ! identity eos-after=3 ! fakesink"));
}

#[test]
fn buffers_that_are_not_returned_cost_frames_and_are_told() {
    let rig = Rig::new("qcs6490-camx");
    let hoard = "queue max-size-buffers=200 max-size-bytes=0 max-size-time=0 min-threshold-buffers=100";
    let mode = "video/x-raw,width=640,height=480,framerate=30/1";
    let mut running = begin(&rig, &format!("qticamsrc camera=0 ! {mode} ! {hoard} ! fakesink"), "starved");
    // As many frames as there are buffers, no more.
    assert_eq!(rig.events("starved")[0]["number"], 8);
    std::fs::write(rig.path("faults"), "0 error\n").unwrap();
    assert!(!running.wait().unwrap().success());
}
