//! Promises of opening: index, recovery, quarantine, newer formats, damaged state, `mos check`.
#![allow(clippy::unwrap_used)]

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use mos_hal::clock::{Clock, Mono};
use mos_mp4::State;

use super::{ids, note};
use crate::archive::disk::{Disk, OpenMode, RealDisk};
use crate::archive::testing::{FRAGMENT, Machine, START_UTC, Take, assert_sound, lens, now, record};
use crate::archive::{Archive, ArchiveError, ArchiveOptions, Gap, GapCause, SegmentState, Window, check};
use crate::retention::Limits;

#[test]
fn what_is_not_listed_yet_is_not_called_missing() {
    let machine = Machine::new();
    let id = record(&machine.start(), &lens("road"), now(&machine), 2);
    machine.kill();
    let archive = machine.open().unwrap();
    assert!(matches!(archive.lookup(&id), Err(ArchiveError::StillListing(_))));
    assert!(matches!(archive.keep(&id, &note()), Err(ArchiveError::StillListing(_))));
    let of_this_run = "road-2-0".parse().unwrap();
    assert!(matches!(archive.lookup(&of_this_run), Err(ArchiveError::NotFound(_))));
    archive.load().unwrap();
    assert_eq!(archive.lookup(&id).unwrap().row.id, id);
    let unknown = "road-1-9".parse().unwrap();
    assert!(matches!(archive.lookup(&unknown), Err(ArchiveError::NotFound(_))));
}

#[test]
fn without_a_clock_file_the_header_tells() {
    let machine = Machine::new();
    let archive = machine.start();
    let id = record(&archive, &lens("road"), now(&machine), 2);
    machine.kill();
    machine.disk.remove_file(Path::new("segments/road/1/clock")).unwrap();
    for _ in 0..2 {
        // Once with a fresh index, once with a snapshot that knows the segment.
        let archive = machine.start();
        assert_eq!(archive.lookup(&id).unwrap().start_ts, START_UTC);
        archive.snapshot_index().unwrap();
        machine.kill();
    }
}

#[test]
fn l1_known_files_are_not_opened_and_a_damaged_snapshot_costs_nothing_but_time() {
    let machine = Machine::new();
    let archive = machine.start();
    let road = lens("road");
    let start = now(&machine);
    let known = record(&archive, &road, start, 2);
    archive.snapshot_index().unwrap();
    let later = record(&archive, &road, start + 2 * FRAGMENT, 2);
    machine.kill();
    // Damage that only opening the file would show.
    let file = machine.disk.open(&known.media_path(), OpenMode::ReadWrite).unwrap();
    file.write_at(40, &[IoSlice::new(&[0; 64])]).unwrap();
    let archive = machine.start();
    assert_eq!(archive.health().index_rebuilt, None);
    assert_eq!(ids(&archive), [known.to_string(), later.to_string()]);
    archive.snapshot_index().unwrap();
    machine.kill();
    let file = machine.disk.open(Path::new("index/segments.db"), OpenMode::ReadWrite).unwrap();
    file.write_at(5000, &[IoSlice::new(b"damage")]).unwrap();
    let archive = machine.start();
    assert!(archive.health().index_rebuilt.unwrap().contains("checksum"));
    assert_eq!(ids(&archive), [later.to_string()]);
    assert_eq!(archive.health().quarantined, 1);
}

#[test]
fn q1_strangers_and_unreadable_files_are_put_away_not_deleted() {
    let machine = Machine::new();
    let archive = machine.start();
    let road = lens("road");
    let start = now(&machine);
    let first = record(&archive, &road, start, 2);
    let second = record(&archive, &road, start + 2 * FRAGMENT, 2);
    record(&archive, &road, start + 4 * FRAGMENT, 2);
    machine.kill();
    let spoil = |path: &str, text: &[u8]| {
        let file = machine.disk.open(Path::new(path), OpenMode::CreateNew).unwrap();
        file.write_at(0, &[IoSlice::new(text)]).unwrap();
    };
    spoil("segments/readme.txt", b"hello");
    spoil("segments/road/1/notes", b"mine");
    spoil("segments/road/1/007.mp4", b"not a canonical number");
    machine.disk.create_dir(Path::new("segments/Other")).unwrap();
    let file = machine.disk.open(&second.media_path(), OpenMode::ReadWrite).unwrap();
    file.write_at(32, &[IoSlice::new(&[0xaa; 100])]).unwrap();
    let archive = machine.start();
    assert_eq!(archive.health().quarantined, 5);
    assert_eq!(ids(&archive).len(), 2);
    assert_sound(&machine, &archive, &first);
    let hole: Vec<_> =
        archive.catalog().gaps(None, Window::ALL).into_iter().map(|g| (g.cause, g.end_ts.0 - g.start_ts.0)).collect();
    assert_eq!(hole, [(GapCause::DiskError, 1_000_000)]);
    let names: Vec<String> =
        machine.disk.read_dir(Path::new("quarantine")).unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["Other", "readme.txt", "road-1-007.mp4", "road-1-1.mp4", "road-1-notes"]);
}

