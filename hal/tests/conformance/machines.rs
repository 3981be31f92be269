//! The machines of the suite: which tree, which elements, which devices, which cameras, and what is known of each.
#![allow(unreachable_pub, reason = "a test of its own")]

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::tree::{Board, IMX8MP, PC, QCS6490, QCS6490_CAMSS};

/// A machine.
pub struct Machine {
    /// Name of the test.
    pub name: &'static str,
    /// Its device tree.
    pub tree: Board,
    /// `Platform::name`.
    pub platform: &'static str,
    /// `Platform::stack`.
    pub stack: &'static str,
    /// Doubles that are registered.
    pub doubles: &'static str,
    /// Cameras that the doubles have.
    pub cameras: &'static str,
    /// V4L2 cards: number of the node and name.
    pub cards: &'static [(u32, &'static str)],
    /// Media controller devices.
    pub media: &'static [&'static str],
    /// The element that encodes H.264 here.
    pub encoder: &'static str,
    /// Whether pictures stay in dmabufs all the way.
    pub dmabuf: bool,
    /// Sources.
    pub sources: &'static [Source],
}

/// A source of a machine.
pub struct Source {
    /// As in the configuration.
    pub spec: &'static str,
    /// The double's camera behind it, if any.
    pub camera: Option<&'static str>,
    /// Frames from keyframe to keyframe, if the source encodes.
    pub gop: Option<usize>,
    /// A source of this kind that is not there, and the kinds of error that may say so.
    pub absent: Option<(&'static str, &'static [Kind])>,
    /// One that cannot be recorded here.
    pub unsupported: Option<&'static str>,
}

/// A kind of `SourceError`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Absent,
    Refused,
    Unsupported,
    Broken,
    Ended,
}

/// What the kinds have unless they say otherwise.
const SOURCE: Source = Source { spec: "", camera: None, gop: None, absent: None, unsupported: None };

const GONE: &[Kind] = &[Kind::Absent];

/// Sensors' ids in libcamera, of the trees in `device-tree/`.
const IMX8MP_IDS: &str =
    "/base/soc@0/bus@30800000/i2c@30a30000/camera@3c=isi,/base/soc@0/bus@30800000/i2c@30a40000/camera@3c=isi";
const QCS6490_ID: &str = "/base/soc@0/cci@ac4b000/i2c-bus@1/camera@1a";

const LIBCAMERA_ABSENT: Option<(&str, &[Kind])> = Some(("libcamera:/base/nobody?width=640&height=480", GONE));
const BOARD_ABSENT: Option<(&str, &[Kind])> = Some(("board:nobody", GONE));

