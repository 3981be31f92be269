//! The hardware abstraction of MOS.
//!
//! Promises the app a running [`source::LensSource`] per lens that pushes [`media::AccessUnit`]s, a way to turn a stored
//! keyframe into a JPEG, a monotonic [`clock::Clock`] and power events, the same on every board. Only this crate knows
//! GStreamer, V4L2, device nodes and element names; it never touches the archive. How it comes to a new SoC: [`porting`].

pub mod board;
pub mod clock;
pub mod codecs;
#[cfg(feature = "demo")]
pub mod demo;
pub mod device_tree;
pub mod frames;
#[doc(hidden)]
pub mod fuzzing;
pub mod generic;
pub mod gmsl;
mod gst;
pub mod hotplug;
pub mod imx8mp;
#[cfg(feature = "libcamera")]
pub mod libcamera;
mod machine;
pub mod media;
pub mod nal;
pub mod onvif;
pub mod pins;
pub mod platform;
pub mod porting;
pub mod power;
pub mod probe;
pub mod qcs6490;
pub mod shared;
pub mod source;
mod sources;
pub mod storage;
pub mod surroundings;
pub mod thermal;
pub mod timeline;
mod tls;
