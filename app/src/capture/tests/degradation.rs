//! The ladder with real lenses on scripted sources, in simulated time, and a temperature that the test writes.

use std::cell::Cell;

use mos_hal::shared::{Ledger, Shared as _};
use mos_hal::source::Share;
use tempfile::TempDir;

use super::super::degradation::{Degradation, DegradationPlan};
use super::super::ladder::{Pace, Step};
use super::*;

struct Heat {
    rig: Rig,
    sysfs: TempDir,
    degradation: Degradation,
}

/// The lenses of `sources`, the first of which matters most; a step takes 4 s down and 10 s up.
fn heat(sources: &'static [&'static str]) -> Heat {
    let rig = rig_of(sources.iter().map(|_| Vec::new()).collect(), |n| SourceSpec::parse(sources[n]).unwrap());
    let sysfs = TempDir::new().unwrap();
    let zone = sysfs.path().join("class/thermal/thermal_zone0");
    std::fs::create_dir_all(&zone).unwrap();
    for (file, text) in [
        ("type", "cpu-thermal"),
        ("trip_point_0_type", "passive"),
        ("trip_point_0_temp", "85000"),
        ("trip_point_1_type", "critical"),
        ("trip_point_1_temp", "105000"),
    ] {
        std::fs::write(zone.join(file), text).unwrap();
    }
    let pace = Pace { down: Duration::from_secs(4), up: Duration::from_secs(10) };
    let plan = DegradationPlan { pace, ..DegradationPlan::default() };
    let clock: Arc<dyn Clock> = rig.clock.clone();
    let degradation = Degradation::new(plan, rig.service.clone(), clock, sysfs.path().into());
    let heat = Heat { rig, sysfs, degradation };
    heat.is(50);
    heat.rig.service.step();
    heat
}

impl Heat {
    fn is(&self, degrees: u32) {
        let file = self.sysfs.path().join("class/thermal/thermal_zone0/temp");
        std::fs::write(file, format!("{}\n", degrees * 1000)).unwrap();
    }

    fn pass(&self, seconds: u32, feeding: &[usize]) {
        for _ in 0..seconds {
            // What is stopped delivers nothing.
            let open = |lens: &&usize| self.rig.state(**lens) != CaptureState::Idle;
            let feeding: Vec<usize> = feeding.iter().filter(open).copied().collect();
            self.rig.pass(1, &feeding);
            self.degradation.step();
        }
    }

    fn steps(&self) -> Vec<Step> {
        let status = self.rig.service.status();
        status.iter().map(|lens| lens.degraded.as_ref().map_or(Step::Full, |degraded| degraded.step)).collect()
    }
}

const CODED_HERE: [&str; 2] = ["test:?fps=10&gop=10", "test:?fps=20&gop=20"];

#[test]
fn a_hot_machine_gives_up_the_last_lens_first_with_a_gap_of_its_own_and_takes_it_back() {
    let heat = heat(&CODED_HERE);
    let (_, mut news) = heat.rig.service.follow();
    heat.pass(5, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Full, Step::Full]);
    heat.is(88);
    heat.pass(5, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Full, Step::Reduced]);
    assert_eq!(heat.rig.state(1), CaptureState::Streaming, "without a pause");
    let one_in = |lens: usize| lock(&heat.rig.platform.open)[&heat.rig.names[lens]].one_in();
    assert_eq!([one_in(0), one_in(1)], [1, 2]);
    heat.pass(4, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Full, Step::Stopped]);
    let cabin = &heat.rig.service.status()[1];
    assert_eq!((cabin.state, cabin.cause), (CaptureState::Idle, Some(GapCause::Degraded)));
    let degraded = cabin.degraded.clone().unwrap();
    assert_eq!(degraded.why, "cpu-thermal is at 88.0 °C, too hot from 85.0 °C on");
    heat.pass(60, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Reduced, Step::Stopped], "the lens that matters most is never stopped for warmth");
    // Only where the kernel is about to switch off.
    heat.is(100);
    heat.pass(2, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Stopped, Step::Stopped]);
    heat.is(82);
    heat.pass(100, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Stopped, Step::Stopped], "hysteresis");
    heat.is(79);
    heat.pass(45, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Full, Step::Full]);
    heat.pass(2, &[0, 1]);
    assert_eq!([heat.rig.state(0), heat.rig.state(1)], [CaptureState::Streaming; 2]);
    assert_eq!([one_in(0), one_in(1)], [1, 1]);
    let causes: Vec<GapCause> = heat.rig.causes(1).into_iter().map(|(cause, _)| cause).collect();
    assert_eq!(causes, [GapCause::Degraded, GapCause::Starting]);
    let told: Vec<(usize, Step)> = std::iter::from_fn(|| news.try_recv().ok())
        .filter_map(|news| match news {
            News::Degraded { lens, degraded, .. } => {
                let step = degraded.map_or(Step::Full, |degraded| degraded.step);
                Some((usize::from(lens.as_str() == "lens1"), step))
            }
            _ => None,
        })
        .collect();
    let (full, reduced, stopped) = (Step::Full, Step::Reduced, Step::Stopped);
    let down = [(1, reduced), (1, stopped), (0, reduced), (0, stopped)];
    let up = [(0, reduced), (0, full), (1, reduced), (1, full)];
    assert_eq!(told, [down, up].concat());
}

