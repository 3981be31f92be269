//! The whole main job on both boards: the built program on doubles of their elements, with their device trees.
//!
//! The doubles' log tells what the program did to the cameras and encoders; no camera's pixels can be mapped by anybody but a
//! double. What a board's stack is made of follows from tree, sysfs and elements, as on the board.

use std::path::PathBuf;
use std::time::Duration;

use mos_tests::board_tree::{Board, IMX8MP, QCS6490, QCS6490_CAMSS};
use mos_tests::cli::outcome;
use mos_tests::daemon::{Daemon, Setup, id, span};
use mos_tests::judge::archive::assert_tiled;
use mos_tests::judge::{ffmpeg, parsers};
use mos_tests::wait_for;
use serde_json::{Value, json};
use tempfile::TempDir;

const LONG: Duration = Duration::from_mins(2);

/// A board with its software.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) tree: Board,
    /// Set of doubles.
    pub(super) doubles: &'static str,
    /// Cameras of the doubles.
    pub(super) cameras: &'static str,
    /// V4L2 cards.
    pub(super) cards: &'static [(u32, &'static str)],
    /// Media controller devices.
    pub(super) media: &'static [&'static str],
    /// Lenses of the tree that are recorded, each with the double's camera.
    pub(super) lenses: &'static [(&'static str, &'static str)],
    /// Elements that take part.
    pub(super) elements: &'static [&'static str],
    /// The element that decodes for pictures.
    pub(super) decoder: &'static str,
}

const ROAD: &str = "/base/soc@0/bus@30800000/i2c@30a30000/camera@3c";
const CABIN: &str = "/base/soc@0/bus@30800000/i2c@30a40000/camera@3c";
const DRIVER: &str = "/base/soc@0/cci@ac4b000/i2c-bus@1/camera@1a";

const BSP: Kind = Kind {
    name: "imx8mp, NXP's BSP",
    tree: IMX8MP,
    doubles: "imx8mp-bsp",
    cameras: "/dev/video82,/dev/video83",
    cards: &[(80, "vsi_v4l2enc"), (81, "vsi_v4l2dec"), (82, "VIV"), (83, "VIV")],
    media: &[],
    lenses: &[("road", "/dev/video82"), ("cabin", "/dev/video83")],
    elements: &["v4l2src", "v4l2h264enc"],
    decoder: "v4l2h264dec",
};

/// Cameras that prefer YUYV, as the ISI's do, and one that gives nothing else.
const VPU: Kind = Kind {
    name: "imx8mp, NXP's VPU wrapper",
    tree: IMX8MP,
    doubles: "imx8mp-vpu",
    cameras: "/base/soc@0/bus@30800000/i2c@30a30000/camera@3c=isi,/base/soc@0/bus@30800000/i2c@30a40000/camera@3c=yuyv",
    cards: &[],
    media: &["mxc-isi"],
    lenses: &[("road", ROAD), ("cabin", CABIN)],
    elements: &["libcamerasrc", "vpuenc_h264", "imxvideoconvert_g2d"],
    decoder: "vpudec",
};

const MAINLINE: Kind = Kind {
    name: "imx8mp, mainline",
    doubles: "imx8mp-mainline",
    lenses: &[("road", ROAD)],
    elements: &["libcamerasrc"],
    ..VPU
};

pub(super) const CAMX: Kind = Kind {
    name: "qcs6490, CamX",
    tree: QCS6490,
    doubles: "qcs6490-camx",
    cameras: "0,1,2,3,4",
    cards: &[],
    media: &[],
    lenses: &[("driver", "0"), ("left", "2")],
    elements: &["qticamsrc", "qtic2venc"],
    decoder: "qtic2vdec",
};

const IRIS: Kind = Kind {
    name: "qcs6490, mainline",
    tree: QCS6490_CAMSS,
    doubles: "qcs6490-mainline",
    cameras: DRIVER,
    cards: &[(80, "iris_driver")],
    media: &["qcom-camss"],
    lenses: &[("driver", DRIVER)],
    elements: &["libcamerasrc", "v4l2h264enc"],
    decoder: "v4l2h264dec",
};

/// What surrounds the program on a board.
pub(super) struct Rig {
    folder: TempDir,
    live: TempDir,
    kind: &'static Kind,
}

