//! The books of a lens, by the numbers that the camera paints into its pictures.
//!
//! Pictures are told by what they show and put in order by it; of times only those that the recorder itself gives are compared with one
//! another. So the judge holds on a machine that is late: a camera or a network that is late moves times, not numbers.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use mos_tests::camera::Sent;
use mos_tests::daemon::{Daemon, id, ts};
use mos_tests::judge::accounts::utc_ahead;
use mos_tests::judge::archive::source_md5;
use mos_tests::streams::Stream;
use serde_json::Value;

use crate::injector::Injected;

/// Half a picture's time, µs: borders of gaps and pictures are compared so closely.
const NEAR: i64 = 20_000;
/// Pictures on their way from the camera to the recorder at most, when something befalls it: three seconds of them.
const UNDER_WAY: u64 = 75;

/// A picture of a segment.
#[derive(Clone, Copy, Debug)]
struct Shown {
    /// Number since the camera's start.
    number: u64,
    /// When it is shown, µs of UTC.
    at: i64,
}

/// Pictures that are missing between two that are there.
#[derive(Clone, Debug)]
pub(crate) struct Hole {
    /// The last before and the first behind.
    between: (u64, u64),
    /// What the gaps say that lie exactly there, in order.
    causes: Vec<String>,
}

impl Hole {
    fn missing(&self) -> u64 {
        self.between.1 - self.between.0 - 1
    }
}

/// The books of a lens between the first and the last picture of its closed segments.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) captured: u64,
    pub(crate) stored: u64,
    pub(crate) missing: u64,
    pub(crate) holes: Vec<Hole>,
    /// How much later than it was captured each picture is said to be, µs, in order of size.
    pub(crate) late: Vec<i64>,
    /// How much later than it was captured each picture was sent, µs, in order of size.
    pub(crate) sent_late: Vec<i64>,
}

/// The checksum of every decoded picture with its time in µs; ffmpeg must have nothing to complain about.
fn decoded(file: &Path) -> Vec<(String, i64)> {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-v", "error", "-threads", "1", "-copyts", "-i"]).arg(file);
    ffmpeg.args(["-map", "0:v:0", "-fps_mode", "passthrough", "-enc_time_base", "-1", "-f", "framemd5", "-"]);
    let done = ffmpeg.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.trim().is_empty(), "ffmpeg on {}: {said}", file.display());
    let text = String::from_utf8(done.stdout).unwrap();
    let base = text.lines().find_map(|l| l.strip_prefix("#tb 0: ")).expect("framemd5 tells its time base");
    let (num, den) = base.split_once('/').unwrap();
    let (num, den): (i64, i64) = (num.parse().unwrap(), den.parse().unwrap());
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    let picture = |line: &str| {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        (fields[5].to_owned(), fields[2].parse::<i64>().unwrap() * 1_000_000 * num / den)
    };
    lines.map(picture).collect()
}

/// The books of a lens. Asserts that every picture is, bit by bit, one that was sent, once and in order of number and of time; that
/// where pictures are missing gaps reach from the one before to the one behind; and that no gap lies anywhere else.
pub(crate) fn books(daemon: &Daemon, lens: &str, stream: &Stream, sent: &[Sent]) -> Books {
    let listing = daemon.listing(lens);
    let of = |key: &str| listing[key].as_array().unwrap().clone();
    let known: HashMap<String, u64> = source_md5(stream).into_iter().zip(0..).collect();
    assert_eq!(known.len(), stream.frames as usize, "pictures look alike");
    let frame = 1_000_000 / i64::from(stream.fps);
    let ahead = utc_ahead();
    let first = sent.first().expect("something was sent");
    let epoch = first.capture_ns as i64 / 1000 + ahead - first.number as i64 * frame;
    let mut shown: Vec<Shown> = Vec::new();
    let mut late = Vec::new();
    for segment in of("segments").iter().filter(|s| s["state"] != "open") {
        let file = daemon.file(segment);
        let pictures = decoded(&file);
        assert_eq!(pictures.len() as u64, segment["frames"].as_u64().unwrap(), "{segment}");
        for (sum, time) in pictures {
            let number = *known.get(&sum).unwrap_or_else(|| panic!("{}: a picture that nobody sent", id(segment)));
            let at = ts(segment, "start_ts") + time;
            // Of those that look like this, which come once in a loop, the nearest.
            let turn = i64::from(stream.frames);
            let behind = (at - epoch) / frame - number as i64;
            let number = (number as i64 + (behind + turn / 2).div_euclid(turn) * turn) as u64;
            if let Some(last) = shown.last() {
                assert!(number > last.number, "{lens}: picture {number} behind {}", last.number);
                assert!(at > last.at, "{lens}: picture {number} is shown before {}", last.number);
            }
            late.push(at - epoch - number as i64 * frame);
            shown.push(Shown { number, at });
        }
    }
    late.sort_unstable();
    let (begin, end) = (shown.first().expect("something is recorded").number, shown.last().unwrap().number);
    let numbers: HashMap<u64, &Sent> = sent.iter().map(|s| (s.number, s)).collect();
    let sent_of = |s: &Shown| numbers.get(&s.number).unwrap_or_else(|| panic!("{lens}: {s:?} was never sent"));
    let mut sent_late: Vec<i64> =
        shown.iter().map(sent_of).map(|s| (s.sent_ns as i64 - s.capture_ns as i64) / 1000).collect();
    sent_late.sort_unstable();
    let holes = holes(lens, &shown, &of("gaps"), frame);
    let missing = holes.iter().map(Hole::missing).sum();
    let (captured, stored) = (end - begin + 1, shown.len() as u64);
    assert_eq!(captured, stored + missing, "{lens}");
    Books { captured, stored, missing, holes, late, sent_late }
}