#[test]
fn a_user_who_stops_a_lens_is_stronger_and_what_gives_way_cannot_be_started() {
    let heat = heat(&CODED_HERE);
    let cabin = LensId::new("lens1").unwrap();
    heat.pass(2, &[0, 1]);
    heat.is(88);
    heat.pass(9, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Full, Step::Stopped]);
    let refused = heat.rig.service.start_capture(&cabin).unwrap_err().to_string();
    assert_eq!(refused, "lens lens1 is idle: it gives way to others and comes back by itself");
    // What is asked for while it gives way holds when it comes back.
    let asked = serde_json::from_str(r#"{"frame_rate":5}"#).unwrap();
    assert_eq!(heat.rig.service.configure_stream(&cabin, &asked, false, None).unwrap().target.frame_rate, Some(5));

    assert_eq!(heat.rig.service.stop_capture(&cabin).unwrap().cause, Some(GapCause::CaptureStopped));
    heat.is(50);
    heat.pass(60, &[0]);
    assert_eq!((heat.steps(), heat.rig.state(1)), (vec![Step::Full; 2], CaptureState::Idle));
    heat.rig.service.start_capture(&cabin).unwrap();
    heat.rig.service.step();
    assert_eq!(heat.rig.state(1), CaptureState::Connecting);
}

#[test]
fn what_comes_coded_gives_way_to_nothing_but_heat_at_its_worst() {
    let heat = heat(&["test:", "rtsp://192.0.2.1/a"]);
    heat.pass(2, &[0, 1]);
    heat.is(90);
    heat.pass(60, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Reduced, Step::Full]);
    heat.is(101);
    heat.pass(1, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Reduced, Step::Stopped]);
}

#[test]
fn an_encoder_that_is_too_slow_or_full_is_relieved() {
    let heat = heat(&CODED_HERE);
    heat.pass(2, &[0, 1]);
    let slow = |lens: usize, pictures: u64| {
        let now = heat.rig.clock.mono();
        let sink = lock(&heat.rig.platform.open)[&heat.rig.names[lens]].clone();
        sink.left_out(now, now + Duration::from_millis(100), pictures, mos_hal::source::LeftOutBy::Encoder);
    };
    for _ in 0..10 {
        slow(0, 3);
        heat.pass(1, &[0, 1]);
    }
    assert_eq!(heat.steps(), [Step::Full, Step::Stopped]);
    let why = heat.rig.service.status()[1].degraded.clone().unwrap();
    assert_eq!((why.reason.name(), why.why.contains("of the pictures of lens0")), ("encoder", true), "{why:?}");
    heat.pass(60, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Full, Step::Full]);

    // One that has no part of the encoder is tried again as soon as somebody made room.
    let full = SourceError::Exhausted { what: "lens".into(), detail: "others have it".into() };
    heat.rig.end(0, full);
    heat.rig.service.step();
    let road = &heat.rig.service.status()[0];
    assert_eq!((road.state, road.cause), (CaptureState::Failed, Some(GapCause::Degraded)));
    let opened = road.reconnects;
    lock(&heat.rig.platform.scripts).insert(
        heat.rig.names[0].clone(),
        (0..60)
            .map(|_| Outcome::Fails(SourceError::Exhausted { what: "lens".into(), detail: "full".into() }))
            .collect(),
    );
    heat.pass(6, &[1]);
    assert_eq!(heat.steps(), [Step::Full, Step::Reduced]);
    lock(&heat.rig.platform.scripts).clear();
    heat.pass(4, &[1]);
    assert!(heat.rig.service.status()[0].reconnects > opened);
}

#[test]
fn an_encoder_that_nobody_uses_any_more_lacks_nothing() {
    let heat = heat(&CODED_HERE);
    heat.pass(2, &[0, 1]);
    for _ in 0..6 {
        let now = heat.rig.clock.mono();
        let sink = lock(&heat.rig.platform.open)[&heat.rig.names[0]].clone();
        sink.left_out(now, now + Duration::from_millis(100), 3, mos_hal::source::LeftOutBy::Encoder);
        heat.pass(1, &[0, 1]);
    }
    assert_eq!(heat.steps(), [Step::Full, Step::Reduced]);
    // All cameras fall silent, and come back much later.
    for _ in 0..200 {
        heat.pass(1, &[]);
        assert_ne!(heat.steps()[1], Step::Stopped);
    }
    assert_eq!(heat.steps(), [Step::Full; 2]);
    for _ in 0..120 {
        let open: Vec<usize> = (0..2).filter(|lens| heat.rig.state(*lens) == CaptureState::Connecting).collect();
        let streaming = (0..2).filter(|lens| heat.rig.state(*lens) == CaptureState::Streaming);
        heat.pass(1, &open.iter().copied().chain(streaming).collect::<Vec<_>>());
    }
    assert_eq!(heat.steps(), [Step::Full; 2]);
    assert_eq!([heat.rig.state(0), heat.rig.state(1)], [CaptureState::Streaming; 2]);
}

