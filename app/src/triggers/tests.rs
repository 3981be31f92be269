//! Events and what is protected for them.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::archive::testing::{FRAGMENT, Machine, lens as named, now, record};

const S: i64 = 1_000_000_000;
const DOOR: EventKey = EventKey(1);
const BELL: EventKey = EventKey(2);

fn lens() -> Lens {
    let plan = TriggerPlan { events: EventKind::ALL.into(), ..TriggerPlan::default() };
    Lens::new(plan)
}

fn bounds(lens: &Lens) -> Vec<(i64, i64)> {
    lens.spans.iter().map(|span| (span.from.0 / S, span.until.0 / S)).collect()
}

fn at(seconds: i64) -> Mono {
    Mono(seconds * S)
}

#[test]
fn g1_an_event_is_protected_with_what_is_around_it() {
    let mut lens = lens();
    let motion = |lens: &mut Lens, active, when| !lens.hear(EventKind::Motion, DOOR, active, at(when)).is_empty();
    assert!(!motion(&mut lens, false, 90), "an input's state at the beginning is no event");
    assert_eq!(bounds(&lens), []);
    assert!(motion(&mut lens, true, 100));
    assert_eq!(bounds(&lens), [(90, 120)]);
    assert!(!motion(&mut lens, true, 105), "cameras repeat themselves");
    assert!(lens.forget(at(130)).is_empty());
    assert_eq!(bounds(&lens), [(90, 150)], "it goes on");
    for (active, when) in [(true, 131), (false, 132)] {
        let input = lens.hear(EventKind::DigitalInput, DOOR, active, at(when));
        assert_eq!(input, [(EventKind::DigitalInput, active)]);
    }
    assert!(motion(&mut lens, false, 140));
    assert!(lens.forget(at(150)).is_empty());
    assert_eq!(bounds(&lens), [(90, 160)]);
    lens.done(at(165), Some(at(165)), Refused::new());
    assert!(lens.wants());
    lens.done(at(171), Some(at(171)), Refused::new());
    assert!(!lens.wants());
}

#[test]
fn g1_what_a_disk_that_stalled_lists_late_is_protected_all_the_same() {
    let machine = Machine::new();
    let (archive, road) = (machine.start(), named("road"));
    let begin = now(&machine);
    let after = |seconds| begin + Duration::from_secs(seconds);
    let footage = |seconds| record(&archive, &road, after(seconds), 2);
    let mut lens = lens();
    let look = |lens: &mut Lens, seconds| {
        let (now, listed) = (after(seconds), archive.catalog().reaches(&road, archive.run()));
        lens.forget(now);
        let (refused, why) = protect(&archive, &road, &lens.spans, lens.refused.clone(), now);
        assert_eq!(why, None);
        lens.done(now, listed, refused);
    };
    footage(0);
    for (active, seconds) in [(true, 5), (false, 6)] {
        lens.hear(EventKind::Motion, DOOR, active, after(seconds));
    }
    (6..60).for_each(|seconds| look(&mut lens, seconds));
    let late = footage(8);
    look(&mut lens, 60);
    assert!(archive.protection(&late).unwrap().is_some());
    let behind = footage(30);
    look(&mut lens, 61);
    assert!(archive.protection(&behind).unwrap().is_none() && !lens.wants());
    // What never comes is not waited for.
    lens.hear(EventKind::Motion, DOOR, true, after(100));
    lens.hear(EventKind::Motion, DOOR, false, after(101));
    (101..400).for_each(|seconds| look(&mut lens, seconds));
    assert!(lens.wants());
    (400..430).for_each(|seconds| look(&mut lens, seconds));
    assert!(!lens.wants());
}

#[test]
fn g2_an_event_without_an_end_is_forgotten() {
    let mut lens = lens();
    lens.hear(EventKind::Tamper, DOOR, true, at(100));
    for now in 101..=400 {
        assert!(lens.forget(at(now)).is_empty());
        lens.done(at(now), Some(at(now)), Refused::new());
    }
    assert_eq!(bounds(&lens), [(380, 420)]);
    assert_eq!(lens.forget(at(401)), [EventKind::Tamper]);
    assert!(lens.forget(at(402)).is_empty());
    assert_eq!(bounds(&lens), [(380, 420)]);
}

#[test]
fn g5_the_end_at_one_input_is_not_that_at_another() {
    let mut lens = lens();
    let input =
        |lens: &mut Lens, key, active, when| !lens.hear(EventKind::DigitalInput, key, active, at(when)).is_empty();
    assert!(input(&mut lens, DOOR, true, 100));
    assert!(!input(&mut lens, BELL, false, 101), "the bell was silent");
    assert!(!input(&mut lens, BELL, true, 102), "told once");
    assert!(!input(&mut lens, BELL, false, 103));
    assert!(lens.forget(at(200)).is_empty());
    assert_eq!(bounds(&lens), [(90, 220)], "the door is open");
    assert!(input(&mut lens, DOOR, false, 210));
    assert!(lens.forget(at(240)).is_empty());
    assert_eq!(bounds(&lens), [(90, 230)]);
    for key in 0..1000 {
        input(&mut lens, EventKey(key), true, 300);
    }
    assert_eq!(lens.active.len(), MOST_ACTIVE);
}

