//! The bounded queue between a source and the writer, one per lens.
//!
//! Promises that [`Intake::push`] returns at once from any thread: it takes one mutex that the writer holds only to swap
//! queues, allocates nothing but queue growth, and wakes nobody (the writer comes by on its tick). When the byte bound is
//! reached the **oldest** end goes, in whole GOPs: everything up to the next entry point from which the rest fits. So the
//! newest footage survives a slow disk, what the writer already has plus what it gets next stays decodable, and the gap is
//! exactly the span between the two. It never reorders units and never looks into them.
//!
//! Invariant I1: `captured = taken + queued + dropped`, in units, at any moment outside the mutex.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use mos_hal::clock::Mono;
use mos_hal::media::{AccessUnit, FrameKind};

use crate::archive::gaps::GapCause;

/// What a queued unit costs beside its payload: its place in the queue and its share of the allocator.
const UNIT_OVERHEAD: usize = 128;
/// Most state changes of the source kept between two ticks; more of them say nothing new.
const MARKER_LIMIT: usize = 64;

/// What the writer takes out of an intake, in order.
#[derive(Debug, Clone)]
pub enum Item {
    /// An access unit.
    Unit(AccessUnit),
    /// The source stopped delivering at `at` because of `cause`, or is now absent for another reason.
    Down {
        /// Why.
        cause: GapCause,
        /// Since when that reason holds.
        at: Mono,
    },
    /// A source is being opened since then; nothing that it delivers was captured before.
    Opened(Mono),
    /// Units were dropped here because the writer was too slow; what follows starts at an entry point.
    Dropped {
        /// How many.
        units: u64,
        /// Earliest capture time among them, if any was known.
        from: Option<Mono>,
    },
    /// The source gave up pictures before they became units; what follows does not depend on them.
    LeftOut(LeftOut),
}

impl Item {
    /// Whether it came in before `now`, as far as it tells; what does not goes with what is before it.
    pub(super) fn came_before(&self, now: Mono) -> bool {
        match self {
            Self::Unit(unit) => unit.arrival < now,
            Self::Down { at, .. } | Self::Opened(at) => *at < now,
            Self::Dropped { .. } | Self::LeftOut(_) => true,
        }
    }
}

/// Pictures that a source left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut {
    /// Capture time of the first.
    pub from: Mono,
    /// Capture time of the next that comes as a unit.
    pub to: Mono,
    /// How many.
    pub pictures: u64,
    /// Why.
    pub cause: GapCause,
}

/// Units and bytes that went through an intake since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IntakeCounters {
    /// Units that the source delivered.
    pub captured: u64,
    /// Bytes of those.
    pub captured_bytes: u64,
    /// Units handed to the writer.
    pub taken: u64,
    /// Units dropped because the queue was full.
    pub dropped: u64,
    /// Units waiting now.
    pub queued: u64,
    /// Capture time of the newest unit delivered.
    pub newest: Option<Mono>,
}

/// The queue of one lens.
#[derive(Debug)]
pub struct Intake {
    limit: usize,
    state: Mutex<State>,
    keyframe_wanted: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Item>,
    bytes: usize,
    /// The queue was emptied without an entry point in sight: refuse units until one comes.
    awaiting_entry: bool,
    closed: bool,
    counters: IntakeCounters,
}

