//! A SIGKILL loop: at most one second is lost per lens and kill, everything else plays, protection holds, gaps tell why.

use std::collections::BTreeMap;
use std::time::Duration;

use mos_tests::camera::{Camera, Sent};
use mos_tests::cli::tool;
use mos_tests::daemon::{Setup, id, ts};
use mos_tests::judge::archive::{assert_pictures_but_tail, assert_tiled, files_below};
use mos_tests::judge::gstreamer;
use mos_tests::streams::{Kind, Stream};
use serde_json::Value;

/// How long each life of the recorder lasts after its first footage: in the middle of a fragment, of a segment, near a border.
const LIVES: [f64; 6] = [2.1, 3.3, 0.7, 2.75, 3.95, 1.6];
/// The promise: what may be lost, in ns of capture time.
const MOST_LOST: u64 = 1_000_000_000;

#[test]
fn a_kill_loses_at_most_one_second_of_each_lens() {
    let streams = [Stream::get(Kind::H264B3), Stream::get(Kind::H265Open), Stream::get(Kind::H264Aac)];
    let camera = Camera::open(&streams);
    let lenses = ["h264_b3", "h265_open", "h264_aac"];
    let setup = lenses.iter().enumerate().fold(Setup::new(), |setup, (mount, lens)| {
        setup.storage("segment_seconds", "2").camera_with(lens, &camera.url(mount), "audio = true")
    });

    let mut newest: BTreeMap<(usize, usize), Sent> = BTreeMap::new();
    let mut protected = None;
    for (life, seconds) in LIVES.into_iter().enumerate() {
        let daemon = setup.start();
        // The life is measured in footage, so that a slow machine gets as far as a quick one.
        for lens in lenses {
            let known = daemon.segments(lens).iter().filter(|s| s["state"] != "open").count();
            mos_tests::wait_for("footage of this life", Duration::from_mins(2), || {
                let all = daemon.segments(lens);
                let own = all.iter().filter(|s| s["id"].as_str().unwrap().contains(&format!("-{}-", life + 1)));
                let footage: f64 = own.map(mos_tests::daemon::span).sum();
                (footage >= seconds && all.len() >= known).then_some(())
            });
        }
        if life == 1 {
            let segment = daemon.segments(lenses[0]).into_iter().find(|s| s["state"] != "open").unwrap();
            assert_eq!(daemon.mos.run(&["protect", id(&segment)]).code, 0);
            let bytes = std::fs::read(daemon.file(&segment)).unwrap();
            protected = Some((id(&segment).to_owned(), daemon.file(&segment), bytes));
        }
        let killed = daemon.kill();
        // Dead for some frames: otherwise the next run would begin within the last frame, and nothing would be missing.
        std::thread::sleep(Duration::from_millis(300));
        for mount in 0..lenses.len() {
            // A camera on a busy machine may be late with what it captured.
            let delivered = camera.sent(mount).into_iter().filter(|s| s.sent_ns <= killed);
            newest.insert((life, mount), delivered.max_by_key(|s| s.capture_ns).unwrap());
        }
    }

    let daemon = setup.start();
    for (mount, lens) in lenses.into_iter().enumerate() {
        // While the answer says neither that segments are being listed nor recovered, it shows every life.
        let segments = mos_tests::wait_for("recovery", Duration::from_mins(2), || {
            let page = daemon.listing(lens);
            let is_complete = ["listing", "recovering"].iter().all(|flag| page.get(flag).is_none());
            let all = page["segments"].as_array().unwrap().iter().cloned();
            let old: Vec<_> = all.filter(|s| !id(s).contains(&format!("-{}-", LIVES.len() + 1))).collect();
            let life_is_listed = |life: usize| old.iter().any(|s| id(s).contains(&format!("-{life}-")));
            let is_whole = (1..=LIVES.len()).all(life_is_listed) && old.iter().all(|s| s["state"] != "open");
            assert!(is_whole || !is_complete, "{lens}: said to be complete: {page}");
            is_complete.then_some(old)
        });
        let sent = camera.sent(mount);
        for life in 0..LIVES.len() {
            let of_life: Vec<_> = segments.iter().filter(|s| id(s).contains(&format!("-{}-", life + 1))).collect();
            let last = of_life.last().unwrap_or_else(|| panic!("nothing of {lens} in life {life}"));
            let shown = assert_pictures_but_tail(&daemon.file(last), &streams[mount]);
            let delivered = newest[&(life, mount)];
            // The burnt-in number counts within the loop; the newest frame of that number that was delivered is meant.
            let number = u64::from(*shown.last().unwrap());
            let frames = u64::from(streams[mount].frames);
            let kept = sent.iter().filter(|s| s.capture_ns <= delivered.capture_ns && s.number % frames == number);
            let kept = kept.max_by_key(|s| s.capture_ns).expect("a recorded frame was sent");
            let lost = delivered.capture_ns - kept.capture_ns;
            assert!(lost <= MOST_LOST, "{lens}, life {life}: {} ms lost", lost / 1_000_000);
        }
        for segment in &segments {
            let _ = assert_pictures_but_tail(&daemon.file(segment), &streams[mount]);
            gstreamer::assert_plays_pushed(&daemon.file(segment));
        }
        // The holes between the runs are accounted for when the recovery of all lenses is through.
        let lives = lives(&segments);
        let (told, gaps) = mos_tests::wait_for("the gaps of the kills", Duration::from_mins(2), || {
            let gaps = daemon.gaps(lens);
            let told = lives.each_ref().map(|life| pieces_of_kill(&gaps, life));
            let is_told = |(life, pieces): (&Life, &Vec<Value>)| pieces.iter().any(|piece| life.is_behind(piece));
            lives.iter().zip(&told).all(is_told).then_some((told, gaps))
        });
        for (life, pieces) in lives.iter().zip(&told) {
            // Between the pieces lie pictures that were decoded before some that are shown earlier, and nothing else.
            let first = ts(&pieces[0], "start_ts");
            assert!(life.footage_end - first <= MOST_LOST as i64 / 1000, "{lens}: lost within footage: {gaps:?}");
            let behind = pieces.iter().filter(|piece| life.is_behind(piece)).count();
            assert_eq!(behind, 1, "{lens}: what is missing up to the next run is told once: {gaps:?}");
        }
        let in_lives: usize = told.iter().map(Vec::len).sum();
        let kills = gaps.iter().filter(|g| g["cause"] == "recorder_killed").count();
        assert_eq!(kills, in_lives, "{lens}: a kill before the first life: {gaps:?}");
        assert!(gaps.iter().all(|g| g["cause"] != "unknown"), "{gaps:?}");
        assert_tiled(&daemon.segments(lens), &daemon.gaps(lens), 0.11);
    }
    let (kept, file, bytes) = protected.unwrap();
    assert!(std::fs::read(file).unwrap() == bytes, "the protected segment has changed");
    assert!(daemon.segments(lenses[0]).iter().any(|s| id(s) == kept && s["protected"] == true));
    assert_eq!(files_below(&setup.archive().join("quarantine")), Vec::<std::path::PathBuf>::new());
    daemon.stop();
    let check = tool(std::process::Command::new(mos_tests::binary("mos")).arg("check").arg(setup.archive()));
    assert!(!check.is_empty(), "mos check says nothing");
}

