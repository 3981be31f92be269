#![allow(clippy::unwrap_used)]

use mos_hal::clock::{BootId, SimClock, UtcMicros};
use mos_hal::source::SourceSpec;

use super::*;
use crate::archive::ArchiveOptions;
use crate::archive::disk::RealDisk;
use crate::capture::{CaptureState, DropMode, Isolation, LensConfig};
use crate::record::RecorderOptions;

/// Lenses `road` and `cabin`, played from a file that is not there: they are started and stopped all the same.
struct Rig {
    clock: Arc<SimClock>,
    capture: CaptureControlService,
    power: Power,
    _folder: Arc<tempfile::TempDir>,
}

fn rig(folder: &Arc<tempfile::TempDir>, levels: Levels) -> Rig {
    let clock = Arc::new(SimClock::new(BootId([3; 16]), UtcMicros(0)));
    let as_clock: Arc<dyn Clock> = clock.clone();
    let disk = Arc::new(RealDisk::open(folder.path()).unwrap());
    let archive = Archive::open(disk, as_clock.clone(), &ArchiveOptions::default()).unwrap();
    let ids = ["road", "cabin"].map(|name| LensId::new(name).unwrap());
    let recorder = Recorder::new(archive.clone(), as_clock.clone(), &RecorderOptions::default(), &ids);
    let lens = |id: &LensId| {
        let source = SourceSpec::File { path: "/nowhere.mp4".into(), looped: false };
        let config = LensConfig { id: id.clone(), source, audio: false, frames: None, isolation: Isolation::None };
        (config, recorder.intake(id).unwrap())
    };
    let lenses = ids.iter().map(lens).collect();
    let platform = mos_hal::platform::probe();
    let capture = CaptureControlService::new(platform, None, &as_clock, lenses, DropMode::InPlace);
    capture.remember(&archive, None);
    let plan = PowerPlan {
        parking: vec![ids[0].clone()],
        run_out: Duration::from_mins(1),
        follow_ignition: true,
        ..PowerPlan::default()
    };
    let power = Power::new(plan, capture.clone(), recorder, archive, as_clock, levels);
    Rig { clock, capture, power, _folder: folder.clone() }
}

impl Rig {
    /// Reads the same levels twice, a look apart.
    fn read(&self, ignition: Option<bool>, wake: Option<bool>) -> PowerState {
        for _ in 0..2 {
            self.clock.advance(Duration::from_millis(100));
            self.power.step(Levels { ignition, wake });
        }
        self.power.status().state
    }

    /// Which lenses sleep.
    fn asleep(&self) -> Vec<bool> {
        self.capture.step();
        let status = self.capture.status();
        assert!(status.iter().all(|lens| !lens.asleep || lens.state == CaptureState::Idle));
        status.iter().map(|lens| lens.asleep).collect()
    }
}

fn folder() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

#[test]
fn p1_the_ignition_leads_over_the_run_out_to_parking_and_back() {
    let folder = folder();
    let on = Levels { ignition: Some(true), wake: Some(false) };
    let rig = rig(&folder, on);
    assert_eq!((rig.read(on.ignition, on.wake), rig.asleep()), (PowerState::Ignition, vec![false, false]));
    assert_eq!((rig.read(Some(false), Some(false)), rig.asleep()), (PowerState::RunOut, vec![false, false]));
    rig.clock.advance(Duration::from_secs(58));
    assert_eq!(rig.read(Some(false), Some(false)), PowerState::RunOut);
    rig.clock.advance(Duration::from_secs(2));
    assert_eq!((rig.read(Some(false), Some(false)), rig.asleep()), (PowerState::Parking, vec![false, true]));
    assert_eq!((rig.read(Some(true), Some(false)), rig.asleep()), (PowerState::Ignition, vec![false, false]));
    assert_eq!(rig.power.status().wakes, 1);
    let wake = rig.power.status().last_wake.unwrap();
    assert_eq!(
        (wake.by, wake.waiting),
        (Trigger::IgnitionOn, vec![LensId::new("cabin").unwrap()]),
        "the one that slept"
    );
}

