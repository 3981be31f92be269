//! Who gives way, how far, and when, if the machine is too hot or its encoder does not suffice.
//!
//! ```text
//!            pressed for step_down (a quarter of it when hot)
//!   rung n ───────────────────────────────────────────────────► rung n + 1
//!          ◄───────────────────────────────────────────────────
//!            free of it for step_up, longer after each relapse
//! ```
//!
//! Heat and encoder have a ladder each; a lens stands where the lower of both puts it. Rungs go through the lenses in their
//! order, each of which is first reduced (half its pictures are coded), then stopped:
//!
//! - heat: lenses that are coded here, and the last of all only reduced; when it is hot, those that come coded, and at the very
//!   end the last lens;
//! - encoder: lenses that are coded here, up to the one that it does not suffice for, which is only reduced: what has its
//!   stream from elsewhere costs no encoder, and no lens is stopped for one that matters less.
//!
//! Promises:
//! - D1: one rung at a time, and none sooner after the one before than its time says, in either direction.
//! - D2: between the thresholds nothing moves (hysteresis), and neither time runs.
//! - D3: what comes back and has to go again soon waits twice as long the next time, up to [`LONGEST`].
//! - D4: the last lens goes last, and goes only if it is hot.
//! - D5: lenses that come and go move nobody else by it, but those before them in the order who have not given way as far.
//! - D6: a lens that is being opened takes no rung and keeps those that it has taken, until their turn to come back comes.
//!
//! Pure: times and pressures in, steps out.

use std::time::Duration;

use mos_hal::clock::Mono;
use mos_hal::media::LensId;

/// Longest time that a rung is kept after its cause has gone; and after so long without trouble nothing is held against it.
pub(crate) const LONGEST: Duration = Duration::from_hours(1);

/// How far a lens gives way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Not at all.
    #[default]
    Full,
    /// Half of its pictures are coded.
    Reduced,
    /// Nothing is captured.
    Stopped,
}

impl Step {
    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Reduced => "reduced",
            Self::Stopped => "stopped",
        }
    }

    /// Of so many pictures one is coded.
    pub(crate) fn one_in(self) -> u32 {
        if self == Self::Full { 1 } else { 2 }
    }
}

/// What a lens gives way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The machine is too hot.
    Heat,
    /// The encoder does not suffice.
    Encoder,
}

impl Reason {
    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Heat => "heat",
            Self::Encoder => "encoder",
        }
    }
}

/// How long steps take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long something presses until the next step down.
    pub down: Duration,
    /// How long it must be gone until the next step up.
    pub up: Duration,
}

/// How hot it is, by the worst of all zones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Heat {
    /// Below all thresholds by more than the hysteresis.
    #[default]
    Cool,
    /// Neither.
    Between,
    /// At a threshold where lenses begin to give way, or above.
    Warm,
    /// At a threshold where every lens gives way, or above.
    Hot,
}

/// What the encoder lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Nothing.
    #[default]
    Suffices,
    /// It is on the brink.
    Between,
    /// It does not suffice for the lens at this place; the one that matters most, if there are several.
    Lacks(usize),
}

/// A lens that may give way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) lens: LensId,
    /// Its pictures are coded here.
    pub(crate) coded: bool,
    /// It is being opened: it has nothing to give, and keeps what it gave.
    pub(crate) opening: bool,
}

/// What presses at a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pressure<'a> {
    /// In the order in which they give way.
    pub(crate) lenses: &'a [Member],
    pub(crate) heat: Heat,
    pub(crate) encoding: Encoding,
}

type Rung = (usize, Step);
/// A rung by the name of its lens.
type Taken = (LensId, Step);

/// Rungs for heat, and how many of them need no more than warmth.
fn of_heat(lenses: &[Member], taken: &[Taken]) -> (Vec<Rung>, usize) {
    let last = lenses.iter().rposition(|lens| !lens.opening);
    let mut rungs = of_encoder(lenses, last, taken);
    let warm = rungs.len();
    if let Some(last) = last {
        let coded_elsewhere = |lens: &usize| !lenses[*lens].coded && !lenses[*lens].opening;
        rungs.extend((0..last).filter(coded_elsewhere).map(|lens| (lens, Step::Stopped)));
        rungs.push((last, Step::Stopped));
    }
    (rungs, warm)
}

/// Rungs that help the encoder of the lens at `lacking`; of lenses that are being opened those that are taken. (D6)
fn of_encoder(lenses: &[Member], lacking: Option<usize>, taken: &[Taken]) -> Vec<Rung> {
    let mut rungs = Vec::new();
    for (at, lens) in lenses.iter().enumerate() {
        if lens.opening {
            let kept = taken.iter().filter(|(known, _)| *known == lens.lens).map(|(_, step)| (at, *step));
            rungs.extend(kept);
        } else if lens.coded && Some(at) <= lacking {
            rungs.push((at, Step::Reduced));
            if Some(at) < lacking {
                rungs.push((at, Step::Stopped));
            }
        }
    }
    rungs
}

