//! The element types of cameras and their pads.
//!
//! Promises one GType per data file: the type's properties, pads and signals come from the file, the behaviour from
//! [`crate::camera`]. Registered by [`crate::sets`].

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;

use crate::camera::Camera;
use crate::data::Double;
use crate::enums;

/// Makes a pad of the template's type.
fn pad(template: &gst::PadTemplate, name: &str, camera: &Arc<Camera>) -> gst::Pad {
    let camera = Arc::clone(camera);
    let builder = gst::Pad::builder_from_template(template).name(name);
    let builder = builder.query_function(move |pad, parent, query| {
        camera.query(pad, query) || gst::Pad::query_default(pad, parent, query)
    });
    builder.build()
}

/// What `gst-inspect-1.0` says of a double.
pub(crate) fn metadata(double: &Double) -> gst::subclass::ElementMetadata {
    let title = format!("{} (double)", double.title);
    gst::subclass::ElementMetadata::new(&title, &double.klass, &title, "The MOS authors")
}

pub(crate) fn templates(double: &'static Double, pad_type: impl Fn(&str) -> glib::Type) -> Vec<gst::PadTemplate> {
    let template = |p: &crate::data::PadFacts| {
        let direction = if p.direction == "src" { gst::PadDirection::Src } else { gst::PadDirection::Sink };
        let presence = if p.presence == "always" { gst::PadPresence::Always } else { gst::PadPresence::Request };
        let caps: gst::Caps = p.caps.parse().expect("caps of a data file parse");
        gst::PadTemplate::with_gtype(&p.name, direction, presence, &caps, pad_type(&p.name)).expect("a pad template")
    };
    double.pad.iter().map(template).collect()
}

fn signals(double: &'static Double) -> Vec<glib::subclass::Signal> {
    let kind = |param: &String| match param.as_str() {
        "bool" => glib::Type::BOOL,
        "uint" => glib::Type::U32,
        "pointer" => glib::Type::POINTER,
        "ptr-array" => enums::ptr_array(),
        "capture-mode" => enums::enum_type("MosDoubleCaptureMode", &[("video".into(), 0), ("still".into(), 1)]),
        other => panic!("signal parameter {other}"),
    };
    let signal = |s: &'static crate::data::SignalFacts| {
        let types: Vec<_> = s.params.iter().map(kind).collect();
        let signal = glib::subclass::Signal::builder(&s.name).param_types(types).run_last();
        if !s.action {
            return signal.build();
        }
        signal.action().return_type::<bool>().class_handler(|values| Some(act(&s.name, values).to_value())).build()
    };
    double.signal.iter().map(signal).collect()
}

/// Carries out an action signal of the camera service.
fn act(signal: &str, values: &[glib::Value]) -> bool {
    let Ok(element) = values[0].get::<gst::Element>() else { return false };
    let Some(camera) = camera_of(&element) else { return false };
    match signal {
        "capture-image" => camera.shoot(&element, values.get(2).and_then(|v| v.get().ok()).unwrap_or(1)),
        "cancel-capture" => camera.cancel(),
        _ => true,
    }
}

