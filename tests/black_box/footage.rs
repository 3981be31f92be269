//! Real footage: real encoders do what generated streams do not (long GOPs, B-frames of their own kind, sound of several
//! channels). Without the sample footage at hand, generated streams take its place.

use std::path::PathBuf;
use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::daemon::{Setup, id, span};
use mos_tests::judge::{ffmpeg, gstreamer, parsers};
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;
use serde_json::Value;

const LONG: Duration = Duration::from_mins(3);

/// Sample footage beside the repository, or generated streams.
fn footage() -> Vec<PathBuf> {
    let folder = mos_tests::repository().parent().unwrap().join("shared/media");
    let names = ["car-detection.mp4", "one-by-one.mp4", "bigbuckbunny.mp4"];
    let real: Vec<PathBuf> = names.iter().map(|n| folder.join(n)).filter(|p| p.exists()).collect();
    if real.is_empty() { [Kind::H264Aac, Kind::H264B3].map(|k| Stream::get(k).path).to_vec() } else { real }
}

/// Whether `part` is a run of `whole`, which starts again at its end.
fn is_run(part: &[String], whole: &[String]) -> bool {
    (0..whole.len()).any(|start| part.iter().enumerate().all(|(i, sum)| *sum == whole[(start + i) % whole.len()]))
}

#[test]
fn real_footage_is_recorded_bit_by_bit() {
    let files = footage();
    let camera = Camera::of_files(&files);
    let mut setup = Setup::new();
    for mount in 0..files.len() {
        setup = setup.camera_with(&format!("lens{mount}"), &camera.url(mount), "audio = true");
    }
    let daemon = setup.start();
    for (mount, source) in files.iter().enumerate() {
        let lens = format!("lens{mount}");
        let sums = ffmpeg::frame_md5(source);
        let segments = daemon.await_closed(&lens, 2, LONG);
        for segment in segments.iter().filter(|s| s["state"] != "open") {
            let file = daemon.file(segment);
            ffmpeg::assert_decodes(&file);
            gstreamer::assert_plays_pushed(&file);
            parsers::assert_mp4san(&file);
            assert!(is_run(&ffmpeg::frame_md5(&file), &sums), "{} is not {}", file.display(), source.display());
        }
        // One that a busy machine had to begin again may be shorter.
        let long = |s: &Value| s["state"] != "open" && span(s) > 3.1;
        let segment = wait_for("a whole segment", LONG, || daemon.segments(&lens).into_iter().find(long));
        let out = setup.folder().join(format!("{lens}.mp4"));
        let cut = daemon.mos.run(&["clip", id(&segment), "--from", "1", "--to", "3", "-o", out.to_str().unwrap()]);
        assert_eq!(cut.code, 0, "{}", cut.err);
        assert!(is_run(&ffmpeg::frame_md5(&out), &sums));
        let picture = setup.folder().join(format!("{lens}.jpg"));
        let taken = daemon.mos.run(&["snapshot", id(&segment), "--at", "0", "-o", picture.to_str().unwrap()]);
        assert_eq!(taken.code, 0, "{}", taken.err);
        assert!(ffmpeg::luma_psnr(&picture, &daemon.file(&segment), 0) >= 35.0);
    }
}
