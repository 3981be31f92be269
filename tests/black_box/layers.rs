//! The house rules that Cargo can tell: who depends on what.

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