#[test]
fn a_file_of_a_newer_format_stays_and_is_listed() {
    let machine = Machine::new();
    let archive = machine.start();
    let id = record(&archive, &lens("road"), now(&machine) + FRAGMENT, 2);
    machine.kill();
    let file = machine.disk.open(&id.media_path(), OpenMode::ReadWrite).unwrap();
    // The format version is the first field of the identity's body.
    file.write_at(32 + 24, &[IoSlice::new(&99_u32.to_be_bytes())]).unwrap();
    let before = machine.disk.files();
    for _ in 0..2 {
        let archive = machine.start();
        let row = archive.lookup(&id).unwrap();
        assert_eq!(row.row.state, SegmentState::Newer);
        assert_eq!(archive.health().quarantined, 0);
        archive.snapshot_index().unwrap();
        machine.kill();
    }
    let path = id.media_path();
    let media = |files: Vec<(std::path::PathBuf, Vec<u8>)>| files.into_iter().find(|(p, _)| *p == path);
    assert_eq!(media(before), media(machine.disk.files()));
}

#[test]
fn l3_damaged_state_freezes_deletions_until_repair() {
    for spoiled in ["segments/road/1/gaps.jsonl", "segments/road/1/clock"] {
        let machine = Machine::new();
        let archive = machine.start();
        let road = lens("road");
        let start = now(&machine);
        let gaps = archive.gaps(&road).unwrap();
        gaps.append(Gap { start: Mono(start.0 - 5_000_000_000), end: start, cause: GapCause::Starting });
        let id = record(&archive, &road, start, 2);
        gaps.append(Gap { start: start + 2 * FRAGMENT, end: start + 4 * FRAGMENT, cause: GapCause::CameraAbsent });
        archive.flush();
        machine.kill();
        let file = machine.disk.open(Path::new(spoiled), OpenMode::ReadWrite).unwrap();
        file.write_at(9, &[IoSlice::new(b"\xff\xff")]).unwrap();
        let archive = machine.start();
        assert!(archive.health().frozen[0].contains(spoiled), "{:?}", archive.health().frozen);
        assert!(matches!(archive.remove(&id), Err(ArchiveError::Frozen(_))));
        let report = machine.tend(&archive, &Limits { max_bytes: Some(0), ..Limits::default() });
        assert!(report.short && report.trouble.unwrap().contains(spoiled));
        assert_sound(&machine, &archive, &id);
        machine.kill();
        let disk: Arc<dyn Disk> = Arc::new(machine.disk.clone());
        let found = check::check(disk.as_ref()).unwrap();
        assert!(!found.is_sound());
        let mended = check::repair(&disk, machine.clock.clone()).unwrap();
        assert!(mended.is_sound(), "{mended:?}");
        assert!(mended.repairs.iter().any(|r| r.contains(spoiled)), "{mended:?}");
        machine.kill();
        let archive = machine.start();
        assert_eq!(archive.health().frozen, Vec::<String>::new());
        assert_eq!(archive.lookup(&id).unwrap().start_ts, START_UTC);
        archive.remove(&id).unwrap();
    }
}

#[test]
fn y1_check_changes_nothing() {
    let machine = Machine::new();
    let archive = machine.start();
    let road = lens("road");
    let id = record(&archive, &road, now(&machine), 2);
    archive.keep(&id, &note()).unwrap();
    let mut open = Take::begin(&archive, &road, now(&machine) + 2 * FRAGMENT).unwrap();
    open.append().unwrap();
    open.after_sync(&archive.commit());
    archive.flush();
    machine.kill();
    let before = (machine.disk.files(), machine.disk.ops());
    let found = check::check(&machine.disk).unwrap();
    assert_eq!(before, (machine.disk.files(), machine.disk.ops()));
    assert_eq!((found.segments, found.closed, found.protected), (2, 1, 1));
    assert_eq!(found.unclosed, [open.id().to_string()]);
    assert!(found.is_sound());
}

