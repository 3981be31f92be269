//! The three ways to a raw camera, each an element: V4L2's, libcamera's and that of Qualcomm's camera service.
//!
//! Promises that a property which depends on the version of an element is set only where it exists, and that the camera is
//! named before the element opens anything.

use std::path::PathBuf;

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::gst as common;
use crate::machine::Machine;
use crate::qcs6490::{CAMERA_ELEMENTS, camera_element};
use crate::source::{RawOptions, SourceError, SourceSpec};
use crate::sources::outlet::Outlet;

/// Frame rate of the camera service's streams unless one is asked for: the pads' own default (qualcomm/gst-plugins-imsdk
/// 806ad865 \[S\]).
const SERVICE_FPS: u32 = 30;

/// Pictures that may wait for the encoder.
pub(super) const WAITING: u32 = 4;

/// Where a camera is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    V4l2(PathBuf),
    Libcamera(String),
    Qmmf(u32),
}

/// The element of a camera, with the pad that the pictures come from.
pub(super) struct Source {
    pub(super) element: gst::Element,
    pub(super) pad: gst::Pad,
}

impl Origin {
    /// Finds the camera that is meant, with what is asked of it.
    pub(super) fn of(spec: &SourceSpec, machine: &Machine) -> Result<(Self, RawOptions), SourceError> {
        let unsupported = |detail: String| SourceError::Unsupported { what: spec.to_string(), detail };
        match spec {
            SourceSpec::V4l2 { device, options } => Ok((Self::V4l2(device.clone()), options.clone())),
            SourceSpec::Libcamera { camera, options } => Ok((Self::Libcamera(camera.clone()), options.clone())),
            SourceSpec::Qmmf { camera, options } => Ok((Self::Qmmf(*camera), options.clone())),
            SourceSpec::Board { lens, options } => match machine.route(lens) {
                Some(Ok(route)) => {
                    let direct =
                        route.source.ok_or_else(|| unsupported(format!("{} is not recorded", route.element)))?;
                    let (origin, _) = Self::of(&direct, machine)?;
                    Ok((origin, options.clone()))
                }
                Some(Err(why)) => Err(unsupported(why)),
                None => {
                    let (lenses, faults) = machine.tree.lenses();
                    let names: Vec<_> = lenses.iter().map(|lens| lens.name.as_str()).collect();
                    let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                    let seen: Vec<_> = [has].into_iter().chain(faults).collect();
                    let (tree, seen) = (machine.tree.root.display(), seen.join("; "));
                    let detail = format!("the device tree at {tree} describes no lens of that name, but {seen}");
                    Err(SourceError::Absent { what: spec.to_string(), detail })
                }
            },
            other => Err(unsupported(format!("{other} delivers no raw pictures"))),
        }
    }

    /// The camera, as the same one is known by every lens that is configured with it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::V4l2(device) => format!("v4l2:{}", device.display()),
            Self::Libcamera(camera) => format!("libcamera:{camera}"),
            Self::Qmmf(number) => format!("qmmf:{number}"),
        }
    }

    /// Whether it is certainly not there, as far as that can be told without GStreamer.
    pub(super) fn is_absent(&self, machine: &Machine) -> bool {
        match self {
            Self::V4l2(device) => {
                !machine.here.node(device) && !machine.here.cards().iter().any(|card| card.node == *device)
            }
            Self::Libcamera(_) | Self::Qmmf(_) => false,
        }
    }

    /// Frame rate to take for granted if the camera tells none: sensors run at 30, slow USB cameras do not.
    pub(super) fn unhurried(&self) -> f32 {
        match self {
            Self::V4l2(_) => 15.0,
            Self::Libcamera(_) | Self::Qmmf(_) => 30.0,
        }
    }

    /// What is asked of it if nobody asks.
    pub(super) fn defaults(&self, options: &mut RawOptions) {
        if matches!(self, Self::Qmmf(_)) {
            options.fps.get_or_insert(SERVICE_FPS);
        }
    }

    /// Has an open element hand out dmabufs, where it would not by itself.
    pub(super) fn ask_for_dmabufs(&self, element: &gst::Element) -> Result<(), String> {
        match self {
            Self::V4l2(_) => common::set(element, "io-mode", "dmabuf"),
            Self::Libcamera(_) | Self::Qmmf(_) => Ok(()),
        }
    }

    /// Why its element did not open, if the element does not say: that of the camera service is silent about a camera that
    /// the service does not have (qualcomm/gst-plugins-imsdk 806ad865 \[I\]).
    pub(super) fn unopened(&self, outlet: &Outlet) -> SourceError {
        match self {
            Self::Qmmf(number) => {
                let detail =
                    format!("the camera service has no camera {number} to open, does not run, or somebody else has it");
                SourceError::Absent { what: outlet.what.clone(), detail }
            }
            Self::V4l2(_) | Self::Libcamera(_) => outlet.broken("the camera cannot be opened"),
        }
    }

    /// Makes the element, which opens nothing yet. `lent`: how many of the camera's buffers others may hold. What libcamera
    /// gives is the camera's matter; V4L2 is told by its allocation query.
    pub(super) fn source(&self, options: &RawOptions, lent: u32, machine: &Machine) -> Result<Source, String> {
        match self {
            Self::V4l2(device) => {
                let element = make("v4l2src")?;
                element.set_property("device", device.to_str().ok_or("the path is not UTF-8")?);
                static_pad(element)
            }
            Self::Libcamera(camera) => {
                let element = make("libcamerasrc")?;
                element.set_property("camera-name", camera);
                let source = static_pad(element)?;
                if source.pad.has_property("stream-role") {
                    common::set(&source.pad, "stream-role", "video-recording")?;
                }
                Ok(source)
            }
            Self::Qmmf(number) => {
                let name = camera_element(machine.here.as_ref());
                let one_of = || format!("needs one of the GStreamer elements {}", CAMERA_ELEMENTS.join(", "));
                let element = make(name.ok_or_else(one_of)?)?;
                common::set(&element, "camera", &number.to_string())?;
                let pad = element.request_pad_simple("video_%u").ok_or("it gives no pad for video")?;
                if pad.has_property("framerate") {
                    common::set(&pad, "framerate", &options.fps.unwrap_or(SERVICE_FPS).to_string())?;
                }
                if pad.has_property("extra-buffers") {
                    common::set(&pad, "extra-buffers", &(WAITING + lent).to_string())?;
                }
                if pad.has_property("type") {
                    common::set(&pad, "type", "video")?;
                }
                Ok(Source { element, pad })
            }
        }
    }
}

fn make(factory: &str) -> Result<gst::Element, String> {
    gst::ElementFactory::make(factory).build().map_err(|_| format!("needs the GStreamer element {factory}"))
}

fn static_pad(element: gst::Element) -> Result<Source, String> {
    let pad = element.static_pad("src").ok_or("its element has no pad src")?;
    Ok(Source { element, pad })
}
