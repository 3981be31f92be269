//! `rtsp://` and `rtsps://`, network cameras: over TCP by `retina` and without GStreamer, over UDP where that does not do (`udp`).
//! What is encrypted goes over TCP only (`tunnel`), and is never tried in clear.
//!
//! Promises that the coded bytes of a frame are copied once, out of the receive buffer; that a damaged packet costs the
//! frames up to the next keyframe and not the session, where the session can go on; that a session always ends with its cause,
//! also where a library panics; that no text holds a credential or steers a terminal; and that the sound of a camera never enters
//! the process unless it is asked for (its stream is not set up).

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use retina::client::{Credentials as Login, PlayOptions, Session, SessionOptions, SetupOptions, Stream, Transport};
use retina::client::{Described, InitialTimestampPolicy, SessionIdPolicy, UnassignedChannelDataPolicy};
use retina::codec::{CodecItem, FrameFormat, ParametersRef, VideoParameters, VideoParametersCodec};
use tokio_stream::StreamExt;
use url::Url;

use self::routes::Routes;
use self::udp::Udp;
use super::opening::{PROBE, Raw};
use super::outlet::Outlet;
use super::receiver::Receiver;
use crate::clock::Mono;
use crate::media::{AccessUnit, AudioFormat, FrameKind, Law, Rotation, TrackFormat, VideoCodec, VideoFormat};
use crate::nal;
use crate::source::{Credentials, LensSource, SourceError, Transport as Chosen, Trust};
use crate::tls::TlsError;

pub(crate) mod hear;
mod reactor;
mod refusals;
mod routes;
mod tunnel;
mod udp;

/// How long a camera may take from the connection attempt to its agreement to play.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a handshake may keep the thread from resting: a host that swallows packets must not cost the others their rest.
const PROMPT: Duration = Duration::from_secs(2);

/// Most characters of an error that are shown.
const LONGEST: usize = 300;

/// Errors in a row, without a frame between them, after which a session is given up.
const HOPELESS: u32 = 50;

/// A camera that sends no picture over TCP for this long after it agreed to play is asked over UDP, if it may be.
const DUMB: Duration = Duration::from_secs(4);

/// A session that runs on the common thread of all network cameras, or over UDP.
struct Rtsp {
    task: Option<reactor::Task>,
    outlet: Arc<Outlet>,
    slot: Arc<Mutex<Slot>>,
}

