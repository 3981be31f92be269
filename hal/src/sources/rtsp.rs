//! `rtsp://`, network cameras over TCP, by `retina` and without GStreamer.
//!
//! Promises that the coded bytes of a frame are copied once, out of the receive buffer; that a damaged packet costs the
//! frames up to the next keyframe and not the session, where the session can go on; that no text holds a credential; and that
//! the sound of a camera never enters the process unless it is asked for (its stream is not set up).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use retina::client::{Credentials as Login, PlayOptions, Session, SessionOptions, SetupOptions, Stream, Transport};
use retina::client::{Described, InitialTimestampPolicy};
use retina::codec::{CodecItem, FrameFormat, ParametersRef, VideoParameters, VideoParametersCodec};
use tokio_stream::StreamExt;
use url::Url;

use self::opening::{Opening, PROBE, Raw};
use super::outlet::Outlet;
use crate::media::{AccessUnit, AudioFormat, FrameKind, TrackFormat, VideoCodec, VideoFormat};
use crate::nal;
use crate::source::{Credentials, LensSource, SourceError};
use crate::timeline::Timeline;

mod opening;
mod reactor;

/// How long a camera may take from the connection attempt to its agreement to play.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a handshake may keep the thread from resting: a host that swallows packets must not cost the others their rest.
const PROMPT: Duration = Duration::from_secs(2);

/// Errors in a row, without a frame between them, after which a session is given up.
const HOPELESS: u32 = 50;

/// A session that runs on the common thread of all network cameras.
struct Rtsp {
    task: reactor::Task,
    outlet: Arc<Outlet>,
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
        self.task.stop();
    }
}

/// Starts a session. `url` holds no credentials.
pub(super) fn open(
    url: &Url,
    credentials: Option<&Credentials>,
    audio: bool,
    outlet: &Arc<Outlet>,
) -> Result<Box<dyn LensSource>, SourceError> {
    let reactor = reactor::get().map_err(|e| outlet.broken(format!("no thread for network cameras: {e}")))?;
    let camera = Camera { url: url.clone(), credentials: credentials.cloned(), audio, outlet: Arc::clone(outlet) };
    let task = reactor.spawn(async move |busy| {
        let why = camera.run(busy).await;
        camera.outlet.end(why);
    });
    Ok(Box::new(Rtsp { task, outlet: Arc::clone(outlet) }))
}

/// What is asked of a camera.
struct Camera {
    url: Url,
    credentials: Option<Credentials>,
    audio: bool,
    outlet: Arc<Outlet>,
}

