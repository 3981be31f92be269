//! Dropping 2 MiB of `free` out of an MP4 file of 100 MB and more, against `cp`, qt-faststart and ffmpeg.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use mos_tests::streams::{Kind, Stream};

use crate::peers::{fsync, milliseconds, run as program};
use crate::scratch;
use crate::table::{Table, percentile};

const ROUNDS: usize = 15;
/// Bytes of the box that is dropped, and a little for the `moov` that lies in the same room.
const FREE: usize = 2 << 20;

pub(crate) fn run(table: &mut Table) {
    let stream = Stream::get(Kind::Bulk);
    let scratch = scratch("reduce");
    let path = |name: &str| scratch.join(name).to_str().unwrap().to_owned();
    let (robust, copy) = (path("robust.mp4"), path("copy.mp4"));
    let source = stream.path.to_str().unwrap();
    let room = (FREE + 8192).to_string();
    program("ffmpeg", &["-nostdin", "-v", "error", "-i", source, "-c", "copy", "-moov_size", &room, &robust]);
    let mos = mos_tests::binary_folder().join("mos");
    let mos = mos.to_str().unwrap();
    let timed = |command: &dyn Fn()| {
        let _ = std::fs::remove_file(&copy);
        milliseconds(|| {
            command();
            fsync(copy.as_ref());
        })
    };
    let (mut ours, mut cp, mut faststart, mut ffmpeg) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(timed(&|| quiet(mos, &["reduce", &robust, &copy])));
        let (before, after) = (size(robust.as_ref()), size(copy.as_ref()));
        assert!(before - after >= FREE as u64, "{before} bytes became {after}");
        cp.push(timed(&|| program("cp", &[&robust, &copy])));
        faststart.push(timed(&|| quiet("qt-faststart", &[source, &copy])));
        ffmpeg.push(timed(&|| program("ffmpeg", &["-nostdin", "-v", "error", "-i", &robust, "-c", "copy", &copy])));
    }
    let p50 = percentile(&mut ours, 50.0);
    let work = format!("reduce {} MB, with fsync, p50", size(robust.as_ref()) / 1_000_000);
    table.against(&work, "ms", p50, ("cp", percentile(&mut cp, 50.0)), 1.15);
    table.beside(&work, "ms", p50, ("qt-faststart", percentile(&mut faststart, 50.0)));
    table.beside(&work, "ms", p50, ("ffmpeg -c copy", percentile(&mut ffmpeg, 50.0)));

    // A `free` at the end of a file that has no other, in place.
    let clean = path("clean.mp4");
    quiet(mos, &["reduce", source, &clean]);
    let mut in_place = Vec::new();
    for _ in 0..ROUNDS {
        std::fs::copy(&clean, &copy).unwrap();
        let mut file = OpenOptions::new().append(true).open(&copy).unwrap();
        let mut free = vec![0; FREE];
        free[..4].copy_from_slice(&(FREE as u32).to_be_bytes());
        free[4..8].copy_from_slice(b"free");
        file.write_all(&free).unwrap();
        file.sync_all().unwrap();
        in_place.push(milliseconds(|| quiet(mos, &["reduce", &copy, &copy])));
        assert_eq!(size(copy.as_ref()), size(clean.as_ref()), "the free box at the end is gone");
    }
    table.against(
        "reduce in place, a free box at the end",
        "ms",
        percentile(&mut in_place, 50.0),
        ("reduce to another file", p50),
        0.5,
    );
}

fn size(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

/// For a program that cannot be told to be quiet.
fn quiet(program: &str, args: &[&str]) {
    let output = std::process::Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
