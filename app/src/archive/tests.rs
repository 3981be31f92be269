//! The archive's promises, one by one, on the simulated disk.
#![allow(clippy::unwrap_used)]

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mos_hal::clock::{Clock, ClockQuality, Mono, UtcMicros};
use mos_mp4::State;

use super::disk::{Disk, OpenMode, RealDisk, SimOp};
use super::testing::{FRAGMENT, FRAMES, Machine, START_UTC, Take, assert_sound, lens, now, record};
use super::{Archive, ArchiveError, ArchiveOptions, Gap, GapCause, KeepNote, Mapping, Progress, SegmentState, Window};
use crate::retention::{self, Limits};

fn causes(archive: &Archive) -> Vec<GapCause> {
    archive.catalog().gaps(None, Window::ALL).iter().map(|g| g.cause).collect()
}

fn ids(archive: &Archive) -> Vec<String> {
    archive.catalog().segments(None, Window::ALL, 0, 999).iter().map(|s| s.row.id.to_string()).collect()
}

fn note() -> KeepNote {
    KeepNote { who: "operator".into(), why: "near miss".into() }
}

#[test]
fn k1_only_durable_footage_is_listed() {
    let machine = Machine::new();
    let archive = machine.start();
    let mut take = Take::begin(&archive, &lens("road"), now(&machine)).unwrap();
    let id = take.id();
    take.append().unwrap();
    assert!(matches!(archive.lookup(&id), Err(ArchiveError::NotFound(_))));
    assert!(matches!(take.after_sync(&archive.commit()), Progress::Durable));
    take.append().unwrap();
    let row = archive.lookup(&id).unwrap();
    assert_eq!((row.row.frames, row.row.state), (FRAMES, SegmentState::Open));
    assert_eq!(row.end_ts.0 - row.start_ts.0, 500_000);
    let reader = archive.open_for_read(&id).unwrap();
    assert!(reader.readable < reader.file.len().unwrap());
}

#[test]
fn w2_a_close_takes_two_syncs_and_then_everything_reads_back() {
    let machine = Machine::new();
    let archive = machine.start();
    let id = record(&archive, &lens("road"), now(&machine), 4);
    assert_sound(&machine, &archive, &id);
    let row = archive.lookup(&id).unwrap();
    assert_eq!(row.row.state, SegmentState::Closed);
    assert_eq!(row.start_ts, START_UTC);
    // The reserve is trimmed: a few blocks remain.
    assert!(row.row.allocated >= row.row.bytes && row.row.allocated < row.row.bytes + 8192);
}

#[test]
fn w3_after_a_failed_sync_nothing_is_finalised_and_recovery_judges() {
    for seed in 0..40 {
        let mut machine = Machine::new();
        machine.power_cut(seed);
        let archive = machine.start();
        let mut take = Take::begin(&archive, &lens("road"), now(&machine)).unwrap();
        let id = take.id();
        take.append().unwrap();
        take.after_sync(&archive.commit());
        take.append().unwrap();
        take.begin_close().unwrap();
        machine.disk.fail(SimOp::Sync, ".mp4", libc::EIO, 1);
        assert!(matches!(take.after_sync(&archive.commit()), Progress::Failed(_)));
        assert!(take.commit_fails());
        drop(take);
        assert_eq!(archive.lookup(&id).unwrap().row.frames, FRAMES);
        machine.kill();
        let archive = machine.start();
        assert_sound(&machine, &archive, &id);
        let frames = archive.lookup(&id).unwrap().row.frames;
        assert!(frames == FRAMES || frames == 2 * FRAMES, "{frames}");
        // What recovery says is durable survives.
        machine.power_cut(seed + 1);
        let archive = machine.start();
        assert_sound(&machine, &archive, &id);
        assert_eq!(archive.lookup(&id).unwrap().row.frames, frames);
    }
}

