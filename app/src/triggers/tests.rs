//! Events and what is protected for them.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::archive::testing::{FRAGMENT, Machine, lens as named, now, record};

const S: i64 = 1_000_000_000;
const DOOR: EventKey = EventKey(1);
const BELL: EventKey = EventKey(2);

fn lens() -> Lens {
    let plan = TriggerPlan { events: EventKind::ALL.into(), ..TriggerPlan::default() };
    Lens { plan, active: BTreeMap::new(), span: None }
}

fn bounds(lens: &Lens) -> Option<(i64, i64)> {
    lens.span.as_ref().map(|span| (span.from.0 / S, span.until.0 / S))
}

fn at(seconds: i64) -> Mono {
    Mono(seconds * S)
}

#[test]
fn g1_an_event_is_protected_with_what_is_around_it() {
    let mut lens = lens();
    let motion = |lens: &mut Lens, active, when| lens.hear(EventKind::Motion, DOOR, active, at(when));
    assert!(!motion(&mut lens, false, 90), "an input's state at the beginning is no event");
    assert_eq!(bounds(&lens), None);
    assert!(motion(&mut lens, true, 100));
    assert_eq!(bounds(&lens), Some((90, 120)));
    assert!(!motion(&mut lens, true, 105), "cameras repeat themselves");
    assert!(lens.forget(at(130)).is_empty());
    assert_eq!(bounds(&lens), Some((90, 150)), "it goes on");
    assert!(lens.hear(EventKind::DigitalInput, DOOR, true, at(131)));
    assert!(lens.hear(EventKind::DigitalInput, DOOR, false, at(132)));
    assert!(motion(&mut lens, false, 140));
    assert!(lens.forget(at(150)).is_empty());
    assert_eq!(bounds(&lens), Some((90, 160)));
    lens.done(at(165), false);
    assert!(lens.span.is_some());
    lens.done(at(171), false);
    assert!(lens.span.is_none());
}

#[test]
fn g2_an_event_without_an_end_is_forgotten() {
    let mut lens = lens();
    lens.hear(EventKind::Tamper, DOOR, true, at(100));
    for now in 101..=400 {
        assert!(lens.forget(at(now)).is_empty());
        lens.done(at(now), false);
    }
    assert_eq!(bounds(&lens), Some((380, 420)));
    assert_eq!(lens.forget(at(401)), [EventKind::Tamper]);
    assert!(lens.forget(at(402)).is_empty());
    assert_eq!(bounds(&lens), Some((380, 420)));
}

#[test]
fn g5_the_end_at_one_input_is_not_that_at_another() {
    let mut lens = lens();
    let input = |lens: &mut Lens, key, active, when| lens.hear(EventKind::DigitalInput, key, active, at(when));
    assert!(input(&mut lens, DOOR, true, 100));
    assert!(!input(&mut lens, BELL, false, 101), "the bell was silent");
    assert!(!input(&mut lens, BELL, true, 102), "told once");
    assert!(!input(&mut lens, BELL, false, 103));
    assert!(lens.forget(at(200)).is_empty());
    assert_eq!(bounds(&lens), Some((90, 220)), "the door is open");
    assert!(input(&mut lens, DOOR, false, 210));
    assert!(lens.forget(at(240)).is_empty());
    assert_eq!(bounds(&lens), Some((90, 230)));
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
    lens.span = Some(Span { from: begin, until: end, why: [EventKind::Motion].into() });
    let why = protect(&archive, &road, lens.span.as_ref().unwrap(), end).unwrap_err();
    assert!(why.contains("1 segments") && why.contains(&big.to_string()), "{why}");
    for id in &small {
        assert_eq!(archive.protection(id).unwrap().unwrap().why, "event: motion");
    }
    let much_later = later(end, LISTED * 10);
    lens.done(much_later, true);
    assert!(lens.span.is_some());
    lens.done(much_later, false);
    assert!(lens.span.is_none());
}
