//! A source as it stands in the configuration.
//!
//! Promises that what is accepted can be opened as written, that an error says what would be accepted, and that neither an
//! error nor `Debug` nor `Display` shows a user name, a password or a query. Opens nothing.

use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

use super::network::{Credentials, Transport, Trust};
use super::raw::{self, RawOptions};
use super::srt::{self, SrtOptions};
use super::whep;
use crate::media::{LensId, VideoCodec};

/// A source as written in the configuration. `Debug` and `Display` never show credentials.
#[derive(Clone, PartialEq, Eq)]
pub enum SourceSpec {
    /// `test:` with options `width`, `height`, `fps`, `codec` (h264, h265), `gop` (frames), `bitrate` (bit/s), `audio`.
    Test(TestPattern),
    /// `file:/path.mp4?loop=true`: played in real time, not transcoded.
    File {
        /// The file.
        path: PathBuf,
        /// Start again at its end.
        looped: bool,
    },
    /// `rtsp://[user:password@]host[:port]/path`, or `rtsps://`, which is the same over TLS.
    Rtsp {
        /// The URL without user information.
        url: Url,
        /// User name and password, percent-decoded.
        credentials: Option<Credentials>,
        /// How its packets come.
        transport: Transport,
        /// Whose certificate is believed; of `rtsps://`.
        trust: Trust,
    },
    /// `onvif://[user:password@]host[:port][/profile]`: asked at each start where it streams; `onvifs://` asks over TLS. A UUID
    /// instead of the host is the camera's endpoint reference and is looked for on the network.
    Onvif {
        /// The URL without user information; its path is the profile's token or name.
        url: Url,
        /// User name and password, percent-decoded; for the stream as well.
        credentials: Option<Credentials>,
        /// How its packets come.
        transport: Transport,
        /// Whose certificate is believed, where it is asked or streams over TLS.
        trust: Trust,
    },
    /// `srt://host:port?mode=caller|listener&passphrase=…&streamid=…&latency=ms`: MPEG-TS over SRT.
    Srt {
        /// The URL as written, with its secrets.
        url: Url,
        /// What its options say.
        options: SrtOptions,
    },
    /// `whep+https://[token@|user:password@]host[:port]/path` or `whep+http://…`: WebRTC, fetched by WHEP.
    Whep {
        /// The endpoint without user information.
        url: Url,
        /// A bearer token as user name without password, or user name and password.
        credentials: Option<Credentials>,
        /// Whose certificate is believed; of `whep+https://`.
        trust: Trust,
    },
    /// `v4l2:/dev/videoN`.
    V4l2 {
        /// The device node.
        device: PathBuf,
        /// What is asked of it.
        options: RawOptions,
    },
    /// `board:NAME`, a lens of the device tree, captured by whatever route this board has.
    Board {
        /// Its name in the tree.
        lens: LensId,
        /// What is asked of it.
        options: RawOptions,
    },
    /// `libcamera:ID`.
    Libcamera {
        /// The camera's id in libcamera.
        camera: String,
        /// What is asked of it.
        options: RawOptions,
    },
    /// `qmmf:NUMBER`, a camera of Qualcomm's camera service.
    Qmmf {
        /// Its number there.
        camera: u32,
        /// What is asked of it.
        options: RawOptions,
    },
}

/// The synthetic scene: moving bars with frame number and running clock burnt in, encoded on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestPattern {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Frames per second.
    pub fps: u32,
    /// Codec of the host encoder.
    pub codec: VideoCodec,
    /// Frames from keyframe to keyframe; at most one second.
    pub gop: u32,
    /// Target in bit/s.
    pub bitrate: u32,
    /// With a sine tone.
    pub audio: bool,
}

impl Default for TestPattern {
    /// 1080p30 H.264 at 4 Mbit/s, a keyframe every second, no sound.
    fn default() -> Self {
        Self { width: 1920, height: 1080, fps: 30, codec: VideoCodec::H264, gop: 30, bitrate: 4_000_000, audio: false }
    }
}

