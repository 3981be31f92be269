//! Real streams in every state of the close, decoded by real players.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::path::{Path, PathBuf};

use common::ffmpeg::{H264, H265, H265_OPEN, Make, Stream};
use common::players::{self, Picture, Scheduling};
use common::{Built, identity};

fn build(s: &Stream) -> Built {
    let audio = s.audio.as_ref().map(|(e, u)| (e.clone(), &u[..]));
    Built::new(&identity("road", 1), (s.video.0.clone(), &s.video.1), audio, 45_000)
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Each file must give exactly `want` in every player.
fn assert_plays(files: &[PathBuf], s: &Stream, codec: &str, want: &[Picture]) {
    let bytes = s.picture_bytes();
    let judge = |player: &str, got: Vec<Vec<Picture>>| {
        for (file, pictures) in files.iter().zip(got) {
            assert_eq!(pictures.len(), want.len(), "{player} on {}", file.display());
            assert_eq!(pictures, want, "{player} on {}", file.display());
        }
    };
    judge("ffmpeg", players::ffmpeg(files, bytes));
    judge("GStreamer, pull", players::gstreamer(files, bytes, codec, Scheduling::Pull));
    judge("GStreamer, push", players::gstreamer(files, bytes, codec, Scheduling::Push));
    for file in files {
        // It refuses any file whose last box is cut short, so it is given what its users give it: a file that streams in, up
        // to the first moov, if the rest is torn.
        let bytes = std::fs::read(file).unwrap();
        let torn = mos_mp4::SegmentFile::read(&bytes, mos_mp4::Verify::Structure).is_ok_and(|s| s.file_len > s.used);
        let header = if torn {
            mos_mp4::SegmentFile::read(&bytes, mos_mp4::Verify::Structure).unwrap().header_len
        } else {
            bytes.len() as u64
        };
        let tracks = players::mp4parse(&bytes[..header as usize]);
        assert_eq!(tracks, Ok(1 + usize::from(s.audio.is_some())), "mp4parse on {}", file.display());
    }
}

fn states(make: Make<'_>, codec: &str) {
    let dir = tempfile::tempdir().unwrap();
    let s = make.run(dir.path());
    let built = build(&s);
    let want = players::ffmpeg(std::slice::from_ref(&s.path), s.picture_bytes()).remove(0);
    assert_eq!(want.len(), make.frames);
    let files = [
        write(dir.path(), "open.mp4", &built.file),
        write(dir.path(), "closing.mp4", &built.prepared()),
        write(dir.path(), "closed.mp4", &built.closed()),
    ];
    assert_plays(&files, &s, codec, &want);
    // mp4san knows no `uuid` box at all and refuses whatever it does not know; everything else of a closed file passes.
    let mut renamed = built.closed();
    assert_eq!(&renamed[36..40], b"uuid");
    renamed[36..40].copy_from_slice(b"free");
    assert_eq!(players::mp4san(&renamed), Ok(()));
}

#[test]
fn m5_h264_with_b_frames_and_sound_plays_in_every_state() {
    states(H264, "h264");
}

#[test]
fn m5_h265_plays_in_every_state() {
    states(H265, "h265");
}

#[test]
fn m5_h265_with_open_groups_plays_in_every_state() {
    states(H265_OPEN, "h265");
}

/// Every 8-byte tear of the append in step 1: its beginning only, its end only behind zeros, all but one word. The guard is
/// durable before the rest is written, so it is there or nothing is. Whether the size word was written makes no difference
/// to a player: it is the inside of a `free` box.
fn tears(built: &Built, every: usize) -> Vec<(String, Vec<u8>)> {
    let close = built.close();
    let mut base = built.file.clone();
    common::put(&mut base, close.size_write().0, &close.size_word);
    let appended = close.moov;
    let mut torn = vec![("no-guard.mp4".to_owned(), base.clone())];
    for at in (0..appended.len()).step_by(every) {
        let with = |tail: &[u8]| [&base[..], &close.guard[..], tail].concat();
        let end = (at + 8).min(appended.len());
        let zeros_then_end = [&vec![0; at][..], &appended[at..]].concat();
        let mut one_word_missing = appended.clone();
        one_word_missing[at..end].fill(0);
        torn.push((format!("head-{at}.mp4"), with(&appended[..at])));
        torn.push((format!("end-{at}.mp4"), with(&zeros_then_end)));
        torn.push((format!("word-{at}.mp4"), with(&one_word_missing)));
    }
    torn
}

fn torn_closes(make: Make<'_>, codec: &str, every: usize) {
    let dir = tempfile::tempdir().unwrap();
    let s = Make { frames: 20, audio: false, ..make }.run(dir.path());
    let built = build(&s);
    let want = players::ffmpeg(std::slice::from_ref(&s.path), s.picture_bytes()).remove(0);
    let files: Vec<_> = tears(&built, every).iter().map(|(name, bytes)| write(dir.path(), name, bytes)).collect();
    assert_plays(&files, &s, codec, &want);
}

#[test]
fn m4_m5_every_eight_byte_tear_of_a_close_plays_h264() {
    torn_closes(H264, "h264", 8);
}

#[test]
fn m4_m5_tears_of_a_close_play_h265() {
    torn_closes(H265, "h265", 64);
}
