//! One camera: its clock, its services, its profiles, and where they stream.
//!
//! Media2 is asked where the camera has it (H.265 has no place in Media), else Media.

use std::net::IpAddr;
use std::time::Duration;

use hyper::StatusCode;
use jiff::Timestamp;
use roxmltree::Node;
use url::Url;

use super::http::{self, Endpoint, Login};
use super::security::{self, ClockOffset};
use super::soap::{self, child, children, escaped, text};
use super::{OnvifError, discovery, shown};
use crate::source::{Credentials, Trust};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(4);
/// Most profiles that are looked at.
const MAX_PROFILES: usize = 256;

/// The scheme of sources that are asked over TLS.
const SECURE: &str = "onvifs";

const DEVICE: &str = "http://www.onvif.org/ver10/device/wsdl";
const MEDIA: &str = "http://www.onvif.org/ver10/media/wsdl";
const MEDIA2: &str = "http://www.onvif.org/ver20/media/wsdl";
const EVENTS: &str = "http://www.onvif.org/ver10/events/wsdl";

/// What a camera says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Information {
    /// Who made it.
    pub manufacturer: String,
    /// Its model.
    pub model: String,
    /// Version of its firmware.
    pub firmware: String,
    /// Its serial number.
    pub serial: String,
}

/// How a profile is coded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// H.264.
    H264,
    /// H.265.
    H265,
    /// Something that MOS does not record, in the camera's word.
    Other(String),
}

impl Encoding {
    fn read(text: &str) -> Self {
        match text.to_ascii_uppercase().as_str() {
            "H264" => Self::H264,
            // The Media service has no word for it; cameras write both.
            "H265" | "HEVC" => Self::H265,
            _ => Self::Other(shown(text).to_ascii_lowercase()),
        }
    }

    /// `h264`, `h265` or the camera's word.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::H264 => "h264",
            Self::H265 => "h265",
            Self::Other(word) => word,
        }
    }
}

/// A stream that a camera offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// What names it in requests and in the path of an `onvif://` source.
    pub token: String,
    /// Its name for people; accepted in a source as well.
    pub name: String,
    /// How its pictures are coded; `None` if it has none.
    pub encoding: Option<Encoding>,
    /// Width and height in pixels; 0 where it does not say.
    pub size: (u32, u32),
    /// Most frames per second; 0 where it does not say.
    pub fps: f32,
    /// The camera's names of what it shows, which its events repeat.
    pub(super) channel: Channel,
}

/// What tells the channels of a recorder or a camera with several sensors apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Channel {
    /// The token of its video source configuration.
    pub(super) configuration: Option<String>,
    /// The token of its video source.
    pub(super) source: Option<String>,
}

impl Profile {
    pub(super) fn read(node: Node<'_, '_>) -> Option<Self> {
        // Media: tt:VideoEncoderConfiguration; Media2: tr2:Configurations/tr2:VideoEncoder.
        let encoder =
            child(node, "VideoEncoderConfiguration").or_else(|| soap::at(node, &["Configurations", "VideoEncoder"]));
        let number = |path: [&str; 2]| {
            let read = encoder.and_then(|e| text(e, &path)?.parse::<f32>().ok());
            read.filter(|number| number.is_finite() && *number >= 0.0).unwrap_or(0.0)
        };
        let pixels = |name| number(["Resolution", name]) as u32;
        let video =
            child(node, "VideoSourceConfiguration").or_else(|| soap::at(node, &["Configurations", "VideoSource"]));
        let channel = Channel {
            configuration: video.and_then(|video| video.attribute("token")).map(str::to_owned),
            source: video.and_then(|video| text(video, &["SourceToken"])).map(str::to_owned),
        };
        Some(Self {
            token: node.attribute("token").filter(|t| !t.is_empty())?.to_owned(),
            name: text(node, &["Name"]).map(shown).unwrap_or_default(),
            encoding: encoder.and_then(|e| text(e, &["Encoding"])).map(Encoding::read),
            size: (pixels("Width"), pixels("Height")),
            fps: number(["RateControl", "FrameRateLimit"]),
            channel,
        })
    }

    fn is_recordable(&self) -> bool {
        matches!(self.encoding, Some(Encoding::H264 | Encoding::H265))
    }
}

