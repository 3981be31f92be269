//! Random lives of an archive: recording, protecting, removing, snapshots, kills and power cuts in any order and at any
//! operation. A model remembers what was answered; after each restart the archive must agree with it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use mos_hal::clock::Clock;
use mos_mp4::State;
use proptest::prelude::*;

use super::{causes, note};
use crate::archive::disk::Disk;
use crate::archive::ids::SegmentId;
use crate::archive::testing::{FRAGMENT, FRAMES, Machine, Take, lens};
use crate::archive::{Archive, ArchiveError, Gap, GapCause, Progress, SegmentState, Window};

const LENSES: [&str; 2] = ["road", "cabin"];

#[derive(Clone, Debug)]
enum Act {
    /// One tick: a fragment for each lens, sync, and what follows from it.
    Tick,
    /// The next tick begins a new segment for this lens.
    Split(usize),
    /// The cameras are away for some fragments.
    Absent,
    Keep(usize),
    Unkeep(usize),
    Remove(usize),
    Snapshot,
    Kill,
    /// The power goes after so many disk operations of what follows.
    CutIn(u64),
    PowerCut(u64),
}

/// What an answer allows to expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Yes,
    No,
    /// The power went before the answer.
    Either,
}

#[derive(Clone, Debug)]
struct Expected {
    frames: u32,
    kept: Known,
    removed: Known,
}

struct Life {
    machine: Machine,
    archive: Option<Archive>,
    takes: BTreeMap<usize, Take>,
    closing: Vec<Take>,
    expected: BTreeMap<SegmentId, Expected>,
    gaps: u64,
    pending_gaps: u64,
    seed: u64,
}

impl Life {
    fn new() -> Self {
        let mut life = Self {
            machine: Machine::new(),
            archive: None,
            takes: BTreeMap::new(),
            closing: Vec::new(),
            expected: BTreeMap::new(),
            gaps: 0,
            pending_gaps: 0,
            seed: 1,
        };
        life.restart();
        life
    }

    /// Opens, loads, and compares with the model; a cut that is due strikes here as well.
    fn restart(&mut self) {
        self.takes.clear();
        self.closing.clear();
        self.pending_gaps = 0;
        loop {
            let opened = self.machine.open();
            match opened {
                Ok(archive) if archive.load().is_ok() && !self.machine.disk.is_cut() => {
                    self.archive = Some(archive);
                    break;
                }
                _ => {
                    assert!(self.machine.disk.is_cut(), "only a power cut keeps an archive from opening");
                    self.seed += 1;
                    self.machine.power_cut(self.seed);
                }
            }
        }
        self.compare();
    }

