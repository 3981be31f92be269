//! The behaviour that all codec and converter doubles share: a bin around a software element that does the work.
//!
//! Promises real coded output; that pixels are taken from a camera's memory only where the real element imports it, else a
//! `copy` is written to the log; and that bitrate, keyframe distance and profile act in the unit and with the defaults of the
//! data file.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_allocators as allocators;
use gstreamer_video as video;
use gstreamer_video::prelude::*;
use serde_json::json;

use crate::data::{Double, Import, Output};
use crate::events;
use crate::memory;
use crate::pool::{Layout, Pool};
use crate::values::Values;

/// Distance of keyframes that the software encoder never reaches: the double itself asks for each.
const NEVER: &str = "1073741824";

/// The part of a codec double that does not depend on its element type.
#[derive(Debug)]
pub(crate) struct Codec {
    double: &'static Double,
    pub(crate) values: Values,
    inner: OnceLock<Inner>,
    /// Frames since the last keyframe; negative before the first.
    since_key: AtomicI64,
    imported: AtomicU64,
    copied: AtomicU64,
    output: Mutex<Option<Pool>>,
}

#[derive(Debug)]
struct Inner {
    first: gst::Element,
    last: gst::Element,
    /// The encoder, put in when the element first becomes PAUSED.
    encoder: OnceLock<Coder>,
}

/// The software encoder, and the filter behind it that sets the profile.
#[derive(Debug)]
struct Coder {
    element: gst::Element,
    filter: gst::Element,
    h265: bool,
}

/// Pixels of a buffer that stays taken as long as somebody reads them.
struct Held {
    pixels: Arc<memory::Pixels>,
    _buffer: gst::Buffer,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.pixels.as_ref().as_ref()
    }
}

fn make(factory: &str) -> gst::Element {
    gst::ElementFactory::make(factory).build().unwrap_or_else(|e| panic!("doubles need the element {factory}: {e}"))
}

impl Codec {
    pub(crate) fn new(double: &'static Double) -> Arc<Self> {
        Arc::new(Self {
            double,
            values: Values::new(&double.element, &double.property, &double.control),
            inner: OnceLock::new(),
            since_key: AtomicI64::new(-1),
            imported: AtomicU64::new(0),
            copied: AtomicU64::new(0),
            output: Mutex::default(),
        })
    }

    /// Fills the bin. Called once, when it is made.
    pub(crate) fn build(self: &Arc<Self>, bin: &gst::Bin) {
        let (first, last) = (make("capsfilter"), make("capsfilter"));
        first.set_property("caps", self.plain("sink"));
        last.set_property("caps", self.plain("src"));
        let middle = if self.double.converter.is_some() {
            vec![make("videoconvertscale")]
        } else if self.double.jpeg.is_some() {
            vec![make("videoconvert"), make("jpegenc")]
        } else {
            // An encoder's middle depends on what downstream takes, a decoder's on what comes in.
            Vec::new()
        };
        bin.add_many([&first, &last]).expect("new elements can be added");
        // Linked even while there is nothing between them: a real element has no loose pads for others to find.
        Self::insert(bin, &first, &middle, &last).expect("the elements of a double fit");
        self.ghost(bin, &first, "sink");
        self.ghost(bin, &last, "src");
        let _ = self.inner.set(Inner { first: first.clone(), last: last.clone(), encoder: OnceLock::new() });
        self.watch(bin, &first, &last);
    }

    fn insert(
        bin: &gst::Bin,
        first: &gst::Element,
        middle: &[gst::Element],
        last: &gst::Element,
    ) -> Result<(), glib::BoolError> {
        first.unlink(last);
        bin.add_many(middle)?;
        let all: Vec<_> = std::iter::once(first).chain(middle).chain([last]).collect();
        for pair in all.windows(2) {
            // Without a check of caps, which would ask all elements around the double before they are ready to tell.
            pair[0].link_pads_full(Some("src"), pair[1], Some("sink"), gst::PadLinkCheck::empty())?;
        }
        Ok(())
    }

