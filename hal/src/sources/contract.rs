//! The element at which the raw branch of a camera begins: it says in the caps what memory the pictures really are in.
//!
//! Promises that behind it NV12 in dmabufs is `video/x-raw(memory:DMABuf)` (from GStreamer 1.24 on with `format=DMA_DRM`),
//! and all else plain `video/x-raw`; that the judgement is made by the memories of the buffers themselves, since no camera's
//! element advertises what it hands out; and that whoever watches hears of a change before the first such picture passes.
//! Never maps a picture.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use gstreamer_allocators::{CAPS_FEATURE_MEMORY_DMABUF, DmaBufMemory, FdMemory};
use gstreamer_video::{VideoFormat, VideoInfo};

use crate::codecs::families::Memory;

/// Its factory name in this process.
pub(crate) const ELEMENT: &str = "moscontract";
/// Buffers that the camera should have besides those that it fills: the queue before the encoder, the encoder's own, and one
/// on the way.
const BUFFERS: u32 = 8;

/// What passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passing {
    /// What the pictures are in.
    pub(super) memory: Memory,
    /// Their layout.
    pub(super) layout: VideoFormat,
    /// Their width and height in pixels.
    pub(super) size: (u32, u32),
    /// What those before were in, if there were any of this format.
    pub(super) before: Option<Memory>,
    /// How many came in this memory in a row, this one included, since one last passed in another.
    pub(super) in_a_row: u32,
}

/// What becomes of a picture that is the first, or in another memory than those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It passes, and those that follow in the same memory do.
    Pass,
    /// It is left out; the next one is judged again.
    LeaveOut,
    /// The stream is over.
    End,
}

/// Hears of what passes; whether it may.
pub(super) type Watch = Box<dyn Fn(Passing) -> Verdict + Send + Sync>;

/// Makes the element known under its name; once is enough.
pub(crate) fn register() -> Result<(), String> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    let register = || gst::Element::register(None, ELEMENT, gst::Rank::NONE, Contract::static_type());
    DONE.get_or_init(|| register().map_err(|e| e.to_string())).clone()
}

/// Sets who hears of what passes; only the first is heard.
pub(super) fn watch(contract: &Contract, watch: Watch) {
    let _ = contract.imp().watch.set(watch);
}

glib::wrapper! {
    /// The element.
    pub(crate) struct Contract(ObjectSubclass<imp::Contract>) @extends gst::Element, gst::Object;
}

/// What a picture is in. File descriptors that are not typed as dmabuf come from vendors' decoders and converters only.
pub(super) fn memory_of(buffer: &gst::BufferRef) -> Memory {
    let dmabuf = |m: &gst::MemoryRef| m.is_memory_type::<DmaBufMemory>() || m.is_memory_type::<FdMemory>();
    if buffer.n_memory() > 0 && buffer.iter_memories().all(dmabuf) { Memory::Dmabuf } else { Memory::System }
}

/// Plain caps of NV12 as caps of NV12 in dmabufs. `drm`: GStreamer is 1.24 or newer.
fn promised(plain: &gst::CapsRef, drm: bool) -> Option<gst::Caps> {
    let mut s = plain.structure(0)?.to_owned();
    if drm {
        s.set("format", "DMA_DRM");
        // Linear: no camera is asked for another NV12.
        s.set("drm-format", "NV12");
    }
    let features = gst::CapsFeatures::new([CAPS_FEATURE_MEMORY_DMABUF]);
    Some(gst::Caps::builder_full().structure_with_features(s, features).build())
}

/// The way back, for encoders: they import dmabufs, but list plain caps.
fn plain(promised: &gst::CapsRef) -> Option<gst::Caps> {
    let mut s = promised.structure(0)?.to_owned();
    if s.has_field("drm-format") {
        s.remove_field("drm-format");
        s.set("format", "NV12");
    }
    Some(gst::Caps::builder_full().structure(s).build())
}