/// An encoder for one and a half lenses, and a book of it that real lenses would ask.
#[test]
fn d3_a_lens_that_cannot_have_all_of_its_pictures_is_shown_so_for_as_long_as_it_is() {
    const NEEDS: u64 = 1920 * 1080 * 30;
    let heat = heat(&CODED_HERE);
    let (road, cabin) = (&heat.rig.names[0], &heat.rig.names[1]);
    let (_, mut news) = heat.rig.service.follow();
    let book = Ledger::new("soc", Some(NEEDS * 3 / 2));
    let (has, tries) = (Cell::new(1), Cell::new(0));
    book.encode(cabin, NEEDS).unwrap();
    let tell = |lens: &str, one_in, wanted| {
        let share = Share { one_in, wanted, needs: NEEDS, budget: NEEDS * 3 / 2 };
        lock(&heat.rig.platform.open)[lens].coded(share);
    };
    // What the cabin's source does with each picture.
    let thin = || {
        let wanted = lock(&heat.rig.platform.open)[cabin].one_in();
        tries.set(tries.get() + u32::from(wanted < has.get()));
        if wanted != has.get() && book.encode(cabin, NEEDS / u64::from(wanted)).is_ok() {
            has.set(wanted);
        }
        tell(cabin, has.get(), wanted);
    };
    heat.pass(2, &[0, 1]);
    // The road is opened anew, and there is no room for it.
    let full = || SourceError::Exhausted { what: "lens".into(), detail: "the cabin has it".into() };
    assert!(book.encode(road, NEEDS).is_err());
    tell(road, 0, 1);
    heat.rig.end(0, full());
    lock(&heat.rig.platform.scripts).insert(road.clone(), (0..100).map(|_| Outcome::Fails(full())).collect());
    let mut reduced = None;
    for second in 0..300 {
        let open = heat.rig.state(0) == CaptureState::Connecting || heat.rig.state(0) == CaptureState::Streaming;
        let feeding: &[usize] = if open { &[0, 1] } else { &[1] };
        heat.pass(1, feeding);
        if !open && book.encode(road, NEEDS).is_ok() {
            lock(&heat.rig.platform.scripts).clear();
        }
        if heat.rig.state(0) == CaptureState::Streaming {
            tell(road, 1, 1);
        }
        thin();
        if has.get() == 2 {
            reduced = reduced.or(Some(second));
            let shown = heat.rig.service.status()[1].degraded.clone().map(|degraded| (degraded.step, degraded.reason));
            assert_eq!(shown, Some((Step::Reduced, super::super::ladder::Reason::Encoder)), "in second {second}");
            assert!(heat.degradation.step().is_some_and(|alarm| alarm.contains("lens1 is reduced (encoder)")));
        }
    }
    assert_eq!(heat.rig.state(0), CaptureState::Streaming);
    assert!(reduced.is_some_and(|second| second < 20), "{reduced:?}");
    // It was tried again, and less and less often; nobody who follows was bothered.
    assert!((2..50).contains(&tries.get()), "{} s", tries.get());
    let told = |news: &mut tokio::sync::broadcast::Receiver<News>| {
        let told = std::iter::from_fn(|| news.try_recv().ok());
        told.filter(|news| matches!(news, News::Degraded { .. })).count()
    };
    assert_eq!(told(&mut news), 1);
    // The road goes, and with it what it had: the cabin has all of its pictures again, and that is told.
    book.give_back(road);
    heat.rig.service.stop_capture(&LensId::new("lens0").unwrap()).unwrap();
    for _ in 0..600 {
        heat.pass(1, &[1]);
        thin();
    }
    assert_eq!((heat.steps(), has.get()), (vec![Step::Full; 2], 1));
    assert_eq!(told(&mut news), 1);
}

