#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::*;

fn cells(cells: &[u32]) -> Vec<u8> {
    cells.iter().flat_map(|c| c.to_be_bytes()).collect()
}

/// A board with a sensor, a deserializer and two lenses, as files relative to the root.
fn board() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("compatible", b"fsl,imx8mp-evk\0fsl,imx8mp\0".to_vec()),
        ("model", b"NXP i.MX8MPlus EVK board\0".to_vec()),
        ("i2c@30a30000/#address-cells", cells(&[1])),
        ("i2c@30a30000/#size-cells", cells(&[0])),
        ("i2c@30a30000/imx219@10/compatible", b"sony,imx219\0".to_vec()),
        ("i2c@30a30000/imx219@10/reg", cells(&[0x10])),
        ("i2c@30a30000/imx219@10/phandle", cells(&[7])),
        ("i2c@30a30000/gmsl@29/compatible", b"maxim,max96712\0".to_vec()),
        ("i2c@30a30000/gmsl@29/reg", cells(&[0x29])),
        ("i2c@30a30000/gmsl@29/phandle", cells(&[8])),
        ("i2c@30a30000/gmsl@29/status", b"disabled\0".to_vec()),
        ("mos/compatible", b"mos,lenses\0".to_vec()),
        ("mos/lens@0/mos,name", b"road\0".to_vec()),
        ("mos/lens@0/mos,transport", b"mipi-csi2\0".to_vec()),
        ("mos/lens@0/mos,sensor", cells(&[7])),
        ("mos/lens@0/mos,role", b"road\0".to_vec()),
        ("mos/lens@0/rotation", cells(&[180])),
        ("mos/lens@1/mos,name", b"left\0".to_vec()),
        ("mos/lens@1/mos,transport", b"gmsl2\0".to_vec()),
        ("mos/lens@1/mos,deserializer", cells(&[8])),
        ("mos/lens@1/mos,link", cells(&[2])),
        ("mos/lens@1/mos,camera-index", cells(&[3])),
        ("mos/lens@1/orientation", cells(&[2])),
    ]
}

fn write(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let file = dir.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }
    dir
}

fn with(path: &'static str, bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut files = board();
    files.retain(|(p, _)| *p != path);
    files.push((path, bytes.to_vec()));
    files
}

fn found(files: &[(&str, Vec<u8>)]) -> (Vec<String>, Vec<String>) {
    let dir = write(files);
    let (lenses, faults) = lenses(&read(dir.path()).unwrap());
    (lenses.iter().map(|l| l.name.to_string()).collect(), faults.iter().map(ToString::to_string).collect())
}

#[test]
fn a_board_says_who_it_is_and_what_looks_where() {
    let dir = write(&board());
    let who = identity(dir.path()).unwrap();
    assert_eq!(who.compatible, ["fsl,imx8mp-evk", "fsl,imx8mp"]);
    assert_eq!(who.model.as_deref(), Some("NXP i.MX8MPlus EVK board"));
    let (lenses, faults) = lenses(&read(dir.path()).unwrap());
    assert_eq!(faults, []);
    let [road, left] = &lenses[..] else { panic!("{lenses:?}") };
    let sensor = road.sensor.as_ref().unwrap();
    assert_eq!((road.name.as_str(), road.role.as_deref(), road.rotation), ("road", Some("road"), 180));
    assert_eq!((sensor.path.as_str(), sensor.address, sensor.enabled), ("/i2c@30a30000/imx219@10", 0x10, true));
    let Attachment::Gmsl2 { deserializer, link, .. } = &left.attachment else { panic!("{left:?}") };
    assert_eq!((deserializer.address, deserializer.enabled, *link), (0x29, false, 2));
    assert_eq!(
        (left.orientation, left.camera_index, left.sensor.is_none()),
        (Some(Orientation::External), Some(3), true)
    );
}

