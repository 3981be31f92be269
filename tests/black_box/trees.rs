//! The boards' trees of `device-tree/`, compiled and with their overlays applied, as `mos probe` reads them. The excerpts of the
//! boards' trees are compared with the kernel's own by `make kernel-trees`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mos_tests::board_tree::{Board, IMX8MP, PC, QCS6490, QCS6490_CAMSS, live_of, live_of_blob, warnings, with_overlay};
use mos_tests::cli::outcome;
use mos_tests::daemon::Setup;
use mos_tests::wait_for;
use serde_json::{Value, json};

fn probe(board: Board) -> Value {
    found_in(board.live().path(), Path::new("/nowhere"))
}

/// Nothing of the machine that runs the test gets in by another sysfs than its own.
fn found_in(tree: &Path, sysfs: &Path) -> Value {
    let mut mos = Command::new(mos_tests::binary("mos"));
    let done = outcome(mos.arg("probe").arg("--device-tree").arg(tree).arg("--sysfs").arg(sysfs).arg("--json"));
    assert_eq!((done.code, done.err.as_str()), (0, ""), "{}", done.out);
    serde_json::from_str(&done.out).unwrap()
}

/// One field of every camera.
fn each(found: &Value, field: &str) -> Vec<Value> {
    found["cameras"].as_array().unwrap().iter().map(|c| c.pointer(field).cloned().unwrap_or_default()).collect()
}

#[test]
fn the_evk_has_two_mipi_lenses() {
    let found = probe(IMX8MP);
    assert_eq!(found["platform"], "imx8mp");
    let evidence = found["evidence"].as_str().unwrap();
    assert!(evidence.starts_with("fsl,imx8mp among compatible fsl,imx8mp-evk, fsl,imx8mp at "), "{evidence}");
    assert!(evidence.ends_with(" (NXP i.MX8MPlus EVK board)"), "{evidence}");
    assert_eq!(found["faults"], json!([]));
    assert_eq!(each(&found, "/name"), ["road", "cabin"]);
    assert_eq!(each(&found, "/role"), ["road", "driver"]);
    assert_eq!(each(&found, "/transport"), ["mipi-csi2"; 2]);
    let buses = ["i2c@30a30000", "i2c@30a40000"].map(|bus| format!("/soc@0/bus@30800000/{bus}/camera@3c"));
    assert_eq!(each(&found, "/sensor/path"), buses);
    assert_eq!(each(&found, "/sensor/compatible/0"), ["ovti,ov5640"; 2]);
    assert_eq!(each(&found, "/sensor/address"), [0x3c; 2]);
    assert_eq!(each(&found, "/sensor/enabled"), [true; 2]);
    assert_eq!(each(&found, "/rotation"), [0, 180]);
    assert_eq!(each(&found, "/orientation"), ["front", "back"]);
}

#[test]
fn the_rb3_has_its_own_lens_and_four_behind_gmsl_whoever_drives_them() {
    for board in [QCS6490, QCS6490_CAMSS] {
        let found = probe(board);
        assert_eq!(found["platform"], "qcs6490");
        let evidence = found["evidence"].as_str().unwrap();
        assert!(evidence.starts_with("qcom,qcs6490-rb3gen2 among compatible "), "{evidence}");
        assert_eq!(found["faults"], json!([]));
        assert_eq!(each(&found, "/name"), ["driver", "front", "left", "right", "rear"]);
        assert_eq!(each(&found, "/transport"), ["mipi-csi2", "gmsl2", "gmsl2", "gmsl2", "gmsl2"]);
        assert_eq!(each(&found, "/link"), [json!(null), json!(0), json!(1), json!(2), json!(3)]);
        let sensor = &found["cameras"][0]["sensor"];
        assert_eq!(sensor["path"], "/soc@0/cci@ac4b000/i2c-bus@1/camera@1a");
        assert_eq!((&sensor["compatible"], &sensor["address"]), (&json!(["sony,imx577"]), &json!(0x1a)));
        let deserializer = "/soc@0/cci@ac4a000/i2c-bus@0/deserializer@29";
        assert_eq!(each(&found, "/deserializer/path")[1..], [deserializer; 4]);
        assert_eq!(each(&found, "/deserializer/compatible/0")[1..], ["maxim,max96712"; 4]);
        let serializer = |link: usize| format!("{deserializer}/i2c-atr/i2c@{link}/serializer@40");
        assert_eq!(each(&found, "/serializer/path")[1..], [0, 1, 2, 3].map(serializer));
        assert_eq!(each(&found, "/serializer/compatible/0")[1..], ["maxim,max9295a"; 4]);
    }
}

