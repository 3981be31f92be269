//! A clip of 10 s from a 60 s segment at 8 Mbit/s, through the API, against `cp` of the same bytes and ffmpeg.

use std::path::PathBuf;
use std::time::Duration;

use mos_tests::daemon::{Setup, id};
use mos_tests::streams::{Kind, Stream};
use serde_json::json;

use crate::peers::{fsync, milliseconds, run as program};
use crate::scratch;
use crate::table::{Table, percentile};

const ROUNDS: usize = 60;

/// Records one 60 s segment of the 8 Mbit/s stream and gives the setup, its id and its file. Takes a good minute.
pub(crate) fn one_segment(name: &str) -> (Setup, String, PathBuf) {
    let stream = Stream::get(Kind::Load8M);
    let root = scratch(name);
    let source = format!("file:{}?loop=true", stream.path.display());
    let setup = Setup::new().root(&root).storage("segment_seconds", "60").camera("road", &source);
    let daemon = setup.start();
    let segments = daemon.await_closed("road", 1, Duration::from_secs(90));
    let (id, file) = (id(&segments[0]).to_owned(), daemon.file(&segments[0]));
    daemon.stop();
    (Setup::new().root(&root), id, file)
}

pub(crate) fn run(table: &mut Table) {
    let (setup, id, file) = one_segment("clip");
    let daemon = setup.start();
    let mut connection = daemon.client.connect();
    let path = format!("/v1/segments/{id}/clip");
    let scratch = scratch("clip-peers");
    let (same, copy) = (scratch.join("same-bytes"), scratch.join("copy.mp4"));
    let (mut ours, mut cp, mut ffmpeg) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let from = 5.37 + round as f64 * 0.61;
        let body = json!({"start_offset": from, "end_offset": from + 10.0});
        let mut answer = None;
        ours.push(milliseconds(|| answer = Some(connection.request("POST", &path, Some(&body)))));
        let clip = answer.unwrap().ok();
        let clip = daemon.file(&clip);
        // `cp` copies as many bytes, and both sides make them durable.
        std::fs::copy(&clip, &same).unwrap();
        let (same, copy) = (same.to_str().unwrap(), copy.to_str().unwrap());
        let _ = std::fs::remove_file(copy);
        cp.push(milliseconds(|| {
            program("cp", &[same, copy]);
            fsync(copy.as_ref());
        }));
        if round % 4 == 0 {
            let (start, path) = (format!("{from:.3}"), file.to_str().unwrap());
            let args = ["-nostdin", "-v", "error", "-y", "-ss", &start, "-i", path, "-t", "10", "-c", "copy", copy];
            ffmpeg.push(milliseconds(|| {
                program("ffmpeg", &args);
                fsync(copy.as_ref());
            }));
        }
        std::fs::remove_file(clip).unwrap();
    }
    for (name, percent) in [("p50", 50.0), ("p95", 95.0)] {
        let (ours, cp) = (percentile(&mut ours, percent), percentile(&mut cp, percent));
        table.against(&format!("clip 10 s of 60 s, {name}"), "ms", ours, ("cp + fsync", cp), 1.3);
        let ffmpeg = percentile(&mut ffmpeg, percent);
        table.against(&format!("clip 10 s of 60 s, {name}"), "ms", ours, ("ffmpeg + fsync", ffmpeg), 0.15);
    }
}
