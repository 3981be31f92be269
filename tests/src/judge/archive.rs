//! Judges of a whole lens: pictures equal the source's, nothing between segments is lost, and time adds up.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::ffmpeg;
use crate::daemon::{id, span, ts};
use crate::streams::{Kind, Stream};

/// The MD5 of every decoded frame of a stream, by number. Computed once per process.
#[must_use]
pub fn source_md5(stream: &Stream) -> Vec<String> {
    static KNOWN: Mutex<Option<HashMap<Kind, Vec<String>>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.get_or_insert_default().entry(stream.kind).or_insert_with(|| ffmpeg::frame_md5(&stream.path)).clone()
}

/// How many frames after a start of decoding may be damaged: an intra refresh needs a whole period to fill the picture.
#[must_use]
pub fn refresh_frames(stream: &Stream) -> usize {
    if stream.kind == Kind::H264Refresh { stream.fps as usize + 1 } else { 0 }
}

/// Asserts that every shown frame of `file` is, bit by bit, the source's frame of the same number, that none is missing in
/// between, and gives the numbers. The first frames of an intra refresh may be damaged; they are left out.
#[must_use]
pub fn assert_pictures(file: &Path, stream: &Stream) -> Vec<u16> {
    let (numbers, sums, source) = (ffmpeg::numbers(file), ffmpeg::frame_md5(file), source_md5(stream));
    assert_eq!(numbers.len(), sums.len(), "{}", file.display());
    let whole = |i: usize| numbers[i].is_some_and(|n| source[usize::from(n)] == sums[i]);
    let settled = (0..numbers.len()).find(|i| *i == refresh_frames(stream) || whole(*i)).unwrap_or(0);
    let shown: Option<Vec<u16>> = numbers[settled..].iter().copied().collect();
    let shown = shown.unwrap_or_else(|| panic!("{}: damaged pictures: {numbers:?}", file.display()));
    assert!(!shown.is_empty(), "{} shows nothing", file.display());
    ffmpeg::assert_consecutive(&shown, stream.frames);
    for (number, sum) in shown.iter().zip(&sums[settled..]) {
        assert_eq!(*sum, source[usize::from(*number)], "{}: frame {number} is not the source's", file.display());
    }
    shown
}

/// [`assert_pictures`] of what came over UDP: a busy machine drops datagrams, so pictures may be missing up to a keyframe, of
/// which the stream has one each second. Gives the numbers.
#[must_use]
pub fn assert_each_picture(file: &Path, stream: &Stream) -> Vec<u16> {
    let (numbers, sums, source) = (ffmpeg::all_numbers(file), ffmpeg::frame_md5(file), source_md5(stream));
    for (number, sum) in numbers.iter().zip(&sums) {
        assert_eq!(*sum, source[usize::from(*number)], "{}: frame {number} is not the source's", file.display());
    }
    let goes_on = |pair: &[u16]| {
        (u32::from(pair[0]) + 1) % stream.frames == u32::from(pair[1]) || u32::from(pair[1]) % stream.fps == 0
    };
    assert!(numbers.windows(2).all(goes_on), "{}: {numbers:?}", file.display());
    assert!(!numbers.is_empty(), "{} shows nothing", file.display());
    numbers
}

/// [`assert_pictures`] of a file that a kill cut off: behind its end, up to the three B-frames of one group may be missing
/// before a last picture that was decoded before them. Gives the numbers before that hole.
#[must_use]
pub fn assert_pictures_but_tail(file: &Path, stream: &Stream) -> Vec<u16> {
    let (numbers, sums, source) = (ffmpeg::all_numbers(file), ffmpeg::frame_md5(file), source_md5(stream));
    for (number, sum) in numbers.iter().zip(&sums) {
        assert_eq!(*sum, source[usize::from(*number)], "{}: frame {number} is not the source's", file.display());
    }
    let follows = |pair: &[u16]| (u32::from(pair[0]) + 1) % stream.frames == u32::from(pair[1]);
    let whole = numbers.windows(2).take_while(|pair| follows(pair)).count() + 1;
    assert!(whole + 2 >= numbers.len(), "{}: frames are missing in {numbers:?}", file.display());
    numbers[..whole.min(numbers.len())].to_vec()
}

/// Asserts that segments that touch in time also touch in frame numbers; `numbers` as [`assert_pictures`] gave them.
pub fn assert_no_frame_between(segments: &[(Value, Vec<u16>)], stream: &Stream) {
    for pair in segments.windows(2) {
        let ((before, left), (after, right)) = (&pair[0], &pair[1]);
        let hole = after["start_ts"].as_i64().unwrap() - before["end_ts"].as_i64().unwrap();
        if hole.abs() > 20_000 {
            continue;
        }
        let (last, first) = (left[left.len() - 1], right[0]);
        let next = (u32::from(last) + 1) % stream.frames;
        assert_eq!(u32::from(first), next, "frames are lost between {} and {}", id(before), id(after));
    }
}

/// Asserts that from the start of the first segment to the end of the last one every moment is in exactly one segment or
/// in a gap: no hole longer than `tolerance` seconds, no overlap of segments.
pub fn assert_tiled(segments: &[Value], gaps: &[Value], tolerance: f64) {
    for pair in segments.windows(2) {
        assert!(ts(&pair[0], "end_ts") <= ts(&pair[1], "start_ts") + 1000, "overlap: {} {}", pair[0], pair[1]);
    }
    let mut spans: Vec<&Value> = segments.iter().chain(gaps).collect();
    spans.sort_by_key(|s| (ts(s, "start_ts"), ts(s, "end_ts")));
    let Some(first) = segments.first() else { return };
    let last = ts(segments.last().unwrap(), "end_ts");
    let mut covered = ts(first, "start_ts");
    for item in spans {
        let start = ts(item, "start_ts");
        if start > last {
            break;
        }
        let hole = (start - covered) as f64 / 1e6;
        assert!(hole <= tolerance, "{hole} s before {item} are neither in a segment nor in a gap");
        covered = covered.max(ts(item, "end_ts"));
    }
    for item in segments.iter().chain(gaps) {
        assert!(span(item) >= 0.0, "ends before it starts: {item}");
    }
}

/// Every file below a folder.
#[must_use]
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