    fn archive(&self) -> Archive {
        self.archive.clone().unwrap()
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Tick => self.tick(),
            Act::Split(n) => self.split(*n % LENSES.len()),
            Act::Absent => self.absent(),
            Act::Keep(n) => {
                self.change(*n, |archive, id| archive.keep(id, &note()).map(|_| ()), |e, k| e.kept = k, true);
            }
            Act::Unkeep(n) => self.change(*n, Archive::unkeep, |e, k| e.kept = k, false),
            Act::Remove(n) => self.change(*n, Archive::remove, |e, k| e.removed = k, true),
            Act::Snapshot => _ = self.archive().snapshot_index(),
            Act::Kill => {
                self.machine.kill();
                self.restart();
            }
            Act::CutIn(ops) => self.machine.disk.cut_at(self.machine.disk.ops() + ops),
            Act::PowerCut(seed) => self.power_cut(*seed),
        }
        if self.machine.disk.is_cut() {
            self.power_cut(self.seed);
        }
    }

    fn power_cut(&mut self, seed: u64) {
        self.seed = seed.wrapping_mul(31).wrapping_add(self.seed);
        self.machine.power_cut(self.seed);
        self.restart();
    }

    fn tick(&mut self) {
        let archive = self.archive();
        let begin = self.machine.clock.mono();
        for (n, name) in LENSES.iter().enumerate() {
            let take = match self.takes.remove(&n) {
                Some(take) => Ok(take),
                None => Take::begin(&archive, &lens(name), begin),
            };
            if let Ok(mut take) = take
                && take.append().is_ok()
            {
                self.takes.insert(n, take);
            }
        }
        self.machine.clock.advance(FRAGMENT);
        let report = archive.commit();
        if report.failures().next().is_none() {
            self.gaps += std::mem::take(&mut self.pending_gaps);
        }
        let mut frames = BTreeMap::new();
        for take in self.takes.values_mut().chain(&mut self.closing) {
            let written = take.end().since(take.begun()) / 500_000_000 * i64::from(FRAMES);
            match take.after_sync(&report) {
                Progress::Failed(_) | Progress::Untouched => {}
                _ => _ = frames.insert(take.id(), u32::try_from(written).unwrap()),
            }
        }
        self.closing.retain(|t| !t.is_closed());
        for (id, frames) in frames {
            let new = Expected { frames, kept: Known::No, removed: Known::No };
            self.expected.entry(id).or_insert(new).frames = frames;
        }
    }

    fn split(&mut self, n: usize) {
        if let Some(mut take) = self.takes.remove(&n)
            && take.begin_close().is_ok()
        {
            self.closing.push(take);
        }
    }

    fn absent(&mut self) {
        let start = self.machine.clock.mono();
        self.machine.clock.advance(FRAGMENT * 4);
        let gap = Gap { start, end: self.machine.clock.mono(), cause: GapCause::CameraAbsent };
        for (n, name) in LENSES.iter().enumerate() {
            self.split(n);
            if let Ok(gaps) = self.archive().gaps(&lens(name)) {
                gaps.append(gap);
                self.pending_gaps += 1;
            }
        }
    }

    fn change(
        &mut self,
        n: usize,
        change: impl Fn(&Archive, &SegmentId) -> Result<(), ArchiveError>,
        set: impl Fn(&mut Expected, Known),
        to: bool,
    ) {
        if self.expected.is_empty() {
            return;
        }
        let n = n % self.expected.len();
        let (id, expected) = self.expected.iter_mut().nth(n).unwrap();
        match change(self.archive.as_ref().unwrap(), id) {
            Ok(()) => set(expected, if to { Known::Yes } else { Known::No }),
            Err(ArchiveError::Protected(_)) => assert_ne!(expected.kept, Known::No, "{id}"),
            Err(ArchiveError::StillOpen(_) | ArchiveError::Unfinished(_)) => {}
            Err(ArchiveError::NotFound(_)) => assert_ne!(expected.removed, Known::No, "{id}"),
            Err(error) => {
                assert!(self.machine.disk.is_cut(), "{error}");
                set(expected, Known::Either);
            }
        }
    }

    fn compare(&mut self) {
        let archive = self.archive();
        let health = archive.health();
        assert_eq!((&health.frozen, &health.unreadable), (&vec![], &vec![]));
        // Only a beginning that was torn before any of it was durable may end in quarantine.
        for entry in self.machine.disk.read_dir(Path::new("quarantine")).unwrap() {
            let id: SegmentId = entry.name.split('.').next().unwrap().parse().unwrap();
            assert!(!self.expected.contains_key(&id), "{id} is in quarantine");
        }
        let rows = archive.catalog().segments(None, Window::ALL, 0, usize::MAX);
        for row in &rows {
            let id = &row.row.id;
            assert!(matches!(row.row.state, SegmentState::Closed | SegmentState::Recovered), "{id}");
            let file = self.machine.read(id);
            assert_eq!(file.state, State::Closed, "{id}: nothing is unreadable");
            assert_eq!(file.movie.sample_count(), row.row.frames as usize, "{id}");
        }
        for (id, expected) in &mut self.expected {
            if let Ok(row) = archive.lookup(id) {
                assert_ne!(expected.removed, Known::Yes, "{id}: removed stays removed");
                assert!(row.row.frames >= expected.frames, "{id}: durable footage stays");
                let kept = if row.row.protected { Known::Yes } else { Known::No };
                assert!(expected.kept == kept || expected.kept == Known::Either, "{id}: kept stays kept");
                *expected = Expected { frames: row.row.frames, kept, removed: Known::No };
            } else {
                assert_ne!(expected.removed, Known::No, "{id}: durable footage stays");
                assert_ne!(expected.kept, Known::Yes, "{id}: kept stays kept");
                expected.removed = Known::Yes;
            }
        }
        let causes = causes(&archive);
        assert!(!causes.contains(&GapCause::Unknown), "every absence has its cause: {causes:?}");
        let gaps = archive.catalog().gaps(None, Window::ALL);
        let absent = gaps.iter().filter(|g| g.cause == GapCause::CameraAbsent);
        // Absences that follow one another are listed as one.
        let absent = absent.map(|g| (g.end_ts.0 - g.start_ts.0) as u64 / 2_000_000).sum();
        assert!(absent >= self.gaps, "durable gaps stay: {absent} of {}", self.gaps);
        self.gaps = absent;
        let removed = self.expected.values().any(|e| e.removed == Known::Yes);
        assert_eq!(causes.contains(&GapCause::Removed), removed, "a removal leaves a gap");
        no_overlap(&archive);
    }
}

/// Of each lens, stored and accounted time add up: nothing twice, nothing left out.
fn no_overlap(archive: &Archive) {
    for name in LENSES {
        let lens = lens(name);
        let segments = archive.catalog().segments(Some(&lens), Window::ALL, 0, usize::MAX);
        let mut spans: Vec<_> = segments.iter().map(|s| (s.start_ts, s.end_ts)).collect();
        spans.extend(archive.catalog().gaps(Some(&lens), Window::ALL).iter().map(|g| (g.start_ts, g.end_ts)));
        spans.sort();
        for pair in spans.windows(2) {
            let apart = pair[1].0.0 - pair[0].1.0;
            assert_eq!(apart, 0, "{name}: {apart} µs between {:?} and {:?}", pair[0], pair[1]);
        }
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        12 => Just(Act::Tick),
        4 => (0..2_usize).prop_map(Act::Split),
        1 => Just(Act::Absent),
        3 => (0..64_usize).prop_map(Act::Keep),
        2 => (0..64_usize).prop_map(Act::Unkeep),
        3 => (0..64_usize).prop_map(Act::Remove),
        2 => Just(Act::Snapshot),
        1 => Just(Act::Kill),
        3 => (0..40_u64).prop_map(Act::CutIn),
        1 => any::<u64>().prop_map(Act::PowerCut),
    ];
    prop::collection::vec(act, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kept_stays_kept_removed_stays_removed_and_nothing_durable_is_lost(acts in acts()) {
        let mut life = Life::new();
        for act in &acts {
            life.act(act);
        }
        life.power_cut(99);
    }
}
