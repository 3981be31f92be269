//! How fast the archive and its device are written, and what follows from it.
//!
//! Rates are of the last day that the recorder was running (of less, as long as it has not run for a day), per 24 hours of
//! running. Nothing is foretold from less than a minute. The device's end is a lower bound: it takes for granted that what
//! has been written since MOS first saw the device may have used up all but one step of what it tells.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use mos_hal::clock::Mono;
use mos_hal::storage::{LifeUsed, StorageDevice, StorageState};
use serde::{Deserialize, Serialize};

use crate::archive::Archive;

const DAY: Duration = Duration::from_hours(24);
/// Between two samples that are kept.
const APART: Duration = Duration::from_mins(10);
/// The shortest time that a rate is taken of.
const LEAST: Duration = Duration::from_mins(1);
/// The last step of used life that is within what the device was made for.
const LAST_STEP: u64 = 10;

/// What is foretold; `None` where nothing is known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Bytes of footage per 24 hours.
    pub footage_per_day: Option<u64>,
    /// Bytes that anybody writes to the device per 24 hours.
    pub device_per_day: Option<u64>,
    /// How much time of all lenses the archive can hold at that rate, protected segments left out.
    pub holds: Option<Duration>,
    /// Until the archive takes all it may; zero when it does. From then on the oldest go.
    pub full_in: Option<Duration>,
    /// Until the device is used up, at least.
    pub wear_end_in: Option<Duration>,
}

/// What has been written at a moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Mono,
    footage: u64,
    device: Option<u64>,
}

/// What was written over the last day of running.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    kept: VecDeque<Sample>,
    last: Option<Sample>,
}

impl Rates {
    pub(crate) fn note(&mut self, at: Mono, footage: u64, device: Option<u64>) {
        let sample = Sample { at, footage, device };
        self.last = Some(sample);
        if self.kept.back().is_none_or(|kept| at.since(kept.at) >= APART.as_nanos() as i64) {
            self.kept.push_back(sample);
        }
        while self.kept.get(1).is_some_and(|next| at.since(next.at) >= DAY.as_nanos() as i64) {
            self.kept.pop_front();
        }
    }

    /// Footage and device, per 24 hours.
    pub(crate) fn per_day(&self) -> (Option<u64>, Option<u64>) {
        let Some((first, last)) = self.kept.front().zip(self.last) else { return (None, None) };
        let took = last.at.since(first.at);
        if took < LEAST.as_nanos() as i64 {
            return (None, None);
        }
        let per_day = |bytes: u64| (u128::from(bytes) * DAY.as_nanos() / took as u128) as u64;
        let device = first.device.zip(last.device).map(|(first, last)| per_day(last.saturating_sub(first)));
        (Some(per_day(last.footage.saturating_sub(first.footage))), device)
    }
}

/// How long `bytes` take at a rate.
pub(crate) fn time_for(bytes: u64, per_day: Option<u64>) -> Option<Duration> {
    let per_day = per_day.filter(|rate| *rate > 0)?;
    let seconds = u128::from(bytes) * u128::from(DAY.as_secs()) / u128::from(per_day);
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)))
}

/// What is remembered of the device over all runs, in the file `wear` in the archive's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    device: String,
    /// Bytes written to it while MOS was running.
    written: u64,
    /// The step of used life when it was first seen.
    first_step: u8,
}

/// The wear of the device.
pub(crate) struct Wear {
    device: Option<StorageDevice>,
    memory: Option<Memory>,
    /// The device's own count that `memory` includes.
    counted: Option<u64>,
    stored_at: Option<Mono>,
    pub(crate) state: Option<StorageState>,
}

const FILE: &str = "wear";

impl Wear {
    pub(crate) fn new(device: Option<StorageDevice>) -> Self {
        Self { device, memory: None, counted: None, stored_at: None, state: None }
    }

    pub(crate) fn device(&self) -> Option<&StorageDevice> {
        self.device.as_ref()
    }

    /// Asks the device, and remembers now and then.
    pub(crate) fn look(&mut self, archive: &Archive, now: Mono) {
        let Some(device) = &self.device else { return };
        let state = device.read();
        let (life, written) = (state.life(), state.written);
        self.state = Some(state);
        let Some((step, written)) = life.map(LifeUsed::step).zip(written) else { return };
        let fresh = || Memory { device: device.identity().to_owned(), written: 0, first_step: step };
        let stored = || archive.read_note::<Memory>(Path::new(FILE)).filter(|m| m.device == device.identity());
        let memory = self.memory.get_or_insert_with(|| stored().unwrap_or_else(fresh));
        memory.written += written.saturating_sub(self.counted.unwrap_or(written));
        self.counted = Some(written);
        if self.stored_at.is_none_or(|at| now.since(at) >= APART.as_nanos() as i64) {
            self.stored_at = Some(now);
            if let Err(error) = archive.write_note(Path::new(FILE), memory) {
                log::debug!("what was written to the device is not remembered: {error}");
            }
        }
    }

