//! Real dmabufs, wherever the kernel has a driver that makes them without a device.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::path::Path;
use std::process::Command;

use common::example;

#[test]
fn dmabufs_of_the_kernel_are_imported_by_another_process() {
    let ran = Command::new(example("dmabuf")).output().unwrap();
    let (said, erred) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    if Path::new("/dev/udmabuf").exists() {
        assert!(ran.status.success() && said.contains("dmabufs travel over the bus"), "{said}{erred}");
    } else {
        assert_eq!(ran.status.code(), Some(77), "{said}{erred}");
        eprintln!("{said}");
    }
}
