//! A SoC in its surroundings, as sources and codecs ask it: which element does what, where a lens is found, what is in use.
//!
//! Promises that every answer follows from what is present when it is asked, and that hardware comes before the CPU.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::board::Soc;
use crate::codecs::choice::{Choice, choose};
use crate::codecs::families::{Family, SOFTWARE, Task};
use crate::device_tree::LensTree;
use crate::media::LensId;
use crate::platform::Route;
use crate::surroundings::Surroundings;

/// The machine.
pub(crate) struct Machine {
    pub(crate) soc: &'static dyn Soc,
    /// Where its lenses are described.
    pub(crate) tree: LensTree,
    pub(crate) here: Arc<dyn Surroundings>,
    /// Frames in CPU memory are refused.
    pub(crate) production: bool,
    used: Mutex<Used>,
}

/// What sources have taken and not given back.
#[derive(Debug, Default)]
struct Used {
    cameras: BTreeSet<String>,
    /// Pixels per second that the hardware encoder is to code, and for whom.
    encoding: Vec<(String, u64)>,
    /// Cameras whose frames turned out to be in CPU memory.
    in_system_memory: BTreeSet<String>,
    /// Cameras that turned out to give no NV12.
    without_nv12: BTreeSet<String>,
}

/// A camera taken, and a part of the encoder. Dropping it gives both back.
pub(crate) struct Claim {
    machine: Arc<Machine>,
    camera: String,
}

impl Machine {
    pub(crate) fn new(soc: &'static dyn Soc, tree: LensTree, here: Arc<dyn Surroundings>, production: bool) -> Self {
        Self { soc, tree, here, production, used: Mutex::default() }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What does a task here, and why.
    pub(crate) fn choice(&self, task: Task) -> Choice {
        choose(task, self.soc.elements().iter().chain(&SOFTWARE), self.here.as_ref())
    }

    /// What of the CPU does a task here.
    pub(crate) fn software(&self, task: Task) -> Choice {
        choose(task, &SOFTWARE, self.here.as_ref())
    }

    /// What does a task here, or what is missing.
    pub(crate) fn element(&self, task: Task) -> Result<&'static Family, String> {
        let Choice { chosen, passed_over, .. } = self.choice(task);
        let tried = || passed_over.iter().map(|p| p.element).collect::<Vec<_>>().join(", ");
        chosen.ok_or_else(|| format!("needs a GStreamer element to {task}, one of {}", tried()))
    }

    /// Where the lens of that name is found; `None` if the tree has none.
    pub(crate) fn route(&self, name: &LensId) -> Option<Result<Route, String>> {
        let lens = self.tree.lenses().0.into_iter().find(|lens| lens.name == *name)?;
        Some(self.soc.route(&lens, self.here.as_ref()))
    }

    /// Takes a camera; refused while somebody has it.
    pub(crate) fn take(self: &Arc<Self>, camera: &str) -> Option<Claim> {
        let new = self.used().cameras.insert(camera.to_owned());
        new.then(|| Claim { machine: Arc::clone(self), camera: camera.to_owned() })
    }

    /// Whether a camera's frames were found in CPU memory before.
    pub(crate) fn is_in_system_memory(&self, camera: &str) -> bool {
        self.used().in_system_memory.contains(camera)
    }

    pub(crate) fn found_in_system_memory(&self, camera: &str) {
        self.used().in_system_memory.insert(camera.to_owned());
    }

    /// Whether a camera was found to give no NV12.
    pub(crate) fn is_without_nv12(&self, camera: &str) -> bool {
        self.used().without_nv12.contains(camera)
    }

    pub(crate) fn found_without_nv12(&self, camera: &str, without: bool) {
        let mut used = self.used();
        if without {
            used.without_nv12.insert(camera.to_owned());
        } else {
            used.without_nv12.remove(camera);
        }
    }
}

impl Claim {
    /// Takes a part of the hardware encoder; what would fit if it does not. Replaces an earlier part of the same claim.
    ///
    /// The sum over all lenses is bounded, not only each of them: one too many costs all of them pictures.
    pub(crate) fn encode(&self, pixels_per_second: u64) -> Result<(), String> {
        let Some(most) = self.machine.soc.encoder_budget() else { return Ok(()) };
        let mut used = self.machine.used();
        used.encoding.retain(|(camera, _)| *camera != self.camera);
        let others: u64 = used.encoding.iter().map(|(_, pixels)| pixels).sum();
        let left = most.saturating_sub(others);
        if pixels_per_second > left {
            let full_hd = |pixels: u64| pixels / (1920 * 1080);
            return Err(format!(
                "the encoder of {} takes {} frames/s of 1920x1080 in all, of which {} are free; this lens needs {}: ask for a \
                 smaller picture or fewer frames per second, of this lens or of another",
                self.machine.soc.name(),
                full_hd(most),
                full_hd(left),
                pixels_per_second.div_ceil(1920 * 1080)
            ));
        }
        used.encoding.push((self.camera.clone(), pixels_per_second));
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut used = self.machine.used();
        used.cameras.remove(&self.camera);
        used.encoding.retain(|(camera, _)| *camera != self.camera);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::generic::Generic;
    use crate::imx8mp::Imx8mp;
    use crate::surroundings::Described;

    const HD30: u64 = 1920 * 1080 * 30;

    fn machine(soc: &'static dyn Soc) -> Arc<Machine> {
        Arc::new(Machine::new(soc, "/none".into(), Arc::new(Described::default()), false))
    }

    #[test]
    fn a_camera_is_taken_once_and_given_back() {
        let machine = machine(&Generic);
        let claim = machine.take("v4l2:/dev/video0").unwrap();
        assert!(machine.take("v4l2:/dev/video0").is_none());
        assert!(machine.take("v4l2:/dev/video1").is_some());
        drop(claim);
        assert!(machine.take("v4l2:/dev/video0").is_some());
    }

    #[test]
    fn the_encoder_is_shared_by_all_lenses_and_says_what_is_left() {
        let machine = machine(&Imx8mp);
        let claims = ["a", "b", "c"].map(|camera| machine.take(camera).unwrap());
        claims[0].encode(HD30).unwrap();
        claims[0].encode(HD30).unwrap();
        claims[1].encode(HD30).unwrap();
        let why = claims[2].encode(1280 * 720 * 30).unwrap_err();
        assert!(
            why.starts_with(
                "the encoder of imx8mp takes 60 frames/s of 1920x1080 in all, of which 0 are free; this lens needs 14"
            ),
            "{why}"
        );
        let [one, _two, three] = claims;
        drop(one);
        three.encode(HD30).unwrap();
        assert!(three.encode(HD30 + 1).is_err());
        self::machine(&Generic).take("a").unwrap().encode(u64::MAX).unwrap();
    }
}