/// The session over UDP.
enum Slot {
    /// Not yet, or never.
    Empty,
    Running {
        _session: Udp,
    },
    /// The source was dropped.
    Gone,
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LensSource for Rtsp {
    /// RTSP has no such request.
    fn request_keyframe(&self) -> bool {
        false
    }
}

impl Drop for Rtsp {
    fn drop(&mut self) {
        self.outlet.silence();
        if let Some(task) = &self.task {
            task.stop();
        }
        let last = std::mem::replace(&mut *lock(&self.slot), Slot::Gone);
        drop(last);
    }
}

/// Starts a session. `configured` is the address that the configuration names, `url` where the camera streams now; neither
/// holds credentials.
pub(super) fn open(
    configured: &Url,
    url: &Url,
    credentials: Option<&Credentials>,
    transport: Chosen,
    trust: &Trust,
    audio: bool,
    outlet: &Arc<Outlet>,
) -> Result<Box<dyn LensSource>, SourceError> {
    let (url, credentials, outlet) = (url.clone(), credentials.cloned(), Arc::clone(outlet));
    let trust = (url.scheme() == "rtsps").then(|| trust.clone());
    if trust.is_some() && transport == Chosen::Udp {
        let detail = "it streams over TLS, which is TCP; transport must be \"auto\" or \"tcp\"";
        return Err(SourceError::Refused { what: outlet.what.clone(), detail: detail.into() });
    }
    let known_as = (transport == Chosen::Auto && trust.is_none()).then(|| configured.clone());
    let camera = Camera { url, credentials, trust, audio, known_as, outlet: Arc::clone(&outlet) };
    let slot = Arc::new(Mutex::new(Slot::Empty));
    if transport == Chosen::Udp || camera.known_as.as_ref().is_some_and(|known| Routes::get().is_udp(known)) {
        go_over_udp(camera, None, &slot);
        return Ok(Box::new(Rtsp { task: None, outlet, slot }));
    }
    let reactor = reactor::get().map_err(|e| outlet.broken(format!("no thread for network cameras: {e}")))?;
    let other = Arc::clone(&slot);
    let task = reactor.spawn(async move |busy| {
        let mut met = Met::default();
        let why = camera.survive(busy, &mut met).await;
        if camera.known_as.is_some() && met.described.into_inner() && met.pictures.is_none() {
            log::info!("{}: over UDP, for over TCP {why}", camera.outlet.what);
            go_over_udp(camera, Some(why), &other);
            return;
        }
        if let (Some((first, last)), Some(known)) = (met.pictures, &camera.known_as) {
            let delivered = Duration::from_nanos(last.since(first).unsigned_abs());
            Routes::get().tcp_ended(known, delivered);
        }
        camera.outlet.end(why);
    });
    Ok(Box::new(Rtsp { task: Some(task), outlet, slot }))
}

/// How far a TCP session got.
#[derive(Default)]
struct Met {
    /// The camera told what it has, so it is there and lets us in.
    described: AtomicBool,
    /// When the first and the latest picture came.
    pictures: Option<(Mono, Mono)>,
}

/// Starts a session over UDP, on a thread of its own: GStreamer takes its time to start. `before` is why not over TCP.
fn go_over_udp(camera: Camera, before: Option<SourceError>, slot: &Arc<Mutex<Slot>>) {
    let (slot, opened) = (Arc::clone(slot), camera.outlet.clock.mono());
    let way = Arc::new(OverUdp { known_as: camera.known_as.clone(), before, outlet: Arc::clone(&camera.outlet) });
    way.begins();
    let this = Arc::clone(&way);
    let start = move || match udp::start(camera, opened, Arc::clone(&this)) {
        Ok(udp) => {
            let mut now = lock(&slot);
            // What was dropped meanwhile is stopped here, outside of the lock.
            let unwanted = if matches!(*now, Slot::Empty) {
                *now = Slot::Running { _session: udp };
                None
            } else {
                Some(udp)
            };
            drop(now);
            drop(unwanted);
        }
        Err(why) => this.end(why, false),
    };
    if let Err(e) = std::thread::Builder::new().name("mos-rtsp-udp".into()).spawn(start) {
        way.end(way.outlet.broken(format!("no thread: {e}")), false);
    }
}

/// What is heard of a session over UDP, and who is told.
struct OverUdp {
    known_as: Option<Url>,
    /// Why not over TCP.
    before: Option<SourceError>,
    outlet: Arc<Outlet>,
}

impl OverUdp {
    fn begins(&self) {
        self.known_as.iter().for_each(|known| Routes::get().udp_begins(known));
    }

    /// The first picture came.
    fn delivers(&self) {
        self.known_as.iter().for_each(|known| Routes::get().udp_delivers(known));
    }

