//! A machine: a SoC's knowledge applied to what is present here.
//!
//! Promises that all that differs from SoC to SoC stands in the SoC's module, behind [`Soc`], and that nothing is started at
//! construction: GStreamer and the tree's lenses are asked when somebody wants to know. Sources are the same on every board.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::clock::Clock;
use crate::codecs::Jpegs;
use crate::codecs::choice::Choice;
use crate::codecs::families::{Family, Task};
use crate::device_tree::{Attachment, BoardLens, LensTree};
use crate::frames::Decoders;
use crate::generic::devices;
use crate::gmsl::board::ChipState;
use crate::gmsl::bring_up::SetUp;
use crate::gmsl::{self, GmslLink};
#[cfg(feature = "libcamera")]
use crate::libcamera;
use crate::machine::Machine;
use crate::media::LensId;
use crate::platform::{Acceleration, Camera, Cameras, Codecs, Device, Platform, Route, Stack};
use crate::probe::Options;
use crate::shared::{Ledger, Shared};
use crate::source::{LensSource, RawOptions, SourceError, SourceSpec, UnitSink};
use crate::sources;
use crate::surroundings::Surroundings;

/// What is particular to a SoC. Pure and object-safe: no state, no devices; the surroundings are given.
pub trait Soc: Send + Sync {
    /// The platform's name in the API.
    fn name(&self) -> &'static str;
    /// Whether one entry of the root's `compatible` means this SoC.
    fn matches(&self, compatible: &str) -> bool;
    /// Which camera and codec software runs here, judged by what is present.
    fn stack(&self, here: &dyn Surroundings) -> Stack;
    /// Rows of the element table for what this SoC has itself, in order of preference. Software comes after them everywhere.
    fn elements(&self) -> &'static [&'static Family];
    /// Where a lens of the tree is found on this stack, or why it is not to be had.
    fn route(&self, lens: &BoardLens, here: &dyn Surroundings) -> Result<Route, String>;
    /// How many pixels per second its encoder takes of all lenses together, if that is known.
    fn encoder_budget(&self) -> Option<u64> {
        None
    }
    /// Accelerators beside the SoC's own, with whether they could be used.
    fn accelerations(&self, _here: &dyn Surroundings) -> Vec<Acceleration> {
        Vec::new()
    }
}

/// A recognised machine.
pub(crate) struct Board {
    /// What it was recognised by.
    evidence: String,
    machine: Arc<Machine>,
    /// Root of sysfs.
    sysfs: PathBuf,
    gmsl: OnceLock<Vec<Arc<dyn GmslLink>>>,
    gmsl_set_up: Option<SetUp>,
    /// The program that runs vendors' code in a process of its own.
    #[cfg(feature = "libcamera")]
    worker: Option<PathBuf>,
    jpegs: OnceLock<Arc<Jpegs>>,
}

impl Board {
    /// Without `shared` it keeps the book itself.
    pub(crate) fn new(
        soc: &'static dyn Soc,
        evidence: String,
        options: &Options,
        here: Arc<dyn Surroundings>,
        shared: Option<Arc<dyn Shared>>,
    ) -> Self {
        let tree = LensTree { root: options.device_tree.clone(), overrides: options.lenses.clone() };
        let shared = shared.unwrap_or_else(|| Arc::new(Ledger::new(soc.name(), soc.encoder_budget())));
        Self {
            evidence,
            machine: Arc::new(Machine { soc, tree, here, production: options.production, shared }),
            sysfs: options.sysfs.clone(),
            gmsl: OnceLock::new(),
            gmsl_set_up: options.gmsl,
            #[cfg(feature = "libcamera")]
            worker: options.worker.clone(),
            jpegs: OnceLock::new(),
        }
    }

    /// What libcamera itself lists; nothing if it cannot be asked.
    #[cfg(feature = "libcamera")]
    fn of_libcamera(&self) -> Vec<Device> {
        let Some(program) = &self.worker else { return Vec::new() };
        match libcamera::ask(program) {
            Ok(cameras) => cameras.into_iter().map(Device::from).collect(),
            Err(e) => {
                log::warn!("cameras of libcamera are not listed: {e}");
                Vec::new()
            }
        }
    }
}