#[test]
fn recovery_on_the_real_disk_too() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new();
    let open = || {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).unwrap());
        let archive = Archive::open(disk, machine.clock.clone(), &ArchiveOptions::default()).unwrap();
        archive.load().unwrap();
        archive
    };
    let archive = open();
    let start = machine.clock.mono();
    let closed = record(&archive, &lens("road"), start, 3);
    let mut take = Take::begin(&archive, &lens("road"), start + 3 * FRAGMENT).unwrap();
    take.append().unwrap();
    take.after_sync(&archive.commit());
    let unclosed = take.id();
    archive.keep(&closed, &note()).unwrap();
    archive.flush();
    drop(take);
    assert!(RealDisk::open(dir.path()).is_err(), "one process at a time");
    drop(archive);
    let archive = open();
    let rows = archive.catalog().segments(None, Window::ALL, 0, 9);
    assert_eq!(rows[0].row.id, closed);
    assert!(rows[0].row.protected && rows[0].row.allocated >= rows[0].row.bytes);
    assert_eq!((rows[1].row.id.clone(), rows[1].row.state), (unclosed, SegmentState::Recovered));
    archive.snapshot_index().unwrap();
    drop(archive);
    let archive = open();
    assert_eq!(archive.health().index_rebuilt, None);
    assert_eq!(archive.catalog().segments(None, Window::ALL, 0, 9), rows);
    archive.unkeep(&closed).unwrap();
    archive.remove(&closed).unwrap();
    assert!(!dir.path().join(closed.media_path()).exists());
    assert_eq!(machine_state(dir.path(), &rows[1].row.id), State::Closed);
}

fn machine_state(root: &Path, id: &crate::archive::ids::SegmentId) -> State {
    let bytes = std::fs::read(root.join(id.media_path())).unwrap();
    mos_mp4::SegmentFile::read(&bytes, mos_mp4::Verify::Payload).unwrap().state
}

#[test]
fn a_closed_segment_that_lost_its_end_is_damage_and_what_is_intact_is_saved() {
    let machine = Machine::new();
    let archive = machine.start();
    let road = lens("road");
    let start = now(&machine);
    let id = record(&archive, &road, start, 40);
    record(&archive, &road, start + 40 * FRAGMENT, 2);
    let bytes = archive.lookup(&id).unwrap().row.bytes;
    machine.kill();
    let file = machine.disk.open(&id.media_path(), OpenMode::ReadWrite).unwrap();
    file.set_len(bytes / 2).unwrap();
    let found = check::check(&machine.disk).unwrap();
    assert!(found.damaged[0].contains("road/1/0.mp4") && !found.is_sound(), "{found:?}");
    let archive = machine.start();
    assert_eq!(archive.health().damaged, std::slice::from_ref(&id));
    let row = archive.lookup(&id).unwrap().row;
    assert!(row.frames > 0 && row.frames < 200 && row.state == SegmentState::Recovered, "{row:?}");
    let gaps = archive.catalog().gaps(None, Window::ALL);
    assert_eq!(gaps.iter().map(|g| g.cause).collect::<Vec<_>>(), [GapCause::DiskError]);
}

#[test]
fn v3_nothing_with_contents_is_ever_deleted() {
    let garbage: Vec<u8> = (0..3000_u32).map(|n| (n * n) as u8).collect();
    let machine = Machine::new();
    let archive = machine.start();
    let road = lens("road");
    record(&archive, &road, now(&machine), 2);
    // Its header is there, but no fragment.
    let begun = Take::begin(&archive, &road, now(&machine) + 2 * FRAGMENT).unwrap();
    archive.flush();
    let path = begun.id().media_path();
    let header = crate::archive::run::read_whole(&machine.disk, &path).unwrap();
    machine.kill();
    let put = |seq: u32, bytes: &[u8]| {
        let file = machine.disk.open(Path::new(&format!("segments/road/1/{seq}.mp4")), OpenMode::CreateNew).unwrap();
        file.write_at(0, &[IoSlice::new(bytes)]).unwrap();
    };
    put(70, &[]);
    put(71, &[0; 9000]);
    put(72, &header[..100]);
    put(77, &garbage);
    let torn: Vec<u8> = [&header[..], &[0; 64], b"torn"].concat();
    machine.disk.open(&path, OpenMode::ReadWrite).unwrap().write_at(0, &[IoSlice::new(&torn)]).unwrap();
    let archive = machine.start();
    let health = archive.health();
    assert_eq!((health.dropped, health.quarantined), (2, 3), "{health:?}");
    let names: Vec<String> =
        machine.disk.read_dir(Path::new("quarantine")).unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["road-1-1.mp4", "road-1-72.mp4", "road-1-77.mp4"]);
    let kept = crate::archive::run::read_whole(&machine.disk, Path::new("quarantine/road-1-77.mp4")).unwrap();
    assert_eq!(kept, garbage);
}