    fn end(&self, why: SourceError, delivered: bool) {
        if !delivered {
            self.known_as.iter().for_each(|known| Routes::get().udp_failed(known));
        }
        self.outlet.end(match &self.before {
            Some(before) if !delivered => neither(before, &why),
            _ => why,
        });
    }
}

/// What failed over TCP and then over UDP too.
fn neither(tcp: &SourceError, udp: &SourceError) -> SourceError {
    let mut both = tcp.clone();
    if let SourceError::Refused { detail, .. }
    | SourceError::Unsupported { detail, .. }
    | SourceError::Broken { detail, .. }
    | SourceError::Absent { detail, .. } = &mut both
    {
        *detail = format!("{detail}; and over UDP, {udp}");
    }
    both
}

/// What is asked of a camera.
struct Camera {
    url: Url,
    credentials: Option<Credentials>,
    /// Whose certificate is believed; `None` for a connection in clear.
    trust: Option<Trust>,
    audio: bool,
    /// It may be reached by either transport, and what is known of them is kept under this.
    known_as: Option<Url>,
    outlet: Arc<Outlet>,
}

impl Camera {
    /// Runs one session to its end and says why it ended, also where a reader of others panics at what the camera sent, as that of
    /// descriptions does at a line without `=` before an attribute. `busy` keeps the thread from resting.
    async fn survive(&self, busy: reactor::Busy, met: &mut Met) -> SourceError {
        let ended = {
            let mut session = pin!(self.run(busy, met));
            poll_fn(|cx| {
                // It is never polled again.
                let polled = catch_unwind(AssertUnwindSafe(|| session.as_mut().poll(cx)));
                polled.map_or(Poll::Ready(None), |polled| polled.map(Some))
            })
            .await
        };
        ended.unwrap_or_else(|| {
            // Something was read, so it is there.
            met.described.store(true, Ordering::Relaxed);
            self.outlet.unsupported("it sends what the reader of RTSP gives up at")
        })
    }

    async fn run(&self, busy: reactor::Busy, met: &mut Met) -> SourceError {
        let mut busy = Some(busy);
        let Met { described: told, pictures } = met;
        let opened = self.outlet.clock.mono();
        let mut described = pin!(tokio::time::timeout(HANDSHAKE, self.set_up(told)));
        let described = if let Ok(described) = tokio::time::timeout(PROMPT, &mut described).await {
            described
        } else {
            busy = None;
            described.await
        };
        // The tunnel lives as long as the session.
        let (_tunnel, session, tracks) = match described {
            Ok(Ok(ready)) => ready,
            Ok(Err(why)) => return why,
            Err(_) => return self.absent(format!("no answer within {} s", HANDSHAKE.as_secs())),
        };
        let policy = PlayOptions::default().initial_timestamp(InitialTimestampPolicy::Permissive);
        let playing = match tokio::time::timeout(HANDSHAKE, session.play(policy)).await {
            Ok(Ok(playing)) => playing,
            Ok(Err(e)) => return self.refusal(&e),
            Err(_) => return self.absent(format!("no answer to PLAY within {} s", HANDSHAKE.as_secs())),
        };
        let mut frames = match playing.demuxed() {
            Ok(frames) => frames,
            Err(e) => return self.outlet.unsupported(self.words(&e)),
        };
        let receiver = Receiver::new(&self.outlet, opened);
        let mut units = Units { outlet: &self.outlet, receiver, video: None, audio: None, damaged: false };
        let mut errors = 0;
        let dumb = tokio::time::Instant::now() + DUMB;
        loop {
            if units.receiver.is_settled() {
                busy = None;
            }
            let next = if units.receiver.held() > 0 {
                tokio::time::timeout(PROBE, frames.next()).await
            } else if self.known_as.is_some() && pictures.is_none() {
                match tokio::time::timeout_at(dumb, frames.next()).await {
                    Ok(next) => Ok(next),
                    Err(_) => return self.outlet.broken(format!("it sends no picture for {} s", DUMB.as_secs())),
                }
            } else {
                Ok(frames.next().await)
            };
            let Ok(next) = next else {
                units.receiver.settle();
                continue;
            };
            let Some(item) = next else { break };
            match item {
                Ok(CodecItem::VideoFrame(frame)) if frame.stream_id() == tracks.video => {
                    errors = 0;
                    let now = self.outlet.clock.mono();
                    *pictures = Some((pictures.map_or(now, |p| p.0), now));
                    units.video(frame, &frames.streams()[tracks.video]);
                }
                Ok(CodecItem::AudioFrame(frame)) if Some(frame.stream_id()) == tracks.audio => {
                    errors = 0;
                    units.audio(&frame, &frames.streams()[frame.stream_id()]);
                }
                Ok(_) => {}
                // A bad packet. If the connection itself is gone, the errors follow each other or the stream ends.
                Err(e) => {
                    errors += 1;
                    units.damaged = true;
                    if errors == 1 {
                        log::debug!("{}: {}", self.outlet.what, self.words(&e));
                    }
                    if errors >= HOPELESS {
                        units.receiver.settle();
                        return self.outlet.broken(self.words(&e));
                    }
                }
            }
        }
        units.receiver.settle();
        drop(busy);
        self.outlet.broken("the camera closed the connection")
    }

