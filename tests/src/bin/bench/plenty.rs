//! An archive of 100,000 segments or more: one real segment, written over and over with another identity.
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

/// How much there is.
pub(crate) struct Grown<'a> {
    pub(crate) segments: u32,
    pub(crate) lenses: &'a [&'a str],
    /// Runs that share the segments of a lens, each on a boot of its own.
    pub(crate) runs: u32,
    /// One in so many is protected.
    pub(crate) keeps: Option<u32>,
    /// Length of a segment in seconds.
    pub(crate) seconds: i64,
}

/// Makes the archive of 100,000; takes a minute. The setup has no camera.
pub(crate) fn archive(name: &str) -> Setup {
    grown(name, &Grown { segments: SEGMENTS, lenses: &LENSES, runs: 1, keeps: None, seconds: SECONDS })
}

/// Makes an archive. The setup has no camera.
pub(crate) fn grown(name: &str, size: &Grown<'_>) -> Setup {
    let root = scratch(name);
    let source = small_source(&root);
    let setup = Setup::new()
        .root(&root.join("archive"))
        .storage("segment_seconds", &size.seconds.to_string())
        .storage("max_bytes", "\"256GiB\"")
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
    let _ = fs::remove_file(root.join("archive/run"));
    let each = size.segments / size.lenses.len() as u32 / size.runs;
    for lens in size.lenses {
        for run in 1..=size.runs {
            let folder = segments.join(lens).join(run.to_string());
            fs::create_dir_all(&folder).unwrap();
            if size.runs == 1 {
                fs::write(folder.join("clock"), &clock).unwrap();
            }
            for seq in 0..each {
                let turn = i64::from((run - 1) * each + seq) - i64::from(each * size.runs);
                let of = Place { lens, run, seq, seconds: turn * size.seconds, is_own_boot: size.runs > 1 };
                fs::write(folder.join(format!("{seq}.mp4")), renamed(&bytes, &of)).unwrap();
                if size.keeps.is_some_and(|one_in| seq % one_in == 0) {
                    fs::write(folder.join(format!("{seq}.keep")), KEEP).unwrap();
                }
            }
        }
    }
    Setup::new().root(&root.join("archive")).storage("max_bytes", "\"256GiB\"")
}

/// A tiny picture once a second, so that 100,000 segments fit anywhere.
fn small_source(folder: &Path) -> PathBuf {
    let path = folder.join("small.mp4");
    let args = "-nostdin -v error -y -f lavfi -i color=gray:size=160x96:rate=1:duration=60 -c:v libx264 -g 5 -bf 0";
    let status = Command::new("ffmpeg").args(args.split(' ')).arg(&path).status().unwrap();
    assert!(status.success());
    path
}

/// A protection of which nobody can read whose it is; it protects all the same.
const KEEP: &[u8] = b"{}\n";

/// Where a copy belongs.
struct Place<'a> {
    lens: &'a str,
    run: u32,
    seq: u32,
    /// Later than the original.
    seconds: i64,
    is_own_boot: bool,
}

/// The segment in another place.
fn renamed(segment: &[u8], of: &Place<'_>) -> Vec<u8> {
    let mut bytes = segment.to_vec();
    let body = &mut bytes[BODY..BODY + BODY_LEN];
    body[4] = of.lens.len() as u8;
    body[8..40].fill(0);
    body[8..8 + of.lens.len()].copy_from_slice(of.lens.as_bytes());
    body[40..44].copy_from_slice(&of.run.to_be_bytes());
    body[44..48].copy_from_slice(&of.seq.to_be_bytes());
    if of.is_own_boot {
        body[48..52].copy_from_slice(&of.run.to_be_bytes());
    }
    for (at, unit) in [(64, 1_000_000_000), (72, 1_000_000)] {
        let value = i64::from_be_bytes(body[at..at + 8].try_into().unwrap());
        body[at..at + 8].copy_from_slice(&(value + of.seconds * unit).to_be_bytes());
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
