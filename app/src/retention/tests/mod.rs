//! Retention on the simulated disk; each test names the promise it holds.
#![allow(clippy::unwrap_used)]

mod full;
mod model;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use mos_hal::clock::{ClockQuality, UtcMicros};

use super::plan::Share;
use super::*;
use crate::archive::disk::Disk as _;
use crate::archive::ids::SegmentId;
use crate::archive::testing::{FRAGMENT, Machine, START_UTC, Take, assert_sound, lens, now, record};
use crate::archive::tests::{causes, ids, note};
use crate::archive::{ArchiveError, Gap, GapCause};

const HOUR: Duration = Duration::from_hours(1);

fn bytes(max_bytes: u64) -> Limits {
    Limits { max_bytes: Some(max_bytes), ..Limits::default() }
}

fn age(max_age: Duration) -> Limits {
    Limits { max_age: Some(max_age), ..Limits::default() }
}

fn used(archive: &Archive) -> u64 {
    archive.catalog().rooms().values().map(|room| room.used).sum()
}

/// Records segments of a second, in turn for these lenses, and makes all of it durable.
fn record_some(machine: &Machine, archive: &Archive, lenses: &[&str], count: u32) -> Vec<SegmentId> {
    let mut ids = Vec::new();
    for n in 0..count {
        let name = lenses[n as usize % lenses.len()];
        ids.push(record(archive, &lens(name), now(machine), 2));
        machine.clock.advance(2 * FRAGMENT);
    }
    archive.flush();
    ids
}

#[test]
fn r1_r2_r3_the_oldest_go_and_the_protected_pinned_and_open_stay() {
    let mut machine = Machine::new();
    let archive = machine.start();
    let old = record_some(&machine, &archive, &["road", "cabin"], 6);
    machine.power_cut(4);
    let archive = machine.start();
    let young = record(&archive, &lens("road"), now(&machine), 2);
    let mut open = Take::begin(&archive, &lens("road"), now(&machine) + 2 * FRAGMENT).unwrap();
    open.append().unwrap();
    open.after_sync(&archive.commit());
    archive.keep(&old[0], &note()).unwrap();
    let pin = archive.pins().pin(&old[1]).unwrap();
    let stored = archive.catalog().counts().stored.allocated;
    let report = machine.tend(&archive, &bytes(stored * 2 / 3));
    assert!(!report.short && report.used <= stored * 2 / 3 && report.removed >= 3, "{report:?}");
    let left = ids(&archive);
    for id in [&old[0], &old[1], &young, &open.id()] {
        assert!(left.contains(&id.to_string()), "{id} {left:?}");
    }
    assert!(!left.contains(&old[2].to_string()));
    assert!(causes(&archive).contains(&GapCause::Retention));
    drop(pin);
    let report = machine.tend(&archive, &bytes(0));
    assert!(report.short && report.protected_segments == 1 && report.protected == used_by(&archive, &old[0]));
    assert_eq!(ids(&archive), [old[0].to_string(), open.id().to_string()]);
    // R6: the cabin's only run is over and empty: its folder is gone. The road's holds a protected segment.
    assert!(!machine.exists(Path::new("segments/cabin/1/gaps.jsonl")));
    assert!(!archive.lens_folders().unwrap().contains(&lens("cabin")));
    assert!(machine.exists(Path::new("segments/road/1/gaps.jsonl")));
    machine.kill();
    let archive = machine.start();
    assert_eq!(ids(&archive), [old[0].to_string(), open.id().to_string()]);
    assert!(!causes(&archive).contains(&GapCause::Unknown), "{:?}", causes(&archive));
}

fn used_by(archive: &Archive, id: &SegmentId) -> u64 {
    archive.lookup(id).unwrap().row.allocated
}