/// Rewrites caps on their way into an element to plain ones.
pub(super) fn plain_before(element: &gst::Element) {
    let Some(pad) = element.static_pad("sink") else { return };
    // What is promised is asked for first, and what is plain is asked again when the rewritten caps come.
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| match info.query_mut().map(gst::QueryRef::view_mut) {
        Some(gst::QueryViewMut::AcceptCaps(q)) => {
            q.set_result(true);
            gst::PadProbeReturn::Handled
        }
        Some(gst::QueryViewMut::Caps(q)) => {
            q.set_result(&q.filter_owned().unwrap_or_else(gst::Caps::new_any));
            gst::PadProbeReturn::Handled
        }
        _ => gst::PadProbeReturn::Ok,
    });
    // An element behind that asks what may come hears of what it will see.
    pad.add_probe(gst::PadProbeType::QUERY_UPSTREAM | gst::PadProbeType::PUSH, |pad, info| {
        let Some(peer) = pad.peer() else { return gst::PadProbeReturn::Ok };
        let Some(gst::QueryViewMut::Caps(q)) = info.query_mut().map(gst::QueryRef::view_mut) else {
            return gst::PadProbeReturn::Ok;
        };
        let mut all = gst::Caps::new_empty();
        for s in peer.query_caps(None).iter() {
            let one = gst::Caps::builder_full().structure(s.to_owned()).build();
            all.merge(plain(&one).unwrap_or(one));
        }
        let wanted = q.filter_owned();
        q.set_result(&wanted.map_or(all.clone(), |f| f.intersect_with_mode(&all, gst::CapsIntersectMode::First)));
        gst::PadProbeReturn::Handled
    });
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
        let caps = info.event().and_then(|e| match e.view() {
            gst::EventView::Caps(caps) => plain(caps.caps()),
            _ => None,
        });
        if let Some(caps) = caps {
            info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&caps)));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Whether this GStreamer describes dmabufs by DRM formats.
fn by_drm_format() -> bool {
    let (major, minor, ..) = gst::version();
    (major, minor) >= (1, 24)
}

mod imp {
    use super::{
        BUFFERS, ElementExt, ElementImpl, ElementImplExt, GstObjectImpl, Memory, Mutex, MutexGuard, ObjectImpl,
        ObjectImplExt, ObjectSubclass, ObjectSubclassExt, OnceLock, PadExt, PadExtManual, Passing, PoisonError,
        Verdict, VideoFormat, VideoInfo, Watch, by_drm_format, glib, gst, memory_of, plain, promised,
    };
    use gstreamer::prelude::ElementClassExt as _;

    pub(crate) struct Contract {
        sink: gst::Pad,
        src: gst::Pad,
        state: Mutex<State>,
        pub(super) watch: OnceLock<Watch>,
    }

    #[derive(Default)]
    struct State {
        /// Caps that the camera announced.
        caps: Option<gst::Caps>,
        /// What the caps that were passed on say; `None` before, and after new ones have come.
        said: Option<Memory>,
        /// Pictures in another memory, in a row.
        odd: u32,
        /// Events that must follow the caps.
        held: Vec<gst::Event>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Contract {
        const NAME: &'static str = "MosContract";
        type Type = super::Contract;
        type ParentType = gst::Element;

        fn with_class(class: &Self::Class) -> Self {
            let template = |name| class.pad_template(name).expect("templates are declared below");
            let sink = gst::Pad::builder_from_template(&template("sink"))
                .chain_function(|_, parent, buffer| {
                    Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |this| this.chain(buffer))
                })
                .event_function(|pad, parent, event| {
                    Self::catch_panic_pad_function(parent, || false, |this| this.event(pad, event))
                })
                .query_function(|pad, parent, query| {
                    Self::catch_panic_pad_function(parent, || false, |this| this.query(pad, query))
                })
                .build();
            let src = gst::Pad::builder_from_template(&template("src")).build();
            Self { sink, src, state: Mutex::default(), watch: OnceLock::new() }
        }
    }

    impl ObjectImpl for Contract {
        fn constructed(&self) {
            self.parent_constructed();
            // Both pads are new and of different names: adding them cannot fail.
            let _ = self.obj().add_pad(&self.sink).and_then(|()| self.obj().add_pad(&self.src));
        }
    }

    impl GstObjectImpl for Contract {}

