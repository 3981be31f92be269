//! Cameras that deliver raw pictures: how they are written in the configuration, and what may be asked of them.
//!
//! Promises the same options for every way to such a camera, and nothing in an error of what was written beside its name.
//! Opens nothing.

use super::spec::{self, BadSource, SourceSpec};
use crate::media::{LensId, VideoCodec};

/// What may be asked of a raw camera and of its encoder. What is left out is chosen by what the camera and the board can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawOptions {
    /// Width and height in pixels.
    pub size: Option<(u32, u32)>,
    /// Frames per second.
    pub fps: Option<u32>,
    /// Codec of the encoder; H.264 unless asked for.
    pub codec: Option<VideoCodec>,
    /// Target in bit/s.
    pub bitrate: Option<u32>,
    /// Frames from keyframe to keyframe; at most one second where `fps` is given.
    pub gop: Option<u32>,
}

const OPTIONS: &str = "width, height, fps, codec, bitrate, gop";
/// Highest number of a camera that the element takes (qualcomm/gst-plugins-imsdk 806ad865 \[S\]).
const MOST_CAMERAS: u32 = 32;
/// Longest id of a camera that is taken; libcamera's are paths of firmware nodes.
const LONGEST_ID: usize = 256;

/// Reads one of the kinds of raw camera; `None` if the text is none.
pub(super) fn parse(text: &str) -> Option<Result<SourceSpec, BadSource>> {
    let (kind, rest) = text.split_once(':')?;
    let read: fn(&str) -> Result<SourceSpec, BadSource> = match kind {
        "v4l2" => v4l2,
        "board" => board,
        "libcamera" => libcamera,
        "qmmf" => qmmf,
        _ => return None,
    };
    Some(read(rest))
}

fn v4l2(rest: &str) -> Result<SourceSpec, BadSource> {
    let (path, options) = parts("v4l2", rest)?;
    if !path.starts_with("/dev/") || path.contains('\0') {
        return Err(BadSource::Path { kind: "v4l2", example: "v4l2:/dev/video0?width=1280&height=720&fps=30" });
    }
    Ok(SourceSpec::V4l2 { device: path.into(), options })
}

fn board(rest: &str) -> Result<SourceSpec, BadSource> {
    let (name, options) = parts("board", rest)?;
    let lens = LensId::new(name).map_err(|_| BadSource::Name {
        kind: "board",
        accepted: "the name of a lens in the device tree, like board:road; mos probe lists them",
    })?;
    Ok(SourceSpec::Board { lens, options })
}

fn libcamera(rest: &str) -> Result<SourceSpec, BadSource> {
    let (id, options) = parts("libcamera", rest)?;
    let accepted = "the id of a camera as libcamera lists it, like libcamera:/base/soc@0/i2c@30a30000/camera@10";
    let bad = BadSource::Name { kind: "libcamera", accepted };
    let camera = spec::percent_decoded(id).ok_or_else(|| bad.clone())?;
    if camera.is_empty() || camera.len() > LONGEST_ID || camera.chars().any(char::is_control) {
        return Err(bad);
    }
    Ok(SourceSpec::Libcamera { camera, options })
}

fn qmmf(rest: &str) -> Result<SourceSpec, BadSource> {
    let (number, options) = parts("qmmf", rest)?;
    let accepted = "the number of a camera in Qualcomm's camera service, from 0 to 32, like qmmf:0";
    let camera = number.parse().ok().filter(|n| *n <= MOST_CAMERAS);
    Ok(SourceSpec::Qmmf { camera: camera.ok_or(BadSource::Name { kind: "qmmf", accepted })?, options })
}