#[test]
fn v1_every_cut_of_a_close_and_of_its_recovery_keeps_what_was_durable() {
    let mut cuts = 0;
    for seed in 0..12 {
        for cut in 0.. {
            let mut machine = Machine::new();
            let archive = machine.start();
            let mut take = Take::begin(&archive, &lens("road"), now(&machine)).unwrap();
            let id = take.id();
            take.append().unwrap();
            take.after_sync(&archive.commit());
            take.append().unwrap();
            take.after_sync(&archive.commit());
            machine.disk.cut_at(machine.disk.ops() + cut);
            let _ = take.begin_close();
            let mut done = false;
            for _ in 0..2 {
                done = matches!(take.after_sync(&archive.commit()), Progress::Closed);
            }
            drop(take);
            machine.power_cut(seed * 1000 + cut);
            // Recovery is cut off as well, at each of its operations.
            for again in 0.. {
                machine.disk.cut_at(machine.disk.ops() + again);
                let finished = machine.open().is_ok_and(|archive| archive.load().is_ok()) && !machine.disk.is_cut();
                if finished {
                    break;
                }
                machine.power_cut(seed * 77 + again);
                cuts += 1;
            }
            machine.disk.kill();
            let archive = machine.start();
            assert_sound(&machine, &archive, &id);
            assert_eq!(archive.lookup(&id).unwrap().row.frames, 2 * FRAMES);
            assert_eq!(archive.health().quarantined, 0);
            if done {
                break;
            }
        }
    }
    assert!(cuts > 500, "{cuts}");
}

#[test]
fn r1_run_numbers_are_never_used_twice() {
    let mut last = 0;
    for seed in 0..30 {
        let mut machine = Machine::new();
        for n in 0..4 {
            machine.disk.cut_at(machine.disk.ops() + (seed * 7 + n) % 9);
            if let Ok(archive) = machine.open() {
                assert!(archive.run().0 > last);
                last = archive.run().0;
                record_until_dead(&archive, &machine);
            }
            machine.power_cut(seed + n);
        }
        let archive = machine.start();
        assert!(archive.run().0 > last);
        last = 0;
    }
}

fn record_until_dead(archive: &Archive, machine: &Machine) {
    for _ in 0..9 {
        let Ok(mut take) = Take::begin(archive, &lens("road"), now(machine)) else { return };
        if take.append().is_err() {
            return;
        }
        take.after_sync(&archive.commit());
    }
}

#[test]
fn e1_e2_protection_is_durable_and_idempotent() {
    let mut machine = Machine::new();
    let archive = machine.start();
    let id = record(&archive, &lens("road"), now(&machine), 2);
    let first = archive.keep(&id, &note()).unwrap();
    machine.clock.advance(Duration::from_secs(9));
    let other = KeepNote { who: "somebody".into(), why: String::new() };
    assert_eq!(archive.keep(&id, &other).unwrap(), first);
    machine.power_cut(1);
    let archive = machine.start();
    assert_eq!(archive.protection(&id).unwrap(), Some(first));
    assert!(matches!(archive.remove(&id), Err(ArchiveError::Protected(_))));
    archive.unkeep(&id).unwrap();
    archive.unkeep(&id).unwrap();
    machine.power_cut(2);
    let archive = machine.start();
    assert_eq!(archive.protection(&id).unwrap(), None);
    archive.remove(&id).unwrap();
}

#[test]
fn e3_a_protection_without_readable_text_still_protects() {
    let machine = Machine::new();
    let archive = machine.start();
    let id = record(&archive, &lens("road"), now(&machine), 2);
    archive.keep(&id, &note()).unwrap();
    let file = machine.disk.open(&id.keep_path(), OpenMode::ReadWrite).unwrap();
    file.write_at(3, &[IoSlice::new(b"????")]).unwrap();
    machine.kill();
    let archive = machine.start();
    assert_eq!(archive.protection(&id).unwrap().unwrap().who, "unknown");
    assert!(matches!(archive.remove(&id), Err(ArchiveError::Protected(_))));
}

#[test]
fn an_open_segment_can_be_protected_and_stays_so_when_it_closes() {
    let machine = Machine::new();
    let archive = machine.start();
    let mut take = Take::begin(&archive, &lens("road"), now(&machine)).unwrap();
    let id = take.id();
    take.append().unwrap();
    take.after_sync(&archive.commit());
    archive.keep(&id, &note()).unwrap();
    assert!(matches!(archive.remove(&id), Err(ArchiveError::Protected(_))));
    take.begin_close().unwrap();
    take.after_sync(&archive.commit());
    take.after_sync(&archive.commit());
    assert!(archive.lookup(&id).unwrap().row.protected);
    machine.kill();
    assert!(machine.start().lookup(&id).unwrap().row.protected);
}