    /// Connects, logs in, and chooses the streams.
    async fn set_up(
        &self,
        described: &AtomicBool,
    ) -> Result<(Option<tunnel::Tunnel>, Session<Described>, Tracks), SourceError> {
        let tunnel = match &self.trust {
            Some(trust) => Some(tunnel::open(&self.url, trust).await.map_err(|e| self.not_in_confidence(e))?),
            None => None,
        };
        let address = tunnel.as_ref().map_or(&self.url, |tunnel| &tunnel.url);
        let login = self.credentials.as_ref();
        let login = login.map(|c| Login { username: c.user.clone(), password: c.password.clone() });
        let agent = concat!("mos/", env!("CARGO_PKG_VERSION")).to_owned();
        // Cameras go on with an old session's packets on channels that nobody set up, and change the session's name.
        let options = SessionOptions::default()
            .creds(login)
            .user_agent(agent)
            .unassigned_channel_data(UnassignedChannelDataPolicy::Ignore)
            .session_id(SessionIdPolicy::UseFirst);
        let session = Session::describe(address.clone(), options).await;
        // A description that makes no sense here may make some to rtspsrc.
        let answered = session.as_ref().map_or_else(|e| matches!(e.status_code(), Some(200..=299)), |_| true);
        described.store(answered, Ordering::Relaxed);
        let mut session = session.map_err(|e| self.refusal(&e))?;
        let find = |media: &str, encodings: &[&str]| {
            let fits = |s: &Stream| s.media() == media && encodings.contains(&s.encoding_name());
            session.streams().iter().position(fits)
        };
        // AAC before G.711, if a camera has both.
        let sound = || find("audio", &["mpeg4-generic"]).or_else(|| find("audio", &["pcma", "pcmu"]));
        let audio = if self.audio { sound() } else { None };
        let Some(video) = find("video", &["h264", "h265"]) else {
            let offered: Vec<_> =
                session.streams().iter().map(|s| format!("{}/{}", s.media(), s.encoding_name())).collect();
            let offered = if offered.is_empty() { "nothing".to_owned() } else { self.shown(&offered.join(", ")) };
            return Err(self
                .outlet
                .unsupported(format!("it offers {offered}; accepted are video/h264 and video/h265")));
        };
        if self.audio && audio.is_none() {
            log::info!("{}: no AAC or G.711 sound to record", self.outlet.what);
        }
        for stream in std::iter::once(video).chain(audio) {
            let setup = SetupOptions::default()
                .transport(Transport::Tcp(retina::client::TcpTransportOptions::default()))
                .frame_format(FrameFormat::MP4);
            session.setup(stream, setup).await.map_err(|e| self.refusal(&e))?;
        }
        Ok((tunnel, session, Tracks { video, audio }))
    }

    fn absent(&self, detail: String) -> SourceError {
        SourceError::Absent { what: self.outlet.what.clone(), detail }
    }

    fn not_in_confidence(&self, e: TlsError) -> SourceError {
        match e {
            TlsError::Absent(detail) => self.absent(detail),
            TlsError::Broken(detail) => self.outlet.broken(detail),
            TlsError::Refused(detail) => SourceError::Refused { what: self.outlet.what.clone(), detail },
        }
    }

