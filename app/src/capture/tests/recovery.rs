//! Recovery in simulated time: whatever runs of a source follow one another, the promises K2 to K7 hold.

use proptest::prelude::*;
use tokio::sync::broadcast::error::TryRecvError;

use super::super::backoff::{FIRST, LONGEST};
use super::super::breaker::{FAILURES, REST, TRIALS};
use super::super::machine::TRANSITIONS;
use super::*;

/// One run of a source.
#[derive(Clone, Copy, Debug)]
enum Run {
    Absent,
    Refused,
    Broken,
    Panics,
    /// Delivers for some seconds, then breaks off.
    Breaks(u32),
    /// Delivers for some seconds, then nothing more.
    Stalls(u32),
}

impl Run {
    fn outcome(self) -> Outcome {
        match self {
            Self::Absent => Outcome::Fails(absent()),
            Self::Refused => Outcome::Fails(refused()),
            Self::Broken => Outcome::Fails(broken()),
            Self::Panics => Outcome::Panics,
            Self::Breaks(_) | Self::Stalls(_) => Outcome::Opens,
        }
    }

    fn seconds(self) -> u32 {
        if let Self::Breaks(seconds) | Self::Stalls(seconds) = self { seconds } else { 0 }
    }

    fn cause(self) -> GapCause {
        match self {
            Self::Absent => GapCause::CameraAbsent,
            Self::Refused => GapCause::CameraRefused,
            Self::Broken | Self::Panics | Self::Breaks(_) => GapCause::CameraBrokeOff,
            Self::Stalls(_) => GapCause::CameraStalled,
        }
    }
}

fn run() -> impl Strategy<Value = Run> {
    // Never so near to a multiple of ten seconds that it is a matter of the look whether the run is proven.
    let seconds = prop_oneof![0u32..9, 12u32..19, 22u32..29];
    prop_oneof![
        Just(Run::Absent),
        Just(Run::Refused),
        Just(Run::Broken),
        Just(Run::Panics),
        seconds.clone().prop_map(Run::Breaks),
        seconds.prop_map(Run::Stalls),
    ]
}

/// What the breaker must do, told by what the runs did.
#[derive(Default)]
struct Expected {
    failures: u32,
    trials: Option<u32>,
}

impl Expected {
    /// The state after a run that failed.
    fn after(&mut self, run: Run, network: bool) -> CaptureState {
        for _ in 0..run.seconds() / 10 {
            self.failures = 0;
            self.trials = self.trials.map(|n| n + 1).filter(|n| *n < TRIALS);
        }
        if matches!(run, Run::Absent) && !network {
            return CaptureState::Absent;
        }
        self.failures += 1;
        if self.trials.is_some() || self.failures >= FAILURES {
            self.trials = Some(0);
            return CaptureState::CircuitOpen;
        }
        if matches!(run, Run::Refused) { CaptureState::Failed } else { CaptureState::BackingOff }
    }
}

fn network(n: usize) -> SourceSpec {
    SourceSpec::parse(&format!("rtsp://192.0.2.1/{n}")).unwrap()
}

