#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use mos_hal::clock::{BootId, Mono, SimClock, UtcMicros};
use mos_hal::hotplug::Presence;
use mos_hal::media::{AccessUnit, FrameKind, VideoFormat};
use mos_hal::platform::{CodecError, Codecs, Jpeg, JpegOptions};
use mos_hal::source::{LensSource, SourceError, UnitSink};

use super::*;
use crate::archive::gaps::GapCause;
use crate::record::intake::Item;

mod degradation;
mod hotplug;
mod recovery;
mod vanished;

/// A platform whose sources do what the test says: each attempt to open takes the next outcome of its file's script.
#[derive(Default)]
struct Scripted {
    scripts: Mutex<BTreeMap<String, VecDeque<Outcome>>>,
    open: Mutex<BTreeMap<String, Arc<dyn UnitSink>>>,
    dropped: Arc<Mutex<Vec<String>>>,
    keyframes: Arc<Mutex<u32>>,
    /// What is known of devices without opening them; unknown where nothing stands.
    presence: Mutex<BTreeMap<String, Presence>>,
}

enum Outcome {
    Opens,
    Fails(SourceError),
    Panics,
}

struct ScriptedSource {
    name: String,
    dropped: Arc<Mutex<Vec<String>>>,
    keyframes: Arc<Mutex<u32>>,
}

impl LensSource for ScriptedSource {
    fn request_keyframe(&self) -> bool {
        *lock(&self.keyframes) += 1;
        true
    }
}

impl Drop for ScriptedSource {
    fn drop(&mut self) {
        lock(&self.dropped).push(self.name.clone());
    }
}

struct NoCodecs;

impl Codecs for NoCodecs {
    fn jpeg(&self, _: &VideoFormat, _: &[u8], _: JpegOptions) -> Result<Jpeg, CodecError> {
        Err(CodecError::Missing { codec: "h264", tried: String::new() })
    }
}

impl Platform for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }
    fn evidence(&self) -> String {
        "a test".into()
    }
    fn devices(&self) -> Vec<Device> {
        Vec::new()
    }
    fn presence(&self, spec: &SourceSpec) -> Presence {
        lock(&self.presence).get(&spec.to_string()).copied().unwrap_or(Presence::Unknown)
    }
    fn open(
        &self,
        spec: &SourceSpec,
        _audio: bool,
        _clock: Arc<dyn Clock>,
        sink: Arc<dyn UnitSink>,
    ) -> Result<Box<dyn LensSource>, SourceError> {
        let name = spec.to_string();
        let next = lock(&self.scripts).get_mut(&name).and_then(VecDeque::pop_front);
        match next.unwrap_or(Outcome::Opens) {
            Outcome::Opens => {
                lock(&self.open).insert(name.clone(), sink);
                let (dropped, keyframes) = (self.dropped.clone(), self.keyframes.clone());
                Ok(Box::new(ScriptedSource { name, dropped, keyframes }))
            }
            Outcome::Fails(error) => Err(error),
            Outcome::Panics => panic!("a vendor library gives up"),
        }
    }
    fn codecs(&self) -> Arc<dyn Codecs> {
        Arc::new(NoCodecs)
    }
}

struct Rig {
    clock: Arc<SimClock>,
    platform: Arc<Scripted>,
    service: CaptureControlService,
    intakes: Vec<Arc<Intake>>,
    names: Vec<String>,
}

fn rig(scripts: Vec<Vec<Outcome>>) -> Rig {
    rig_of(scripts, |n| SourceSpec::File { path: format!("/lens{n}.mp4").into(), looped: false })
}

fn rig_of(scripts: Vec<Vec<Outcome>>, source: impl Fn(usize) -> SourceSpec) -> Rig {
    let clock = Arc::new(SimClock::new(BootId([3; 16]), UtcMicros(0)));
    let platform = Arc::new(Scripted::default());
    let mut lenses = Vec::new();
    let mut intakes = Vec::new();
    let mut names = Vec::new();
    for (n, script) in scripts.into_iter().enumerate() {
        let source = source(n);
        let name = source.to_string();
        lock(&platform.scripts).insert(name.clone(), script.into());
        let intake = Arc::new(Intake::new(1 << 20));
        intakes.push(intake.clone());
        names.push(name);
        let id = LensId::new(&format!("lens{n}")).unwrap();
        lenses.push((LensConfig { id, source, audio: false, frames: None, isolation: Isolation::None }, intake));
    }
    let as_clock: Arc<dyn Clock> = clock.clone();
    let service = CaptureControlService::new(platform.clone(), None, &as_clock, lenses, DropMode::InPlace);
    Rig { clock, platform, service, intakes, names }
}

