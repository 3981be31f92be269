//! Every state of a segment file, read and recovered, without players (those are in `players.rs`).
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Built, Unit, apply, audio_entry, bytes_of, identity, put, synthetic, synthetic_audio, video_entry};
use mos_mp4::recover::Finding;
use mos_mp4::{Movie, ReadError, Recovery, SegmentFile, State, Summary, Verify};
use proptest::prelude::*;

fn built(b: usize, audio: bool) -> Built {
    let video = synthetic(47, 10, b, 3000);
    let sound = synthetic_audio(70, 300);
    let sound = audio.then(|| (audio_entry(&[0x11, 0x88]), &sound[..]));
    Built::new(&identity("road", 9), (video_entry(&[1, 100, 0, 30, 255]), &video), sound, 45_000)
}

/// The payloads of all samples, track by track, as `file` holds them.
fn payloads(file: &[u8], movie: &Movie) -> Vec<Vec<Vec<u8>>> {
    let track = |t: &mos_mp4::Track| t.table.iter().map(|s| bytes_of(file, s.offset, s.size).to_vec()).collect();
    movie.tracks.iter().map(track).collect()
}

/// Everything of `got` is the beginning of what `built` wrote, and `fragments` fragments are there.
fn assert_prefix(got: &SegmentFile, file: &[u8], built: &Built, fragments: usize) {
    let end = if fragments == 0 { built.header_len } else { built.ends[fragments - 1] };
    assert_eq!(got.end, end as u64);
    let (have, want) = (payloads(file, &got.movie), payloads(&built.file, &built.movie));
    for (h, (w, t)) in have.iter().zip(want.iter().zip(&built.movie.tracks)) {
        assert_eq!(h[..], w[..h.len()]);
        let inside = t.table.iter().filter(|s| s.end() <= end as u64).count();
        assert_eq!(h.len(), inside, "samples of track {}", t.id);
    }
}

#[test]
fn open_closing_and_closed_files_give_the_same_samples() {
    for (b, audio) in [(0, false), (0, true), (2, true), (3, false)] {
        let built = built(b, audio);
        for (file, state) in
            [(built.file.clone(), State::Open), (built.prepared(), State::Closing), (built.closed(), State::Closed)]
        {
            let got = SegmentFile::read(&file, Verify::Payload).unwrap();
            assert_eq!(got.state, state);
            assert_eq!(got.identity, identity("road", 9));
            assert_eq!(got.end, built.file.len() as u64);
            assert_eq!(got.movie, built.movie);
        }
    }
}

#[test]
fn the_summary_tells_what_the_full_read_tells() {
    let built = built(2, true);
    let s = Summary::read(&built.closed()).unwrap();
    assert_eq!(s.state, State::Closed);
    assert_eq!(s.identity, identity("road", 9));
    let video = s.video().unwrap();
    assert_eq!((video.width_or_rate, video.height_or_channels, video.samples, video.syncs), (64, 48, 47, 5));
    assert_eq!(s.tracks[1].first_dts, 300);
    assert_eq!(s.duration, 1_566_666_667);
    assert_eq!(s.tracks[1].presentation_end, 300 + 70 * 1024);
    for open in [built.file.clone(), built.prepared()] {
        assert_eq!(Summary::read(&open).unwrap().state, State::Open);
    }
}

#[test]
fn m2_every_truncation_point_keeps_every_whole_fragment() {
    let built = built(2, true);
    for len in 0..built.file.len() {
        let file = built.file[..len].to_vec();
        let whole = built.ends.iter().filter(|e| **e <= len).count();
        match SegmentFile::read(&file, Verify::Payload) {
            Ok(got) => assert_prefix(&got, &file, &built, whole),
            Err(e) => assert!(len < built.header_len, "{len}: {e}"),
        }
    }
}