    /// Which kind of failure an error before the first frame is.
    fn refusal(&self, e: &retina::Error) -> SourceError {
        let (what, words) = (self.outlet.what.clone(), self.words(e));
        match e.status_code() {
            Some(401 | 403) => SourceError::Refused { what, detail: self.login_refused().into() },
            Some(404) => SourceError::Refused { what, detail: "it has no stream of that path (404)".into() },
            // A success with a body that makes no sense.
            Some(200..=299) => SourceError::Unsupported { what, detail: words },
            Some(status) => SourceError::Refused { what, detail: format!("it answered {status}: {words}") },
            // The crate's errors have no kinds; this is the text of its connection error, followed by the system's.
            None => match e.to_string().strip_prefix("Unable to connect to RTSP server: ") {
                Some(cause) => SourceError::Absent { what, detail: cause.to_owned() },
                None => SourceError::Broken { what, detail: words },
            },
        }
    }

    fn login_refused(&self) -> &'static str {
        match self.credentials {
            Some(_) => "it does not accept this user name and password",
            None => "it wants a user name and password",
        }
    }

    /// The first line of an error, fit to be shown, unless it could repeat what must not be shown.
    fn words(&self, e: &retina::Error) -> String {
        self.shown(&e.to_string())
    }

    fn shown(&self, text: &str) -> String {
        let line = text.lines().next().unwrap_or_default();
        let secrets = self.credentials.iter().flat_map(|c| [&*c.user, &*c.password]).chain(self.url.query());
        // A path may hold a password too. What is shorter than a word is part of any text and cannot be told from it.
        let mut secrets = secrets.chain(Some(self.url.path())).filter(|s| s.len() > 3);
        if secrets.any(|s| line.contains(s)) {
            return "an error that repeats the address".into();
        }
        // A camera writes part of it: it may be as long as its answer, and hold what steers a terminal.
        line.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

/// Stream numbers of the session description.
struct Tracks {
    video: usize,
    audio: Option<usize>,
}

/// Turns frames into access units.
struct Units<'a> {
    outlet: &'a Outlet,
    receiver: Receiver,
    video: Option<Video>,
    audio: Option<Arc<TrackFormat>>,
    /// Something was lost since the last picture.
    damaged: bool,
}

struct Video {
    codec: VideoCodec,
    format: Arc<TrackFormat>,
}

impl Units<'_> {
    fn video(&mut self, frame: retina::codec::VideoFrame, stream: &Stream) {
        if (frame.has_new_parameters() || self.video.is_none())
            && let Some(new) = video_format(stream.parameters().as_ref())
        {
            let same = self.video.as_ref().is_some_and(|v| *v.format == TrackFormat::Video(new.clone()));
            if !same {
                self.video = Some(Video { codec: new.codec, format: Arc::new(TrackFormat::Video(new)) });
            }
        }
        self.damaged |= frame.loss() > 0;
        // Without parameter sets nothing can be decoded; they come with a keyframe.
        let Some(Video { codec, format }) = &self.video else { return };
        let (arrival, time) = (self.outlet.clock.mono(), frame.timestamp());
        let track = frame.stream_id();
        let data = Bytes::from(frame.into_data());
        let kind = nal::classify(*codec, &data);
        let discontinuity = std::mem::take(&mut self.damaged);
        let format = Arc::clone(format);
        let unit = AccessUnit { format, kind, pts: None, duration: None, arrival, discontinuity, data };
        self.receiver.pass(Raw { track, media: nanos(time), unit });
    }

    fn audio(&mut self, frame: &retina::codec::AudioFrame, stream: &Stream) {
        let arrival = self.outlet.clock.mono();
        let format = match &self.audio {
            Some(format) => Arc::clone(format),
            None => match audio_format(stream) {
                Some(format) => Arc::clone(self.audio.insert(Arc::new(format))),
                None => return,
            },
        };
        let rate = i64::from(frame.timestamp().clock_rate().get());
        let length = match &*format {
            // The reader's own length is that of one channel.
            TrackFormat::Audio(AudioFormat::G711 { channels, .. }) => {
                i64::try_from(frame.data().len()).unwrap_or(i64::MAX) / i64::from(*channels)
            }
            _ => i64::from(frame.frame_length().get()),
        };
        let duration = length.saturating_mul(1_000_000_000) / rate;
        let unit = AccessUnit {
            format,
            kind: FrameKind::Audio,
            pts: None,
            duration: u64::try_from(duration).ok(),
            arrival,
            discontinuity: frame.loss() > 0,
            data: Bytes::copy_from_slice(frame.data()),
        };
        self.receiver.pass(Raw { track: frame.stream_id(), media: nanos(frame.timestamp()), unit });
    }
}

