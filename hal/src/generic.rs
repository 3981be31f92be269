//! Any Linux machine: network cameras, V4L2 devices, files and the synthetic scene, with encoding and decoding on the CPU.
//!
//! Promises to work without any board support. It is what a probe finds where no board is recognised. Accelerators of PCs are
//! listed, not used: none of them is proved yet.

use std::path::Path;

use crate::board::{Soc, libcamera, without_gmsl};
use crate::codecs::families::Family;
use crate::device_tree::BoardLens;
use crate::platform::{Acceleration, Route, Stack};
use crate::surroundings::Surroundings;

pub(crate) mod devices;

/// The machine without board support.
pub struct Generic;

/// Accelerator, elements of which one must be there (the newer first), device node.
const ACCELERATORS: [(&str, &[&str], &str); 3] = [
    ("cuda", &["nvh264enc", "nvh264dec", "nvv4l2h264enc"], "/dev/nvidia0"),
    ("qsv", &["qsvh264enc", "qsvh264dec", "msdkh264enc", "msdkh264dec"], "/dev/dri/renderD128"),
    ("vaapi", &["vah264enc", "vah264lpenc", "vah264dec", "vaapih264enc", "vaapih264dec"], "/dev/dri/renderD128"),
];

impl Soc for Generic {
    fn name(&self) -> &'static str {
        "generic"
    }

    fn matches(&self, _compatible: &str) -> bool {
        false
    }

    fn stack(&self, _here: &dyn Surroundings) -> Stack {
        Stack { name: "host", why: "no board support: V4L2 and software codecs".into() }
    }

    fn elements(&self) -> &'static [&'static Family] {
        &[]
    }

    /// A tree may describe lenses on a machine that has no module: the kernel's sensors by libcamera.
    fn route(&self, lens: &BoardLens, here: &dyn Surroundings) -> Result<Route, String> {
        without_gmsl(lens, "not recognised")?;
        libcamera(lens, here)
    }

    fn accelerations(&self, here: &dyn Surroundings) -> Vec<Acceleration> {
        let judged = ACCELERATORS.map(|(name, elements, node)| {
            let element = elements.iter().find(|e| here.element(e));
            let (usable, why) = match (element, here.node(Path::new(node))) {
                (Some(element), true) => (true, format!("{element} and {node} are there; MOS does not use it yet")),
                (Some(element), false) => (false, format!("{element} is installed, {node} is absent")),
                (None, true) => (false, format!("{node} is there, none of {} is installed", elements.join(", "))),
                (None, false) => (false, format!("neither {node} nor any of {}", elements.join(", "))),
            };
            Acceleration { name, usable, why }
        });
        let none = Acceleration { name: "none", usable: true, why: "the CPU; this is what MOS uses".into() };
        judged.into_iter().chain([none]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surroundings::Described;

    #[test]
    fn accelerators_need_element_and_device() {
        let usable = |here: &Described| -> Vec<&str> {
            Generic.accelerations(here).iter().filter(|a| a.usable).map(|a| a.name).collect()
        };
        assert_eq!(usable(&Described::default()), ["none"]);
        let elements = vec!["nvh264enc", "vah264dec"];
        assert_eq!(usable(&Described { elements: elements.clone(), ..Described::default() }), ["none"]);
        let nodes = vec!["/dev/dri/renderD128"];
        assert_eq!(usable(&Described { elements, nodes, ..Described::default() }), ["vaapi", "none"]);
    }
}
