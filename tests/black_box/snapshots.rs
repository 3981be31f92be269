//! Snapshots: the right keyframe, in the right brightness, in the asked size.

use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::daemon::{Setup, id};
use mos_tests::judge::ffmpeg;
use mos_tests::streams::{Kind, Stream};
use serde_json::json;

use crate::clips::closed;

#[test]
fn a_snapshot_is_the_keyframe_before_the_offset_and_looks_like_it() {
    let streams =
        [Stream::get(Kind::H264), Stream::get(Kind::H264B3), Stream::get(Kind::H265), Stream::get(Kind::H265Ten)];
    let camera = Camera::open(&streams);
    let setup =
        streams.iter().enumerate().fold(Setup::new(), |setup, (i, s)| setup.camera(s.kind.name(), &camera.url(i)));
    let daemon = setup.start();
    for stream in &streams {
        let lens = stream.kind.name();
        let segment = &closed(&daemon, lens, 80);
        let file = daemon.file(segment);
        let (numbers, times) = (ffmpeg::all_numbers(&file), ffmpeg::times(&file, "v"));
        // A keyframe every 25 frames; each answer must be of its own request, never of the one before.
        for (frame, index) in [(0, 0), (24, 0), (25, 25), (60, 50), (49, 25), (0, 0)] {
            let offset = times[frame] + 0.01;
            let path = format!("/v1/segments/{}/snapshot", id(segment));
            let done = daemon.client.post(&path, &json!({"keyframe_offset": offset})).ok();
            let picture = daemon.file(&done);
            assert_eq!(ffmpeg::all_numbers(&picture), [numbers[index]], "{lens} at {offset}: {done}");
            let psnr = ffmpeg::luma_psnr(&picture, &file, index);
            assert!(psnr >= 35.0, "{lens} at {offset}: luma PSNR {psnr} dB");
        }
    }
}

#[test]
fn size_and_quality_are_as_asked() {
    let stream = Stream::get(Kind::H264);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().storage("segment_seconds", "600").camera("road", &camera.url(0));
    let daemon = setup.start();
    let segment = daemon.await_open("road", 1.5, Duration::from_mins(2));
    let path = format!("/v1/segments/{}/snapshot", id(&segment));
    let take = |body: serde_json::Value| daemon.file(&daemon.client.post(&path, &body).ok());
    let small = take(json!({"keyframe_offset": 0.0, "width": 320, "height": 180}));
    let shown = &ffmpeg::probe(&small)["streams"][0];
    assert_eq!((shown["width"].as_u64(), shown["height"].as_u64()), (Some(320), Some(180)));
    assert_eq!(shown["pix_fmt"], "yuvj420p", "JFIF is full range");
    let size = |file: std::path::PathBuf| std::fs::metadata(file).unwrap().len();
    let (poor, rich) = (json!({"keyframe_offset": 0.0, "quality": 30}), json!({"keyframe_offset": 0.0, "quality": 95}));
    assert!(size(take(poor)) * 2 < size(take(rich)));
    for body in [json!({"keyframe_offset": -1.0}), json!({"keyframe_offset": 0.0, "quality": 0}), json!({})] {
        assert_eq!(daemon.client.post(&path, &body).error(400), "bad_request", "{body}");
    }
    assert_eq!(
        daemon.client.post("/v1/segments/road-9-9/snapshot", &json!({"keyframe_offset": 0.0})).error(404),
        "not_found"
    );
}