/// Which way it goes.
enum Push {
    /// Down to so many rungs at most, after so long each.
    Down(usize, Duration),
    Stay,
    Up,
}

/// One ladder.
#[derive(Debug)]
struct Climber {
    /// Rungs that are taken, and what they are.
    depth: usize,
    taken: Vec<Taken>,
    moved: Option<Mono>,
    /// Since when it has been pressed without a pause, or free of it.
    pressed: Option<Mono>,
    free: Option<Mono>,
    /// When it last went up, and how long it waits with that.
    rose: Option<Mono>,
    patience: Duration,
}

impl Climber {
    fn new(patience: Duration) -> Self {
        Self { depth: 0, taken: Vec::new(), moved: None, pressed: None, free: None, rose: None, patience }
    }

    /// Finds its place among other rungs, goes on from there and gives those that are taken then.
    fn climb<'a>(&mut self, rungs: &'a [Rung], lenses: &[Member], push: &Push, up: Duration, now: Mono) -> &'a [Rung] {
        let named = |(lens, step): &Rung| (lenses[*lens].lens.clone(), *step);
        self.depth = rungs.iter().rposition(|rung| self.taken.contains(&named(rung))).map_or(0, |at| at + 1);
        self.step(push, up, now);
        let taken = &rungs[..self.depth.min(rungs.len())];
        self.taken = taken.iter().map(named).collect();
        taken
    }

    fn step(&mut self, push: &Push, up: Duration, now: Mono) {
        let long = |since: Mono, wait: Duration| i128::from(now.since(since)) >= wait.as_nanos().cast_signed();
        let rested = |wait: Duration| self.moved.is_none_or(|moved| long(moved, wait));
        match push {
            Push::Down(limit, wait) => {
                self.free = None;
                let pressed = *self.pressed.get_or_insert(now);
                if self.depth < *limit && long(pressed, *wait) && rested(*wait) {
                    if self.rose.take().is_some_and(|rose| !long(rose, self.patience * 2)) {
                        self.patience = (self.patience * 2).min(LONGEST.max(up));
                    }
                    (self.depth, self.moved) = (self.depth + 1, Some(now));
                }
            }
            Push::Stay => (self.pressed, self.free) = (None, None),
            Push::Up => {
                self.pressed = None;
                let free = *self.free.get_or_insert(now);
                if self.depth > 0 && long(free, self.patience) && rested(self.patience) {
                    (self.depth, self.moved, self.rose) = (self.depth - 1, Some(now), Some(now));
                } else if self.depth == 0 && long(free, LONGEST) {
                    self.patience = up;
                }
            }
        }
    }
}

/// Both ladders.
#[derive(Debug)]
pub(crate) struct Ladder {
    pace: Pace,
    heat: Climber,
    encoder: Climber,
}

impl Ladder {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, heat: Climber::new(pace.up), encoder: Climber::new(pace.up) }
    }

    /// Where each lens stands from now on, and to what it gives way.
    pub(crate) fn step(&mut self, pressure: &Pressure<'_>, now: Mono) -> Vec<(Step, Option<Reason>)> {
        let lenses = pressure.lenses;
        let (hot, warm) = of_heat(lenses, &self.heat.taken);
        let push = match pressure.heat {
            Heat::Cool => Push::Up,
            Heat::Between => Push::Stay,
            Heat::Warm => Push::Down(warm, self.pace.down),
            Heat::Hot => Push::Down(hot.len(), self.pace.down / 4),
        };
        let heat = self.heat.climb(&hot, lenses, &push, self.pace.up, now);

        let of_encoder = |lacking| of_encoder(lenses, lacking, &self.encoder.taken);
        let most = of_encoder(lenses.iter().rposition(|lens| !lens.opening));
        let push = match pressure.encoding {
            Encoding::Suffices => Push::Up,
            Encoding::Between => Push::Stay,
            // The rungs of a lens are the first ones of those of all that matter more.
            Encoding::Lacks(lens) => Push::Down(of_encoder(Some(lens)).len(), self.pace.down),
        };
        let encoder = self.encoder.climb(&most, lenses, &push, self.pace.up, now);

        let mut steps = vec![(Step::Full, None); lenses.len()];
        let heat = heat.iter().map(|rung| (rung, Reason::Heat));
        let encoder = encoder.iter().map(|rung| (rung, Reason::Encoder));
        for ((lens, step), reason) in heat.chain(encoder) {
            if *step > steps[*lens].0 {
                steps[*lens] = (*step, Some(reason));
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests;
