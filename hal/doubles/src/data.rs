//! The data files: one per double, each fact with where it was read.
//!
//! Promises that a double has what its file says and nothing else, and that every fact names a source of the file with its
//! grade: S read in source or binding, P vendor or project page, R reverse-engineered notes, I inference, G common knowledge.
//! Called by the element types when their classes are made. Never touches GStreamer beyond parsing caps.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde::Deserialize;

/// One double.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Double {
    /// Name of the element's factory.
    pub element: String,
    /// Long name.
    pub title: String,
    /// Class, as `Codec/Encoder/Video`.
    pub klass: String,
    /// Tag → source. Every fact below names a tag.
    pub sources: BTreeMap<String, Source>,
    /// Pads.
    pub pad: Vec<PadFacts>,
    /// Properties of the element.
    #[serde(default)]
    pub property: Vec<Property>,
    /// Controls that a V4L2 codec takes through `extra-controls`.
    #[serde(default)]
    pub control: Vec<Control>,
    /// Signals.
    #[serde(default)]
    pub signal: Vec<SignalFacts>,
    /// It is a camera.
    pub camera: Option<Camera>,
    /// It is an encoder.
    pub encoder: Option<Encoder>,
    /// It is a decoder of coded video or of JPEG.
    pub decoder: Option<Decoder>,
    /// It converts and scales.
    pub converter: Option<Converter>,
    /// It makes JPEG pictures.
    pub jpeg: Option<JpegEncoder>,
}

/// Where facts were read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The public source.
    pub text: String,
    /// S, P, R, I or G.
    pub grade: char,
}

/// A pad template.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PadFacts {
    /// Name of the template.
    pub name: String,
    /// `src` or `sink`.
    pub direction: String,
    /// `always` or `request`.
    pub presence: String,
    /// Caps.
    pub caps: String,
    /// Properties of the pad.
    #[serde(default)]
    pub property: Vec<Property>,
    /// Tag of the source.
    pub from: String,
}

/// A property.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Property {
    /// Name.
    pub name: String,
    /// `int`, `uint`, `int64`, `double`, `bool`, `string`, `structure` or `enum`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Least value.
    pub min: Option<i64>,
    /// Greatest value.
    pub max: Option<i64>,
    /// Value when nothing is set; an enum's as its number.
    pub default: Option<toml::Value>,
    /// Nicks and numbers of an enum.
    #[serde(default)]
    pub values: Vec<(String, i32)>,
    /// Unit of a number.
    pub unit: Option<String>,
    /// Bounds outside of which a number is almost surely in another unit. Values that mean "automatic" are exempt.
    pub plausible: Option<(i64, i64)>,
    /// Values that mean "automatic".
    #[serde(default)]
    pub automatic: Vec<i64>,
    /// The last state in which it may change: `null`, `ready`, `paused`, `playing`.
    #[serde(default = "playing")]
    pub mutable: String,
    /// Whether it can only be read.
    #[serde(default)]
    pub read_only: bool,
    /// Another property, and the values of it without which setting this one is an error.
    pub only_with: Option<(String, Vec<i64>)>,
    /// Tag of the source.
    pub from: String,
}

fn playing() -> String {
    "playing".into()
}

/// A control of a V4L2 device, by the name that GStreamer makes of the kernel's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Name.
    pub name: String,
    /// Least value.
    pub min: i64,
    /// Greatest value.
    pub max: i64,
    /// Value when nothing is set.
    pub default: i64,
    /// Unit of a number.
    pub unit: Option<String>,
    /// As for a property.
    pub plausible: Option<(i64, i64)>,
    /// Tag of the source.
    pub from: String,
}

/// A signal.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalFacts {
    /// Name.
    pub name: String,
    /// Types of its parameters: `bool`, `uint`, `pointer`, `ptr-array`, `capture-mode`.
    pub params: Vec<String>,
    /// Whether the application emits it, which then answers with a boolean.
    pub action: bool,
    /// Tag of the source.
    pub from: String,
}

/// How a camera behaves.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Camera {
    /// The property that names the camera.
    pub property: String,
    /// Cameras that exist if `MOS_DOUBLES_CAMERAS` says nothing.
    #[serde(default)]
    pub cameras: Vec<String>,
    /// Handler of a camera for which `MOS_DOUBLES_CAMERAS` names none.
    pub handler: String,
    /// Handler → formats that its cameras offer, the preferred one first.
    pub handlers: BTreeMap<String, Vec<String>>,
    /// Whether a camera that cannot be opened fails without a message on the bus.
    pub silent_failure: bool,
    /// Whether pads tell what the open camera offers; else they only show their template.
    pub tells_caps: bool,
    /// Whether caps are fixed when the element becomes PAUSED (else when it streams).
    pub fixed_at_paused: bool,
    /// Buffers of a stream.
    pub buffers: u32,
    /// Property of the element or of a pad that adds to them.
    pub extra_buffers: Option<String>,
    /// Property that chooses how buffers are shared, and the values for which they are dmabufs.
    pub io_mode: Option<(String, Vec<i64>)>,
    /// Tag of the source.
    pub from: String,
}

/// Which memory a codec takes as it is; all else it copies.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Import {
    /// Any memory with a file descriptor.
    Fd,
    /// Memory of GstDmaBufAllocator.
    Dmabuf,
    /// As the property `output-io-mode` says: only `dmabuf-import` imports.
    OutputIoMode,
    /// None.
    Never,
}