/// RTP time since the stream's start. In 128 bits: 64-bit RTP time times 10⁹ overflows after 28 hours at 90 kHz.
fn nanos(t: retina::Timestamp) -> i64 {
    let nanos = i128::from(t.elapsed()) * 1_000_000_000 / i128::from(t.clock_rate().get());
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

fn video_format(parameters: Option<&ParametersRef<'_>>) -> Option<VideoFormat> {
    let Some(ParametersRef::Video(p)) = parameters else { return None };
    let codec = match p.codec_params() {
        VideoParametersCodec::H264 { .. } => VideoCodec::H264,
        VideoParametersCodec::H265 { .. } => VideoCodec::H265,
        _ => return None,
    };
    let (width, height) = p.pixel_dimensions();
    Some(VideoFormat {
        codec,
        width,
        height,
        pixel_aspect: p.pixel_aspect_ratio().filter(|(n, d)| *n > 0 && *d > 0).unwrap_or((1, 1)),
        config: Bytes::copy_from_slice(p.extra_data()),
        reorder: nal::picture(codec, p.extra_data()).and_then(|s| s.reorder).unwrap_or(0),
        frame_duration: frame_duration(p),
        rotation: Rotation::None,
    })
}

/// The frame duration that the parameter sets name, if it is one: 1 ms to 10 s.
fn frame_duration(p: &VideoParameters) -> Option<u64> {
    let (n, d) = p.frame_rate()?;
    let nanos = u64::from(n).checked_mul(1_000_000_000)?.checked_div(u64::from(d))?;
    (1_000_000..=10_000_000_000).contains(&nanos).then_some(nanos)
}

fn audio_format(stream: &Stream) -> Option<TrackFormat> {
    let Some(ParametersRef::Audio(p)) = stream.parameters() else { return None };
    let (sample_rate, channels) = (p.clock_rate(), p.channels().get());
    Some(TrackFormat::Audio(match stream.encoding_name() {
        "pcma" => AudioFormat::G711 { law: Law::A, sample_rate, channels },
        "pcmu" => AudioFormat::G711 { law: Law::Mu, sample_rate, channels },
        _ => AudioFormat::Aac { sample_rate, channels, config: Bytes::copy_from_slice(p.extra_data()) },
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::source::UnitSink;

    struct Nobody;

    impl UnitSink for Nobody {
        fn unit(&self, _: AccessUnit) {}
        fn ended(&self, _: SourceError) {}
    }

    /// Also where UDP cannot even begin, as on a machine without the element for it.
    #[test]
    fn u3_whatever_ends_udp_before_a_picture_gives_tcp_its_turn() {
        let outlet = Outlet::new("onvif://h".into(), Arc::new(SystemClock::new().unwrap()), Arc::new(Nobody));
        let known = Url::parse("rtsp://h/gives-tcp-its-turn").unwrap();
        for _ in 0..3 {
            Routes::get().tcp_ended(&known, Duration::ZERO);
        }
        assert!(Routes::get().is_udp(&known));
        let way = OverUdp { known_as: Some(known.clone()), before: None, outlet: Arc::clone(&outlet) };
        way.begins();
        assert!(Routes::get().is_udp(&known));
        way.end(outlet.unsupported("no element"), false);
        assert!(!Routes::get().is_udp(&known));
        way.delivers();
        way.end(outlet.broken("gone"), true);
        assert!(Routes::get().is_udp(&known));
    }
}
