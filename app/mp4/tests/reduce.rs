//! Files of real muxers, grown by bytes that nobody needs, come back exactly; players see no difference.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::grow::{Grown, Insert, boxes, grow, to_co64};
use common::{Built, audio_entry, identity, players, synthetic, synthetic_audio, video_entry};
use mos_mp4::reduce::ReduceError;
use mos_mp4::{Piece, ReadAt, Reduction};
use proptest::prelude::*;

/// Two pictures and two sounds at odds with each other, with B-frames and edit lists.
const SOURCES: [&str; 16] = [
    "-f",
    "lavfi",
    "-i",
    "testsrc2=s=96x64:r=30",
    "-f",
    "lavfi",
    "-i",
    "testsrc=s=64x48:r=25",
    "-f",
    "lavfi",
    "-i",
    "sine=frequency=440",
    "-f",
    "lavfi",
    "-i",
    "sine=frequency=220:sample_rate=48000",
];

/// What ffmpeg writes, by name, and how it is asked to.
const FORMS: [(&str, &[&str]); 9] = [
    ("last.mp4", &[]),
    ("first.mp4", &["-movflags", "+faststart"]),
    ("quicktime.mov", &[]),
    ("base.mp4", &["-movflags", "frag_keyframe+empty_moov"]),
    ("relative.mp4", &["-movflags", "frag_keyframe+empty_moov+default_base_moof"]),
    ("indexed.mp4", &["-movflags", "frag_keyframe+empty_moov+default_base_moof+global_sidx"]),
    ("dash.mp4", &["-movflags", "+dash+frag_keyframe+separate_moof"]),
    ("hybrid.mp4", &["-movflags", "frag_keyframe"]),
    ("encrypted.mp4", &["-encryption_scheme", "cenc-aes-ctr", "-encryption_key", KEY, "-encryption_kid", KEY]),
];

/// The key of what is encrypted; its auxiliary data has places of its own.
const KEY: &str = "00112233445566778899aabbccddeeff";

/// How many files there are: those of ffmpeg, and one with 64-bit places.
const COUNT: usize = FORMS.len() + 1;

struct Files {
    folder: tempfile::TempDir,
    /// Each as its muxer wrote it, without free boxes.
    all: Vec<(&'static str, Vec<u8>)>,
}

static FILES: LazyLock<Files> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.mp4");
    let maps = ["-map", "0", "-map", "1", "-map", "2", "-map", "3", "-t", "3"];
    let x264 =
        ["-c:v", "libx264", "-g", "20", "-bf", "3", "-preset", "ultrafast", "-x264-params", "bframes=3:threads=1"];
    run(Command::new("ffmpeg")
        .args(["-v", "error", "-y"])
        .args(SOURCES)
        .args(maps)
        .args(x264)
        .args(["-c:a", "aac"])
        .arg(&source));
    let mut all = Vec::new();
    for (name, options) in FORMS {
        let path = folder.path().join(name);
        let copy = ["-v", "error", "-y", "-i", source.to_str().unwrap(), "-map", "0", "-c", "copy"];
        run(Command::new("ffmpeg").args(copy).args(options).arg(&path));
        all.push((name, reduced(&std::fs::read(&path).unwrap())));
    }
    all.push(("wide.mp4", to_co64(&all[0].1)));
    assert_eq!(all.len(), COUNT);
    Files { folder, all }
});