    impl ElementImpl for Contract {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: OnceLock<gst::subclass::ElementMetadata> = OnceLock::new();
            let about = "Says in the caps which memory pictures are in";
            Some(
                METADATA.get_or_init(|| {
                    gst::subclass::ElementMetadata::new("Buffer contract", "Filter/Video", about, "MOS")
                }),
            )
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: OnceLock<Vec<gst::PadTemplate>> = OnceLock::new();
            TEMPLATES.get_or_init(|| {
                let any = gst::CapsFeatures::new_any();
                let caps = gst::Caps::builder_full()
                    .structure(gst::Structure::new_empty("video/x-raw"))
                    .structure_with_features(gst::Structure::new_empty("video/x-raw"), any)
                    .build();
                let template =
                    |name, direction| gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps);
                let both = [template("sink", gst::PadDirection::Sink), template("src", gst::PadDirection::Src)];
                both.into_iter().flatten().collect()
            })
        }

        fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
            if transition == gst::StateChange::ReadyToPaused {
                *self.lock() = State::default();
            }
            self.parent_change_state(transition)
        }
    }

    impl Contract {
        fn lock(&self) -> MutexGuard<'_, State> {
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }

        fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
            let memory = memory_of(&buffer);
            let mut state = self.lock();
            if state.said == Some(memory) {
                state.odd = 0;
                drop(state);
                return self.src.push(buffer);
            }
            state.odd = state.odd.saturating_add(1);
            let (before, in_a_row) = (state.said, state.odd);
            let caps = state.caps.clone().ok_or(gst::FlowError::NotNegotiated)?;
            drop(state);
            let info = VideoInfo::from_caps(&caps).map_err(|_| gst::FlowError::NotNegotiated)?;
            let size = (info.width(), info.height());
            let passing = Passing { memory, layout: info.format(), size, before, in_a_row };
            match self.watch.get().map_or(Verdict::Pass, |watch| watch(passing)) {
                Verdict::Pass => {}
                Verdict::LeaveOut => return Ok(gst::FlowSuccess::Ok),
                Verdict::End => return Err(gst::FlowError::Error),
            }
            let mut state = self.lock();
            (state.said, state.odd) = (Some(memory), 0);
            let held = std::mem::take(&mut state.held);
            drop(state);
            self.announce(&caps, &info, memory)?;
            for event in held {
                self.src.push_event(event);
            }
            self.src.push(buffer)
        }

        fn announce(&self, caps: &gst::Caps, info: &VideoInfo, memory: Memory) -> Result<(), gst::FlowError> {
            let nv12 = info.format() == VideoFormat::Nv12 && memory == Memory::Dmabuf;
            let caps = if nv12 { promised(caps, by_drm_format()) } else { plain(caps) };
            let taken = caps.is_some_and(|caps| self.src.push_event(gst::event::Caps::new(&caps)));
            if taken { Ok(()) } else { Err(gst::FlowError::NotNegotiated) }
        }

        fn event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
            let mut state = self.lock();
            match event.view() {
                gst::EventView::Caps(caps) => {
                    state.caps = Some(caps.caps_owned());
                    (state.said, state.odd) = (None, 0);
                    return true;
                }
                gst::EventView::FlushStop(_) => state.held.clear(),
                // Nothing that follows them could still come before the caps.
                gst::EventView::StreamStart(_) => {}
                gst::EventView::Eos(_) => {
                    let held = std::mem::take(&mut state.held);
                    drop(state);
                    for event in held {
                        self.src.push_event(event);
                    }
                    return gst::Pad::event_default(pad, Some(&*self.obj()), event);
                }
                _ if event.is_serialized() && state.said.is_none() => {
                    state.held.push(event);
                    return true;
                }
                _ => {}
            }
            drop(state);
            gst::Pad::event_default(pad, Some(&*self.obj()), event)
        }

        fn query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
            match query.view_mut() {
                // Caps are rewritten: what the elements behind accept is no answer.
                gst::QueryViewMut::Caps(q) => {
                    let all = pad.pad_template_caps();
                    let result = q
                        .filter_owned()
                        .map_or(all.clone(), |f| f.intersect_with_mode(&all, gst::CapsIntersectMode::First));
                    q.set_result(&result);
                    true
                }
                gst::QueryViewMut::AcceptCaps(q) => {
                    let accepted = q.caps().is_subset(&pad.pad_template_caps());
                    q.set_result(accepted);
                    true
                }
                // The camera shall keep its own buffers, as many as the branches hold, with lines as long as it likes: an
                // answer without the meta makes it copy.
                gst::QueryViewMut::Allocation(q) => {
                    let size =
                        q.get_owned().0.and_then(|caps| VideoInfo::from_caps(&caps).ok()).map_or(0, |i| i.size());
                    q.add_allocation_pool(None::<&gst::BufferPool>, u32::try_from(size).unwrap_or(0), BUFFERS, 0);
                    q.add_allocation_meta::<gstreamer_video::VideoMeta>(None);
                    true
                }
                _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn dmabufs_are_described_in_the_words_of_either_gstreamer_and_back() {
        gst::init().unwrap();
        let camera: gst::Caps = "video/x-raw,format=NV12,width=64,height=64,framerate=30/1".parse().unwrap();
        let before = promised(&camera, false).unwrap();
        let since = promised(&camera, true).unwrap();
        for (caps, format, drm) in [(&before, "NV12", None), (&since, "DMA_DRM", Some("NV12"))] {
            assert!(caps.features(0).unwrap().contains(CAPS_FEATURE_MEMORY_DMABUF));
            let s = caps.structure(0).unwrap();
            assert_eq!((s.get::<&str>("format").unwrap(), s.get::<&str>("drm-format").ok()), (format, drm));
            assert!(plain(caps).unwrap().is_strictly_equal(&camera), "{caps}");
        }
    }
}
