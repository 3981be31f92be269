//! The one reader of a deserializer's counters: asks it once a second and adds up.
//!
//! Promises that what it tells only grows (G2), also while the chip does not answer, and that asking it never touches the bus.
//! Never writes (G1); whom it calls after each reading may, where the chip is ours (see [`super::starter`]).

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use embedded_hal::i2c::I2c;

use super::deserializer::{Deserializer, Errors};
use super::{Access, GmslError, GmslLink, Link, LinkReport, LinkState};
use crate::media::LensId;

/// How often. The counters stop at 255, so a bad link is known as bad, not by how much.
const PERIOD: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1000 });

/// How a watch reaches its chip.
pub trait Reach: Send + 'static {
    /// The chip's bus.
    type Bus: I2c;

    /// Opens it; called again after a transfer that failed.
    fn open(&mut self) -> Result<Deserializer<Self::Bus>, GmslError>;

    /// Called after each reading with what it showed.
    fn tend(&mut self, chip: &mut Deserializer<Self::Bus>, states: &[LinkState; 4]) -> Result<(), GmslError> {
        let _ = (chip, states);
        Ok(())
    }

    /// Why each link is dark that should run.
    fn dark(&self) -> [Option<String>; 4] {
        [const { None }; 4]
    }
}

/// A chip that is only read.
impl<I: I2c, F: FnMut() -> Result<Deserializer<I>, GmslError> + Send + 'static> Reach for F {
    type Bus = I;

    fn open(&mut self) -> Result<Deserializer<I>, GmslError> {
        self()
    }
}

/// What is known of a deserializer's links.
#[derive(Debug, Default)]
struct Totals {
    links: [LinkReport; 4],
    /// Counters hold what happened before anybody watched until they were read once.
    begun: bool,
}

impl Totals {
    fn add(&mut self, states: [LinkState; 4], errors: Errors) {
        for (link, (report, state)) in self.links.iter_mut().zip(states).enumerate() {
            if self.begun {
                report.decode_errors += u64::from(errors.decode[link]);
                report.idle_errors += u64::from(errors.idle[link]);
                report.lock_losses += u64::from(report.state.lock && !state.lock);
            }
            report.state = state;
        }
        self.begun = true;
    }
}