fn run(command: &mut Command) -> Vec<u8> {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// The output of a plan, made piece by piece.
fn carry_out(file: &(impl ReadAt + ?Sized), plan: &Reduction) -> Vec<u8> {
    let mut made = Vec::new();
    for piece in plan.pieces() {
        match piece {
            Piece::Copy { offset, len } => {
                let end = made.len();
                made.resize(end + *len as usize, 0);
                assert_eq!(file.read_at(*offset, &mut made[end..]).unwrap(), *len as usize);
            }
            Piece::Bytes(bytes) => made.extend_from_slice(bytes),
        }
    }
    assert_eq!(made.len() as u64, plan.len());
    assert_eq!(plan.input_len() - plan.len(), plan.free_bytes() + plan.media_bytes());
    made
}

/// Reduces, and holds the file to what is promised of every output (D3).
fn reduced(file: &[u8]) -> Vec<u8> {
    let plan = Reduction::plan(&file).unwrap();
    let made = carry_out(file, &plan);
    for b in boxes(&made) {
        assert!(&b.kind != b"free" && &b.kind != b"skip", "{b:?} is left");
    }
    let again = Reduction::plan(&made.as_slice()).unwrap();
    assert_eq!(carry_out(&made, &again), made);
    assert!(again.is_prefix() && again.free_bytes() + again.media_bytes() == 0);
    made
}

/// Every packet of every stream with its times, and every decoded picture and sound, as ffmpeg sees them.
fn seen(path: &Path) -> (String, String) {
    let md5 = |options: &[&str]| {
        let mut command = Command::new("ffmpeg");
        command
            .args(["-v", "error", "-decryption_key", KEY, "-i"])
            .arg(path)
            .args(["-map", "0"])
            .args(options)
            .args(["-f", "framemd5", "-"]);
        String::from_utf8(run(&mut command)).unwrap()
    };
    (md5(&["-c", "copy"]), md5(&["-fps_mode", "passthrough"]))
}

/// The same of bytes that are no file yet; tests run at the same time, so each gets a name of its own.
fn seen_bytes(file: &[u8]) -> (String, String) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let path = FILES.folder.path().join(format!("seen-{}.mp4", NEXT.fetch_add(1, Ordering::Relaxed)));
    std::fs::write(&path, file).unwrap();
    seen(&path)
}

/// Where samples begin that begin a run of neighbours, as ffprobe sees them.
fn sample_places(path: &Path) -> Vec<usize> {
    let fields = ["-v", "error", "-show_entries", "packet=pos", "-of", "csv=p=0"];
    let text = String::from_utf8(run(Command::new("ffprobe").args(fields).arg(path))).unwrap();
    let mut places: Vec<usize> = text.lines().filter_map(|l| l.trim_end_matches(',').parse().ok()).collect();
    places.sort_unstable();
    places
}

/// Free boxes before every box of the file, alternately `free` and `skip`, of 8 bytes and more.
fn free_everywhere(file: &[u8]) -> Vec<Insert> {
    let boxes = boxes(file);
    let free = |(i, at)| Insert::free(at, if i % 2 == 0 { *b"free" } else { *b"skip" }, [8, 9, 23, 5000][i % 4]);
    boxes.iter().map(|b| b.start).chain([file.len()]).enumerate().map(free).collect()
}

#[test]
fn d1_d2_d3_free_boxes_at_every_depth_go_and_the_muxers_own_file_comes_back() {
    for (name, file) in &FILES.all {
        let grown = grow(file, &free_everywhere(file)).to_vec();
        assert!(grown.len() * 95 / 100 > file.len(), "{name}: at least 5 % of it is free");
        assert_eq!(seen_bytes(&grown), seen_bytes(file), "{name}: players take what was grown");
        let plan = Reduction::plan(&grown).unwrap();
        assert_eq!(plan.media_bytes(), 0, "{name}");
        assert_eq!(carry_out(&grown, &plan), *file, "{name}");
    }
}

#[test]
fn d1_bytes_that_no_sample_refers_to_go() {
    for (name, file) in &FILES.all {
        let path = FILES.folder.path().join("junk.mp4");
        std::fs::write(&path, file).unwrap();
        let chunks: Vec<usize> = chunk_places(file);
        let samples = sample_places(&path);
        assert!(chunks.iter().all(|c| samples.contains(c)), "{name}");
        assert!(chunks.len() > 3, "{name}: {chunks:?}");
        let inserts: Vec<_> = chunks.iter().map(|at| Insert::junk(*at, 1 + *at as u64 % 700)).collect();
        let grown = grow(file, &inserts).to_vec();
        assert_eq!(seen_bytes(&grown), seen_bytes(file), "{name}");
        let plan = Reduction::plan(&grown).unwrap();
        assert_eq!(plan.free_bytes(), 0);
        assert_eq!(plan.media_bytes(), inserts.iter().map(|i| i.len).sum::<u64>());
        assert_eq!(carry_out(&grown, &plan), *file, "{name}");
    }
}