#[test]
fn v3_a_begun_file_without_a_sample_is_dropped() {
    let machine = Machine::new();
    let archive = machine.start();
    let begun = Take::begin(&archive, &lens("road"), now(&machine)).unwrap();
    archive.flush();
    machine.kill();
    let archive = machine.start();
    assert_eq!((archive.health().dropped, archive.health().quarantined), (1, 0));
    assert!(!machine.exists(&begun.id().media_path()));
}

#[test]
fn v4_a_file_damaged_in_the_middle_is_kept_whole_in_quarantine() {
    let machine = Machine::new();
    let archive = machine.start();
    let mut take = Take::begin(&archive, &lens("road"), now(&machine)).unwrap();
    let mut third = 0;
    for n in 0..10 {
        if n == 3 {
            third = take.open.len();
        }
        take.append().unwrap();
        take.after_sync(&archive.commit());
    }
    let id = take.id();
    machine.kill();
    let file = machine.disk.open(&id.media_path(), OpenMode::ReadWrite).unwrap();
    file.write_at(third + 20, &[IoSlice::new(&[0xff])]).unwrap();
    let whole = crate::archive::run::read_whole(&machine.disk, &id.media_path()).unwrap();
    let archive = machine.start();
    assert_sound(&machine, &archive, &id);
    assert_eq!(archive.lookup(&id).unwrap().row.frames, 3 * 5);
    assert_eq!(archive.health().quarantined, 1);
    let kept = crate::archive::run::read_whole(&machine.disk, Path::new("quarantine/road-1-0.mp4")).unwrap();
    assert_eq!(kept, whole);
}

#[test]
fn q2_q3_only_torn_segments_of_ours_that_nobody_protects_expire() {
    let machine = Machine::new();
    let archive = machine.start();
    let mut ids = Vec::new();
    for name in ["road", "cabin", "rear"] {
        let mut take = Take::begin(&archive, &lens(name), now(&machine)).unwrap();
        for _ in 0..10 {
            take.append().unwrap();
            take.after_sync(&archive.commit());
        }
        ids.push(take.id());
        // The rear's beginning is lost as well: nothing in it tells whose it is.
        let damage: &[(u64, usize)] = if name == "rear" { &[(40, 100)] } else { &[(2600, 40)] };
        let file = machine.disk.open(&take.id().media_path(), OpenMode::ReadWrite).unwrap();
        for (at, len) in damage {
            file.write_at(*at, &[IoSlice::new(&vec![0xff; *len])]).unwrap();
        }
        std::mem::forget(take);
    }
    archive.keep(&ids[0], &note()).unwrap();
    archive.keep(&ids[2], &note()).unwrap();
    machine.kill();
    let stranger = machine.disk.open(Path::new("quarantine/road-7-7.mp4"), OpenMode::CreateNew).unwrap();
    stranger.write_at(0, &[IoSlice::new(b"somebody's")]).unwrap();
    let archive = machine.start();
    let names = || -> Vec<String> {
        machine.disk.read_dir(Path::new("quarantine")).unwrap().into_iter().map(|e| e.name).collect()
    };
    let all = ["cabin-1-0.mp4", "rear-1-0.keep", "rear-1-0.mp4", "road-1-0.mp4", "road-7-7.mp4"];
    assert_eq!(names(), all);
    let quarantine =
        |max_bytes, max_age| Limits { quarantine: crate::archive::Quota { max_bytes, max_age }, ..Limits::default() };
    machine.clock.advance(std::time::Duration::from_hours(1));
    let report = machine.tend(&archive, &quarantine(u64::MAX, std::time::Duration::from_hours(2)));
    assert_eq!((names().len(), report.quarantine.things, report.quarantine.expired), (5, 5, 0));
    let report = machine.tend(&archive, &quarantine(u64::MAX, std::time::Duration::from_mins(30)));
    assert_eq!(names(), all[1..]);
    assert_eq!((report.quarantine.expired, archive.health().quarantined), (1, 4));
    // By quota too, and even if there is no protection beside the segment any more: the one in quarantine counts.
    let report = machine.tend(&archive, &quarantine(0, std::time::Duration::MAX));
    assert_eq!((names().len(), report.quarantine.expired), (4, 0));
    archive.unkeep(&ids[0]).unwrap();
    machine.tend(&archive, &quarantine(0, std::time::Duration::MAX));
    assert_eq!(names(), ["rear-1-0.keep", "rear-1-0.mp4", "road-7-7.mp4"]);
}

