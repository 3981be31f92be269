//! The deserializers of a board: which the tree knows, what may be done with them, a look at them, a watch over them.
//!
//! Promises that looking disturbs nobody who watches: it reads nothing that clears (G2).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use linux_embedded_hal::I2cdev;

use super::access::{Access, access};
use super::deserializer::{Deserializer, Model};
use super::watch::{Place, PlacedLink, Watch};
use super::{GmslError, GmslLink, Link, LinkState};
use crate::device_tree::{Attachment, BoardLens, Chip};
use crate::media::LensId;
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
            let mut open = open(&bus, chip.address).map_err(|e| e.to_string())?;
            let states = open.states().map_err(|e| e.to_string())?;
            Ok((open.model(), states))
        });
        ChipState { chip, access, seen, lenses }
    };
    chips(lenses, sysfs, stack).into_iter().map(look).collect()
}

/// Watches every deserializer that lenses hang on: one link for each lens. Links that cannot be reached say why.
#[must_use]
pub fn watch(lenses: &[BoardLens], sysfs: &Path, stack: &dyn Fn() -> Stack) -> Vec<Arc<dyn GmslLink>> {
    let mut links: Vec<Arc<dyn GmslLink>> = Vec::new();
    for Found { chip, access, bus, lenses } in chips(lenses, sysfs, stack) {
        let address = chip.address;
        let watch = bus.and_then(|bus| Watch::start(move || open(&bus, address)).map_err(|e| e.to_string()));
        let watch = watch.map(Arc::new);
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

fn open(bus: &Path, address: u8) -> Result<Deserializer<I2cdev>, GmslError> {
    let failed = |why: String| GmslError::Bus { address, register: 0, why: format!("{}: {why}", bus.display()) };
    let open = I2cdev::new(bus).map_err(|e| failed(e.to_string()))?;
    Deserializer::identify(open, address)
}
