//! Retention: the one planner of what may stay. It alone decides deletions; the archive carries them out.
//!
//! Promises:
//! - R1: a protected, pinned or open segment never goes by itself, nor one of a newer format, nor a file of somebody else.
//! - R2: room is counted in allocated blocks, and made for what is being written before it is written.
//! - R3: the oldest go first: by run and monotonic start over all lenses, never by the wall clock.
//! - R4: a lens within its share gives nothing for the others while one above its share can. Lenses without a share of
//!   their own, also those that the configuration does not name any more, have what the shares leave.
//! - R5: a segment is too old only if it is so for sure (see [`age`]); a wall clock that jumps deletes nothing.
//! - R6: every removal leaves a `retention` gap; a lens's oldest run folder goes once nothing but accounts is left in it.
//! - R7: recording stops last. When the disk is short, clips, snapshots and torn files go by their quotas and lifetimes,
//!   then the oldest segments, then clips and snapshots within their quota, the oldest first. Only when nothing may go is
//!   the recorder left without room; it goes on by itself when there is some again.
//! - R8: when nothing may go and room is short all the same, and when protection nears its quota, it is said aloud.
//! - R9: a configured minimum that the file system cannot have removes nothing (see [`min_free`]), and is said aloud.
//!
//! Called by the archive's housekeeping thread, once a second; anybody may ask for the [`Report`].

pub(crate) mod age;
pub mod forecast;
pub(crate) mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mos_hal::clock::{Clock, Mono};
use mos_hal::media::LensId;
use mos_hal::storage::{PreEol, StorageDevice, StorageKind, StorageState};

use crate::alarms::{AlarmKind, Alarms};
use crate::archive::disk::Space;
use crate::archive::{Archive, ArchiveError, LensRoom, Quota, Row, quarantine};
use crate::outputs::{self, Outputs};

use self::age::{Ages, Trust};
use self::forecast::{Forecast, Rates, Wear, time_for};
use self::plan::{Queue, Share};

/// What may stay, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of allocated blocks that segments may take.
    pub max_bytes: Option<u64>,
    /// How long a segment may stay.
    pub max_age: Option<Duration>,
    /// Bytes that stay free on the file system.
    pub min_free_bytes: u64,
    /// Of what segments may take, the part that is a lens's own.
    pub shares: BTreeMap<LensId, Share>,
    /// From so many bytes of protected segments on there is an alarm.
    pub protected_alarm_bytes: u64,
    /// Clips and snapshots.
    pub outputs: Quota,
    /// Torn segments in quarantine.
    pub quarantine: Quota,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: None,
            max_age: None,
            min_free_bytes: 0,
            shares: BTreeMap::new(),
            protected_alarm_bytes: u64::MAX,
            outputs: Quota::default(),
            quarantine: Quota::default(),
        }
    }
}

/// How the room is; part of the health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes that segments take, those being written included.
    pub used: u64,
    /// Bytes that segments may take at present.
    pub budget: u64,
    /// Bytes free on the file system.
    pub free: u64,
    /// More room is taken than allowed, and nothing may go.
    pub short: bool,
    /// Segments removed in this run.
    pub removed: u64,
    /// Bytes of these.
    pub removed_bytes: u64,
    /// Bytes of protected segments.
    pub protected: u64,
    /// Protected segments.
    pub protected_segments: u64,
    /// Clips and snapshots.
    pub outputs: outputs::Stock,
    /// What lies in quarantine.
    pub quarantine: quarantine::Stock,
    /// Why the wall clock is not believed for ages of other boots, if `max_age` is set and it is not.
    pub clock_doubted: Option<&'static str>,
    /// What could not be removed and why, lately.
    pub trouble: Option<String>,
    /// The device that carries the archive, if a single one does.
    pub device: Option<Device>,
    /// Bytes of footage that became durable in this run.
    pub written: u64,
    /// How fast it is written, and what follows from it.
    pub forecast: Forecast,
}