#[test]
fn one_wrong_lens_costs_only_itself_and_says_what_is_wrong() {
    let right = ["road", "left"];
    for (path, bytes, lost, told) in [
        ("mos/lens@0/mos,name", &b"Road!\0"[..], "road", "no lens id"),
        ("mos/lens@0/mos,name", b"road", "road", "must end with a NUL"),
        ("mos/lens@0/mos,name", b"ro\xffad\0", "road", "printable ASCII"),
        ("mos/lens@0/mos,name", b"\x1b[2J\0", "road", "printable ASCII"),
        ("mos/lens@0/mos,name", b"left\0", "left", "is taken"),
        ("mos/lens@0/mos,sensor", b"\0\0\0", "road", "3 bytes are no whole cells"),
        ("mos/lens@0/mos,sensor", &[0, 0, 0, 99], "road", "points to no node"),
        ("mos/lens@0/mos,transport", b"smoke\0", "road", "mipi-csi2 or gmsl2"),
        ("mos/lens@0/rotation", &[0, 0, 0, 45], "road", "0, 90, 180 or 270"),
        ("mos/lens@1/mos,link", &[0, 0, 0, 4], "left", "0 to 3"),
        ("mos/lens@1/mos,link", &[0, 0, 0, 1, 0, 0, 0, 2], "left", "one cell, not 2"),
        ("i2c@30a30000/gmsl@29/reg", &[0, 0, 1, 0x29], "left", "7-bit I2C address"),
        ("i2c@30a30000/gmsl@29/reg", &[], "left", "7-bit I2C address"),
    ] {
        let (names, faults) = found(&with(path, bytes));
        let expected: Vec<_> =
            if told == "is taken" { vec!["left"] } else { right.iter().copied().filter(|n| *n != lost).collect() };
        assert_eq!(names, expected, "{path}: {faults:?}");
        assert!(faults.len() == 1 && faults[0].contains(told), "{path}: {faults:?}");
        assert!(faults[0].contains("mos/lens@") || faults[0].contains("/i2c@"), "names the node: {faults:?}");
    }
    let (names, faults) = found(&with("i2c@30a30000/#size-cells", &cells(&[1])));
    assert!(names.is_empty() && faults.iter().all(|f| f.contains("I2C bus")), "{faults:?}");
    let (names, _) = found(&with("mos/lens@1/status", b"disabled\0"));
    assert_eq!(names, ["road"]);
    let (names, faults) = found(&with("mos/compatible", b"someone,else\0"));
    assert!(names.is_empty() && faults[0].contains("mos,lenses"), "{faults:?}");
}

