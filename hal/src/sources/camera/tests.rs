//! Whole lines with other elements in the place of the camera, and of hardware.
#![allow(clippy::unwrap_used)]

use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::mpsc;
use std::time::Duration;

use gstreamer_allocators::{DmaBufAllocator, DmaBufAllocatorExtManual};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::*;
use crate::board::Soc;
use crate::clock::SystemClock;
use crate::codecs::families::{Family, Limits, X264};
use crate::device_tree::BoardLens;
use crate::generic::Generic;
use crate::media::FrameKind;
use crate::platform::{Route, Stack};
use crate::surroundings::{Here, Surroundings};

type Arrived = Result<AccessUnit, SourceError>;

/// Forwards, counts pictures that were left out, wants one of so many, and hands on what is told of the encoder.
struct Forward(mpsc::Sender<Arrived>, Arc<AtomicU64>, Arc<AtomicU32>, mpsc::Sender<Share>);

impl UnitSink for Forward {
    fn unit(&self, unit: AccessUnit) {
        let _ = self.0.send(Ok(unit));
    }
    fn left_out(&self, _: Mono, _: Mono, pictures: u64, _: LeftOutBy) {
        self.1.fetch_add(pictures, Ordering::Relaxed);
    }
    fn ended(&self, why: SourceError) {
        let _ = self.0.send(Err(why));
    }
    fn one_in(&self) -> u32 {
        self.2.load(Ordering::Relaxed)
    }
    fn coded(&self, share: Share) {
        let _ = self.3.send(share);
    }
}

/// A board whose encoder counts as hardware.
struct Accelerated;

static ENCODER: Family = Family {
    memory: Memory::Dmabuf,
    limits: Limits { width: (64, 640), height: (64, 480), bitrate: (100_000, 1_000_000) },
    ..X264
};

impl Soc for Accelerated {
    fn name(&self) -> &'static str {
        "accelerated"
    }
    fn matches(&self, _: &str) -> bool {
        false
    }
    fn stack(&self, here: &dyn Surroundings) -> Stack {
        Generic.stack(here)
    }
    fn elements(&self) -> &'static [&'static Family] {
        static ELEMENTS: [&Family; 1] = [&ENCODER];
        &ELEMENTS
    }
    fn route(&self, _: &BoardLens, _: &dyn Surroundings) -> Result<Route, String> {
        Err("it is switched off".into())
    }
    fn encoder_budget(&self) -> Option<u64> {
        Some(320 * 240 * 60)
    }
}

/// What one lens is opened with.
struct Rig {
    opening: Opening,
    arrived: mpsc::Receiver<Arrived>,
    left_out: Arc<AtomicU64>,
    one_in: Arc<AtomicU32>,
    shares: mpsc::Receiver<Share>,
}

fn machine(soc: &'static dyn Soc, production: bool) -> Arc<Machine> {
    Arc::new(Machine::new(soc, "/none".into(), Arc::new(Here::new()), production))
}

fn rig(machine: &Arc<Machine>) -> Rig {
    common::init().and_then(|()| contract::register()).unwrap();
    let (sender, arrived) = mpsc::channel();
    let (left_out, one_in) = (Arc::default(), Arc::new(AtomicU32::new(1)));
    let (tell, shares) = mpsc::channel();
    let sink = Arc::new(Forward(sender, Arc::clone(&left_out), Arc::clone(&one_in), tell));
    let learner = Arc::new(Learner { sink, lesson: OnceLock::new() });
    let outlet = Outlet::new("lens".into(), Arc::new(SystemClock::new().unwrap()), learner.clone());
    let spec = SourceSpec::parse("libcamera:stand-in").unwrap();
    let (machine, memory) = (Arc::clone(machine), Arc::default());
    Rig { opening: Opening { spec, machine, outlet, learner, memory }, arrived, left_out, one_in, shares }
}

impl Rig {
    fn start(&self, camera: &str, text: &str, options: &RawOptions) -> Result<Live, SourceError> {
        self.run(camera, stand_in(text), options)
    }

    fn run(&self, camera: &str, source: Source, options: &RawOptions) -> Result<Live, SourceError> {
        let claim = Arc::new(self.opening.machine.take(camera).unwrap());
        self.opening.start(source, &Origin::Libcamera(camera.into()), options, claim)
    }