/// Where the file says that chunks and runs begin.
fn chunk_places(file: &[u8]) -> Vec<usize> {
    let all = boxes(file);
    let word = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let mut places = Vec::new();
    let mut moof = 0;
    for b in &all {
        match &b.kind {
            b"stco" => places.extend((0..word(b.body + 4)).map(|i| word(b.body + 8 + 4 * i))),
            b"co64" => places.extend((0..word(b.body + 4)).map(|i| word(b.body + 12 + 8 * i))),
            b"moof" => moof = b.start,
            b"trun" => places.push(moof + word(b.body + 8)),
            _ => {}
        }
    }
    places.sort_unstable();
    places.dedup();
    places
}

#[test]
fn d1_a_robustly_muxed_file_of_gstreamer_loses_its_reserve_and_nothing_else() {
    let path = FILES.folder.path().join("robust.mp4");
    let source = FILES.folder.path().join("source.mp4");
    let mut gst = Command::new("gst-launch-1.0");
    gst.args(["-q", "filesrc"]).arg(format!("location={}", source.display()));
    gst.args(["!", "qtdemux", "name=d", "d.video_0", "!", "queue", "!", "h264parse", "!", "mp4mux", "name=m"]);
    gst.args(["reserved-max-duration=30000000000", "reserved-moov-update-period=1000000000", "!", "filesink"]);
    gst.arg(format!("location={}", path.display())).args(["d.audio_0", "!", "queue", "!", "aacparse", "!", "m."]);
    LazyLock::force(&FILES);
    run(&mut gst);
    let file = std::fs::read(&path).unwrap();
    let plan = Reduction::plan(&file).unwrap();
    assert!(plan.free_bytes() * 20 >= file.len() as u64, "{} of {} bytes are free", plan.free_bytes(), file.len());
    assert_eq!(plan.media_bytes(), 0);
    assert_eq!(seen_bytes(&reduced(&file)), seen(&path));
}

/// A closed segment of real pictures and sound.
fn segment(dir: &Path) -> (common::ffmpeg::Stream, Built) {
    let stream = common::ffmpeg::H264.run(dir);
    let sound = stream.audio.as_ref().map(|(e, u)| (e.clone(), &u[..]));
    let built = Built::new(&identity("road", 1), (stream.video.0.clone(), &stream.video.1), sound, 45_000);
    (stream, built)
}

#[test]
fn d1_a_closed_segment_loses_its_dead_fragments_headers_and_plays_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (stream, built) = segment(dir.path());
    let file = built.closed();
    let made = reduced(&file);
    let payload: u64 = built.movie.tracks.iter().map(|t| t.table.bytes()).sum();
    let mdat: usize = boxes(&made).iter().filter(|b| &b.kind == b"mdat").map(|b| b.end - b.body).sum();
    assert_eq!(mdat as u64, payload);
    assert_eq!(seen_bytes(&made), seen_bytes(&file));
    let paths: Vec<PathBuf> = [("closed.mp4", &file), ("reduced.mp4", &made)]
        .iter()
        .map(|(name, bytes)| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        })
        .collect();
    for scheduling in [players::Scheduling::Pull, players::Scheduling::Push] {
        let seen = players::gstreamer(&paths, stream.picture_bytes(), "h264", scheduling);
        assert_eq!(seen[0].len(), stream.video.1.len());
        assert_eq!(seen[0], seen[1]);
    }
    assert_eq!(players::mp4parse(&made), Ok(2));
    // The fragmented form before the close has only two free boxes to lose.
    let open = reduced(&built.file);
    assert!(built.file.len() - open.len() <= 16 + 15);
    assert_eq!(seen_bytes(&open), seen_bytes(&built.file));
}