#[test]
fn d1_open_segments_are_not_removed_and_pinned_ones_wait() {
    let machine = Machine::new();
    let archive = machine.start();
    let mut take = Take::begin(&archive, &lens("road"), now(&machine)).unwrap();
    take.append().unwrap();
    take.after_sync(&archive.commit());
    assert!(matches!(archive.remove(&take.id()), Err(ArchiveError::StillOpen(_))));
    let id = record(&archive, &lens("cabin"), now(&machine), 2);
    let reader = archive.open_for_read(&id).unwrap();
    let busy = archive.remove_as(&id, GapCause::Removed, Duration::ZERO);
    assert!(matches!(busy, Err(ArchiveError::InUse(_))));
    let waiting = {
        let (archive, id) = (archive.clone(), id.clone());
        std::thread::spawn(move || archive.remove(&id))
    };
    while archive.pins().pin(&id).is_ok() {
        std::thread::yield_now();
    }
    assert!(machine.exists(&id.media_path()));
    drop(reader);
    waiting.join().unwrap().unwrap();
    assert!(!machine.exists(&id.media_path()));
}

#[test]
fn d2_d3_what_was_removed_stays_removed_at_every_cut() {
    let mut cut = 0;
    loop {
        let mut machine = Machine::new();
        let archive = machine.start();
        let start = now(&machine);
        let first = record(&archive, &lens("road"), start, 2);
        let second = record(&archive, &lens("road"), start + 2 * FRAGMENT, 2);
        // One removal in the run's life, one after it.
        machine.kill();
        let archive = machine.start();
        machine.disk.cut_at(machine.disk.ops() + cut);
        let answered = archive.remove(&first).is_ok();
        machine.power_cut(cut);
        let archive = machine.start();
        if answered {
            assert!(matches!(archive.lookup(&first), Err(ArchiveError::NotFound(_))));
        }
        assert_sound(&machine, &archive, &second);
        archive.remove(&first).unwrap();
        archive.remove(&first).unwrap();
        assert!(!machine.exists(&first.media_path()));
        assert_eq!(ids(&archive), [second.to_string()]);
        assert_eq!(causes(&archive), [GapCause::Removed]);
        if answered && cut > 20 {
            break;
        }
        cut += 1;
    }
}

#[test]
fn removing_what_never_was_is_an_error() {
    let machine = Machine::new();
    let archive = machine.start();
    record(&archive, &lens("road"), now(&machine), 1);
    for id in ["road-1-7", "road-9-0", "cabin-1-0"] {
        assert!(matches!(archive.remove(&id.parse().unwrap()), Err(ArchiveError::NotFound(_))), "{id}");
        assert!(matches!(archive.keep(&id.parse().unwrap(), &note()), Err(ArchiveError::NotFound(_))), "{id}");
    }
}

#[test]
fn g1_gaps_survive_and_those_between_runs_are_derived() {
    let mut machine = Machine::new();
    let archive = machine.start();
    let road = lens("road");
    let start = now(&machine);
    let first = record(&archive, &road, start, 2);
    let gap = Gap { start: start + 2 * FRAGMENT, end: start + 4 * FRAGMENT, cause: GapCause::CameraStalled };
    archive.gaps(&road).unwrap().append(gap);
    record(&archive, &road, start + 4 * FRAGMENT, 2);
    machine.clock.advance(6 * FRAGMENT);
    machine.kill();
    let archive = machine.start();
    record(&archive, &road, now(&machine), 2);
    machine.clock.advance(2 * FRAGMENT);
    archive.gaps(&road).unwrap().stop(now(&machine));
    archive.flush();
    machine.kill();
    let archive = machine.start();
    record(&archive, &road, now(&machine), 2);
    machine.clock.advance(2 * FRAGMENT);
    machine.power_cut(3);
    let archive = machine.start();
    record(&archive, &road, now(&machine), 2);
    let expected = [GapCause::CameraStalled, GapCause::RecorderKilled, GapCause::Stopped, GapCause::PowerLoss];
    assert_eq!(causes(&archive), expected);
    // Stored and accounted time fill everything without overlap.
    let mut at = archive.lookup(&first).unwrap().start_ts;
    let mut spans: Vec<(UtcMicros, UtcMicros)> =
        archive.catalog().segments(None, Window::ALL, 0, 99).iter().map(|s| (s.start_ts, s.end_ts)).collect();
    spans.extend(archive.catalog().gaps(None, Window::ALL).iter().map(|g| (g.start_ts, g.end_ts)));
    spans.sort();
    for (from, to) in spans {
        assert_eq!(from, at);
        at = to;
    }
}

