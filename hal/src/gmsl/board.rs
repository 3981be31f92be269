//! The deserializers of a board: which the tree knows, what may be done with them, a look at them, a watch over them.
//!
//! Promises that looking disturbs nobody who watches: it reads nothing that clears (G2).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use linux_embedded_hal::{Delay, I2cdev};

use super::access::{Access, access};
use super::bring_up::{Pins, Plan, SetUp};
use super::deserializer::{Deserializer, Model};
use super::starter::Starter;
use super::watch::{Place, PlacedLink, Reach, Watch};
use super::{GmslError, GmslLink, Link, LinkState};
use crate::device_tree::{Attachment, BoardLens, Chip};
use crate::media::LensId;
use crate::pins::{Gpio, Line, PinError, Switch};
use crate::platform::Stack;
use crate::surroundings::SYSFS;

/// A deserializer as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChipState {
    /// As the tree has it.
    pub chip: Chip,
    /// What may be done with it.
    pub access: Access,
    /// Who it says it is and how its links are, or why that is not known.
    pub seen: Result<(Model, [LinkState; 4]), String>,
    /// The links that lenses of the tree hang on.
    pub lenses: Vec<(Link, LensId)>,
}

/// Looks at every deserializer that lenses hang on.
#[must_use]
pub fn look(lenses: &[BoardLens], sysfs: &Path, stack: &dyn Fn() -> Stack) -> Vec<ChipState> {
    let look = |Found { chip, access, bus, lenses }: Found| {
        let seen = bus.and_then(|bus| {
            let open = opened(&bus, chip.address).and_then(|bus| Deserializer::identify(bus, chip.address));
            let mut open = open.map_err(|e| e.to_string())?;
            let states = open.states().map_err(|e| e.to_string())?;
            Ok((open.model(), states))
        });
        ChipState { chip, access, seen, lenses }
    };
    chips(lenses, sysfs, stack).into_iter().map(look).collect()
}

/// Watches every deserializer that lenses hang on: one link for each lens. Links that cannot be reached say why. With `setup` a
/// chip that nobody else drives (G1) is set up first; `power` is each lens's line for power over coax.
#[must_use]
pub fn watch(
    all: &[BoardLens],
    sysfs: &Path,
    stack: &dyn Fn() -> Stack,
    setup: Option<SetUp>,
    power: &dyn Fn(&LensId) -> Option<Line>,
) -> Vec<Arc<dyn GmslLink>> {
    let mut links: Vec<Arc<dyn GmslLink>> = Vec::new();
    for Found { chip, access, bus, lenses } in chips(all, sysfs, stack) {
        let address = chip.address;
        let ours = setup.filter(|_| access == Access::Full).map(|setup| {
            let sensor = |name: &LensId| all.iter().find(|l| l.name == *name)?.sensor.as_ref().map(|s| s.address);
            let modules: Vec<_> = lenses.iter().map(|(link, name)| (*link, sensor(name))).collect();
            let mut lines = [const { None }; 4];
            for (link, name) in &lenses {
                lines[link.index()] = power(name);
            }
            (setup.plan(&modules), lines)
        });
        let watch = bus.and_then(|bus| {
            let watch = match ours {
                Some((plan, lines)) => Watch::start(Ours { bus, address, plan, lines, starter: None }),
                None => Watch::start(move || Deserializer::identify(opened(&bus, address)?, address)),
            };
            watch.map(Arc::new).map_err(|e| e.to_string())
        });
        for (link, lens) in lenses {
            let place = Place { lens, deserializer: chip.path.clone(), link, access: access.clone() };
            links.push(Arc::new(PlacedLink { place, watch: watch.clone() }));
        }
    }
    links
}

struct Found {
    chip: Chip,
    access: Access,
    /// Device node of its bus, or why it cannot be opened.
    bus: Result<PathBuf, String>,
    lenses: Vec<(Link, LensId)>,
}

/// `stack` is asked only if there is a deserializer: it may start GStreamer.
fn chips(lenses: &[BoardLens], sysfs: &Path, stack: &dyn Fn() -> Stack) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for lens in lenses {
        let Attachment::Gmsl2 { deserializer, link, .. } = &lens.attachment else { continue };
        let Some(link) = Link::new(*link) else { continue };
        let placed = (link, lens.name.clone());
        if let Some(known) = found.iter_mut().find(|f| f.chip.path == deserializer.path) {
            known.lenses.push(placed);
            continue;
        }
        let (access, bus) = access(deserializer, sysfs, &stack());
        let bus = match bus {
            // What another machine's sysfs names is not on this one.
            Some(_) if sysfs != Path::new(SYSFS) => Err(format!("{} is not this machine's sysfs", sysfs.display())),
            Some(bus) => Ok(bus),
            None => Err(access.why().unwrap_or_default().to_owned()),
        };
        found.push(Found { chip: deserializer.clone(), access, bus, lenses: vec![placed] });
    }
    found
}

/// A chip that MOS sets up.
struct Ours {
    bus: PathBuf,
    address: u8,
    plan: Plan,
    /// Power of each link.
    lines: [Option<Line>; 4],
    /// Once the lines could be taken.
    starter: Option<Starter<Switch>>,
}

impl Reach for Ours {
    type Bus = I2cdev;

    fn open(&mut self) -> Result<Deserializer<I2cdev>, GmslError> {
        let mut starter = match self.starter.take() {
            Some(starter) => starter,
            None => Starter::new(self.address, self.plan, switches(&self.lines)?),
        };
        let chip = opened(&self.bus, self.address).and_then(|bus| starter.open(bus, &mut Delay));
        self.starter = Some(starter);
        chip
    }

    fn tend(&mut self, chip: &mut Deserializer<I2cdev>, states: &[LinkState; 4]) -> Result<(), GmslError> {
        self.starter.as_mut().map_or(Ok(()), |starter| starter.tend(chip, states, &mut Delay))
    }

    fn dark(&self) -> [Option<String>; 4] {
        self.starter.as_ref().map_or([const { None }; 4], Starter::dark)
    }
}

fn opened(bus: &Path, address: u8) -> Result<I2cdev, GmslError> {
    let failed = |why: String| GmslError::Bus { address, register: 0, why: format!("{}: {why}", bus.display()) };
    I2cdev::new(bus).map_err(|e| failed(e.to_string()))
}

/// The lines that switch the modules' power.
fn switches(lines: &[Option<Line>; 4]) -> Result<Pins<Switch>, GmslError> {
    let mut power = [const { None }; 4];
    for (link, line) in Link::ALL.into_iter().zip(lines) {
        let failed = |e: PinError| GmslError::Pin { what: format!("link {link} power over coax"), why: e.to_string() };
        power[link.index()] = line.as_ref().map(|line| Switch::take(&Gpio, line)).transpose().map_err(failed)?;
    }
    Ok(Pins { power, awake: None })
}
