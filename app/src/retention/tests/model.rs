//! Random lives under retention: recording, protecting, using, removing, a disk that others fill, clocks that jump, lenses
//! that leave the configuration, kills and power cuts at any operation. After every step of retention, and after every
//! restart, each promise is held against what a model knows.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mos_hal::clock::{Clock, ClockQuality, UtcMicros};
use proptest::prelude::*;

use crate::archive::disk::{Disk, OpenMode};
use crate::archive::ids::SegmentId;
use crate::archive::testing::{FRAGMENT, Machine, Take, lens};
use crate::archive::tests::note;
use crate::archive::{Archive, ArchiveError, GapCause, GapRow, Pin, Quota, Row, Window};
use crate::retention::plan::Share;
use crate::retention::{Limits, Pace, Report, Retention, place};

const LENSES: [&str; 3] = ["road", "cabin", "rear"];
const CAPACITY: u64 = 1 << 22;
const QUOTA: u64 = 96 << 10;
const DAY: Duration = Duration::from_hours(24);

#[derive(Clone, Debug)]
enum Act {
    /// A closed segment of so many fragments for each of these lenses.
    Record(u32),
    /// A segment that stays open.
    Begin(usize),
    Keep(usize),
    Unkeep(usize),
    Pin(usize),
    Unpin(usize),
    Remove(usize),
    /// A clip is made, and an upload takes hold of it.
    Clip(bool),
    /// Somebody puts a file of his own somewhere.
    Stranger(usize),
    /// Somebody else leaves so many bytes free, or takes his files away.
    Fill(u64),
    Drain,
    Step,
    Limits(usize),
    Advance(Duration),
    /// The wall clock jumps by years; in truth no time passes.
    Jump(i64, ClockQuality),
    /// The machine is off for days.
    Park(u32),
    Snapshot,
    Kill,
    CutIn(u64),
    PowerCut(u64),
}

/// What the model knows of a segment.
#[derive(Clone, Debug)]
struct Known {
    /// True time of its end.
    ended: Duration,
    /// `None`: the power went before the answer.
    kept: Option<bool>,
    removed: bool,
}

struct Life {
    machine: Machine,
    archive: Archive,
    retention: Retention,
    limits: usize,
    known: BTreeMap<SegmentId, Known>,
    pins: Vec<Pin>,
    open: Vec<Take>,
    clips: u32,
    held: BTreeSet<PathBuf>,
    strangers: Vec<Vec<u8>>,
    /// Time that has truly passed.
    truth: Duration,
    seed: u64,
}

fn limits(choice: usize) -> Limits {
    let half = Share::new(0.5).unwrap();
    let base = Limits {
        outputs: Quota { max_bytes: 64 << 10, max_age: DAY * 3 },
        quarantine: Quota { max_bytes: 4 << 10, max_age: DAY },
        protected_alarm_bytes: QUOTA / 2,
        ..Limits::default()
    };
    match choice % 6 {
        0 => base,
        1 => Limits { max_bytes: Some(128 << 10), ..base },
        2 => Limits { max_age: Some(DAY * 2), ..base },
        3 => {
            Limits { max_bytes: Some(128 << 10), shares: [(lens("road"), half), (lens("cabin"), half)].into(), ..base }
        }
        4 => {
            Limits { max_bytes: Some(96 << 10), max_age: Some(DAY * 9), shares: [(lens("rear"), half)].into(), ..base }
        }
        _ => Limits { min_free_bytes: CAPACITY - (640 << 10), ..base },
    }
}

impl Life {
    fn new() -> Self {
        let machine = Machine::new();
        machine.disk.set_capacity(CAPACITY);
        let archive = machine.open_with(QUOTA).unwrap();
        archive.load().unwrap();
        let retention = Retention::new(archive.clone(), machine.clock.clone(), limits(0), None);
        Self {
            machine,
            archive,
            retention,
            limits: 0,
            known: BTreeMap::new(),
            pins: Vec::new(),
            open: Vec::new(),
            clips: 0,
            held: BTreeSet::new(),
            strangers: Vec::new(),
            truth: Duration::ZERO,
            seed: 1,
        }
    }