/// The checksum that a segment's `moov` carries is right again.
#[test]
fn d2_a_reduced_segments_moov_keeps_its_seal() {
    let built = built();
    let made = reduced(&built.closed());
    let moov = boxes(&made).into_iter().find(|b| &b.kind == b"moov").unwrap();
    let uuid = boxes(&made).into_iter().find(|b| &b.kind == b"uuid" && b.start > moov.start).unwrap();
    let seal = uuid.body + 16;
    let sum = u32::from_be_bytes(made[seal..seal + 4].try_into().unwrap());
    assert_eq!(sum, crc32fast::hash(&made[seal + 4..moov.end]));
}

fn built() -> Built {
    let (video, audio) = (synthetic(40, 10, 2, 3000), synthetic_audio(60, 0));
    Built::new(&identity("road", 9), (video_entry(&[1]), &video), Some((audio_entry(&[0x11, 0x88]), &audio)), 15_000)
}

/// Zeros but for some parts: files too large for memory.
struct Sparse(Grown);

impl ReadAt for Sparse {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.0.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        buf[..n].fill(0);
        for (at, bytes) in &self.0.parts {
            let (from, to) = ((*at).max(offset), (at + bytes.len() as u64).min(offset + n as u64));
            if from < to {
                buf[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
            }
        }
        Ok(n)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len)
    }
}

#[test]
fn d1_places_beyond_4_gib_come_back() {
    let by_name = |name: &str| &FILES.all.iter().find(|(n, _)| *n == name).unwrap().1;
    for name in ["wide.mp4", "base.mp4"] {
        let file = by_name(name);
        let media = boxes(file).into_iter().find(|b| matches!(&b.kind, b"mdat" | b"moof")).unwrap().start;
        let huge = Insert::free(media, *b"free", 5 << 30);
        // Where places have 32 bits, as in tfra, nothing this large can have been written.
        let file = if name == "base.mp4" { without_mfra(file) } else { file.clone() };
        let sparse = Sparse(grow(&file, &[huge, Insert::free(0, *b"skip", 6 << 30)]));
        let plan = Reduction::plan(&sparse).unwrap();
        assert_eq!((plan.free_bytes(), plan.len()), (11 << 30, file.len() as u64), "{name}");
        assert_eq!(carry_out(&sparse, &plan), file, "{name}");
    }
}

fn without_mfra(file: &[u8]) -> Vec<u8> {
    let mfra = boxes(file).into_iter().find(|b| &b.kind == b"mfra").unwrap();
    assert_eq!(mfra.end, file.len());
    file[..mfra.start].to_vec()
}

#[test]
fn d1_several_mdats_of_all_header_forms_are_kept_apart() {
    let (_, file) = &FILES.all[1];
    let mdat = boxes(file).into_iter().find(|b| &b.kind == b"mdat").unwrap();
    assert_eq!(mdat.end, file.len());
    let chunks = chunk_places(file);
    let (one, two) = (chunks[chunks.len() / 3], chunks[chunks.len() * 2 / 3]);
    // The first ends before chunk `one`, the second has a 64-bit size, the third reaches to the end of the file.
    let second = [&1_u32.to_be_bytes()[..], b"mdat", &((two - one) as u64 + 16).to_be_bytes()].concat();
    let heads = [(one, second), (two, [&[0; 4][..], b"mdat"].concat())];
    let heads = heads.map(|(at, bytes)| Insert { at, len: bytes.len() as u64, bytes });
    let mut split = grow(file, &heads).to_vec();
    split[mdat.start..mdat.start + 4].copy_from_slice(&((one - mdat.start) as u32).to_be_bytes());
    assert_eq!(boxes(&split).iter().filter(|b| &b.kind == b"mdat").count(), 3);
    assert_eq!(seen_bytes(&split), seen_bytes(file));
    assert_eq!(reduced(&split), split, "nothing to drop");

    let mut inserts = free_everywhere(&split);
    // Nothing can follow a box that reaches to the end.
    inserts.retain(|i| i.at < split.len());
    inserts.extend([chunks[1], one + 16, two + 24].map(|at| Insert::junk(at, 321)));
    let grown = grow(&split, &inserts).to_vec();
    assert_eq!(seen_bytes(&grown), seen_bytes(file));
    assert_eq!(reduced(&grown), split);
}

