//! The ladder with real lenses on scripted sources, in simulated time, and a temperature that the test writes.

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