/// One life of the recorder, in the footage of a lens: from when to when, and where the next life's begins, in µs.
struct Life {
    footage_start: i64,
    footage_end: i64,
    next: i64,
}

impl Life {
    /// Whether a gap reaches behind the last picture of this life.
    fn is_behind(&self, gap: &Value) -> bool {
        ts(gap, "end_ts") >= self.footage_end
    }
}

/// The lives of a lens, by its segments in the order of time.
fn lives(segments: &[Value]) -> [Life; LIVES.len()] {
    let of_life = |life: usize| segments.iter().filter(move |s| id(s).contains(&format!("-{}-", life + 1)));
    std::array::from_fn(|life| Life {
        footage_start: of_life(life).map(|s| ts(s, "start_ts")).min().unwrap(),
        footage_end: of_life(life).map(|s| ts(s, "end_ts")).max().unwrap(),
        next: of_life(life + 1).map(|s| ts(s, "start_ts")).min().unwrap_or(i64::MAX),
    })
}

/// What the kill at the end of a life took, in the order of time. It may be in pieces: pictures are written as they were
/// coded, so behind the first one that is missing there may be some that others refer to (`app/src/archive/tail.rs`).
fn pieces_of_kill(gaps: &[Value], life: &Life) -> Vec<Value> {
    let within = |gap: &&Value| (life.footage_start..life.next).contains(&ts(gap, "start_ts"));
    let mut pieces: Vec<Value> =
        gaps.iter().filter(|g| g["cause"] == "recorder_killed").filter(within).cloned().collect();
    pieces.sort_by_key(|piece| ts(piece, "start_ts"));
    pieces
}
