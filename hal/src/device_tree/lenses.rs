//! The lenses that the board's tree describes: `/mos`, as bound by `device-tree/bindings/mos,lenses.yaml`.
//!
//! Promises that one wrong lens costs that lens only: what is wrong comes back beside the lenses that are right. Decides
//! nothing about how a lens is captured; that is the SoC module's matter.

use std::collections::BTreeSet;

use super::{Node, TreeError};
use crate::media::LensId;

/// Name of the node below the root that holds the lenses.
pub(super) const NODE: &str = "mos";
/// Its `compatible`.
const COMPATIBLE: &str = "mos,lenses";
/// More than any deserializer arrangement of these boards.
const MOST: usize = 32;

/// A lens as the tree describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoardLens {
    /// `mos,name`: the lens id.
    pub name: LensId,
    /// `mos,role`: what it looks at.
    pub role: Option<String>,
    /// `mos,transport` with what belongs to it.
    pub attachment: Attachment,
    /// `mos,sensor`: absent where only the vendor's camera service knows it.
    pub sensor: Option<Chip>,
    /// `mos,camera-index`: its number in the vendor's camera service.
    pub camera_index: Option<u32>,
    /// `rotation` in degrees, clockwise (Linux video-interface-devices.yaml): 0, 90, 180 or 270.
    pub rotation: u32,
    /// `orientation` (the same binding).
    pub orientation: Option<Orientation>,
    /// Path of the lens node.
    pub node: String,
}

/// How a lens is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// A sensor on the SoC's own CSI-2 receiver.
    MipiCsi2,
    /// A camera module behind a GMSL2 serializer and deserializer.
    Gmsl2 {
        /// The deserializer.
        deserializer: Chip,
        /// Which of its links, from 0 (A).
        link: u8,
        /// The serializer in the camera module, if the tree knows it.
        serializer: Option<Chip>,
    },
}

impl Attachment {
    /// The name in the tree and in the API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::MipiCsi2 => "mipi-csi2",
            Self::Gmsl2 { .. } => "gmsl2",
        }
    }
}

/// A chip on an I2C bus that a phandle pointed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chip {
    /// Path of its node; libcamera names cameras by it.
    pub path: String,
    /// Most specific first.
    pub compatible: Vec<String>,
    /// 7-bit address on its bus.
    pub address: u8,
    /// Whether the tree enables it.
    pub enabled: bool,
}

/// Where a camera looks, seen from the vehicle or device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orientation {
    /// 0
    Front,
    /// 1
    Back,
    /// 2
    External,
}

impl Orientation {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Back => "back",
            Self::External => "external",
        }
    }
}

/// The lenses of a tree in order of their numbers, and what is wrong with others.
#[must_use]
pub fn lenses(root: &Node) -> (Vec<BoardLens>, Vec<TreeError>) {
    let Some(node) = root.child(NODE).filter(|n| n.enabled()) else { return (Vec::new(), Vec::new()) };
    let mut faults = Vec::new();
    match node.strings("compatible") {
        Ok(Some(list)) if list.iter().any(|c| c == COMPATIBLE) => {}
        Ok(_) => return (Vec::new(), vec![node.bad("compatible", &format!("must hold {COMPATIBLE}"))]),
        Err(e) => return (Vec::new(), vec![e]),
    }
    let mut found: Vec<BoardLens> = Vec::new();
    let mut taken = BTreeSet::new();
    for (number, child) in node.children.iter().filter(|c| c.name() == "lens" && c.enabled()).enumerate() {
        // Wrong ones count too: each searches the whole tree.
        if number == MOST {
            faults.push(TreeError::TooLarge { path: node.path.clone(), what: "lenses", limit: MOST as u64 });
            break;
        }
        match lens(root, child).and_then(|lens| unique(child, lens, &mut taken)) {
            Ok(lens) => found.push(lens),
            Err(e) => faults.push(e),
        }
    }
    (found, faults)
}

