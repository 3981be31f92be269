//! `mos probe`: what this machine is, which cameras its device tree describes, and which element fits each codec task.
//!
//! Needs no daemon, and takes a configuration only if it is given one. Asks only: opens no camera, starts no stream.

use std::path::PathBuf;

use clap::Args;
use mos_hal::codecs::choice::Choice;
use mos_hal::codecs::families::{Family, Memory, Task, Unit};
use mos_hal::device_tree::{Attachment, BoardLens, Chip};
use mos_hal::gmsl::Link;
use mos_hal::gmsl::board::ChipState;
use mos_hal::media::LensId;
use mos_hal::platform::{Acceleration, Camera, Platform};
use mos_hal::probe::{self, Options};
use serde::Serialize;

use super::{Outcome, Report, print, run};

#[derive(Debug, Args)]
pub(super) struct ProbeArgs {
    /// The daemon's settings, of which [board] and [[board_lens]] are used
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of a device tree, instead of /proc/device-tree
    #[arg(long, value_name = "DIR")]
    device_tree: Option<PathBuf>,
    /// Directory of a sysfs, instead of /sys
    #[arg(long, value_name = "DIR")]
    sysfs: Option<PathBuf>,
    #[command(flatten)]
    report: Report,
}

pub(super) fn execute(args: &ProbeArgs) -> Outcome {
    let mut options = match &args.config {
        Some(file) => run::settings(file)?.board,
        None => Options::default(),
    };
    // Vendors' code is not asked here.
    options.worker = None;
    options.device_tree = args.device_tree.clone().unwrap_or(options.device_tree);
    options.sysfs = args.sysfs.clone().unwrap_or(options.sysfs);
    let found = Found::by(probe::probe(&options).as_ref());
    if args.report.json { print::json(&found) } else { print::line(&found.text()) }
}

/// What is reported.
#[derive(Debug, Serialize)]
struct Found {
    /// `imx8mp`, `qcs6490` or `generic`.
    platform: &'static str,
    evidence: String,
    stack: Reason,
    cameras: Vec<FoundCamera>,
    /// What is wrong in the device tree.
    faults: Vec<String>,
    codecs: Vec<FoundCodec>,
    gmsl: Vec<FoundGmsl>,
    accelerations: Vec<FoundAcceleration>,
}

#[derive(Debug, Serialize)]
struct Reason {
    name: &'static str,
    why: String,
}

