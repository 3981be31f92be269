//! Promises of recording: segments, gaps, mappings, windows.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use mos_hal::clock::{ClockQuality, Mono, UtcMicros};

use super::{causes, ids};
use crate::archive::disk::SimOp;
use crate::archive::testing::{FRAGMENT, FRAMES, Machine, START_UTC, Take, assert_sound, lens, now, record};
use crate::archive::{Archive, ArchiveError, Gap, GapCause, Mapping, Progress, SegmentState, Window};

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
        let row = archive.lookup(&id).unwrap().row;
        assert_eq!((row.frames, row.state), (FRAMES, SegmentState::Unfinished));
        assert!(matches!(archive.remove(&id), Err(ArchiveError::Unfinished(_))));
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
            let done = take.finish_close(&archive);
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
fn g6_a_lens_that_fell_silent_before_the_recorder_ended_was_stalled() {
    let machine = Machine::new();
    let archive = machine.start();
    let (road, cabin) = (lens("road"), lens("cabin"));
    let start = now(&machine);
    record(&archive, &road, start, 2);
    record(&archive, &cabin, start, 10);
    machine.clock.advance(10 * FRAGMENT);
    machine.kill();
    let archive = machine.start();
    record(&archive, &road, now(&machine), 2);
    record(&archive, &cabin, now(&machine), 2);
    let catalog = archive.catalog();
    let gaps = |lens| catalog.gaps(Some(lens), Window::ALL);
    let seen = &catalog.segments(Some(&cabin), Window::ALL, 0, 1)[0];
    let [silent, killed] = &gaps(&road)[..] else { panic!("{:?}", gaps(&road)) };
    assert_eq!((silent.cause, killed.cause), (GapCause::CameraStalled, GapCause::RecorderKilled));
    assert_eq!((silent.end_ts, killed.start_ts), (seen.end_ts, seen.end_ts));
    assert!(gaps(&cabin).iter().all(|gap| gap.cause == GapCause::RecorderKilled));
}

#[test]
fn g6_a_lens_that_fell_silent_before_the_disk_was_in_trouble_was_stalled_up_to_there() {
    // Half seconds of cabin's trouble and of its footage behind that, and when road counts as stalled, which fell silent after two.
    let cases = [
        (GapCause::DiskSlow, (10, 14), 2, Some(10)),
        (GapCause::DiskSlow, (10, 14), 8, Some(10)),
        (GapCause::DiskFull, (10, 14), 2, Some(10)),
        (GapCause::DiskError, (10, 14), 2, Some(10)),
        (GapCause::DiskError, (10, 14), 3, Some(17)),
        (GapCause::DiskFull, (10, 14), 3, Some(17)),
        (GapCause::DiskError, (2, 3), 6, Some(9)),
        (GapCause::DiskError, (2, 3), 5, None),
        // What came right before may have waited for the disk; and what cost road itself footage is no silence.
        (GapCause::DiskSlow, (6, 14), 8, None),
        (GapCause::DiskError, (2, 14), 2, None),
    ];
    for (cause, (from, to), behind, stalled) in cases {
        let mut machine = Machine::new();
        let archive = machine.start();
        let (road, cabin) = (lens("road"), lens("cabin"));
        let (run, start) = (archive.run(), now(&machine));
        record(&archive, &road, start, 2);
        record(&archive, &cabin, start, from);
        let gap = Gap { start: start + FRAGMENT * from, end: start + FRAGMENT * to, cause };
        archive.gaps(&cabin).unwrap().append(gap);
        record(&archive, &cabin, start + FRAGMENT * to, behind);
        machine.clock.advance((to + behind) * FRAGMENT);
        machine.power_cut(3);
        let archive = machine.start();
        record(&archive, &road, now(&machine), 2);
        let gaps = archive.catalog().gaps(Some(&road), Window::ALL);
        let end = |n: u32| archive.catalog().mapping(run).utc_of(start + FRAGMENT * n);
        let told: Vec<_> = gaps.iter().map(|gap| (gap.start_ts, gap.end_ts, gap.cause)).collect();
        let back = gaps.last().unwrap().end_ts;
        let expected = match stalled {
            Some(until) => {
                vec![(end(2), end(until), GapCause::CameraStalled), (end(until), back, GapCause::PowerLoss)]
            }
            None => vec![(end(2), back, GapCause::PowerLoss)],
        };
        assert_eq!(told, expected, "{cause:?} {from}..{to}, then {behind}");
    }
}