    fn next(&self) -> Arrived {
        self.arrived.recv_timeout(Duration::from_mins(1)).expect("something arrives within a minute")
    }

    fn units(&self, n: usize) -> Vec<AccessUnit> {
        (0..n).map(|_| self.next().unwrap_or_else(|why| panic!("{why}"))).collect()
    }

    fn end(&self) -> SourceError {
        loop {
            if let Err(why) = self.next() {
                return why;
            }
        }
    }

    /// Waits until so many pictures are coded while so many were wanted.
    fn until_coded(&self, one_in: u32, wanted: u32) {
        let met = |share: &Share| (share.one_in, share.wanted) == (one_in, wanted);
        while !met(&self.shares.recv_timeout(Duration::from_mins(1)).expect("it is told within a minute")) {}
    }

    fn memory(&self) -> Option<Memory> {
        *lock(&self.opening.memory)
    }
}

/// Waits until the book has heard that so many pixels per second are free.
fn await_room(machine: &Machine, pixels: u64) {
    let end = std::time::Instant::now() + Duration::from_mins(1);
    while machine.shared.encode("nobody", pixels).is_err() {
        assert!(std::time::Instant::now() < end, "no room after a minute");
        std::thread::yield_now();
    }
    machine.shared.give_back("nobody");
}

fn stand_in(text: &str) -> Source {
    let element: gst::Element = gst::parse::bin_from_description(text, true).unwrap().upcast();
    let pad = element.static_pad("src").unwrap();
    Source { element, pad }
}

const NV12: &str = "videotestsrc is-live=true ! video/x-raw,format=NV12,width=320,height=240,framerate=30/1 ! identity";

/// NV12 pictures in memories typed as dmabuf, announced with plain caps, as the boards' cameras give them.
fn in_dmabufs(text: &str) -> Source {
    in_dmabufs_but(text, |_| false)
}

/// The same, but for some pictures, by their numbers from 0.
fn in_dmabufs_but(text: &str, not: impl Fn(u64) -> bool + Send + Sync + 'static) -> Source {
    let source = stand_in(text);
    let allocator = DmaBufAllocator::new();
    let number = AtomicU64::new(0);
    source.pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if not(number.fetch_add(1, Ordering::Relaxed)) {
            return gst::PadProbeReturn::Ok;
        }
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            let pixels = buffer.map_readable().unwrap().to_vec();
            let file = memfd_create(c"picture", MFdFlags::MFD_CLOEXEC).unwrap();
            nix::unistd::write(&file, &pixels).unwrap();
            // SAFETY: a descriptor of its own, of that size, which the memory closes.
            let memory = unsafe { allocator.alloc_dmabuf(file.into_raw_fd(), pixels.len()) }.unwrap();
            let buffer = buffer.make_mut();
            buffer.remove_all_memory();
            buffer.append_memory(memory);
        }
        gst::PadProbeReturn::Ok
    });
    source
}

