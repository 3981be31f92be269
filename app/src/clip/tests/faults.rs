//! Clips and pictures on a disk that fails, or whose power goes, at any operation of making them: what has a name is whole.

use std::sync::OnceLock;

use mos_hal::media::VideoFormat;
use mos_hal::platform::{CodecError, Codecs, Jpeg, JpegOptions};

use super::*;
use crate::archive::disk::SimDisk;
use crate::snapshot::{DEFAULT_QUALITY, Snapshots};

const OPTIONS: JpegOptions = JpegOptions { quality: DEFAULT_QUALITY, max_edge: None };

/// Makes something of a segment; says whether it was answered that it is there.
type Maker<'a> = &'a dyn Fn(&Archive, &SegmentId) -> bool;

/// The machine's codecs, which are asked once.
struct AskedOnce(Arc<dyn Codecs>, OnceLock<Jpeg>);

impl AskedOnce {
    fn new() -> Arc<Self> {
        Arc::new(Self(mos_hal::platform::probe().codecs(), OnceLock::new()))
    }
}

impl Codecs for AskedOnce {
    fn jpeg(&self, format: &VideoFormat, keyframe: &[u8], options: JpegOptions) -> Result<Jpeg, CodecError> {
        Ok(self.1.get_or_init(|| self.0.jpeg(format, keyframe, options).unwrap()).clone())
    }
}

/// What befalls a disk at one operation.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// It fails, once.
    Once(i32),
    /// It and all that follow fail.
    FromNow(i32),
    /// The power goes; what was not synced is lost, kept or torn as this decides.
    Cut(u64),
}

/// A segment of 40 pictures on a simulated disk.
fn recorded(s: &Stream) -> (SimDisk, Rig, SegmentId) {
    let clock = Arc::new(SimClock::new(BootId([5; 16]), UtcMicros(UTC)));
    let disk = SimDisk::new(clock, u64::MAX);
    let rig = Rig { folder: tempfile::tempdir().unwrap(), archive: open(&disk), lens: LensId::new("road").unwrap() };
    let id = rig.record(s, 0, 40).close(&rig);
    (disk, rig, id)
}

fn open(disk: &SimDisk) -> Archive {
    let clock = Arc::new(SimClock::new(BootId([5; 16]), UtcMicros(UTC)));
    let options = ArchiveOptions { sync_threads: 0, load_threads: 1, ..ArchiveOptions::default() };
    Archive::open(Arc::new(disk.clone()), clock, &options).unwrap()
}

fn files(disk: &SimDisk, folder: &str) -> Vec<(String, Vec<u8>)> {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let below = disk.files().into_iter().filter(|(path, _)| path.parent() == Some(Path::new(folder)));
    below.map(|(path, bytes)| (name(&path), bytes)).collect()
}

/// Makes it with trouble at each of its operations. What is there then under a name that is not hidden is `whole`; whoever was
/// answered has it; and after the next start nothing else is left. `durable`: also its name is when it is answered.
fn assert_whole_or_nothing(s: &Stream, folder: &str, make: Maker<'_>, whole: &[u8], durable: bool) {
    let (disk, rig, id) = recorded(s);
    let first = disk.ops();
    assert!(make(&rig.archive, &id));
    let operations = disk.ops() - first;
    assert!(operations >= 4, "created, written, synced, named: {operations}");
    let codecs = AskedOnce::new();
    let mut troubles = vec![Trouble::Once(libc::EIO), Trouble::Once(libc::ENOSPC), Trouble::FromNow(libc::EROFS)];
    troubles.extend((0..8).map(Trouble::Cut));
    for (at, trouble) in (0..=operations).flat_map(|at| troubles.iter().map(move |trouble| (at, *trouble))) {
        let (disk, rig, id) = recorded(s);
        match trouble {
            Trouble::Once(errno) => disk.refuse(first + at..first + at + 1, errno),
            Trouble::FromNow(errno) => disk.refuse(first + at..u64::MAX, errno),
            Trouble::Cut(_) => disk.cut_at(first + at),
        }
        let answered = make(&rig.archive, &id);
        let judge = |when: &str, answered: bool, started: bool| {
            let left = files(&disk, folder);
            let named = left.iter().filter(|(name, _)| !name.starts_with('.')).collect::<Vec<_>>();
            let what = format!("operation {at} of {operations}, {trouble:?}, {when}");
            assert!(named.iter().all(|(_, bytes)| bytes == whole), "{what}: not whole under its name");
            assert!(named.len() <= 1 && (!answered || named.len() == 1), "{what}: answered, and not there");
            assert!(!started || left.len() == named.len(), "{what}: something unfinished is left");
            named.len()
        };
        let named = judge("at once", answered, false);
        match trouble {
            // A failure that is over leaves nothing of what was refused.
            Trouble::Once(_) => assert_eq!((named, files(&disk, folder).len()), (usize::from(answered), named)),
            Trouble::FromNow(_) => {}
            Trouble::Cut(seed) => disk.crash(seed),
        }
        drop(rig);
        disk.kill();
        let archive = open(&disk);
        let _ = (Clips::new(archive.clone()), Snapshots::new(archive, codecs.clone()));
        judge("after the next start", answered && (durable || !matches!(trouble, Trouble::Cut(_))), true);
    }
}

#[test]
fn e2_whatever_fails_while_a_clip_is_cut_it_is_whole_under_its_name_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let s = stream(folder.path());
    let cut =
        |archive: &Archive, id: &SegmentId| Clips::new(archive.clone()).by_segment(id, 0.2, 1.1, Edges::Exact).is_ok();
    let (disk, rig, id) = recorded(&s);
    assert!(cut(&rig.archive, &id));
    let (name, whole) = files(&disk, "clips").remove(0);
    let path = folder.path().join(name);
    std::fs::write(&path, &whole).unwrap();
    assert!(pictures(&path, s.picture_bytes()) == pictures(&s.path, s.picture_bytes())[6..33]);
    assert_whole_or_nothing(&s, "clips", &cut, &whole, true);
}

#[test]
fn s2_whatever_fails_while_a_picture_is_taken_it_is_whole_under_its_name_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let s = stream(folder.path());
    let codecs = AskedOnce::new();
    let take = |archive: &Archive, id: &SegmentId| {
        Snapshots::new(archive.clone(), codecs.clone()).take(id, 0.7, OPTIONS).is_ok()
    };
    let (disk, rig, id) = recorded(&s);
    assert!(take(&rig.archive, &id));
    let (name, whole) = files(&disk, "snapshots").remove(0);
    let path = folder.path().join(name);
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(pictures(&path, s.picture_bytes()).len(), 1);
    assert_whole_or_nothing(&s, "snapshots", &take, &whole, false);
}