#[test]
fn an_unknown_board_is_generic_with_the_lenses_of_its_tree() {
    let found = probe(PC);
    assert_eq!(found["platform"], "generic");
    let evidence = found["evidence"].as_str().unwrap();
    let seen = "no supported SoC among compatible acme,industrial-pc, linux,dummy-virt at ";
    assert!(evidence.starts_with(seen) && evidence.ends_with("(An industrial PC)"), "{evidence}");
    assert_eq!(each(&found, "/name"), ["front"]);
    assert_eq!(each(&found, "/sensor/enabled"), [false]);
    let problem = found["cameras"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("disables its sensor"), "{problem}");
}

#[test]
fn the_configuration_may_change_what_the_tree_says_of_a_lens() {
    let tree = IMX8MP.live();
    let change = |name: &str, more: &str| format!("[[board_lens]]\nname = \"{name}\"\n{more}\n");
    let setup = Setup::new()
        .sections(&format!("[board]\ndevice_tree = \"{}\"\nsysfs = \"/nowhere\"\n", tree.path().display()))
        .sections(&change("road", "disabled = true"))
        .sections(&change("cabin", "rotation = 90\nrole = \"passengers\""))
        .sections(&change("rear", "camera_index = 2"));
    setup.write();
    let mut mos = Command::new(mos_tests::binary("mos"));
    let done = outcome(mos.args(["probe", "--json", "--config"]).arg(setup.config()));
    let found: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(each(&found, "/name"), ["cabin"]);
    assert_eq!((each(&found, "/rotation"), each(&found, "/role")), (vec![json!(90)], vec![json!("passengers")]));
    let fault = found["faults"][0].as_str().unwrap();
    assert!(fault.starts_with("the configuration changes the lens rear, which the device tree at "), "{fault}");
}

/// A line that is not there is told, and recording goes on.
#[test]
fn a_line_that_cannot_be_used_is_a_problem_and_no_more() {
    let setup = Setup::new()
        .camera("road", "test:?width=320&height=240&fps=10")
        .sections("[board]\nstatus_line = \"gpiochip9999:3\"\nignition_line = \"MOS_NO_SUCH_LINE\"\n");
    let daemon = setup.start();
    let health = wait_for("a recorded lens", Duration::from_mins(3), || {
        let health = daemon.client.get("/v1/health").ok();
        (health["lenses"][0]["stored"].as_u64().unwrap() > 0).then_some(health)
    });
    let problems = health["problems"].to_string();
    for told in [
        "board.status_line: GPIO line gpiochip9999:3: there is no chip /dev/gpiochip9999",
        "board.ignition_line: GPIO line MOS_NO_SUCH_LINE: no line of any GPIO chip is called MOS_NO_SUCH_LINE",
    ] {
        assert!(problems.contains(told), "{problems}");
    }
}

#[test]
fn an_overlay_on_the_wrong_board_is_refused_with_a_message() {
    for (base, overlay) in [
        ("qcs6490-rb3gen2", "imx8mp-evk-mos-two-mipi"),
        ("pc", "imx8mp-evk-mos-two-mipi"),
        ("imx8mp-evk", "qcs6490-rb3gen2-mos"),
        ("pc", "qcs6490-rb3gen2-mos"),
    ] {
        let refused = Board { base, overlay: Some(overlay) }.blob().unwrap_err();
        assert!(refused.contains("FDT_ERR_NOTFOUND"), "{overlay} on {base}: {refused}");
    }
}

/// The overlays fit the boards' whole trees as the kernel compiles them, and what MOS then sees is what the excerpts show.
#[test]
#[ignore = "needs the kernel's trees: make kernel-trees"]
fn on_the_kernels_own_trees_the_overlays_give_the_same_lenses() {
    let trees = std::env::var_os("KERNEL_TREES").expect("KERNEL_TREES: the folder that make kernel-trees fills");
    for (base, excerpt) in [
        ("imx8mp-evk", IMX8MP),
        ("qcs6490-rb3gen2", QCS6490),
        ("qcs6490-rb3gen2-vision-mezzanine", QCS6490),
        ("qcs6490-rb3gen2-vision-mezzanine", QCS6490_CAMSS),
    ] {
        let base = Path::new(&trees).join(base).with_extension("dtb");
        let whole = with_overlay(&base, excerpt.overlay.unwrap()).unwrap();
        let (before, after) = (warnings(&fs::read(&base).unwrap()), warnings(&whole));
        assert_eq!(after, before, "the overlay on {} adds nothing odd", base.display());
        let mut found = [live_of_blob(&whole), excerpt.live()].map(|tree| found_in(tree.path(), Path::new("/nowhere")));
        for probed in &mut found {
            // It names the folder.
            probed.as_object_mut().unwrap().remove("evidence").unwrap();
        }
        assert_eq!(found[0], found[1], "{}", base.display());
        assert!(found[0]["cameras"].as_array().unwrap().len() >= 2);
    }
}