impl Camera {
    /// Runs one session to its end and says why it ended. `busy` keeps the thread from resting.
    async fn run(&self, busy: reactor::Busy) -> SourceError {
        let mut busy = Some(busy);
        let opened = self.outlet.clock.mono();
        let mut described = pin!(tokio::time::timeout(HANDSHAKE, self.set_up()));
        let described = if let Ok(described) = tokio::time::timeout(PROMPT, &mut described).await {
            described
        } else {
            busy = None;
            described.await
        };
        let (session, tracks) = match described {
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
        let mut receiver = Receiver {
            outlet: &self.outlet,
            opening: Some(Opening::new(opened)),
            timeline: Timeline::new(),
            video: None,
            audio: None,
            damaged: false,
        };
        let mut errors = 0;
        loop {
            if receiver.opening.is_none() {
                busy = None;
            }
            let next = if receiver.is_opening() {
                tokio::time::timeout(PROBE, frames.next()).await
            } else {
                Ok(frames.next().await)
            };
            let Ok(next) = next else {
                receiver.settle();
                continue;
            };
            let Some(item) = next else { break };
            match item {
                Ok(CodecItem::VideoFrame(frame)) if frame.stream_id() == tracks.video => {
                    errors = 0;
                    receiver.video(frame, &frames.streams()[tracks.video]);
                }
                Ok(CodecItem::AudioFrame(frame)) if Some(frame.stream_id()) == tracks.audio => {
                    errors = 0;
                    receiver.audio(&frame, &frames.streams()[frame.stream_id()]);
                }
                Ok(_) => {}
                // A bad packet. If the connection itself is gone, the errors follow each other or the stream ends.
                Err(e) => {
                    errors += 1;
                    receiver.damaged = true;
                    if errors == 1 {
                        log::debug!("{}: {}", self.outlet.what, self.words(&e));
                    }
                    if errors >= HOPELESS {
                        receiver.settle();
                        return self.outlet.broken(self.words(&e));
                    }
                }
            }
        }
        receiver.settle();
        drop(busy);
        self.outlet.broken("the camera closed the connection")
    }

    /// Connects, logs in, and chooses the streams.
    async fn set_up(&self) -> Result<(Session<Described>, Tracks), SourceError> {
        let login = self.credentials.as_ref();
        let login = login.map(|c| Login { username: c.user.clone(), password: c.password.clone() });
        let agent = concat!("mos/", env!("CARGO_PKG_VERSION")).to_owned();
        let options = SessionOptions::default().creds(login).user_agent(agent);
        let mut session = Session::describe(self.url.clone(), options).await.map_err(|e| self.refusal(&e))?;
        let find = |media: &str, encodings: &[&str]| {
            let fits = |s: &Stream| s.media() == media && encodings.contains(&s.encoding_name());
            session.streams().iter().position(fits)
        };
        let audio = if self.audio { find("audio", &["mpeg4-generic"]) } else { None };
        let Some(video) = find("video", &["h264", "h265"]) else {
            let offered: Vec<_> =
                session.streams().iter().map(|s| format!("{}/{}", s.media(), s.encoding_name())).collect();
            let offered = if offered.is_empty() { "nothing".to_owned() } else { offered.join(", ") };
            return Err(self
                .outlet
                .unsupported(format!("it offers {offered}; accepted are video/h264 and video/h265")));
        };
        if self.audio && audio.is_none() {
            log::info!("{}: no AAC sound to record", self.outlet.what);
        }
        for stream in std::iter::once(video).chain(audio) {
            let setup = SetupOptions::default()
                .transport(Transport::Tcp(retina::client::TcpTransportOptions::default()))
                .frame_format(FrameFormat::MP4);
            session.setup(stream, setup).await.map_err(|e| self.refusal(&e))?;
        }
        Ok((session, Tracks { video, audio }))
    }

    fn absent(&self, detail: String) -> SourceError {
        SourceError::Absent { what: self.outlet.what.clone(), detail }
    }

    /// Which kind of failure an error before the first frame is.
    fn refusal(&self, e: &retina::Error) -> SourceError {
        let (what, words) = (self.outlet.what.clone(), self.words(e));
        match e.status_code() {
            Some(401 | 403) => {
                let detail = match self.credentials {
                    Some(_) => "it does not accept this user name and password",
                    None => "it wants a user name and password",
                };
                SourceError::Refused { what, detail: detail.into() }
            }
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

    /// The first line of an error, unless it could repeat what must not be shown.
    fn words(&self, e: &retina::Error) -> String {
        let text = e.to_string();
        let line = text.lines().next().unwrap_or_default();
        let secrets = self.credentials.iter().flat_map(|c| [&*c.user, &*c.password]).chain(self.url.query());
        // A path may hold a password too. What is shorter than a word is part of any text and cannot be told from it.
        let mut secrets = secrets.chain(Some(self.url.path())).filter(|s| s.len() > 3);
        if secrets.any(|s| line.contains(s)) { "an error that repeats the address".into() } else { line.to_owned() }
    }
}

/// Stream numbers of the session description.
struct Tracks {
    video: usize,
    audio: Option<usize>,
}

/// Turns frames into access units.
struct Receiver<'a> {
    outlet: &'a Outlet,
    /// Until the media clock is anchored.
    opening: Option<Opening>,
    timeline: Timeline,
    video: Option<Video>,
    audio: Option<Arc<TrackFormat>>,
    /// Something was lost since the last picture.
    damaged: bool,
}

struct Video {
    codec: VideoCodec,
    format: Arc<TrackFormat>,
}

impl Receiver<'_> {
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
        self.pass(Raw { track, media: nanos(time), unit });
    }

    /// Units are held.
    fn is_opening(&self) -> bool {
        self.opening.as_ref().is_some_and(|opening| !opening.is_empty())
    }

    fn pass(&mut self, raw: Raw) {
        if let Some(opening) = &mut self.opening {
            if opening.take(raw) {
                self.settle();
            }
        } else {
            let pts = self.timeline.place(raw.track, raw.media, raw.unit.arrival);
            self.outlet.unit(AccessUnit { pts: Some(pts), ..raw.unit });
        }
    }

    /// The opening is over.
    fn settle(&mut self) {
        if let Some(opening) = self.opening.take() {
            opening.place(&mut self.timeline).for_each(|unit| self.outlet.unit(unit));
        }
    }

    fn audio(&mut self, frame: &retina::codec::AudioFrame, stream: &Stream) {
        let arrival = self.outlet.clock.mono();
        let format = match &self.audio {
            Some(format) => Arc::clone(format),
            None => match audio_format(stream.parameters().as_ref()) {
                Some(format) => Arc::clone(self.audio.insert(Arc::new(format))),
                None => return,
            },
        };
        let rate = i64::from(frame.timestamp().clock_rate().get());
        let duration = i64::from(frame.frame_length().get()) * 1_000_000_000 / rate;
        let unit = AccessUnit {
            format,
            kind: FrameKind::Audio,
            pts: None,
            duration: u64::try_from(duration).ok(),
            arrival,
            discontinuity: frame.loss() > 0,
            data: Bytes::copy_from_slice(frame.data()),
        };
        self.pass(Raw { track: frame.stream_id(), media: nanos(frame.timestamp()), unit });
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
    })
}

/// The frame duration that the parameter sets name, if it is one: 1 ms to 10 s.
fn frame_duration(p: &VideoParameters) -> Option<u64> {
    let (n, d) = p.frame_rate()?;
    let nanos = u64::from(n).checked_mul(1_000_000_000)?.checked_div(u64::from(d))?;
    (1_000_000..=10_000_000_000).contains(&nanos).then_some(nanos)
}

fn audio_format(parameters: Option<&ParametersRef<'_>>) -> Option<TrackFormat> {
    let Some(ParametersRef::Audio(p)) = parameters else { return None };
    Some(TrackFormat::Audio(AudioFormat::Aac {
        sample_rate: p.clock_rate(),
        channels: p.channels().get(),
        config: Bytes::copy_from_slice(p.extra_data()),
    }))
}