impl Intake {
    /// An empty queue that holds at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default(), keyframe_wanted: AtomicBool::new(false) }
    }

    /// Takes a unit from the source; drops the oldest GOPs if it does not fit. Never blocks on the writer or the disk.
    pub fn push(&self, unit: AccessUnit) {
        let mut s = self.lock();
        if s.closed {
            return;
        }
        s.counters.captured += 1;
        s.counters.captured_bytes += unit.data.len() as u64;
        s.counters.newest = s.counters.newest.max(unit.pts);
        s.admit(unit, self.limit);
    }

    /// Notes that the source is down. Repeating the same cause without a unit in between changes nothing.
    pub fn down(&self, cause: GapCause, at: Mono) {
        let mut s = self.lock();
        let repeated = matches!(s.queue.back(), Some(Item::Down { cause: c, .. }) if *c == cause);
        if !repeated {
            s.mark(Item::Down { cause, at });
        }
    }

    /// Notes that a source is being opened.
    pub fn opened(&self, at: Mono) {
        self.lock().mark(Item::Opened(at));
    }

    /// Notes pictures that the source left out; they count as captured. May come before units that were captured earlier.
    pub fn left_out(&self, news: LeftOut) {
        let mut s = self.lock();
        if s.closed {
            return;
        }
        s.counters.captured += news.pictures;
        s.counters.queued += news.pictures;
        match s.queue.back_mut() {
            Some(Item::LeftOut(last)) if last.to == news.from && last.cause == news.cause => {
                last.to = news.to;
                last.pictures += news.pictures;
            }
            _ => s.queue.push_back(Item::LeftOut(news)),
        }
    }

    /// Hands over everything queued so far. `into` must be empty; its allocation is reused by the queue.
    pub fn take(&self, into: &mut VecDeque<Item>) {
        debug_assert!(into.is_empty());
        let mut s = self.lock();
        std::mem::swap(&mut s.queue, into);
        s.bytes = 0;
        s.counters.taken += s.counters.queued;
        s.counters.queued = 0;
    }

    /// Refuses all further units; what is queued can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// The counters now.
    #[must_use]
    pub fn counters(&self) -> IntakeCounters {
        self.lock().counters
    }

    /// Asks whoever holds the source to request a keyframe.
    pub fn want_keyframe(&self) {
        self.keyframe_wanted.store(true, Ordering::Relaxed);
    }

    /// Whether a keyframe is wanted; asking clears the wish.
    pub fn keyframe_wanted(&self) -> bool {
        self.keyframe_wanted.swap(false, Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether decoding may start at a unit of this kind, at least after some frames.
pub(crate) fn is_entry(kind: FrameKind) -> bool {
    matches!(kind, FrameKind::Idr | FrameKind::Bla | FrameKind::Cra | FrameKind::RecoveryPoint)
}

fn cost(unit: &AccessUnit) -> usize {
    unit.data.len() + UNIT_OVERHEAD
}

impl State {
    fn mark(&mut self, item: Item) {
        let markers = self.queue.iter().rev().take_while(|i| !matches!(i, Item::Unit(_))).count();
        if !self.closed && markers < MARKER_LIMIT {
            self.queue.push_back(item);
        }
    }

    fn admit(&mut self, unit: AccessUnit, limit: usize) {
        let need = cost(&unit);
        if self.awaiting_entry && !is_entry(unit.kind) {
            self.drop_incoming(&unit);
            return;
        }
        if self.bytes + need > limit {
            self.drop_oldest(need, limit);
            let leads = self.queue.iter().any(|i| matches!(i, Item::Unit(_))) || is_entry(unit.kind);
            if need > limit || !leads {
                self.awaiting_entry = true;
                self.drop_incoming(&unit);
                return;
            }
        }
        self.awaiting_entry = false;
        self.bytes += need;
        self.counters.queued += 1;
        self.queue.push_back(Item::Unit(unit));
    }

    fn drop_incoming(&mut self, unit: &AccessUnit) {
        self.counters.dropped += 1;
        note_dropped(&mut self.queue, unit.pts, 1);
    }

    /// Drops at least one unit and then up to an entry point that leaves room for `need` bytes. Markers stay in place.
    fn drop_oldest(&mut self, need: usize, limit: usize) {
        let mut kept = VecDeque::new();
        let mut dropped_any = false;
        while let Some(item) = self.queue.pop_front() {
            match item {
                Item::Unit(unit) if dropped_any && is_entry(unit.kind) && self.bytes + need <= limit => {
                    self.queue.push_front(Item::Unit(unit));
                    break;
                }
                Item::Unit(unit) => {
                    dropped_any = true;
                    self.bytes -= cost(&unit);
                    self.counters.queued -= 1;
                    self.counters.dropped += 1;
                    note_dropped(&mut kept, unit.pts, 1);
                }
                Item::Dropped { units, from } => match kept.back_mut() {
                    Some(Item::Dropped { units: u, from: f }) => {
                        *u += units;
                        *f = earlier(*f, from);
                    }
                    _ => kept.push_back(Item::Dropped { units, from }),
                },
                // Part of what is dropped around it.
                Item::LeftOut(left_out) => {
                    self.counters.queued -= left_out.pictures;
                    self.counters.dropped += left_out.pictures;
                    note_dropped(&mut kept, Some(left_out.from), left_out.pictures);
                }
                mark @ (Item::Down { .. } | Item::Opened(_)) => kept.push_back(mark),
            }
        }
        for item in kept.into_iter().rev() {
            self.queue.push_front(item);
        }
    }
}

fn earlier(a: Option<Mono>, b: Option<Mono>) -> Option<Mono> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn note_dropped(queue: &mut VecDeque<Item>, pts: Option<Mono>, more: u64) {
    if let Some(Item::Dropped { units, from }) = queue.back_mut() {
        *units += more;
        *from = earlier(*from, pts);
    } else {
        queue.push_back(Item::Dropped { units: more, from: pts });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use bytes::Bytes;
    use mos_hal::media::{TrackFormat, VideoCodec, VideoFormat};
    use proptest::prelude::*;

    use super::*;

    fn format() -> Arc<TrackFormat> {
        Arc::new(TrackFormat::Video(VideoFormat {
            codec: VideoCodec::H264,
            width: 160,
            height: 96,
            pixel_aspect: (1, 1),
            config: Bytes::from_static(b"cfg"),
            reorder: 0,
            frame_duration: None,
            rotation: mos_hal::media::Rotation::None,
        }))
    }

    fn unit(f: &Arc<TrackFormat>, n: i64, kind: FrameKind, size: usize) -> AccessUnit {
        AccessUnit {
            format: Arc::clone(f),
            kind,
            pts: Some(Mono(n * 40_000_000)),
            duration: None,
            arrival: Mono(n * 40_000_000),
            discontinuity: false,
            data: Bytes::from(vec![0; size]),
        }
    }

    fn kinds(items: &VecDeque<Item>) -> Vec<String> {
        items
            .iter()
            .map(|i| match i {
                Item::Unit(u) => format!("{:?}{}", u.kind, u.pts.unwrap().0 / 40_000_000),
                Item::Down { cause, .. } => format!("{cause:?}"),
                Item::Opened(at) => format!("+{}", at.0),
                Item::Dropped { units, from } => format!("-{units}@{}", from.unwrap().0 / 40_000_000),
                Item::LeftOut(l) => format!("!{}@{}", l.pictures, l.from.0 / 40_000_000),
            })
            .collect()
    }

    #[test]
    fn a_full_queue_loses_its_oldest_gops() {
        let f = format();
        let intake = Intake::new(6 * (100 + UNIT_OVERHEAD));
        for n in 0..8 {
            let kind = if n % 3 == 0 { FrameKind::Idr } else { FrameKind::Delta };
            intake.push(unit(&f, n, kind, 100));
        }
        let mut got = VecDeque::new();
        intake.take(&mut got);
        assert_eq!(kinds(&got), ["-3@0", "Idr3", "Delta4", "Delta5", "Idr6", "Delta7"]);
    }

    #[test]
    fn without_an_entry_point_everything_waits_for_one() {
        let f = format();
        let intake = Intake::new(3 * (100 + UNIT_OVERHEAD));
        for n in 0..5 {
            intake.push(unit(&f, n, if n == 0 { FrameKind::Idr } else { FrameKind::Delta }, 100));
        }
        intake.push(unit(&f, 5, FrameKind::Idr, 100));
        intake.push(unit(&f, 6, FrameKind::Delta, 100));
        let mut got = VecDeque::new();
        intake.take(&mut got);
        assert_eq!(kinds(&got), ["-5@0", "Idr5", "Delta6"]);
    }

    #[test]
    fn pictures_that_the_source_left_out_count_as_captured_and_go_with_what_is_dropped() {
        let f = format();
        let intake = Intake::new(3 * (100 + UNIT_OVERHEAD));
        let left_out = |from: i64, to: i64| LeftOut {
            from: Mono(from * 40_000_000),
            to: Mono(to * 40_000_000),
            pictures: (to - from).unsigned_abs(),
            cause: GapCause::EncoderSlow,
        };
        intake.push(unit(&f, 0, FrameKind::Idr, 100));
        intake.left_out(left_out(1, 3));
        intake.left_out(left_out(3, 4));
        assert_eq!(intake.counters().captured, 4);
        let mut got = VecDeque::new();
        intake.take(&mut got);
        assert_eq!(kinds(&got), ["Idr0", "!3@1"]);
        got.clear();
        intake.push(unit(&f, 4, FrameKind::Idr, 100));
        intake.left_out(left_out(5, 7));
        for n in 7..10 {
            intake.push(unit(&f, n, if n == 8 { FrameKind::Idr } else { FrameKind::Delta }, 100));
        }
        intake.take(&mut got);
        assert_eq!(kinds(&got), ["-4@4", "Idr8", "Delta9"]);
        let c = intake.counters();
        assert_eq!((c.captured, c.taken, c.dropped, c.queued), (10, 6, 4, 0));
    }

    #[test]
    fn a_drop_keeps_the_news_of_the_source() {
        let f = format();
        let intake = Intake::new(3 * (100 + UNIT_OVERHEAD));
        intake.push(unit(&f, 0, FrameKind::Idr, 100));
        intake.down(GapCause::CameraAbsent, Mono(1));
        intake.down(GapCause::CameraAbsent, Mono(2));
        for n in 1..4 {
            intake.push(unit(&f, n, FrameKind::Idr, 100));
        }
        let mut got = VecDeque::new();
        intake.take(&mut got);
        assert_eq!(kinds(&got), ["-1@0", "CameraAbsent", "Idr1", "Idr2", "Idr3"]);
    }

    proptest! {
        /// I1, the byte bound, and decodability: after every drop mark the next unit is an entry point.
        #[test]
        fn counts_add_up_and_drops_end_at_entries(
            plan in proptest::collection::vec((0u8..12, 1usize..400, 0u8..20), 1..300),
            limit in 300usize..4000,
        ) {
            let f = format();
            let intake = Intake::new(limit);
            let mut got: Vec<Item> = Vec::new();
            let mut batch = VecDeque::new();
            for (n, (kind, size, drain)) in plan.iter().enumerate() {
                let kind = if *kind == 0 || n == 0 { FrameKind::Idr } else { FrameKind::Delta };
                intake.push(unit(&f, n as i64, kind, *size));
                {
                    let s = intake.lock();
                    prop_assert!(s.bytes <= limit);
                    let c = s.counters;
                    prop_assert_eq!(c.captured, c.taken + c.queued + c.dropped);
                }
                if *drain == 0 {
                    intake.take(&mut batch);
                    got.extend(batch.drain(..));
                }
            }
            intake.take(&mut batch);
            got.extend(batch.drain(..));
            let (mut units, mut lost, mut must_enter, mut last) = (0, 0, true, -1);
            for item in &got {
                match item {
                    Item::Unit(u) => {
                        prop_assert!(!must_enter || is_entry(u.kind));
                        let n = u.pts.unwrap().0 / 40_000_000;
                        prop_assert!(n > last);
                        last = n;
                        must_enter = false;
                        units += 1;
                    }
                    Item::Dropped { units, .. } => { lost += *units; must_enter = true; }
                    Item::Down { .. } | Item::Opened(_) | Item::LeftOut(_) => {}
                }
            }
            prop_assert_eq!(units + lost, plan.len() as u64);
        }
    }
}