/// The device that carries the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The kernel's name.
    pub name: String,
    /// What it is.
    pub kind: StorageKind,
    /// What it tells.
    pub state: StorageState,
}

/// Whether there is more to do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Come back in a while.
    Rest,
    /// Come back at once: what is done in one step is bounded.
    GoOn,
}

/// Segments that go in one step.
const STEP_MOST: usize = 64;
/// Even if nothing is asked for, so many bytes stay free, or a sixteenth of the file system if that is less: the recorder
/// needs room for what it writes next.
const LEAST_FREE: u64 = 16 << 20;
/// How often the device is asked how it is.
const DEVICE_EVERY: Duration = Duration::from_secs(30);
/// How often clips, snapshots and torn files are looked after.
const OUTPUTS_EVERY: Duration = Duration::from_secs(10);

/// What of `asked` bytes stays free on a file system of `total` bytes. More than nine tenths of it are a mistake in the
/// configuration, which would cost all footage that nobody protects and leave no room for any: then the default holds.
#[must_use]
pub fn min_free(asked: u64, total: u64) -> u64 {
    if asked > total / 10 * 9 { DEFAULT_MIN_FREE.min(total / 16) } else { asked }
}

/// What stays free unless it is configured.
pub const DEFAULT_MIN_FREE: u64 = 256 << 20;

/// The planner. Clones share it.
#[derive(Clone)]
pub struct Retention(Arc<Shared>);

struct Shared {
    archive: Archive,
    clock: Arc<dyn Clock>,
    limits: Limits,
    alarms: Alarms,
    work: Mutex<Work>,
    report: Mutex<Report>,
}

struct Work {
    outputs: Outputs,
    trust: Trust,
    outputs_due: Option<Mono>,
    wear: Wear,
    device_due: Option<Mono>,
    rates: Rates,
    /// Folders whose removal was cut off have been looked for.
    tidied: bool,
}

impl Retention {
    /// A planner that has done nothing yet, for an archive that lies on `device`.
    #[must_use]
    pub fn new(archive: Archive, clock: Arc<dyn Clock>, limits: Limits, device: Option<StorageDevice>) -> Self {
        let outputs = Outputs::new(archive.clone(), clock.clone(), limits.outputs);
        let work = Work {
            outputs,
            trust: Trust::default(),
            outputs_due: None,
            wear: Wear::new(device),
            device_due: None,
            rates: Rates::default(),
            tidied: false,
        };
        let alarms = Alarms::new(clock.clone());
        Self(Arc::new(Shared { archive, clock, limits, alarms, work: Mutex::new(work), report: Mutex::default() }))
    }

    /// What needs attention now.
    #[must_use]
    pub fn alarms(&self) -> &Alarms {
        &self.0.alarms
    }

    /// How the room was at the last step.
    #[must_use]
    pub fn report(&self) -> Report {
        lock(&self.0.report).clone()
    }