#[derive(Debug, Serialize)]
struct FoundCamera {
    name: String,
    role: Option<String>,
    /// `mipi-csi2` or `gmsl2`.
    transport: &'static str,
    deserializer: Option<FoundChip>,
    /// GMSL link of the deserializer, from 0.
    link: Option<u8>,
    serializer: Option<FoundChip>,
    sensor: Option<FoundChip>,
    /// Degrees clockwise.
    rotation: u32,
    orientation: Option<&'static str>,
    /// Its node in the tree.
    node: String,
    /// The element that captures it; absent if it is not to be had, for the reason in `problem`.
    element: Option<&'static str>,
    /// The camera in that element's words.
    camera: Option<String>,
    /// The `source` to configure; absent if MOS does not record from this element yet.
    source: Option<String>,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct FoundChip {
    path: String,
    compatible: Vec<String>,
    /// 7-bit I2C address.
    address: u8,
    enabled: bool,
}

/// A GMSL deserializer, looked at once.
#[derive(Debug, Serialize)]
struct FoundGmsl {
    chip: FoundChip,
    /// `full`, `read_only` or `none`.
    access: &'static str,
    access_why: Option<String>,
    /// Who it says it is; absent if it could not be asked, for the reason in `problem`.
    model: Option<&'static str>,
    problem: Option<String>,
    links: Vec<FoundLink>,
}

#[derive(Debug, Serialize)]
struct FoundLink {
    lens: String,
    link: u8,
    locked: Option<bool>,
    video_locked: Option<bool>,
    line: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct FoundCodec {
    task: String,
    chosen: Option<FoundElement>,
    passed_over: Vec<PassedOver>,
}

#[derive(Debug, Serialize)]
struct FoundElement {
    element: &'static str,
    /// `dmabuf` or `system`.
    memory: &'static str,
    /// Whether MOS works with it here: a JPEG encoder of the board only behind its decoder and converter.
    in_use: bool,
    encoder: Option<FoundEncoder>,
    /// What misleads about it.
    trap: Option<&'static str>,
    /// Where the facts come from, graded.
    facts: &'static str,
}

#[derive(Debug, Serialize)]
struct FoundEncoder {
    /// Pipeline text; `{bitrate}` in `bitrate_unit`, `{gop}` in frames.
    pipeline: &'static str,
    /// `bit/s` or `kbit/s`.
    bitrate_unit: &'static str,
    /// Smallest and largest, in pixels.
    width: (u32, u32),
    /// Smallest and largest, in pixels.
    height: (u32, u32),
    /// Smallest and largest, in bit/s.
    bitrate: (u32, u32),
}

#[derive(Debug, Serialize)]
struct PassedOver {
    element: &'static str,
    why: String,
}

#[derive(Debug, Serialize)]
struct FoundAcceleration {
    name: &'static str,
    usable: bool,
    why: String,
}

impl Found {
    fn by(platform: &dyn Platform) -> Self {
        let (stack, cameras, choices) = (platform.stack(), platform.cameras(), platform.choices());
        let of_the_board = |task: fn(&Task) -> bool| {
            let chosen = choices.iter().filter(|choice| task(&choice.task)).filter_map(|choice| choice.chosen);
            chosen.into_iter().any(|family| family.memory == Memory::Dmabuf)
        };
        let pictures = of_the_board(|t| matches!(t, Task::Decode(_))) && of_the_board(|t| matches!(t, Task::Convert));
        let found = |choice: Choice| {
            let jpeg = choice.task == Task::EncodeJpeg;
            let mut codec = FoundCodec::from(choice);
            if let Some(element) = codec.chosen.as_mut().filter(|_| jpeg) {
                element.in_use = pictures || element.memory == Memory::System.name();
            }
            codec
        };
        let codecs = choices.iter().cloned().map(found).collect();
        Self {
            platform: platform.name(),
            evidence: platform.evidence(),
            stack: Reason { name: stack.name, why: stack.why },
            cameras: cameras.cameras.into_iter().map(FoundCamera::from).collect(),
            faults: cameras.faults,
            gmsl: platform.gmsl().into_iter().map(FoundGmsl::from).collect(),
            codecs,
            accelerations: platform.accelerations().into_iter().map(FoundAcceleration::from).collect(),
        }
    }

