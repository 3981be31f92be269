//! What `mos check` tells of accounts of gaps that have lost lines.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mos_hal::clock::Mono;

use super::ids;
use crate::archive::disk::{Disk, OpenMode};
use crate::archive::ids::RunId;
use crate::archive::testing::{FRAGMENT, Machine, lens, now, record};
use crate::archive::{Archive, Gap, GapCause, Window, check};

/// Y3: whole lines that went leave no trace in the file, but the footage does not fit it any more.
#[test]
fn y3_an_account_that_lost_lines_is_told_and_mended() {
    let path = Path::new("segments/road/1/gaps.jsonl");
    for keep in [0, 1] {
        let mut machine = Machine::new();
        let archive = machine.start();
        let road = lens("road");
        let start = now(&machine);
        let gaps = archive.gaps(&road).unwrap();
        gaps.append(Gap { start: Mono(start.0 - 5_000_000_000), end: start, cause: GapCause::Starting });
        for n in 0..6 {
            let at = start + FRAGMENT * 6 * n;
            record(&archive, &road, at, 2);
            gaps.append(Gap { start: at + 2 * FRAGMENT, end: at + 6 * FRAGMENT, cause: GapCause::CameraAbsent });
            archive.commit();
        }
        archive.flush();
        machine.power_cut(1);
        assert!(check::check(&machine.disk).unwrap().is_sound());
        let text = crate::archive::run::read_whole(&machine.disk, path).unwrap();
        let lines: usize = text.split_inclusive(|b| *b == b'\n').take(keep).map(<[u8]>::len).sum();
        machine.disk.open(path, OpenMode::ReadWrite).unwrap().set_len(lines as u64).unwrap();
        let found = check::check(&machine.disk).unwrap();
        let told = found.damaged.iter().filter(|d| d.contains("gaps.jsonl does not tell why 2000 ms are missing"));
        // The last two holes could be of the power cut.
        assert!(told.count() == 3 && !found.is_sound(), "{found:?}");
        let noted = found.notes.iter().filter(|n| n.contains("2000 ms are missing near the end of the run"));
        assert_eq!(noted.count(), 2, "{found:?}");
        assert_eq!(found.notes.iter().any(|n| n.contains("gaps.jsonl is empty or missing")), keep == 0, "{found:?}");
        // Not told is no reason to fail, nor to keep the room from what is recorded.
        let archive = machine.start();
        assert_eq!((ids(&archive).len(), archive.health().frozen.len()), (6, 0));
        machine.kill();
        let disk: Arc<dyn Disk> = Arc::new(machine.disk.clone());
        let mended = check::repair(&disk, machine.clock.clone()).unwrap();
        assert!(mended.is_sound() && mended.notes.is_empty(), "{mended:?}");
        assert!(mended.repairs.iter().any(|r| r.contains("noted 2000 ms of unknown cause in")), "{mended:?}");
    }
}

/// Y3: an account that ends at the end of a line is whole in itself, wherever it was cut; every hole that it told of is found.
#[test]
fn y3_lines_that_went_from_the_end_of_an_account_leave_no_hole_untold() {
    let path = Path::new("segments/road/1/gaps.jsonl");
    let machine = Machine::new();
    let archive = machine.start();
    let (road, start) = (lens("road"), now(&machine));
    let gaps = archive.gaps(&road).unwrap();
    for n in 0..6 {
        let at = start + FRAGMENT * 6 * n;
        record(&archive, &road, at, 2);
        gaps.append(Gap { start: at + 2 * FRAGMENT, end: at + 6 * FRAGMENT, cause: GapCause::CameraAbsent });
        archive.commit();
    }
    gaps.stop(start + FRAGMENT * 36);
    archive.flush();
    machine.kill();
    let text = crate::archive::run::read_whole(&machine.disk, path).unwrap();
    let lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
    assert_eq!(lines.len(), 7);
    for keep in (0..=lines.len()).rev() {
        let len: usize = lines[..keep].iter().map(|line| line.len()).sum();
        machine.disk.open(path, OpenMode::ReadWrite).unwrap().set_len(len as u64).unwrap();
        let found = check::check(&machine.disk).unwrap();
        let count = |list: &[String]| list.iter().filter(|what| what.contains("does not tell why 2000 ms")).count();
        // Five lie between segments. The last two of a run that was not stopped may be of a power cut: a note.
        let (damaged, noted) = (3_usize.saturating_sub(keep), 5_usize.saturating_sub(keep.max(3)));
        assert_eq!((count(&found.damaged), count(&found.notes)), (damaged, noted), "{keep} lines: {found:?}");
        assert_eq!(found.is_sound(), damaged == 0, "{keep} lines");
    }
    let disk: Arc<dyn Disk> = Arc::new(machine.disk.clone());
    let mended = check::repair(&disk, machine.clock.clone()).unwrap();
    assert!(mended.is_sound() && mended.notes.is_empty(), "{mended:?}");
}