impl Rig {
    pub(super) fn new(kind: &'static Kind) -> Self {
        let rig = Self { folder: TempDir::new().unwrap(), live: kind.tree.live(), kind };
        let put = |path: String, text: &str| {
            let file = rig.path("sys").join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, format!("{text}\n")).unwrap();
        };
        std::fs::create_dir_all(rig.path("sys")).unwrap();
        kind.cards.iter().for_each(|(n, name)| put(format!("class/video4linux/video{n}/name"), name));
        let media = kind.media.iter().enumerate();
        media.for_each(|(n, model)| put(format!("bus/media/devices/media{n}/model"), model));
        let library = std::env::current_exe().unwrap().with_file_name("libmos_doubles.so");
        assert!(library.exists(), "{} is not built", library.display());
        std::fs::create_dir(rig.path("plugins")).unwrap();
        mos_doubles::link(&library, &rig.path("plugins")).unwrap();
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.path(name).display().to_string();
        vec![
            ("GST_PLUGIN_PATH", path("plugins")),
            ("GST_REGISTRY", path("registry.bin")),
            ("MOS_DOUBLES", self.kind.doubles.into()),
            ("MOS_DOUBLES_CAMERAS", self.kind.cameras.into()),
            ("MOS_DOUBLES_LOG", path("doubles.log")),
            ("MOS_DOUBLES_FAULTS", path("faults")),
        ]
    }

    /// The daemon's configuration; `board` is more of its table.
    pub(super) fn setup(&self, options: &str, board: &str) -> Setup {
        let (tree, sysfs) = (self.live.path().display(), self.path("sys"));
        let table = format!("[board]\ndevice_tree = \"{tree}\"\nsysfs = \"{}\"\n{board}\n", sysfs.display());
        let setup = Setup::new().storage("segment_seconds", "3").sections(&table);
        let setup = self.environment().iter().fold(setup, |s, (key, value)| s.environment(key, value));
        let lens = |s: Setup, (lens, _): &(&str, &str)| s.camera(lens, &format!("board:{lens}?{options}"));
        self.kind.lenses.iter().fold(setup, lens)
    }

    fn fault(&self, camera: &str, fault: &str) {
        let text = if fault.is_empty() { String::new() } else { format!("{camera} {fault}\n") };
        std::fs::write(self.path("faults"), text).unwrap();
    }

    /// What the doubles wrote down of one kind.
    pub(super) fn events(&self, event: &str) -> Vec<Value> {
        let log = std::fs::read_to_string(self.path("doubles.log")).unwrap_or_default();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == event).collect()
    }

    /// Nobody touched the pixels of a camera, and every encoder got the very buffers of the cameras.
    fn assert_untouched(&self) {
        for event in ["mapping-refused", "copy", "fault", "bitrate-ignored"] {
            assert_eq!(self.events(event), Vec::<Value>::new(), "{}: {event}", self.kind.name);
        }
        let imports = self.events("import");
        assert!(imports.iter().all(|e| e["camera"] == true) && imports.len() >= self.kind.lenses.len(), "{imports:?}");
        let made = self.events("made");
        for element in self.kind.elements {
            assert!(made.iter().any(|e| e["element"] == *element), "{}: {element} took no part", self.kind.name);
        }
    }
}

fn status(daemon: &Daemon, lens: &str) -> Value {
    let status = daemon.client.get("/v1/capture/status").json();
    let lenses = status["lenses"].as_array().unwrap_or_else(|| panic!("no lenses: {status}"));
    lenses.iter().find(|l| l["lens"] == lens).unwrap_or_else(|| panic!("no {lens}: {status}")).clone()
}

fn footage(daemon: &Daemon, lens: &str) -> f64 {
    daemon.segments(lens).iter().map(span).sum()
}

fn await_more(daemon: &Daemon, lens: &str, seconds: f64) {
    let before = footage(daemon, lens);
    wait_for(&format!("more footage of {lens}"), LONG, || (footage(daemon, lens) > before + seconds).then_some(()));
}

fn await_gap(daemon: &Daemon, lens: &str, causes: &[&str]) {
    wait_for(&format!("a gap of {lens} by {causes:?}"), LONG, || {
        daemon.gaps(lens).iter().any(|g| causes.iter().any(|c| g["cause"] == *c)).then_some(())
    });
}

