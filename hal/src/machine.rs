//! A SoC in its surroundings, as sources and codecs ask it: which element does what, where a lens is found, what is in use.
//!
//! Promises that every answer follows from what is present when it is asked, and that hardware comes before the CPU. What is
//! in use, and what was learned of cameras, stands in [`crate::shared`].

use std::sync::Arc;

use crate::board::Soc;
use crate::codecs::choice::{Choice, choose};
use crate::codecs::families::{Family, SOFTWARE, Task};
use crate::device_tree::LensTree;
use crate::media::LensId;
use crate::platform::Route;
use crate::shared::{Fact, Lesson, Shared};
use crate::surroundings::Surroundings;

/// The machine.
pub(crate) struct Machine {
    pub(crate) soc: &'static dyn Soc,
    /// Where its lenses are described.
    pub(crate) tree: LensTree,
    pub(crate) here: Arc<dyn Surroundings>,
    /// Frames in CPU memory are refused.
    pub(crate) production: bool,
    /// What its lenses share.
    pub(crate) shared: Arc<dyn Shared>,
}

/// A camera taken, and a part of the encoder. Dropping it gives both back.
pub(crate) struct Claim {
    shared: Arc<dyn Shared>,
    camera: String,
}

impl Machine {
    /// A machine with a book of its own.
    #[cfg(test)]
    pub(crate) fn new(soc: &'static dyn Soc, tree: LensTree, here: Arc<dyn Surroundings>, production: bool) -> Self {
        let shared = Arc::new(crate::shared::Ledger::new(soc.name(), soc.encoder_budget()));
        Self { soc, tree, here, production, shared }
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
        self.shared.take(camera).then(|| Claim { shared: Arc::clone(&self.shared), camera: camera.to_owned() })
    }

    /// Whether something was learned of a camera.
    pub(crate) fn knows(&self, camera: &str, fact: Fact) -> bool {
        self.shared.lessons().iter().any(|lesson| lesson.camera == camera && lesson.fact == fact)
    }

    /// Remembers for the next opening.
    pub(crate) fn learn(&self, camera: &str, fact: Fact, holds: bool) {
        self.shared.learn(Lesson { camera: camera.to_owned(), fact, holds });
    }
}

impl Claim {
    /// Takes a part of the hardware encoder; see [`Shared::encode`].
    pub(crate) fn encode(&self, pixels_per_second: u64) -> Result<(), String> {
        self.shared.encode(&self.camera, pixels_per_second)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.give_back(&self.camera);
    }
}