/// One reading.
fn poll<I: I2c>(chip: &mut Deserializer<I>, totals: &mut Totals) -> Result<(), GmslError> {
    let states = chip.states()?;
    // Last: what it returns is gone from the chip.
    let errors = chip.take_errors()?;
    totals.add(states, errors);
    Ok(())
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    links: [LinkReport; 4],
    /// Why each is dark that should run.
    dark: [Option<String>; 4],
    /// Why the links are not known at present.
    trouble: Option<String>,
    readings: u64,
    stopping: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watched deserializer. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches a chip; what fails is tried again at the next reading.
    pub fn start(mut reach: impl Reach) -> std::io::Result<Self> {
        let trouble = Some("not asked yet".to_owned());
        let (links, dark) = Default::default();
        let state = State { links, dark, trouble, readings: 0, stopping: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let watched = shared.clone();
        let run = move || {
            let (mut chip, mut totals) = (None, Totals::default());
            loop {
                let read = match chip.take() {
                    Some(chip) => Ok(chip),
                    None => reach.open(),
                };
                let read = read.and_then(|mut open| {
                    poll(&mut open, &mut totals)?;
                    reach.tend(&mut open, &totals.links.map(|link| link.state))?;
                    chip = Some(open);
                    Ok(())
                });
                let mut state = watched.lock();
                state.links = totals.links;
                state.dark = reach.dark();
                state.trouble = read.err().map(|e| e.to_string());
                state.readings += 1;
                watched.changed.notify_all();
                let wait = watched.changed.wait_timeout_while(state, PERIOD, |s| !s.stopping);
                if wait.unwrap_or_else(PoisonError::into_inner).0.stopping {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("mos-gmsl".to_owned()).stack_size(128 << 10).spawn(run)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How a link is, or why that is not known.
    pub fn report(&self, link: Link) -> Result<LinkReport, String> {
        let state = self.shared.lock();
        state.trouble.clone().map_or(Ok(state.links[link.index()]), Err)
    }

    /// Why a link is dark that should run.
    pub fn dark(&self, link: Link) -> Option<String> {
        self.shared.lock().dark[link.index()].clone()
    }

    /// Waits for a reading that began after the call.
    #[cfg(test)]
    fn wait_for_reading(&self) {
        let state = self.shared.lock();
        // One may be under way.
        let enough = state.readings + 2;
        drop(self.shared.changed.wait_while(state, |s| s.readings < enough));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Which link, of whose.
#[derive(Clone, Debug)]
pub struct Place {
    /// The lens at its far end.
    pub lens: LensId,
    /// Path of the deserializer's node.
    pub deserializer: String,
    /// The link.
    pub link: Link,
    /// What may be done with the chip.
    pub access: Access,
}

/// A link of a deserializer, watched if it can be reached.
#[derive(Clone, Debug)]
pub struct PlacedLink {
    /// Which.
    pub place: Place,
    /// The watch, or why there is none.
    pub watch: Result<Arc<Watch>, String>,
}

impl GmslLink for PlacedLink {
    fn lens(&self) -> &LensId {
        &self.place.lens
    }

    fn deserializer(&self) -> &str {
        &self.place.deserializer
    }

    fn link(&self) -> Link {
        self.place.link
    }

    fn access(&self) -> Access {
        self.place.access.clone()
    }

    fn report(&self) -> Result<LinkReport, String> {
        self.watch.as_ref().map_err(Clone::clone)?.report(self.place.link)
    }

    fn dark(&self) -> Option<String> {
        self.watch.as_ref().ok()?.dark(self.place.link)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use embedded_hal::digital::OutputPin;

    use super::*;
    use crate::gmsl::Line;
    use crate::gmsl::model::{DESERIALIZER, Event, World};

    /// A woken chip whose links lock by themselves: the kernel set it up.
    fn driven() -> World {
        let world = World::new([true; 4]);
        world.awake().set_high().unwrap();
        (0..4).for_each(|link| world.power(link).set_high().unwrap());
        world.pass(50);
        let mut bus = world.bus();
        bus.write(DESERIALIZER, &[0x00, 0x18, 0x0F]).unwrap();
        world.pass(100);
        world.chips().written.clear();
        world
    }

    fn totals(world: &World, readings: &[u64]) -> Totals {
        let mut chip = Deserializer::identify(world.bus(), DESERIALIZER).unwrap();
        let mut totals = Totals::default();
        for ms in readings {
            world.pass(*ms);
            poll(&mut chip, &mut totals).unwrap();
        }
        totals
    }

    /// G2.
    #[test]
    fn what_the_chip_forgets_is_added_up() {
        let world = driven();
        world.at(160, Event::Decode(1, 99));
        world.at(1500, Event::Decode(1, 7));
        world.at(2500, Event::Decode(1, 255));
        world.at(2600, Event::Decode(1, 255));
        world.at(2700, Event::Idle(3, 4));
        let totals = totals(&world, &[1000, 1000, 1000, 1000]);
        assert_eq!(totals.links.map(|l| l.decode_errors), [0, 7 + 255, 0, 0], "not what was before the first reading");
        assert_eq!(totals.links.map(|l| l.idle_errors), [0, 0, 0, 4]);
    }

    #[test]
    fn a_lost_lock_is_seen_with_its_line_and_its_video() {
        let world = driven();
        world.at(1500, Event::LoseLock(0));
        world.at(1520, Event::Line(0, 1));
        world.at(2500, Event::Video(2, false));
        world.at(3500, Event::Unplug(3));
        let at = |readings: &[u64]| totals(&world, readings);
        let seen = at(&[1000, 380]);
        assert_eq!(seen.links.map(|l| l.state.lock), [false, true, true, true]);
        assert_eq!((seen.links[0].lock_losses, seen.links[0].state.line), (1, Line::Ground));
        let seen = at(&[1000, 1500]);
        assert_eq!(seen.links.map(|l| l.state.lock), [true, true, true, false]);
        assert_eq!((seen.links[2].state.video_lock, seen.links[3].state.line), (false, Line::Open));
    }

    /// G1.
    #[test]
    fn watching_writes_nothing() {
        let world = driven();
        totals(&world, &[1000; 5]);
        assert_eq!(world.chips().written, []);
    }

    /// G2, G4.
    #[test]
    fn a_chip_that_falls_silent_is_told_and_counted_on_when_it_is_back() {
        let world = driven();
        let (bus, opened) = (world.clone(), Arc::new(Mutex::new(0)));
        let counted = opened.clone();
        let watch = Watch::start(move || {
            *counted.lock().unwrap() += 1;
            Deserializer::identify(bus.bus(), DESERIALIZER)
        })
        .unwrap();
        let place = Place {
            lens: LensId::new("left").unwrap(),
            deserializer: "/i2c@1/gmsl@29".into(),
            link: Link::B,
            access: Access::ReadOnly("the kernel".into()),
        };
        let link_watch = Arc::new(watch);
        let link: Arc<dyn GmslLink> = Arc::new(PlacedLink { place, watch: Ok(link_watch.clone()) });
        let read_again = || link_watch.wait_for_reading();
        read_again();
        assert!(link.report().unwrap().state.lock);
        world.at(0, Event::Decode(1, 5));
        world.pass(1);
        read_again();
        assert_eq!(link.report().unwrap().decode_errors, 5);
        world.chips().refuse = u32::MAX;
        read_again();
        assert!(link.report().unwrap_err().contains("no acknowledge"));
        world.chips().refuse = 0;
        read_again();
        assert_eq!(link.report().unwrap().decode_errors, 5);
        assert!(*opened.lock().unwrap() >= 2);
    }
}
