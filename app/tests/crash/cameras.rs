//! Cameras whose log is the truth: a platform for the capture service that delivers coded streams by the simulated clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use mos_hal::clock::{Clock, Mono};
use mos_hal::media::{FrameKind, LensId, VideoFormat};
use mos_hal::platform::{CodecError, Codecs, Device, Jpeg, JpegOptions, Platform};
use mos_hal::source::{LensSource, SourceError, SourceSpec, UnitSink};

use super::streams::Stream;
use super::world::Lenses;

/// From capture to delivery.
pub(crate) const LATENCY: i64 = 30_000_000;

/// How a camera behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Up,
    Absent,
    Refusing,
    /// Sends nothing until it is opened anew.
    Silent,
}

/// A video frame that the camera handed over, or would have while the recorder was busy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) life: usize,
    pub(crate) number: u16,
    /// World time of capture.
    pub(crate) at: i64,
    /// World time of delivery.
    pub(crate) delivered: i64,
    /// Whether everything that it needs was delivered on the same connection.
    pub(crate) decodable: bool,
}

struct Camera {
    video: Arc<Stream>,
    audio: Option<Arc<Stream>>,
    mood: Mood,
    sink: Option<Arc<dyn UnitSink>>,
    next_video: usize,
    next_audio: usize,
    entered: bool,
    log: Vec<Sent>,
}

/// All cameras; world time is the streams' time and goes on while the box is off.
#[derive(Clone)]
pub(crate) struct Cameras(Arc<Mutex<BTreeMap<String, Camera>>>);

struct Handle {
    cameras: Cameras,
    path: String,
    sink: Arc<dyn UnitSink>,
}

pub(crate) fn source_of(lens: &LensId) -> SourceSpec {
    SourceSpec::File { path: format!("/camera/{lens}").into(), looped: true }
}

impl Cameras {
    pub(crate) fn new(lenses: &Lenses) -> Self {
        let camera = |(lens, video, audio): &(LensId, Arc<Stream>, Option<Arc<Stream>>)| {
            let camera = Camera {
                video: video.clone(),
                audio: audio.clone(),
                mood: Mood::Up,
                sink: None,
                next_video: 0,
                next_audio: 0,
                entered: false,
                log: Vec::new(),
            };
            (source_of(lens).to_string(), camera)
        };
        Self(Arc::new(Mutex::new(lenses.iter().map(camera).collect())))
    }

    pub(crate) fn set_mood(&self, lens: &LensId, mood: Mood) {
        self.with(lens, |c| c.mood = mood);
    }

    /// The camera breaks off and is then in `mood`.
    pub(crate) fn break_off(&self, lens: &LensId, mood: Mood) {
        let sink = self.with(lens, |c| {
            c.mood = mood;
            c.sink.take()
        });
        if let Some(sink) = sink {
            sink.ended(SourceError::Broken { what: lens.to_string(), detail: "connection reset".into() });
        }
    }

    /// The box is off: nobody is connected.
    pub(crate) fn disconnect(&self) {
        self.0.lock().unwrap().values_mut().for_each(|c| c.sink = None);
    }

    pub(crate) fn log(&self, lens: &LensId) -> Vec<Sent> {
        self.with(lens, |c| c.log.clone())
    }

    /// Delivers what is due at world time `now` to whoever is connected. `boot` is the world time of monotonic zero.
    /// With `deaf` it is only logged: the box was busy or just lost power.
    pub(crate) fn pump(&self, now: i64, boot: i64, life: usize, deaf: bool) {
        for camera in self.0.lock().unwrap().values_mut() {
            camera.pump(now, boot, life, deaf);
        }
    }

    fn with<T>(&self, lens: &LensId, f: impl FnOnce(&mut Camera) -> T) -> T {
        f(self.0.lock().unwrap().get_mut(&source_of(lens).to_string()).unwrap())
    }
}

impl Camera {
    fn pump(&mut self, now: i64, boot: i64, life: usize, deaf: bool) {
        let sink = self.sink.clone().filter(|_| self.mood == Mood::Up);
        loop {
            let due = |units: &Stream, n: usize| units.units.get(n).map(|u| u.ready + LATENCY).filter(|t| *t <= now);
            let video = due(&self.video, self.next_video);
            let audio = self.audio.as_ref().and_then(|a| due(a, self.next_audio));
            match (video, audio) {
                (Some(v), a) if a.is_none_or(|a| v <= a) => {
                    let unit = self.video.unit(self.next_video, Mono(-boot), LATENCY);
                    let coded = &self.video.units[self.next_video];
                    self.next_video += 1;
                    let Some(sink) = &sink else {
                        self.entered = false;
                        continue;
                    };
                    self.entered |= matches!(coded.kind, FrameKind::Idr);
                    let number = Stream::number_at(coded.pts);
                    let decodable = self.entered;
                    self.log.push(Sent { life, number, at: coded.pts, delivered: v, decodable });
                    if !deaf {
                        sink.unit(unit);
                    }
                }
                (_, Some(_)) => {
                    let unit = self.audio.as_ref().map(|a| a.unit(self.next_audio, Mono(-boot), LATENCY));
                    self.next_audio += 1;
                    if let (Some(sink), Some(unit), false) = (&sink, unit, deaf) {
                        sink.unit(unit);
                    }
                }
                _ => return,
            }
        }
    }
}

impl Platform for Cameras {
    fn name(&self) -> &'static str {
        "simulated"
    }
    fn evidence(&self) -> String {
        "a test".into()
    }
    fn devices(&self) -> Vec<Device> {
        Vec::new()
    }
    fn open(
        &self,
        spec: &SourceSpec,
        _audio: bool,
        _clock: Arc<dyn Clock>,
        sink: Arc<dyn UnitSink>,
    ) -> Result<Box<dyn LensSource>, SourceError> {
        let path = spec.to_string();
        let mut cameras = self.0.lock().unwrap();
        let camera = cameras.get_mut(&path).unwrap();
        let what = path.clone();
        match camera.mood {
            Mood::Absent => return Err(SourceError::Absent { what, detail: "no route".into() }),
            Mood::Refusing => return Err(SourceError::Refused { what, detail: "401".into() }),
            Mood::Silent => camera.mood = Mood::Up,
            Mood::Up => {}
        }
        camera.entered = false;
        camera.sink = Some(sink.clone());
        Ok(Box::new(Handle { cameras: self.clone(), path, sink }))
    }
    fn codecs(&self) -> Arc<dyn Codecs> {
        Arc::new(NoCodecs)
    }
}

impl LensSource for Handle {
    fn request_keyframe(&self) -> bool {
        false
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut cameras = self.cameras.0.lock().unwrap();
        let Some(camera) = cameras.get_mut(&self.path) else { return };
        if camera.sink.as_ref().is_some_and(|s| Arc::ptr_eq(s, &self.sink)) {
            camera.sink = None;
        }
    }
}

struct NoCodecs;

impl Codecs for NoCodecs {
    fn jpeg(&self, _: &VideoFormat, _: &[u8], _: JpegOptions) -> Result<Jpeg, CodecError> {
        Err(CodecError::Missing { codec: "none", tried: String::new() })
    }
}