/// Records, decodes, cuts, takes a picture; then looks at what was done to the cameras.
fn whole_main_job(kind: &'static Kind) {
    let rig = Rig::new(kind);
    let setup = rig.setup("width=640&height=480&fps=30&gop=15&bitrate=1500000", "");
    let daemon = setup.start();
    for (lens, _) in kind.lenses {
        let segments = daemon.await_closed(lens, 2, LONG);
        let closed: Vec<&Value> = segments.iter().filter(|s| s["state"] != "open").collect();
        let mut last = None;
        for segment in &closed {
            let file = daemon.file(segment);
            ffmpeg::assert_decodes(&file);
            parsers::assert_mp4san(&file);
            for number in ffmpeg::all_numbers(&file) {
                // Pictures that the machine had no time for are missing, in order all the same.
                assert!(last.is_none_or(|last| last < number), "{lens}: {number} after {last:?}");
                last = Some(number);
            }
        }
        assert_tiled(&segments, &daemon.gaps(lens), 0.1);
        let segment = closed[1];
        let file = daemon.file(segment);
        let (numbers, times) = (ffmpeg::all_numbers(&file), ffmpeg::times(&file, "v"));
        assert!(numbers.len() >= 12, "{lens}: {numbers:?}");
        let out = setup.folder().join(format!("{lens}.mp4"));
        // From the middle of a group on, of which a busy machine may have left something out.
        let (first, end) = (numbers.len() * 2 / 9, numbers.len() * 5 / 9);
        let (from, to) = (format!("{:.6}", times[first]), format!("{:.6}", times[end]));
        let args = ["clip", id(segment), "--from", &from, "--to", &to, "-o", out.to_str().unwrap(), "--json"];
        let _ = daemon.mos.run(&args).json();
        assert_eq!(ffmpeg::all_numbers(&out), numbers[first..end], "{lens}: the clip's pictures");
        let path = format!("/v1/segments/{}/snapshot", id(segment));
        let picture = daemon.client.post(&path, &json!({"keyframe_offset": times[0] + 0.01})).ok();
        assert_eq!(ffmpeg::all_numbers(&daemon.file(&picture)), [numbers[0]], "{lens}: the snapshot");
        assert_eq!(status(&daemon, lens)["memory"], "dmabuf", "{lens}");
    }
    daemon.stop();
    rig.assert_untouched();
    let decoded = rig.events("made").iter().any(|e| e["element"] == kind.decoder);
    assert!(decoded, "{}: the picture came by something else than {}", kind.name, kind.decoder);
    let rates = rig.events("rate");
    assert!(!rates.is_empty() && rates.iter().all(|r| r["bits_per_second"] == 1_500_000 && r["controlled"] == true));
    let (opened, closed) = (rig.events("camera-opened").len(), rig.events("camera-closed").len());
    assert_eq!(opened, closed, "{}: cameras that were left open", kind.name);
}

#[test]
fn imx8mp_with_nxps_bsp() {
    whole_main_job(&BSP);
}

#[test]
fn imx8mp_with_the_vpu_wrapper_and_yuyv_cameras() {
    whole_main_job(&VPU);
}

#[test]
fn qcs6490_with_the_camera_service() {
    whole_main_job(&CAMX);
}

#[test]
fn qcs6490_with_the_kernels_drivers() {
    whole_main_job(&IRIS);
}

/// A camera that fails, goes or falls silent costs its own footage only, is accounted for, and is recorded again.
fn failing_camera(kind: &'static Kind) {
    let rig = Rig::new(kind);
    let setup = rig.setup("width=640&height=480&fps=15&gop=15&bitrate=800000", "");
    let daemon = setup.start();
    let ((bad, camera), (good, _)) = (kind.lenses[0], kind.lenses[1]);
    await_more(&daemon, bad, 1.0);
    await_more(&daemon, good, 1.0);
    // A slow machine may have needed more than one attempt.
    let reconnects = |lens: &str| status(&daemon, lens)["reconnects"].as_u64().unwrap();
    let before = (reconnects(bad), reconnects(good));
    for (fault, causes) in [
        ("error", &["camera_broke_off"][..]),
        ("stall", &["camera_stalled"][..]),
        // An element may fail without telling why.
        ("gone", &["camera_absent", "camera_broke_off"][..]),
    ] {
        let known = daemon.gaps(bad).len();
        rig.fault(camera, fault);
        wait_for(&format!("a new gap after {fault}"), LONG, || (daemon.gaps(bad).len() > known).then_some(()));
        await_gap(&daemon, bad, causes);
        rig.fault(camera, "");
        await_more(&daemon, bad, 1.5);
    }
    assert_tiled(&daemon.segments(bad), &daemon.gaps(bad), 0.1);
    assert_tiled(&daemon.segments(good), &daemon.gaps(good), 0.1);
    assert!(reconnects(bad) >= before.0 + 3 && reconnects(good) == before.1, "{bad} alone was opened again");
    daemon.stop();
    rig.assert_untouched();
}

#[test]
fn a_camera_of_the_camera_service_fails_and_comes_back() {
    failing_camera(&CAMX);
}

#[test]
fn a_camera_of_nxps_bsp_fails_and_comes_back() {
    failing_camera(&BSP);
}

