//! What a worker is told: its source with credentials, and the board. Travels over the socket only.

use std::path::PathBuf;
use std::sync::Arc;

use mos_hal::device_tree::LensOverride;
use mos_hal::frames::{LensFrames, socket_behind};
use mos_hal::media::LensId;
use mos_hal::probe::Options;
use mos_hal::shared::{Fact, Lesson};
use mos_hal::source::{Credentials, RawOptions, SourceSpec, Transport, Trust};
use serde::{Deserialize, Serialize};
use url::Url;
use url::form_urlencoded::Serializer;

/// A worker's work. `Debug` is left out: it holds credentials.
#[derive(Serialize, Deserialize)]
pub(super) struct Work {
    source: String,
    /// Of a network camera.
    transport: Option<String>,
    /// Of one over TLS.
    tls_ca: Option<PathBuf>,
    tls_fingerprint: Option<String>,
    plain_stream: bool,
    pub(super) audio: bool,
    device_tree: PathBuf,
    sysfs: PathBuf,
    production: bool,
    lenses: Vec<Changed>,
    /// Cameras whose pictures come in CPU memory, and those without NV12, as far as that was learned.
    in_system_memory: Vec<String>,
    without_nv12: Vec<String>,
    frames: Option<Behind>,
    /// Of so many pictures one is coded, to begin with.
    pub(super) one_in: u32,
    /// Level of the log: `info`…
    pub(super) log: String,
}

/// Where raw pictures are handed over.
#[derive(Serialize, Deserialize)]
struct Behind {
    socket: PathBuf,
    budget: u32,
}

#[derive(Serialize, Deserialize)]
struct Changed {
    name: String,
    role: Option<String>,
    camera_index: Option<u32>,
    rotation: Option<u32>,
    disabled: bool,
}

impl Work {
    pub(super) fn new(
        source: &SourceSpec,
        audio: bool,
        board: &Options,
        lessons: &[Lesson],
        frames: Option<&LensFrames>,
        one_in: u32,
    ) -> Self {
        let learned = |fact| {
            let holding = lessons.iter().filter(move |lesson| lesson.fact == fact && lesson.holds);
            holding.map(|lesson| lesson.camera.clone()).collect()
        };
        let lens = |lens: &LensOverride| Changed {
            name: lens.name.to_string(),
            role: lens.role.clone(),
            camera_index: lens.camera_index,
            rotation: lens.rotation,
            disabled: lens.disabled,
        };
        let transport = match source {
            SourceSpec::Rtsp { transport, .. } | SourceSpec::Onvif { transport, .. } => {
                Some(transport.name().to_owned())
            }
            _ => None,
        };
        Self {
            source: text(source),
            transport,
            tls_ca: source.trust().and_then(|trust| trust.ca.clone()),
            tls_fingerprint: source.trust().and_then(|trust| Some(trust.fingerprint?.to_string())),
            plain_stream: source.trust().is_some_and(|trust| trust.plain_stream),
            audio,
            device_tree: board.device_tree.clone(),
            sysfs: board.sysfs.clone(),
            production: board.production,
            lenses: board.lenses.iter().map(lens).collect(),
            in_system_memory: learned(Fact::InSystemMemory),
            without_nv12: learned(Fact::WithoutNv12),
            frames: frames.map(|frames| Behind { socket: socket_behind(frames.socket()), budget: frames.budget() }),
            one_in,
            log: log::max_level().to_string(),
        }
    }

    /// The source; the error never holds its text.
    pub(super) fn source(&self) -> Result<SourceSpec, String> {
        let source = SourceSpec::parse(&self.source).map_err(|e| e.to_string())?;
        let unfit = || "no such network camera".to_owned();
        let source = match self.transport.as_deref().and_then(Transport::named) {
            Some(transport) => source.over(transport).ok_or_else(unfit)?,
            None => source,
        };
        let fingerprint = match &self.tls_fingerprint {
            Some(text) => Some(text.parse().map_err(|()| unfit())?),
            None => None,
        };
        let trust = Trust { ca: self.tls_ca.clone(), fingerprint, plain_stream: self.plain_stream };
        if trust == Trust::default() { Ok(source) } else { source.trusting(trust).ok_or_else(unfit) }
    }

    /// What was learned of cameras.
    pub(super) fn lessons(&self) -> impl Iterator<Item = Lesson> {
        let learned = |cameras: &[String], fact| {
            cameras.iter().map(|camera| Lesson { camera: camera.clone(), fact, holds: true }).collect::<Vec<_>>()
        };
        learned(&self.in_system_memory, Fact::InSystemMemory)
            .into_iter()
            .chain(learned(&self.without_nv12, Fact::WithoutNv12))
    }

    /// Publishes raw pictures for the recorder, if it wants any.
    pub(super) fn frames(&self) -> Option<Arc<LensFrames>> {
        let Behind { socket, budget } = self.frames.as_ref()?;
        let opened = LensFrames::open_behind(socket.clone(), *budget as usize);
        opened.inspect_err(|e| log::warn!("nobody gets raw frames: {e}")).ok()
    }