/// A camera that tells its formats and sizes only when it runs.
fn telling_nothing(text: &str) -> Source {
    let silent = stand_in(text);
    silent.pad.add_probe(gst::PadProbeType::QUERY_BOTH, |_, info| {
        if let Some(gst::QueryViewMut::Caps(q)) = info.query_mut().map(gst::QueryRef::view_mut) {
            q.set_result(&gst::Caps::new_empty_simple("video/x-raw"));
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
    silent
}

fn asked(size: Option<(u32, u32)>, fps: Option<u32>) -> RawOptions {
    RawOptions { size, fps, ..RawOptions::default() }
}

#[test]
fn every_kind_of_stream_delivers() {
    let scene = "videotestsrc is-live=true";
    let size = "width=320,height=240,framerate=30/1";
    let raw = format!("{scene} ! video/x-raw,format=YUY2,{size} ! identity");
    let jpeg = format!("{scene} ! video/x-raw,{size} ! jpegenc ! capsfilter caps=image/jpeg,{size}");
    let coded = format!(
        "{scene} ! video/x-raw,{size} ! x264enc tune=zerolatency key-int-max=10 ! \
         capsfilter caps=video/x-h264,stream-format=byte-stream,{size}"
    );
    let machine = machine(&Generic, false);
    for (text, memory) in [(raw, Some(Memory::System)), (jpeg, Some(Memory::System)), (coded, None)] {
        let rig = rig(&machine);
        let running = rig.start(&text, &text, &asked(None, Some(30))).unwrap();
        let units = rig.units(5);
        assert_eq!(units[0].kind, FrameKind::Idr);
        assert!(units.windows(2).all(|w| w[0].pts < w[1].pts));
        assert!(units.iter().all(|u| u.pts.unwrap() <= u.arrival));
        assert_eq!(rig.memory(), memory, "{text}");
        drop(running);
    }
}

#[test]
fn pictures_in_dmabufs_are_announced_behind_the_contract_and_reach_an_encoder_of_plain_caps() {
    let rig = rig(&machine(&Accelerated, true));
    let running = rig.run("a", in_dmabufs(NV12), &asked(Some((320, 240)), None)).unwrap();
    assert_eq!(rig.units(5)[0].kind, FrameKind::Idr);
    assert_eq!(rig.memory(), Some(Memory::Dmabuf));
    let caps_of = |name: &str, pad: &str| {
        let element: gst::Element = common::named(running.pipeline(), name).unwrap();
        element.static_pad(pad).unwrap().current_caps().unwrap().to_string()
    };
    let raw = caps_of("raw", "sink");
    assert!(raw.starts_with("video/x-raw(memory:DMABuf)"), "{raw}");
    let encoded = caps_of(leaks::QUEUE, "src");
    assert!(encoded.starts_with("video/x-raw, ") && encoded.contains("format=(string)NV12"), "{encoded}");
}

#[test]
fn production_takes_no_picture_in_cpu_memory() {
    let software = rig(&machine(&Generic, true));
    let why = software.start("a", NV12, &RawOptions::default()).err().unwrap().to_string();
    assert!(why.contains("x264enc works on the CPU, and production = true takes"), "{why}");
    // Only the pictures themselves show where they are.
    let pictures = rig(&machine(&Accelerated, true));
    let _running = pictures.start("a", NV12, &RawOptions::default());
    let why = pictures.end().to_string();
    assert!(why.contains("its pictures come in CPU memory, and production = true takes"), "{why}");
    assert_eq!(pictures.memory(), None);

    let allowed = rig(&machine(&Accelerated, false));
    let _running = allowed.start("a", NV12, &RawOptions::default()).unwrap();
    allowed.units(2);
    assert_eq!(allowed.memory(), Some(Memory::System));
}

#[test]
fn one_picture_in_cpu_memory_costs_itself_and_many_cost_the_source() {
    let options = asked(Some((320, 240)), None);
    let lens = rig(&machine(&Accelerated, true));
    let running = lens.run("a", in_dmabufs_but(NV12, |number| number % 10 == 5), &options).unwrap();
    lens.units(40);
    assert_eq!(lens.memory(), Some(Memory::Dmabuf));
    assert!(lens.left_out.load(Ordering::Relaxed) >= 4, "each is told");
    drop(running);

    let lens = rig(&machine(&Accelerated, true));
    let _running = lens.run("a", in_dmabufs_but(NV12, |number| number >= 10), &options).unwrap();
    let why = lens.end().to_string();
    assert!(why.contains("its pictures come in CPU memory, and production = true takes"), "{why}");
}

#[test]
fn a_camera_that_hurries_is_coded_at_the_rate_that_was_asked_for() {
    let lens = rig(&machine(&Generic, false));
    let fast = NV12.replace("30/1", "60/1");
    let _running = lens.start("a", &fast, &asked(Some((320, 240)), Some(30))).unwrap();
    let times: Vec<i64> = lens.units(60).iter().map(|unit| unit.pts.unwrap().0).collect();
    // What is judged first are the first pictures.
    let steps: Vec<i64> = times[12..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(steps.iter().all(|step| *step > 30_000_000), "{steps:?}");
}

#[test]
fn limits_of_the_encoder_are_kept_beforehand_and_by_what_really_comes() {
    let machine = machine(&Accelerated, false);
    let large = "videotestsrc is-live=true ! video/x-raw,format=NV12,width=800,height=600,framerate=30/1 ! identity";
    let lens = rig(&machine);
    let why = lens.start("a", large, &asked(Some((800, 600)), None)).err().unwrap().to_string();
    assert!(why.ends_with("x264enc takes pictures from 64x64 to 640x480, not 800x600"), "{why}");
    let options = RawOptions { bitrate: Some(50_000), ..RawOptions::default() };
    let why = lens.start("a", NV12, &options).err().unwrap().to_string();
    assert!(why.ends_with("x264enc takes bit rates from 100000 to 1000000 bit/s, not 50000"), "{why}");

    // A camera that tells its size only when it runs.
    let silent = telling_nothing(large);
    let _running = lens.run("a", silent, &RawOptions { bitrate: Some(500_000), ..RawOptions::default() }).unwrap();
    let why = lens.end().to_string();
    assert!(why.ends_with("not 800x600"), "{why}");
}

#[test]
fn a_camera_that_turns_out_to_give_no_nv12_is_opened_again_without_asking_for_it() {
    let machine = machine(&Accelerated, false);
    let yuyv = NV12.replace("NV12", "YUY2");
    let attempt = || {
        let rig = rig(&machine);
        let running =
            rig.run("a", telling_nothing(&yuyv), &RawOptions { bitrate: Some(500_000), ..RawOptions::default() });
        (running, rig)
    };
    let (first, rig) = attempt();
    let why = rig.end();
    assert!(matches!(why, SourceError::Unsupported { .. }), "{why}");
    drop(first);
    for _ in 0..2 {
        let (running, rig) = attempt();
        rig.units(2);
        assert_eq!(rig.memory(), Some(Memory::System), "the CPU converts here");
        drop(running);
    }
}

#[test]
fn lenses_share_the_encoder() {
    let machine = machine(&Accelerated, false);
    let options = asked(Some((320, 240)), Some(30));
    let lenses = [rig(&machine), rig(&machine), rig(&machine)];
    let first = lenses[0].start("a", NV12, &options).unwrap();
    let _second = lenses[1].start("b", NV12, &options).unwrap();
    let why = lenses[2].start("c", NV12, &options).err().unwrap();
    assert!(
        matches!(&why, SourceError::Exhausted { detail, .. } if detail.contains("the encoder of accelerated")),
        "{why}"
    );
    drop(first);
    let _third = lenses[2].start("c", NV12, &options).unwrap();
    lenses[2].units(1);
}

#[test]
fn a_lens_that_gives_way_makes_room_for_another_without_a_pause() {
    let machine = machine(&Accelerated, false);
    let options = asked(Some((320, 240)), Some(30));
    let lenses = [rig(&machine), rig(&machine), rig(&machine)];
    let _first = lenses[0].start("a", NV12, &options).unwrap();
    let _second = lenses[1].start("b", NV12, &options).unwrap();
    lenses[0].units(2);
    lenses[1].units(2);
    let times = |units: Vec<AccessUnit>| units.iter().map(|unit| unit.pts.unwrap().0).collect::<Vec<_>>();
    // A third one that begins with half of its pictures fits beside two that give way.
    for lens in &lenses {
        lens.one_in.store(2, Ordering::Relaxed);
    }
    let changed = SystemClock::new().unwrap().mono();
    for lens in &lenses[..2] {
        let slow = |pair: &[i64]| pair[1] - pair[0] > 50_000_000;
        while lens.units(1)[0].pts.unwrap().since(changed) < 500_000_000 {}
        let units = lens.units(31);
        // Half of the pictures of a second.
        let keys: Vec<usize> = (0..units.len()).filter(|at| units[*at].kind == FrameKind::Idr).collect();
        assert!(keys.len() >= 2 && keys.windows(2).all(|k| k[1] - k[0] <= 15), "{keys:?}");
        assert!(times(units).windows(2).all(slow));
    }
    await_room(&machine, 320 * 240 * 15);
    let third = lenses[2].start("c", NV12, &options).unwrap();
    lenses[2].units(2);
    // The first comes back and takes all that is left; the second would, too, and it is told that it cannot.
    lenses[0].until_coded(2, 2);
    lenses[0].one_in.store(1, Ordering::Relaxed);
    lenses[0].until_coded(1, 1);
    lenses[1].one_in.store(1, Ordering::Relaxed);
    lenses[1].until_coded(2, 1);
    let units = lenses[1].units(31);
    assert!(times(units).windows(2).all(|pair| pair[1] - pair[0] > 50_000_000));
    drop(third);
    lenses[1].until_coded(1, 1);
}

#[test]
fn what_can_never_fit_is_refused_and_what_fits_alone_with_half_of_its_pictures_has_them() {
    let machine = machine(&Accelerated, false);
    let text = NV12.replace("30/1", "90/1").replace("240", "256");
    // 2.1 times what the encoder takes in all, and nobody else is there.
    let never = NV12.replace("30/1", "120/1").replace("240", "256");
    let lens = rig(&machine);
    let why = lens.start("a", &never, &asked(Some((320, 256)), Some(120))).err().unwrap();
    let detail = match &why {
        SourceError::Unsupported { detail, .. } => detail,
        other => panic!("{other}"),
    };
    assert!(detail.contains("even with half of the pictures"), "{detail}");
    assert!(lens.shares.try_recv().is_err());
    let lens = rig(&machine);
    let _running = lens.start("a", &text, &asked(Some((320, 256)), Some(90))).unwrap();
    lens.until_coded(2, 1);
    lens.units(2);
    // One that tells its size only when it runs is no exception.
    let lens = rig(&machine);
    let options = RawOptions { bitrate: Some(500_000), fps: Some(120), ..RawOptions::default() };
    let _running = lens.run("b", telling_nothing(&never), &options).unwrap();
    let why = lens.end();
    assert!(matches!(&why, SourceError::Unsupported { .. }), "{why}");
}

#[test]
fn a_lens_whose_size_shows_only_when_it_runs_keeps_its_part_in_the_book() {
    let machine = machine(&Accelerated, false);
    let options = RawOptions { bitrate: Some(500_000), fps: Some(30), ..RawOptions::default() };
    let lenses = [rig(&machine), rig(&machine), rig(&machine)];
    let _first = lenses[0].run("a", telling_nothing(NV12), &options).unwrap();
    lenses[0].until_coded(1, 1);
    lenses[0].one_in.store(2, Ordering::Relaxed);
    lenses[0].until_coded(2, 2);
    // It gave its half back, and gets no more than is left of it.
    let known = asked(Some((320, 240)), Some(30));
    let _second = lenses[1].start("b", NV12, &known).unwrap();
    lenses[2].one_in.store(2, Ordering::Relaxed);
    await_room(&machine, 320 * 240 * 15);
    let third = lenses[2].start("c", NV12, &known).unwrap();
    lenses[0].one_in.store(1, Ordering::Relaxed);
    lenses[0].until_coded(2, 1);
    drop(third);
    lenses[0].until_coded(1, 1);
}

#[test]
fn a_keyframe_comes_when_it_is_asked_for() {
    let rig = rig(&machine(&Accelerated, false));
    let running = rig.run("a", in_dmabufs(NV12), &asked(None, Some(30))).unwrap();
    rig.units(2);
    let mut group = 2;
    // One that is asked for just when one would come by itself, as on a busy machine, is not to be told from that.
    let early = (0..4).any(|_| {
        assert!(running.request_keyframe());
        (0..40).any(|_| {
            let key = rig.units(1)[0].kind == FrameKind::Idr;
            let length = group;
            group = if key { 1 } else { group + 1 };
            key && length < 30
        })
    });
    assert!(early, "no keyframe but each thirtieth picture");
}

/// What fails on the opening thread.
#[test]
fn lenses_that_are_not_to_be_had_say_why() {
    let ended = |text: &str, machine: &Arc<Machine>| {
        let (sender, arrived) = mpsc::channel();
        let spec = SourceSpec::parse(text).unwrap();
        let clock = Arc::new(SystemClock::new().unwrap());
        let _camera =
            open(&spec, machine, clock, Arc::new(Forward(sender, Arc::default(), Arc::default(), mpsc::channel().0)))
                .unwrap();
        arrived.recv_timeout(Duration::from_mins(1)).unwrap().unwrap_err()
    };
    let machine = machine(&Accelerated, false);
    let why = ended("board:road", &machine);
    assert!(
        matches!(&why, SourceError::Absent { detail, .. } if detail.starts_with("the device tree at /none describes no lens")),
        "{why}"
    );
    let why = ended("v4l2:/dev/video-none", &machine);
    assert!(matches!(why, SourceError::Absent { .. }), "{why}");
    let _claim = machine.take("v4l2:/dev/video7").unwrap();
    let why = ended("v4l2:/dev/video7", &machine);
    assert!(matches!(&why, SourceError::Refused { detail, .. } if detail.contains("in use by another lens")), "{why}");
}
