//! The behaviour that all camera doubles share: opening, negotiating, streaming in real time, still pictures, faults.
//!
//! Promises that a camera that does not exist fails NULL→READY, that READY→PAUSED does not preroll, that frames come at the
//! rate of their caps with the running time of their capture, and that a frame for which no buffer came back in time is left
//! out and written to the log (`starved`). One streaming thread per linked pad, as the real elements have.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_video as video;
use serde_json::json;

use crate::data::{self, Double, Output};
use crate::faults::{self, Fault};
use crate::pool::{Layout, Pool};
use crate::values::Values;
use crate::{events, picture};

/// The part of a camera double that does not depend on its element type.
#[derive(Debug)]
pub(crate) struct Camera {
    double: &'static Double,
    facts: &'static data::Camera,
    pub(crate) values: Values,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The camera that is open, and its handler.
    open: Option<(String, String)>,
    playing: bool,
    stopping: bool,
    eos: bool,
    /// Still pictures that are asked for.
    shots: u32,
    next_pad: u32,
}

/// Cameras that some element of this process has open.
static OPEN: LazyLock<Mutex<BTreeSet<String>>> = LazyLock::new(Mutex::default);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one pad's thread keeps between frames.
struct Stream {
    pool: Pool,
    caps: gst::Caps,
    dmabuf: bool,
    period: Duration,
    /// Start of the schedule and frames since.
    since: Option<(Instant, u64)>,
    number: u16,
    painted: BTreeSet<usize>,
}

impl Camera {
    pub(crate) fn new(double: &'static Double) -> Arc<Self> {
        let facts = double.camera.as_ref().expect("a camera's data file has [camera]");
        let values = Values::new(&double.element, &double.property, &double.control);
        Arc::new(Self { double, facts, values, state: Mutex::default(), wake: Condvar::new() })
    }

    /// Cameras that exist, each with its handler: `ID[=HANDLER]`, separated by commas.
    fn existing(&self) -> Vec<(String, String)> {
        let entry = |text: &str| {
            let (id, handler) = text.split_once('=').unwrap_or((text, &self.facts.handler));
            (id.trim().to_owned(), handler.trim().to_owned())
        };
        match std::env::var("MOS_DOUBLES_CAMERAS") {
            Ok(list) => list.split(',').filter(|e| !e.trim().is_empty()).map(entry).collect(),
            Err(_) => self.facts.cameras.iter().map(|c| entry(c)).collect(),
        }
    }

    /// NULL→READY.
    pub(crate) fn open(&self, element: &gst::Element) -> Result<(), gst::StateChangeError> {
        let name = element.name();
        if let Some(what) = self.values.verdict() {
            gst::element_error!(element, gst::ResourceError::Settings, ("{what}"));
            return Err(gst::StateChangeError);
        }
        let existing = self.existing();
        let asked = self.values.text(&self.facts.property);
        let asked = asked.or_else(|| existing.first().map(|c| c.0.clone())).unwrap_or_default();
        let found = existing.into_iter().find(|c| c.0 == asked);
        let Some(found) = found.filter(|_| faults::of(&asked) != Some(Fault::Gone)) else {
            return Err(self.unopened(element, gst::ResourceError::NotFound, &format!("no camera {asked:?}")));
        };
        if !locked(&OPEN).insert(format!("{}:{asked}", self.facts.property)) {
            return Err(self.unopened(element, gst::ResourceError::Busy, &format!("camera {asked:?} is in use")));
        }
        if !self.facts.handlers.contains_key(&found.1) {
            self.values.complain(&name, format!("MOS_DOUBLES_CAMERAS: no handler {}", found.1));
        }
        events::event("camera-opened", &self.double.element, &name, json!({"camera": asked}));
        let mut state = locked(&self.state);
        *state = State { open: Some(found), next_pad: state.next_pad, ..State::default() };
        Ok(())
    }

