//! Rotation: players are told by the file, pictures are turned, nothing is coded anew.

use std::path::Path;
use std::time::Duration;

use mos_tests::daemon::{Daemon, Setup, id, span};
use mos_tests::judge::archive::assert_tiled;
use mos_tests::judge::{ffmpeg, parsers};
use mos_tests::wait_for;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_mins(2);
const SCENE: &str = "test:?width=448&height=256&fps=10&gop=10&bitrate=400000";
/// From picture to picture of it, µs.
const PERIOD: i64 = 100_000;

/// By how many degrees clockwise ffprobe says that a file is to be turned; it counts the other way round.
fn rotation(file: &Path) -> i64 {
    let streams = ffmpeg::probe(file)["streams"].clone();
    let video = streams.as_array().unwrap().iter().find(|s| s["codec_type"] == "video").unwrap().clone();
    let side = video["side_data_list"].as_array().cloned().unwrap_or_default();
    side.iter().find_map(|data| data["rotation"].as_i64()).map_or(0, |degrees| (-degrees).rem_euclid(360))
}

/// Segments that are closed, in order, each with its rotation.
fn closed(daemon: &Daemon) -> Vec<(Value, i64)> {
    let segments = daemon.segments("road");
    let closed = segments.into_iter().filter(|s| s["state"] != "open");
    closed.map(|s| (s.clone(), rotation(&daemon.file(&s)))).collect()
}

/// Asserts that the pictures of a segment have successive numbers, but for those that a gap tells of: a busy machine leaves some
/// out before they are coded.
fn assert_none_missing(daemon: &Daemon, segment: &Value, numbers: &[u32]) {
    let ts = |item: &Value, key: &str| item[key].as_i64().unwrap();
    let begin = ts(segment, "start_ts");
    let times: Vec<i64> =
        ffmpeg::times(&daemon.file(segment), "v").iter().map(|at| begin + (at * 1e6) as i64).collect();
    assert_eq!(times.len(), numbers.len());
    let gaps = daemon.gaps("road");
    let slow: Vec<&Value> = gaps.iter().filter(|g| g["cause"] == "encoder_slow").collect();
    for (pair, at) in numbers.windows(2).zip(times.windows(2)) {
        let missing = i64::from(pair[1]) - i64::from(pair[0]) - 1;
        // A gap goes from the capture of the first that is missing up to that of the next one that is shown.
        let told = |back: i64| {
            let middle = at[1] - back * PERIOD + PERIOD / 2;
            slow.iter().any(|gap| (ts(gap, "start_ts")..ts(gap, "end_ts")).contains(&middle))
        };
        assert!(
            missing >= 0 && (1..=missing).all(told),
            "{missing} pictures are missing before {}, and no gap tells: {numbers:?} {times:?} {gaps:?}",
            at[1]
        );
    }
}

#[test]
fn segments_clips_and_snapshots_are_turned_without_coding_and_over_restarts() {
    let setup = Setup::new().storage("segment_seconds", "2").camera("road", SCENE);
    let mut daemon = setup.start();
    let of = |daemon: &Daemon, degrees: i64| {
        wait_for(&format!("a closed segment turned by {degrees}"), LONG, || {
            let newest = daemon.segments("road").into_iter().rev().find(|s| s["state"] != "open" && span(s) > 1.5)?;
            (rotation(&daemon.file(&newest)) == degrees).then_some(newest)
        })
    };
    of(&daemon, 0);
    for (degrees, back) in [(90, "transpose=cclock"), (180, "hflip,vflip"), (270, "transpose=clock")] {
        let answer = daemon.mos.run(&["capture", "configure", "road", "--rotation", &degrees.to_string(), "--json"]);
        assert_eq!(answer.json()["configured"]["rotation"], degrees);
        if degrees == 180 {
            // It outlives the daemon, even one that was killed, whose last segment is recovered.
            wait_for("an open segment that is turned", LONG, || {
                let segments = daemon.segments("road");
                let open = segments.iter().find(|s| s["state"] == "open" && span(s) > 0.5)?;
                (rotation(&daemon.file(open)) == degrees).then_some(())
            });
            daemon.kill();
            daemon = setup.start();
        }
        let segment = of(&daemon, degrees);
        let file = daemon.file(&segment);
        ffmpeg::assert_decodes(&file);
        parsers::assert_mp4san(&file);
        // The pictures themselves are as they were, and all of them.
        let numbers = ffmpeg::scene_numbers(&file, "");
        assert_none_missing(&daemon, &segment, &numbers);

        let out = setup.folder().join(format!("clip{degrees}.mp4"));
        let args = ["clip", id(&segment), "--from", "0.2", "--to", "0.8", "-o", out.to_str().unwrap(), "--json"];
        let _ = daemon.mos.run(&args).json();
        assert_eq!(rotation(&out), degrees, "the clip");
        parsers::assert_mp4san(&out);
        let reduced = setup.folder().join(format!("reduced{degrees}.mp4"));
        daemon.mos.run(&["reduce", file.to_str().unwrap(), reduced.to_str().unwrap()]);
        assert_eq!(rotation(&reduced), degrees, "what was reduced");

        let path = format!("/v1/segments/{}/snapshot", id(&segment));
        let picture = daemon.client.post(&path, &json!({"keyframe_offset": 0.01})).ok();
        let turned = if degrees == 180 { (448, 256) } else { (256, 448) };
        assert_eq!((picture["width"].as_u64(), picture["height"].as_u64()), (Some(turned.0), Some(turned.1)));
        let seen = daemon.file(&picture);
        let probed = &ffmpeg::probe(&seen)["streams"][0];
        assert_eq!((probed["width"].as_u64(), probed["height"].as_u64()), (Some(turned.0), Some(turned.1)));
        assert_eq!(ffmpeg::scene_numbers(&seen, back), [numbers[0]], "{degrees}: the picture turned back");
    }
    // Across a border there is no clip, as with another resolution.
    let all = closed(&daemon);
    let border = all.windows(2).find(|pair| pair[0].1 != pair[1].1).unwrap();
    // The middle of each: what the change cut off may be short.
    let middle = |s: &Value| s["start_ts"].as_i64().unwrap().midpoint(s["end_ts"].as_i64().unwrap());
    let (from, to) = (middle(&border[0].0), middle(&border[1].0));
    let asked = json!({"start_ts": from, "end_ts": to});
    let refused = daemon.client.post("/v1/lenses/road/clip", &asked);
    assert!(refused.status >= 400 && refused.text().contains("format_change"), "{}", refused.text());
    assert_tiled(&daemon.segments("road"), &daemon.gaps("road"), 0.15);
}