#[test]
fn g3_a_gap_log_whose_sync_failed_is_replaced() {
    let mut machine = Machine::new();
    let archive = machine.start();
    let road = lens("road");
    let gaps = archive.gaps(&road).unwrap();
    let gap = |n: i64, cause| Gap { start: Mono(n * 1_000_000_000), end: Mono((n + 1) * 1_000_000_000), cause };
    gaps.append(gap(0, GapCause::Starting));
    archive.commit();
    gaps.append(gap(1, GapCause::PacketLoss));
    machine.disk.fail(SimOp::Sync, "gaps.jsonl", libc::EIO, 1);
    archive.commit();
    gaps.append(gap(2, GapCause::CameraStalled));
    archive.commit();
    archive.commit();
    machine.power_cut(5);
    let archive = machine.start();
    assert_eq!(causes(&archive), [GapCause::Starting, GapCause::PacketLoss, GapCause::CameraStalled]);
}

#[test]
fn gaps_of_a_full_disk_wait_for_room() {
    let mut machine = Machine::new();
    let archive = machine.start();
    let gaps = archive.gaps(&lens("road")).unwrap();
    archive.commit();
    machine.disk.fail(SimOp::Write, "gaps.jsonl", libc::ENOSPC, 2);
    gaps.append(Gap { start: Mono(0), end: Mono(5), cause: GapCause::DiskFull });
    archive.commit();
    archive.commit();
    archive.commit();
    machine.power_cut(5);
    let archive = machine.start();
    assert_eq!(archive.catalog().gaps(None, Window::ALL).len(), 0, "5 ns are no gap in whole microseconds");
    let text = super::run::read_whole(&machine.disk, Path::new("segments/road/1/gaps.jsonl")).unwrap();
    assert!(String::from_utf8(text).unwrap().contains("disk_full"));
}