    fn act(&mut self, act: &Act) {
        let clock = self.machine.clock.clone();
        match act {
            Act::Record(fragments) => self.record(*fragments),
            Act::Begin(n) => {
                let begun = Take::begin(&self.archive, &lens(LENSES[n % 3]), clock.mono());
                if let Ok(mut take) = begun
                    && take.append().is_ok()
                {
                    self.advance(FRAGMENT);
                    take.after_sync(&self.archive.commit());
                    self.learn(&take.id());
                    self.open.push(take);
                }
            }
            Act::Keep(n) => self.keep(*n),
            Act::Unkeep(n) => {
                if let Some(id) = self.some(*n) {
                    let done = self.archive.unkeep(&id);
                    self.answered(&id, &done, false);
                }
            }
            Act::Pin(n) => self.pins.extend(self.some(*n).and_then(|id| self.archive.pins().pin(&id).ok())),
            Act::Unpin(n) if !self.pins.is_empty() => drop(self.pins.swap_remove(n % self.pins.len())),
            Act::Unpin(_) => {}
            Act::Remove(n) => {
                if let Some(id) = self.some(*n)
                    && !self.archive.pins().is_pinned(&id)
                {
                    match self.archive.remove(&id) {
                        Ok(()) => self.known.get_mut(&id).unwrap().removed = true,
                        Err(ArchiveError::Protected(_)) => assert_ne!(self.known[&id].kept, Some(false), "{id}"),
                        // Decided perhaps; what is there after the restart tells.
                        Err(_) => {}
                    }
                }
            }
            Act::Clip(held) => self.clip(*held),
            Act::Stranger(n) => self.stranger(*n),
            Act::Fill(free) => {
                let used = CAPACITY.saturating_sub(self.archive.space().map_or(0, |s| s.free + CAPACITY - s.total));
                self.machine.disk.set_capacity((used + free).min(CAPACITY));
            }
            Act::Drain => self.machine.disk.set_capacity(CAPACITY),
            Act::Step => {
                self.step();
                // Once more when the wall clock has held for a while.
                if !self.machine.disk.is_cut() {
                    self.advance(Duration::from_mins(11));
                    self.step();
                }
            }
            Act::Limits(n) => {
                self.limits = *n;
                self.retention = Retention::new(self.archive.clone(), clock, limits(*n), None);
            }
            Act::Advance(time) => self.advance(*time),
            Act::Jump(years, quality) => {
                let utc = UtcMicros(clock.utc().0 + years * 366 * 86_400_000_000);
                clock.step_utc(utc, *quality);
                self.archive.set_mapping(self.machine.mapping());
            }
            Act::Park(days) => {
                self.power_cut(u64::from(*days));
                let off = DAY * *days;
                clock.step_utc(UtcMicros(clock.utc().0 + off.as_micros() as i64), clock.quality());
                self.truth += off;
                self.restart(false);
            }
            Act::Snapshot => _ = self.archive.snapshot_index(),
            Act::Kill => {
                self.machine.kill();
                self.truth += Duration::from_secs(2);
                self.restart(true);
            }
            Act::CutIn(ops) => self.machine.disk.cut_at(self.machine.disk.ops() + ops),
            Act::PowerCut(seed) => {
                self.power_cut(*seed);
                self.restart(true);
            }
        }
        if self.machine.disk.is_cut() {
            self.power_cut(self.seed);
            self.restart(true);
        }
    }

    fn advance(&mut self, time: Duration) {
        self.machine.clock.advance(time);
        self.truth += time;
    }

    fn power_cut(&mut self, seed: u64) {
        self.seed = seed.wrapping_mul(31).wrapping_add(self.seed);
        self.machine.power_cut(self.seed);
        self.truth += Duration::from_secs(7);
    }

    fn restart(&mut self, compare: bool) {
        self.pins.clear();
        self.open.clear();
        loop {
            match self.machine.open_with(QUOTA) {
                Ok(archive) if archive.load().is_ok() && !self.machine.disk.is_cut() => {
                    self.archive = archive;
                    break;
                }
                _ if self.machine.disk.is_cut() => self.power_cut(self.seed),
                // A disk without a block for the number of the run: somebody has to make room.
                _ => self.machine.disk.set_capacity(CAPACITY),
            }
        }
        self.retention = Retention::new(self.archive.clone(), self.machine.clock.clone(), limits(self.limits), None);
        if compare {
            self.compare();
        }
    }

    fn record(&mut self, fragments: u32) {
        for name in LENSES {
            let Ok(mut take) = Take::begin(&self.archive, &lens(name), self.machine.clock.mono()) else { continue };
            let written = (0..fragments).all(|_| {
                let done = take.append().is_ok();
                self.advance(FRAGMENT);
                done
            });
            let id = take.id();
            if written && take.begin_close().is_ok() {
                take.finish_close(&self.archive);
                self.learn(&id);
            }
        }
    }

    fn learn(&mut self, id: &SegmentId) {
        if self.archive.lookup(id).is_ok() && !self.machine.disk.is_cut() {
            let known = Known { ended: self.truth, kept: Some(false), removed: false };
            self.known.insert(id.clone(), known);
        }
    }

    fn some(&self, n: usize) -> Option<SegmentId> {
        self.known.keys().nth(n % self.known.len().max(1)).cloned()
    }

