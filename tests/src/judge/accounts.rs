//! The judge of a lens's books: what the camera sent is stored, or lies in a gap.
//!
//! Compares with the camera's own log, never with what MOS counted. Times are compared with some tolerance: a capture time is the
//! arrival's at best.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::archive::source_md5;
use super::ffmpeg;
use crate::camera::{Camera, Sent};
use crate::daemon::{Daemon, id, ts};
use crate::streams::Stream;

/// How far a capture time may be from the log's, µs: a loaded machine delivers late.
const NEAR: i64 = 1_000_000;

/// UTC minus the monotonic clock, µs.
#[must_use]
pub fn utc_ahead() -> i64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
    wall - crate::monotonic_ns() as i64 / 1000
}

/// Asserts of all closed segments of a lens that every picture is, bit by bit, one that was sent (in one of the codings), at the
/// time of its capture, once and in order; and that every picture that was sent in between and is missing lies in a gap. Gives how many
/// are shown and how many are missing. The camera has one stream.
#[must_use]
pub fn assert_accounted(daemon: &Daemon, lens: &str, codings: &[&Stream], camera: &Camera) -> (usize, usize) {
    let frames = u64::from(codings[0].frames);
    let ahead = utc_ahead();
    let at = |s: &Sent| s.capture_ns as i64 / 1000 + ahead;
    // In this order: a segment may be closed between two questions, and what it holds was sent before, and what is missing in front
    // of that was told.
    let (segments, gaps, sent) = (daemon.segments(lens), daemon.gaps(lens), camera.sent(0));
    let mut shown = BTreeSet::new();
    for segment in segments.iter().filter(|s| s["state"] != "open") {
        let file = daemon.file(segment);
        let (numbers, sums, times) = (ffmpeg::all_numbers(&file), ffmpeg::frame_md5(&file), ffmpeg::times(&file, "v"));
        assert_eq!((numbers.len(), sums.len()), (times.len(), times.len()), "{}", file.display());
        for ((number, sum), time) in numbers.iter().zip(&sums).zip(&times) {
            let whole = codings.iter().any(|c| source_md5(c)[usize::from(*number)] == *sum);
            assert!(whole, "{}: frame {number} is not the source's", file.display());
            let time = ts(segment, "start_ts") + (time * 1e6) as i64;
            let same = sent.iter().filter(|s| s.number % frames == u64::from(*number));
            let of = same.min_by_key(|s| (at(s) - time).abs()).expect("a frame that is shown was sent");
            assert!((at(of) - time).abs() < NEAR, "{}: frame {number} is {} µs off", id(segment), time - at(of));
            assert!(shown.last().is_none_or(|last| *last < of.number), "{}: frame {number} again", id(segment));
            shown.insert(of.number);
        }
    }
    let (first, last) = (*shown.first().expect("something is shown"), *shown.last().unwrap());
    let missing: Vec<_> =
        sent.iter().filter(|s| (first..last).contains(&s.number) && !shown.contains(&s.number)).collect();
    for gone in &missing {
        let told = |g: &&Value| (ts(g, "start_ts") - NEAR..ts(g, "end_ts") + NEAR).contains(&at(gone));
        assert!(
            gaps.iter().any(|g| told(&g)),
            "frame {} of {lens} is missing, and no gap tells: {gaps:?}",
            gone.number
        );
    }
    (shown.len(), missing.len())
}

/// Absences by a cause, each from its beginning to its end: one that lasts is told in pieces, the next from where the last one ends.
#[must_use]
pub fn absences(gaps: &[Value], cause: &str) -> Vec<(i64, i64)> {
    let mut whole: Vec<(i64, i64)> = Vec::new();
    for gap in gaps.iter().filter(|gap| gap["cause"] == cause) {
        let (start, end) = (ts(gap, "start_ts"), ts(gap, "end_ts"));
        match whole.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => whole.push((start, end)),
        }
    }
    whole
}

/// The causes of a lens's gaps, in order. How often a slow machine tried to open its camera before it began is no matter.
#[must_use]
pub fn causes(daemon: &Daemon, lens: &str) -> Vec<String> {
    causes_of(&daemon.segments(lens), &daemon.gaps(lens))
}

fn causes_of(segments: &[Value], gaps: &[Value]) -> Vec<String> {
    let begun = segments.first().map_or(i64::MIN, |first| ts(first, "start_ts"));
    let of_opening = |cause: &str| cause.starts_with("camera_") || cause.starts_with("capture_");
    let cause = |g: &Value| g["cause"].as_str().unwrap().to_owned();
    let mut causes: Vec<String> = gaps
        .iter()
        .map(|gap| (cause(gap), ts(gap, "end_ts") > begun + NEAR / 20))
        .filter(|(cause, after)| cause != "starting" && (*after || !of_opening(cause)))
        .map(|(cause, _)| cause)
        .collect();
    causes.dedup();
    causes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_absence_in_pieces_is_one_and_others_stay_apart() {
        let gap = |start: i64, end: i64, cause: &str| json!({"start_ts": start, "end_ts": end, "cause": cause});
        let gaps = [gap(1, 3, "lost"), gap(3, 5, "lost"), gap(5, 6, "other"), gap(6, 7, "lost"), gap(8, 9, "lost")];
        assert_eq!(absences(&gaps, "lost"), [(1, 5), (6, 7), (8, 9)]);
        assert_eq!(absences(&gaps, "none"), []);
    }

    #[test]
    fn before_the_first_segment_only_attempts_to_open_are_no_matter() {
        let segments = [json!({"start_ts": 10_000_000, "end_ts": 12_000_000})];
        let gap = |start: i64, end: i64, cause: &str| json!({"start_ts": start, "end_ts": end, "cause": cause});
        let judged = |causes: &[&str], end: i64| {
            let gaps: Vec<Value> = causes.iter().map(|cause| gap(0, end, cause)).collect();
            causes_of(&segments, &gaps)
        };
        let opening = ["starting", "camera_absent", "camera_broke_off", "capture_stopped"];
        assert_eq!(judged(&opening, 10_000_000), Vec::<String>::new());
        assert_eq!(judged(&opening, 11_000_000), opening[1..], "while it is recorded they are");
        for cause in ["disk_error", "packet_loss", "unknown", "power_loss", "recorder_killed", "removed"] {
            assert_eq!(judged(&[cause], 10_000_000), [cause]);
        }
        assert_eq!(causes_of(&[], &[gap(0, 1, "camera_refused")]), ["camera_refused"], "nothing was ever recorded");
    }
}