pub const MACHINES: &[Machine] = &[
    Machine {
        name: "imx8mp_on_nxp_bsp",
        tree: IMX8MP,
        platform: "imx8mp",
        stack: "nxp-bsp",
        doubles: "imx8mp-bsp",
        cameras: "/dev/video82,/dev/video83",
        cards: &[(80, "vsi_v4l2enc"), (81, "vsi_v4l2dec"), (82, "VIV"), (83, "VIV")],
        media: &[],
        encoder: "v4l2h264enc",
        dmabuf: true,
        sources: &[
            Source {
                spec: "board:road?width=640&height=480&fps=30&gop=30&bitrate=1000000",
                camera: Some("/dev/video82"),
                gop: Some(30),
                absent: BOARD_ABSENT,
                unsupported: Some("board:cabin?width=2560&height=1440"),
            },
            Source {
                spec: "v4l2:/dev/video83?width=640&height=480&fps=30&gop=15",
                camera: Some("/dev/video83"),
                gop: Some(15),
                absent: Some(("v4l2:/dev/video99", GONE)),
                unsupported: Some("v4l2:/dev/video83?width=640&height=480&fps=500"),
            },
        ],
    },
    // A USB camera that gives JPEG only, and the hardware that decodes it, which one catalogue lists for this chip.
    Machine {
        name: "imx8mp_with_jpeg_hardware",
        tree: IMX8MP,
        platform: "imx8mp",
        stack: "nxp-bsp",
        doubles: "imx8mp-bsp,v4l2jpegdec,imxvideoconvert_g2d",
        cameras: "/dev/video82=uvc,/dev/video83",
        cards: &[(80, "vsi_v4l2enc"), (81, "vsi_v4l2dec"), (82, "USB camera"), (83, "VIV"), (84, "mxc-jpeg")],
        media: &[],
        encoder: "v4l2h264enc",
        dmabuf: true,
        sources: &[Source {
            spec: "v4l2:/dev/video82?width=640&height=480&fps=30&gop=30&bitrate=1000000",
            camera: Some("/dev/video82"),
            gop: Some(30),
            absent: Some(("v4l2:/dev/video99", GONE)),
            unsupported: Some("v4l2:/dev/video82?width=2560&height=1440"),
        }],
    },
    Machine {
        name: "imx8mp_on_vpu_wrapper",
        tree: IMX8MP,
        platform: "imx8mp",
        stack: "nxp-bsp",
        doubles: "imx8mp-vpu",
        cameras: IMX8MP_IDS,
        cards: &[],
        media: &["mxc-isi"],
        encoder: "vpuenc_h264",
        dmabuf: true,
        sources: &[
            Source {
                spec: "board:road?width=640&height=480&fps=30&gop=30&bitrate=1000000",
                camera: Some("/base/soc@0/bus@30800000/i2c@30a30000/camera@3c"),
                gop: Some(30),
                absent: BOARD_ABSENT,
                unsupported: Some("board:cabin?width=2560&height=1440"),
            },
            Source {
                spec: "libcamera:/base/soc@0/bus@30800000/i2c@30a40000/camera@3c?width=640&height=480&fps=30&gop=15&codec=h265",
                camera: Some("/base/soc@0/bus@30800000/i2c@30a40000/camera@3c"),
                gop: Some(15),
                absent: LIBCAMERA_ABSENT,
                unsupported: None,
            },
        ],
    },
    Machine {
        name: "imx8mp_on_mainline",
        tree: IMX8MP,
        platform: "imx8mp",
        stack: "mainline",
        doubles: "imx8mp-mainline",
        cameras: IMX8MP_IDS,
        cards: &[],
        media: &["mxc-isi"],
        encoder: "x264enc",
        dmabuf: false,
        sources: &[
            Source {
                spec: "board:road?width=640&height=480&fps=30&gop=30&bitrate=1000000",
                camera: Some("/base/soc@0/bus@30800000/i2c@30a30000/camera@3c"),
                gop: Some(30),
                absent: LIBCAMERA_ABSENT,
                unsupported: None,
            },
            Source { spec: "test:?width=640&height=360&fps=30&gop=30&bitrate=1000000", gop: Some(30), ..SOURCE },
        ],
    },
    Machine {
        name: "qcs6490_on_camx",
        tree: QCS6490,
        platform: "qcs6490",
        stack: "camx",
        doubles: "qcs6490-camx",
        cameras: "0,1,2,3,4",
        cards: &[],
        media: &[],
        encoder: "qtic2venc",
        dmabuf: true,
        sources: &[
            Source {
                spec: "board:driver?width=640&height=480&fps=30&gop=30&bitrate=1000000",
                camera: Some("0"),
                gop: Some(30),
                absent: BOARD_ABSENT,
                unsupported: None,
            },
            Source {
                spec: "board:rear?width=640&height=480&fps=30&gop=15&codec=h265",
                camera: Some("4"),
                gop: Some(15),
                absent: BOARD_ABSENT,
                unsupported: None,
            },
            Source {
                spec: "qmmf:2?width=640&height=480&fps=30&gop=15",
                camera: Some("2"),
                gop: Some(15),
                // The element fails without a word, so that nobody can tell why.
                absent: Some(("qmmf:30?width=640&height=480", &[Kind::Absent, Kind::Broken])),
                unsupported: None,
            },
        ],
    },
    Machine {
        name: "qcs6490_on_mainline",
        tree: QCS6490_CAMSS,
        platform: "qcs6490",
        stack: "mainline",
        doubles: "qcs6490-mainline",
        cameras: QCS6490_ID,
        cards: &[(80, "iris_driver")],
        media: &["qcom-camss"],
        encoder: "v4l2h264enc",
        dmabuf: true,
        sources: &[Source {
            spec: "board:driver?width=640&height=480&fps=30&gop=30&bitrate=1000000",
            camera: Some(QCS6490_ID),
            gop: Some(30),
            absent: LIBCAMERA_ABSENT,
            // A GMSL lens without the camera service.
            unsupported: Some("board:left?width=640&height=480"),
        }],
    },
    Machine {
        name: "generic",
        tree: PC,
        platform: "generic",
        stack: "host",
        doubles: "",
        cameras: "",
        cards: &[],
        media: &[],
        encoder: "x264enc",
        dmabuf: false,
        sources: &[
            Source {
                spec: "test:?width=640&height=360&fps=30&gop=30&bitrate=1000000",
                gop: Some(30),
                unsupported: Some("board:front"),
                absent: Some(("v4l2:/dev/video99", GONE)),
                ..SOURCE
            },
            Source { spec: "file:FOLDER/footage.mp4?loop=true", absent: Some(("file:/nowhere.mp4", GONE)), ..SOURCE },
            #[cfg(feature = "demo")]
            Source { spec: "rtsp:", absent: Some(("rtsp://127.0.0.1:1/nobody", GONE)), ..SOURCE },
        ],
    },
];