#[test]
fn d1_samples_that_two_tracks_share_are_kept_for_both() {
    let (_, file) = &FILES.all[0];
    let trak = boxes(file).into_iter().find(|b| &b.kind == b"trak").unwrap();
    let mut twin = file[trak.start..trak.end].to_vec();
    let tkhd = boxes(&twin).into_iter().find(|b| &b.kind == b"tkhd").unwrap();
    assert_eq!(twin[tkhd.body], 0, "version 0: the id is behind two times of 32 bits");
    twin[tkhd.body + 12..tkhd.body + 16].copy_from_slice(&9_u32.to_be_bytes());
    let twin = Insert { at: trak.start, len: twin.len() as u64, bytes: twin };
    let shared = grow(file, &[twin]).to_vec();
    let mut inserts = free_everywhere(&shared);
    inserts.extend(chunk_places(&shared).into_iter().map(|at| Insert::junk(at, 99)));
    let grown = grow(&shared, &inserts).to_vec();
    assert_eq!(reduced(&grown), shared);
    let seen = seen_bytes(&shared);
    assert_eq!(seen.0.lines().filter(|l| l.starts_with("#media_type")).count(), 5);
    assert_eq!(seen_bytes(&grown), seen);
}

#[test]
fn a_free_box_at_the_end_is_cut_off() {
    let (_, file) = &FILES.all[1];
    let mut longer = file.clone();
    longer.extend_from_slice(b"\0\0\0\0free everything up to here");
    let plan = Reduction::plan(&longer).unwrap();
    assert!(plan.is_prefix());
    assert_eq!(carry_out(&longer, &plan), *file);
    let elsewhere = grow(file, &[Insert::free(0, *b"free", 8)]).to_vec();
    assert!(!Reduction::plan(&elsewhere).unwrap().is_prefix());
}

#[test]
fn d4_a_file_that_was_cut_short_has_no_plan() {
    for (name, file) in &FILES.all {
        let ends: Vec<usize> = boxes(file).iter().filter(|b| b.parent.is_none()).map(|b| b.end).collect();
        for len in (0..file.len()).step_by(97) {
            let plan = Reduction::plan(&file[..len].to_vec());
            // A fragmented file may end behind any fragment.
            assert!(plan.is_err() || ends.contains(&len), "{name} with {len} bytes");
        }
    }
}

#[test]
fn d4_what_cannot_be_followed_is_refused_unless_nothing_moves() {
    let (_, file) = &FILES.all[0];
    let moov = boxes(file).into_iter().find(|b| &b.kind == b"moov").unwrap();
    for (kind, body) in [(b"gps ", &[0; 12][..]), (b"cmov", &[0; 8])] {
        let strange = [&(8 + body.len() as u32).to_be_bytes()[..], kind, body].concat();
        let strange = Insert { at: moov.body, len: strange.len() as u64, bytes: strange };
        let with = grow(file, std::slice::from_ref(&strange)).to_vec();
        assert_eq!(carry_out(&with, &Reduction::plan(&with).unwrap()), with);
        let free = grow(&with, &[Insert::free(0, *b"free", 64)]).to_vec();
        let refused = Reduction::plan(&free).unwrap_err();
        assert!(matches!(refused, ReduceError::Unsupported { .. }), "{refused}");
    }
    // A chunk that lies in front of the media.
    let stco = boxes(file).into_iter().find(|b| &b.kind == b"stco").unwrap();
    let mut outside = file.clone();
    outside[stco.body + 8..stco.body + 12].copy_from_slice(&4_u32.to_be_bytes());
    assert!(matches!(Reduction::plan(&outside), Err(ReduceError::Malformed { .. })));
    // Text is no MP4 file.
    assert!(matches!(Reduction::plan(&b"no MP4 file at all".to_vec()), Err(ReduceError::Malformed { .. })));
}

