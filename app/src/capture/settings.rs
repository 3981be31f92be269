//! What ConfigureStream may ask of a lens, and how it changes the source of the configuration.
//!
//! Promises that what is refused is refused with what would be accepted: by the kind of source first, then by the modes that
//! its device lists, then by the limits of the encoder that would be used. Opens nothing.

use mos_hal::codecs::choice::Choice;
use mos_hal::codecs::families::Task;
use mos_hal::media::{Rotation, VideoCodec};
use mos_hal::platform::{DeviceMode, Platform};
use mos_hal::source::SourceSpec;
use serde::{Deserialize, Serialize};

use super::LensConfig;
use super::roster::is_of;

/// Settings of a stream. What is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamSettings {
    /// Width in pixels; together with `height`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height in pixels; together with `width`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Frames per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame_rate: Option<u32>,
    /// `h264` or `h265`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// Target in bit/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitrate: Option<u32>,
    /// Frames from keyframe to keyframe, at most a second of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gop: Option<u32>,
    /// By how many degrees the picture is to be turned clockwise when it is shown: 0, 90, 180 or 270. It is coded as it is; segments
    /// and clips tell players, snapshots are turned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<u32>,
    /// Whether sound is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<bool>,
}

/// What a source is asked for, as far as its configuration says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Width and height in pixels.
    pub size: Option<(u32, u32)>,
    /// Frames per second.
    pub frame_rate: Option<u32>,
    /// Codec of the encoder.
    pub codec: Option<VideoCodec>,
    /// In bit/s.
    pub bitrate: Option<u32>,
    /// Frames from keyframe to keyframe.
    pub gop: Option<u32>,
}

impl Target {
    /// Of a source as configured.
    pub(crate) fn of(source: &SourceSpec) -> Self {
        match source {
            SourceSpec::Test(t) => Self {
                size: Some((t.width, t.height)),
                frame_rate: Some(t.fps),
                codec: Some(t.codec),
                bitrate: Some(t.bitrate),
                gop: Some(t.gop),
            },
            SourceSpec::V4l2 { options, .. }
            | SourceSpec::Board { options, .. }
            | SourceSpec::Libcamera { options, .. }
            | SourceSpec::Qmmf { options, .. } => Self {
                size: options.size,
                frame_rate: options.fps,
                codec: options.codec,
                bitrate: options.bitrate,
                gop: options.gop,
            },
            SourceSpec::File { .. }
            | SourceSpec::Rtsp { .. }
            | SourceSpec::Onvif { .. }
            | SourceSpec::Srt { .. }
            | SourceSpec::Whep { .. } => Self::default(),
        }
    }
}

impl StreamSettings {
    /// These, and where they say nothing what `before` said.
    pub(crate) fn over(&self, before: &Self) -> Self {
        // Size belongs together: half of an old one is no wish.
        let sized = self.width.is_some() || self.height.is_some();
        Self {
            width: if sized { self.width } else { before.width },
            height: if sized { self.height } else { before.height },
            frame_rate: self.frame_rate.or(before.frame_rate),
            codec: self.codec.clone().or_else(|| before.codec.clone()),
            bitrate: self.bitrate.or(before.bitrate),
            gop: self.gop.or(before.gop),
            rotation: self.rotation.or(before.rotation),
            audio: self.audio.or(before.audio),
        }
    }

    /// How its pictures are to be shown.
    pub(crate) fn rotation(&self) -> Rotation {
        self.rotation.and_then(Rotation::of_degrees).unwrap_or_default()
    }

    /// The lens with these settings instead of its own; or what would be accepted.
    pub(crate) fn apply(&self, base: &LensConfig) -> Result<LensConfig, String> {
        if self.rotation.is_some_and(|degrees| Rotation::of_degrees(degrees).is_none()) {
            return Err("rotation must be 0, 90, 180 or 270".to_owned());
        }
        let audio = self.audio.unwrap_or(base.audio);
        let mut source = base.source.clone();
        match &mut source {
            SourceSpec::Test(_) => source = self.parsed("test:", Target::of(&base.source), Some(audio))?,
            SourceSpec::V4l2 { options, .. }
            | SourceSpec::Board { options, .. }
            | SourceSpec::Libcamera { options, .. }
            | SourceSpec::Qmmf { options, .. } => {
                // All raw cameras have the same options; the name of this one need not be written again.
                if let SourceSpec::Qmmf { options: asked, .. } =
                    self.parsed("qmmf:0", Target::of(&base.source), None).map_err(|e| e.replace("qmmf ", ""))?
                {
                    *options = asked;
                }
            }
            source @ (SourceSpec::File { .. }
            | SourceSpec::Rtsp { .. }
            | SourceSpec::Onvif { .. }
            | SourceSpec::Srt { .. }
            | SourceSpec::Whep { .. }) => {
                let video = Self { audio: None, rotation: None, ..self.clone() };
                if video != Self::default() {
                    return Err(format!(
                        "{source} is recorded as it comes, coded by others; accepted: audio, rotation"
                    ));
                }
            }
        }
        Ok(LensConfig { source, audio, ..base.clone() })
    }