    /// Puts the software encoder in, when it is known which coding downstream takes.
    fn encode(&self, bin: &gst::Bin) -> Result<(), String> {
        let (Some(facts), Some(inner)) = (&self.double.encoder, self.inner.get()) else { return Ok(()) };
        if inner.encoder.get().is_some() {
            return Ok(());
        }
        let h265 = match facts.codec.as_str() {
            "caps" => {
                let own = self.plain("src");
                let asked = bin.static_pad("src").map(|p| p.peer_query_caps(Some(&own)));
                let first = asked.as_ref().and_then(|c| c.structure(0)).map(|s| s.name().to_string());
                first.is_some_and(|name| name == "video/x-h265")
            }
            codec => codec == "h265",
        };
        let coder = make(if h265 { "x265enc" } else { "x264enc" });
        coder.set_property_from_str("speed-preset", "ultrafast");
        coder.set_property_from_str("tune", "zerolatency");
        coder.set_property_from_str("key-int-max", NEVER);
        if h265 {
            coder.set_property("option-string", "pools=1:frame-threads=1:log-level=none:scenecut=0:open-gop=0");
        } else {
            coder.set_property("threads", 1_u32);
            coder.set_property("option-string", "scenecut=0");
        }
        let filter = make("capsfilter");
        let parse = make(if h265 { "h265parse" } else { "h264parse" });
        // Parameter sets before every keyframe.
        parse.set_property("config-interval", -1_i32);
        let middle = [make("videoconvert"), coder.clone(), filter.clone(), parse];
        Self::insert(bin, &inner.first, &middle, &inner.last).map_err(|e| e.to_string())?;
        let _ = inner.encoder.set(Coder { element: coder, filter, h265 });
        Ok(())
    }

    /// The template's caps as far as they mean memory of any kind.
    fn plain(&self, pad: &str) -> gst::Caps {
        let facts = self.double.pad.iter().find(|p| p.name == pad).expect("codecs have sink and src");
        let caps: gst::Caps = facts.caps.parse().expect("caps of a data file parse");
        let plain = |(structure, features): &(&gst::StructureRef, &gst::CapsFeaturesRef)| {
            let _ = structure;
            features.is_equal(gst::CAPS_FEATURES_MEMORY_SYSTEM_MEMORY.as_ref())
        };
        let mut some = gst::Caps::new_empty();
        for (structure, _) in caps.iter_with_features().filter(plain) {
            some.make_mut().append_structure(structure.to_owned());
        }
        some
    }

    fn ghost(self: &Arc<Self>, bin: &gst::Bin, element: &gst::Element, name: &'static str) {
        let target = element.static_pad(name).expect("filters have sink and src");
        let template = bin.pad_template(name).expect("codecs have sink and src");
        let ghost = gst::GhostPad::builder_from_template_with_target(&template, &target).expect("a free pad");
        let codec = Arc::clone(self);
        let ghost = ghost.name(name).query_function(move |pad, parent, query| {
            codec.query(name, query) || gst::Pad::query_default(pad, parent, query)
        });
        let _ = bin.add_pad(&ghost.build());
    }

    /// Codecs take and give what their templates say; what is inside changes with the coding. False: ask inside.
    fn query(&self, pad: &str, query: &mut gst::QueryRef) -> bool {
        if self.double.converter.is_some() {
            return false;
        }
        let own = self.plain(pad);
        match query.view_mut() {
            gst::QueryViewMut::Caps(query) => {
                let filter = query.filter_owned();
                let caps = filter.map_or(own.clone(), |f| f.intersect_with_mode(&own, gst::CapsIntersectMode::First));
                query.set_result(&caps);
                true
            }
            gst::QueryViewMut::AcceptCaps(query) => {
                let accepted = query.caps_owned().can_intersect(&own);
                query.set_result(accepted);
                true
            }
            _ => false,
        }
    }