/// A camera that answers.
pub(super) struct Camera {
    device: Endpoint,
    media: Option<Endpoint>,
    media2: Option<Endpoint>,
    events: Option<Endpoint>,
    trust: Trust,
    credentials: Option<Credentials>,
    login: Login,
    offset: ClockOffset,
    /// The address that its name led to.
    address: Option<IpAddr>,
}

impl Camera {
    /// Reads clock and services of the camera that `url` names: a host, or an endpoint that is looked for.
    pub(super) async fn meet(url: &Url, credentials: Option<&Credentials>, trust: &Trust) -> Result<Self, OnvifError> {
        let mut camera = if let Some(uuid) = endpoint_reference(url) {
            Self::found(discovery::Search::begin(&uuid, url.scheme() == SECURE), credentials, trust).await?
        } else {
            let mut camera = Self::at(entry(url)?, credentials, trust);
            camera.read_clock().await?;
            camera
        };
        camera.read_services().await?;
        Ok(camera)
    }

    /// The camera that a search is for, at the first of its addresses where it can be asked.
    async fn found(
        mut search: discovery::Search,
        credentials: Option<&Credentials>,
        trust: &Trust,
    ) -> Result<Self, OnvifError> {
        let mut last = None;
        while let Some(device) = search.next().await {
            let mut camera = Self::at(device, credentials, trust);
            match camera.read_clock().await {
                Ok(()) => return Ok(camera),
                Err(e @ OnvifError::Refused(_)) => return Err(e),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| search.in_vain()))
    }

    /// The camera of a host that nobody has asked anything yet.
    pub(super) fn unmet(url: &Url, credentials: Option<&Credentials>, trust: &Trust) -> Result<Self, OnvifError> {
        Ok(Self::at(entry(url)?, credentials, trust))
    }

    fn at(device: Endpoint, credentials: Option<&Credentials>, trust: &Trust) -> Self {
        let (credentials, trust) = (credentials.cloned(), trust.clone());
        let (login, offset) = (Login::default(), ClockOffset::default());
        Self { device, media: None, media2: None, events: None, trust, credentials, login, offset, address: None }
    }