#[test]
fn r2_the_limit_holds_for_what_is_being_written_too() {
    let machine = Machine::new();
    let archive = machine.start();
    let road = lens("road");
    let one = used_by(&archive, &record(&archive, &road, now(&machine), 40));
    let retention = Retention::new(archive.clone(), machine.clock.clone(), bytes(one * 8), None);
    for n in 1..30 {
        let mut take = Take::begin(&archive, &road, now(&machine) + FRAGMENT * 40 * n).unwrap();
        for fragment in 0..40 {
            take.append().unwrap();
            take.after_sync(&archive.commit());
            if fragment % 10 == 0 {
                retention.step(&BTreeSet::new);
            }
            assert!(used(&archive) <= one * 8, "{}", used(&archive));
        }
        take.begin_close().unwrap();
        assert!(take.finish_close(&archive));
    }
    let report = retention.report();
    assert!(!report.short && report.removed >= 20 && report.used > one * 4, "{report:?}");
}

#[test]
fn r2_room_is_left_for_the_recorder_even_if_nothing_is_asked_for() {
    let machine = Machine::new();
    let archive = machine.start();
    let old = record_some(&machine, &archive, &["road"], 12);
    let full = (1 << 30) - archive.space().unwrap().free;
    // Somebody else fills the disk.
    machine.disk.set_capacity(full + 4096);
    let report = machine.tend(&archive, &Limits::default());
    assert!(!report.short && report.removed > 0 && report.free >= full / 16, "{report:?}");
    assert!(matches!(archive.lookup(&old[0]), Err(ArchiveError::NotFound(_))));
    assert!(archive.lookup(&old[11]).is_ok());
}

#[test]
fn r4_a_lens_above_its_share_gives_and_one_within_does_not() {
    let machine = Machine::new();
    let archive = machine.start();
    let cabin = record_some(&machine, &archive, &["cabin"], 4);
    let road = record_some(&machine, &archive, &["road"], 12);
    let all = used(&archive);
    let half = Share::new(0.5).unwrap();
    let limits = Limits { shares: [(lens("cabin"), half), (lens("road"), half)].into(), ..bytes(all * 3 / 4) };
    machine.tend(&archive, &limits);
    // The cabin's are the oldest, but within its half.
    assert!(cabin.iter().all(|id| archive.lookup(id).is_ok()));
    assert_eq!(ids(&archive).len(), 12);
    assert!(archive.lookup(&road[0]).is_err() && archive.lookup(&road[4]).is_ok());
    // What the road cannot give, because it is protected, the cabin gives: recording stops last.
    for id in &road[4..] {
        archive.keep(id, &note()).unwrap();
    }
    let report = machine.tend(&archive, &Limits { max_bytes: Some(all / 2), ..limits });
    assert_eq!(ids(&archive).len(), 8, "{report:?}");
    assert!(cabin.iter().all(|id| archive.lookup(id).is_err()));
}

#[test]
fn r4_a_lens_that_the_configuration_has_lost_gives_first() {
    let machine = Machine::new();
    let archive = machine.start();
    let road = record_some(&machine, &archive, &["road"], 4);
    let gone = record_some(&machine, &archive, &["rear"], 4);
    let all = used(&archive);
    let limits = Limits { shares: [(lens("road"), Share::new(1.0).unwrap())].into(), ..bytes(all * 3 / 4) };
    machine.tend(&archive, &limits);
    assert!(road.iter().all(|id| archive.lookup(id).is_ok()));
    assert_eq!(ids(&archive).len(), 6);
    assert!(archive.lookup(&gone[1]).is_err() && archive.lookup(&gone[2]).is_ok());
}

/// A drive of some seconds of footage at this wall clock, then the machine is off.
fn drive(machine: &mut Machine, utc: UtcMicros, quality: ClockQuality, running: Duration) -> Vec<SegmentId> {
    machine.clock.step_utc(utc, quality);
    let archive = machine.start();
    let ids = record_some(machine, &archive, &["road"], 2);
    machine.clock.advance(running);
    ids.into_iter().chain(record_some(machine, &archive, &["road"], 1)).collect()
}

fn later(days: i64) -> UtcMicros {
    UtcMicros(START_UTC.0 + days * 86_400_000_000)
}

