//! A WHEP server that others have written: `whepserversink` of gst-plugins-rs, with its own HTTP, its own way to negotiate
//! and its own signalling.
//!
//!     whep_server PORT FILE
//!
//! Sends the H.264 or H.265 of an MP4 file, coded as it is and at its own pace, to all who post an offer to /whep/endpoint.
//! Says "ready" on standard output and ends with the file.

use gst::prelude::*;
use gstreamer as gst;

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [port, file] = given.as_slice() else { panic!("usage: whep_server PORT FILE") };
    gst::init().expect("GStreamer");
    gstrswebrtc::plugin_register_static().expect("whepserversink");
    let line = "filesrc name=file ! qtdemux ! parsebin ! identity sync=true ! whepserversink name=out congestion-control=disabled";
    let pipeline = gst::parse::launch(line).expect("its elements").downcast::<gst::Pipeline>().expect("a pipeline");
    let element = |name: &str| pipeline.by_name(name).expect("an element of that name");
    element("file").set_property("location", file);
    let out = element("out");
    out.set_property("stun-server", None::<&str>);
    let signaller = out.property::<gst::glib::Object>("signaller");
    signaller.set_property("host-addr", format!("http://127.0.0.1:{port}"));
    signaller.set_property("stun-server", None::<&str>);
    pipeline.set_state(gst::State::Playing).expect("it plays");
    let bus = pipeline.bus().expect("a bus");
    let mut told = false;
    for message in bus.iter_timed(gst::ClockTime::NONE) {
        match message.view() {
            gst::MessageView::AsyncDone(_) | gst::MessageView::StreamStart(_) if !told => {
                println!("ready");
                told = true;
            }
            gst::MessageView::Error(e) => panic!("{e:?}"),
            gst::MessageView::Eos(_) => break,
            _ => {}
        }
    }
    let _ = pipeline.set_state(gst::State::Null);
}