    /// For people. Everything in it that comes from a device tree is printable ASCII already.
    fn text(&self) -> String {
        let mut lines = vec![
            format!("platform  {}: {}", self.platform, self.evidence),
            format!("stack     {}: {}", self.stack.name, self.stack.why),
        ];
        for camera in &self.cameras {
            lines.push(format!("camera    {}: {}", camera.name, camera.text()));
        }
        lines.extend(self.faults.iter().map(|fault| format!("fault     {fault}")));
        for codec in &self.codecs {
            let chosen = match &codec.chosen {
                Some(e) if e.in_use => e.element.to_owned(),
                Some(e) => format!("{} (MOS does not use it here)", e.element),
                None => "nothing here".to_owned(),
            };
            lines.push(format!("{:<12}  {chosen}", codec.task));
            lines.extend(codec.passed_over.iter().map(|p| format!("              not {}: {}", p.element, p.why)));
        }
        for gmsl in &self.gmsl {
            lines.push(format!("gmsl      {}: {}", gmsl.chip.path, gmsl.text()));
            lines
                .extend(gmsl.links.iter().map(|l| format!("              link {} ({}): {}", l.link, l.lens, l.text())));
        }
        let accelerations = self.accelerations.iter();
        lines.extend(accelerations.map(|a| {
            let word = if a.usable { "there" } else { "not there" };
            format!("accelerator   {} {word}: {}", a.name, a.why)
        }));
        lines.join("\n")
    }
}

impl FoundCamera {
    fn text(&self) -> String {
        let mut text = self.transport.to_owned();
        if let (Some(chip), Some(link)) = (&self.deserializer, self.link) {
            text = format!("{text} link {link} of {}", chip.path);
        }
        match (&self.element, &self.camera, &self.source, &self.problem) {
            (_, _, Some(source), _) => format!("{text}, source = \"{source}\""),
            (Some(element), Some(camera), None, _) => {
                format!("{text}, {element} camera {camera}; MOS does not record from {element} yet")
            }
            (.., Some(problem)) => format!("{text}, not to be had: {problem}"),
            _ => text,
        }
    }
}

impl From<Camera> for FoundCamera {
    fn from(camera: Camera) -> Self {
        let BoardLens { name, role, attachment, sensor, rotation, orientation, node, .. } = camera.lens;
        let transport = attachment.name();
        let (deserializer, link, serializer) = match attachment {
            Attachment::MipiCsi2 => (None, None, None),
            Attachment::Gmsl2 { deserializer, link, serializer } => {
                (Some(deserializer.into()), Some(link), serializer.map(FoundChip::from))
            }
        };
        let (route, problem) = match camera.route {
            Ok(route) => (Some(route), None),
            Err(why) => (None, Some(why)),
        };
        Self {
            name: name.to_string(),
            role,
            transport,
            deserializer,
            link,
            serializer,
            sensor: sensor.map(FoundChip::from),
            rotation,
            orientation: orientation.map(mos_hal::device_tree::Orientation::name),
            node,
            element: route.as_ref().map(|r| r.element),
            source: route.as_ref().and_then(|r| r.source.as_ref()).map(ToString::to_string),
            camera: route.map(|r| r.camera),
            problem,
        }
    }
}

impl From<ChipState> for FoundGmsl {
    fn from(state: ChipState) -> Self {
        let seen = state.seen.as_ref().ok();
        let link = |(link, lens): &(Link, LensId)| {
            let now = seen.map(|(_, states)| states[link.index()]);
            FoundLink {
                lens: lens.to_string(),
                link: link.number(),
                locked: now.map(|s| s.lock),
                video_locked: now.map(|s| s.video_lock),
                line: now.map(|s| s.line.name()),
            }
        };
        Self {
            access: state.access.name(),
            access_why: state.access.why().map(str::to_owned),
            model: seen.map(|(model, _)| model.name()),
            problem: state.seen.as_ref().err().cloned(),
            links: state.lenses.iter().map(link).collect(),
            chip: state.chip.into(),
        }
    }
}

impl FoundGmsl {
    fn text(&self) -> String {
        let who = match (&self.model, &self.problem) {
            (Some(model), _) => (*model).to_owned(),
            (None, problem) => format!("not asked: {}", problem.as_deref().unwrap_or("no reason is told")),
        };
        match &self.access_why {
            Some(why) if self.access == "read_only" => format!("{who}; read only: {why}"),
            _ => who,
        }
    }
}

impl FoundLink {
    fn text(&self) -> String {
        let Some(line) = self.line else { return "not known".to_owned() };
        let lock = if self.locked == Some(true) { "locked" } else { "not locked" };
        let video = if self.video_locked == Some(true) { "video" } else { "no video" };
        format!("{lock}, {video}, line {line}")
    }
}

impl From<Chip> for FoundChip {
    fn from(chip: Chip) -> Self {
        Self { path: chip.path, compatible: chip.compatible, address: chip.address, enabled: chip.enabled }
    }
}

impl From<Choice> for FoundCodec {
    fn from(choice: Choice) -> Self {
        let passed_over = choice.passed_over.into_iter().map(|p| PassedOver { element: p.element, why: p.why });
        Self {
            task: choice.task.to_string(),
            chosen: choice.chosen.map(FoundElement::from),
            passed_over: passed_over.collect(),
        }
    }
}

impl From<&'static Family> for FoundElement {
    fn from(family: &'static Family) -> Self {
        let encoder = matches!(family.task, Task::Encode(_)).then(|| FoundEncoder {
            pipeline: family.template,
            bitrate_unit: match family.unit {
                Unit::Bit => "bit/s",
                Unit::Kbit => "kbit/s",
            },
            width: family.limits.width,
            height: family.limits.height,
            bitrate: family.limits.bitrate,
        });
        Self {
            element: family.element,
            memory: family.memory.name(),
            in_use: true,
            encoder,
            trap: (!family.trap.is_empty()).then_some(family.trap),
            facts: family.facts,
        }
    }
}

impl From<Acceleration> for FoundAcceleration {
    fn from(acceleration: Acceleration) -> Self {
        Self { name: acceleration.name, usable: acceleration.usable, why: acceleration.why }
    }
}
