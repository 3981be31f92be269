//! What every machine and every source must do. The numbers C1 to C9 name the promises.
#![allow(unreachable_pub, reason = "a test of its own")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mos_hal::clock::{Clock, SystemClock};
use mos_hal::codecs::families::{Memory, Task};
use mos_hal::media::{AccessUnit, FrameKind, VideoCodec};
use mos_hal::platform::{JpegOptions, Platform};
use mos_hal::probe::{self, Options};
use mos_hal::source::{LensSource, SourceError, SourceSpec, UnitSink};

use crate::machines::{Kind, Machine, Source, Surroundings};
use crate::rig::{Collector, ffmpeg, is_video, raw_file, video_format};

/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_mins(3);
/// `LensSource`: drop returns within it.
const DROP: Duration = Duration::from_secs(2);
/// What a busy machine may make of that. Two waits for a pipeline that does not stop, one after the other, take longer.
const BUSY_DROP: Duration = Duration::from_millis(3500);
/// How often it is tried whether a drop is in time, or a keyframe comes, before it is not the machine that was busy.
const TRIES: usize = 4;

struct Bench<'a> {
    platform: Arc<dyn Platform>,
    machine: &'a Machine,
    around: &'a Surroundings,
}

/// Runs the suite on a machine, in this process.
pub fn run(machine: &Machine, around: &Surroundings) {
    if !machine.doubles.is_empty() {
        gstreamer::init().unwrap();
        mos_doubles::register(machine.doubles).unwrap();
    }
    let options = Options { device_tree: around.tree().into(), sysfs: around.sysfs(), ..Options::default() };
    let bench = Bench { platform: probe::probe(&options), machine, around };
    bench.knows_itself();
    let production = probe::probe(&Options { production: true, ..options });
    for source in machine.sources {
        let spec = bench.spec(source);
        let said = |what: &str| log(&format!("{}: {}: {what}", machine.name, source.spec));
        said("delivers");
        let units = bench.delivers(source, &spec);
        said("pictures");
        bench.makes_pictures(&units);
        said("errors");
        bench.errors(source, &spec);
        said("faults");
        bench.faults(source, &spec);
        said("leaks");
        bench.leaks_nothing(&spec);
        said("production");
        bench.production(source, &spec, production.as_ref());
    }
    bench.touched_no_pixels();
}

