//! Capture times of network cameras, from the arrival of their pictures to the repairer: what the network and a busy machine
//! do to arrivals must not disturb times that are sound. Tests only.

use mos_hal::clock::Mono;
use mos_hal::media::FrameKind;
use mos_hal::timeline::Timeline;
use proptest::prelude::*;

use super::repair::{Admitted, Repair};
use super::testing::{MS, order, unit_at, video_format};

/// Frames of a group of pictures.
const GROUP: usize = 25;

/// A camera and its network.
#[derive(Clone, Debug)]
struct Camera {
    /// B-frames between two others, and whether they refer to one another.
    b: usize,
    pyramid: bool,
    /// Whether the parameter sets tell the reorder depth.
    told: bool,
    /// Distances of the frames in display order, in ms.
    steps: Vec<i64>,
    /// What is sent before is held back until then: a late start.
    held: i64,
    /// From which frame on, and for how long, nothing arrives; then all of it at once.
    stalls: Vec<(usize, i64)>,
    /// Delay of each frame, in ms.
    jitter: Vec<i64>,
    /// From which group on the camera's clock is set by so much.
    set: Option<(usize, i64)>,
}

fn camera() -> impl Strategy<Value = Camera> {
    let steps = prop_oneof![
        Just(vec![40; 1]),
        Just(vec![17; 1]),
        proptest::collection::vec(5i64..200, 1..40), // A variable rate.
    ];
    let set = prop_oneof![-9_000_000i64..-3_000, 3_000i64..9_000_000];
    let line = (
        prop_oneof![Just(0i64), 0i64..12_000],
        proptest::collection::vec((0usize..400, 0i64..9_000), 0..4),
        proptest::collection::vec(0i64..120, 1..50),
        prop::option::weighted(0.3, (1usize..15, set)),
    );
    ((0usize..4, any::<bool>(), any::<bool>()), steps, line).prop_map(
        |((b, pyramid, told), steps, (held, stalls, jitter, set))| Camera {
            b,
            pyramid,
            told,
            steps,
            held,
            stalls,
            jitter,
            set,
        },
    )
}

/// What was recorded of each frame: its number in display order, its time in ns, and whether it had to be mended.
fn record(camera: &Camera) -> Vec<(i64, i64, bool)> {
    let depth = if camera.b == 0 {
        0
    } else if camera.pyramid && camera.b > 1 {
        2
    } else {
        1
    };
    let format = video_format(if camera.told { depth } else { 0 });
    let (mut timeline, mut repair) = (Timeline::new(), Repair::default());
    let mut times = vec![1_000];
    (0..16 * GROUP).for_each(|n| times.push(times[n] + camera.steps[n % camera.steps.len()]));
    let (mut ready, mut arrival) = (0, 0);
    let mut recorded = Vec::new();
    for group in 0..15 {
        for (slot, n) in order(GROUP, camera.b, camera.pyramid).into_iter().enumerate() {
            let shown = group * GROUP + n as usize;
            let sent = group * GROUP + slot;
            // An encoder has a frame ready when it was captured, in decoding order.
            ready = times[shown].max(ready);
            let stalled = camera.stalls.iter().filter(|s| (s.0..).contains(&sent)).map(|s| times[s.0] + s.1);
            let jitter = camera.jitter[sent % camera.jitter.len()];
            arrival = stalled.fold(arrival, i64::max).max(ready + jitter).max(1_000 + camera.held);
            let set = camera.set.filter(|s| group >= s.0).map_or(0, |s| s.1);
            let kind = if n == 0 { FrameKind::Idr } else { FrameKind::Delta };
            let pts = timeline.place(0, (times[shown] + set) * MS, Mono(arrival * MS));
            let Admitted { pts, fault } = repair.admit(&unit_at(&format, Some(pts.0), arrival * MS, kind));
            recorded.push((shown as i64, pts.0, fault.is_some()));
        }
    }
    recorded
}

proptest! {
    /// Every picture keeps its place in the order of display, and no time is mended that the camera did not break.
    #[test]
    fn arrivals_disturb_no_order_and_cost_nothing(camera in camera()) {
        let mut recorded = record(&camera);
        prop_assert!(camera.set.is_some() || recorded.iter().all(|r| !r.2), "{:?}", recorded.iter().find(|r| r.2));
        recorded.sort_unstable();
        let wrong = recorded.windows(2).find(|w| w[0].1 >= w[1].1);
        prop_assert!(wrong.is_none(), "{wrong:?}");
    }
}
