//! The house rules that Cargo and the sources can tell: who depends on what, and where `unsafe` stands.

use std::process::Command;

use mos_tests::cli::tool;

fn tree(args: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(mos_tests::repository()).args(["tree", "--locked", "--offline", "--prefix", "none"]).args(args);
    String::from_utf8(tool(&mut cargo)).unwrap()
}

#[test]
fn the_app_has_no_gstreamer_and_no_hardware_crate() {
    for features in [&[][..], &["--features", "demo"]] {
        let direct = tree(&[&["-p", "mos", "--depth", "1", "-e", "normal,build"], features].concat());
        for hardware in ["gstreamer", "glib", "v4l", "retina", "libcamera"] {
            assert!(!direct.lines().any(|l| l.starts_with(hardware)), "app depends on {hardware}:\n{direct}");
        }
        assert!(direct.lines().any(|l| l.starts_with("mos-hal ")));
    }
}

#[test]
fn the_mp4_model_is_pure() {
    let all = tree(&["-p", "mos-mp4", "-e", "normal"]);
    for line in all.lines() {
        assert!(
            !["tokio", "nix", "libc", "rusqlite", "mos-hal"].iter().any(|c| line.starts_with(&format!("{c} "))),
            "{all}"
        );
    }
}

#[test]
fn the_firmware_build_has_no_demo_server_and_only_ring() {
    let all = tree(&["-p", "mos", "-e", "normal"]);
    for absent in ["gstreamer-rtsp-server ", "aws-lc-rs ", "openssl ", "native-tls "] {
        assert!(!all.lines().any(|l| l.starts_with(absent)), "{absent} is in the default build");
    }
    assert!(all.lines().any(|l| l.starts_with("ring ")));
}

#[test]
fn every_dependency_comes_from_the_registry() {
    let lock = std::fs::read_to_string(mos_tests::repository().join("Cargo.lock")).unwrap();
    for line in lock.lines().filter(|l| l.starts_with("source = ")) {
        assert!(line.contains("registry+https://github.com/rust-lang/crates.io-index"), "{line}");
    }
}

/// Licences that ask for no more than their text beside the program.
const LICENCES: [&str; 11] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "0BSD",
];

/// Whether an SPDX expression can be met by them. Flat ones and one level of brackets are all that crates use.
fn can_be_met(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], "").replace(" / ", " OR ").replace('/', " OR ");
    // AND binds closer, but in `(A OR B) AND C` brackets do: asked for each of them, both ways are strict enough.
    let parts = |text: &str, by: &str| text.split(by).map(|part| part.trim().to_owned()).collect::<Vec<_>>();
    let known = |licence: &String| LICENCES.contains(&licence.as_str());
    if expression.contains('(') {
        return parts(&flat, " AND ").iter().all(|all| parts(all, " OR ").iter().any(known));
    }
    parts(&flat, " OR ").iter().any(|any| parts(any, " AND ").iter().all(known))
}

#[test]
fn every_crate_of_the_program_has_a_licence_that_can_be_met() {
    assert!(can_be_met("(MIT OR GPL-3.0) AND ISC") && can_be_met("MIT/Apache-2.0") && can_be_met("GPL-2.0 OR MIT"));
    for strange in ["GPL-3.0", "MIT AND GPL-3.0", "(GPL-3.0 OR MPL-2.0) AND MIT", "", "LGPL-2.1"] {
        assert!(!can_be_met(strange), "{strange}");
    }
    let all = tree(&["-p", "mos", "--features", "demo", "-e", "normal,build", "-f", "{p}|{l}"]);
    let mut judged = 0;
    for line in all.lines().map(|line| line.trim_end_matches(" (*)")).filter(|line| !line.starts_with("mos")) {
        let (name, licence) = line.split_once('|').unwrap();
        assert!(can_be_met(licence), "{name}: {licence:?}");
        judged += 1;
    }
    assert!(judged > 100, "only {judged} crates were seen");
}

/// Crates that come in two versions, because the crates that want them have not agreed yet. One more is asked about here.
const TWICE: [&str; 14] = [
    "bitflags",
    "block-buffer",
    "cpufeatures",
    "crypto-common",
    "digest",
    "generic-array",
    "getrandom",
    "hashbrown",
    "nix",
    "rand",
    "rand_core",
    "sha2",
    "socket2",
    "syn",
];

#[test]
fn no_more_crates_come_twice_than_are_known() {
    let all = tree(&["-p", "mos", "--features", "demo", "-e", "normal", "-d", "--depth", "0"]);
    for name in all.lines().filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty()) {
        assert!(TWICE.contains(&name), "{name} comes in several versions now");
    }
}

/// Sources of the program that need `unsafe`: for a descriptor, an ioctl or another call of the kernel that no crate makes
/// safely, for memory that is shared with other processes, or for C. Why, each block says itself (a lint asks for it).
const UNSAFE: [&str; 19] = [
    "app/src/archive/disk/real.rs",
    "app/src/capture/worker/child.rs",
    "app/src/capture/worker/parent.rs",
    "app/src/daemon/activation.rs",
    "app/src/daemon/hotplug.rs",
    "app/src/daemon/lean.rs",
    "app/src/daemon/signals.rs",
    "app/src/http/peer.rs",
    "app/src/upload/gentle.rs",
    "hal/frame-gst/src/memory.rs",
    "hal/frame/src/publisher/buffers.rs",
    "hal/frame/src/subscriber.rs",
    "hal/frame/src/sys.rs",
    "hal/src/clock/system.rs",
    "hal/src/demo.rs",
    "hal/src/frames.rs",
    "hal/src/hotplug.rs",
    "hal/src/power.rs",
    "hal/src/sources/camera/signal.rs",
];

#[test]
fn unsafe_stands_only_where_c_and_the_kernel_ask_for_it() {
    let repository = mos_tests::repository();
    let mut folders: Vec<_> = ["app/src", "app/mp4/src", "hal/src", "hal/frame/src", "hal/frame-gst/src"]
        .map(|at| repository.join(at))
        .into();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "tests" {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") && name != "tests.rs" {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
                if code.flat_map(str::split_whitespace).any(|word| word.trim_start_matches('(') == "unsafe") {
                    found.push(path.strip_prefix(&repository).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
    }
    found.sort();
    assert_eq!(found, UNSAFE, "unsafe code comes or goes: is there no safe way?");
}