#[test]
fn v5_what_a_power_cut_took_from_the_end_of_a_segment_is_told_where_it_left_the_beginning_of_the_next() {
    let mut holes = 0;
    for seed in 0..300 {
        for recovery_is_cut in [false, true] {
            let mut machine = Machine::new();
            let archive = machine.start();
            let (road, start) = (lens("road"), now(&machine));
            let mut ended = Take::begin(&archive, &road, start).unwrap();
            ended.append().unwrap();
            ended.after_sync(&archive.commit());
            ended.append().unwrap();
            let mut begun = Take::begin(&archive, &road, ended.end()).unwrap();
            begun.append().unwrap();
            if !recovery_is_cut {
                // What waited behind a slow tick may be of more than two segments.
                Take::begin(&archive, &road, begun.end()).unwrap().append().unwrap();
            }
            machine.clock.advance(4 * FRAGMENT);
            machine.power_cut(seed);
            if recovery_is_cut {
                machine.disk.cut_at(machine.disk.ops() + 10 + seed % 30);
                if let Ok(archive) = machine.open() {
                    let _ = archive.load();
                }
                machine.power_cut(seed + 1);
            }
            let archive = machine.start();
            let rows = archive.catalog().segments(Some(&road), Window::ALL, 0, 9);
            let gaps = archive.catalog().gaps(Some(&road), Window::ALL);
            let [first, second, ..] = &rows[..] else { continue };
            let hole: Vec<_> = gaps.iter().filter(|gap| gap.start_ts < second.start_ts).collect();
            if first.end_ts < second.start_ts {
                holes += 1;
                assert_eq!(hole.len(), 1, "seed {seed}: {hole:?}");
                assert_eq!((hole[0].start_ts, hole[0].end_ts), (first.end_ts, second.start_ts), "seed {seed}");
                assert_eq!(hole[0].cause, GapCause::PowerLoss, "seed {seed}");
            } else {
                assert!(hole.is_empty(), "seed {seed}: {hole:?}");
            }
        }
    }
    assert!(holes > 5, "{holes} of the cuts left a hole");
}

/// V5, G6: the camera of which footage lies behind a hole was not silent in it, however long the others lived on.
#[test]
fn v5_a_lens_of_which_seconds_are_left_behind_a_hole_is_not_told_to_have_been_silent() {
    let mut holes = 0;
    for (seed, after) in (0..100).flat_map(|seed| [(seed, 1), (seed, 4), (seed, 5)]) {
        let mut machine = Machine::new();
        let archive = machine.start();
        let (road, start) = (lens("road"), now(&machine));
        let mut ended = Take::begin(&archive, &road, start).unwrap();
        ended.append().unwrap();
        let mut other = Take::begin(&archive, &lens("yard"), start).unwrap();
        for _ in 0..8 {
            other.append().unwrap();
        }
        ended.after_sync(&archive.commit());
        // All of it waited behind the other's in one long tick.
        ended.append().unwrap();
        let mut begun = Take::begin(&archive, &road, ended.end()).unwrap();
        for _ in 0..after {
            begun.append().unwrap();
        }
        machine.clock.advance(8 * FRAGMENT);
        machine.power_cut(seed);
        let archive = machine.start();
        let rows = archive.catalog().segments(Some(&road), Window::ALL, 0, 9);
        let [first, second] = &rows[..] else { continue };
        let gaps = archive.catalog().gaps(Some(&road), Window::ALL);
        let hole = gaps.iter().filter(|gap| gap.start_ts == first.end_ts && gap.end_ts == second.start_ts);
        for gap in hole {
            holes += 1;
            assert_eq!(gap.cause, GapCause::PowerLoss, "seed {seed}, {after} fragments: {gap:?}");
        }
    }
    assert!(holes > 5, "{holes} of the cuts left a hole");
}

/// G6: what reordering owed where a camera fell silent went with that camera, though pictures that are shown later are there.
#[test]
fn g6_what_a_silent_camera_owed_in_front_of_its_last_picture_is_told_as_its_silence() {
    // Half seconds for which the other lens lives on, where in the segment the gap lies (in ms), and what it is told as.
    let cases = [
        (8, (700, 800), GapCause::CameraStalled),
        (8, (100, 200), GapCause::PowerLoss),
        (3, (700, 800), GapCause::PowerLoss),
        (6, (700, 800), GapCause::PowerLoss),
    ];
    for (lived, (from, to), cause) in cases {
        let mut machine = Machine::new();
        let archive = machine.start();
        let (road, cabin, start) = (lens("road"), lens("cabin"), now(&machine));
        record(&archive, &road, start, 3);
        record(&archive, &cabin, start, lived);
        let at = |ms| start + Duration::from_millis(ms);
        // As a recovery tells it.
        archive.gaps(&road).unwrap().append(Gap { start: at(from), end: at(to), cause: GapCause::PowerLoss });
        archive.commit();
        machine.clock.advance(lived * FRAGMENT);
        machine.power_cut(3);
        let archive = machine.start();
        record(&archive, &road, now(&machine), 2);
        let gaps = archive.catalog().gaps(Some(&road), Window::ALL);
        assert_eq!(gaps[0].cause, cause, "{from} to {to} ms, the others lived for {lived}: {gaps:?}");
    }
}