    /// The source of these options, read by the parser of the configuration, whose bounds hold here as well.
    fn parsed(&self, head: &str, base: Target, audio: Option<bool>) -> Result<SourceSpec, String> {
        let (width, height) = match (self.width, self.height) {
            (None, None) => (base.size.map(|s| s.0), base.size.map(|s| s.1)),
            given => given,
        };
        let frame_rate = self.frame_rate.or(base.frame_rate);
        // A group of pictures that was not asked for follows a rate that was.
        let gop = self.gop.or(base.gop.map(|gop| frame_rate.map_or(gop, |fps| gop.min(fps))));
        let codec = self.codec.clone().or_else(|| base.codec.map(|c| c.name().to_owned()));
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let numbers = [("width", width), ("height", height), ("fps", frame_rate), ("gop", gop)];
        for (name, value) in numbers.into_iter().chain([("bitrate", self.bitrate.or(base.bitrate))]) {
            if let Some(value) = value {
                query.append_pair(name, &value.to_string());
            }
        }
        if let Some(codec) = codec {
            query.append_pair("codec", &codec);
        }
        if let Some(audio) = audio {
            query.append_pair("audio", if audio { "true" } else { "false" });
        }
        SourceSpec::parse(&format!("{head}?{}", query.finish())).map_err(|e| e.to_string())
    }
}

/// Whether device and encoder of `source` can do what it asks for; or what they can.
pub(crate) fn check(source: &SourceSpec, platform: &dyn Platform) -> Result<(), String> {
    let target = Target::of(source);
    match source {
        SourceSpec::V4l2 { .. } | SourceSpec::Libcamera { .. } => {
            // One that is absent cannot be asked; it is when it comes.
            platform.devices().iter().find(|d| is_of(source, d)).map_or(Ok(()), |d| fits_device(target, &d.modes))?;
        }
        SourceSpec::Board { .. } | SourceSpec::Qmmf { .. } => {}
        // The scene is encoded by the CPU, which knows no limits; what others made cannot be asked for.
        SourceSpec::Test(_)
        | SourceSpec::File { .. }
        | SourceSpec::Rtsp { .. }
        | SourceSpec::Onvif { .. }
        | SourceSpec::Srt { .. }
        | SourceSpec::Whep { .. } => {
            return Ok(());
        }
    }
    // A camera that codes by itself needs an encoder only if one of these is asked for.
    if target.codec.is_some() || target.bitrate.is_some() || target.gop.is_some() {
        fits_encoder(target, target.codec.unwrap_or(VideoCodec::H264), &platform.choices())?;
    }
    Ok(())
}

fn fits_device(target: Target, modes: &[DeviceMode]) -> Result<(), String> {
    let fits = |mode: &DeviceMode| {
        let (least_width, least_height) = mode.smallest.unwrap_or((mode.width, mode.height));
        target
            .size
            .is_none_or(|(w, h)| (least_width..=mode.width).contains(&w) && (least_height..=mode.height).contains(&h))
            && target.frame_rate.is_none_or(|fps| mode.max_fps <= 0.0 || fps as f32 <= mode.max_fps + 0.5)
    };
    if modes.is_empty() || modes.iter().any(fits) {
        return Ok(());
    }
    let show = |m: &DeviceMode| {
        let least = m.smallest.map_or_else(String::new, |(w, h)| format!("{w}x{h} to "));
        format!("{least}{}x{} up to {:.0} fps", m.width, m.height, m.max_fps)
    };
    let mut shown: Vec<String> = modes.iter().map(show).collect();
    shown.sort();
    shown.dedup();
    Err(format!("the camera has no such mode; accepted: {}", shown.join(", ")))
}