/// A source text that cannot be used. Never repeats the text: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSource {
    /// No scheme that MOS knows.
    #[error(
        "a source starts with board:, rtsp://, rtsps://, onvif://, onvifs://, srt://, whep+https://, v4l2:/dev/video, libcamera:, qmmf:, file:/ or test:"
    )]
    Scheme,
    /// An option that this kind of source does not have.
    #[error("{kind} sources have no option {option}; accepted: {accepted}")]
    UnknownOption {
        /// `test`, `file`, `v4l2`…
        kind: &'static str,
        /// The name as written, if it can be shown.
        option: String,
        /// Option names, or "none".
        accepted: &'static str,
    },
    /// A known option with a value out of its range.
    #[error("option {option} must be {accepted}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What would be accepted.
        accepted: String,
    },
    /// The path after `file:` or `v4l2:`.
    #[error("{kind} sources need an absolute path, like {example}")]
    Path {
        /// `file` or `v4l2`.
        kind: &'static str,
        /// How it would look.
        example: &'static str,
    },
    /// What names the camera after `board:`, `libcamera:` or `qmmf:`.
    #[error("{kind} sources need {accepted}")]
    Name {
        /// `board`, `libcamera` or `qmmf`.
        kind: &'static str,
        /// What would be accepted.
        accepted: &'static str,
    },
    /// The URL after `rtsp:` or another scheme of the network.
    #[error(
        "not a usable URL: {0}; it looks like rtsp://user:password@host:554/path, with @ : / ? # % in user and password written as %40 %3A %2F %3F %23 %25"
    )]
    Url(String),
}

impl SourceSpec {
    /// Reads the text of a configuration's `source` key.
    pub fn parse(text: &str) -> Result<Self, BadSource> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("test:") {
            return parse_test(rest);
        }
        if let Some(rest) = text.strip_prefix("file:") {
            return parse_file(rest);
        }
        if let Some(read) = raw::parse(text) {
            return read;
        }
        let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase()).unwrap_or_default();
        match &*scheme {
            "rtsp" | "rtsps" => {
                let (url, credentials) = parse_url(text)?;
                Ok(Self::Rtsp { url, credentials, transport: Transport::Auto, trust: Trust::default() })
            }
            "srt" => srt::parse(text),
            "onvif" | "onvifs" => parse_onvif(text),
            "whep+http" | "whep+https" => whep::parse(text),
            _ => Err(BadSource::Scheme),
        }
    }

    /// The same source over that transport; `None` if it is no network camera, or one whose packets come over TLS and shall
    /// come over UDP.
    #[must_use]
    pub fn over(mut self, over: Transport) -> Option<Self> {
        match &mut self {
            Self::Rtsp { url, .. } if over == Transport::Udp && url.scheme() == "rtsps" => return None,
            Self::Rtsp { transport, .. } | Self::Onvif { transport, .. } => *transport = over,
            _ => return None,
        }
        Some(self)
    }

    /// Whether its text bears a password, or looks as if it did.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        match self {
            Self::Rtsp { url, credentials, .. }
            | Self::Onvif { url, credentials, .. }
            | Self::Whep { url, credentials, .. } => {
                credentials.is_some() || telling(url.path()) || url.query().is_some_and(telling)
            }
            Self::Srt { options, .. } => options.passphrase.is_some() || options.stream_id.is_some(),
            _ => false,
        }
    }

    /// The same source with that trust; `None` if nothing of it is encrypted.
    #[must_use]
    pub fn trusting(mut self, believed: Trust) -> Option<Self> {
        match &mut self {
            Self::Rtsp { url, .. } if url.scheme() != "rtsps" => return None,
            Self::Whep { url, .. } if url.scheme() != "https" => return None,
            Self::Onvif { url, .. } if url.scheme() != "onvifs" => return None,
            Self::Rtsp { trust, .. } | Self::Onvif { trust, .. } | Self::Whep { trust, .. } => *trust = believed,
            _ => return None,
        }
        Some(self)
    }

    /// Whose certificate is believed; `None` if nothing of it is encrypted.
    #[must_use]
    pub fn trust(&self) -> Option<&Trust> {
        match self {
            Self::Rtsp { url, trust, .. } => (url.scheme() == "rtsps").then_some(trust),
            Self::Whep { url, trust, .. } => (url.scheme() == "https").then_some(trust),
            Self::Onvif { url, trust, .. } => (url.scheme() == "onvifs").then_some(trust),
            _ => None,
        }
    }

    /// Like [`SourceSpec::parse`], and takes a bare `/dev/videoN` or the path of a file, which is then looped: what a person
    /// types after `make demo INPUT=`.
    pub fn for_input(text: &str) -> Result<Self, BadSource> {
        match Self::parse(text) {
            Err(BadSource::Scheme) => {}
            other => return other,
        }
        let path = Path::new(text);
        if text.starts_with("/dev/") {
            return Ok(Self::V4l2 { device: path.to_owned(), options: RawOptions::default() });
        }
        match std::path::absolute(path) {
            Ok(path) if !text.is_empty() && !text.contains("://") => Ok(Self::File { path, looped: true }),
            _ => Err(BadSource::Scheme),
        }
    }
}