    /// E4 and E5.
    fn keep(&mut self, n: usize) {
        let Some(id) = self.some(n) else { return };
        let before: u64 = self.archive.catalog().rooms().values().map(|room| room.protected).sum();
        let was = self.archive.lookup(&id).is_ok_and(|row| row.row.protected);
        match self.archive.keep(&id, &note()) {
            Err(ArchiveError::ProtectedQuota { used, more, quota, .. }) if quota == QUOTA => {
                assert!(!was && used == before && used + more > QUOTA, "{id}");
            }
            Err(ArchiveError::ProtectedQuota { .. }) => panic!("another quota"),
            done => {
                if done.is_ok() && !was {
                    let after: u64 = self.archive.catalog().rooms().values().map(|room| room.protected).sum();
                    assert!(after <= QUOTA, "{id}: {after}");
                }
                self.answered(&id, &done.map(|_| ()), true);
            }
        }
    }

    fn answered(&mut self, id: &SegmentId, done: &Result<(), ArchiveError>, kept: bool) {
        let known = self.known.get_mut(id).unwrap();
        match done {
            Ok(()) => known.kept = Some(kept),
            Err(ArchiveError::NotFound(_)) => {}
            Err(_) => known.kept = None,
        }
    }

    fn clip(&mut self, held: bool) {
        self.clips += 1;
        let path = PathBuf::from(format!("clips/clip-{}-{}.mp4", self.archive.run().0, self.clips));
        let Ok(file) = self.machine.disk.open(&path, OpenMode::CreateNew) else { return };
        let written = file.write_at(0, &[IoSlice::new(&vec![7; 20_000])]).and_then(|()| file.sync());
        if written.and_then(|()| self.machine.disk.sync_dir(Path::new("clips"))).is_ok() && held {
            self.held.insert(path);
        }
    }

    fn stranger(&mut self, n: usize) {
        let content = format!("somebody's file {}", self.strangers.len()).into_bytes();
        let folders = ["quarantine", "clips", "segments", "snapshots", "segments/road"];
        let names = ["notes.txt", "road-1-0.mp4", "clip-1.mp4"];
        let name = names[n % names.len()];
        let path = Path::new(folders[n % folders.len()]).join(format!("{}{name}", self.strangers.len()));
        let Ok(file) = self.machine.disk.open(&path, OpenMode::CreateNew) else { return };
        let written = file.write_at(0, &[IoSlice::new(&content)]).and_then(|()| file.sync());
        if written.and_then(|()| self.machine.disk.sync_dir(path.parent().unwrap())).is_ok() {
            self.strangers.push(content);
        }
    }

    fn rows(&self) -> BTreeMap<SegmentId, Row> {
        let rows = self.archive.catalog().segments(None, Window::ALL, 0, usize::MAX);
        rows.into_iter().map(|row| (row.row.id.clone(), row.row)).collect()
    }

    fn step(&mut self) {
        let before = self.rows();
        let space = self.archive.space().unwrap();
        let used: u64 = self.archive.catalog().rooms().values().map(|room| room.used).sum();
        let budget = self.retention.budget(used, space);
        while self.retention.step(&|| self.held.clone()) == Pace::GoOn {}
        if self.machine.disk.is_cut() {
            return;
        }
        let (after, report, limits) = (self.rows(), self.retention.report(), limits(self.limits));
        assert_eq!(report.trouble, None, "{space:?}");
        let gone: Vec<&Row> = before.values().filter(|row| !after.contains_key(&row.id)).collect();
        let may_go = |row: &&Row| !row.protected && row.state.is_settled() && !self.archive.pins().is_pinned(&row.id);
        for row in &gone {
            assert!(may_go(row), "R1: {row:?}");
            assert!(!self.machine.exists(&row.id.media_path()), "{}", row.id);
            assert!(self.is_accounted_for(row), "R6: {row:?}");
        }
        let left: Vec<&Row> = after.values().filter(may_go).collect();
        assert!(report.used <= report.budget || left.is_empty(), "R2: {report:?} {left:?}");
        assert_eq!(report.short, left.is_empty() && self.over(&report, &limits), "R8: {report:?}");
        let of_one_lens = !limits.shares.is_empty() || limits.max_age.is_some();
        for gone in &gone {
            let of = |row: &&&Row| !of_one_lens || row.id.lens == gone.id.lens;
            assert!(left.iter().filter(of).all(|left| place(left) > place(gone)), "R3: {gone:?} {left:?}");
        }
        self.nothing_without_need(&before, &gone, budget, &report, &limits);
        for clip in &self.held {
            assert!(self.machine.exists(clip), "O2: {}", clip.display());
        }
    }

    /// Its time is in a `retention` gap, or the horizon has moved on beyond its run.
    fn is_accounted_for(&self, row: &Row) -> bool {
        let run_dir = SegmentId::run_dir(&row.id.lens, row.id.run);
        let mapping = self.archive.catalog().mapping(row.id.run);
        let (start, end) = (mapping.utc_of(row.start), mapping.utc_of(row.end));
        let gaps = self.archive.catalog().gaps(Some(&row.id.lens), Window::ALL);
        let covers = |g: &&GapRow| g.cause == GapCause::Retention && g.start_ts <= start && g.end_ts >= end;
        gaps.iter().any(|g| covers(&g)) || !self.machine.exists(&run_dir.join("gaps.jsonl"))
    }

