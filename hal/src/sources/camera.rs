//! `v4l2:`, `libcamera:`, `qmmf:` and `board:`, cameras that deliver raw pictures, or at most JPEG or H.264 of their own.
//!
//! Promises to pass H.264 on as it is where the camera encodes, and else to encode with the best that the board has; to stamp
//! frames with the driver's monotonic capture time; that a slow encoder costs raw frames, each of which is told, and never
//! blocks the driver; and that the limits of the encoder are kept, over all lenses.
//!
//! Opening happens on a thread of its own, since camera software may take its time: what fails arrives as the end of the
//! source. A camera is opened once at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;

use self::line::{Encoded, Line};
use self::origin::{Origin, Source};
use self::part::Part;
use super::contract::{self, Contract, Passing, Verdict};
use super::leaks;
use super::live::{self, Live};
use super::outlet::Outlet;
use super::skips;
use super::thin::Thinner;
use crate::clock::{Clock, Mono};
use crate::codecs::families::{Memory, Task};
use crate::frames::LensFrames;
use crate::gst as common;
use crate::machine::{Claim, Machine};
use crate::media::{AccessUnit, VideoCodec};
use crate::shared::Fact;
use crate::source::{LeftOutBy, LensSource, RawOptions, Share, SourceError, SourceSpec, UnitSink};

mod line;
mod modes;
mod origin;
mod pace;
mod part;
mod signal;

/// So many pictures in CPU memory in a row are the camera's way, where dmabufs were expected.
const SURPRISES: u32 = 8;

/// A camera that is being opened or runs.
pub(super) struct Camera {
    outlet: Arc<Outlet>,
    slot: Arc<Mutex<Slot>>,
    memory: Arc<Mutex<Option<Memory>>>,
}

enum Slot {
    Opening,
    Running(Live),
    /// Dropped while it was being opened.
    Gone,
}

/// Starts opening.
pub(super) fn open(
    spec: &SourceSpec,
    machine: &Arc<Machine>,
    clock: Arc<dyn Clock>,
    sink: Arc<dyn UnitSink>,
) -> Result<Camera, SourceError> {
    let learner = Arc::new(Learner { sink, lesson: OnceLock::new() });
    let outlet = Outlet::new(spec.to_string(), clock, learner.clone());
    let (slot, memory) = (Arc::new(Mutex::new(Slot::Opening)), Arc::default());
    let camera = Camera { outlet: Arc::clone(&outlet), slot: Arc::clone(&slot), memory: Arc::clone(&memory) };
    let opening = Opening { spec: spec.clone(), machine: Arc::clone(machine), outlet, learner, memory };
    let open = move || match opening.run() {
        Ok(live) => {
            let mut now = lock(&slot);
            // What was dropped meanwhile is stopped here, outside of the lock.
            let unwanted = match &*now {
                Slot::Opening => {
                    *now = Slot::Running(live);
                    None
                }
                Slot::Gone | Slot::Running(_) => Some(live),
            };
            drop(now);
            drop(unwanted);
        }
        Err(why) => opening.outlet.end(why),
    };
    let spawned = std::thread::Builder::new().name("mos-camera".into()).spawn(open);
    spawned.map_err(|e| camera.outlet.broken(format!("no thread: {e}")))?;
    Ok(camera)
}

impl LensSource for Camera {
    fn request_keyframe(&self) -> bool {
        match &*lock(&self.slot) {
            Slot::Running(live) => live.request_keyframe(),
            Slot::Opening | Slot::Gone => false,
        }
    }