#[test]
fn c1_c2_a_new_mapping_corrects_the_whole_run_and_survives() {
    let mut machine = Machine::new();
    let archive = machine.start();
    let id = record(&archive, &lens("road"), now(&machine), 2);
    let better = Mapping { mono: Mono(0), utc: UtcMicros(START_UTC.0 + 3_600_000_000), quality: ClockQuality::Gnss };
    archive.set_mapping(better);
    assert_eq!(archive.lookup(&id).unwrap().start_ts, better.utc);
    archive.flush();
    machine.power_cut(9);
    let archive = machine.start();
    let row = archive.lookup(&id).unwrap();
    assert_eq!((row.start_ts, row.quality), (better.utc, ClockQuality::Gnss));
    let text = super::run::read_whole(&machine.disk, Path::new("segments/road/1/clock")).unwrap();
    assert!(String::from_utf8(text).unwrap().contains("\"revision\":2"));
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
fn k2_windows_go_by_utc_over_runs() {
    let mut machine = Machine::new();
    let road = lens("road");
    let mut all = Vec::new();
    for n in 0..3 {
        let archive = machine.start();
        let start = now(&machine);
        all.push(record(&archive, &road, start, 2));
        all.push(record(&archive, &road, start + 2 * FRAGMENT, 2));
        machine.clock.advance(4 * FRAGMENT);
        archive.flush();
        machine.power_cut(n);
    }
    let archive = machine.start();
    let rows = archive.catalog().segments(Some(&road), Window::ALL, 0, 99);
    assert_eq!(rows.iter().map(|r| r.row.id.clone()).collect::<Vec<_>>(), all);
    let inside = |from: i64, to: i64| {
        let window = Window { from: UtcMicros(from), to: UtcMicros(to) };
        archive.catalog().segments(Some(&road), window, 0, 99).iter().map(|r| r.row.id.to_string()).collect::<Vec<_>>()
    };
    let (a, b) = (rows[1].start_ts.0, rows[2].end_ts.0);
    assert_eq!(inside(a, b), ["road-1-1", "road-2-0"]);
    assert_eq!(inside(a - 1, b + 1), ["road-1-0", "road-1-1", "road-2-0", "road-2-1"]);
    assert_eq!(inside(a, a + 1), ["road-1-1"]);
    let paged: Vec<_> = (0..6).flat_map(|n| archive.catalog().segments(None, Window::ALL, n, 1)).collect();
    assert_eq!(paged, rows);
    assert!(archive.catalog().segments(Some(&lens("cabin")), Window::ALL, 0, 9).is_empty());
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
        retention::step(&archive, Limits { max_bytes: Some(0), min_free_bytes: 0 });
        assert!(archive.room().short);
        assert_sound(&machine, &archive, &id);
        machine.kill();
        let disk: Arc<dyn Disk> = Arc::new(machine.disk.clone());
        let found = super::check::check(disk.as_ref()).unwrap();
        assert!(!found.is_sound());
        let mended = super::check::repair(&disk, machine.clock.clone()).unwrap();
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
    let found = super::check::check(&machine.disk).unwrap();
    assert_eq!(before, (machine.disk.files(), machine.disk.ops()));
    assert_eq!((found.segments, found.closed, found.protected), (2, 1, 1));
    assert_eq!(found.unclosed, [open.id().to_string()]);
    assert!(found.is_sound());
}

#[test]
fn t1_t2_t3_retention_takes_the_oldest_and_spares_the_protected_pinned_and_open() {
    let mut machine = Machine::new();
    let archive = machine.start();
    let (road, cabin) = (lens("road"), lens("cabin"));
    let start = now(&machine);
    let old: Vec<_> = (0..6)
        .map(|n| record(&archive, if n % 2 == 0 { &road } else { &cabin }, start + FRAGMENT * 2 * n, 2))
        .collect();
    archive.flush();
    machine.power_cut(4);
    let archive = machine.start();
    let young = record(&archive, &road, now(&machine), 2);
    let mut open = Take::begin(&archive, &road, now(&machine) + 2 * FRAGMENT).unwrap();
    open.append().unwrap();
    open.after_sync(&archive.commit());
    archive.keep(&old[0], &note()).unwrap();
    let pin = archive.pins().pin(&old[1]).unwrap();
    let used = archive.catalog().counts().stored.allocated;
    retention::step(&archive, Limits { max_bytes: Some(used / 2), min_free_bytes: 0 });
    let room = archive.room();
    assert!(!room.short && room.used <= used / 2 && room.removed >= 3, "{room:?}");
    let left = ids(&archive);
    for id in [&old[0], &old[1], &young, &open.id()] {
        assert!(left.contains(&id.to_string()), "{id} {left:?}");
    }
    assert!(!left.contains(&old[2].to_string()));
    assert!(causes(&archive).contains(&GapCause::Retention));
    drop(pin);
    retention::step(&archive, Limits { max_bytes: Some(0), min_free_bytes: 0 });
    assert!(archive.room().short);
    assert_eq!(ids(&archive), [old[0].to_string(), open.id().to_string()]);
    // The cabin's only run is over and empty: its folder is gone. The road's holds a protected segment.
    assert!(!machine.exists(Path::new("segments/cabin/1/gaps.jsonl")));
    assert!(machine.exists(Path::new("segments/road/1/gaps.jsonl")));
    machine.kill();
    let archive = machine.start();
    assert_eq!(ids(&archive), [old[0].to_string(), open.id().to_string()]);
    assert!(!causes(&archive).contains(&GapCause::Unknown), "{:?}", causes(&archive));
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

fn machine_state(root: &Path, id: &super::ids::SegmentId) -> State {
    let bytes = std::fs::read(root.join(id.media_path())).unwrap();
    mos_mp4::SegmentFile::read(&bytes, mos_mp4::Verify::Payload).unwrap().state
}