/// Shows what is opened: the text of the configuration without user information and, for RTSP, without query.
impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Test(t) => write!(
                f,
                "test:?width={}&height={}&fps={}&codec={}&gop={}&bitrate={}&audio={}",
                t.width,
                t.height,
                t.fps,
                t.codec.name(),
                t.gop,
                t.bitrate,
                t.audio
            ),
            Self::File { path, looped } => {
                write!(f, "file:{}{}", path.display(), if *looped { "?loop=true" } else { "" })
            }
            Self::Rtsp { url, .. } | Self::Onvif { url, .. } | Self::Srt { url, .. } => f.write_str(&redacted(url)),
            Self::Whep { url, .. } => f.write_str(&whep::shown(url)),
            Self::V4l2 { device, .. } => write!(f, "v4l2:{}", device.display()),
            Self::Board { lens, .. } => write!(f, "board:{lens}"),
            Self::Libcamera { camera, .. } => write!(f, "libcamera:{camera}"),
            Self::Qmmf { camera, .. } => write!(f, "qmmf:{camera}"),
        }
    }
}

impl fmt::Debug for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The URL for people: host, port and path. Cameras of some makers take the password in path or query, so a query never
/// shows and neither does a path that looks like it.
pub(crate) fn redacted(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    let path = if telling(url.path()) || url.path().contains('=') { "/…" } else { url.path() };
    format!("{}://{host}{port}{path}{}", url.scheme(), if url.query().is_some() { "?…" } else { "" })
}

/// Whether a part of a URL looks as if it bore a secret.
fn telling(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    ["pass", "pwd", "user", "token", "auth", "@", "%40"].iter().any(|word| lower.contains(word))
}

const TEST_OPTIONS: &str = "width, height, fps, codec, gop, bitrate, audio";

fn parse_test(rest: &str) -> Result<SourceSpec, BadSource> {
    let (path, query) = split_query(rest);
    if !path.is_empty() {
        return Err(BadSource::UnknownOption { kind: "test", option: shown(path), accepted: TEST_OPTIONS });
    }
    let mut t = TestPattern::default();
    let mut gop = None;
    for (name, value) in options(query) {
        match &*name {
            "width" => t.width = even("width", &value, 64, 7680)?,
            "height" => t.height = even("height", &value, 64, 4320)?,
            "fps" => t.fps = number("fps", &value, 1, 240)?,
            "codec" => t.codec = codec(&value)?,
            "gop" => gop = Some(value.into_owned()),
            "bitrate" => t.bitrate = number("bitrate", &value, 50_000, 200_000_000)?,
            "audio" => t.audio = boolean("audio", &value)?,
            _ => {
                return Err(BadSource::UnknownOption { kind: "test", option: shown(&name), accepted: TEST_OPTIONS });
            }
        }
    }
    // Read last: its bound, one second, depends on fps.
    t.gop = match gop {
        Some(text) => number("gop", &text, 1, t.fps)?,
        None => t.fps,
    };
    Ok(SourceSpec::Test(t))
}

fn parse_file(rest: &str) -> Result<SourceSpec, BadSource> {
    let (path, query) = split_query(rest);
    let mut looped = false;
    for (name, value) in options(query) {
        match &*name {
            "loop" => looped = boolean("loop", &value)?,
            _ => return Err(BadSource::UnknownOption { kind: "file", option: shown(&name), accepted: "loop" }),
        }
    }
    let bad = BadSource::Path { kind: "file", example: "file:/footage/road.mp4?loop=true" };
    let path = path.strip_prefix("//").unwrap_or(path);
    let path = percent_decoded(path).ok_or_else(|| bad.clone())?;
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err(bad);
    }
    Ok(SourceSpec::File { path: path.into(), looped })
}

fn parse_onvif(text: &str) -> Result<SourceSpec, BadSource> {
    let (url, credentials) = parse_url(text)?;
    let bad = |why: &str| Err(BadSource::Url(why.to_owned()));
    if url.query().is_some() {
        return bad("onvif:// has no options");
    }
    match percent_decoded(url.path().trim_matches('/')) {
        Some(profile) if profile.len() <= 64 && !profile.chars().any(char::is_control) => {
            Ok(SourceSpec::Onvif { url, credentials, transport: Transport::Auto, trust: Trust::default() })
        }
        _ => bad("behind the host of onvif:// stands nothing or the profile's token or name, of at most 64 bytes"),
    }
}