/// What stands before the options, and the options.
fn parts<'a>(kind: &'static str, rest: &'a str) -> Result<(&'a str, RawOptions), BadSource> {
    let (name, query) = spec::split_query(rest);
    let (mut width, mut height, mut gop) = (None, None, None);
    let mut found = RawOptions::default();
    for (option, value) in spec::options(query) {
        match &*option {
            "width" => width = Some(spec::number("width", &value, 16, 16384)?),
            "height" => height = Some(spec::number("height", &value, 16, 16384)?),
            "fps" => found.fps = Some(spec::number("fps", &value, 1, 1000)?),
            "codec" => found.codec = Some(spec::codec(&value)?),
            "bitrate" => found.bitrate = Some(spec::number("bitrate", &value, 50_000, 200_000_000)?),
            "gop" => gop = Some(value.into_owned()),
            _ => return Err(BadSource::UnknownOption { kind, option: spec::shown(&option), accepted: OPTIONS }),
        }
    }
    // Read last: its bound, one second, depends on fps.
    found.gop = gop.map(|text| spec::number("gop", &text, 1, found.fps.unwrap_or(1000))).transpose()?;
    found.size = match (width, height) {
        (Some(w), Some(h)) => Some((w, h)),
        (None, None) => None,
        (Some(_), None) => {
            return Err(BadSource::Option { option: "height", accepted: "given together with width".into() });
        }
        (None, Some(_)) => {
            return Err(BadSource::Option { option: "width", accepted: "given together with height".into() });
        }
    };
    Ok((name, found))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SOME: &str = "?width=1280&height=720&fps=30&codec=h265&bitrate=3000000&gop=15";

    #[test]
    fn every_way_to_a_raw_camera_has_the_same_options() {
        let options = RawOptions {
            size: Some((1280, 720)),
            fps: Some(30),
            codec: Some(VideoCodec::H265),
            bitrate: Some(3_000_000),
            gop: Some(15),
        };
        let lens = LensId::new("road").unwrap();
        let (device, camera) = ("/dev/video3".into(), "/base/soc@0/camera@10".to_owned());
        for (name, spec) in [
            ("v4l2:/dev/video3", SourceSpec::V4l2 { device, options: options.clone() }),
            ("board:road", SourceSpec::Board { lens, options: options.clone() }),
            ("libcamera:/base/soc@0/camera@10", SourceSpec::Libcamera { camera, options: options.clone() }),
            ("qmmf:3", SourceSpec::Qmmf { camera: 3, options }),
        ] {
            assert_eq!(SourceSpec::parse(&format!("{name}{SOME}")), Ok(spec.clone()));
            assert_eq!(spec.to_string(), name);
            for (bad, option) in
                [("fps=0", "fps"), ("codec=av1", "codec"), ("bitrate=1", "bitrate"), ("width=640", "height")]
            {
                let e = SourceSpec::parse(&format!("{name}?{bad}")).unwrap_err();
                assert!(matches!(&e, BadSource::Option { option: o, .. } if *o == option), "{e}");
            }
            let e = SourceSpec::parse(&format!("{name}?gop=31&fps=30")).unwrap_err().to_string();
            assert_eq!(e, "option gop must be a whole number from 1 to 30");
            let e = SourceSpec::parse(&format!("{name}?loop=true")).unwrap_err().to_string();
            assert!(
                e.ends_with("sources have no option 'loop'; accepted: width, height, fps, codec, bitrate, gop"),
                "{e}"
            );
        }
    }

    #[test]
    fn a_name_that_cannot_be_is_refused_without_being_repeated() {
        let long = format!("libcamera:{}", "x".repeat(257));
        for bad in [
            "board:",
            "board:Hunter2",
            "board:hunter2/x",
            "libcamera:",
            "libcamera:hunter2%0a",
            "qmmf:",
            "qmmf:33",
            "qmmf:-1",
            "qmmf:hunter2",
            &long,
        ] {
            let e = SourceSpec::parse(bad).unwrap_err();
            assert!(matches!(e, BadSource::Name { .. }), "{bad}: {e}");
            assert!(!format!("{e} {e:?}").to_lowercase().contains("hunter2"), "{e}");
        }
        let id = SourceSpec::parse("libcamera:a%3Fb").unwrap();
        assert!(matches!(id, SourceSpec::Libcamera { camera, .. } if camera == "a?b"));
    }
}