fn fits_encoder(target: Target, codec: VideoCodec, choices: &[Choice]) -> Result<(), String> {
    let Some(choice) = choices.iter().find(|c| c.task == Task::Encode(codec)) else { return Ok(()) };
    let Some(family) = choice.chosen else {
        let can = choices.iter().filter(|c| c.chosen.is_some()).filter_map(|c| match c.task {
            Task::Encode(codec) => Some(codec.name()),
            _ => None,
        });
        let can: Vec<&str> = can.collect();
        return Err(format!("nothing here encodes {}; accepted: {}", codec.name(), can.join(", ")));
    };
    let limits = family.limits;
    let bounds = [
        ("width", target.size.map(|s| s.0), limits.width),
        ("height", target.size.map(|s| s.1), limits.height),
        ("bitrate", target.bitrate, limits.bitrate),
    ];
    for (name, value, (least, most)) in bounds {
        if value.is_some_and(|v| !(least..=most).contains(&v)) {
            return Err(format!("{name} is beyond the encoder {}; accepted: {least} to {most}", family.element));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mos_hal::codecs::families::VSI_H264;
    use mos_hal::media::LensId;

    use super::super::Isolation;
    use super::*;

    fn lens(source: &str) -> LensConfig {
        let source = SourceSpec::parse(source).unwrap();
        LensConfig { id: LensId::new("road").unwrap(), source, audio: false, frames: None, isolation: Isolation::None }
    }

    fn settings(text: &str) -> StreamSettings {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_asked_changes_and_the_rest_stays() {
        let base = lens("test:?width=640&height=360&fps=30&gop=30&bitrate=1000000");
        let asked = settings(r#"{"frame_rate":15,"codec":"h265","audio":true}"#);
        let made = asked.apply(&base).unwrap();
        assert_eq!(
            made.source,
            SourceSpec::parse("test:?width=640&height=360&fps=15&gop=15&bitrate=1000000&codec=h265&audio=true")
                .unwrap()
        );
        assert!(made.audio);
        let more = settings(r#"{"width":320,"height":180}"#).over(&asked);
        assert_eq!(Target::of(&more.apply(&base).unwrap().source).size, Some((320, 180)));
        assert_eq!(more.frame_rate, Some(15));
        let v4l2 = settings(r#"{"width":640,"height":480,"frame_rate":25}"#).apply(&lens("v4l2:/dev/video7")).unwrap();
        let target = Target { size: Some((640, 480)), frame_rate: Some(25), ..Target::default() };
        assert_eq!((v4l2.source.to_string().as_str(), Target::of(&v4l2.source)), ("v4l2:/dev/video7", target));
    }

    #[test]
    fn what_is_refused_says_what_would_be_accepted() {
        let refused = |base: &str, asked: &str| settings(asked).apply(&lens(base)).unwrap_err();
        assert_eq!(refused("test:", r#"{"frame_rate":0}"#), "option fps must be a whole number from 1 to 240");
        assert_eq!(refused("test:", r#"{"codec":"av1&fps=1"}"#), "option codec must be h264 or h265");
        assert_eq!(refused("test:?fps=20", r#"{"gop":21}"#), "option gop must be a whole number from 1 to 20");
        assert_eq!(refused("test:", r#"{"rotation":45}"#), "rotation must be 0, 90, 180 or 270");
        assert!(refused("v4l2:/dev/video0", r#"{"width":640}"#).contains("given together"));
        assert!(refused("board:road", r#"{"codec":"av1"}"#).contains("h264 or h265"));
        let network = refused("rtsp://user:secret@h/s", r#"{"bitrate":1000000}"#);
        assert_eq!(network, "rtsp://h/s is recorded as it comes, coded by others; accepted: audio, rotation");
        assert!(settings(r#"{"audio":true}"#).apply(&lens("rtsp://user:secret@h/s")).unwrap().audio);
        assert!(serde_json::from_str::<StreamSettings>(r#"{"colour":"red"}"#).is_err());
    }

    #[test]
    fn device_modes_and_encoder_limits_are_named() {
        let mode = |width, height| DeviceMode { format: "YUYV".into(), width, height, smallest: None, max_fps: 30.0 };
        let modes = [mode(640, 480), mode(1280, 720)];
        let target = |size, fps| Target { size: Some(size), frame_rate: Some(fps), ..Target::default() };
        assert_eq!(fits_device(target((640, 480), 30), &modes), Ok(()));
        let accepted = "the camera has no such mode; accepted: 1280x720 up to 30 fps, 640x480 up to 30 fps";
        for refused in [target((800, 600), 30), target((640, 480), 60)] {
            assert_eq!(fits_device(refused, &modes), Err(accepted.to_owned()));
        }
        let range = [DeviceMode { smallest: Some((16, 16)), ..mode(1280, 720) }];
        assert_eq!(fits_device(target((800, 600), 30), &range), Ok(()));
        let beyond = fits_device(target((1920, 1080), 30), &range).unwrap_err();
        assert!(beyond.ends_with("accepted: 16x16 to 1280x720 up to 30 fps"), "{beyond}");
        let h264 = Choice { task: Task::Encode(VideoCodec::H264), chosen: Some(&VSI_H264), passed_over: Vec::new() };
        let h265 = Choice { task: Task::Encode(VideoCodec::H265), chosen: None, passed_over: Vec::new() };
        let choices = [h264, h265];
        assert_eq!(fits_encoder(target((1920, 1080), 30), VideoCodec::H264, &choices), Ok(()));
        let wide = fits_encoder(target((3840, 1080), 30), VideoCodec::H264, &choices);
        assert_eq!(wide, Err("width is beyond the encoder v4l2h264enc; accepted: 64 to 1920".to_owned()));
        let h265 = fits_encoder(target((640, 480), 30), VideoCodec::H265, &choices);
        assert_eq!(h265, Err("nothing here encodes h265; accepted: h264".to_owned()));
    }
}
