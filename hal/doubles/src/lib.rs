//! Doubles of vendors' GStreamer elements: a plugin for tests and rigs without boards.
//!
//! Promises elements with the vendors' names, pads, properties, units, caps, signals and state behaviour, each made from a
//! data file in `elements/` that cites the public source of every fact; what the real element lacks does not exist, and a
//! value in the wrong unit fails. Real pictures flow through them, from cameras whose pixels nobody else can map. Written from
//! public facts alone, independently of the hardware abstraction that they test.
//!
//! As a plugin (`GST_PLUGIN_PATH`, see [`link`]) the doubles follow the environment:
//!
//! | Variable | Meaning |
//! |---|---|
//! | `MOS_DOUBLES` | sets or data files to register ([`SETS`]), joined by commas; nothing without it |
//! | `MOS_DOUBLES_CAMERAS` | cameras that exist, `ID[=HANDLER],…`; ids are numbers, libcamera's names or device nodes |
//! | `MOS_DOUBLES_GUARD` | `off`: cameras' pixels can be mapped, for software encoders |
//! | `MOS_DOUBLES_LOG` | file that gets a line of JSON per event |
//! | `MOS_DOUBLES_FAULTS` | file with lines `CAMERA stall`, `CAMERA error`, `CAMERA gone`, read anew for every frame |

mod camera;
mod cameras;
mod codec;
mod codecs;
pub mod data;
mod enums;
mod events;
pub mod faults;
mod memory;
mod picture;
mod pool;
mod sets;
mod values;

use std::path::Path;

use gstreamer as gst;
use gstreamer::glib;

pub use sets::{SETS, files};

fn listen() {
    static LISTENING: std::sync::Once = std::sync::Once::new();
    LISTENING.call_once(|| {
        values::listen();
        memory::listen();
    });
}

/// Registers the doubles of a set in this process, which must have started GStreamer.
///
/// # Errors
/// If there is no such set, or GStreamer refuses.
pub fn register(sets: &str) -> Result<(), glib::BoolError> {
    listen();
    sets::register(None, sets)
}

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    // The registry's cache must not outlive a change of the set.
    plugin.add_dependency_simple(Some("MOS_DOUBLES"), None, None, gst::PluginDependencyFlags::empty());
    match std::env::var("MOS_DOUBLES") {
        Ok(sets) => {
            listen();
            sets::register(Some(plugin), &sets)
        }
        Err(_) => Ok(()),
    }
}

/// Makes `folder` a plugin path with the doubles of `library`, the built plugin.
///
/// The link has the name of GStreamer's own V4L2 plugin, because some doubles have the names of its elements: of two plugins
/// with the same file name the registry takes the one that it finds first, and plugin paths come before the system's.
///
/// # Errors
/// If the link cannot be made.
pub fn link(library: &Path, folder: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(library, folder.join("libgstvideo4linux2.so"))
}

/// What GStreamer looks for in a plugin, by the name of its file.
#[allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "generated")]
mod plugin {
    use super::{gst, plugin_init};

    gst::plugin_define!(
        mos_doubles,
        "Doubles of vendors' elements, for tests",
        plugin_init,
        env!("CARGO_PKG_VERSION"),
        "MIT/X11",
        "mos-doubles",
        "mos-doubles",
        "https://example.invalid/mos"
    );

    /// The same under the name that [`super::link`] gives it.
    pub mod linked {
        use super::super::{gst, plugin_init};

        gst::plugin_define!(
            video4linux2,
            "Doubles of vendors' elements, for tests",
            plugin_init,
            env!("CARGO_PKG_VERSION"),
            "MIT/X11",
            "mos-doubles",
            "mos-doubles",
            "https://example.invalid/mos"
        );
    }
}
