//! What every use of GStreamer in this crate shares: starting the library, building, errors, stopping.
//!
//! Promises that a process that never opens a GStreamer source nor decodes never starts the library, and that stopping a
//! pipeline returns within a bound even if a driver hangs.

use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;

/// How long a pipeline may take to stop.
const STOP: Duration = Duration::from_millis(1800);

/// What a probe at the input of an element answers for what it does not let in. With `Drop` GStreamer 1.22 lets go there once
/// more of what the bindings have let go of, and complains.
pub(crate) const REFUSED: gst::PadProbeReturn = gst::PadProbeReturn::Handled;

/// Starts GStreamer at the first call.
pub(crate) fn init() -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        gst::init().map_err(|e| format!("GStreamer does not start: {e}"))?;
        mos_frame_gst::register().map_err(|e| e.to_string())
    });
    started.clone()
}

/// Whether an element of this name is installed.
pub(crate) fn has(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}

/// Builds a pipeline from its text, which must hold nothing from outside but numbers.
pub(crate) fn build(text: &str) -> Result<gst::Pipeline, String> {
    let element = gst::parse::launch(text).map_err(|e| e.message().to_owned())?;
    element.downcast().map_err(|_| "not a pipeline".to_owned())
}

/// The element of this name, as the type that it was built as.
pub(crate) fn named<T: IsA<gst::Object>>(pipeline: &gst::Pipeline, name: &str) -> Result<T, String> {
    let element = pipeline.by_name(name).ok_or_else(|| format!("no element {name}"))?;
    element.dynamic_cast().map_err(|_| format!("{name} is of another type"))
}

/// Sets a property whose type is the element's matter.
pub(crate) fn set(object: &impl IsA<gst::Object>, name: &str, value: &str) -> Result<(), String> {
    let refused = || format!("{} does not take {name}={value}", object.name());
    let property = object.find_property(name).ok_or_else(refused)?;
    let value = gst::glib::Value::deserialize_with_pspec(value, &property).map_err(|_| refused())?;
    object.set_property_from_value(name, &value);
    Ok(())
}

/// An error message in words: which element, what it said, and its last line of detail.
pub(crate) fn words(error: &gst::message::Error) -> String {
    let element = error.src().and_then(|s| s.downcast_ref::<gst::Element>().cloned());
    let element = element.and_then(|e| e.factory()).map_or_else(String::new, |f| format!("{}: ", f.name()));
    let debug = error.debug().unwrap_or_default();
    let detail = debug.lines().last().unwrap_or_default().rsplit("(): ").next().unwrap_or_default();
    let known = detail.is_empty() || detail.starts_with("../") || detail.contains("/GstPipeline:");
    let detail = if known { String::new() } else { format!(" ({detail})") };
    format!("{element}{}{detail}", error.error().message())
}

/// Stops and frees a pipeline. If it hangs in a driver it is left behind after [`STOP`] and logged.
pub(crate) fn stop(pipeline: gst::Pipeline) {
    stop_and_release(pipeline, ());
}

/// The same; `held` is dropped when the pipeline is really gone, even if that is later.
pub(crate) fn stop_and_release(pipeline: gst::Pipeline, held: impl Send + 'static) {
    let (done, wait) = mpsc::channel();
    let name = pipeline.name();
    let worker = std::thread::Builder::new().name("mos-stop".into()).spawn(move || {
        if let Some(bus) = pipeline.bus() {
            bus.unset_sync_handler();
            bus.set_flushing(true);
        }
        let stopped = pipeline.set_state(gst::State::Null);
        drop(pipeline);
        drop(held);
        let _ = done.send(stopped);
    });
    match worker {
        Ok(_) => match wait.recv_timeout(STOP) {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => log::error!("{name} did not stop cleanly"),
            Err(_) => log::error!("{name} hangs while stopping and is left behind"),
        },
        Err(e) => log::error!("{name} cannot be stopped: {e}"),
    }
}