/// V5: what files say of their times is not believed further than numbers go.
#[test]
fn v5_segments_whose_times_are_as_far_apart_as_numbers_go_are_recovered_as_they_are() {
    let (early, late) = (Mono(-(i64::MAX / 2) - 1_000_000_000), Mono(i64::MAX / 2 + 1_000_000_000));
    for (first, second) in [(early, late), (late, early)] {
        let mut machine = Machine::new();
        let archive = machine.start();
        let road = lens("road");
        let mut ended = Take::begin(&archive, &road, first).unwrap();
        ended.append().unwrap();
        let mut begun = Take::begin(&archive, &road, second).unwrap();
        begun.append().unwrap();
        archive.commit();
        machine.power_cut(1);
        for _ in 0..2 {
            let archive = machine.start();
            let rows = archive.catalog().segments(Some(&road), Window::ALL, 0, 9);
            let times: Vec<_> = rows.iter().map(|segment| segment.row.start).collect();
            assert_eq!(times, [early, late]);
            let text = crate::archive::run::read_whole(&machine.disk, Path::new("segments/road/1/gaps.jsonl")).unwrap();
            let told = String::from_utf8_lossy(&text).matches("power_loss").count();
            assert_eq!(told, usize::from(first == early), "what lies between is told once");
            machine.kill();
        }
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
fn g7_the_log_of_a_lens_that_misses_pictures_without_end_is_bounded() {
    const MIB: u64 = 1 << 20;
    let mut machine = Machine::new();
    let archive = machine.start();
    let gaps = archive.gaps(&lens("road")).unwrap();
    let path = Path::new("segments/road/1/gaps.jsonl");
    let len = |machine: &Machine| crate::archive::disk::Disk::size(&machine.disk, path).unwrap().len;
    // Every other picture of 25 in a second is left out for six hours, and packets are lost beside.
    let (picture, hours) = (40_000_000, 6);
    let first = now(&machine);
    for tick in 0..hours * 7200 {
        for n in 0..6 {
            let start = first + Duration::from_nanos(picture * (tick * 12 + n * 2));
            let end = start + Duration::from_nanos(picture);
            let cause = if n == tick % 40 { GapCause::PacketLoss } else { GapCause::EncoderSlow };
            gaps.append(Gap { start, end, cause });
        }
        archive.commit();
        if tick % 100 == 0 {
            let most = 2 * MIB + 2 * MIB * tick / (24 * 7200);
            assert!(len(&machine) < most, "{} bytes after {} s", len(&machine), tick / 2);
        }
    }
    let of = |archive: &Archive, cause| {
        let listed = archive.catalog().gaps(None, Window::ALL);
        assert!(listed.len() < 10_000, "{} gaps are listed", listed.len());
        listed.into_iter().filter(|gap| gap.cause == cause).collect::<Vec<_>>()
    };
    let (slow, lost) = (of(&archive, GapCause::EncoderSlow), of(&archive, GapCause::PacketLoss));
    machine.power_cut(3);
    let archive = machine.start();
    let text = crate::archive::run::read_whole(&machine.disk, path).unwrap();
    assert_eq!(crate::archive::gaps::parse(&text).damage, None);
    // Both count their gaps at moments of their own, so they need not be alike; from first to last they say the same.
    for (before, cause) in [(slow, GapCause::EncoderSlow), (lost, GapCause::PacketLoss)] {
        let after = of(&archive, cause);
        assert!(before.len() > 100 && after.len() > 100);
        assert_eq!(before.first().map(|gap| gap.start_ts), after.first().map(|gap| gap.start_ts));
        assert_eq!(before.last().map(|gap| gap.end_ts), after.last().map(|gap| gap.end_ts));
    }
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
    let text = crate::archive::run::read_whole(&machine.disk, Path::new("segments/road/1/gaps.jsonl")).unwrap();
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
    let text = crate::archive::run::read_whole(&machine.disk, Path::new("segments/road/1/clock")).unwrap();
    assert!(String::from_utf8(text).unwrap().contains("\"revision\":2"));
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
fn w5_beginnings_on_a_full_disk_leave_no_files() {
    let machine = Machine::new();
    let archive = machine.start();
    let road = lens("road");
    let kept = record(&archive, &road, now(&machine), 2);
    let files = machine.disk.files().len();
    for n in 0..10 {
        // Full at the header, and full at the first fragment.
        if n % 2 == 0 {
            machine.disk.fail(SimOp::Write, ".mp4", libc::ENOSPC, 1);
            assert!(Take::begin(&archive, &road, now(&machine)).is_err_and(|e| e.is_disk_full()));
        } else {
            let mut take = Take::begin(&archive, &road, now(&machine)).unwrap();
            machine.disk.fail(SimOp::Write, ".mp4", libc::ENOSPC, 1);
            assert!(take.append().is_err_and(|e| e.is_disk_full()));
        }
        // Nobody is told of a sync that the removed file missed.
        let report = archive.commit();
        assert_eq!(report.failures().count(), 0);
    }
    assert_eq!(machine.disk.files().len(), files);
    assert_eq!(ids(&archive), [kept.to_string()]);
}