#[test]
fn auxiliary_data_is_followed_within_its_moof_and_refused_elsewhere() {
    let (_, file) = &FILES.all[4];
    let first = |kind: &[u8; 4]| boxes(file).into_iter().find(|b| &b.kind == kind).unwrap();
    let (tfdt, moof) = (first(b"tfdt"), first(b"moof"));
    for (place, inside) in [(60, true), (moof.end - moof.start + 40, false)] {
        let words = [20, u32::from_be_bytes(*b"saio"), 0, 1, place as u32];
        let saio = Insert { at: tfdt.start, len: 20, bytes: words.iter().flat_map(|w| w.to_be_bytes()).collect() };
        let with = grow(file, &[saio]).to_vec();
        // Only grown files have their places mended: the box itself is put in with the place that it means.
        let grown = grow(&with, &free_everywhere(&with)).to_vec();
        match Reduction::plan(&grown) {
            Ok(plan) => assert!(inside && carry_out(&grown, &plan) == with),
            Err(e) => assert!(!inside && matches!(e, ReduceError::Unsupported { .. }), "{e}"),
        }
    }
}

#[test]
fn d4_sound_in_units_of_its_own_keeps_all_media_bytes() {
    let path = FILES.folder.path().join("pcm.mov");
    LazyLock::force(&FILES);
    let source = ["-v", "error", "-y", "-f", "lavfi", "-i", "sine=frequency=440", "-t", "1", "-c:a", "pcm_s16le"];
    run(Command::new("ffmpeg").args(source).arg(&path));
    let file = std::fs::read(&path).unwrap();
    // QuickTime's way: every sample is said to have one byte.
    let stsz = boxes(&file).into_iter().find(|b| &b.kind == b"stsz").unwrap();
    let mut units = file.clone();
    units[stsz.body + 4..stsz.body + 8].copy_from_slice(&1_u32.to_be_bytes());
    assert_eq!(seen_bytes(&units), seen(&path));
    let grown = grow(&units, &[Insert::free(0, *b"free", 4000)]).to_vec();
    assert_eq!(carry_out(&grown, &Reduction::plan(&grown).unwrap()), units);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn d1_d3_any_bytes_put_in_go_out_again(
        which in 0..COUNT,
        free in prop::collection::vec((any::<prop::sample::Index>(), 8_u64..3000, any::<bool>()), 0..12),
        junk in prop::collection::vec((any::<prop::sample::Index>(), 1_u64..3000), 0..6),
    ) {
        let (_, file) = &FILES.all[which];
        let (all, chunks) = (boxes(file), chunk_places(file));
        let mut inserts: Vec<_> = free
            .iter()
            .map(|(i, len, skip)| Insert::free(i.get(&all).start, if *skip { *b"skip" } else { *b"free" }, *len))
            .collect();
        inserts.extend(junk.iter().map(|(i, len)| Insert::junk(*i.get(&chunks), *len)));
        let grown = grow(file, &inserts).to_vec();
        prop_assert_eq!(&reduced(&grown), file);
    }

    #[test]
    fn d4_damage_anywhere_gives_an_error_or_a_plan_within_the_file(
        which in 0..COUNT,
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (_, file) = &FILES.all[which];
        let mut rotten = grow(file, &free_everywhere(file)).to_vec();
        // Only the boxes: damage to the media is no matter of this.
        let targets: Vec<usize> =
            boxes(&rotten).iter().filter(|b| &b.kind != b"mdat").flat_map(|b| b.start..b.end.min(b.start + 400)).collect();
        for (i, byte) in &hits {
            rotten[*i.get(&targets)] = *byte;
        }
        if let Ok(plan) = Reduction::plan(&rotten) {
            let made = carry_out(&rotten, &plan);
            let again = Reduction::plan(&made).unwrap();
            prop_assert_eq!(carry_out(&made, &again), made);
        }
    }
}