#[test]
fn production_refuses_software_encoding_and_says_why() {
    let rig = Rig::new(&MAINLINE);
    let setup = rig.setup("width=640&height=480&fps=15", "production = true");
    let daemon = setup.start();
    let lens = wait_for("the refusal", LONG, || {
        let lens = status(&daemon, "road");
        lens["last_error"].as_str().map(str::to_owned)
    });
    assert!(lens.contains("x264enc works on the CPU") && lens.contains("production = true"), "{lens}");
    assert!(daemon.segments("road").is_empty());
    await_gap(&daemon, "road", &["camera_refused"]);
}

#[test]
fn production_records_what_stays_in_dmabufs() {
    let rig = Rig::new(&CAMX);
    let setup = rig.setup("width=640&height=480&fps=15", "production = true");
    let daemon = setup.start();
    for (lens, _) in CAMX.lenses {
        await_more(&daemon, lens, 1.0);
        assert_eq!(status(&daemon, lens)["memory"], "dmabuf");
    }
    daemon.stop();
    rig.assert_untouched();
}

/// The guard over the doubles' pixels is no ornament: what reads them finds nothing, and is caught.
#[test]
fn a_program_that_maps_pixels_is_caught() {
    let rig = Rig::new(&MAINLINE);
    let setup = rig.setup("width=640&height=480&fps=15", "");
    let daemon = setup.start();
    wait_for("the refusal of a mapping", LONG, || (!rig.events("mapping-refused").is_empty()).then_some(()));
    assert!(daemon.segments("road").is_empty());
}

#[test]
fn all_five_lenses_of_the_rb3_are_recorded_at_once() {
    static ALL: Kind =
        Kind { lenses: &[("driver", "0"), ("front", "1"), ("left", "2"), ("right", "3"), ("rear", "4")], ..CAMX };
    let rig = Rig::new(&ALL);
    let setup = rig.setup("width=512&height=288&fps=10&gop=10&bitrate=500000", "");
    let daemon = setup.start();
    for (lens, _) in ALL.lenses {
        // The first one may be short: a slow machine tries again.
        let segment = wait_for(&format!("a closed segment of {lens}"), LONG, || {
            let mut segments = daemon.segments(lens).into_iter();
            segments.find(|s| s["state"] != "open" && s["frames"].as_u64() > Some(10))
        });
        let numbers = ffmpeg::all_numbers(&daemon.file(&segment));
        assert!(numbers.len() > 10 && numbers.windows(2).all(|w| w[0] < w[1]), "{lens}: {numbers:?}");
    }
    daemon.stop();
    rig.assert_untouched();
}

/// Without `production` the same board records by software and tells that it does.
#[test]
fn a_board_without_an_encoder_records_through_the_cpu_and_says_so() {
    let rig = Rig::new(&MAINLINE);
    let setup = rig.setup("width=640&height=480&fps=15", "").environment("MOS_DOUBLES_GUARD", "off");
    let daemon = setup.start();
    await_more(&daemon, "road", 1.5);
    assert_eq!(status(&daemon, "road")["memory"], "system");
}

#[test]
fn mos_probe_names_each_boards_stack_lenses_and_encoder() {
    for (kind, platform, stack, encoder) in [
        (&BSP, "imx8mp", "nxp-bsp", "v4l2h264enc"),
        (&VPU, "imx8mp", "nxp-bsp", "vpuenc_h264"),
        (&MAINLINE, "imx8mp", "mainline", "x264enc"),
        (&CAMX, "qcs6490", "camx", "qtic2venc"),
        (&IRIS, "qcs6490", "mainline", "v4l2h264enc"),
    ] {
        let rig = Rig::new(kind);
        let mut mos = std::process::Command::new(mos_tests::binary("mos"));
        mos.arg("probe").arg("--device-tree").arg(rig.live.path()).arg("--sysfs").arg(rig.path("sys")).arg("--json");
        let done = outcome(mos.envs(rig.environment()));
        assert_eq!(done.code, 0, "{}: {}", kind.name, done.err);
        let found: Value = serde_json::from_str(&done.out).unwrap();
        assert_eq!((&found["platform"], &found["stack"]["name"]), (&json!(platform), &json!(stack)), "{found}");
        for (lens, camera) in kind.lenses {
            let cameras = found["cameras"].as_array().unwrap();
            let shown = cameras.iter().find(|c| c["name"] == *lens).unwrap_or_else(|| panic!("no {lens}: {found}"));
            assert_eq!(shown["camera"], *camera, "{}: {shown}", kind.name);
        }
        let codecs = found["codecs"].to_string();
        assert!(codecs.contains(&format!("\"{encoder}\"")), "{}: {codecs}", kind.name);
    }
}