    fn unopened(&self, element: &gst::Element, kind: gst::ResourceError, what: &str) -> gst::StateChangeError {
        events::event("open-failed", &self.double.element, &element.name(), json!({ "what": what }));
        if !self.facts.silent_failure {
            gst::element_error!(element, kind, ("{what}"));
        }
        gst::StateChangeError
    }

    /// READY→NULL.
    pub(crate) fn close(&self, element: &gst::Element) {
        if let Some((camera, _)) = locked(&self.state).open.take() {
            locked(&OPEN).remove(&format!("{}:{camera}", self.facts.property));
            events::event("camera-closed", &self.double.element, &element.name(), json!({"camera": camera}));
        }
    }

    /// READY→PAUSED, before pads are activated.
    pub(crate) fn prepare(&self, element: &gst::Element) -> Result<(), gst::StateChangeError> {
        locked(&self.state).stopping = false;
        if let Some(what) = self.values.verdict() {
            gst::element_error!(element, gst::ResourceError::Settings, ("{what}"));
            return Err(gst::StateChangeError);
        }
        Ok(())
    }

    /// READY→PAUSED, after pads are activated: threads start, and wait until the element plays.
    pub(crate) fn start(self: &Arc<Self>, element: &gst::Element) -> Result<(), gst::StateChangeError> {
        self.start_threads(element).inspect_err(|_| {
            self.stop();
            for pad in element.src_pads() {
                let _ = pad.set_active(false);
            }
            Self::stopped(element);
        })
    }

    fn start_threads(self: &Arc<Self>, element: &gst::Element) -> Result<(), gst::StateChangeError> {
        for pad in element.src_pads() {
            if !pad.is_linked() {
                continue;
            }
            let stream = if self.facts.fixed_at_paused {
                let made = self.negotiate(element, &pad);
                Some(made.map_err(|what| {
                    gst::element_error!(element, gst::StreamError::Format, ("{what}"));
                    gst::StateChangeError
                })?)
            } else {
                None
            };
            self.start_thread(element, &pad, stream).map_err(|_| gst::StateChangeError)?;
        }
        Ok(())
    }

    fn start_thread(
        self: &Arc<Self>,
        element: &gst::Element,
        pad: &gst::Pad,
        stream: Option<Stream>,
    ) -> Result<(), glib::BoolError> {
        let (camera, element, weak) = (Arc::clone(self), element.downgrade(), pad.downgrade());
        let mut stream = stream;
        let mut begun = false;
        pad.start_task(move || {
            let (Some(element), Some(pad)) = (element.upgrade(), weak.upgrade()) else { return };
            if !camera.await_playing() {
                let _ = pad.pause_task();
                return;
            }
            if stream.is_none() {
                match camera.negotiate(&element, &pad) {
                    Ok(made) => stream = Some(made),
                    Err(what) => {
                        // The words of the base class for sources; the reason stands only in the debug text.
                        let debug = format!("streaming stopped, reason not-negotiated (-4): {what}");
                        gst::element_error!(
                            element,
                            gst::StreamError::Failed,
                            ("Internal data stream error."),
                            ["{debug}"]
                        );
                        pad.push_event(gst::event::Eos::new());
                        let _ = pad.pause_task();
                        return;
                    }
                }
            }
            let Some(stream) = stream.as_mut() else { return };
            if !begun {
                begun = true;
                let id = format!("{}/{}", element.name(), pad.name());
                let group = gst::GroupId::next();
                pad.push_event(gst::event::StreamStart::builder(&id).group_id(group).build());
                pad.push_event(gst::event::Caps::new(&stream.caps));
                pad.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
            }
            if !camera.frame(&element, &pad, stream) {
                let _ = pad.pause_task();
            }
        })
    }

