//! A source whose groups of pictures are all open (CRA with RASL pictures): each segment begins with a copy of the group before
//! it, which is there to be decoded and never shown, neither while the segment is written nor after its close.

use std::path::Path;
use std::time::Duration;

use mos_tests::camera::Camera;
use mos_tests::daemon::{Setup, id, span};
use mos_tests::judge::archive::{assert_pictures, assert_pictures_but_tail};
use mos_tests::judge::gstreamer;
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;

const LONG: Duration = Duration::from_mins(2);

/// Both players show what follows `last`, and nothing before it.
fn assert_shown_from(file: &Path, stream: &Stream, last: u16, shown: &[u16]) {
    let next = (u32::from(last) + 1) % stream.frames;
    assert_eq!(u32::from(shown[0]), next, "ffmpeg on {}", file.display());
    let numbers = gstreamer::numbers(file, stream.width, stream.height);
    let first = numbers[0].map(u32::from);
    // A frame whose time seems to reach over the edit is shown for an instant; see the judge.
    assert!(first == Some(next) || first == Some(u32::from(last)), "GStreamer on {}: {first:?}", file.display());
    assert!(numbers.len() <= shown.len() + 4, "GStreamer on {}: {numbers:?}", file.display());
}

#[test]
fn the_repeated_group_is_never_shown() {
    let stream = Stream::get(Kind::H265Open);
    let camera = Camera::open(std::slice::from_ref(&stream));
    let setup = Setup::new().storage("segment_seconds", "5").camera("road", &camera.url(0));
    let daemon = setup.start();
    for _ in 0..2 {
        // While it is open: what is durable of it. Once it is closed its head is another.
        let (before, open, bytes) = wait_for("footage of the segment being written", LONG, || {
            let all = daemon.segments("road");
            let [.., before, open] = &all[..] else { return None };
            if before["state"] != "closed" || open["state"] != "open" || span(open) <= 1.0 {
                return None;
            }
            let mut bytes = std::fs::read(daemon.file(open)).ok()?;
            bytes.truncate(open["bytes"].as_u64().unwrap() as usize);
            let still_open = daemon.segments("road").iter().any(|s| id(s) == id(open) && s["state"] == "open");
            still_open.then(|| (before.clone(), open.clone(), bytes))
        });
        let last = *assert_pictures(&daemon.file(&before), &stream).last().unwrap();
        let copy = setup.folder().join("open.mp4");
        std::fs::write(&copy, bytes).unwrap();
        let shown = assert_pictures_but_tail(&copy, &stream);
        assert_shown_from(&copy, &stream, last, &shown);
        gstreamer::assert_plays_pushed(&copy);
        let file = wait_for("its close", LONG, || {
            let all = daemon.segments("road");
            let same = all.iter().find(|s| id(s) == id(&open)).unwrap();
            (same["state"] == "closed").then(|| daemon.file(same))
        });
        let shown = assert_pictures(&file, &stream);
        assert_shown_from(&file, &stream, last, &shown);
    }
    daemon.stop();
}
