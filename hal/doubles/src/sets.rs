//! Which doubles stand for which board and software.
//!
//! Promises that a set holds the elements that such a board has, and that nothing is registered unless somebody asks.

use gstreamer as gst;
use gstreamer::glib;

use crate::data::double;
use crate::{cameras, codecs};

/// Name of each set and the data files in it.
pub const SETS: &[(&str, &[&str])] = &[
    ("imx8mp-bsp", &["v4l2src-viv", "v4l2h264enc-vsi", "v4l2h265enc-vsi", "v4l2h264dec-vsi", "v4l2h265dec-vsi"]),
    ("imx8mp-vpu", &["libcamerasrc", "vpuenc_h264", "vpuenc_hevc", "vpudec", "imxvideoconvert_g2d"]),
    ("imx8mp-mainline", &["libcamerasrc", "v4l2slh264dec", "v4l2slh265dec"]),
    ("qcs6490-camx", &["qticamsrc", "qtiqmmfsrc", "qtic2venc", "qtic2vdec", "qtivtransform", "qtijpegenc"]),
    (
        "qcs6490-mainline",
        &["libcamerasrc", "v4l2h264enc-iris", "v4l2h265enc-iris", "v4l2h264dec-iris", "v4l2h265dec-iris"],
    ),
];

/// The data files of a set. A data file's name is a set of its own; several are joined by commas.
///
/// # Errors
/// With the name that is neither.
pub fn files(sets: &str) -> Result<Vec<&'static str>, String> {
    let mut files = Vec::new();
    for name in sets.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        if let Some((_, set)) = SETS.iter().find(|s| s.0 == name) {
            files.extend_from_slice(set);
        } else if let Some((file, _)) = crate::data::FILES.iter().find(|f| f.0 == name) {
            files.push(*file);
        } else {
            let known: Vec<_> = SETS.iter().map(|s| s.0).collect();
            return Err(format!("no set of doubles {name:?}; there are {known:?}"));
        }
    }
    Ok(files)
}

/// Registers the doubles of a set, for this process or, given a plugin, for it.
pub(crate) fn register(plugin: Option<&gst::Plugin>, sets: &str) -> Result<(), glib::BoolError> {
    for file in files(sets).map_err(|e| glib::bool_error!("{e}"))? {
        let kind = cameras::element_type(file).or_else(|| codecs::element_type(file));
        let kind = kind.ok_or_else(|| glib::bool_error!("{file} has no type"))?;
        // Like the vendors': above software, so that automatic pipelines would take it too.
        gst::Element::register(plugin, &double(file).element, gst::Rank::PRIMARY + 1, kind)?;
    }
    Ok(())
}