/// A URL of the network without its user information, and that.
pub(super) fn parse_url(text: &str) -> Result<(Url, Option<Credentials>), BadSource> {
    let bad = |why: &str| BadSource::Url(why.to_owned());
    // The parser's errors are fixed texts without the input.
    let mut url = Url::parse(text).map_err(|e| BadSource::Url(e.to_string()))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad("no host"));
    }
    // A password with an unescaped / ? or # ends up behind the host, where it would be shown and sent in clear.
    let tail = &url[url::Position::BeforePath..];
    if url.fragment().is_some() || tail.contains('@') {
        return Err(bad("it holds # or, behind the host, @"));
    }
    let user = percent_decoded(url.username()).ok_or_else(|| bad("the user name is not UTF-8"))?;
    let password = percent_decoded(url.password().unwrap_or("")).ok_or_else(|| bad("the password is not UTF-8"))?;
    let credentials = (!user.is_empty() || !password.is_empty()).then_some(Credentials { user, password });
    let cleared = url.set_username("").is_ok() && url.set_password(None).is_ok();
    if !cleared || url.port() == Some(0) {
        return Err(bad("host or port"));
    }
    Ok((url, credentials))
}

pub(super) fn split_query(text: &str) -> (&str, &str) {
    text.split_once('?').unwrap_or((text, ""))
}

pub(super) fn options(query: &str) -> url::form_urlencoded::Parse<'_> {
    url::form_urlencoded::parse(query.as_bytes())
}

/// A name as far as it may be shown: a word, nothing that could be a credential in the wrong place.
pub(super) fn shown(name: &str) -> String {
    let word = name.len() <= 16 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'-');
    if word && !name.is_empty() { format!("'{name}'") } else { "of that name".to_owned() }
}

pub(super) fn number(option: &'static str, text: &str, min: u32, max: u32) -> Result<u32, BadSource> {
    text.parse()
        .ok()
        .filter(|n| (min..=max).contains(n))
        .ok_or_else(|| BadSource::Option { option, accepted: format!("a whole number from {min} to {max}") })
}

fn even(option: &'static str, text: &str, min: u32, max: u32) -> Result<u32, BadSource> {
    number(option, text, min, max)
        .ok()
        .filter(|n| n % 2 == 0)
        .ok_or_else(|| BadSource::Option { option, accepted: format!("an even number from {min} to {max}") })
}

pub(super) fn codec(text: &str) -> Result<VideoCodec, BadSource> {
    match text {
        "h264" => Ok(VideoCodec::H264),
        "h265" => Ok(VideoCodec::H265),
        _ => Err(BadSource::Option { option: "codec", accepted: "h264 or h265".into() }),
    }
}

fn boolean(option: &'static str, text: &str) -> Result<bool, BadSource> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(BadSource::Option { option, accepted: "true or false".into() }),
    }
}