/// Refuses a second lens of a name, and a second lens on a GMSL link.
fn unique(node: &Node, lens: BoardLens, taken: &mut BTreeSet<String>) -> Result<BoardLens, TreeError> {
    if let Attachment::Gmsl2 { deserializer, link, .. } = &lens.attachment
        && !taken.insert(format!("{} {link}", deserializer.path))
    {
        return Err(node.bad("mos,link", &format!("is taken: link {link} of {} has a lens", deserializer.path)));
    }
    if !taken.insert(lens.name.to_string()) {
        return Err(node.bad("mos,name", &format!("is taken: another lens is called {}", lens.name)));
    }
    Ok(lens)
}

fn lens(root: &Node, node: &Node) -> Result<BoardLens, TreeError> {
    let need = |property: &str| node.bad(property, "is missing");
    let name = node.string("mos,name")?.ok_or_else(|| need("mos,name"))?;
    let name = LensId::new(&name).map_err(|e| node.bad("mos,name", &e.to_string()))?;
    let transport = node.string("mos,transport")?.ok_or_else(|| need("mos,transport"))?;
    let sensor = chip(root, node, "mos,sensor")?;
    let attachment = match transport.as_str() {
        "mipi-csi2" => Attachment::MipiCsi2,
        "gmsl2" => {
            let deserializer = chip(root, node, "mos,deserializer")?.ok_or_else(|| need("mos,deserializer"))?;
            let link = node.cell("mos,link")?.ok_or_else(|| need("mos,link"))?;
            let link = u8::try_from(link).ok().filter(|l| *l < 4);
            let link = link.ok_or_else(|| node.bad("mos,link", "must be 0 to 3"))?;
            Attachment::Gmsl2 { deserializer, link, serializer: chip(root, node, "mos,serializer")? }
        }
        _ => return Err(node.bad("mos,transport", "must be mipi-csi2 or gmsl2")),
    };
    let rotation = node.cell("rotation")?.unwrap_or(0);
    if ![0, 90, 180, 270].contains(&rotation) {
        return Err(node.bad("rotation", "must be 0, 90, 180 or 270"));
    }
    let orientation = match node.cell("orientation")? {
        None => None,
        Some(0) => Some(Orientation::Front),
        Some(1) => Some(Orientation::Back),
        Some(2) => Some(Orientation::External),
        Some(_) => return Err(node.bad("orientation", "must be 0 (front), 1 (back) or 2 (external)")),
    };
    let camera_index = node.cell("mos,camera-index")?;
    if camera_index.is_some_and(|i| i > 32) {
        return Err(node.bad("mos,camera-index", "must be 0 to 32"));
    }
    let role = node.string("mos,role")?;
    Ok(BoardLens { name, role, attachment, sensor, camera_index, rotation, orientation, node: node.path.clone() })
}

/// What a phandle points to; `None` if the property is not there.
fn chip(root: &Node, node: &Node, property: &str) -> Result<Option<Chip>, TreeError> {
    let Some(phandle) = node.cell(property)? else { return Ok(None) };
    let (target, parent) = root.by_phandle(phandle).ok_or_else(|| node.bad(property, "points to no node"))?;
    let compatible = target.strings("compatible")?.ok_or_else(|| target.bad("compatible", "is missing"))?;
    // `reg` is read by the parent's cells; a chip on an I2C bus has one address cell and no size.
    let cells = |name: &str, default: u32| match parent {
        Some(parent) => parent.cell(name).map(|c| c.unwrap_or(default)),
        None => Ok(default),
    };
    if (cells("#address-cells", 2)?, cells("#size-cells", 1)?) != (1, 0) {
        return Err(node.bad(property, &format!("must point to a chip on an I2C bus, not to {}", target.path)));
    }
    let address = target.cells("reg")?.and_then(|reg| reg.first().copied());
    let address = address.and_then(|a| u8::try_from(a).ok()).filter(|a| (0x08..0x78).contains(a));
    let address = address.ok_or_else(|| target.bad("reg", "must be a 7-bit I2C address, 0x08 to 0x77"))?;
    Ok(Some(Chip { path: target.path.clone(), compatible, address, enabled: target.enabled() }))
}