    /// Whether it is asked over TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.device.secure
    }

    async fn read_clock(&mut self) -> Result<(), OnvifError> {
        let operation = "GetSystemDateAndTime";
        let request = soap::envelope("", &format!("<GetSystemDateAndTime xmlns=\"{DEVICE}\"/>"));
        // Everybody may ask for it (ONVIF Core, access class PRE_AUTH); who refuses gets tokens in our time.
        let answer = match http::post(&self.device, &self.trust, &request, None, &mut Login::default(), REQUEST).await {
            Ok(answer) => answer,
            // Over TLS a refusal may be ours of its certificate.
            Err(OnvifError::Refused(_)) if !self.device.secure => return Ok(()),
            Err(e) => return Err(e),
        };
        let now = Timestamp::now();
        let Ok(document) = soap::read(operation, &answer.text) else {
            let reason = format!("HTTP status {}, no ONVIF camera", answer.status.as_u16());
            return Err(OnvifError::Nonsense { operation, reason });
        };
        let offset = soap::body(operation, &document).ok().and_then(|body| ClockOffset::of(body, now));
        self.offset = offset.unwrap_or_default();
        if self.offset.matters() {
            let (host, seconds) = (&self.device.host, self.offset.seconds());
            log::debug!("onvif {host}: its clock differs by {seconds} s");
        }
        Ok(())
    }

    async fn read_services(&mut self) -> Result<(), OnvifError> {
        let services =
            format!("<GetServices xmlns=\"{DEVICE}\"><IncludeCapability>false</IncludeCapability></GetServices>");
        let at = self.device.clone();
        let found = self.ask(&at, "GetServices", &services, |body| {
            let service = |s| Some((text(s, &["Namespace"])?.to_owned(), text(s, &["XAddr"])?.to_owned()));
            Ok(children(body, "Service").filter_map(service).collect::<Vec<_>>())
        });
        match found.await {
            Ok(found) => {
                let of = |namespace: &str| found.iter().find(|s| s.0 == namespace).and_then(|s| self.reached(&s.1));
                (self.media, self.media2, self.events) = (of(MEDIA), of(MEDIA2), of(EVENTS));
            }
            // Cameras before ONVIF 2.1 have GetCapabilities only.
            Err(OnvifError::Fault { .. } | OnvifError::Nonsense { .. }) => {
                let capabilities =
                    format!("<GetCapabilities xmlns=\"{DEVICE}\"><Category>All</Category></GetCapabilities>");
                let found = self.ask(&at, "GetCapabilities", &capabilities, |body| {
                    let of = |name| text(body, &["Capabilities", name, "XAddr"]).map(str::to_owned);
                    Ok((of("Media"), of("Events")))
                });
                let (media, events) = found.await?;
                self.media = media.and_then(|xaddr| self.reached(&xaddr));
                self.events = events.and_then(|xaddr| self.reached(&xaddr));
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// A service at the host that we talk to, whatever host the camera names (N2). Its port counts only together with a
    /// host that is ours, by its name or by the address that this led to: behind a translated address it is another one. Nor does it count with another scheme than ours:
    /// who is asked over TLS is never asked in clear.
    pub(super) fn reached(&self, xaddr: &str) -> Option<Endpoint> {
        let url = Url::parse(xaddr).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        let device = &self.device;
        let same = url.host_str().is_some_and(|host| {
            let host = host.trim_matches(['[', ']']);
            let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
            host.eq_ignore_ascii_case(&device.host) || (address.is_some() && address == self.address)
        });
        let alike = (url.scheme() == "https") == device.secure;
        let port = if same && alike { url.port_or_known_default()? } else { device.port };
        Some(Endpoint { host: device.host.clone(), port, path: path_and_query(&url), secure: device.secure })
    }

    /// Where its events are asked for.
    pub(super) fn events(&self) -> Option<Endpoint> {
        self.events.clone()
    }

    /// Asks once, with whatever login the camera takes.
    async fn ask<T>(
        &mut self,
        at: &Endpoint,
        operation: &'static str,
        body: &str,
        read: impl FnOnce(Node<'_, '_>) -> Result<T, OnvifError>,
    ) -> Result<T, OnvifError> {
        self.ask_with(at, operation, "", body, None, read).await
    }

    /// The same with XML in the header; the camera may hold the answer back for `held`.
    pub(super) async fn ask_with<T>(
        &mut self,
        at: &Endpoint,
        operation: &'static str,
        header: &str,
        body: &str,
        held: Option<Duration>,
        read: impl FnOnce(Node<'_, '_>) -> Result<T, OnvifError>,
    ) -> Result<T, OnvifError> {
        let login = match &self.credentials {
            Some(login) => security::header(login, self.offset).map_err(OnvifError::Unreachable)?,
            None => String::new(),
        };
        let request = soap::envelope(&format!("{header}{login}"), body);
        let limit = REQUEST + held.unwrap_or_default();
        let answer = http::post(at, &self.trust, &request, self.credentials.as_ref(), &mut self.login, limit).await;
        let answer = answer.map_err(|e| self.clean(e))?;
        self.address = answer.from;
        let read_answer = || {
            let document = soap::read(operation, &answer.text)?;
            read(soap::body(operation, &document)?)
        };
        let read_answer = read_answer().map_err(|e| match e {
            OnvifError::Fault { .. } | OnvifError::Nonsense { .. } if answer.status == StatusCode::FORBIDDEN => {
                soap::refusal(operation)
            }
            e => e,
        });
        read_answer.map_err(|e| match e {
            // Not SOAP, but a status that says enough.
            OnvifError::Nonsense { .. } if !answer.status.is_success() => {
                OnvifError::Fault { operation, reason: format!("HTTP status {}", answer.status.as_u16()) }
            }
            OnvifError::Refused(_) if self.credentials.is_none() => {
                OnvifError::Refused(format!("it wants a user name and password for {operation}"))
            }
            e => self.clean(e),
        })
    }

    /// A camera may repeat what it was sent.
    pub(super) fn clean(&self, e: OnvifError) -> OnvifError {
        let text = e.to_string();
        let secrets = self.credentials.iter().flat_map(|c| [&c.user, &c.password]);
        let tells = secrets.filter(|s| s.len() > 3).any(|s| text.contains(s.as_str()));
        match e {
            OnvifError::Fault { operation, .. } if tells => {
                OnvifError::Fault { operation, reason: "its reason repeats the login".into() }
            }
            OnvifError::Nonsense { operation, .. } if tells => {
                OnvifError::Nonsense { operation, reason: "it repeats the login".into() }
            }
            e => e,
        }
    }

    /// The endpoint reference that it answers searches with, if it tells it here as well.
    pub(super) async fn reference(&mut self) -> Result<String, OnvifError> {
        let (at, operation) = (self.device.clone(), "GetEndpointReference");
        let missing = || OnvifError::Nonsense { operation, reason: "no reference".into() };
        let read = |body: Node<'_, '_>| text(body, &["GUID"]).map(shown).ok_or_else(missing);
        self.ask(&at, operation, &format!("<GetEndpointReference xmlns=\"{DEVICE}\"/>"), read).await
    }

    /// Maker, model, firmware and serial number.
    pub(super) async fn information(&mut self) -> Result<Information, OnvifError> {
        let at = self.device.clone();
        let body = format!("<GetDeviceInformation xmlns=\"{DEVICE}\"/>");
        let read = |body: Node<'_, '_>| {
            let of = |name| text(body, &[name]).map(shown).unwrap_or_default();
            Ok(Information {
                manufacturer: of("Manufacturer"),
                model: of("Model"),
                firmware: of("FirmwareVersion"),
                serial: of("SerialNumber"),
            })
        };
        self.ask(&at, "GetDeviceInformation", &body, read).await
    }

    /// What it offers, in its order.
    pub(super) async fn profiles(&mut self) -> Result<Vec<Profile>, OnvifError> {
        let read = |body: Node<'_, '_>| {
            Ok(children(body, "Profiles").take(MAX_PROFILES).filter_map(Profile::read).collect::<Vec<_>>())
        };
        if let Some(at) = self.media2.clone() {
            let body = format!(
                "<GetProfiles xmlns=\"{MEDIA2}\"><Type>VideoSource</Type><Type>VideoEncoder</Type></GetProfiles>"
            );
            match self.ask(&at, "GetProfiles", &body, read).await {
                Ok(profiles) if profiles.iter().any(Profile::is_recordable) => return Ok(profiles),
                Err(e @ (OnvifError::Refused(_) | OnvifError::Unreachable(_) | OnvifError::BrokeOff(_))) => {
                    return Err(e);
                }
                // Media2 of this firmware is of no use; its tokens are not those of Media.
                _ => self.media2 = None,
            }
        }
        let at = self.media.clone().ok_or_else(|| OnvifError::NoStream("it has no media service".into()))?;
        self.ask(&at, "GetProfiles", &format!("<GetProfiles xmlns=\"{MEDIA}\"/>"), read).await
    }

    /// Where a profile streams over RTSP and TCP, at the host that we talk to; over TLS if it was asked so and the camera can.
    pub(super) async fn stream_uri(&mut self, token: &str) -> Result<Url, OnvifError> {
        let operation = "GetStreamUri";
        let token = escaped(token);
        let uri = if let Some(at) = self.media2.clone() {
            let by = |protocol: &str| {
                format!(
                    "<GetStreamUri xmlns=\"{MEDIA2}\"><Protocol>{protocol}</Protocol><ProfileToken>{token}</ProfileToken></GetStreamUri>"
                )
            };
            let read = |body: Node<'_, '_>| Ok(text(body, &["Uri"]).map(str::to_owned));
            let secure = if self.device.secure {
                // Media2 service specification, table of transport protocols. Who has none says so; whatever else goes
                // wrong, as somebody in between can make it, does not mean that there is none.
                match self.ask(&at, operation, &by("RtspsUnicast"), read).await {
                    Err(OnvifError::Fault { .. } | OnvifError::Nonsense { .. }) => None,
                    answer => answer?,
                }
            } else {
                None
            };
            match secure {
                Some(uri) if uri.get(..6).is_some_and(|s| s.eq_ignore_ascii_case("rtsps:")) => Some(uri),
                _ => self.ask(&at, operation, &by("RTSP"), read).await?,
            }
        } else {
            let at = self.media.clone().ok_or_else(|| OnvifError::NoStream("it has no media service".into()))?;
            let body = format!(
                "<GetStreamUri xmlns=\"{MEDIA}\"><StreamSetup><tt:Stream>RTP-Unicast</tt:Stream><tt:Transport>\
                 <tt:Protocol>RTSP</tt:Protocol></tt:Transport></StreamSetup><ProfileToken>{token}</ProfileToken></GetStreamUri>"
            );
            self.ask(&at, operation, &body, |body| Ok(text(body, &["MediaUri", "Uri"]).map(str::to_owned))).await?
        };
        self.own(operation, uri.as_deref(), &["rtsp", "rtsps"])
    }

    /// Where a profile's picture is, if it has one.
    pub(super) async fn snapshot_uri(&mut self, token: &str) -> Result<Url, OnvifError> {
        let operation = "GetSnapshotUri";
        let token = escaped(token);
        let (at, namespace) = match (&self.media2, &self.media) {
            (Some(at), _) => (at.clone(), MEDIA2),
            (None, Some(at)) => (at.clone(), MEDIA),
            (None, None) => return Err(OnvifError::NoStream("it has no media service".into())),
        };
        let body =
            format!("<GetSnapshotUri xmlns=\"{namespace}\"><ProfileToken>{token}</ProfileToken></GetSnapshotUri>");
        let read = |body: Node<'_, '_>| {
            Ok(text(body, &["MediaUri", "Uri"]).or_else(|| text(body, &["Uri"])).map(str::to_owned))
        };
        let uri = self.ask(&at, operation, &body, read).await?;
        self.own(operation, uri.as_deref(), &["http", "https"])
    }

    /// An address of the camera's with the host that we talk to and without a login (N1, N2).
    pub(super) fn own(&self, operation: &'static str, uri: Option<&str>, schemes: &[&str]) -> Result<Url, OnvifError> {
        let nonsense = |reason: &str| OnvifError::Nonsense { operation, reason: reason.into() };
        let mut url = uri.and_then(|uri| Url::parse(uri).ok()).ok_or_else(|| nonsense("no address"))?;
        if !schemes.contains(&url.scheme()) {
            let scheme = shown(url.scheme());
            return Err(OnvifError::NoStream(format!("its address is {scheme}, accepted: {}", schemes.join(", "))));
        }
        let host = &self.device.host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let ours = url.set_host(Some(&host)).is_ok() && url.set_username("").is_ok() && url.set_password(None).is_ok();
        if ours { Ok(url) } else { Err(nonsense("an address without a host")) }
    }
}

/// The stream that an `onvif://` source means: the named profile, else the one with the largest picture. Gives its profile and
/// address; one in clear of an `onvifs://` source is refused unless it is permitted (N5).
pub(crate) async fn resolve(
    url: &Url,
    credentials: Option<&Credentials>,
    trust: &Trust,
) -> Result<(Profile, Url), OnvifError> {
    let mut camera = Camera::meet(url, credentials, trust).await?;
    let profiles = camera.profiles().await?;
    let profile = choose(&profiles, &asked_profile(url))?.clone();
    let uri = camera.stream_uri(&profile.token).await?;
    in_confidence(url, &uri, trust)?;
    Ok((profile, uri))
}

/// Whether a camera that is asked at `source` may be recorded at `stream` (N5).
fn in_confidence(source: &Url, stream: &Url, trust: &Trust) -> Result<(), OnvifError> {
    if source.scheme() != SECURE || stream.scheme() == "rtsps" || trust.plain_stream {
        return Ok(());
    }
    Err(OnvifError::Refused(
        "it offers no stream over TLS; switch that on in the camera, or permit login and pictures in clear by plain_stream = true"
            .into(),
    ))
}

/// The channel that a source's profile shows and those that the camera has besides; empty if it does not say.
pub(super) async fn channels(camera: &mut Camera, url: &Url) -> Result<(Channel, Vec<Channel>), OnvifError> {
    let profiles = match camera.profiles().await {
        Ok(profiles) => profiles,
        Err(e @ (OnvifError::Refused(_) | OnvifError::Unreachable(_) | OnvifError::BrokeOff(_))) => return Err(e),
        Err(e) => {
            log::debug!("onvif: a camera does not say what its events are of: {e}");
            return Ok(<_>::default());
        }
    };
    let Ok(own) = choose(&profiles, &asked_profile(url)).map(|own| own.channel.clone()) else {
        return Ok(<_>::default());
    };
    // Several configurations may cut their pictures out of one source.
    let is_other = |channel: &Channel| match (&channel.source, &own.source) {
        (Some(theirs), Some(ours)) => theirs != ours,
        _ => *channel != own,
    };
    let others = profiles.into_iter().map(|profile| profile.channel).filter(is_other).collect();
    Ok((own, others))
}

impl Channel {
    /// Whether an item of an event's source says that it is of another channel. Makers disagree on which of the two tokens
    /// they put there and some put neither: only what surely is another channel's counts.
    pub(super) fn is_foreign(&self, others: &[Self], item: &str, value: &str) -> bool {
        // First the token that the item is named after, then the other.
        for kind in 0..2 {
            if self.tokens(item)[kind] == Some(value) {
                return false;
            }
            if others.iter().any(|other| other.tokens(item)[kind] == Some(value)) {
                return true;
            }
        }
        false
    }

    /// What an item of that name may mean, the likeliest first.
    fn tokens(&self, item: &str) -> [Option<&str>; 2] {
        let (configuration, source) = (self.configuration.as_deref(), self.source.as_deref());
        match item {
            "VideoSourceConfigurationToken" => [configuration, source],
            "VideoSourceToken" | "VideoSource" | "Source" => [source, configuration],
            _ => [None, None],
        }
    }
}

pub(super) fn choose<'a>(profiles: &'a [Profile], asked: &str) -> Result<&'a Profile, OnvifError> {
    let offered = || {
        let shown: Vec<String> = profiles.iter().take(16).map(describe).collect();
        if shown.is_empty() { "nothing".to_owned() } else { shown.join(", ") }
    };
    if asked.is_empty() {
        let pixels = |p: &Profile| u64::from(p.size.0) * u64::from(p.size.1);
        // The first of the largest: cameras list their main stream first.
        let largest = profiles.iter().filter(|p| p.is_recordable()).rev().max_by_key(|p| pixels(p));
        return largest
            .ok_or_else(|| OnvifError::NoStream(format!("it offers no H.264 and no H.265, but {}", offered())));
    }
    let named = profiles.iter().find(|p| p.token == asked).or_else(|| profiles.iter().find(|p| p.name == asked));
    match named {
        Some(profile) if profile.is_recordable() || profile.encoding.is_none() => Ok(profile),
        Some(profile) => {
            Err(OnvifError::NoStream(format!("its profile {} is neither H.264 nor H.265", describe(profile))))
        }
        None => Err(OnvifError::NoStream(format!("it has no such profile; it offers {}", offered()))),
    }
}