#[test]
fn check_explains_each_oddity_beside_segments_and_repair_mends_it() {
    let machine = Machine::new();
    let archive = machine.start();
    let road = lens("road");
    let start = now(&machine);
    let ids: Vec<_> = (0..3).map(|n| record(&archive, &road, start + FRAGMENT * 2 * n, 2)).collect();
    archive.keep(&ids[0], &note()).unwrap();
    // A removal whose file is still there, as a power cut leaves it.
    let path = ids[1].media_path();
    let media = crate::archive::run::read_whole(&machine.disk, &path).unwrap();
    archive.remove(&ids[1]).unwrap();
    machine.kill();
    let put = |path: &Path, bytes: &[u8]| {
        let _ = machine.disk.remove_file(path);
        machine.disk.open(path, OpenMode::CreateNew).unwrap().write_at(0, &[IoSlice::new(bytes)]).unwrap();
    };
    put(&path, &media);
    put(&ids[0].keep_path(), b"{\"who\":\"oper");
    put(Path::new("segments/road/1/9.keep"), b"{}");
    put(Path::new("segments/road/1/2.keep.tmp"), b"{");
    put(Path::new("run"), b"\0\0\0\0");
    let found = check::check(&machine.disk).unwrap();
    let said =
        ["the removal of road-1-1", "road-1-9 is protected but", "who protects road-1-0", "2.keep.tmp", "file run is"];
    for what in said {
        assert!(found.notes.iter().any(|note| note.contains(what)), "{what}: {found:?}");
    }
    assert!(found.is_sound() && found.notes.len() == said.len(), "{found:?}");
    let disk: Arc<dyn Disk> = Arc::new(machine.disk.clone());
    let mended = check::repair(&disk, machine.clock.clone()).unwrap();
    assert!(mended.notes.is_empty() && mended.is_sound(), "{mended:?}");
    for what in
        ["finished the removal of road-1-1", "protection of road-1-9 to", "protection of road-1-0 anew", "2.keep.tmp"]
    {
        assert!(mended.repairs.iter().any(|repair| repair.contains(what)), "{what}: {mended:?}");
    }
    machine.kill();
    let archive = machine.start();
    assert_eq!(archive.protection(&ids[0]).unwrap().unwrap().why, "the text was damaged; written anew by a repair");
    assert!(matches!(archive.remove(&ids[0]), Err(ArchiveError::Protected(_))));
    assert!(!machine.exists(&path) && archive.run().0 == 3);
}

/// What an unreadable segment held stays accounted for when the file itself went from quarantine.
#[test]
fn what_is_missing_of_a_quarantined_segment_is_put_on_record() {
    let machine = Machine::new();
    let archive = machine.start();
    let (road, start) = (lens("road"), now(&machine));
    let taken: Vec<_> = (0..6).map(|n| record(&archive, &road, start + FRAGMENT * 2 * n, 2)).collect();
    machine.kill();
    let file = machine.disk.open(&taken[2].media_path(), OpenMode::ReadWrite).unwrap();
    file.write_at(32, &[IoSlice::new(&[0xaa; 100])]).unwrap();
    drop(machine.start());
    machine.kill();
    machine.disk.remove_file(Path::new("quarantine/road-1-2.mp4")).unwrap();
    assert!(check::check(&machine.disk).unwrap().is_sound());
    let archive = machine.start();
    let gaps: Vec<_> = archive.catalog().gaps(None, Window::ALL).into_iter().map(|gap| gap.cause).collect();
    assert_eq!(gaps, [GapCause::DiskError]);
}