/// Steps at the begin and once the clock has settled; tells how many segments are left.
fn left_after(machine: &Machine, archive: &Archive, limits: &Limits) -> usize {
    let retention = Retention::new(archive.clone(), machine.clock.clone(), limits.clone(), None);
    for _ in 0..3 {
        while retention.step(&BTreeSet::new) == Pace::GoOn {}
        machine.clock.advance(Duration::from_mins(11));
    }
    ids(archive).len()
}

#[test]
fn r5_within_a_boot_age_is_exact_whatever_the_wall_clock_does() {
    let machine = Machine::new();
    let archive = machine.start();
    let old = record_some(&machine, &archive, &["road"], 2);
    machine.clock.advance(HOUR);
    let young = record_some(&machine, &archive, &["road"], 2);
    for (year, quality) in [(40, ClockQuality::Gnss), (-40, ClockQuality::Gnss), (0, ClockQuality::Ntp)] {
        machine.clock.step_utc(later(year * 365), quality);
        archive.set_mapping(machine.mapping());
        assert_eq!(left_after(&machine, &archive, &age(12 * HOUR)), 4, "{year}");
    }
    machine.tend(&archive, &age(2 * HOUR));
    assert_eq!(ids(&archive), [young[0].to_string(), young[1].to_string()]);
    assert!(archive.lookup(&old[0]).is_err());
}

#[test]
fn r5_footage_of_earlier_boots_goes_by_a_good_clock() {
    for (then, present, left) in [
        (ClockQuality::Ntp, ClockQuality::Gnss, 0),
        (ClockQuality::Unset, ClockQuality::Ntp, 3),
        (ClockQuality::Rtc, ClockQuality::Ntp, 3),
        (ClockQuality::Ntp, ClockQuality::Rtc, 3),
    ] {
        let mut machine = Machine::new();
        drive(&mut machine, START_UTC, then, HOUR);
        machine.power_cut(1);
        machine.clock.step_utc(later(8), present);
        let archive = machine.start();
        assert_eq!(left_after(&machine, &archive, &age(HOUR * 24 * 7)), left, "{then:?} {present:?}");
        // And by operating time all the same.
        machine.clock.advance(HOUR * 24 * 7);
        assert_eq!(left_after(&machine, &archive, &age(HOUR * 24 * 7)), 0, "{then:?} {present:?}");
    }
}

#[test]
fn r5_a_clock_that_jumps_by_years_deletes_nothing() {
    // In mid-drive, and before the drive.
    for in_drive in [true, false] {
        for years in [2, 30, -30] {
            let mut machine = Machine::new();
            drive(&mut machine, START_UTC, ClockQuality::Gnss, HOUR);
            machine.power_cut(1);
            machine.clock.step_utc(if in_drive { later(1) } else { later(1 + years * 365) }, ClockQuality::Gnss);
            let archive = machine.start();
            let limits = age(HOUR * 24 * 7);
            assert_eq!(left_after(&machine, &archive, &limits), 3);
            let retention = Retention::new(archive.clone(), machine.clock.clone(), limits, None);
            retention.step(&BTreeSet::new);
            machine.clock.step_utc(later(1 + years * 365), ClockQuality::Gnss);
            archive.set_mapping(machine.mapping());
            for _ in 0..10 {
                retention.step(&BTreeSet::new);
                machine.clock.advance(Duration::from_mins(11));
            }
            assert_eq!(ids(&archive).len(), 3, "{in_drive} {years}");
            assert!(retention.report().clock_doubted.is_some(), "{in_drive} {years}");
        }
    }
}

#[test]
fn r5_a_clock_that_stays_wrong_over_restarts_deletes_nothing() {
    let mut machine = Machine::new();
    drive(&mut machine, START_UTC, ClockQuality::Gnss, HOUR);
    for restart in 1..5 {
        machine.power_cut(restart);
        drive(&mut machine, later(3000 + restart as i64), ClockQuality::Gnss, HOUR);
    }
    machine.power_cut(9);
    machine.clock.step_utc(later(3005), ClockQuality::Gnss);
    let archive = machine.start();
    assert_eq!(left_after(&machine, &archive, &age(HOUR * 24 * 7)), 15);
    // What lies on this side of the jump has its age by UTC all the same.
    assert_eq!(left_after(&machine, &archive, &age(HOUR * 24 * 2)), 4);
}