    /// Bytes that may still be written to the device, at least.
    pub(crate) fn left(&self) -> Option<u64> {
        let memory = self.memory.as_ref()?;
        let step = u64::from(self.state.as_ref()?.life()?.step());
        let used = step.saturating_sub(u64::from(memory.first_step)) + 1;
        // The present step may be used up in a moment; those behind it are left.
        Some(memory.written / used * LAST_STEP.saturating_sub(step))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::archive::testing::Machine;

    const MINUTE: i64 = 60 * 1_000_000_000;

    #[test]
    fn rates_are_of_the_last_day_and_of_no_less_than_a_minute() {
        let mut rates = Rates::default();
        rates.note(Mono(0), 0, Some(1000));
        rates.note(Mono(MINUTE / 2), 500, Some(1500));
        assert_eq!(rates.per_day(), (None, None));
        rates.note(Mono(MINUTE), 1000, Some(3000));
        assert_eq!(rates.per_day(), (Some(1000 * 1440), Some(2000 * 1440)));
        // Two days at another rate: the first minute is forgotten.
        for minute in 1..=2880 {
            rates.note(Mono(MINUTE * (1 + minute)), 1000 + 10 * minute as u64, None);
        }
        assert_eq!(rates.per_day(), (Some(10 * 1440), None));
        assert!(rates.kept.len() <= 146, "{}", rates.kept.len());
    }

    #[test]
    fn time_for_bytes_needs_a_rate() {
        assert_eq!(time_for(1 << 40, Some(1 << 39)), Some(DAY * 2));
        assert_eq!(time_for(1, Some(0)), None);
        assert_eq!(time_for(1, None), None);
        assert_eq!(time_for(0, Some(7)), Some(Duration::ZERO));
    }

    /// A device of our own, in a folder like `/sys`.
    fn device(sys: &Path, life: &str, sectors: u64) -> StorageDevice {
        let disk = sys.join("devices/mmc0/block/mmcblk0");
        std::fs::create_dir_all(disk.join("device")).unwrap();
        std::fs::create_dir_all(sys.join("dev/block")).unwrap();
        let put = |file: &str, text: &str| std::fs::write(disk.join(file), text).unwrap();
        put("device/type", "MMC\n");
        put("device/cid", "1501\n");
        put("device/life_time", life);
        put("stat", &format!("0 0 0 0 0 0 {sectors} 0 0 0 0\n"));
        let _ = std::os::unix::fs::symlink(&disk, sys.join("dev/block/179:0"));
        StorageDevice::find(sys, 179, 0).unwrap()
    }

    #[test]
    fn wear_is_remembered_over_runs_and_foretold_from_below() {
        let sys = tempfile::tempdir().unwrap();
        let mut machine = Machine::new();
        let archive = machine.start();
        let mut wear = Wear::new(Some(device(sys.path(), "0x02 0x01", 1000)));
        wear.look(&archive, Mono(0));
        assert_eq!(wear.left(), Some(0), "nothing is known yet");
        device(sys.path(), "0x02 0x01", 3000);
        wear.look(&archive, Mono(11 * MINUTE));
        // All of it may have used up one step; eight are left.
        assert_eq!(wear.left(), Some(2000 * 512 * 8));
        machine.power_cut(1);
        let archive = machine.start();
        // The device's own count began anew with the boot; two more steps are used.
        let mut wear = Wear::new(Some(device(sys.path(), "0x02 0x04", 50)));
        wear.look(&archive, Mono(0));
        device(sys.path(), "0x02 0x04", 1050);
        wear.look(&archive, Mono(1));
        assert_eq!(wear.left(), Some(3000 * 512 / 3 * 6));
        device(sys.path(), "0x0b 0x04", 1050);
        wear.look(&archive, Mono(2));
        assert_eq!(wear.left(), Some(0));
    }

    #[test]
    fn a_device_that_tells_nothing_is_left_alone() {
        let sys = tempfile::tempdir().unwrap();
        let machine = Machine::new();
        let archive = machine.start();
        let ops = machine.disk.ops();
        for mut wear in [Wear::new(None), Wear::new(Some(device(sys.path(), "", 7)))] {
            wear.look(&archive, Mono(0));
            assert_eq!(wear.left(), None);
        }
        assert_eq!(machine.disk.ops(), ops);
    }
}