/// How an encoder behaves.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encoder {
    /// `h264` or `h265`; `caps`: whichever downstream asks for.
    pub codec: String,
    /// Property or control with the bitrate.
    pub bitrate: String,
    /// Bits per second of its unit.
    pub bits_per_unit: i64,
    /// Bits per second when the bitrate is automatic.
    pub automatic: i64,
    /// Property or control with the distance of keyframes in pictures.
    pub gop: String,
    /// Values of it that make every picture a keyframe.
    #[serde(default)]
    pub gop_every: Vec<i64>,
    /// Values of it that make only the first picture a keyframe.
    #[serde(default)]
    pub gop_first_only: Vec<i64>,
    /// Property or control, and the value at which the bitrate is ignored.
    pub uncontrolled: Option<(String, i64)>,
    /// Property or control that sets the profile.
    pub profile: Option<String>,
    /// Its values and the profiles that they mean.
    #[serde(default)]
    pub profiles: BTreeMap<String, String>,
    /// Profile when neither that nor caps say one.
    pub default_profile: String,
    /// Which memory is taken as it is.
    pub import: Import,
    /// Tag of the source.
    pub from: String,
}

/// What kind of memory a codec gives.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// Memory of GstDmaBufAllocator that nobody but a double can map.
    GuardedDmabuf,
    /// Memory of GstDmaBufAllocator.
    Dmabuf,
    /// GstFdMemory, not dmabuf-typed.
    Fd,
}

/// How a decoder behaves.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decoder {
    /// Fields that the caps of the stream must have.
    #[serde(default)]
    pub required: Vec<String>,
    /// Memory of its pictures.
    pub output: Output,
    /// Property that lets it drop pictures that come too late.
    pub frame_drop: Option<String>,
    /// Tag of the source.
    pub from: String,
}

/// How a converter behaves.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Converter {
    /// Which memory is taken as it is.
    pub import: Import,
    /// Memory of its pictures.
    pub output: Output,
    /// Tag of the source.
    pub from: String,
}

/// How a JPEG encoder behaves.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JpegEncoder {
    /// Which memory is taken as it is; other memory is an error.
    pub import: Import,
    /// Property with the quality.
    pub quality: String,
    /// Tag of the source.
    pub from: String,
}

macro_rules! files {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("../elements/", $name, ".toml")))),*] };
}

/// Name of each data file and its text.
pub const FILES: &[(&str, &str)] = files![
    "imxvideoconvert_g2d",
    "libcamerasrc",
    "qtic2vdec",
    "qtic2venc",
    "qticamsrc",
    "qtijpegenc",
    "qtiqmmfsrc",
    "qtivtransform",
    "v4l2h264dec-iris",
    "v4l2h264dec-vsi",
    "v4l2h264enc-iris",
    "v4l2h264enc-vsi",
    "v4l2h265dec-iris",
    "v4l2h265dec-vsi",
    "v4l2h265enc-iris",
    "v4l2h265enc-vsi",
    "v4l2jpegdec",
    "v4l2slh264dec",
    "v4l2slh265dec",
    "v4l2src-viv",
    "vpudec",
    "vpuenc_h264",
    "vpuenc_hevc",
];

/// The double of a data file, by the file's name.
///
/// # Panics
/// If the file is not in [`FILES`] or does not parse: both are mistakes in this crate, which its tests find.
#[must_use]
pub fn double(file: &str) -> &'static Double {
    static DOUBLES: LazyLock<HashMap<&str, Double>> = LazyLock::new(|| {
        let parse = |&(name, text)| match toml::from_str(text) {
            Ok(double) => (name, double),
            Err(e) => panic!("elements/{name}.toml: {e}"),
        };
        FILES.iter().map(parse).collect()
    });
    DOUBLES.get(file).unwrap_or_else(|| panic!("no elements/{file}.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_names_a_source_with_its_grade() {
        for (file, _) in FILES {
            let double = double(file);
            for (tag, source) in &double.sources {
                assert!("SPRIG".contains(source.grade), "{file}: grade of {tag}");
                assert!(source.text.len() > 5, "{file}: text of {tag}");
            }
            let pads = double.pad.iter();
            let tags = pads.flat_map(|p| p.property.iter().map(|p| &p.from).chain([&p.from]));
            let tags = tags.chain(double.property.iter().map(|p| &p.from));
            let tags = tags.chain(double.control.iter().map(|p| &p.from)).chain(double.signal.iter().map(|p| &p.from));
            let tags = tags.chain(double.camera.iter().map(|b| &b.from)).chain(double.encoder.iter().map(|b| &b.from));
            let tags = tags.chain(double.decoder.iter().map(|b| &b.from)).chain(double.jpeg.iter().map(|b| &b.from));
            for tag in tags.chain(double.converter.iter().map(|b| &b.from)) {
                assert!(double.sources.contains_key(tag), "{file}: no source {tag}");
            }
            assert!(double.sources.values().any(|s| s.grade == 'S' || s.grade == 'P'), "{file}: nothing was read");
        }
    }

    #[test]
    fn defaults_lie_in_their_ranges() {
        for (file, _) in FILES {
            for property in &double(file).property {
                let number = property.default.as_ref().and_then(toml::Value::as_integer);
                if let (Some(number), Some(min), Some(max)) = (number, property.min, property.max) {
                    assert!((min..=max).contains(&number), "{file}: {}", property.name);
                }
                if property.kind == "enum" {
                    assert!(
                        property.values.iter().any(|v| Some(i64::from(v.1)) == number),
                        "{file}: {}",
                        property.name
                    );
                }
            }
        }
    }
}
