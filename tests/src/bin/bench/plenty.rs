//! An archive of 100,000 segments: one real segment, written over and over with another identity.
//!
//! The identity box is the one documented in `mos-mp4` (offsets below); everything else of the copies is the real recording,
//! so whatever opens one of them finds what it would find in a grown archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mos_tests::daemon::Setup;

use crate::scratch;

/// Segments in all.
pub(crate) const SEGMENTS: u32 = 100_000;
/// The lenses that share them.
pub(crate) const LENSES: [&str; 4] = ["road", "cabin", "left", "right"];
/// Length of a segment in seconds.
pub(crate) const SECONDS: i64 = 30;

/// Where the body of the identity box begins: `ftyp` 32, box header 8, extended type 16.
const BODY: usize = 56;
const BODY_LEN: usize = 128;

/// Makes the archive; takes a minute. The setup has no camera.
pub(crate) fn archive(name: &str) -> Setup {
    let root = scratch(name);
    let source = small_source(&root);
    let setup = Setup::new()
        .root(&root.join("archive"))
        .storage("segment_seconds", &SECONDS.to_string())
        .storage("max_bytes", "\"64GiB\"")
        .camera("road", &format!("file:{}?loop=true", source.display()));
    let daemon = setup.start();
    let segments = daemon.await_closed("road", 1, Duration::from_mins(1));
    let template = daemon.file(&segments[0]);
    daemon.stop();
    let bytes = fs::read(&template).unwrap();
    let run = template.parent().unwrap().to_owned();
    let clock = fs::read(run.join("clock")).unwrap();
    let segments = run.parent().unwrap().parent().unwrap().to_owned();
    fs::remove_dir_all(&segments).unwrap();
    let _ = fs::remove_dir_all(root.join("archive/index"));
    for lens in LENSES {
        let folder = segments.join(lens).join("1");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("clock"), &clock).unwrap();
        let each = SEGMENTS / LENSES.len() as u32;
        for seq in 0..each {
            let copy = renamed(&bytes, lens, seq, i64::from(seq) - i64::from(each));
            fs::write(folder.join(format!("{seq}.mp4")), copy).unwrap();
        }
    }
    Setup::new().root(&root.join("archive")).storage("max_bytes", "\"64GiB\"")
}

/// A tiny picture once a second, so that 100,000 segments fit anywhere.
fn small_source(folder: &Path) -> PathBuf {
    let path = folder.join("small.mp4");
    let args = "-nostdin -v error -y -f lavfi -i color=gray:size=160x96:rate=1:duration=60 -c:v libx264 -g 5 -bf 0";
    let status = Command::new("ffmpeg").args(args.split(' ')).arg(&path).status().unwrap();
    assert!(status.success());
    path
}

/// The segment under another lens and number, `turn` segment lengths later.
fn renamed(segment: &[u8], lens: &str, seq: u32, turn: i64) -> Vec<u8> {
    let mut bytes = segment.to_vec();
    let body = &mut bytes[BODY..BODY + BODY_LEN];
    let shift = turn * SECONDS;
    body[4] = lens.len() as u8;
    body[8..40].fill(0);
    body[8..8 + lens.len()].copy_from_slice(lens.as_bytes());
    body[44..48].copy_from_slice(&seq.to_be_bytes());
    for (at, unit) in [(64, 1_000_000_000), (72, 1_000_000)] {
        let value = i64::from_be_bytes(body[at..at + 8].try_into().unwrap());
        body[at..at + 8].copy_from_slice(&(value + shift * unit).to_be_bytes());
    }
    let sum = crc32(&body[..BODY_LEN - 4]);
    body[BODY_LEN - 4..].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// CRC-32 of IEEE 802.3, bit by bit: 124 bytes need no table.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}