    /// Waits until the element plays; false if it stops instead.
    fn await_playing(&self) -> bool {
        let mut state = locked(&self.state);
        while !state.playing && !state.stopping {
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.stopping
    }

    /// Waits until `due`; false if the element pauses or stops first.
    fn await_due(&self, due: Instant) -> bool {
        let mut state = locked(&self.state);
        loop {
            if state.stopping || !state.playing {
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// One frame of a stream, in its time; false when the stream is over.
    fn frame(&self, element: &gst::Element, pad: &gst::Pad, stream: &mut Stream) -> bool {
        let camera = locked(&self.state).open.clone().map(|c| c.0).unwrap_or_default();
        if locked(&self.state).eos {
            pad.push_event(gst::event::Eos::new());
            return false;
        }
        if pad.name().starts_with("image_") && !self.await_shot() {
            return !locked(&self.state).stopping;
        }
        let (since, frames) = *stream.since.get_or_insert_with(|| (Instant::now(), 0));
        let due = since + stream.period * frames as u32;
        if !self.await_due(due) {
            stream.since = None;
            return true;
        }
        let late = since.elapsed().as_nanos() / stream.period.as_nanos().max(1);
        stream.since = Some((since, (frames + 1).max(late as u64)));
        match faults::of(&camera) {
            None => {}
            Some(Fault::Stall) => return true,
            Some(fault) => {
                let name = element.name();
                events::event("camera-failed", &self.double.element, &name, json!({"camera": camera}));
                gst::element_error!(element, gst::ResourceError::Read, ("camera {camera:?}: {fault:?} (as asked for)"));
                pad.push_event(gst::event::Eos::new());
                return false;
            }
        }
        let number = stream.number;
        stream.number = number.wrapping_add(1);
        let Some(buffer) = self.capture(element, pad, stream, number, due) else { return true };
        match pad.push(buffer) {
            Ok(_) => true,
            Err(gst::FlowError::Flushing) => !locked(&self.state).stopping,
            Err(gst::FlowError::Eos) => {
                pad.push_event(gst::event::Eos::new());
                false
            }
            Err(e) => {
                gst::element_error!(element, gst::StreamError::Failed, ("streaming stopped: {e}"));
                pad.push_event(gst::event::Eos::new());
                false
            }
        }
    }

    /// A frame with its time, or `None` if no buffer is free.
    fn capture(
        &self,
        element: &gst::Element,
        pad: &gst::Pad,
        stream: &mut Stream,
        number: u16,
        due: Instant,
    ) -> Option<gst::Buffer> {
        let name = element.name();
        let Ok(mut buffer) = stream.pool.take() else {
            let fields = json!({"pad": pad.name().as_str(), "number": number});
            events::event("starved", &self.double.element, &name, fields);
            return None;
        };
        let (_, pixels) = crate::memory::find(buffer.peek_memory(0))?;
        let fresh = stream.painted.insert(std::ptr::from_ref(pixels.as_ref()) as usize);
        pixels.write(|out| picture::paint(out, stream.pool.layout(), number, fresh));
        // A sensor exposes in its time, however late the machine is to see the frame.
        let late = gst::ClockTime::from_nseconds(due.elapsed().as_nanos() as u64);
        let exposed = element.current_running_time()?.saturating_sub(late);
        if stream.caps.structure(0).is_some_and(|s| s.name() == "image/jpeg") {
            buffer = Self::jpeg(stream, &buffer)?;
        } else if !stream.dmabuf {
            let layout = stream.pool.layout();
            let mut plain = gst::Buffer::from_slice(pixels.as_ref().as_ref().to_vec());
            let new = plain.make_mut();
            let (offsets, strides) = (&layout.offsets, &layout.strides);
            let flags = video::VideoFrameFlags::empty();
            let (width, height) = (layout.width, layout.height);
            video::VideoMeta::add_full(new, flags, layout.format, width, height, offsets, strides).ok()?;
            buffer = plain;
        }
        let timed = buffer.make_mut();
        timed.set_pts(exposed);
        timed.set_duration(gst::ClockTime::from_nseconds(stream.period.as_nanos() as u64));
        timed.set_offset(u64::from(number));
        Some(buffer)
    }

    fn jpeg(stream: &Stream, buffer: &gst::Buffer) -> Option<gst::Buffer> {
        let (_, pixels) = crate::memory::find(buffer.peek_memory(0))?;
        let mut plain = gst::Buffer::from_slice(pixels.as_ref().as_ref().to_vec());
        let _ = buffer.copy_into(plain.make_mut(), gst::BufferCopyFlags::META, ..);
        let layout = stream.pool.layout();
        let info = video::VideoInfo::builder(layout.format, layout.width, layout.height).fps(gst::Fraction::new(30, 1));
        let caps = info.build().ok()?.to_caps().ok()?;
        let sample = gst::Sample::builder().buffer(&plain).caps(&caps).build();
        let made = video::convert_sample(
            &sample,
            &gst::Caps::new_empty_simple("image/jpeg"),
            Some(gst::ClockTime::from_seconds(10)),
        );
        made.inspect_err(|e| log::error!("no JPEG: {e}")).ok()?.buffer_owned()
    }

    /// Waits until a still picture is asked for; false if the element pauses or stops first.
    fn await_shot(&self) -> bool {
        let mut state = locked(&self.state);
        while state.shots == 0 {
            if state.stopping || !state.playing {
                return false;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.shots -= 1;
        true
    }

    /// Signal `capture-image`.
    pub(crate) fn shoot(&self, element: &gst::Element, count: u32) -> bool {
        let has_image_pad = element.src_pads().iter().any(|p| p.name().starts_with("image_"));
        let taken = has_image_pad && locked(&self.state).playing;
        if taken {
            locked(&self.state).shots += count.max(1);
            self.wake.notify_all();
        }
        events::event("capture-image", &self.double.element, &element.name(), json!({"count": count, "taken": taken}));
        taken
    }

    /// Signal `cancel-capture`.
    pub(crate) fn cancel(&self) -> bool {
        locked(&self.state).shots = 0;
        true
    }

    /// PAUSED→PLAYING and back.
    pub(crate) fn play(&self, playing: bool) {
        locked(&self.state).playing = playing;
        self.wake.notify_all();
    }

    /// PAUSED→READY, before pads are deactivated.
    pub(crate) fn stop(&self) {
        locked(&self.state).stopping = true;
        self.wake.notify_all();
    }

    /// PAUSED→READY, after pads are deactivated.
    pub(crate) fn stopped(element: &gst::Element) {
        for pad in element.src_pads() {
            let _ = pad.stop_task();
        }
    }

    /// EOS that the application sends to the element.
    pub(crate) fn end(&self) {
        locked(&self.state).eos = true;
        self.wake.notify_all();
    }

    /// What the open camera can do on this pad.
    pub(crate) fn caps(&self, pad: &gst::Pad) -> gst::Caps {
        let template = pad.pad_template_caps();
        let state = locked(&self.state);
        let Some((_, handler)) = &state.open else { return template };
        let Some(formats) = self.facts.handlers.get(handler) else { return template };
        let mut caps = gst::Caps::new_empty();
        for format in formats {
            let structure = match format.as_str() {
                "image/jpeg" => gst::Structure::builder("image/jpeg"),
                raw => gst::Structure::builder("video/x-raw").field("format", raw),
            };
            let structure = structure.field("width", gst::IntRange::new(64, 4056));
            let structure = structure.field("height", gst::IntRange::new(64, 3040));
            let rates = gst::FractionRange::new(gst::Fraction::new(1, 1), gst::Fraction::new(120, 1));
            caps.get_mut().expect("not shared yet").append_structure(structure.field("framerate", rates).build());
        }
        caps.intersect_with_mode(&template, gst::CapsIntersectMode::First)
    }

    fn negotiate(&self, element: &gst::Element, pad: &gst::Pad) -> Result<Stream, String> {
        let own = self.caps(pad);
        let peer = pad.peer_query_caps(Some(&own));
        let mut common = own.intersect_with_mode(&peer, gst::CapsIntersectMode::First);
        if common.is_empty() {
            return Err(format!(
                "{}: this camera gives {own}, downstream takes {}",
                pad.name(),
                pad.peer_query_caps(None)
            ));
        }
        common.truncate();
        let structure = common.make_mut().structure_mut(0).ok_or("no caps")?;
        structure.fixate_field_nearest_int("width", 1920);
        structure.fixate_field_nearest_int("height", 1080);
        if structure.has_field("framerate") {
            structure.fixate_field_nearest_fraction("framerate", gst::Fraction::new(30, 1));
        } else {
            structure.set("framerate", gst::Fraction::new(30, 1));
        }
        common.fixate();
        let structure = common.structure(0).ok_or("no caps")?;
        let rate: gst::Fraction = structure.get("framerate").map_err(|e| e.to_string())?;
        let dmabuf = self
            .facts
            .io_mode
            .as_ref()
            .is_none_or(|(property, values)| self.values.number(property).is_some_and(|v| values.contains(&v)));
        let raw = if structure.name() == "image/jpeg" {
            let size = |field| structure.get::<i32>(field).unwrap_or(64);
            let nv12 = gst::Caps::builder("video/x-raw").field("format", "NV12").field("width", size("width"));
            nv12.field("height", size("height")).field("framerate", rate).build()
        } else {
            common.clone()
        };
        let guarded = std::env::var("MOS_DOUBLES_GUARD").as_deref() != Ok("off");
        let memory = if guarded { Output::GuardedDmabuf } else { Output::Dmabuf };
        let layout = Layout::of(&raw, memory).ok_or_else(|| format!("cannot give {common}"))?;
        let extra = self.facts.extra_buffers.as_ref().filter(|name| pad.has_property(name));
        let extra = extra.map_or(0, |name| pad.property_value(name).get::<u32>().unwrap_or(0));
        let pool = Pool::start(&raw, layout, self.facts.buffers + extra)?;
        let fields =
            json!({"pad": pad.name().as_str(), "caps": common.to_string(), "buffers": self.facts.buffers + extra});
        events::event("caps", &self.double.element, &element.name(), fields);
        let seconds = f64::from(rate.denom()) / f64::from(rate.numer().max(1));
        let period = Duration::from_secs_f64(seconds);
        Ok(Stream { pool, caps: common, dmabuf, period, since: None, number: 0, painted: BTreeSet::new() })
    }

    /// Answers a query on a pad; false if it is for the default handler.
    pub(crate) fn query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Caps(query) => {
                let caps = if self.facts.tells_caps { self.caps(pad) } else { pad.pad_template_caps() };
                let caps = match query.filter_owned() {
                    Some(filter) => filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First),
                    None => caps,
                };
                query.set_result(&caps);
                true
            }
            gst::QueryViewMut::Latency(query) => {
                let rate = pad.current_caps().and_then(|c| c.structure(0)?.get::<gst::Fraction>("framerate").ok());
                let rate = rate.unwrap_or(gst::Fraction::new(30, 1));
                let frame = gst::ClockTime::SECOND.mul_div_floor(rate.denom() as u64, rate.numer().max(1) as u64);
                query.set(true, frame.unwrap_or(gst::ClockTime::SECOND), gst::ClockTime::NONE);
                true
            }
            _ => false,
        }
    }

    /// The number for a pad that was asked for without a name.
    pub(crate) fn next_pad(&self) -> u32 {
        let mut state = locked(&self.state);
        state.next_pad += 1;
        state.next_pad - 1
    }

    /// Whether the camera is open, which for some properties is too late.
    pub(crate) fn is_open(&self) -> bool {
        locked(&self.state).open.is_some()
    }
}