macro_rules! pads {
    ($($module:ident: $file:literal $template:literal;)*) => {$(
        pub(crate) mod $module {
            use std::sync::LazyLock;

            use super::{gst, glib};
            use gstreamer::prelude::*;
            use gstreamer::subclass::prelude::*;

            use crate::data::{PadFacts, double};
            use crate::values::{Values, specs};

            fn facts() -> &'static PadFacts {
                double($file).pad.iter().find(|p| p.name == $template).expect("a pad of the data file")
            }

            #[derive(Debug)]
            pub(crate) struct Imp {
                values: Values,
            }

            impl Default for Imp {
                fn default() -> Self {
                    Self { values: Values::new(&double($file).element, &facts().property, &[]) }
                }
            }

            #[glib::object_subclass]
            impl ObjectSubclass for Imp {
                const NAME: &'static str = concat!("MosDoublePad_", stringify!($module));
                type Type = Pad;
                type ParentType = gst::Pad;
            }

            impl ObjectImpl for Imp {
                fn properties() -> &'static [glib::ParamSpec] {
                    static SPECS: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| specs(&facts().property));
                    &SPECS
                }

                fn set_property(&self, _: usize, value: &glib::Value, spec: &glib::ParamSpec) {
                    let pad = self.obj();
                    let state = pad.parent_element().map_or(gst::State::Null, |e| e.current_state());
                    self.values.set(&pad.name(), state, value, spec);
                }

                fn property(&self, _: usize, spec: &glib::ParamSpec) -> glib::Value {
                    self.values.get(spec)
                }
            }

            impl GstObjectImpl for Imp {}
            impl PadImpl for Imp {}

            glib::wrapper! {
                /// A pad of a double.
                pub(crate) struct Pad(ObjectSubclass<Imp>) @extends gst::Pad, gst::Object;
            }
        }
    )*};
}