    /// Looks at everything that comes in and goes out.
    fn watch(self: &Arc<Self>, bin: &gst::Bin, first: &gst::Element, last: &gst::Element) {
        use gst::{PadProbeData, PadProbeReturn, PadProbeType};
        let (codec, weak) = (Arc::clone(self), bin.downgrade());
        let mask = PadProbeType::BUFFER | PadProbeType::EVENT_DOWNSTREAM | PadProbeType::QUERY_DOWNSTREAM;
        let sink = first.static_pad("sink").expect("filters have a sink");
        sink.add_probe(mask, move |_, info| {
            let Some(bin) = weak.upgrade() else { return PadProbeReturn::Ok };
            match &mut info.data {
                Some(PadProbeData::Buffer(buffer)) => {
                    let Some(taken) = codec.take(&bin, buffer) else {
                        info.data = None;
                        info.flow_res = Err(gst::FlowError::Error);
                        return PadProbeReturn::Handled;
                    };
                    *buffer = taken;
                }
                Some(PadProbeData::Event(event)) => return codec.event_in(&bin, event),
                // The real element offers no pool that a software element could name.
                Some(PadProbeData::Query(query)) if query.type_() == gst::QueryType::Allocation => {
                    return PadProbeReturn::Drop;
                }
                _ => {}
            }
            PadProbeReturn::Ok
        });
        let (codec, weak) = (Arc::clone(self), bin.downgrade());
        let mask = PadProbeType::BUFFER | PadProbeType::EVENT_UPSTREAM;
        let src = last.static_pad("src").expect("filters have a source");
        src.add_probe(mask, move |pad, info| {
            let Some(bin) = weak.upgrade() else { return PadProbeReturn::Ok };
            match &mut info.data {
                Some(PadProbeData::Buffer(buffer)) => {
                    if let Some(given) = codec.give(&bin, pad, buffer) {
                        *buffer = given;
                    }
                }
                Some(PadProbeData::Event(event)) => codec.log_force(&bin, event),
                _ => {}
            }
            PadProbeReturn::Ok
        });
    }

    fn event_in(&self, bin: &gst::Bin, event: &gst::Event) -> gst::PadProbeReturn {
        self.log_force(bin, event);
        let gst::EventView::Caps(caps) = event.view() else { return gst::PadProbeReturn::Ok };
        let caps = caps.caps();
        events::event("caps", &self.double.element, &bin.name(), json!({"pad": "sink", "caps": caps.to_string()}));
        let Some(facts) = &self.double.decoder else { return gst::PadProbeReturn::Ok };
        let Some(structure) = caps.structure(0) else { return gst::PadProbeReturn::Drop };
        let missing: Vec<_> = facts.required.iter().filter(|f| !structure.has_field(f.as_str())).collect();
        if !missing.is_empty() {
            let what = format!("caps lack {missing:?}: {caps}");
            events::fault(&self.double.element, &bin.name(), &what);
            gst::element_error!(bin, gst::StreamError::Format, ("{what}"));
            return gst::PadProbeReturn::Drop;
        }
        if let Err(what) = self.decode(bin, structure.name()) {
            gst::element_error!(bin, gst::StreamError::Format, ("{what}"));
            return gst::PadProbeReturn::Drop;
        }
        gst::PadProbeReturn::Ok
    }

