//! Nothing in MOS maps the pixels of a camera: every place that maps a buffer is listed here with what it maps.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Calls that make a buffer's bytes readable or writable for the CPU.
const CALLS: [&str; 8] = [
    "map_readable",
    "map_writable",
    "mapped_buffer",
    "map_read(",
    "map_write(",
    "from_buffer_ref_",
    "::mmap",
    "buffer.copy_to_slice",
];

/// Files that may, and why.
const ALLOWED: [(&str, &str); 6] = [
    ("hal/src/codecs/jpeg.rs", "pictures that a decoder made of stored keyframes, and finished JPEGs"),
    ("hal/src/sources/samples.rs", "coded access units and their configuration"),
    ("hal/src/sources/test_pattern.rs", "the synthetic scene, which the CPU paints"),
    ("hal/src/sources/camera/tests.rs", "stand-ins for cameras in tests"),
    ("hal/src/frames.rs", "pictures in CPU memory, for readers of the frame bus; dmabufs are passed on as they are"),
    ("hal/frame/src/sys.rs", "shared pages and copies of the frame bus, made for readers that ask to see pixels"),
];

#[test]
fn no_other_file_maps_a_buffer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut seen = Vec::new();
    for dir in ["hal/src", "hal/frame/src", "app/src"] {
        for file in sources(&root.join(dir)) {
            let text = fs::read_to_string(&file).unwrap();
            if CALLS.iter().any(|call| text.contains(call)) {
                seen.push(file.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let stray: Vec<_> = seen.iter().filter(|file| ALLOWED.iter().all(|(allowed, _)| allowed != file)).collect();
    assert!(stray.is_empty(), "these map buffers without a reason that is written down: {stray:?}");
    for (allowed, why) in ALLOWED {
        assert!(seen.iter().any(|file| file == allowed), "{allowed} maps nothing any more: {why}");
    }
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}