#[test]
fn m2_a_tail_of_zeros_or_stale_bytes_is_not_taken_for_payload() {
    let built = built(0, true);
    let last = built.ends.len() - 1;
    let from = built.ends[last - 1];
    for at in (from..built.file.len()).step_by(8) {
        for fill in [0_u8, 0xa5] {
            let mut torn = built.file.clone();
            let end = (at + 8).min(torn.len());
            torn[at..end].fill(fill);
            if torn == built.file {
                continue;
            }
            let got = SegmentFile::read(&torn, Verify::Payload).unwrap();
            assert_prefix(&got, &torn, &built, last);
            let mut zero_tail = built.file[..at].to_vec();
            zero_tail.resize(built.file.len() + 4096, 0);
            let got = SegmentFile::read(&zero_tail, Verify::Payload).unwrap();
            assert_prefix(&got, &zero_tail, &built, last);
        }
    }
}

#[test]
fn a_damaged_header_is_refused_while_open_and_dead_bytes_once_closed() {
    let built = built(2, true);
    for at in 200..built.header_len - 16 {
        for mut file in [built.file.clone(), built.closed()] {
            let closed = file.len() > built.file.len();
            file[at] ^= 0x04;
            match SegmentFile::read(&file, Verify::Payload) {
                Ok(read) if closed => assert_eq!(read.movie, built.movie),
                Err(ReadError::Damaged { .. } | ReadError::TooShort { .. }) if !closed => {}
                other => panic!("byte {at}, closed {closed}: {other:?}"),
            }
        }
    }
}

/// Runs a recovery to its end and checks every intermediate file.
fn recover_fully(mut file: Vec<u8>, samples: usize) -> Vec<u8> {
    let plan = Recovery::plan(&SegmentFile::read(&file, Verify::Payload).unwrap());
    for step in &plan.steps {
        apply(&mut file, step);
        let between = SegmentFile::read(&file, Verify::Payload).unwrap();
        assert_eq!(between.movie.sample_count(), samples, "after {step:?}");
    }
    let after = SegmentFile::read(&file, Verify::Payload).unwrap();
    assert_eq!(after.state, State::Closed);
    assert_eq!(Recovery::plan(&after).finding, Finding::Intact);
    file
}

#[test]
fn m4_m5_every_eight_byte_tear_of_the_close_recovers_to_the_same_file() {
    let built = built(2, true);
    let samples = built.movie.sample_count();
    let (close, closed) = (built.close(), built.closed());
    for size_written in [false, true] {
        let mut base = built.file.clone();
        if size_written {
            put(&mut base, close.size_write().0, &close.size_word);
        }
        let appended = [&close.guard[..], &close.moov[..]].concat();
        for at in (0..=appended.len()).step_by(8) {
            // The moov's beginning is there and the file ends; or only its end is there, behind zeros.
            let mut head = base.clone();
            head.extend_from_slice(&appended[..at]);
            let mut tail = base.clone();
            tail.resize(tail.len() + at, 0);
            tail.extend_from_slice(&appended[at..]);
            // One word of it is missing.
            let mut hole = base.clone();
            hole.extend_from_slice(&appended);
            let end = (base.len() + at + 8).min(hole.len());
            hole[(base.len() + at).min(end)..end].fill(0);
            for torn in [head, tail, hole] {
                assert_eq!(recover_fully(torn, samples), closed);
            }
        }
    }
}

#[test]
fn m4_recovery_of_a_committed_close_changes_nothing() {
    let built = built(3, true);
    let mut file = built.closed();
    let plan = Recovery::plan(&SegmentFile::read(&file, Verify::Payload).unwrap());
    assert_eq!((plan.finding, plan.steps.len()), (Finding::Intact, 0));
    file.extend_from_slice(&[0; 999]);
    let plan = Recovery::plan(&SegmentFile::read(&file, Verify::Payload).unwrap());
    assert_eq!((plan.finding, plan.dropped), (Finding::Trailing, 999));
    assert_eq!(recover_fully(file, built.movie.sample_count()), built.closed());
}

