//! Real files: written whole or not at all, in place safely.
#![allow(clippy::unwrap_used)]

use super::*;

/// A muxer's file in short: `ftyp`, `moov` with one track of two samples in one chunk, `mdat`.
fn plain() -> Vec<u8> {
    file(0, &[])
}

/// The same with `free` bytes in front of the media and `end` behind it.
fn file(free: u32, end: &[u8]) -> Vec<u8> {
    let boxed = |kind: &[u8; 4], body: &[u8]| [&(8 + body.len() as u32).to_be_bytes()[..], kind, body].concat();
    let words = |words: &[u32]| words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<_>>();
    let make = |chunk: u32| {
        let tables = [
            boxed(b"stsc", &words(&[0, 1, 1, 2, 1])),
            boxed(b"stsz", &words(&[0, 0, 2, 70_000, 80_000])),
            boxed(b"stco", &words(&[0, 1, chunk])),
        ];
        let moov = boxed(b"mdia", &boxed(b"minf", &boxed(b"stbl", &tables.concat())));
        let head = [boxed(b"ftyp", b"isom\0\0\0\0"), boxed(b"moov", &boxed(b"trak", &moov))];
        let free = if free > 0 { boxed(b"free", &vec![7; free as usize - 8]) } else { Vec::new() };
        [&head.concat()[..], &free].concat()
    };
    let head = make(0).len() as u32 + 8;
    let media: Vec<u8> = (0..150_000_u32).map(|i| (i % 251) as u8).collect();
    [&make(head)[..], &boxed(b"mdat", &media), end].concat()
}

fn with(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn the_output_is_written_beside_and_replaces_what_was_there() {
    let (dir, input) = with("in.mp4", &file(300_000, &[]));
    let output = dir.path().join("out.mp4");
    fs::write(&output, b"older").unwrap();
    let made = reduce(&input, &output).unwrap();
    assert_eq!(fs::read(&output).unwrap(), plain());
    assert_eq!((made.how, made.saved_bytes, made.free_bytes, made.media_bytes), (How::Written, 300_000, 300_000, 0));
    assert_eq!(made.output_bytes, plain().len() as u64);
    assert_eq!(fs::read(&input).unwrap(), file(300_000, &[]), "the input is left as it is");
    assert_eq!(names(dir.path()), ["in.mp4", "out.mp4"]);
}

#[test]
fn an_input_with_nothing_to_drop_comes_out_equal() {
    let (dir, input) = with("in.mp4", &plain());
    let output = dir.path().join("out.mp4");
    assert_eq!(reduce(&input, &output).unwrap().saved_bytes, 0);
    assert_eq!(fs::read(&output).unwrap(), plain());
}

#[test]
fn in_place_a_free_end_is_cut_off_and_the_file_stays_the_same_one() {
    let end = [&1000_u32.to_be_bytes()[..], b"skip", &[0; 992]].concat();
    let (_dir, path) = with("a.mp4", &file(0, &end));
    let node = fs::metadata(&path).unwrap().ino();
    assert_eq!(reduce(&path, &path).unwrap().how, How::Truncated);
    assert_eq!(fs::read(&path).unwrap(), plain());
    assert_eq!(fs::metadata(&path).unwrap().ino(), node);
    assert_eq!(reduce(&path, &path).unwrap().how, How::Unchanged);
}

#[test]
fn in_place_by_another_name_the_file_is_replaced_whole() {
    let (dir, path) = with("a.mp4", &file(5000, &[]));
    let link = dir.path().join("link.mp4");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(reduce(&path, &link).unwrap().how, How::Written);
    assert_eq!(fs::read(&path).unwrap(), plain());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(names(dir.path()), ["a.mp4", "link.mp4"]);
}

#[test]
fn what_cannot_be_reduced_leaves_no_output() {
    let whole = file(5000, &[]);
    let (dir, input) = with("in.mp4", &whole[..whole.len() - 1]);
    let output = dir.path().join("out.mp4");
    let error = reduce(&input, &output).unwrap_err();
    assert!(matches!(error, Failure::Plan { .. }), "{error}");
    assert!(error.to_string().contains("in.mp4: no sound MP4 file: at byte"), "{error}");
    assert!(matches!(reduce(dir.path(), &output), Err(Failure::Input { .. })));
    assert!(matches!(reduce(&dir.path().join("absent"), &output), Err(Failure::Input { .. })));
    assert_eq!(names(dir.path()), ["in.mp4"]);
    fs::write(&input, &whole).unwrap();
    assert!(matches!(reduce(&input, &dir.path().join("no/such/folder.mp4")), Err(Failure::Output { .. })));
    assert!(matches!(reduce(&input, dir.path()), Err(Failure::Output { .. })));
    assert_eq!(names(dir.path()), ["in.mp4"]);
}

#[test]
fn what_a_reduction_left_that_was_cut_off_is_cleared_away_by_the_next() {
    let (dir, input) = with("in.mp4", &file(5000, &[]));
    let output = dir.path().join("out.mp4");
    let begin = |pid| Part::begin_named(part_name(&output, pid).unwrap(), 0o600).unwrap();
    let under_way = begin(2);
    under_way.file.try_lock().unwrap();
    fs::write(part_name(&output, 1).unwrap(), b"half").unwrap();
    for other in [".out.mp4.part", ".out.mp4.x.part", ".other.mp4.1.part", "out.mp4.1.part"] {
        fs::write(dir.path().join(other), b"of somebody else").unwrap();
    }
    reduce(&input, &output).unwrap();
    assert_eq!(fs::read(&output).unwrap(), plain());
    let left = names(dir.path());
    let expected = [
        ".other.mp4.1.part",
        ".out.mp4.2.part",
        ".out.mp4.part",
        ".out.mp4.x.part",
        "in.mp4",
        "out.mp4",
        "out.mp4.1.part",
    ];
    assert_eq!(left, expected);
    drop(under_way);
}

/// On a file system without files that have no name.
#[test]
fn a_part_with_a_name_takes_its_place_and_goes_if_it_fails() {
    let (dir, input) = with("in.mp4", &plain());
    let begin = || Part::begin_named(part_name(&input, 7).unwrap(), 0o600).unwrap();
    drop(begin());
    assert_eq!(names(dir.path()), ["in.mp4"]);
    let part = begin();
    (&part.file).write_all(b"new").unwrap();
    part.put_in_place(&input).unwrap();
    assert_eq!((names(dir.path()), fs::read(&input).unwrap()), (vec!["in.mp4".to_owned()], b"new".to_vec()));
}