/// Progress, which the parent shows if something fails.
fn log(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn kind(why: &SourceError) -> Kind {
    match why {
        SourceError::Absent { .. } => Kind::Absent,
        SourceError::Refused { .. } => Kind::Refused,
        SourceError::Unsupported { .. } | SourceError::Exhausted { .. } => Kind::Unsupported,
        SourceError::Broken { .. } => Kind::Broken,
        SourceError::Ended { .. } => Kind::Ended,
    }
}

impl Bench<'_> {
    fn open_on(platform: &dyn Platform, spec: &str) -> (Result<Box<dyn LensSource>, SourceError>, Arc<Collector>) {
        let spec = SourceSpec::parse(spec).unwrap();
        let (sink, clock) = (Arc::new(Collector::default()), Arc::new(SystemClock::new().unwrap()) as Arc<dyn Clock>);
        let source = platform.open(&spec, false, clock, Arc::clone(&sink) as Arc<dyn UnitSink>);
        (source, sink)
    }

    fn open(&self, spec: &str) -> (Box<dyn LensSource>, Arc<Collector>) {
        Self::await_on(self.platform.as_ref(), spec, &[Kind::Refused])
    }

    /// Opens until units come. A camera that was just closed may be in use for a moment, and one that was broken may be so yet:
    /// the refusals that `passing` names.
    fn await_on(platform: &dyn Platform, spec: &str, passing: &[Kind]) -> (Box<dyn LensSource>, Arc<Collector>) {
        let end = Instant::now() + PATIENCE;
        loop {
            let (source, sink) = Self::open_on(platform, spec);
            let why = match source {
                Err(why) => why,
                Ok(lens) => match sink.first() {
                    None => return (lens, sink),
                    Some(why) => why,
                },
            };
            assert!(passing.contains(&kind(&why)), "{spec}: {why:?}");
            assert!(Instant::now() < end, "does not come back: {why:?}");
            std::thread::yield_now();
        }
    }

    /// C4: drops it, and if that took too long others like it: of several drops a busy machine may hold up some, but hardly all.
    fn stop(lens: Box<dyn LensSource>, again: impl Fn() -> Box<dyn LensSource>) {
        let timed = |lens: Box<dyn LensSource>| {
            let began = Instant::now();
            drop(lens);
            began.elapsed()
        };
        let mut took = vec![timed(lens)];
        while took.len() < TRIES && took.last().is_some_and(|last| *last >= DROP) {
            took.push(timed(again()));
        }
        let in_time = took.iter().all(|took| *took < BUSY_DROP) && took.last().is_some_and(|last| *last < DROP);
        assert!(in_time, "drops took {took:?}");
    }

    /// How a source that cannot be opened says so, whether at once or at its end.
    fn refusal(platform: &dyn Platform, spec: &str) -> SourceError {
        let (source, sink) = Self::open_on(platform, spec);
        match source {
            Err(why) => why,
            Ok(_source) => sink.end().1,
        }
    }

    /// The source as text, with what only this process knows in it.
    fn spec(&self, source: &Source) -> String {
        if source.spec.starts_with("file:") {
            let file = self.around.folder.join("footage.mp4");
            let scene = "testsrc2=size=640x360:rate=25:duration=4";
            let codec = ["-c:v", "libx264", "-g", "25", "-pix_fmt", "yuv420p"];
            let mut args = vec!["-f", "lavfi", "-i", scene];
            args.extend(codec);
            args.push(file.to_str().unwrap());
            ffmpeg(&args);
        }
        #[cfg(feature = "demo")]
        if source.spec == "rtsp:" {
            let server: &'static _ = Box::leak(Box::new(mos_hal::demo::RtspServer::start().unwrap()));
            return server.url();
        }
        source.spec.replace("FOLDER", self.around.folder.to_str().unwrap())
    }

    /// C1: platform, stack, lenses and codecs follow from the tree and from what is present.
    fn knows_itself(&self) {
        let (platform, machine) = (&self.platform, self.machine);
        assert_eq!(platform.name(), machine.platform);
        assert_eq!(platform.stack().name, machine.stack, "{:?}", platform.stack());
        assert!(!platform.evidence().is_empty());
        let cameras = platform.cameras();
        assert_eq!(cameras.faults, Vec::<String>::new());
        for source in machine.sources {
            let Some(name) = source.spec.strip_prefix("board:").and_then(|s| s.split('?').next()) else { continue };
            let lens = cameras.cameras.iter().find(|c| c.lens.name.as_str() == name);
            let route = lens.unwrap_or_else(|| panic!("no lens {name}")).route.as_ref().unwrap();
            assert_eq!(Some(route.camera.as_str()), source.camera, "{name}");
            assert!(route.source.is_some(), "{name} is not recorded");
        }
        let encoder = platform.choices().into_iter().find(|c| c.task == Task::Encode(VideoCodec::H264)).unwrap();
        assert_eq!(encoder.chosen.map(|f| f.element), Some(machine.encoder), "{encoder:?}");
    }

    /// C2: units in decoding order, the first a keyframe with parameter sets, capture times that only grow.
    /// C3: a keyframe comes when it is asked for. C4: drop returns in time and nothing follows.
    fn delivers(&self, source: &Source, spec: &str) -> Vec<AccessUnit> {
        let (lens, sink) = self.open(spec);
        sink.video(10);
        let came = Self::keyframe_comes(source, lens.as_ref(), &sink);
        let units = sink.video(sink.count() + 35);
        let memory = lens.memory();
        Self::stop(lens, || {
            let (lens, sink) = self.open(spec);
            sink.video(10);
            lens
        });
        let after = sink.count();
        let format = video_format(&units[0]);
        assert!(format.config.len() > 20, "the first unit brings its parameter sets");
        assert_eq!(units[0].kind, FrameKind::Idr);
        let mut last = None;
        for unit in units.iter().filter(|u| is_video(u)) {
            assert!(unit.data.len() > 4 && unit.arrival >= units[0].arrival);
            let pts = unit.pts.expect("a capture time");
            // Of media clocks that are not ours the timeline smooths the jitter.
            let slack = if source.gop.is_some() { 0 } else { 500_000_000 };
            assert!(pts.since(unit.arrival) <= slack, "captured {} ns after it arrived", pts.since(unit.arrival));
            assert!(unit.duration.is_none_or(|d| (1_000_000..1_000_000_000).contains(&d)), "{:?}", unit.duration);
            if format.reorder == 0 {
                assert!(last.is_none_or(|last| last < pts), "capture times grow");
            }
            last = Some(pts);
        }
        let keys: Vec<usize> = (0..units.len()).filter(|i| units[*i].kind == FrameKind::Idr).collect();
        if let Some(gop) = source.gop {
            assert!(keys.windows(2).all(|w| w[1] - w[0] <= gop), "a keyframe at least every {gop} frames: {keys:?}");
        }
        assert!(came, "no keyframe when asked but those that come by themselves: {keys:?}");
        self.decodes(source, &units);
        if source.camera.is_some() {
            let wanted = if self.machine.dmabuf { Memory::Dmabuf } else { Memory::System };
            assert_eq!(memory, Some(wanted));
        }
        assert_eq!(sink.count(), after, "units after the drop");
        units
    }

    /// C3: whether a keyframe comes soon after it is asked for, closer to the one before than those that come by themselves; a source
    /// that does not encode says that it has no means to.
    fn keyframe_comes(source: &Source, lens: &dyn LensSource, sink: &Collector) -> bool {
        let Some(gop) = source.gop else { return !lens.request_keyframe() };
        // One that is asked for just when one would come by itself, as on a busy machine, is not to be told from that.
        (0..TRIES).any(|_| {
            let before = sink.count();
            assert!(lens.request_keyframe(), "an encoder of ours gives keyframes when asked");
            let units = sink.video(sink.count() + 20);
            let keys: Vec<usize> = (0..units.len()).filter(|at| units[*at].kind == FrameKind::Idr).collect();
            keys.windows(2).any(|pair| pair[1] >= before && pair[1] - pair[0] < gop)
        })
    }

    /// Every picture decodes, and those of a double's camera are its pictures, in their order.
    fn decodes(&self, source: &Source, units: &[AccessUnit]) {
        let file = raw_file(&self.around.folder, units);
        let file = file.to_str().unwrap();
        let filter = "crop=512:16:0:0,scale=32:1:flags=area,format=gray";
        let bytes = ffmpeg(&["-i", file, "-fps_mode", "passthrough", "-vf", filter, "-f", "rawvideo", "-"]);
        let pictures: Vec<&[u8]> = bytes.chunks_exact(32).collect();
        let video = units.iter().filter(|u| is_video(u)).count();
        assert_eq!(pictures.len(), video, "pictures of {video} units");
        if source.camera.is_none() {
            return;
        }
        let number = |cells: &[u8]| {
            (0..16).fold(0_u32, |number, bit| {
                let (plain, inverse) = (i32::from(cells[bit]), i32::from(cells[bit + 16]));
                assert!((plain - inverse).abs() > 80, "no number in the picture: {cells:?}");
                number << 1 | u32::from(plain > inverse)
            })
        };
        let numbers: Vec<u32> = pictures.into_iter().map(number).collect();
        assert!(numbers.windows(2).all(|w| w[0] < w[1]), "{numbers:?}");
    }

    /// C5: a keyframe of its own becomes the picture that it is.
    fn makes_pictures(&self, units: &[AccessUnit]) {
        let codecs = self.platform.codecs();
        for unit in units.iter().filter(|u| u.kind == FrameKind::Idr) {
            let format = video_format(unit);
            let jpeg = codecs.jpeg(format, &unit.data, JpegOptions { quality: 90, max_edge: None }).unwrap();
            assert_eq!((jpeg.width, jpeg.height), (format.width, format.height));
            let file = self.around.folder.join("picture.jpg");
            std::fs::write(&file, &jpeg.data).unwrap();
            let small = |file: &Path| {
                let filter = "scale=16:16:flags=area:in_range=auto:out_range=pc,format=gray";
                ffmpeg(&["-i", file.to_str().unwrap(), "-frames:v", "1", "-vf", filter, "-f", "rawvideo", "-"])
            };
            let (made, wanted) = (small(&file), small(&raw_file(&self.around.folder, std::slice::from_ref(unit))));
            let apart = made.iter().zip(&wanted).map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>() / 256;
            assert!(made.len() == 256 && apart < 20, "another picture: {apart} levels apart");
        }
    }

    /// C6: what is absent, in use or not possible is told as that.
    fn errors(&self, source: &Source, spec: &str) {
        if let Some((absent, kinds)) = source.absent {
            let why = Self::refusal(self.platform.as_ref(), absent);
            assert!(kinds.contains(&kind(&why)), "{absent}: {why:?}");
        }
        if let Some(unsupported) = source.unsupported {
            let why = Self::refusal(self.platform.as_ref(), unsupported);
            assert_eq!(kind(&why), Kind::Unsupported, "{unsupported}: {why:?}");
        }
        if source.camera.is_some() {
            let (first, sink) = self.open(spec);
            let _ = sink.video(1);
            let why = Self::refusal(self.platform.as_ref(), spec);
            assert_eq!(kind(&why), Kind::Refused, "opened twice: {why:?}");
            let more = sink.count() + 5;
            let _ = sink.video(more);
            drop(first);
        }
    }

    /// C7: a camera that breaks ends its source exactly once, and can be opened again when it is back.
    fn faults(&self, source: &Source, spec: &str) {
        let Some(camera) = source.camera else { return };
        for fault in ["error", "gone"] {
            let (lens, sink) = self.open(spec);
            let _ = sink.video(3);
            self.around.fault(camera, fault);
            // The collector panics at a second end and at a unit after it.
            let (_, why) = sink.end();
            assert!(matches!(kind(&why), Kind::Broken | Kind::Absent), "{fault}: {why:?}");
            drop(lens);
            self.around.fault(camera, "");
            drop(Self::await_on(self.platform.as_ref(), spec, &[Kind::Refused, Kind::Absent, Kind::Broken]));
        }
        // Silence is no end: the recorder decides how long is too long. The source still stops in time.
        let silent = || {
            self.around.fault(camera, "");
            let (lens, sink) = self.open(spec);
            let _ = sink.video(3);
            self.around.fault(camera, "stall");
            lens
        };
        Self::stop(silent(), silent);
        self.around.fault(camera, "");
        drop(self.open(spec));
    }

    /// C8: opened and dropped again and again, a source leaves neither threads nor descriptors behind.
    fn leaks_nothing(&self, spec: &str) {
        let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
        let once = || {
            let (lens, sink) = self.open(spec);
            let _ = sink.video(2);
            drop(lens);
        };
        (0..3).for_each(|_| once());
        let before = (count("task"), count("fd"));
        (0..4).for_each(|_| once());
        let end = Instant::now() + PATIENCE;
        loop {
            // Threads of pools may end later than the source.
            let now = (count("task"), count("fd"));
            if now.0 <= before.0 + 2 && now.1 <= before.1 + 2 {
                return;
            }
            assert!(Instant::now() < end, "threads and descriptors: {before:?}, then {now:?}");
            std::thread::yield_now();
        }
    }

    /// C9: with `production = true` a raw camera is recorded only if its pictures stay out of CPU memory.
    fn production(&self, source: &Source, spec: &str, platform: &dyn Platform) {
        if source.camera.is_none() {
            return;
        }
        if self.machine.dmabuf && !spec.contains("h265") {
            let (lens, sink) = Self::await_on(platform, spec, &[Kind::Refused]);
            let _ = sink.video(3);
            assert_eq!(lens.memory(), Some(Memory::Dmabuf));
        } else if !self.machine.dmabuf {
            let why = Self::refusal(platform, spec);
            assert_eq!(kind(&why), Kind::Unsupported, "{why:?}");
        }
    }

    /// On all these ways nobody mapped a camera's pixels, and no encoder copied them.
    fn touched_no_pixels(&self) {
        for event in ["mapping-refused", "copy", "fault"] {
            assert_eq!(self.around.events(event), Vec::<String>::new(), "{event}");
        }
        if self.machine.dmabuf {
            assert!(!self.around.events("import").is_empty(), "no encoder saw a picture of a camera");
        }
    }
}