#[test]
fn a_damaged_trailing_moov_is_rebuilt_from_the_fragments() {
    let built = built(2, true);
    let start = built.file.len() + 8;
    let closed = built.closed();
    for at in (start..closed.len()).step_by(8) {
        let mut rotten = closed.clone();
        rotten[at] ^= 0x40;
        let got = SegmentFile::read(&rotten, Verify::Payload).unwrap();
        // Only the dates and the reserved fields of mvhd are outside the checksum.
        if got.state == State::Closed {
            assert!(at < start + 152, "byte {at} of the moov is not checked");
            continue;
        }
        assert_eq!(got.state, State::Damaged);
        assert_eq!(recover_fully(rotten, built.movie.sample_count()), closed);
    }
}

/// Found by fuzzing: a size that says too little hid whole fragments.
#[test]
fn a_damaged_size_word_hides_no_fragment() {
    let built = built(2, true);
    let closed = built.closed();
    let word = 184 + 8;
    for at in word..word + 8 {
        for bit in 0..8 {
            let mut rotten = closed.clone();
            rotten[at] ^= 1 << bit;
            let got = SegmentFile::read(&rotten, Verify::Payload).unwrap();
            assert_eq!(got.state, State::Damaged, "byte {at}, bit {bit}");
            assert_eq!(recover_fully(rotten, built.movie.sample_count()), closed);
        }
    }
}

#[test]
fn a_header_without_a_fragment_is_empty_and_a_newer_version_is_left_alone() {
    let built = built(0, false);
    let file = built.file[..built.header_len + 5].to_vec();
    let plan = Recovery::plan(&SegmentFile::read(&file, Verify::Payload).unwrap());
    assert_eq!((plan.finding, plan.steps.len()), (Finding::Empty, 0));

    let mut newer = built.closed();
    newer[32 + 24 + 3] = 2;
    match SegmentFile::read(&newer, Verify::Payload) {
        Err(ReadError::Newer(id)) => assert_eq!((id.version, id.seq), (2, 9)),
        other => panic!("{other:?}"),
    }
    assert!(Summary::read(&newer).unwrap().is_newer());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_writing_reads_back(
        sizes in prop::collection::vec(0_usize..3000, 1..60),
        steps in prop::collection::vec(1_i64..200_000, 60),
        gop in 1_usize..20,
        per in 1_i64..90_000,
    ) {
        let mut pts = 0;
        let video: Vec<_> = sizes.iter().zip(&steps).enumerate().map(|(i, (n, step))| {
            let unit = Unit { pts, sync: i % gop == 0, data: vec![i as u8; *n] };
            pts += step;
            unit
        }).collect();
        let built = Built::new(&identity("x", 0), (video_entry(&[1]), &video), None, per);
        for (file, state) in [(built.file.clone(), State::Open), (built.closed(), State::Closed)] {
            let got = SegmentFile::read(&file, Verify::Payload).unwrap();
            prop_assert_eq!(got.state, state);
            prop_assert_eq!(&got.movie, &built.movie);
            let read: Vec<_> = got.movie.tracks[0].table.iter().map(|s| (s.pts(), s.sync, bytes_of(&file, s.offset, s.size).to_vec())).collect();
            let want: Vec<_> = video.iter().map(|u| (u.pts, u.sync, u.data.clone())).collect();
            prop_assert_eq!(read, want);
        }
    }

    #[test]
    fn m6_damage_anywhere_never_panics(at in 0_usize..20_000, bytes in prop::collection::vec(any::<u8>(), 1..16)) {
        let built = built(2, true);
        for mut file in [built.file.clone(), built.prepared(), built.closed()] {
            let at = at % file.len();
            put(&mut file, at as u64, &bytes);
            let _ = Summary::read(&file);
            if let Ok(got) = SegmentFile::read(&file, Verify::Structure) {
                let _ = Recovery::plan(&got);
            }
        }
    }
}