/// D1: links are not followed, so that a loop of them is nothing.
#[test]
fn loops_pipes_and_names_that_are_no_text_are_passed_over() {
    let dir = write(&board());
    symlink(dir.path(), dir.path().join("mos/loop")).unwrap();
    symlink(dir.path().join("i2c@30a30000"), dir.path().join("i2c@30a30000/again")).unwrap();
    symlink("/dev/zero", dir.path().join("mos/lens@0/endless")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("mos/lens@0/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(dir.path().join(std::ffi::OsStr::from_bytes(b"mos/\xff\xfe"))).unwrap();
    let (lenses, faults) = lenses(&read(dir.path()).unwrap());
    assert_eq!((lenses.len(), faults.len()), (2, 0));
    fs::remove_file(dir.path().join("compatible")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("compatible"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(identity(dir.path()).unwrap().compatible, [""; 0]);
}

/// A phandle may point anywhere: to the lens itself, up to its parent, to the root, to two nodes.
#[test]
fn phandles_in_a_circle_cost_only_their_lens() {
    for (path, phandle) in [("mos/lens@0/phandle", 7), ("mos/phandle", 7), ("phandle", 7)] {
        let mut files = board();
        files.retain(|(p, _)| *p != "i2c@30a30000/imx219@10/phandle");
        files.push((path, cells(&[phandle])));
        let (names, faults) = found(&files);
        assert_eq!(names, ["left"], "{path}: {faults:?}");
        assert_eq!(faults.len(), 1, "{path}: {faults:?}");
    }
}

/// D1: too deep, too large.
#[test]
fn what_no_board_has_is_an_error() {
    let dir = write(&board());
    let deep: PathBuf = std::iter::repeat_n("n", DEPTH + 1).collect();
    fs::create_dir_all(dir.path().join(&deep)).unwrap();
    assert!(matches!(read(dir.path()), Err(TreeError::TooLarge { what: "levels", .. })));
    let dir = write(&with("compatible", &[b'a'; 5000]));
    assert!(matches!(identity(dir.path()), Err(TreeError::TooLarge { what: "bytes in a property", .. })));
    let dir = write(&with("mos/lens@0/mos,role", &vec![b'a'; 1 << 20]));
    assert!(matches!(read(dir.path()), Err(TreeError::TooLarge { what: "bytes in a property", .. })));
    let dir = write(&[]);
    assert!(matches!(identity(&dir.path().join("none")), Err(TreeError::Absent(_))));
    let dir = write(&with("compatible", b"fsl,imx8mp\0\xff\xfe\0"));
    assert!(identity(dir.path()).unwrap_err().to_string().contains("printable ASCII"));
}

/// D1: every property and every node within its own limit, and yet far more than any board has.
#[test]
fn much_of_what_is_small_is_an_error_before_it_takes_memory() {
    let everything = |e: TreeError| matches!(e, TreeError::TooLarge { what: "bytes in all", .. });
    let dir = write(&board());
    let lens = dir.path().join("mos/lens@0");
    (0..2200).for_each(|n| fs::write(lens.join(format!("p{n}")), [b'a'; 4096]).unwrap());
    assert!(everything(read(dir.path()).unwrap_err()), "values");
    let (_, faults) = LensTree { root: dir.path().into(), overrides: Vec::new() }.lenses();
    assert!(faults.len() == 1 && faults[0].contains("more than 8388608 bytes in all"), "{faults:?}");
    assert_eq!(identity(dir.path()).unwrap().compatible.len(), 2, "the board is known all the same");
    let dir = write(&board());
    let lens = dir.path().join("mos/lens@0");
    (0..50_000).for_each(|n| fs::write(lens.join(format!("p{n}")), b"").unwrap());
    assert!(everything(read(dir.path()).unwrap_err()), "empty values");
    let dir = write(&board());
    // Long paths: each node keeps its whole one.
    let deep: PathBuf = std::iter::repeat_n("n".repeat(120), DEPTH - 1).collect();
    fs::create_dir_all(dir.path().join(&deep)).unwrap();
    (0..2500).for_each(|n| fs::create_dir(dir.path().join(&deep).join(n.to_string())).unwrap());
    assert!(everything(read(dir.path()).unwrap_err()), "paths");
}

/// D1: lenses that are wrong are not sought for ever.
#[test]
fn a_crowd_of_lenses_is_cut_off_even_if_all_are_wrong() {
    let dir = write(&board());
    for n in 0..100 {
        let lens = dir.path().join(format!("mos/lens@{:x}", 16 + n));
        fs::create_dir(&lens).unwrap();
        fs::write(lens.join("mos,name"), b"Wrong!\0").unwrap();
    }
    let (lenses, faults) = lenses(&read(dir.path()).unwrap());
    assert_eq!((lenses.len(), faults.len()), (2, 31));
    assert!(faults[30].to_string().contains("more than 32 lenses"), "{}", faults[30]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// D2, D3: any bytes in any property of a good tree.
    #[test]
    fn no_value_makes_it_panic_or_write_control_characters(
        at in any::<prop::sample::Index>(),
        value in prop::collection::vec(any::<u8>(), 0..24),
        cut in any::<bool>(),
    ) {
        let mut node = good();
        let mut paths = Vec::new();
        node.each(&mut |n, p| paths.push((n.to_owned(), p.to_owned())));
        let (path, property) = &paths[at.index(paths.len())];
        let value = value.clone();
        node.change(path, property, &|old: &mut Vec<u8>| {
            if cut { old.truncate(value.len()); } else { old.clone_from(&value); }
        });
        let (lenses, faults) = lenses(&node);
        for text in faults.iter().map(ToString::to_string).chain(lenses.iter().map(|l| l.name.to_string())) {
            prop_assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
        }
    }

    /// D1, D2: any tree of directories, files and links comes to an end.
    #[test]
    fn no_tree_makes_it_panic_or_hang(
        entries in prop::collection::vec((0..8usize, 0..12usize, 0..3u8, prop::collection::vec(any::<u8>(), 0..40)), 0..24)
    ) {
        let names = ["mos", "lens@0", "lens@1", "i2c@1", "compatible", "reg", "phandle", "mos,name", "mos,sensor", "status", "\u{1b}x", "lens@zz"];
        let dir = tempfile::tempdir().unwrap();
        let mut dirs = vec![dir.path().to_owned()];
        for (parent, name, kind, bytes) in entries {
            let parent = dirs[parent % dirs.len()].clone();
            let path = parent.join(names[name]);
            match kind {
                0 => if fs::create_dir(&path).is_ok() { dirs.push(path) },
                1 => { let _ = fs::write(&path, bytes); }
                _ => { let _ = symlink(dir.path(), &path); }
            }
        }
        let _ = identity(dir.path());
        if let Ok(node) = read(dir.path()) {
            let _ = lenses(&node);
        }
    }
}

/// The good tree, read once.
fn good() -> Node {
    use std::sync::OnceLock;
    static GOOD: OnceLock<Node> = OnceLock::new();
    GOOD.get_or_init(|| read(write(&board()).path()).unwrap()).clone()
}

impl Node {
    fn each(&self, f: &mut impl FnMut(&str, &str)) {
        self.properties.keys().for_each(|p| f(&self.path, p));
        self.children.iter().for_each(|c| c.each(f));
    }

    fn change(&mut self, path: &str, property: &str, f: &impl Fn(&mut Vec<u8>)) {
        if self.path == path
            && let Some(value) = self.properties.get_mut(property)
        {
            f(value);
        }
        self.children.iter_mut().for_each(|c| c.change(path, property, f));
    }
}