/// L5, G8: a newer version was here, and comes back.
#[test]
fn l5_what_a_newer_version_left_is_there_when_it_comes_back() {
    let machine = Machine::new();
    let archive = machine.start();
    let (road, cabin, start) = (lens("road"), lens("cabin"), now(&machine));
    let ids: Vec<_> = (0..3).map(|n| record(&archive, &road, start + FRAGMENT * 2 * n, 2)).collect();
    record(&archive, &cabin, start, 2);
    machine.kill();
    let put = |path: &str, bytes: &[u8]| {
        let _ = machine.disk.remove_file(Path::new(path));
        let file = machine.disk.open(Path::new(path), OpenMode::CreateNew).unwrap();
        file.write_at(0, &[IoSlice::new(bytes)]).unwrap();
    };
    let media = machine.disk.open(&ids[1].media_path(), OpenMode::ReadWrite).unwrap();
    media.write_at(32 + 24, &[IoSlice::new(&99_u32.to_be_bytes())]).unwrap();
    let end = (start + FRAGMENT * 6).0;
    let more = serde_json::json!({"lens": "road", "start": end, "end": end + 7_000_000_000_i64, "cause": "eclipse",
        "synced": 0, "moon": "new"});
    let gaps = (crate::archive::line::seal(&more) + "\n").into_bytes();
    put("segments/road/1/gaps.jsonl", &gaps);
    put(
        "segments/road/1/0.keep",
        crate::archive::line::seal(&serde_json::json!({"who": "fleet", "when_ts": 1, "why": "",
        "until_ts": 5}))
        .as_bytes(),
    );
    put("segments/road/1/1.index", b"of the newer version");
    put("segments/cabin/1/0.index", b"of nobody");
    let found = check::check(&machine.disk).unwrap();
    assert_eq!(found.strangers, ["segments/cabin/1/0.index"]);
    let said = "1.index lies beside segments of a newer version";
    assert!(found.notes.iter().any(|note| note.contains(said)), "{found:?}");
    assert_eq!((found.newer, found.damaged.len()), (1, 0), "{found:?}");
    for _ in 0..2 {
        let archive = machine.start();
        assert_eq!(archive.health().frozen, Vec::<String>::new());
        let gaps: Vec<_> = archive.catalog().gaps(Some(&road), Window::ALL).iter().map(|g| g.cause).collect();
        assert!(gaps.contains(&GapCause::Unknown), "shown, though not understood: {gaps:?}");
        assert_eq!(archive.protection(&ids[0]).unwrap().unwrap().who, "fleet");
        // Retention goes round what it does not know; an account that is added leaves the newer line as it was.
        let report = machine.tend(&archive, &Limits { max_bytes: Some(0), ..Limits::default() });
        assert!(report.short);
        archive.snapshot_index().unwrap();
        machine.kill();
    }
    let text = crate::archive::run::read_whole(&machine.disk, Path::new("segments/road/1/gaps.jsonl")).unwrap();
    assert!(text.starts_with(&gaps) && text.len() > gaps.len(), "{}", String::from_utf8_lossy(&text));
    for path in
        ["segments/road/1/0.mp4", "segments/road/1/1.mp4", "segments/road/1/1.index", "quarantine/cabin-1-0.index"]
    {
        assert!(machine.exists(Path::new(path)), "{path}");
    }
    assert!(!machine.exists(&ids[2].media_path()), "what is ours and of this version went");
}

/// Beside the capture, but before retention: it must not wait for two syncs of each file.
#[test]
fn q1_very_many_strangers_are_put_away_with_few_syncs() {
    let machine = Machine::new();
    let id = record(&machine.start(), &lens("road"), now(&machine), 2);
    machine.kill();
    for n in 0..5000 {
        let path = format!("segments/road/1/{n}.of-somebody-else");
        machine.disk.open(Path::new(&path), OpenMode::CreateNew).unwrap();
    }
    let latency = std::time::Duration::from_millis(10);
    machine.disk.set_latency(crate::archive::disk::SimOp::SyncDir, latency);
    let before = machine.clock.mono();
    let archive = machine.start();
    assert_eq!((archive.health().quarantined, ids(&archive)), (5000, vec![id.to_string()]));
    let took = machine.clock.mono().since(before);
    assert!(took < 1_000_000_000, "{took} ns of the disk's time");
}