impl Rig {
    fn unit(&self, lens: usize) {
        self.unit_of(lens, FrameKind::Idr);
    }

    fn unit_of(&self, lens: usize, kind: FrameKind) {
        let now = self.clock.mono();
        let format = crate::record::testing::video_format(0);
        let unit = AccessUnit {
            format,
            kind,
            pts: Some(now),
            duration: None,
            arrival: now,
            discontinuity: false,
            data: Bytes::from_static(&[0; 1000]),
        };
        let sink = lock(&self.platform.open).get(&self.names[lens]).cloned();
        sink.unwrap().unit(unit);
    }

    fn end(&self, lens: usize, why: SourceError) {
        let sink = lock(&self.platform.open).get(&self.names[lens]).cloned();
        sink.unwrap().ended(why);
    }

    /// Lets time pass in steps of the service's look; lenses in `feeding` deliver 10 units a second.
    fn pass(&self, seconds: u32, feeding: &[usize]) {
        for _ in 0..seconds * 2 {
            for _ in 0..5 {
                self.clock.advance(Duration::from_millis(100));
                for lens in feeding {
                    self.unit(*lens);
                }
            }
            self.service.step();
        }
    }

    fn state(&self, lens: usize) -> CaptureState {
        self.service.status()[lens].state
    }

    fn causes(&self, lens: usize) -> Vec<(GapCause, i64)> {
        let mut items = VecDeque::new();
        self.intakes[lens].take(&mut items);
        let down = |i: &Item| match i {
            Item::Down { cause, at } => Some((*cause, at.0 / 1_000_000_000)),
            _ => None,
        };
        items.iter().filter_map(down).collect()
    }
}

fn absent() -> SourceError {
    SourceError::Absent { what: "lens".into(), detail: "no route".into() }
}

fn refused() -> SourceError {
    SourceError::Refused { what: "lens".into(), detail: "401".into() }
}

fn broken() -> SourceError {
    SourceError::Broken { what: "lens".into(), detail: "reset by peer".into() }
}

#[test]
fn k2_absent_then_refused_then_streaming() {
    let rig = rig(vec![vec![Outcome::Fails(absent()), Outcome::Fails(refused()), Outcome::Opens]]);
    assert_eq!(rig.state(0), CaptureState::Idle);
    rig.service.step();
    assert_eq!(rig.state(0), CaptureState::Absent);
    rig.pass(2, &[]);
    assert_eq!(rig.state(0), CaptureState::Failed);
    assert!(rig.service.status()[0].last_error.as_ref().unwrap().0.contains("401"));
    rig.pass(3, &[]);
    assert_eq!(rig.state(0), CaptureState::Connecting);
    rig.pass(4, &[0]);
    let status = rig.service.status().remove(0);
    assert_eq!(status.state, CaptureState::Streaming);
    assert_eq!((status.frames, status.reconnects), (40, 2));
    assert!((status.frame_rate - 10.0).abs() < 1.0 && (72_000..88_000).contains(&status.bitrate), "{status:?}");
    assert_eq!((status.codec, status.size), (Some("h264"), Some((160, 96))));
    let causes: Vec<_> = rig.causes(0).into_iter().map(|c| c.0).collect();
    assert_eq!(causes, [GapCause::CameraAbsent, GapCause::CameraRefused]);
}