    /// Puts the software decoder in, at the first caps.
    fn decode(&self, bin: &gst::Bin, media: &str) -> Result<(), String> {
        let inner = self.inner.get().ok_or("not built")?;
        let next = inner.first.static_pad("src").and_then(|p| p.peer()).and_then(|p| p.parent_element());
        if next.is_some_and(|next| next != inner.last) {
            return Ok(());
        }
        let chain: &[&str] = match media {
            "video/x-h264" => &["h264parse", "avdec_h264"],
            "video/x-h265" => &["h265parse", "avdec_h265"],
            "image/jpeg" => &["jpegdec"],
            other => return Err(format!("the double has no decoder of {other}")),
        };
        let middle: Vec<_> = chain.iter().copied().chain(["videoconvert"]).map(make).collect();
        Self::insert(bin, &inner.first, &middle, &inner.last).map_err(|e| e.to_string())?;
        let drops = self.double.decoder.as_ref().and_then(|d| d.frame_drop.as_ref());
        for element in &middle {
            if element.has_property("max-threads") {
                element.set_property("max-threads", 1_i32);
                let drops = drops.and_then(|name| self.values.number(name)).unwrap_or(0) != 0;
                element.set_property("qos", drops);
            }
            element.sync_state_with_parent().map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn log_force(&self, bin: &gst::Bin, event: &gst::Event) {
        if video::ForceKeyUnitEvent::is(event) {
            events::event("force-key-unit", &self.double.element, &bin.name(), json!({}));
        }
    }

    /// A buffer that comes in, with memory that the software element can read. `None` if the real element would fail.
    fn take(&self, bin: &gst::Bin, buffer: &gst::Buffer) -> Option<gst::Buffer> {
        if let Some(what) = self.values.verdict() {
            gst::element_error!(bin, gst::ResourceError::Settings, ("{what}"));
            return None;
        }
        self.ask_for_key();
        let encoder = self.double.encoder.as_ref().map(|f| f.import);
        let import = encoder.or(self.double.converter.as_ref().map(|f| f.import));
        let Some(import) = import.or(self.double.jpeg.as_ref().map(|f| f.import)) else { return Some(buffer.clone()) };
        let first = (buffer.n_memory() > 0).then(|| buffer.peek_memory(0))?;
        let is_dmabuf = first.is_memory_type::<allocators::DmaBufMemory>();
        let is_fd = first.is_memory_type::<allocators::FdMemory>();
        let reason = match import {
            Import::Fd => (!is_fd).then_some("memory without a file descriptor"),
            Import::Dmabuf => (!is_dmabuf).then_some("memory that is no dmabuf"),
            Import::OutputIoMode => {
                let mode = self.values.number("output-io-mode");
                // 5: dmabuf-import.
                (!is_dmabuf)
                    .then_some("memory that is no dmabuf")
                    .or((mode != Some(5)).then_some("output-io-mode is not dmabuf-import"))
            }
            Import::Never => Some("takes no memory as it is"),
        };
        let found = memory::find(first);
        if let Some(reason) = reason {
            if self.double.jpeg.is_some() {
                gst::element_error!(
                    bin,
                    gst::StreamError::Failed,
                    ("takes only memory with a file descriptor: {reason}")
                );
                return None;
            }
            // Said of the first and then now and again: a line per frame would drown the rest.
            let count = self.copied.fetch_add(1, Ordering::Relaxed) + 1;
            if count == 1 || count.is_multiple_of(100) {
                let fields = json!({"reason": reason, "count": count, "camera": found.is_some()});
                events::event("copy", &self.double.element, &bin.name(), fields);
            }
        } else {
            let count = self.imported.fetch_add(1, Ordering::Relaxed) + 1;
            if count == 1 || count.is_multiple_of(100) {
                let fields = json!({"count": count, "camera": found.is_some()});
                events::event("import", &self.double.element, &bin.name(), fields);
            }
        }
        let Some((_, pixels)) = found else { return Some(buffer.clone()) };
        let mut readable = gst::Buffer::new();
        let new = readable.make_mut();
        new.append_memory(gst::Memory::from_slice(Held { pixels, _buffer: buffer.clone() }));
        let what = gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS;
        buffer.copy_into(new, what, ..).ok()?;
        if let Some(meta) = buffer.meta::<video::VideoMeta>() {
            let (flags, format) = (meta.video_frame_flags(), meta.format());
            video::VideoMeta::add_full(new, flags, format, meta.width(), meta.height(), meta.offset(), meta.stride())
                .ok()?;
        }
        Some(readable)
    }

    /// Asks the software encoder for a keyframe when the distance of keyframes is reached.
    fn ask_for_key(&self) {
        let (Some(facts), Some(encoder)) = (&self.double.encoder, self.inner.get().and_then(|i| i.encoder.get()))
        else {
            return;
        };
        let since = self.since_key.fetch_add(1, Ordering::Relaxed) + 1;
        let gop = self.values.setting(&facts.gop).unwrap_or(0);
        let every = facts.gop_every.contains(&gop);
        if since > 0 && !facts.gop_first_only.contains(&gop) && (every || (gop > 0 && since >= gop)) {
            self.since_key.store(0, Ordering::Relaxed);
            if let Some(pad) = encoder.element.static_pad("src") {
                pad.send_event(video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
            }
        }
    }

    /// A buffer that goes out, in the memory that the real element gives.
    fn give(&self, bin: &gst::Bin, pad: &gst::Pad, buffer: &gst::Buffer) -> Option<gst::Buffer> {
        if self.double.encoder.is_some() {
            if !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT) {
                self.since_key.store(0, Ordering::Relaxed);
            }
            return None;
        }
        let output =
            self.double.decoder.as_ref().map(|d| d.output).or(self.double.converter.as_ref().map(|c| c.output))?;
        let given = self.copy_out(pad, buffer, output);
        given.inspect_err(|e| events::fault(&self.double.element, &bin.name(), e)).ok()
    }

    fn copy_out(&self, pad: &gst::Pad, buffer: &gst::Buffer, output: Output) -> Result<gst::Buffer, String> {
        let caps = pad.current_caps().ok_or("no caps")?;
        let info = video::VideoInfo::from_caps(&caps).map_err(|e| e.to_string())?;
        let mut pool = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |p: &Pool| {
            p.layout().width == info.width() && p.layout().height == info.height() && p.layout().format == info.format()
        };
        if !pool.as_ref().is_some_and(fits) {
            let layout = Layout::of(&caps, output).ok_or("no layout")?;
            *pool = Some(Pool::start(&caps, layout, 0)?);
        }
        let pool = pool.as_ref().ok_or("no pool")?;
        let mut out = pool.take().map_err(|e| e.to_string())?;
        let (_, pixels) = memory::find(out.peek_memory(0)).ok_or("a buffer of our own without pixels")?;
        let frame = video::VideoFrameRef::from_buffer_ref_readable(buffer, &info).map_err(|e| e.to_string())?;
        let layout = pool.layout();
        pixels.write(|to| {
            for plane in 0..info.n_planes() as usize {
                let Ok(from) = frame.plane_data(plane as u32) else { continue };
                let (stride, to_stride) = (frame.plane_stride()[plane] as usize, layout.strides[plane] as usize);
                let rows = to[layout.offsets[plane]..].chunks_exact_mut(to_stride);
                for (row, from) in rows.zip(from.chunks(stride)) {
                    let n = from.len().min(to_stride);
                    row[..n].copy_from_slice(&from[..n]);
                }
            }
        });
        let what = gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS;
        buffer.copy_into(out.make_mut(), what, ..).map_err(|e| e.to_string())?;
        Ok(out)
    }

    /// NULL→READY and READY→PAUSED: settings act.
    pub(crate) fn prepare(&self, bin: &gst::Bin) -> Result<(), gst::StateChangeError> {
        if let Some(what) = self.values.verdict() {
            gst::element_error!(bin, gst::ResourceError::Settings, ("{what}"));
            return Err(gst::StateChangeError);
        }
        if let Err(what) = self.encode(bin) {
            gst::element_error!(bin, gst::StreamError::Failed, ("{what}"));
            return Err(gst::StateChangeError);
        }
        self.since_key.store(-1, Ordering::Relaxed);
        self.configure(bin, true);
        if let (Some(facts), Some(inner)) = (&self.double.jpeg, self.inner.get()) {
            let quality = self.values.number(&facts.quality).unwrap_or(85);
            let coder = inner.last.static_pad("sink").and_then(|p| p.peer()).and_then(|p| p.parent_element());
            if let Some(coder) = coder {
                coder.set_property("quality", quality as i32);
            }
        }
        Ok(())
    }

    /// Gives bitrate and profile to the software encoder; `stopped` if it is not running yet.
    pub(crate) fn configure(&self, bin: &gst::Bin, stopped: bool) {
        let (Some(facts), Some(inner)) = (&self.double.encoder, self.inner.get()) else { return };
        let Some(Coder { element: coder, filter, h265 }) = inner.encoder.get() else { return };
        let property = self.double.property.iter().find(|p| p.name == facts.bitrate);
        let asked = self.values.setting(&facts.bitrate).unwrap_or(0);
        let automatic = property.is_some_and(|p| p.automatic.contains(&asked));
        let bits = if automatic { facts.automatic } else { asked.saturating_mul(facts.bits_per_unit) };
        let ignored =
            facts.uncontrolled.as_ref().is_some_and(|(name, value)| self.values.setting(name) == Some(*value));
        let kilobits = (bits / 1000).clamp(1, 100_000) as u32;
        coder.set_property("bitrate", kilobits);
        if stopped {
            if coder.has_property("pass") {
                coder.set_property_from_str("pass", if ignored { "quant" } else { "cbr" });
            }
            let profile = if *h265 { "main".to_owned() } else { self.profile(bin) };
            let media = if *h265 { "video/x-h265" } else { "video/x-h264" };
            if coder.has_property("dct8x8") {
                // The preset leaves out what makes the difference between the profiles.
                coder.set_property("cabac", !profile.contains("baseline"));
                coder.set_property("dct8x8", profile.starts_with("high"));
            }
            filter.set_property("caps", gst::Caps::builder(media).field("profile", &profile).build());
            events::event("profile", &self.double.element, &bin.name(), json!({"profile": profile}));
        }
        let fields = json!({"bits_per_second": bits, "controlled": !ignored, "automatic": automatic});
        events::event("rate", &self.double.element, &bin.name(), fields);
        if ignored && !automatic {
            let (name, value) = facts.uncontrolled.as_ref().expect("ignored because of it");
            let what = format!("{} is ignored while {name} is {value}", facts.bitrate);
            events::event("bitrate-ignored", &self.double.element, &bin.name(), json!({"what": what}));
        }
    }

    /// The profile: by property, else as downstream asks, else the family's default.
    fn profile(&self, bin: &gst::Bin) -> String {
        let Some(facts) = &self.double.encoder else { return String::new() };
        let set = facts.profile.as_ref().and_then(|name| self.values.setting(name));
        if let Some(profile) = set.and_then(|v| facts.profiles.get(&v.to_string())) {
            return profile.clone();
        }
        let asked = bin.static_pad("src").map_or_else(gst::Caps::new_any, |p| p.peer_query_caps(None));
        let asked = asked.iter().find_map(|s| {
            let field = s.value("profile").ok()?;
            let list = field.get::<gst::List>().ok().and_then(|l| l.first().and_then(|v| v.get::<String>().ok()));
            field.get::<String>().ok().or(list)
        });
        asked.unwrap_or_else(|| facts.default_profile.clone())
    }

    /// PAUSED→READY: counts are told and forgotten.
    pub(crate) fn stopped(&self, bin: &gst::Bin) {
        let (imported, copied) = (self.imported.swap(0, Ordering::Relaxed), self.copied.swap(0, Ordering::Relaxed));
        let fields = json!({"imported": imported, "copied": copied});
        events::event("stopped", &self.double.element, &bin.name(), fields);
        *self.output.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