#[test]
fn r5_a4_footage_of_unknown_time_goes_with_what_came_after_it() {
    let mut machine = Machine::new();
    drive(&mut machine, UtcMicros(0), ClockQuality::Unset, HOUR);
    machine.power_cut(1);
    drive(&mut machine, START_UTC, ClockQuality::Ntp, HOUR);
    machine.power_cut(2);
    let young = drive(&mut machine, later(7), ClockQuality::Ntp, HOUR);
    machine.power_cut(3);
    machine.clock.step_utc(later(8), ClockQuality::Ntp);
    let archive = machine.start();
    assert_eq!(left_after(&machine, &archive, &age(HOUR * 24 * 7)), 3);
    assert!(young.iter().all(|id| archive.lookup(id).is_ok()));
}

#[test]
fn e4_protect_is_refused_at_the_quota_and_changes_nothing() {
    let machine = Machine::new();
    let archive = machine.start();
    let old = record_some(&machine, &archive, &["road"], 4);
    let one = used_by(&archive, &old[0]);
    machine.kill();
    let archive = machine.open_with(2 * one).unwrap();
    archive.load().unwrap();
    archive.keep(&old[0], &note()).unwrap();
    archive.keep(&old[1], &note()).unwrap();
    let refused = archive.keep(&old[2], &note()).unwrap_err();
    assert!(matches!(&refused, ArchiveError::ProtectedQuota { used, more, .. } if *used == 2 * one && *more == one));
    assert!(!archive.lookup(&old[2]).unwrap().row.protected && !machine.exists(&old[2].keep_path()));
    archive.keep(&old[0], &note()).unwrap();
    // What is being recorded counts as what it is likely to become.
    let mut open = Take::begin(&archive, &lens("road"), now(&machine)).unwrap();
    open.append().unwrap();
    open.after_sync(&archive.commit());
    assert!(matches!(archive.keep(&open.id(), &note()), Err(ArchiveError::ProtectedQuota { .. })));
    archive.unkeep(&old[1]).unwrap();
    archive.keep(&open.id(), &note()).unwrap();
    assert_sound(&machine, &archive, &old[2]);
    // A quota that was lowered lifts no protection.
    machine.kill();
    let archive = machine.open_with(0).unwrap();
    archive.load().unwrap();
    let report = machine.tend(&archive, &bytes(0));
    assert_eq!((report.protected_segments, report.short), (2, true));
}

#[test]
fn a_removal_that_is_cut_off_neither_resurrects_nor_half_deletes() {
    let mut cut = 0;
    loop {
        let mut machine = Machine::new();
        let archive = machine.start();
        let old = record_some(&machine, &archive, &["road", "cabin"], 6);
        machine.kill();
        let archive = machine.start();
        let young = record_some(&machine, &archive, &["road"], 4);
        archive.keep(&young[1], &note()).unwrap();
        let limits = bytes(used_by(&archive, &young[3]) * 2);
        machine.disk.cut_at(machine.disk.ops() + cut);
        let report = machine.tend(&archive, &limits);
        let over = !machine.disk.is_cut();
        machine.power_cut(cut);
        let archive = machine.start();
        let left = ids(&archive);
        if over {
            assert_eq!(left, [young[1].to_string(), young[3].to_string()], "{report:?}");
        }
        assert!(left.contains(&young[1].to_string()) && left.contains(&young[3].to_string()), "cut {cut}: {left:?}");
        for id in old.iter().chain(&young) {
            // Listed and whole, or gone.
            if left.contains(&id.to_string()) {
                assert_sound(&machine, &archive, id);
            } else {
                assert!(!machine.exists(&id.media_path()), "cut {cut}: {id} is there and not listed");
            }
        }
        assert!(!causes(&archive).contains(&GapCause::Unknown), "cut {cut}: {:?}", causes(&archive));
        assert_eq!(archive.health().quarantined, 0);
        if over {
            break;
        }
        cut += 1;
    }
    assert!(cut > 20, "{cut} operations");
}