    /// What it goes by.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Removes what must go, a bounded number of files at a time, and notes how the room is. `in_use` tells the clips and
    /// snapshots that must stay, relative to the archive's root.
    pub fn step(&self, in_use: &dyn Fn() -> BTreeSet<PathBuf>) -> Pace {
        let Shared { archive, clock, limits, .. } = &*self.0;
        let mut work = lock(&self.0.work);
        let now = clock.mono();
        let ages = Ages::new(&archive.catalog().runs(), archive.mapping(), archive.boot(), now, &mut work.trust);
        let mut report = self.report();
        report.trouble = None;
        report.clock_doubted = limits.max_age.and(ages.doubt());
        if work.outputs_due.is_none_or(|due| now >= due) {
            work.outputs_due = Some(now + OUTPUTS_EVERY);
            report.note(work.outputs.step(&ages, &in_use()));
            let of_all_in = |run| ages.of_all_in(run);
            let mut stock = report.quarantine;
            report.note(archive.expire_quarantine(&limits.quarantine, &mut stock, of_all_in));
            report.quarantine = stock;
        }
        let gone = self.segments(&ages, &mut work, &mut report).unwrap_or_else(|error| {
            report.trouble = Some(error.to_string());
            0
        });
        let mut pace = if gone >= STEP_MOST { Pace::GoOn } else { Pace::Rest };
        match archive.space() {
            Ok(mut space) => {
                let least = self.least_free(space);
                if gone == 0 && space.free < least {
                    let gave = work.outputs.give_way(least - space.free, &ages, &in_use());
                    space.free += gave.as_ref().map_or(0, |bytes| *bytes);
                    report.note(gave);
                }
                self.tell_of_minimum(space.total);
                // What was planned on paper may have freed less: accounts take room too.
                if self.measure(space, &mut report) {
                    report.short = gone == 0;
                    pace = if gone == 0 { Pace::Rest } else { Pace::GoOn };
                }
                archive.lay_in_reserve(space.free);
            }
            Err(error) => report.trouble = Some(error.to_string()),
        }
        report.outputs = work.outputs.stock();
        self.foretell(now, &mut work, &mut report);
        self.raise(&report);
        if let Some(trouble) = report.trouble.as_ref().filter(|t| self.report().trouble.as_ref() != Some(t)) {
            log::warn!("no room can be made: {trouble}");
        }
        *lock(&self.0.report) = report;
        pace
    }

    /// Returns how many went.
    fn segments(&self, ages: &Ages, work: &mut Work, report: &mut Report) -> Result<usize, ArchiveError> {
        let Shared { archive, limits, .. } = &*self.0;
        let rooms = archive.catalog().rooms();
        let space = archive.space()?;
        let used: u64 = rooms.values().map(|room| room.used).sum();
        let demand = plan::Demand {
            budget: self.budget(used, space),
            shares: &limits.shares,
            max_age: limits.max_age,
            most: STEP_MOST,
        };
        let queues = rooms.keys().map(|lens| (lens.clone(), Queue::new(archive, lens))).collect();
        let mut planned = plan::plan(&demand, &rooms, queues, ages)?;
        // Those of one folder go together, with one account and one sync.
        planned.sort_by(|a, b| (&a.id.lens, place(a)).cmp(&(&b.id.lens, place(b))));
        let mut lenses: BTreeSet<LensId> = BTreeSet::new();
        if !std::mem::replace(&mut work.tidied, true) {
            archive.finish_run_dirs()?;
        }
        let mut gone = 0;
        for group in planned.chunk_by(|a, b| a.id.lens == b.id.lens && a.id.run == b.id.run) {
            let ids: Vec<_> = group.iter().map(|row| row.id.clone()).collect();
            match archive.expire(&ids) {
                Ok(rows) => {
                    gone += rows.len();
                    report.removed += rows.len() as u64;
                    report.removed_bytes += rows.iter().map(|row| row.allocated).sum::<u64>();
                    lenses.insert(group[0].id.lens.clone());
                }
                Err(error @ (ArchiveError::Frozen(_) | ArchiveError::Stopping)) => return Err(error),
                // One folder that cannot be worked on does not keep the others from giving room.
                Err(error) => report.trouble = Some(error.to_string()),
            }
        }
        for lens in lenses {
            while archive.remove_oldest_run_dir(&lens)? {}
        }
        Ok(gone)
    }

    /// Notes the room; whether more is taken than allowed.
    fn measure(&self, space: Space, report: &mut Report) -> bool {
        let Shared { archive, limits, .. } = &*self.0;
        let rooms = archive.catalog().rooms();
        let sum = |of: fn(&LensRoom) -> u64| rooms.values().map(of).sum::<u64>();
        report.used = sum(|room| room.used);
        report.protected = sum(|room| room.protected);
        report.protected_segments = sum(|room| room.protected_segments);
        report.free = space.free;
        report.budget = self.budget(report.used, space);
        report.short = false;
        limits.max_bytes.is_some_and(|max| report.used > max) || space.free < self.least_free(space)
    }