    fn over(&self, report: &Report, limits: &Limits) -> bool {
        let space = self.archive.space().unwrap();
        let least =
            crate::retention::min_free(limits.min_free_bytes, space.total).max((16 << 20).min(space.total / 16));
        limits.max_bytes.is_some_and(|max| report.used > max) || report.free < least
    }

    /// R2, R5: what went had to go, for its age or for room.
    fn nothing_without_need(
        &self,
        before: &BTreeMap<SegmentId, Row>,
        gone: &[&Row],
        budget: u64,
        report: &Report,
        limits: &Limits,
    ) {
        let old = |row: &&&Row| {
            let age = self.truth.saturating_sub(self.known.get(&row.id).map_or(Duration::ZERO, |known| known.ended));
            limits.max_age.is_some_and(|max| age >= max)
        };
        let young: Vec<_> = gone.iter().filter(|row| !old(row)).collect();
        let largest = before.values().map(|row| row.allocated.max(row.bytes)).max().unwrap_or(0);
        // Room for what comes next is at most a quarter; one segment may be more than was missing.
        // Accounts take a block when they are begun, and give theirs back with the folder.
        let folders: BTreeSet<_> = gone.iter().map(|row| (&row.id.lens, row.id.run)).collect();
        let enough = (budget - budget / 4).saturating_sub(8192 * folders.len() as u64);
        assert!(young.is_empty() || report.used + largest >= enough, "R2, R5: {young:?} {budget} {report:?}");
    }

    /// After a restart: what was answered holds, what is there is sound, nobody's file is gone.
    fn compare(&mut self) {
        let rows = self.rows();
        for (id, known) in &mut self.known {
            match rows.get(id) {
                Some(row) => {
                    assert!(known.kept.is_none_or(|kept| kept == row.protected), "{id}: {known:?}");
                    assert!(!known.removed, "{id} was removed");
                    known.kept = Some(row.protected);
                }
                None => assert_ne!(known.kept, Some(true), "R1: {id} was protected"),
            }
        }
        self.known.retain(|id, _| rows.contains_key(id));
        for (id, row) in &rows {
            assert!(self.machine.exists(&id.media_path()), "{id}");
            assert!(row.state.is_settled(), "{id}");
            // One that recovery saved, of which nobody was told: it may be of any age.
            let known = Known { ended: Duration::ZERO, kept: Some(row.protected), removed: false };
            self.known.entry(id.clone()).or_insert(known);
        }
        let files = self.machine.disk.files();
        for content in &self.strangers {
            assert!(files.iter().any(|(_, bytes)| bytes == content), "R1: {:?}", String::from_utf8_lossy(content));
        }
        assert_eq!(self.archive.health().frozen, Vec::<String>::new());
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let quality = prop_oneof![Just(ClockQuality::Unset), Just(ClockQuality::Rtc), Just(ClockQuality::Ntp)];
    let years = prop_oneof![Just(-30), Just(-2), Just(2), Just(30)];
    let act = prop_oneof![
        12 => (1..12_u32).prop_map(Act::Record),
        2 => (0..3_usize).prop_map(Act::Begin),
        4 => (0..64_usize).prop_map(Act::Keep),
        2 => (0..64_usize).prop_map(Act::Unkeep),
        3 => (0..64_usize).prop_map(Act::Pin),
        2 => (0..64_usize).prop_map(Act::Unpin),
        2 => (0..64_usize).prop_map(Act::Remove),
        3 => any::<bool>().prop_map(Act::Clip),
        1 => (0..64_usize).prop_map(Act::Stranger),
        3 => (0..600_000_u64).prop_map(Act::Fill),
        1 => Just(Act::Drain),
        10 => Just(Act::Step),
        3 => (0..6_usize).prop_map(Act::Limits),
        3 => (1..100_u32).prop_map(|hours| Act::Advance(Duration::from_hours(hours.into()))),
        2 => (years, quality).prop_map(|(years, quality)| Act::Jump(years, quality)),
        2 => (1..20_u32).prop_map(Act::Park),
        1 => Just(Act::Snapshot),
        1 => Just(Act::Kill),
        2 => (0..60_u64).prop_map(Act::CutIn),
        1 => any::<u64>().prop_map(Act::PowerCut),
    ];
    prop::collection::vec(act, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_life_breaks_a_rule(acts in acts()) {
        let mut life = Life::new();
        for act in &acts {
            life.act(act);
        }
        life.power_cut(99);
        life.restart(true);
    }
}
