//! Promises of keeping and letting go: protection and removal.
#![allow(clippy::unwrap_used)]

use std::io::IoSlice;
use std::time::Duration;

use super::{causes, ids, note};
use crate::archive::disk::{Disk, OpenMode, SimOp};
use crate::archive::ids::SegmentId;
use crate::archive::testing::{FRAGMENT, Machine, Take, assert_sound, lens, now, record};
use crate::archive::{Archive, ArchiveError, GapCause, KeepNote};

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
fn d2_what_a_failing_disk_takes_no_account_of_stays() {
    let machine = Machine::new();
    let archive = machine.start();
    let id = record(&archive, &lens("road"), now(&machine), 2);
    let removals: [&dyn Fn() -> Result<(), ArchiveError>; 2] =
        [&|| archive.remove(&id), &|| archive.expire(std::slice::from_ref(&id)).map(drop)];
    for remove in removals {
        machine.disk.fail(SimOp::Write, "gaps.jsonl", libc::EIO, 1);
        let error = remove().unwrap_err();
        assert!(!error.is_disk_full() && error.to_string().contains("(os error 5)"), "{error}");
        assert!(machine.exists(&id.media_path()), "{error}");
        assert!(archive.lookup(&id).is_ok(), "{error}");
    }
    archive.remove(&id).unwrap();
    assert!(!machine.exists(&id.media_path()));
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
    assert!(take.finish_close(&archive));
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
fn e6_e7_e8_what_events_protect_gives_way_and_what_people_protect_does_not() {
    let mut machine = Machine::new();
    let archive = machine.start();
    let first = record(&archive, &lens("road"), now(&machine), 2);
    let one = archive.lookup(&first).unwrap().row.allocated;
    machine.kill();
    let archive = machine.open_with(4 * one).unwrap();
    archive.load().unwrap();
    let begin = now(&machine);
    let later = [0, 2, 4, 6, 8, 10].map(|n| record(&archive, &lens("road"), begin + FRAGMENT * n, 2));
    let event = KeepNote { who: "camera".into(), why: "event: motion".into() };
    let is_kept = |archive: &Archive, id: &SegmentId| archive.protection(id).unwrap().is_some();
    // E6: half of four, and the newest.
    for id in [&later[1], &later[2], &later[3]] {
        assert!(archive.keep_for_event(id, &event).unwrap());
    }
    assert!(!is_kept(&archive, &later[1]) && is_kept(&archive, &later[2]) && is_kept(&archive, &later[3]));
    assert!(!archive.keep_for_event(&later[1], &event).unwrap());
    assert!(is_kept(&archive, &later[2]) && is_kept(&archive, &later[3]));
    // E7: the oldest first, and only as many as needed.
    archive.keep(&later[0], &note()).unwrap();
    archive.keep(&later[4], &note()).unwrap();
    assert!(is_kept(&archive, &later[2]));
    archive.keep(&later[5], &note()).unwrap();
    assert!(!is_kept(&archive, &later[2]) && is_kept(&archive, &later[3]));
    // E8.
    let by_hand = archive.keep(&later[3], &KeepNote { who: "operator".into(), why: String::new() }).unwrap();
    assert_eq!((&*by_hand.who, &*by_hand.why), ("operator", "event: motion"));
    assert!(matches!(archive.keep(&first, &note()), Err(ArchiveError::ProtectedQuota { .. })));
    assert!(matches!(archive.keep_for_event(&later[2], &event), Err(ArchiveError::ProtectedQuota { .. })));
    for id in [&later[0], &later[3], &later[4], &later[5]] {
        assert!(is_kept(&archive, id));
    }
    // What gives way is known after a restart as well.
    archive.unkeep(&later[0]).unwrap();
    assert!(archive.keep_for_event(&later[2], &event).unwrap());
    machine.power_cut(3);
    let archive = machine.open_with(4 * one).unwrap();
    archive.load().unwrap();
    archive.keep(&first, &note()).unwrap();
    assert!(!is_kept(&archive, &later[2]));
    assert!(matches!(archive.keep(&later[1], &note()), Err(ArchiveError::ProtectedQuota { .. })));
}

/// What was open when an event protected it counted as what it was likely to become.
#[test]
fn e7_nothing_is_lifted_in_vain_for_what_closed_smaller_than_was_likely() {
    let machine = Machine::new();
    let archive = machine.start();
    let road = lens("road");
    let room = |archive: &Archive, id: &SegmentId| archive.lookup(id).unwrap().row.allocated;
    let usual = room(&archive, &record(&archive, &road, now(&machine), 200));
    machine.kill();
    let archive = machine.open_with(2 * usual).unwrap();
    archive.load().unwrap();
    let begin = now(&machine);
    let long = record(&archive, &road, begin, 300);
    let by_hand = record(&archive, &road, begin + FRAGMENT * 300, 200);
    archive.keep(&by_hand, &note()).unwrap();
    let mut take = Take::begin(&archive, &road, begin + FRAGMENT * 500).unwrap();
    take.append().unwrap();
    take.after_sync(&archive.commit());
    let event = KeepNote { who: "camera".into(), why: "event: motion".into() };
    assert!(archive.keep_for_event(&take.id(), &event).unwrap());
    assert_eq!(archive.yielding_bytes(), usual, "as likely");
    take.begin_close().unwrap();
    assert!(take.finish_close(&archive));
    let short = room(&archive, &take.id());
    assert!(short < usual / 4 && room(&archive, &long) > usual + short, "{short} of {usual}");
    assert!(matches!(archive.keep(&long, &note()), Err(ArchiveError::ProtectedQuota { .. })));
    assert!(archive.protection(&take.id()).unwrap().is_some(), "lifted in vain");
    assert_eq!(archive.yielding_bytes(), short);
}