#[test]
fn k2_a_silent_camera_is_given_up_after_ten_seconds_and_tried_again() {
    let rig = rig(vec![vec![]]);
    rig.service.step();
    rig.pass(3, &[0]);
    rig.pass(4, &[]);
    assert_eq!(rig.state(0), CaptureState::Stalled);
    assert!(lock(&rig.platform.dropped).is_empty());
    rig.pass(6, &[]);
    assert_eq!(rig.state(0), CaptureState::BackingOff);
    assert_eq!(lock(&rig.platform.dropped).len(), 1);
    assert_eq!(rig.causes(0), [(GapCause::CameraStalled, 12)], "within the ten seconds, with the recorder's tick");
    rig.pass(2, &[]);
    assert_eq!(rig.state(0), CaptureState::Connecting);
    rig.pass(1, &[0]);
    assert_eq!(rig.state(0), CaptureState::Streaming);
}

#[test]
fn k2_a_camera_that_starts_slowly_is_waited_for_and_that_is_told() {
    let rig = rig(vec![vec![]]);
    rig.service.step();
    rig.pass(10, &[]);
    assert_eq!(rig.state(0), CaptureState::BackingOff, "the first opening is given up");
    rig.pass(2, &[]);
    assert_eq!(rig.state(0), CaptureState::Connecting);
    rig.pass(13, &[]);
    assert_eq!(rig.state(0), CaptureState::Connecting, "the second is waited for");
    let status = rig.service.status().remove(0);
    assert_eq!(status.cause, Some(GapCause::CameraStalled));
    assert!(status.last_error.unwrap().0.contains("10 s since it was opened; waiting on"));
    assert_eq!(rig.causes(0).len(), 2, "each opening is told once");
    rig.pass(1, &[0]);
    assert_eq!((rig.state(0), lock(&rig.platform.dropped).len()), (CaptureState::Streaming, 1));
    // One that never sends is opened anew, quickly and patiently in turn.
    let rig = self::rig(vec![vec![]]);
    rig.service.step();
    rig.pass(110, &[]);
    assert_eq!(lock(&rig.platform.dropped).len(), 5);
}

#[test]
fn k2_sound_alone_does_not_keep_a_lens_alive() {
    let rig = rig(vec![vec![]]);
    rig.service.step();
    rig.pass(3, &[0]);
    for _ in 0..22 {
        rig.clock.advance(Duration::from_millis(500));
        rig.unit_of(0, FrameKind::Audio);
        rig.service.step();
    }
    assert_ne!(rig.state(0), CaptureState::Streaming);
    assert_eq!(rig.causes(0).first().map(|c| c.0), Some(GapCause::CameraStalled));
}

#[test]
fn k3_a_source_that_breaks_off_says_so_in_order_and_nothing_follows_it() {
    let rig = rig(vec![vec![]]);
    rig.service.step();
    rig.pass(1, &[0]);
    rig.end(0, broken());
    rig.unit(0);
    let mut items = VecDeque::new();
    rig.intakes[0].take(&mut items);
    assert_eq!(items.len(), 12);
    assert!(matches!(items.front(), Some(Item::Opened(_))));
    assert!(matches!(items.back(), Some(Item::Down { cause: GapCause::CameraBrokeOff, .. })));
    rig.service.step();
    assert_eq!(rig.state(0), CaptureState::BackingOff);
}

#[test]
fn k2_the_end_of_a_file_is_final() {
    let rig = rig(vec![vec![]]);
    rig.service.step();
    rig.pass(1, &[0]);
    rig.end(0, SourceError::Ended { what: "lens".into() });
    rig.pass(60, &[]);
    assert_eq!(rig.state(0), CaptureState::Idle);
    assert_eq!(rig.service.status()[0].cause, Some(GapCause::SourceEnded));
    assert_eq!(rig.service.status()[0].reconnects, 0);
    assert_eq!(rig.causes(0), [(GapCause::SourceEnded, 1)]);
}

#[test]
fn k1_a_panicking_and_a_silent_lens_leave_the_third_alone() {
    let panics = (0..40).map(|_| Outcome::Panics).collect();
    let rig = rig(vec![panics, vec![], vec![]]);
    rig.service.step();
    rig.pass(60, &[2]);
    assert_eq!(rig.state(0), CaptureState::CircuitOpen);
    assert_eq!(rig.service.status()[2].frames, 600);
    assert_eq!(rig.state(2), CaptureState::Streaming);
    assert_eq!(rig.service.status()[2].reconnects, 0);
    rig.service.stop();
    assert!(rig.service.status().iter().all(|s| s.state == CaptureState::Idle && s.cause == Some(GapCause::Stopped)));
    assert!(lock(&rig.platform.dropped).contains(&rig.names[2]));
    rig.pass(60, &[]);
    assert_eq!(rig.state(0), CaptureState::Idle);
}

