//! The element types of codecs and converters.
//!
//! Promises one GType per data file: the type's properties and pads come from the file, the behaviour from [`crate::codec`].
//! Registered by [`crate::sets`].

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;

macro_rules! codecs {
    ($($module:ident: $file:literal;)*) => {
        $(mod $module {
            use std::sync::{Arc, LazyLock};

            use super::{glib, gst};
            use gstreamer::prelude::*;
            use gstreamer::subclass::prelude::*;

            use crate::codec::Codec;
            use crate::data::double;
            use crate::values::specs;

            #[derive(Debug)]
            pub(crate) struct Imp {
                codec: Arc<Codec>,
            }

            impl Default for Imp {
                fn default() -> Self {
                    Self { codec: Codec::new(double($file)) }
                }
            }

            #[glib::object_subclass]
            impl ObjectSubclass for Imp {
                const NAME: &'static str = concat!("MosDouble_", stringify!($module));
                type Type = Element;
                type ParentType = gst::Bin;
            }

            impl ObjectImpl for Imp {
                fn properties() -> &'static [glib::ParamSpec] {
                    static SPECS: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| specs(&double($file).property));
                    &SPECS
                }

                fn set_property(&self, _: usize, value: &glib::Value, spec: &glib::ParamSpec) {
                    let element = self.obj();
                    let state = element.current_state();
                    self.codec.values.set(&element.name(), state, value, spec);
                    if state > gst::State::Ready {
                        self.codec.configure(element.upcast_ref(), false);
                    }
                }

                fn property(&self, _: usize, spec: &glib::ParamSpec) -> glib::Value {
                    self.codec.values.get(spec)
                }

                fn constructed(&self) {
                    self.parent_constructed();
                    let element = self.obj();
                    self.codec.build(element.upcast_ref());
                    crate::events::event("made", &double($file).element, &element.name(), serde_json::json!({}));
                }
            }

            impl GstObjectImpl for Imp {}

            impl ElementImpl for Imp {
                fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
                    static METADATA: LazyLock<gst::subclass::ElementMetadata> =
                        LazyLock::new(|| crate::cameras::metadata(double($file)));
                    Some(&*METADATA)
                }

                fn pad_templates() -> &'static [gst::PadTemplate] {
                    static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
                        LazyLock::new(|| crate::cameras::templates(double($file), |_| gst::Pad::static_type()));
                    &TEMPLATES
                }

                fn change_state(
                    &self,
                    change: gst::StateChange,
                ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
                    let obj = self.obj();
                    let bin: &gst::Bin = obj.upcast_ref();
                    if change == gst::StateChange::ReadyToPaused {
                        self.codec.prepare(bin)?;
                    }
                    let done = self.parent_change_state(change)?;
                    if change == gst::StateChange::PausedToReady {
                        self.codec.stopped(bin);
                    }
                    Ok(done)
                }
            }

            impl BinImpl for Imp {}

            glib::wrapper! {
                /// A double.
                pub(crate) struct Element(ObjectSubclass<Imp>) @extends gst::Bin, gst::Element, gst::Object,
                    @implements gst::ChildProxy;
            }
        })*

        /// The type that a data file's double has.
        pub(crate) fn element_type(file: &str) -> Option<glib::Type> {
            match file {
                $($file => Some($module::Element::static_type()),)*
                _ => None,
            }
        }
    };
}

codecs! {
    imxvideoconvert_g2d: "imxvideoconvert_g2d";
    qtic2vdec: "qtic2vdec";
    qtic2venc: "qtic2venc";
    qtijpegenc: "qtijpegenc";
    qtivtransform: "qtivtransform";
    v4l2h264dec_iris: "v4l2h264dec-iris";
    v4l2h264dec_vsi: "v4l2h264dec-vsi";
    v4l2h264enc_iris: "v4l2h264enc-iris";
    v4l2h264enc_vsi: "v4l2h264enc-vsi";
    v4l2h265dec_iris: "v4l2h265dec-iris";
    v4l2h265dec_vsi: "v4l2h265dec-vsi";
    v4l2h265enc_iris: "v4l2h265enc-iris";
    v4l2h265enc_vsi: "v4l2h265enc-vsi";
    v4l2jpegdec: "v4l2jpegdec";
    v4l2slh264dec: "v4l2slh264dec";
    v4l2slh265dec: "v4l2slh265dec";
    vpudec: "vpudec";
    vpuenc_h264: "vpuenc_h264";
    vpuenc_hevc: "vpuenc_hevc";
}
