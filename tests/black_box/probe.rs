//! `mos probe`: who the machine is, by trees that are right, wrong and hostile. Needs no daemon.

use std::fs;
use std::path::Path;
use std::process::Command;

use mos_tests::cli::{Outcome, outcome};
use serde_json::Value;

/// Files of a tree, relative to its root.
type Files<'a> = &'a [(&'a str, &'a [u8])];

const EVK: Files = &[
    ("compatible", b"fsl,imx8mp-evk\0fsl,imx8mp\0"),
    ("model", b"NXP i.MX8MPlus EVK board\0"),
    ("i2c@30a30000/#address-cells", &[0, 0, 0, 1]),
    ("i2c@30a30000/#size-cells", &[0, 0, 0, 0]),
    ("i2c@30a30000/imx219@10/compatible", b"sony,imx219\0"),
    ("i2c@30a30000/imx219@10/reg", &[0, 0, 0, 0x10]),
    ("i2c@30a30000/imx219@10/phandle", &[0, 0, 0, 7]),
    ("mos/compatible", b"mos,lenses\0"),
    ("mos/lens@0/mos,name", b"road\0"),
    ("mos/lens@0/mos,transport", b"mipi-csi2\0"),
    ("mos/lens@0/mos,sensor", &[0, 0, 0, 7]),
];

fn write(root: &Path, files: Files) {
    for (path, bytes) in files {
        let file = root.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }
}

fn probe(root: &Path, more: &[&str]) -> Outcome {
    let mut mos = Command::new(mos_tests::binary("mos"));
    outcome(mos.arg("probe").arg("--device-tree").arg(root).args(more))
}

fn json(root: &Path) -> Value {
    let done = probe(root, &["--json"]);
    assert_eq!((done.code, done.err.as_str()), (0, ""), "{}", done.out);
    serde_json::from_str(&done.out).unwrap()
}

#[test]
fn a_board_is_recognised_with_its_lenses_and_every_codec_task_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), EVK);
    let found = json(dir.path());
    assert_eq!(found["platform"], "imx8mp");
    let evidence = found["evidence"].as_str().unwrap();
    assert!(evidence.starts_with("fsl,imx8mp among compatible fsl,imx8mp-evk, fsl,imx8mp at "), "{evidence}");
    let camera = &found["cameras"][0];
    assert_eq!((&camera["name"], &camera["transport"]), (&"road".into(), &"mipi-csi2".into()));
    assert_eq!(camera["sensor"]["path"], "/i2c@30a30000/imx219@10");
    assert!(found["faults"].as_array().unwrap().is_empty());

    let codecs = found["codecs"].as_array().unwrap();
    let tasks: Vec<_> = codecs.iter().map(|c| c["task"].as_str().unwrap()).collect();
    let expected =
        ["encode h264", "encode h265", "decode h264", "decode h265", "encode jpeg", "decode jpeg", "convert"];
    assert_eq!(tasks, expected);
    // This machine has no board's hardware: the CPU's encoder remains, and each vendor's says why it does not do.
    assert_eq!(codecs[0]["chosen"]["element"], "x264enc");
    assert_eq!((&codecs[0]["chosen"]["memory"], &codecs[0]["chosen"]["in_use"]), (&"system".into(), &true.into()));
    let passed: Vec<_> = codecs[0]["passed_over"].as_array().unwrap().iter().map(|p| &p["element"]).collect();
    assert_eq!(passed, ["v4l2h264enc", "vpuenc_h264", "imxvpuenc_h264"]);
    assert!(codecs.iter().all(|c| c["passed_over"].as_array().unwrap().iter().all(|p| p["why"] != "")));

    let text = probe(dir.path(), &[]).out;
    for told in ["platform  imx8mp: ", "camera    road: mipi-csi2, ", "encode h264   x264enc\n", "not vpuenc_h264: "] {
        assert!(text.contains(told), "{told}: {text}");
    }
}

#[test]
fn machines_without_a_known_tree_are_generic_and_say_what_was_seen() {
    let dir = tempfile::tempdir().unwrap();
    let found = json(&dir.path().join("none"));
    assert_eq!(found["platform"], "generic");
    assert!(found["evidence"].as_str().unwrap().starts_with("no device tree at "));
    let accelerations: Vec<_> = found["accelerations"].as_array().unwrap().iter().map(|a| &a["name"]).collect();
    assert_eq!(accelerations, ["cuda", "qsv", "vaapi", "none"]);

    write(dir.path(), &[("compatible", b"acme,rocket\0"), ("model", b"\x1b[2J\xff\0")]);
    let found = json(dir.path());
    assert_eq!(found["platform"], "generic");
    assert!(found["evidence"].as_str().unwrap().starts_with("no supported SoC among compatible acme,rocket at "));
}

#[test]
fn wrong_lenses_are_named_and_the_right_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), EVK);
    write(dir.path(), &[("mos/lens@1/mos,name", b"rear\0"), ("mos/lens@1/mos,transport", b"\x1b[2Jsmoke\0")]);
    std::os::unix::fs::symlink(dir.path(), dir.path().join("mos/loop")).unwrap();
    let done = probe(dir.path(), &[]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains("fault     device tree node /mos/lens@1: property mos,transport"), "{}", done.out);
    assert!(done.out.contains("camera    road: ") && !done.out.contains('\u{1b}'), "{}", done.out);
}