#[test]
fn p1_what_a_user_stopped_is_not_woken() {
    let folder = folder();
    let rig = rig(&folder, Levels::default());
    let cabin = LensId::new("cabin").unwrap();
    rig.power.park();
    assert_eq!(rig.asleep(), [false, true]);
    rig.capture.stop_capture(&cabin).unwrap();
    rig.power.wake();
    assert_eq!(rig.asleep(), [false, false]);
    assert_eq!(rig.capture.status()[1].state, CaptureState::Idle);
    // And what a user starts while it sleeps is awake.
    rig.capture.start_capture(&cabin).unwrap();
    rig.power.park();
    assert_eq!(rig.asleep(), [false, true]);
    rig.capture.start_capture(&cabin).unwrap();
    assert_eq!(rig.asleep(), [false, false]);
}

#[test]
fn a_wake_lasts_where_the_ignition_is_on_or_unknown() {
    let folder = folder();
    let unknown = rig(&folder, Levels::default());
    unknown.power.park();
    assert_eq!(unknown.power.wake().state, PowerState::Ignition);
    unknown.clock.advance(Duration::from_hours(2));
    assert_eq!((unknown.read(None, None), unknown.asleep()), (PowerState::Ignition, vec![false, false]));
    drop(unknown);

    let on = rig(&folder, Levels { ignition: Some(true), wake: Some(false) });
    on.power.park();
    assert_eq!(on.read(Some(true), Some(false)), PowerState::Parking, "parked by hand, whatever the ignition says");
    assert_eq!(on.read(Some(true), Some(true)), PowerState::Ignition, "the wake line");
    on.clock.advance(Duration::from_hours(2));
    assert_eq!((on.read(Some(true), Some(true)), on.asleep()), (PowerState::Ignition, vec![false, false]));
}

#[test]
fn p3_what_a_start_finds_is_kept() {
    let folder = folder();
    let parked = rig(&folder, Levels::default());
    parked.power.park();
    drop(parked);
    drop(rig(&folder, Levels { ignition: Some(true), wake: None }));
    let rig = rig(&folder, Levels { ignition: Some(false), wake: None });
    assert_eq!(rig.power.status().state, PowerState::RunOut, "it was on until now");
}

#[test]
fn p3_a_parked_recorder_is_parked_after_a_restart_and_a_wake_line_brings_it_back_for_a_while() {
    let folder = folder();
    drop({
        let first = rig(&folder, Levels::default());
        first.power.park();
        first
    });
    let rig = rig(&folder, Levels { ignition: Some(false), wake: Some(false) });
    assert_eq!((rig.read(Some(false), Some(false)), rig.asleep()), (PowerState::Parking, vec![false, true]));
    rig.power.step(Levels { ignition: Some(false), wake: Some(true) });
    assert_eq!(rig.read(Some(false), Some(false)), PowerState::Parking, "P4: a pulse of one look is bounce");
    assert_eq!((rig.read(Some(false), Some(true)), rig.asleep()), (PowerState::RunOut, vec![false, false]));
    assert_eq!(rig.power.status().last_wake.unwrap().by, Trigger::WakeLine);
    rig.clock.advance(Duration::from_secs(50));
    assert_eq!(rig.power.wake().state, PowerState::RunOut);
    rig.clock.advance(Duration::from_secs(50));
    assert_eq!(rig.read(Some(false), Some(true)), PowerState::RunOut, "asked again, it stays for as long again");
    rig.clock.advance(Duration::from_secs(10));
    assert_eq!(rig.read(Some(false), Some(true)), PowerState::Parking, "a line that stays active wakes once");
    assert_eq!(rig.power.status().wakes, 1);
}

#[test]
fn p3_a_box_that_was_switched_on_without_ignition_records_for_the_run_out() {
    let folder = folder();
    let rig = rig(&folder, Levels { ignition: Some(false), wake: None });
    assert_eq!((rig.power.status().state, rig.asleep()), (PowerState::RunOut, vec![false, false]));
}