/// The guide's example is a tree, and before the module is there its board is generic with a lens.
#[test]
fn the_porting_guide_describes_a_board_that_is_read() {
    let guide = fs::read_to_string(mos_tests::repository().join("hal/src/porting.md")).unwrap();
    let source = guide.split("```dts\n").nth(1).unwrap().split("```").next().unwrap();
    let found = found_in(live_of(source).path(), Path::new("/nowhere"));
    assert_eq!((&found["platform"], &found["faults"]), (&json!("generic"), &json!([])));
    assert!(found["evidence"].as_str().unwrap().contains("compatible acme,rocket1-evk, acme,rocket1 at "), "{found}");
    assert_eq!(
        (each(&found, "/name"), each(&found, "/sensor/path")),
        (vec![json!("front")], vec![json!("/i2c@4000000/camera@10")])
    );
    // What the guide sends its reader to exists.
    for path in guide
        .split('`')
        .filter(|word| word.contains('/') && !word.contains([' ', '\n', '$']) && !word.contains("rocket1"))
    {
        let known =
            ["hal/", "device-tree/", "meta-mos/", "tests/", "codecs/"].iter().any(|room| path.starts_with(room));
        let path = if path.starts_with("codecs/") { format!("hal/src/{path}") } else { path.to_owned() };
        assert!(!known || mos_tests::repository().join(&path).exists(), "{path}");
    }
}

/// Without its overlay a board is known and has no lenses; that is no fault.
#[test]
fn a_board_without_the_overlay_has_no_lenses() {
    for (base, name) in [("imx8mp-evk", "imx8mp"), ("qcs6490-rb3gen2", "qcs6490"), ("qcs6490-rb3gen2-camss", "qcs6490")]
    {
        let found = probe(Board { base, overlay: None });
        assert_eq!(found["platform"], name);
        assert_eq!((&found["cameras"], &found["faults"]), (&json!([]), &json!([])));
    }
}

/// A sysfs in which a bus of the tree exists, and a driver of the kernel has the deserializer on it.
fn sysfs_with_driver(root: &Path) {
    let tree = "../../../../firmware/devicetree/base/soc@0/cci@ac4a000/i2c-bus@0";
    let devices = root.join("bus/i2c/devices");
    for (device, node) in [("i2c-20", tree.to_owned()), ("20-0029", format!("{tree}/deserializer@29"))] {
        fs::create_dir_all(devices.join(device)).unwrap();
        symlink(node, devices.join(device).join("of_node")).unwrap();
    }
    symlink("../../../../bus/i2c/drivers/max96712", devices.join("20-0029/driver")).unwrap();
}

#[test]
fn gmsl_links_are_listed_by_probe_and_daemon_with_who_drives_them() {
    let (tree, sysfs) = (QCS6490_CAMSS.live(), tempfile::tempdir().unwrap());
    sysfs_with_driver(sysfs.path());
    let chip = &found_in(tree.path(), sysfs.path())["gmsl"][0];
    assert_eq!((&chip["chip"]["address"], &chip["access"]), (&json!(0x29), &json!("read_only")));
    assert_eq!(chip["access_why"], "the kernel's driver max96712 sets it up");
    let lenses: Vec<_> = chip["links"].as_array().unwrap().iter().map(|l| &l["lens"]).collect();
    assert_eq!(lenses, ["front", "left", "right", "rear"]);

    let board = |sysfs: &Path| {
        format!("[board]\ndevice_tree = \"{}\"\nsysfs = \"{}\"\n", tree.path().display(), sysfs.display())
    };
    let setup = Setup::new().sections(&board(sysfs.path()));
    let daemon = setup.start();
    let list = daemon.client.get("/v1/capture/devices").ok();
    assert_eq!(list["platform"], "qcs6490");
    let links = list["gmsl"].as_array().unwrap();
    assert_eq!(links.iter().map(|l| &l["link"]).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!((&links[1]["lens"], &links[1]["access"]), (&json!("left"), &json!("read_only")));
    // The bus that this sysfs names is not on the machine of the test: no state, and no word of one.
    assert!(links[1]["problem"].as_str().unwrap().ends_with("is not this machine's sysfs"), "{links:?}");
    assert_eq!(links[1]["state"], json!(null));
    let metrics = daemon.client.get("/v1/metrics").text();
    let deserializer = "/soc@0/cci@ac4a000/i2c-bus@0/deserializer@29";
    let known = format!("mos_gmsl_link_known{{lens=\"left\",deserializer=\"{deserializer}\",link=\"1\"}} 0");
    assert!(metrics.lines().any(|line| line == known), "{metrics}");

    let setup = Setup::new().sections(&board(Path::new("/nowhere")));
    let dark = setup.start();
    let list = dark.client.get("/v1/capture/devices").ok();
    let link = &list["gmsl"][0];
    assert_eq!((&link["access"], &link["problem"]), (&json!("none"), &link["access_why"]));
    assert_eq!(link["problem"], "the kernel shows no I2C bus of /soc@0/cci@ac4a000/i2c-bus@0");
}