fn holes(lens: &str, shown: &[Shown], gaps: &[Value], frame: i64) -> Vec<Hole> {
    // Where the gaps between two pictures begin and end, by the place of the second.
    let mut between: HashMap<usize, Vec<&Value>> = HashMap::new();
    for gap in gaps {
        let behind = shown.partition_point(|s| s.at <= ts(gap, "start_ts") + NEAR);
        // Before the first and behind the last picture nothing can be said.
        if behind == 0 || behind == shown.len() {
            continue;
        }
        let (before, after) = (shown[behind - 1], shown[behind]);
        assert!(ts(gap, "end_ts") <= after.at + NEAR, "{lens}: in {gap} is picture {after:?}");
        assert!(after.number > before.number + 1, "{lens}: nothing is missing in {gap} behind {before:?}");
        between.entry(behind).or_default().push(gap);
    }
    let mut holes = Vec::new();
    for (behind, pair) in (1..).zip(shown.windows(2)) {
        let (before, after) = (pair[0], pair[1]);
        if after.number == before.number + 1 {
            continue;
        }
        let mut told = between.remove(&behind).unwrap_or_else(|| panic!("{lens}: no gap between {pair:?}: {gaps:#?}"));
        told.sort_by_key(|g| ts(g, "start_ts"));
        // How long the last picture before it was to be shown is a guess.
        let mut covered = before.at + 2 * frame;
        for gap in &told {
            assert!(ts(gap, "start_ts") <= covered + NEAR, "{lens}: a hole before {gap} in {pair:?}");
            covered = ts(gap, "end_ts");
        }
        assert!(covered >= after.at - NEAR, "{lens}: a hole behind {told:?} in {pair:?}");
        let mut causes: Vec<String> = told.iter().map(|g| g["cause"].as_str().unwrap().to_owned()).collect();
        causes.dedup();
        holes.push(Hole { between: (before.number, after.number), causes });
    }
    holes
}

/// Asserts that the causes are those of the injector's log: each trouble that costs pictures has one hole, which begins with what was
/// under way when it befell the camera and tells its cause, and there is no other.
pub(crate) fn assert_causes(lens: &str, books: &Books, sent: &[Sent], own: &[&Injected]) {
    // The next number that the camera had not sent yet.
    let next = |at: u64| sent.iter().filter(|s| s.sent_ns <= at).map(|s| s.number + 1).max().unwrap_or(0);
    let begins: Vec<u64> = own.iter().map(|l| next(l.at_ns).saturating_sub(UNDER_WAY)).collect();
    let mut unexplained = books.holes.clone();
    for (n, line) in own.iter().enumerate() {
        let until = begins.get(n + 1).copied().unwrap_or(u64::MAX);
        let mine = |h: &mut Hole| (begins[n]..until).contains(&h.between.0);
        let mine: Vec<Hole> = unexplained.extract_if(.., mine).collect();
        let Some((must, may)) = line.trouble.causes() else {
            assert!(mine.is_empty(), "{lens}: {line:?} cost pictures: {mine:?}");
            continue;
        };
        assert_eq!(mine.len(), 1, "{lens}: {line:?} has one hole, not {mine:?}; all: {:?}; log: {own:?}", books.holes);
        for cause in &mine[0].causes {
            assert!(cause == must || may.contains(&cause.as_str()), "{lens}: {line:?} does not explain {mine:?}");
        }
        assert!(mine[0].causes.iter().any(|c| c == must), "{lens}: {line:?} is not told by {mine:?}");
    }
    assert!(unexplained.is_empty(), "{lens}: nothing befell it that explains {unexplained:?}: {own:?}");
}