/// Y3, W1: also what lies behind the last footage, and that the run was stopped, as far as a snapshot knew of it.
#[test]
fn y3_an_account_that_lost_its_end_is_told_by_what_the_snapshot_knew() {
    let path = Path::new("segments/road/1/gaps.jsonl");
    for keep in 0..=3 {
        let machine = Machine::new();
        let archive = machine.start();
        let (road, start) = (lens("road"), now(&machine));
        let gaps = archive.gaps(&road).unwrap();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        gaps.append(Gap { start, end: at(1), cause: GapCause::Starting });
        record(&archive, &road, at(1), 2);
        gaps.append(Gap { start: at(2), end: at(10_000), cause: GapCause::CameraAbsent });
        gaps.stop(at(10_001));
        archive.flush();
        archive.snapshot_index().unwrap();
        // Nobody was promised this one, so nobody misses it.
        gaps.append(Gap { start: at(20_000), end: at(20_001), cause: GapCause::Starting });
        archive.snapshot_index().unwrap();
        machine.kill();
        let text = crate::archive::run::read_whole(&machine.disk, path).unwrap();
        let len: usize = text.split_inclusive(|b| *b == b'\n').take(keep).map(<[u8]>::len).sum();
        machine.disk.open(path, OpenMode::ReadWrite).unwrap().set_len(len as u64).unwrap();
        let found = check::check(&machine.disk).unwrap();
        let told = found.damaged.iter().any(|what| what.contains("gaps.jsonl has lost lines at its end"));
        assert_eq!((told, found.is_sound()), (keep < 3, keep == 3), "{keep} lines: {found:?}");
        let disk: Arc<dyn Disk> = Arc::new(machine.disk.clone());
        let mended = check::repair(&disk, machine.clock.clone()).unwrap();
        assert!(mended.is_sound(), "{keep} lines: {mended:?}");
        machine.kill();
        let archive = machine.start();
        let causes: Vec<_> = archive.catalog().gaps(None, Window::ALL).into_iter().map(|gap| gap.cause).collect();
        assert_eq!(causes.contains(&GapCause::Unknown), keep < 3, "{keep} lines: {causes:?}");
        // What a compaction or an account of retention leaves reaches as far.
        archive.remove(&"road-1-0".parse().unwrap()).unwrap();
        archive.flush();
        archive.snapshot_index().unwrap();
        machine.kill();
        assert!(check::check(&machine.disk).unwrap().is_sound());
    }
}

/// W1: what is noted costs nothing while it stays as it is, and goes with its run.
#[test]
fn w1_what_is_noted_is_read_once_and_goes_with_its_run() {
    let file = Path::new("index/accounts");
    let machine = Machine::new();
    let road = lens("road");
    let a_run = |archive: &Archive| {
        let gaps = archive.gaps(&road).unwrap();
        gaps.append(Gap { start: now(&machine), end: now(&machine) + FRAGMENT, cause: GapCause::Starting });
        archive.flush();
        archive.snapshot_index().unwrap();
    };
    let noted = || {
        let text = crate::archive::run::read_whole(&machine.disk, file).unwrap();
        [1, 2].map(|run| String::from_utf8_lossy(&text).contains(&format!("\"run\":{run},")))
    };
    let first = machine.start();
    a_run(&first);
    machine.kill();
    let archive = machine.start();
    a_run(&archive);
    assert_eq!(noted(), [true, true]);
    // Neither the file nor the catalog is asked: this file would be written anew, and no row is of a run that is not known.
    machine.disk.remove_file(file).unwrap();
    archive.snapshot_index().unwrap();
    assert!(!machine.exists(file), "it was read again");
    archive.catalog().forget_run(&road, RunId(1));
    let gaps = archive.gaps(&road).unwrap();
    gaps.append(Gap {
        start: now(&machine) + 2 * FRAGMENT,
        end: now(&machine) + 3 * FRAGMENT,
        cause: GapCause::Starting,
    });
    archive.flush();
    archive.snapshot_index().unwrap();
    assert_eq!(noted(), [true, true], "the catalog was asked");
    assert!(archive.remove_oldest_run_dir(&road).unwrap());
    archive.snapshot_index().unwrap();
    assert_eq!(noted(), [false, true]);
}