/// Folders and files around a machine.
pub struct Surroundings {
    pub folder: PathBuf,
    /// Removed with the value, in the process that made it.
    _own: Option<(TempDir, TempDir)>,
    tree: PathBuf,
}

const FOLDER: &str = "MOS_CONFORMANCE_FOLDER";
const TREE: &str = "MOS_CONFORMANCE_TREE";

impl Surroundings {
    /// Makes them.
    pub fn make(machine: &Machine) -> Self {
        let (live, own) = (machine.tree.live(), TempDir::new().unwrap());
        let put = |path: String, text: &str| {
            let file = own.path().join("sys").join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        std::fs::create_dir_all(own.path().join("sys")).unwrap();
        for (number, name) in machine.cards {
            put(format!("class/video4linux/video{number}/name"), &format!("{name}\n"));
        }
        for (number, model) in machine.media.iter().enumerate() {
            put(format!("bus/media/devices/media{number}/model"), &format!("{model}\n"));
        }
        Self { folder: own.path().into(), tree: live.path().into(), _own: Some((own, live)) }
    }

    /// Those that the parent process made.
    pub fn given() -> Self {
        let path = |key| PathBuf::from(std::env::var_os(key).unwrap());
        Self { folder: path(FOLDER), tree: path(TREE), _own: None }
    }

    pub fn environment(&self, machine: &Machine) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.display().to_string();
        vec![
            (FOLDER, text(&self.folder)),
            (TREE, text(&self.tree)),
            ("MOS_DOUBLES_CAMERAS", machine.cameras.into()),
            // An encoder on the CPU must read what the guard keeps from everybody.
            ("MOS_DOUBLES_GUARD", if machine.dmabuf { "on" } else { "off" }.into()),
            ("MOS_DOUBLES_LOG", text(&self.folder.join("log"))),
            ("MOS_DOUBLES_FAULTS", text(&self.folder.join("faults"))),
        ]
    }

    pub fn tree(&self) -> &Path {
        &self.tree
    }

    pub fn sysfs(&self) -> PathBuf {
        self.folder.join("sys")
    }

    /// Asks the doubles for a fault, or none.
    pub fn fault(&self, camera: &str, fault: &str) {
        let text = if fault.is_empty() { String::new() } else { format!("{camera} {fault}\n") };
        std::fs::write(self.folder.join("faults"), text).unwrap();
    }

    /// What the doubles wrote down of one kind.
    pub fn events(&self, event: &str) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let mark = format!("\"event\":\"{event}\"");
        log.lines().filter(|l| l.contains(&mark)).map(str::to_owned).collect()
    }
}