#[test]
fn r6_accounts_of_a_long_run_do_not_grow_with_all_that_was_recorded() {
    let machine = Machine::new();
    let archive = machine.start();
    let retention = Retention::new(archive.clone(), machine.clock.clone(), bytes(64 << 10), None);
    for _ in 0..1500 {
        record_some(&machine, &archive, &["road"], 1);
        retention.step(&BTreeSet::new);
    }
    let log = crate::archive::run::read_whole(&machine.disk, Path::new("segments/road/1/gaps.jsonl")).unwrap();
    assert!(log.len() < 80 << 10, "{} bytes", log.len());
    let before = archive.catalog().gaps(None, crate::archive::Window::ALL);
    machine.kill();
    // And those of a run that is over.
    let archive = machine.start();
    assert_eq!(archive.catalog().gaps(None, crate::archive::Window::ALL)[..before.len()], before);
    let left = ids(&archive).len();
    let report = machine.tend(&archive, &bytes(20 << 10));
    assert!(report.removed > 0 && ids(&archive).len() < left);
    assert!(!causes(&archive).contains(&GapCause::Unknown));
}

#[test]
fn r6_a_run_without_footage_keeps_its_accounts_until_the_horizon_moves_on() {
    let machine = Machine::new();
    let archive = machine.start();
    let road = lens("road");
    let absent = Gap { start: Mono(0), end: Mono(9_000_000_000), cause: GapCause::CameraAbsent };
    machine.clock.advance(Duration::from_secs(9));
    archive.gaps(&road).unwrap().append(absent);
    archive.flush();
    machine.kill();
    let archive = machine.start();
    let some = record_some(&machine, &archive, &["road"], 2);
    machine.tend(&archive, &Limits::default());
    assert!(causes(&archive).contains(&GapCause::CameraAbsent));
    machine.kill();
    let archive = machine.start();
    // A folder whose removal was cut off goes.
    machine.disk.create_dir(Path::new("segments/rear")).unwrap();
    machine.tend(&archive, &Limits::default());
    assert!(causes(&archive).contains(&GapCause::CameraAbsent));
    assert_eq!(archive.lens_folders().unwrap(), [road]);
    machine.tend(&archive, &bytes(used_by(&archive, &some[0])));
    assert!(!causes(&archive).contains(&GapCause::CameraAbsent));
    assert_eq!(ids(&archive), [some[1].to_string()]);
}

/// R9: "2TiB" where "2GiB" was meant costs no footage.
#[test]
fn r9_a_minimum_that_the_disk_cannot_have_removes_nothing_and_is_told() {
    let machine = Machine::new();
    let archive = machine.start();
    let there = record_some(&machine, &archive, &["road", "cabin"], 6);
    let total = machine.disk.space().unwrap().total;
    for (asked, holds) in [(total / 10 * 9, true), (total / 10 * 9 + 1, false), (u64::MAX, false)] {
        assert_eq!(min_free(asked, total) == asked, holds, "{asked}");
    }
    let limits = Limits { min_free_bytes: 2 << 40, ..Limits::default() };
    let retention = Retention::new(archive.clone(), machine.clock.clone(), limits, None);
    while retention.step(&BTreeSet::new) == Pace::GoOn {}
    let report = retention.report();
    assert!(!report.short && report.removed == 0 && report.budget > total / 2, "{report:?}");
    assert_eq!(ids(&archive).len(), there.len());
    let alarms = retention.alarms().list();
    assert!(matches!(&alarms[..], [alarm] if alarm.kind == AlarmKind::StorageConfig), "{alarms:?}");
    assert!(alarms[0].message.contains("min_free_bytes is 2199023255552"), "{}", alarms[0].message);
}