pub(super) fn describe(profile: &Profile) -> String {
    let codec = profile.encoding.as_ref().map_or("no video", Encoding::name);
    format!("{} ({codec} {}x{})", shown(&profile.token), profile.size.0, profile.size.1)
}

/// The profile in a source's path, percent-decoded by the source's parser when it was read.
fn asked_profile(url: &Url) -> String {
    let path = url.path().trim_matches('/');
    crate::source::percent_decoded(path).unwrap_or_default()
}

/// The UUID that a source names instead of a host.
pub(super) fn endpoint_reference(url: &Url) -> Option<String> {
    uuid(url.host_str()?)
}

/// The UUID that a text is, in small letters.
pub(super) fn uuid(text: &str) -> Option<String> {
    let shape = |(i, b): (usize, u8)| if matches!(i, 8 | 13 | 18 | 23) { b == b'-' } else { b.is_ascii_hexdigit() };
    (text.len() == 36 && text.bytes().enumerate().all(shape)).then(|| text.to_ascii_lowercase())
}

/// The device service of a host; its path is fixed (ONVIF Core, section 5.1).
pub(super) fn entry(url: &Url) -> Result<Endpoint, OnvifError> {
    let host = url.host_str().ok_or_else(|| OnvifError::Unreachable("no host".into()))?;
    let host = host.trim_matches(['[', ']']).to_owned();
    let secure = url.scheme() == SECURE;
    let port = url.port().unwrap_or(if secure { 443 } else { 80 });
    Ok(Endpoint { host, port, path: "/onvif/device_service".into(), secure })
}

/// Of an address that a discovered camera named.
pub(super) fn device_at(xaddr: &str) -> Option<Endpoint> {
    let url = Url::parse(xaddr).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let secure = url.scheme() == "https";
    Some(Endpoint { host, port: url.port_or_known_default()?, path: path_and_query(&url), secure })
}

fn path_and_query(url: &Url) -> String {
    url[url::Position::BeforePath..url::Position::AfterQuery].to_owned()
}

#[cfg(test)]
mod tests;