impl Platform for Board {
    fn name(&self) -> &'static str {
        self.machine.soc.name()
    }

    fn evidence(&self) -> String {
        self.evidence.clone()
    }

    fn devices(&self) -> Vec<Device> {
        let found = devices::v4l2();
        #[cfg(feature = "libcamera")]
        let found = found.into_iter().chain(self.of_libcamera()).collect();
        found
    }

    fn stack(&self) -> Stack {
        self.machine.soc.stack(self.machine.here.as_ref())
    }

    fn cameras(&self) -> Cameras {
        let (lenses, faults) = self.machine.tree.lenses();
        let camera = |lens: BoardLens| {
            let route = self.machine.soc.route(&lens, self.machine.here.as_ref());
            Camera { lens, route }
        };
        Cameras { cameras: lenses.into_iter().map(camera).collect(), faults }
    }

    fn gmsl(&self) -> Vec<ChipState> {
        gmsl::board::look(&self.machine.tree.lenses().0, &self.sysfs, &|| self.stack())
    }

    fn watch_gmsl(&self) -> Vec<Arc<dyn GmslLink>> {
        let begin = || {
            let (lenses, faults) = self.machine.tree.lenses();
            for fault in faults {
                log::warn!("{fault}");
            }
            let changes = &self.machine.tree.overrides;
            let power = |lens: &LensId| changes.iter().find(|change| change.name == *lens)?.power_line.clone();
            gmsl::board::watch(&lenses, &self.sysfs, &|| self.stack(), self.gmsl_set_up, &power)
        };
        self.gmsl.get_or_init(begin).clone()
    }

    fn choices(&self) -> Vec<Choice> {
        Task::ALL.map(|task| self.machine.choice(task)).into()
    }

    fn accelerations(&self) -> Vec<Acceleration> {
        self.machine.soc.accelerations(self.machine.here.as_ref())
    }

    fn open(
        &self,
        spec: &SourceSpec,
        audio: bool,
        clock: Arc<dyn Clock>,
        sink: Arc<dyn UnitSink>,
    ) -> Result<Box<dyn LensSource>, SourceError> {
        sources::open(spec, audio, &self.machine, clock, sink)
    }

    fn shared(&self) -> Arc<dyn Shared> {
        Arc::clone(&self.machine.shared)
    }

    fn decoders(&self) -> Decoders {
        let machine = Arc::clone(&self.machine);
        Arc::new(move |codec| machine.element(Task::Decode(codec)).ok().map(|family| family.template.to_owned()))
    }

    fn codecs(&self) -> Arc<dyn Codecs> {
        Arc::clone(self.jpegs.get_or_init(|| Arc::new(Jpegs::new(Arc::clone(&self.machine))))) as Arc<dyn Codecs>
    }
}

/// For SoC modules: what to say of a lens behind GMSL where only another SoC has the path.
pub fn without_gmsl(lens: &BoardLens, soc: &str) -> Result<(), String> {
    match lens.attachment {
        Attachment::MipiCsi2 => Ok(()),
        Attachment::Gmsl2 { .. } => Err(format!("GMSL cameras are captured on qcs6490 only; this board is {soc}")),
    }
}

/// For SoC modules: a sensor that the kernel drives, by libcamera. Its camera ids are firmware paths below `/base`
/// (libcamera, `sysfs::firmwareNodePath` \[G\]).
pub fn libcamera(lens: &BoardLens, here: &dyn Surroundings) -> Result<Route, String> {
    let sensor = lens.sensor.as_ref().ok_or("the lens node has no mos,sensor")?;
    if !sensor.enabled {
        return Err(format!("the device tree disables its sensor {}", sensor.path));
    }
    let element = "libcamerasrc";
    if !here.element(element) {
        return Err(format!("needs the GStreamer element {element}"));
    }
    let camera = format!("/base{}", sensor.path);
    let source = SourceSpec::Libcamera { camera: camera.clone(), options: RawOptions::default() };
    Ok(Route { element, camera, source: Some(source) })
}