    /// How fast the archive is written, and what follows from it.
    fn foretell(&self, now: Mono, work: &mut Work, report: &mut Report) {
        if work.device_due.is_none_or(|due| now >= due) {
            work.device_due = Some(now + DEVICE_EVERY);
            work.wear.look(&self.0.archive, now);
            let written = self.0.archive.catalog().counts().written;
            work.rates.note(now, written, work.wear.state.as_ref().and_then(|state| state.written));
        }
        let device = work.wear.device().zip(work.wear.state.clone());
        report.device =
            device.map(|(device, state)| Device { name: device.name().to_owned(), kind: device.kind(), state });
        report.written = self.0.archive.catalog().counts().written;
        let (footage_per_day, device_per_day) = work.rates.per_day();
        report.forecast = Forecast {
            footage_per_day,
            device_per_day,
            holds: time_for(report.budget.saturating_sub(report.protected), footage_per_day),
            full_in: time_for(report.budget.saturating_sub(report.used), footage_per_day),
            wear_end_in: work.wear.left().and_then(|left| time_for(left, device_per_day)),
        };
    }

    /// R9.
    fn tell_of_minimum(&self, total: u64) {
        let asked = self.0.limits.min_free_bytes;
        let instead = min_free(asked, total);
        let words = (instead < asked).then(|| {
            format!(
                "min_free_bytes is {asked}, of a file system of {total} bytes: that cannot be, and {instead} are kept \
                 free instead; correct it in the configuration"
            )
        });
        self.0.alarms.set(AlarmKind::StorageConfig, words);
    }

    /// R8.
    fn raise(&self, report: &Report) {
        let Shared { alarms, limits, archive, .. } = &*self.0;
        let quota = archive.protected_max_bytes();
        let (used, alarm) = (report.protected, limits.protected_alarm_bytes);
        let segments = archive.catalog().counts().stored;
        let typical = segments.allocated.checked_div(segments.segments).unwrap_or(0);
        let beyond = |used: u64| used > 0 && used.saturating_add(typical) > quota;
        // What events of cameras protected gives way.
        let full = beyond(used) && beyond(used.saturating_sub(archive.yielding_bytes()));
        let near = used >= alarm && used > 0;
        alarms.set(
            AlarmKind::ProtectedAlarm,
            near.then(|| {
                format!("{used} bytes are protected, of at most {quota}; unprotect what is not needed any more")
            }),
        );
        alarms.set(
            AlarmKind::ProtectedQuota,
            full.then(|| format!("Protect is refused: {used} of {quota} bytes are protected; unprotect some segments")),
        );
        alarms.set(
            AlarmKind::StorageShort,
            report.short.then(|| {
                let (used, free) = (report.used, report.free);
                let why = report.trouble.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
                format!("segments take {used} bytes, {free} bytes are free, and nothing more may be removed{why}")
            }),
        );
        let worn = report.device.as_ref().and_then(|device| {
            let beyond = device.state.life().is_some_and(|life| life.percent_at_most() >= 100);
            let reserve = device.state.pre_eol.is_some_and(|eol| eol > PreEol::Normal);
            let name = &device.name;
            (beyond || reserve).then(|| format!("the device {name} is near the end of its life: replace it"))
        });
        alarms.set(AlarmKind::StorageWorn, worn);
    }

    /// What segments may take at present.
    fn budget(&self, used: u64, space: Space) -> u64 {
        let on_disk = (used.saturating_add(space.free)).saturating_sub(self.least_free(space));
        self.0.limits.max_bytes.map_or(on_disk, |max| max.min(on_disk))
    }

    fn least_free(&self, space: Space) -> u64 {
        min_free(self.0.limits.min_free_bytes, space.total).max(LEAST_FREE.min(space.total / 16))
    }
}

impl Report {
    fn note<T>(&mut self, done: Result<T, ArchiveError>) {
        if let Err(error) = done {
            self.trouble = Some(error.to_string());
        }
    }
}

/// A segment's place in the order of age.
fn place(row: &Row) -> crate::index::Place {
    (row.id.run, row.start, row.id.seq)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