    /// The board. A worker starts no workers and touches no links and lines: those are the recorder's.
    pub(super) fn board(&self) -> Options {
        let lens = |lens: &Changed| {
            Some(LensOverride {
                name: LensId::new(&lens.name).ok()?,
                role: lens.role.clone(),
                camera_index: lens.camera_index,
                rotation: lens.rotation,
                power_line: None,
                disabled: lens.disabled,
            })
        };
        Options {
            device_tree: self.device_tree.clone(),
            sysfs: self.sysfs.clone(),
            lenses: self.lenses.iter().filter_map(lens).collect(),
            gmsl: None,
            worker: None,
            production: self.production,
        }
    }
}

/// A source as it stands in a configuration, with its credentials.
fn text(source: &SourceSpec) -> String {
    match source {
        SourceSpec::Test(_) => source.to_string(),
        SourceSpec::File { path, looped } => {
            format!("file:{}?loop={looped}", escaped(&path.to_string_lossy()))
        }
        SourceSpec::Rtsp { url, credentials, .. } | SourceSpec::Onvif { url, credentials, .. } => {
            with_login(url, credentials.as_ref())
        }
        SourceSpec::Srt { url, .. } => url.to_string(),
        SourceSpec::Whep { url, credentials, .. } => format!("whep+{}", with_login(url, credentials.as_ref())),
        SourceSpec::V4l2 { device, options } => format!("v4l2:{}?{}", device.display(), query(options)),
        SourceSpec::Board { lens, options } => format!("board:{lens}?{}", query(options)),
        SourceSpec::Libcamera { camera, options } => format!("libcamera:{}?{}", escaped(camera), query(options)),
        SourceSpec::Qmmf { camera, options } => format!("qmmf:{camera}?{}", query(options)),
    }
}

fn with_login(url: &Url, credentials: Option<&Credentials>) -> String {
    let mut url = url.clone();
    if let Some(credentials) = credentials {
        // Both fail only for URLs without a host, which no source has.
        let _ = url.set_username(&escaped(&credentials.user));
        let _ = url.set_password(Some(&escaped(&credentials.password)));
    }
    url.into()
}

/// Percent-encoding of all that is not a plain letter, digit or `/._-`.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn query(options: &RawOptions) -> String {
    let mut query = Serializer::new(String::new());
    let numbers = [
        ("width", options.size.map(|s| s.0)),
        ("height", options.size.map(|s| s.1)),
        ("fps", options.fps),
        ("bitrate", options.bitrate),
        ("gop", options.gop),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            query.append_pair(name, &value.to_string());
        }
    }
    if let Some(codec) = options.codec {
        query.append_pair("codec", codec.name());
    }
    query.finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_source_arrives_as_it_was() {
        for source in [
            "test:?width=320&height=180&fps=5&codec=h265&gop=5&bitrate=60000&audio=true",
            "file:/a%20b%3Fc%25.mp4?loop=true",
            "file:/plain.mp4",
            "rtsp://192.0.2.1:8554/stream/1?subtype=0",
            "rtsp://ad%40min:s%3Ac%2Fr%23t%25%20@192.0.2.10:8554/stream/1?subtype=0&pw=s3",
            "rtsps://ad%40min:pw@192.0.2.10/stream/1",
            "onvifs://192.0.2.10:8443/main",
            "srt://192.0.2.1:7001?mode=listener&passphrase=a%26b%25cdefghijk&streamid=%23%21::r=x&latency=200",
            "whep+https://t%25k.en-_@192.0.2.1:8889/road/whep?a=b",
            "v4l2:/dev/video3?width=1280&height=720&fps=30&codec=h265&bitrate=3000000&gop=15",
            "board:road?fps=30",
            "libcamera:/base/soc@0/a%3Fb?gop=15",
            "qmmf:3",
        ] {
            let spec = SourceSpec::parse(source).unwrap();
            let spec = spec.clone().over(Transport::Udp).unwrap_or(spec);
            let fingerprint = "5a".repeat(32).parse().ok();
            let trust = Trust { ca: Some("/ca.pem".into()), fingerprint, plain_stream: true };
            let spec = spec.clone().trusting(trust).unwrap_or(spec);
            let lenses = vec![LensOverride {
                name: LensId::new("road").unwrap(),
                role: Some("road ahead".into()),
                camera_index: Some(2),
                rotation: Some(180),
                power_line: None,
                disabled: false,
            }];
            let lessons = [("qmmf:1", Fact::InSystemMemory), ("qmmf:0", Fact::WithoutNv12)]
                .map(|(camera, fact)| Lesson { camera: camera.into(), fact, holds: true });
            let board = Options { production: true, lenses, sysfs: "/s".into(), ..Options::default() };
            let sent = serde_json::to_vec(&Work::new(&spec, true, &board, &lessons, None, 2)).unwrap();
            let work: Work = serde_json::from_slice(&sent).unwrap();
            assert!(work.source() == Ok(spec), "{source}");
            assert_eq!((work.board(), work.audio, work.one_in), (board, true, 2));
            assert!(work.lessons().eq(lessons));
        }
    }
}