/// Undoes percent-encoding (RFC 3986 section 2.1); a lone `%` stands for itself. `None` if the result is not UTF-8.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        match (bytes[i], digit(i + 1), digit(i + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                i += 3;
            }
            (b, ..) => {
                out.push(b);
                i += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_test_pattern_has_defaults_and_options() {
        assert_eq!(SourceSpec::parse("test:"), Ok(SourceSpec::Test(TestPattern::default())));
        let SourceSpec::Test(t) = SourceSpec::parse("test:?width=640&height=360&fps=15&codec=h265&audio=true").unwrap()
        else {
            panic!("not a test source")
        };
        assert_eq!((t.width, t.height, t.fps, t.gop, t.codec, t.audio), (640, 360, 15, 15, VideoCodec::H265, true));
        for bad in [
            "test:?fps=0",
            "test:?width=641",
            "test:?gop=31",
            "test:?codec=av1",
            "test:?audio=1",
            "test:?speed=2",
            "test:x",
        ] {
            let e = SourceSpec::parse(bad).unwrap_err().to_string();
            assert!(e.contains("must be") || e.contains("accepted:"), "{bad}: {e}");
        }
        assert!(SourceSpec::parse("test:?gop=60&fps=60").is_ok(), "the bound of gop follows fps in any order");
    }

    #[test]
    fn files_and_devices_need_absolute_paths() {
        let SourceSpec::File { path, looped } = SourceSpec::parse("file:/a%20b/c.mp4?loop=true").unwrap() else {
            panic!("not a file")
        };
        assert_eq!((path.to_str().unwrap(), looped), ("/a b/c.mp4", true));
        assert!(SourceSpec::parse("file:///a.mp4").is_ok());
        assert!(matches!(SourceSpec::parse("file:a.mp4"), Err(BadSource::Path { .. })));
        assert!(matches!(SourceSpec::parse("file:/a.mp4?loops=1"), Err(BadSource::UnknownOption { .. })));
        assert!(matches!(SourceSpec::parse("v4l2:video0"), Err(BadSource::Path { .. })));
    }

    #[test]
    fn rtsp_credentials_are_decoded_and_never_shown() {
        let text = "rtsp://ad%40min:s%3Ac%2Fr%23t%25@192.0.2.10:8554/stream/1?subtype=0&pw=s3";
        let spec = SourceSpec::parse(text).unwrap();
        let SourceSpec::Rtsp { url, credentials: Some(c), .. } = &spec else { panic!("no credentials") };
        assert_eq!((&*c.user, &*c.password), ("ad@min", "s:c/r#t%"));
        assert_eq!(url.as_str(), "rtsp://192.0.2.10:8554/stream/1?subtype=0&pw=s3");
        assert_eq!(spec.to_string(), "rtsp://192.0.2.10:8554/stream/1?…");
        for shown in [format!("{spec}"), format!("{spec:?}"), format!("{c:?}")] {
            assert!(!shown.contains("min") && !shown.contains("s3") && !shown.contains("r#t"), "{shown}");
        }
        let in_path = SourceSpec::parse("rtsp://192.0.2.1/user=admin&password=hunter2&channel=1.sdp").unwrap();
        assert_eq!(in_path.to_string(), "rtsp://192.0.2.1/…");
    }

    #[test]
    fn no_error_repeats_what_was_written() {
        for bad in [
            "rtsp://admin:hunter2@",
            "rtsp://admin:hun/ter2@host/x",
            "rtsp://admin:12/hunter2@host/x",
            "rtsp://admin:12#hunter2@host/x",
            "rtsp://admin:12?hunter2@host/x",
            "rtsp://admin:@hunter2/@host/x",
            "rtsp://admin:hunter2@ho st/",
            "rtsp:admin:hunter2",
            "rtsps://admin:hunter2@",
            "onvif://admin:hunter2@host/x?admin",
            "onvif://admin:hunter2@/x",
            "onvif:admin:hunter2",
            "srt://admin:hunter2@host:1",
            "whep+ftp://admin:hunter2@host/",
            "http://admin:hunter2@host/",
            "test:?admin:hunter2@host",
            "file:admin:hunter2@host",
            "v4l2:admin:hunter2",
            "board:admin:hunter2",
            "libcamera:admin:hunter2?x=1",
            "qmmf:admin:hunter2@host",
            "",
        ] {
            let e = SourceSpec::parse(bad).unwrap_err();
            let shown = format!("{e} {e:?}");
            assert!(!shown.contains("admin") && !shown.contains("ter2"), "{bad}: {shown}");
        }
    }

    #[test]
    fn a_person_may_type_a_bare_path() {
        assert!(matches!(SourceSpec::for_input("/dev/video0"), Ok(SourceSpec::V4l2 { .. })));
        assert!(
            matches!(SourceSpec::for_input("clip.mp4"), Ok(SourceSpec::File { looped: true, path }) if path.is_absolute())
        );
        assert_eq!(SourceSpec::for_input("http://host/a.mp4"), Err(BadSource::Scheme));
        assert!(matches!(SourceSpec::for_input("test:?fps=0"), Err(BadSource::Option { .. })));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC*") {
            for prefix in ["", "test:?", "file:", "v4l2:", "board:", "libcamera:", "qmmf:", "qmmf:1?", "onvif://", "srt://", "srt://host:1?", "whep+https://", "rtsp://", "rtsp://user:pass@host/"] {
                let _ = SourceSpec::parse(&format!("{prefix}{text}"));
                let _ = SourceSpec::for_input(&format!("{prefix}{text}"));
            }
        }

        #[test]
        fn a_password_never_shows(before in "[a-z/:@?#%. ]{0,4}", after in "[a-z/:@?#%. ]{0,4}", host in "[a-z]{1,5}") {
            let text = format!("rtsp://admin:{before}hunter2{after}@{host}/stream");
            let shown = match SourceSpec::parse(&text) {
                Ok(spec) => format!("{spec} {spec:?}"),
                Err(e) => format!("{e} {e:?}"),
            };
            prop_assert!(!shown.contains("hunter2") && !shown.contains("admin"), "{text}: {shown}");
        }
    }

    #[test]
    fn display_can_be_parsed_again() {
        for text in [
            "test:?width=320&height=240",
            "file:/a.mp4?loop=true",
            "rtsp://host/path",
            "onvif://host:8000/Main%20stream",
            "whep+https://host:8889/road/whep",
        ] {
            let spec = SourceSpec::parse(text).unwrap();
            assert_eq!(SourceSpec::parse(&spec.to_string()), Ok(spec));
        }
    }
}