    fn memory(&self) -> Option<Memory> {
        *lock(&self.memory)
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.outlet.silence();
        let last = std::mem::replace(&mut *lock(&self.slot), Slot::Gone);
        drop(last);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Lesson = Box<dyn Fn(&SourceError) + Send + Sync>;

/// Hands on what the camera delivers, and remembers of its end what the next opening can do better.
struct Learner {
    sink: Arc<dyn UnitSink>,
    lesson: OnceLock<Lesson>,
}

impl UnitSink for Learner {
    fn unit(&self, unit: AccessUnit) {
        self.sink.unit(unit);
    }
    fn left_out(&self, from: Mono, to: Mono, pictures: u64, by: LeftOutBy) {
        self.sink.left_out(from, to, pictures, by);
    }
    fn ended(&self, why: SourceError) {
        if let Some(lesson) = self.lesson.get() {
            lesson(&why);
        }
        self.sink.ended(why);
    }
    fn frames(&self) -> Option<Arc<LensFrames>> {
        self.sink.frames()
    }
    fn one_in(&self) -> u32 {
        self.sink.one_in()
    }
    fn coded(&self, share: Share) {
        self.sink.coded(share);
    }
}

/// The thread that opens.
struct Opening {
    spec: SourceSpec,
    machine: Arc<Machine>,
    outlet: Arc<Outlet>,
    learner: Arc<Learner>,
    memory: Arc<Mutex<Option<Memory>>>,
}

impl Opening {
    fn run(&self) -> Result<Live, SourceError> {
        let (origin, mut options) = Origin::of(&self.spec, &self.machine)?;
        origin.defaults(&mut options);
        let name = origin.name();
        let claim = self.machine.take(&name).ok_or_else(|| SourceError::Refused {
            what: self.outlet.what.clone(),
            detail: format!("{name} is in use by another lens, or has not let go since it was last closed"),
        })?;
        let claim = Arc::new(claim);
        if origin.is_absent(&self.machine) {
            let (what, detail) = (self.outlet.what.clone(), format!("there is no {name}"));
            return Err(SourceError::Absent { what, detail });
        }
        let unsupported = |why: String| self.outlet.unsupported(why);
        common::init().and_then(|()| contract::register()).map_err(unsupported)?;
        let lent = self.outlet.frames().map_or(0, |frames| frames.budget());
        let source = origin.source(&options, lent, &self.machine).map_err(unsupported)?;
        self.start(source, &origin, &options, claim)
    }

    /// What the camera's pictures will be in: dmabufs where somebody takes them, unless they were found elsewhere before.
    fn expected(&self, name: &str, options: &RawOptions) -> Memory {
        let encoder = self.machine.element(Task::Encode(options.codec.unwrap_or(VideoCodec::H264)));
        match encoder {
            Ok(encoder) if !self.machine.knows(name, Fact::InSystemMemory) => encoder.memory,
            _ => Memory::System,
        }
    }

    /// From here on there is a pipeline, which must be stopped whatever happens.
    fn start(
        &self,
        source: Source,
        origin: &Origin,
        options: &RawOptions,
        claim: Arc<Claim>,
    ) -> Result<Live, SourceError> {
        let pipeline = gst::Pipeline::new();
        match self.build(&pipeline, source, origin, options, &claim) {
            Ok(kind) => Live::start(&pipeline, &self.outlet, kind, claim),
            Err(why) => {
                common::stop_and_release(pipeline, claim);
                Err(why)
            }
        }
    }

    fn build(
        &self,
        pipeline: &gst::Pipeline,
        source: Source,
        origin: &Origin,
        options: &RawOptions,
        claim: &Arc<Claim>,
    ) -> Result<live::Kind, SourceError> {
        let unsupported = |why: String| self.outlet.unsupported(why);
        let Source { element, pad } = source;
        pipeline.add(&element).map_err(|e| self.outlet.broken(e.to_string()))?;
        // Opened, the element tells what the camera offers.
        if element.set_state(gst::State::Ready).is_err() {
            let message = pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
            return Err(match message.as_ref().map(|m| m.view()) {
                Some(gst::MessageView::Error(e)) => live::failure(&self.outlet, e),
                _ => origin.unopened(&self.outlet),
            });
        }
        if let Origin::V4l2(device) = origin {
            signal::watch(device, &pad, &self.outlet)?;
        }
        let name = origin.name();
        let offered = pad.query_caps(None);
        let mut mode = modes::pick(&offered, options, origin.unhurried()).map_err(unsupported)?;
        let blind = mode.size.is_none() || offered.iter().all(|s| !s.has_field("format"));
        if blind && self.machine.knows(&name, Fact::WithoutNv12) {
            mode.stream = modes::Stream::Any;
            // If that does not do either, the next opening asks for NV12 again.
            self.machine.learn(&name, Fact::WithoutNv12, false);
        }
        let camera = self.expected(&name, options);
        let line = line::plan(&mode, options, camera, &self.machine).map_err(unsupported)?;
        let part = match &line {
            Line::Encoded(encoded) => Some(self.admit(&mode, encoded, claim)?),
            Line::Passed => None,
        };
        if camera == Memory::Dmabuf && matches!(mode.stream, modes::Stream::Raw(_)) {
            origin.ask_for_dmabufs(&element).map_err(unsupported)?;
        }
        let bin =
            gst::parse::bin_from_description(&line.text(), false).map_err(|e| unsupported(e.message().to_owned()))?;
        skips::watch(&pad, &self.outlet);
        let filter = bin.by_name(line::MODE).ok_or_else(|| self.outlet.broken("no filter"))?;
        filter.set_property("caps", modes::filter(&mode, &offered));
        if let (Some(fps), true, Some(pad)) =
            (options.fps, mode.stream != modes::Stream::H264, filter.static_pad("src"))
        {
            pace::keep(&pad, fps);
        }
        pipeline.add(&bin).map_err(|e| self.outlet.broken(e.to_string()))?;
        // Not found by the parser, which looks into elements that are bins, too.
        let input = filter.static_pad("sink").and_then(|pad| gst::GhostPad::with_target(&pad).ok());
        let input = input.filter(|pad| bin.add_pad(pad).is_ok()).ok_or_else(|| self.outlet.broken("no input"))?;
        // Without a check of caps: elements whose camera is not open yet promise more than there is.
        pad.link_full(&input, gst::PadLinkCheck::HIERARCHY)
            .map_err(|e| unsupported(format!("cannot be linked: {e}")))?;
        log::info!("{}: {name}, {:?} {:?}", self.outlet.what, mode.stream, mode.size);
        match (line, part) {
            (Line::Encoded(encoded), Some(part)) => {
                if let Ok(queue) = common::named::<gst::Element>(pipeline, leaks::QUEUE) {
                    contract::plain_before(&queue);
                    let entering = common::named::<gst::Element>(pipeline, line::CONTRACT).ok();
                    if let Some(entering) = entering.and_then(|contract| contract.static_pad("sink")) {
                        let thinner = Thinner::new(part.first(), encoded.gop, part.clone());
                        leaks::watch(&entering, &queue, &self.outlet, thinner);
                    }
                }
                self.watch(pipeline, &name, &mode, encoded, &part, blind)?;
                Ok(live::Kind::Encoded)
            }
            _ => Ok(live::Kind::Passed),
        }
    }

    /// The line's part of the encoder, if it may run, as far as that is known before the first picture.
    fn admit(&self, mode: &modes::Mode, line: &Encoded, claim: &Arc<Claim>) -> Result<Arc<Part>, SourceError> {
        if self.machine.production && line.memory() == Memory::System {
            return Err(self.outlet.unsupported(only_dmabufs(&line.detour())));
        }
        let soc = self.machine.soc;
        let budget = soc.encoder_budget().filter(|_| line.encoder.memory == Memory::Dmabuf);
        let part = Part::new(soc.name(), budget, mode.likely_fps, claim, &self.outlet);
        if let Some(size) = mode.size {
            part.admit(size)?;
        }
        Ok(Arc::new(part))
    }

    /// Judges what really passes.
    fn watch(
        &self,
        pipeline: &gst::Pipeline,
        name: &str,
        mode: &modes::Mode,
        line: Encoded,
        part: &Arc<Part>,
        blind: bool,
    ) -> Result<(), SourceError> {
        let contract: Contract = common::named(pipeline, line::CONTRACT).map_err(|why| self.outlet.broken(why))?;
        let (machine, outlet, memory) = (Arc::clone(&self.machine), Arc::clone(&self.outlet), Arc::clone(&self.memory));
        let (name, part) = (name.to_owned(), Arc::clone(part));
        let came = Arc::new(AtomicBool::new(false));
        let any = mode.stream == modes::Stream::Any;
        if blind && !any {
            let (machine, name, came) = (Arc::clone(&machine), name.clone(), Arc::clone(&came));
            let lesson = move |why: &SourceError| {
                if matches!(why, SourceError::Unsupported { .. }) && !came.load(Ordering::Relaxed) {
                    machine.learn(&name, Fact::WithoutNv12, true);
                }
            };
            let _ = self.learner.lesson.set(Box::new(lesson));
        }
        let judge = move |passing: Passing| {
            came.store(true, Ordering::Relaxed);
            if any {
                machine.learn(&name, Fact::WithoutNv12, true);
            }
            let end = |why: SourceError| {
                outlet.end(why);
                Verdict::End
            };
            let refuse = |why: String| end(outlet.unsupported(why));
            if passing.memory == Memory::Dmabuf && machine.knows(&name, Fact::InSystemMemory) {
                machine.learn(&name, Fact::InSystemMemory, false);
            }
            let surprise = passing.memory == Memory::System && line.input == Memory::Dmabuf;
            // Where it cannot be coded, one alone is left out: it says nothing of those that follow.
            if surprise && (machine.production || line.must_know()) && passing.in_a_row < SURPRISES {
                return Verdict::LeaveOut;
            }
            if let Some(why) = line.encoder.refusal(passing.size, line.bitrate) {
                return refuse(why);
            }
            if let Err(why) = part.admit(passing.size) {
                return end(why);
            }
            if surprise && machine.production {
                return refuse(only_dmabufs("its pictures come in CPU memory"));
            }
            if surprise && line.must_know() {
                // What began in dmabufs does so again.
                if passing.before.is_none() {
                    machine.learn(&name, Fact::InSystemMemory, true);
                }
                outlet.end(outlet.broken("its pictures come in CPU memory: it is opened again for that"));
                return Verdict::End;
            }
            if surprise {
                outlet.warn("its pictures come in CPU memory");
            }
            *lock(&memory) = Some(if surprise { Memory::System } else { line.memory() });
            Verdict::Pass
        };
        contract::watch(&contract, Box::new(judge));
        Ok(())
    }
}

pub(super) fn only_dmabufs(why: &str) -> String {
    format!("{why}, and production = true takes lenses only whose pictures stay in dmabufs")
}

#[cfg(test)]
mod tests;
