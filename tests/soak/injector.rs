//! What is done to the cameras, and the log of it.
//!
//! Promise: what befalls which camera follows from the seed, but for the moments; a camera is left alone until it delivers again, and
//! for so long after that no two troubles of one camera touch.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mos_tests::camera::Camera;
use mos_tests::daemon::Daemon;
use mos_tests::road::Random;
use mos_tests::wire::Wire;

use crate::{LONG, lens};

/// A camera delivers for so long before the next trouble: ten seconds count as a proven run, which the breaker wants to see.
const REST: Duration = Duration::from_secs(14);
/// Between two troubles of different cameras.
const PAUSE: Duration = Duration::from_millis(400);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// Up to five packets are lost.
    Lose,
    /// A packet arrives with another content.
    Damage,
    /// The connection is reset wherever in a picture it is.
    Cut,
    /// The same, and nobody listens for three seconds.
    Close,
    /// Nothing passes any more, without a word.
    Pull,
    /// The camera stays connected and sends nothing.
    Stall,
    /// The camera's clock is set.
    Jump,
}

impl Trouble {
    const ALL: [Self; 7] = [Self::Lose, Self::Damage, Self::Cut, Self::Close, Self::Pull, Self::Stall, Self::Jump];

    /// The cause that the gap must tell, if pictures must be missing, and those that may stand beside it.
    pub(crate) fn causes(self) -> Option<(&'static str, &'static [&'static str])> {
        match self {
            Self::Lose | Self::Damage => Some(("packet_loss", &[])),
            Self::Cut => Some(("camera_broke_off", &[])),
            Self::Close => Some(("camera_broke_off", &["camera_absent"])),
            // What is opened anew when the wire is whole again may meet the end of the old session.
            Self::Pull | Self::Stall => Some(("camera_stalled", &["camera_absent", "camera_broke_off"])),
            Self::Jump => None,
        }
    }

    /// How long it lasts.
    fn lasts(self) -> Duration {
        match self {
            Self::Lose | Self::Damage | Self::Cut | Self::Jump => Duration::ZERO,
            Self::Close => Duration::from_secs(3),
            // Longer than the ten seconds after which a source is given up.
            Self::Pull | Self::Stall => Duration::from_secs(13),
        }
    }
}

/// A line of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injected {
    pub(crate) camera: usize,
    pub(crate) trouble: Trouble,
    /// When it began: CLOCK_MONOTONIC, ns.
    pub(crate) at_ns: u64,
}

/// The cameras, each behind a wire of its own.
pub(crate) struct Field {
    pub(crate) camera: Camera,
    pub(crate) wires: Vec<Wire>,
}

impl Field {
    fn inject(&mut self, at: usize, trouble: Trouble, random: &mut Random) {
        match trouble {
            Trouble::Lose => self.camera.order(at, &format!("lose {}", 1 + random.below(5))),
            Trouble::Damage => self.camera.order(at, "damage 1"),
            Trouble::Cut => self.wires[at].cut(),
            Trouble::Close => self.wires[at].close(),
            Trouble::Pull => self.wires[at].pull(),
            Trouble::Stall => self.camera.order(at, "stall"),
            Trouble::Jump => {
                // Further than any reordering or jitter, either way.
                let by = 5_000 + random.below(3_600_000) as i64;
                self.camera.order(at, &format!("jump {}", if random.below(2) == 0 { by } else { -by }));
            }
        }
    }

    fn relieve(&mut self, at: usize, trouble: Trouble) {
        match trouble {
            Trouble::Close | Trouble::Pull => self.wires[at].restore(),
            Trouble::Stall => self.camera.order(at, "go"),
            Trouble::Lose | Trouble::Damage | Trouble::Cut | Trouble::Jump => {}
        }
    }
}

/// Since when each lens has been delivering without a break, as seen from here.
struct Seen(Vec<Option<Instant>>);

impl Seen {
    fn look(&mut self, daemon: &Daemon) {
        let status = daemon.client.get("/v1/capture/status").ok();
        let states: BTreeMap<&str, bool> = status["lenses"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| (l["lens"].as_str().unwrap(), l["state"] == "streaming"))
            .collect();
        for (camera, since) in self.0.iter_mut().enumerate() {
            *since = if states[lens(camera).as_str()] { since.or_else(|| Some(Instant::now())) } else { None };
        }
    }

    fn rested(&self, camera: usize) -> bool {
        self.0[camera].is_some_and(|since| since.elapsed() >= REST)
    }
}

/// Does to the cameras what the seed says for `length`, and returns when all deliver again. `each` is called between.
pub(crate) fn run(
    field: &mut Field,
    daemon: &Daemon,
    length: Duration,
    seed: u64,
    mut each: impl FnMut(),
) -> Vec<Injected> {
    let mut random = Random::new(seed);
    let mut log: Vec<Injected> = Vec::new();
    let mut active: Vec<(usize, Trouble, Instant)> = Vec::new();
    let cameras = field.wires.len();
    let mut seen = Seen(vec![None; cameras]);
    let begin = Instant::now();
    let mut kinds = 0;
    loop {
        each();
        active.retain(|(camera, trouble, until)| {
            let over = Instant::now() >= *until;
            if over {
                field.relieve(*camera, *trouble);
            }
            !over
        });
        seen.look(daemon);
        let busy = |camera: usize| active.iter().any(|(c, ..)| *c == camera);
        if begin.elapsed() < length {
            let camera = random.below(cameras as u64) as usize;
            if !busy(camera) && seen.rested(camera) {
                // Each kind in turn, so that a short run meets all of them.
                let trouble = Trouble::ALL[kinds % Trouble::ALL.len()];
                kinds += 1;
                log.push(Injected { camera, trouble, at_ns: mos_tests::monotonic_ns() });
                field.inject(camera, trouble, &mut random);
                // Streaming is told for a while yet, also of a source that is dead already.
                seen.0[camera] = None;
                active.push((camera, trouble, Instant::now() + trouble.lasts().max(PAUSE)));
            }
        } else if active.is_empty() && (0..cameras).all(|camera| seen.rested(camera)) {
            return log;
        }
        assert!(begin.elapsed() < length + LONG, "some lens does not come back: {}", daemon.log());
        std::thread::sleep(PAUSE);
    }
}