#[test]
fn g6_what_cannot_be_protected_keeps_nothing_else_from_it_and_is_not_let_go() {
    let machine = Machine::new();
    let (archive, road) = (machine.start(), named("road"));
    let one = archive.lookup(&record(&archive, &road, now(&machine), 2)).unwrap().row.allocated;
    machine.kill();
    let archive = machine.open_with(6 * one).unwrap();
    archive.load().unwrap();
    let begin = now(&machine);
    // More than events may protect at all, and behind it two that fit.
    let big = record(&archive, &road, begin, 200);
    let small = [200, 202].map(|after| record(&archive, &road, begin + FRAGMENT * after, 2));
    assert!(archive.lookup(&big).unwrap().row.allocated > 3 * one);
    let end = begin + FRAGMENT * 204;
    let mut lens = lens();
    lens.spans.push(Span { from: begin, until: end, why: [EventKind::Motion].into() });
    let (refused, why) = protect(&archive, &road, &lens.spans, Refused::new(), end);
    let why = why.unwrap();
    assert!(why.contains("1 segments") && why.contains(&big.to_string()), "{why}");
    for id in &small {
        assert_eq!(archive.protection(id).unwrap().unwrap().why, "event: motion");
    }
    assert_eq!(refused.keys().collect::<Vec<_>>(), [&big]);
    let much_later = later(end, LISTED * 10);
    lens.done(much_later, Some(much_later), refused);
    assert!(lens.spans.is_empty() && lens.wants(), "it is tried again");
    let (refused, why) = protect(&archive, &road, &lens.spans, lens.refused.clone(), much_later);
    assert_eq!(why, None, "newer footage has the room now");
    lens.done(much_later, Some(much_later), refused);
    assert!(!lens.wants());
}

/// G6, G7.
#[test]
fn g7_what_is_refused_for_an_hour_has_only_the_footage_of_events_protected_in_the_end() {
    let machine = Machine::new();
    let (archive, road) = (machine.start(), named("road"));
    let begin = now(&machine);
    let one = archive.lookup(&record(&archive, &road, begin, 2)).unwrap().row.allocated;
    machine.kill();
    let archive = machine.open_with(4 * one).unwrap();
    archive.load().unwrap();
    let footage = |seconds| record(&archive, &road, begin + Duration::from_secs(seconds), 2);
    let by_people = [10, 11, 12, 13].map(footage);
    let [first, between, second] = [1000, 2800, 4600].map(footage);
    let note = KeepNote { who: "operator".into(), why: String::new() };
    for id in &by_people {
        archive.keep(id, &note).unwrap();
    }
    let mut lens = lens();
    let look = |lens: &mut Lens, seconds| {
        let now = begin + Duration::from_secs(seconds);
        lens.forget(now);
        let (refused, why) = protect(&archive, &road, &lens.spans, lens.refused.clone(), now);
        lens.done(now, Some(now), refused);
        why
    };
    for event in [1000, 4600] {
        for (active, seconds) in [(true, event), (false, event + 1)] {
            lens.hear(EventKind::Motion, DOOR, active, begin + Duration::from_secs(seconds));
        }
        for seconds in (event + 2..event + 3500).step_by(10) {
            assert!(look(&mut lens, seconds).is_some(), "the quota is full");
        }
    }
    assert_eq!(lens.refused.keys().collect::<Vec<_>>(), [&first, &second]);
    for id in &by_people {
        archive.unkeep(id).unwrap();
    }
    assert_eq!(look(&mut lens, 9000), None);
    assert!(!lens.wants());
    for (id, is_kept) in [(&first, true), (&between, false), (&second, true)] {
        assert_eq!(archive.protection(id).unwrap().is_some(), is_kept, "{id}");
    }
}

#[test]
fn g7_a_look_that_takes_an_hour_joins_no_events() {
    let mut lens = lens();
    for event in [1000, 4600] {
        lens.hear(EventKind::Motion, DOOR, true, at(event));
        lens.hear(EventKind::Motion, DOOR, false, at(event));
    }
    assert_eq!(bounds(&lens), [(990, 1020), (4590, 4620)]);
    for event in 5..1000 {
        lens.hear(EventKind::Motion, DOOR, true, at(event * 1000));
        lens.hear(EventKind::Motion, DOOR, false, at(event * 1000));
    }
    assert_eq!(lens.spans.len(), MOST_SPANS);
}

#[test]
fn g3_a_kind_that_makes_way_to_another_is_told_to_end() {
    let mut lens = lens();
    assert_eq!(lens.hear(EventKind::Motion, DOOR, true, at(100)), [(EventKind::Motion, true)]);
    let news = (0..1000).flat_map(|key| lens.hear(EventKind::DigitalInput, EventKey(key), true, at(101)));
    assert_eq!(news.collect::<Vec<_>>(), [(EventKind::DigitalInput, true), (EventKind::Motion, false)]);
    assert!(lens.hear(EventKind::Motion, DOOR, false, at(102)).is_empty(), "told before");
}

#[test]
fn a_look_that_panics_is_told_and_followed_by_others() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let faults = tell.clone();
    let count = AtomicU32::new(0);
    let look = move || match count.fetch_add(1, Ordering::Relaxed) {
        0 => panic!("a segment from hell"),
        n => {
            tell.send(format!("look {n}")).unwrap();
            None
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (first, second) = runtime.block_on(async {
        let changed = Notify::new();
        let looking = looks(look, &changed, Duration::from_millis(1), move |e| faults.send(e.to_owned()).unwrap());
        let two = async { (told.recv().await.unwrap(), told.recv().await.unwrap()) };
        tokio::select! {
            seen = two => seen,
            never = looking => match never {},
        }
    });
    assert!(first.contains("panicked"), "{first}");
    assert_eq!(second, "look 1");
}