fn seconds(span: i64) -> f64 {
    span as f64 / 1e9
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn k2_to_k6_hold_whatever_the_source_does(runs in prop::collection::vec(run(), 1..24), on_network: bool) {
        let script = vec![runs.iter().map(|r| r.outcome()).collect()];
        let rig = if on_network { rig_of(script, network) } else { rig(script) };
        let (_, mut changes) = rig.service.follow();
        let (mut expected, mut state, mut last_down) = (Expected::default(), CaptureState::Idle, None);
        let (mut attempts, mut fed_until, mut last_unit, mut tripped) = (0usize, Mono(0), None, None);
        let mut ended = false;
        // Enough for all of them: no run with its wait takes longer than 29 s, 10 s of silence and a minute.
        for tick in 0..runs.len() as u32 * 1000 {
            let now = rig.clock.mono();
            let run = attempts.checked_sub(1).and_then(|n| runs.get(n).copied());
            if let Some(run) = run.filter(|r| matches!(r, Run::Breaks(_) | Run::Stalls(_))) {
                if now <= fed_until && run.seconds() > 0 {
                    rig.unit(0);
                    last_unit = Some(now);
                } else if matches!(run, Run::Breaks(_)) && !std::mem::replace(&mut ended, true) {
                    rig.end(0, broken());
                }
            }
            if tick % 5 == 0 {
                rig.service.step();
                last_down = rig.causes(0).last().map(|c| c.0).or(last_down);
            }
            loop {
                let change = match changes.try_recv() {
                    Ok(News::Lens(change)) => change,
                    Ok(other) => return Err(TestCaseError::fail(format!("{other:?}"))),
                    Err(TryRecvError::Empty) => break,
                    Err(e) => return Err(TestCaseError::fail(e.to_string())),
                };
                prop_assert_eq!(change.from, state, "K4: no change is left out");
                prop_assert!(TRANSITIONS.iter().any(|(f, _, t)| (*f, *t) == (change.from, change.to)), "K4: {:?}", change);
                state = change.to;
                if change.to == CaptureState::Connecting {
                    attempts += 1;
                    ended = false;
                    let Some(run) = runs.get(attempts - 1) else { return Ok(()) };
                    fed_until = now + Duration::from_secs(run.seconds().into());
                    last_unit = None;
                    let rested = tripped.take().map_or(REST, |at: Mono| Duration::from_nanos(now.since(at) as u64));
                    prop_assert!(rested >= REST, "K5: tried {:?} after the breaker opened", rested);
                } else if change.to.waits() {
                    let run = runs[attempts - 1];
                    prop_assert_eq!(change.to, expected.after(run, on_network), "K5: after {:?}", run);
                    prop_assert_eq!((change.cause, last_down), (Some(run.cause()), Some(run.cause())), "K3");
                    tripped = (change.to == CaptureState::CircuitOpen).then_some(change.at);
                }
            }
            let status = rig.service.status().remove(0);
            prop_assert_eq!(status.state, state);
            if let Some(next) = status.next_attempt {
                let wait = next.since(status.since);
                let open = status.state == CaptureState::CircuitOpen;
                let bounds = if open { REST..=REST } else { FIRST..=LONGEST };
                prop_assert!(bounds.contains(&Duration::from_nanos(wait as u64)), "K2: {} s", seconds(wait));
                prop_assert!(now.since(next) <= LOOK.as_nanos() as i64, "K2: late by {} s", seconds(now.since(next)));
            }
            if let (CaptureState::Streaming | CaptureState::Stalled, Some(last)) = (status.state, last_unit) {
                prop_assert!(seconds(now.since(last)) <= 10.0, "K6: {} s", seconds(now.since(last)));
            }
            rig.clock.advance(Duration::from_millis(100));
        }
        prop_assert!(false, "K2: after {} of {} attempts it is left alone, {:?}", attempts, runs.len(), state);
    }
}

#[test]
fn k5_a_camera_that_recovers_after_the_breaker_opened_streams_on() {
    let rig = rig_of(vec![(0..5).map(|_| Outcome::Fails(absent())).collect()], network);
    rig.service.step();
    rig.pass(40, &[]);
    let status = rig.service.status().remove(0);
    assert_eq!((status.state, status.breaker.state), (CaptureState::CircuitOpen, BreakerState::Open));
    rig.pass(39, &[]);
    assert_eq!(rig.state(0), CaptureState::Connecting);
    assert_eq!(rig.service.status()[0].breaker.state, BreakerState::HalfOpen);
    rig.pass(15, &[0]);
    assert_eq!(rig.service.status()[0].breaker.successes, 1);
    rig.pass(10, &[0]);
    let status = rig.service.status().remove(0);
    assert_eq!((status.state, status.breaker.state), (CaptureState::Streaming, BreakerState::Closed));
    assert_eq!((status.breaker.opened, status.reconnects), (1, 5));
}

#[test]
fn k7_a_stopped_lens_stays_idle_and_a_reset_one_forgets_its_failures() {
    let rig = rig_of(vec![(0..5).map(|_| Outcome::Fails(absent())).collect()], network);
    let lens = LensId::new("lens0").unwrap();
    rig.service.step();
    rig.pass(40, &[]);
    let open = rig.service.start_capture(&lens).unwrap_err();
    assert_eq!(open.to_string(), "lens lens0 is circuit_open: it is started already; reset it to start it anew");
    assert_eq!(rig.service.reset_capture(&lens).unwrap().state, CaptureState::Connecting);
    rig.pass(2, &[]);
    rig.pass(2, &[0]);
    let status = rig.service.status().remove(0);
    assert_eq!((status.state, status.breaker.failures), (CaptureState::Streaming, 0));
    rig.service.stop_capture(&lens).unwrap();
    rig.unit(0);
    rig.end(0, broken());
    rig.pass(120, &[]);
    let status = rig.service.status().remove(0);
    assert_eq!((status.state, status.cause), (CaptureState::Idle, Some(GapCause::CaptureStopped)));
    assert_eq!(status.frames, 20, "what came after the stop does not count");
    for refused in [rig.service.stop_capture(&lens), rig.service.reset_capture(&lens)] {
        assert!(matches!(refused, Err(CaptureError::NotNow { state: CaptureState::Idle, .. })), "{refused:?}");
    }
    rig.service.start_capture(&lens).unwrap();
    rig.pass(1, &[]);
    rig.pass(2, &[0]);
    assert_eq!(rig.state(0), CaptureState::Streaming);
    let causes: Vec<_> = rig.causes(0).into_iter().map(|c| c.0).collect();
    assert_eq!(causes[causes.len() - 3..], [GapCause::CaptureReset, GapCause::CaptureStopped, GapCause::Starting]);
    let nobody = LensId::new("nobody").unwrap();
    assert_eq!(rig.service.stop_capture(&nobody), Err(CaptureError::NoLens(nobody)));
}