#[test]
fn a_camera_that_is_dead_has_nothing_to_give_and_keeps_its_reason() {
    let heat = heat(&CODED_HERE);
    heat.pass(2, &[0, 1]);
    heat.rig.end(1, absent());
    let gone = (0..1000).map(|_| Outcome::Fails(absent())).collect();
    lock(&heat.rig.platform.scripts).insert(heat.rig.names[1].clone(), gone);
    heat.rig.service.step();
    assert_eq!(heat.rig.state(1), CaptureState::Absent);
    heat.is(88);
    heat.pass(40, &[0]);
    assert_eq!(heat.steps(), [Step::Reduced, Step::Full], "what delivers gives way");
    let dead = &heat.rig.service.status()[1];
    assert_eq!((dead.state, dead.cause), (CaptureState::Absent, Some(GapCause::CameraAbsent)));
    // It is plugged in again: it is tried at once, and gives way like others from then on.
    lock(&heat.rig.platform.scripts).clear();
    heat.rig.service.devices_changed();
    heat.pass(1, &[0]);
    assert_eq!(heat.rig.state(1), CaptureState::Connecting);
    heat.pass(40, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Reduced, Step::Stopped]);
}

#[test]
fn a_sensor_that_falls_silent_is_not_taken_for_a_cool_one() {
    let heat = heat(&CODED_HERE);
    heat.pass(2, &[0, 1]);
    heat.is(88);
    heat.pass(5, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Full, Step::Reduced]);
    let file = heat.sysfs.path().join("class/thermal/thermal_zone0/temp");
    std::fs::remove_file(&file).unwrap();
    heat.pass(6, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Full, Step::Stopped], "it may be as hot as it was");
    heat.pass(500, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Reduced, Step::Stopped], "or not");
    heat.pass(200, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Full; 2], "what it belongs to is switched off");
    heat.is(88);
    heat.pass(5, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Full, Step::Reduced]);
}

#[test]
fn another_reason_is_told() {
    let heat = heat(&CODED_HERE);
    let (_, mut news) = heat.rig.service.follow();
    heat.pass(2, &[0, 1]);
    let late = || {
        let now = heat.rig.clock.mono();
        let sink = lock(&heat.rig.platform.open)[&heat.rig.names[1]].clone();
        sink.left_out(now, now + Duration::from_millis(100), 3, mos_hal::source::LeftOutBy::Encoder);
    };
    for _ in 0..10 {
        late();
        heat.pass(1, &[0, 1]);
    }
    let shown = || heat.rig.service.status()[1].degraded.clone().map(|d| (d.step, d.reason.name(), d.since));
    let (step, reason, since) = shown().unwrap();
    assert_eq!((step, reason), (Step::Reduced, "encoder"));
    // The encoder keeps up now, but it is hot.
    heat.is(88);
    heat.pass(6, &[0, 1]);
    heat.is(83);
    heat.pass(60, &[0, 1]);
    assert_eq!(shown(), Some((Step::Reduced, "heat", since)));
    let told: Vec<Option<&str>> = std::iter::from_fn(|| news.try_recv().ok())
        .filter_map(|news| match news {
            News::Degraded { degraded, .. } => Some(degraded.map(|degraded| degraded.reason.name())),
            _ => None,
        })
        .collect();
    assert_eq!(told, [Some("encoder"), Some("heat")]);
}

/// D2, D6.
#[test]
fn a_lens_that_breaks_off_gives_way_as_before_when_it_is_back() {
    let heat = heat(&CODED_HERE);
    heat.pass(2, &[0, 1]);
    heat.is(88);
    heat.pass(5, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Full, Step::Reduced]);
    heat.is(82);
    heat.pass(1, &[0, 1]);
    heat.rig.end(1, broken());
    heat.rig.service.step();
    assert_ne!(heat.rig.state(1), CaptureState::Streaming);
    assert!(heat.degradation.step().is_some_and(|alarm| alarm.contains("lens1 is reduced (heat)")));
    heat.pass(60, &[0, 1]);
    assert_eq!(heat.rig.state(1), CaptureState::Streaming);
    assert_eq!(heat.steps(), [Step::Full, Step::Reduced], "between the thresholds nothing moves");
    assert_eq!(lock(&heat.rig.platform.open)[&heat.rig.names[1]].one_in(), 2);
}

#[test]
fn a_cool_sensor_that_falls_silent_keeps_nobody_from_coming_back() {
    let heat = heat(&CODED_HERE);
    let other = heat.sysfs.path().join("class/thermal/thermal_zone1");
    std::fs::create_dir_all(&other).unwrap();
    for (file, text) in
        [("type", "npu-thermal"), ("trip_point_0_type", "passive"), ("trip_point_0_temp", "85000"), ("temp", "40000")]
    {
        std::fs::write(other.join(file), text).unwrap();
    }
    heat.pass(2, &[0, 1]);
    heat.is(88);
    heat.pass(5, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Full, Step::Reduced]);
    // What it belongs to is powered down.
    std::fs::remove_file(other.join("temp")).unwrap();
    heat.is(50);
    heat.pass(30, &[0, 1]);
    assert_eq!(heat.steps(), [Step::Full; 2]);
}