macro_rules! cameras {
    ($($module:ident: $file:literal { $($template:literal => $pad:ident),* };)*) => {
        $(pub(crate) mod $module {
            use std::sync::{Arc, LazyLock};

            use super::{Camera, glib, gst, metadata, signals, templates};
            use gstreamer::prelude::*;
            use gstreamer::subclass::prelude::*;

            use crate::data::double;
            use crate::values::specs;

            #[derive(Debug)]
            pub(crate) struct Imp {
                pub(crate) camera: Arc<Camera>,
            }

            impl Default for Imp {
                fn default() -> Self {
                    Self { camera: Camera::new(double($file)) }
                }
            }

            #[glib::object_subclass]
            impl ObjectSubclass for Imp {
                const NAME: &'static str = concat!("MosDouble_", stringify!($module));
                type Type = Element;
                type ParentType = gst::Element;
                type Interfaces = (gst::ChildProxy,);
            }

            impl ObjectImpl for Imp {
                fn properties() -> &'static [glib::ParamSpec] {
                    static SPECS: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| specs(&double($file).property));
                    &SPECS
                }

                fn signals() -> &'static [glib::subclass::Signal] {
                    static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| signals(double($file)));
                    &SIGNALS
                }

                fn set_property(&self, _: usize, value: &glib::Value, spec: &glib::ParamSpec) {
                    let element = self.obj();
                    let state = element.current_state();
                    self.camera.values.set(&element.name(), state, value, spec);
                    // The camera is open: nothing will look at the value again, so the mistake is said at once.
                    if self.camera.is_open()
                        && let Some(what) = self.camera.values.verdict()
                    {
                        gst::element_error!(element, gst::ResourceError::Settings, ("{what}"));
                    }
                }

                fn property(&self, _: usize, spec: &glib::ParamSpec) -> glib::Value {
                    self.camera.values.get(spec)
                }

                fn constructed(&self) {
                    self.parent_constructed();
                    let element = self.obj();
                    element.set_element_flags(gst::ElementFlags::SOURCE);
                    for facts in double($file).pad.iter().filter(|p| p.presence == "always") {
                        if let Some(template) = element.pad_template(&facts.name) {
                            let _ = element.add_pad(&super::pad(&template, &facts.name, &self.camera));
                        }
                    }
                    crate::events::event("made", &double($file).element, &element.name(), serde_json::json!({}));
                }
            }

            impl GstObjectImpl for Imp {}

            impl ElementImpl for Imp {
                fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
                    static METADATA: LazyLock<gst::subclass::ElementMetadata> =
                        LazyLock::new(|| metadata(double($file)));
                    Some(&*METADATA)
                }

                fn pad_templates() -> &'static [gst::PadTemplate] {
                    static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                        templates(double($file), |name| match name {
                            $($template => super::$pad::Pad::static_type(),)*
                            _ => gst::Pad::static_type(),
                        })
                    });
                    &TEMPLATES
                }

                fn request_new_pad(
                    &self,
                    template: &gst::PadTemplate,
                    name: Option<&str>,
                    _: Option<&gst::Caps>,
                ) -> Option<gst::Pad> {
                    let name = name.map(str::to_owned).filter(|n| !n.contains('%')).unwrap_or_else(|| {
                        template.name_template().replace("%u", &self.camera.next_pad().to_string())
                    });
                    let pad = super::pad(template, &name, &self.camera);
                    self.obj().add_pad(&pad).ok()?;
                    self.obj().child_added(&pad, &pad.name());
                    Some(pad)
                }

                fn release_pad(&self, pad: &gst::Pad) {
                    let _ = pad.set_active(false);
                    let _ = self.obj().remove_pad(pad);
                    self.obj().child_removed(pad, &pad.name());
                }

                fn send_event(&self, event: gst::Event) -> bool {
                    if event.type_() == gst::EventType::Eos {
                        self.camera.end();
                        return true;
                    }
                    self.parent_send_event(event)
                }

                fn change_state(
                    &self,
                    change: gst::StateChange,
                ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
                    let obj = self.obj();
                    let element: &gst::Element = obj.upcast_ref();
                    match change {
                        gst::StateChange::NullToReady => self.camera.open(element)?,
                        gst::StateChange::ReadyToPaused => self.camera.prepare(element)?,
                        gst::StateChange::PlayingToPaused => self.camera.play(false),
                        gst::StateChange::PausedToReady => self.camera.stop(),
                        _ => {}
                    }
                    let done = self.parent_change_state(change)?;
                    match change {
                        gst::StateChange::ReadyToPaused => {
                            self.camera.start(element)?;
                            return Ok(gst::StateChangeSuccess::NoPreroll);
                        }
                        gst::StateChange::PausedToPlaying => self.camera.play(true),
                        gst::StateChange::PlayingToPaused => return Ok(gst::StateChangeSuccess::NoPreroll),
                        gst::StateChange::PausedToReady => Camera::stopped(element),
                        gst::StateChange::ReadyToNull => self.camera.close(element),
                        _ => {}
                    }
                    Ok(done)
                }
            }

            impl ChildProxyImpl for Imp {
                fn child_by_index(&self, index: u32) -> Option<glib::Object> {
                    self.obj().pads().get(index as usize).cloned().map(Cast::upcast)
                }

                fn children_count(&self) -> u32 {
                    self.obj().pads().len() as u32
                }

                fn child_by_name(&self, name: &str) -> Option<glib::Object> {
                    self.obj().static_pad(name).map(Cast::upcast)
                }
            }

            glib::wrapper! {
                /// A double.
                pub(crate) struct Element(ObjectSubclass<Imp>) @extends gst::Element, gst::Object, @implements gst::ChildProxy;
            }
        })*

        fn camera_of(element: &gst::Element) -> Option<Arc<Camera>> {
            $(if let Some(element) = element.downcast_ref::<$module::Element>() {
                return Some(Arc::clone(&element.imp().camera));
            })*
            None
        }

        /// The type that a data file's double has.
        pub(crate) fn element_type(file: &str) -> Option<glib::Type> {
            match file {
                $($file => Some($module::Element::static_type()),)*
                _ => None,
            }
        }
    };
}

pads! {
    video_pad: "qticamsrc" "video_%u";
    image_pad: "qticamsrc" "image_%u";
    libcamera_pad: "libcamerasrc" "src";
    libcamera_more_pad: "libcamerasrc" "src_%u";
    v4l2_pad: "v4l2src-viv" "src";
}

cameras! {
    qticamsrc: "qticamsrc" { "video_%u" => video_pad, "image_%u" => image_pad };
    qtiqmmfsrc: "qtiqmmfsrc" { "video_%u" => video_pad, "image_%u" => image_pad };
    libcamerasrc: "libcamerasrc" { "src" => libcamera_pad, "src_%u" => libcamera_more_pad };
    v4l2src_viv: "v4l2src-viv" { "src" => v4l2_pad };
}