#[test]
fn k2_delays_grow_while_a_camera_flaps() {
    let rig = rig(vec![(0..200).map(|_| Outcome::Fails(absent())).collect()]);
    rig.service.step();
    rig.pass(300, &[]);
    let attempts = rig.service.status()[0].reconnects;
    assert!((10..20).contains(&attempts), "{attempts} attempts in 300 s");
}

#[test]
fn a_wish_for_a_keyframe_reaches_the_source() {
    let rig = rig(vec![vec![]]);
    rig.service.step();
    rig.pass(1, &[0]);
    rig.intakes[0].want_keyframe();
    rig.pass(2, &[0]);
    assert_eq!(*lock(&rig.platform.keyframes), 1);
    assert_eq!(rig.state(0), CaptureState::Streaming);
    assert_eq!(rig.clock.mono(), Mono(3_000_000_000));
}

/// The whole way with a real file, real time and a real disk: played, recorded, ended, all accounted for.
#[test]
fn a_played_file_is_recorded_whole_and_its_end_is_told() {
    use crate::archive::disk::RealDisk;
    use crate::archive::{Archive, ArchiveOptions, Window};
    use crate::record::{Recorder, RecorderOptions};
    use mos_hal::clock::SystemClock;

    let dir = tempfile::tempdir().unwrap();
    let movie = dir.path().join("two_seconds.mp4");
    let status = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc=size=160x96:rate=25:duration=2", "-pix_fmt", "yuv420p"])
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-bf", "2"])
        .arg(&movie)
        .status()
        .expect("ffmpeg is installed");
    assert!(status.success());

    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new().unwrap());
    let root = dir.path().join("archive");
    std::fs::create_dir(&root).unwrap();
    let disk = Arc::new(RealDisk::open(&root).unwrap());
    let archive = Archive::open(disk, clock.clone(), &ArchiveOptions::default()).unwrap();
    archive.load().unwrap();
    let lens = LensId::new("road").unwrap();
    let ids = std::slice::from_ref(&lens);
    let recorder = Recorder::new(archive.clone(), clock.clone(), &RecorderOptions::default(), ids);
    let source = SourceSpec::File { path: movie, looped: false };
    let config = LensConfig { id: lens.clone(), source, audio: false, frames: None, isolation: Isolation::None };
    let lenses = vec![(config, recorder.intake(&lens).unwrap())];
    let capture = CaptureControlService::new(mos_hal::platform::probe(), None, &clock, lenses, DropMode::Thread);
    let mut news = archive.catalog().changes();
    let threads = [capture.spawn().unwrap(), recorder.spawn().unwrap()];

    // The end goes on record as a gap; every change of the catalog is a reason to look.
    let ended = || archive.catalog().gaps(None, Window::ALL).iter().any(|g| g.cause == GapCause::SourceEnded);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let end = async {
        while !ended() {
            news.changed().await.unwrap();
        }
    };
    let waited = runtime.block_on(async { tokio::time::timeout(Duration::from_mins(1), end).await });
    assert!(waited.is_ok(), "no end after a minute: {:?}", capture.status());
    assert_eq!(capture.status()[0].cause, Some(GapCause::SourceEnded));
    assert_eq!((capture.status()[0].frames, capture.status()[0].size), (50, Some((160, 96))));
    capture.stop();
    let report = recorder.stop();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(report.left_open, 0);
    let rows = archive.catalog().segments(None, Window::ALL, 0, 10);
    assert_eq!(rows.iter().map(|r| r.row.frames).collect::<Vec<_>>(), [50]);
    let span = rows[0].row.end.since(rows[0].row.start);
    assert!((span - 2_000_000_000).abs() < 1_000_000, "{span} ns");
    let status = recorder.status().lenses[&lens].clone();
    assert_eq!((status.captured, status.stored), (50, 50));
}
