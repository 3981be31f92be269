//! Real pipelines, a real socket, a reader of the bus.
#![allow(clippy::unwrap_used)]

use std::sync::mpsc;
use std::time::{Duration, Instant};

use mos_frame::{Received, Subscriber, Wish};

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::source::{LensSource, SourceSpec};

const LONG: Option<Duration> = Some(Duration::from_mins(2));

/// Counts the units that reach the recorder.
struct Recorder(mpsc::Sender<()>);

impl UnitSink for Recorder {
    fn unit(&self, _: AccessUnit) {
        let _ = self.0.send(());
    }
    fn ended(&self, why: SourceError) {
        panic!("{why}");
    }
}

/// Hides the bus from the source, as if the camera coded by itself.
struct Coding(Arc<dyn UnitSink>);

impl UnitSink for Coding {
    fn unit(&self, unit: AccessUnit) {
        self.0.unit(unit);
    }
    fn ended(&self, why: SourceError) {
        self.0.ended(why);
    }
}

struct Rig {
    _folder: tempfile::TempDir,
    frames: Arc<LensFrames>,
    source: Box<dyn LensSource>,
    units: mpsc::Receiver<()>,
    subscriber: Subscriber,
}

/// Looks with each unit that reaches the recorder whether something is so, for as long as anything may take here.
fn until(units: &mpsc::Receiver<()>, what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LONG.unwrap(), "waited in vain for {what}");
        units.recv_timeout(LONG.unwrap()).unwrap_or_else(|_| panic!("no unit came while waiting for {what}"));
    }
}

/// The same where nothing comes by itself.
fn spin_until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LONG.unwrap(), "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// A source whose frames are shared, or decoded from what it codes, and a reader.
fn rig(source: &str, share: bool) -> Rig {
    rig_within(source, share, &Arc::default())
}

fn rig_within(source: &str, share: bool, all: &Arc<Budget>) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("road.sock");
    let frames = LensFrames::open(Settings::new(socket.clone()), all).unwrap();
    let platform = crate::platform::probe();
    let (tell, units) = mpsc::channel();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new().unwrap());
    let sink = frames.beside(platform.as_ref(), Arc::new(Recorder(tell)));
    let sink = if share { sink } else { Arc::new(Coding(sink)) };
    let source = platform.open(&SourceSpec::parse(source).unwrap(), false, clock, sink).unwrap();
    let subscriber = Subscriber::connect(&socket, Wish::default()).unwrap();
    Rig { _folder: folder, frames, source, units, subscriber }
}

/// Takes frames and judges them; gives their capture times.
fn take(rig: &mut Rig, count: usize) -> Vec<u64> {
    let mut times = Vec::new();
    let mut luma = Vec::new();
    while times.len() < count {
        let received = rig.subscriber.next(LONG).unwrap().expect("a frame in two minutes");
        let Received::Frame(frame) = received else { continue };
        let picture = frame.picture();
        assert_eq!((picture.width, picture.height, picture.fourcc.to_string()), (320, 240, "YU12".to_owned()));
        if rig.subscriber.copy_plane(&frame, 0, &mut luma).unwrap() {
            let mean = luma.iter().map(|byte| u64::from(*byte)).sum::<u64>() / luma.len() as u64;
            assert!((16..235).contains(&mean) && luma.iter().any(|byte| *byte != luma[0]), "a picture, not {mean}");
            assert!(frame.captured() <= mos_frame::sys::monotonic());
            times.push(frame.captured());
        }
        rig.subscriber.release(frame).unwrap();
    }
    assert!(times.is_sorted());
    times
}

#[test]
fn frames_of_a_painted_lens_are_published() {
    let mut rig = rig("test:?width=320&height=240&fps=25", true);
    let times = take(&mut rig, 20);
    // The time of a frame of the scene is its number in frames.
    assert!(times.iter().all(|time| time % 40_000_000 == 0), "{times:?}");
    assert!(rig.units.try_iter().count() > 0, "and it is recorded");
    let totals = rig.frames.totals();
    assert!(totals.copied >= 20 && totals.unreadable == 0, "{totals:?}");
}

#[test]
fn a_coded_lens_is_decoded_only_while_somebody_subscribes() {
    let all = Arc::new(Budget::new(Some(u64::MAX)));
    let mut rig = rig_within("test:?width=320&height=240&fps=25&gop=10", false, &all);
    take(&mut rig, 20);
    assert!(rig.units.try_iter().count() > 0, "and it is recorded");
    assert!(all.claimed() > 0);
    let Rig { _folder, frames, source, units, subscriber } = rig;
    drop(subscriber);
    until(&units, "the bus to notice that its reader is gone", || !frames.publisher.wanted());
    // Only this test and its sink know it then, weakly.
    until(&units, "the decoder's thread to let go of the lens", || Arc::strong_count(&frames) == 1);
    assert_eq!(all.claimed(), 0, "what it moved is for others again");
    drop(source);
}

/// A lens that was refused for want of room is not counted as such when nobody reads it any more, and has its pictures when
/// there is room.
#[test]
fn a_refused_lens_that_is_decoded_starts_when_there_is_room() {
    let all = Arc::new(Budget::new(Some(100 << 20)));
    assert!(all.claim(100 << 20));
    let mut rig = rig_within("test:?width=320&height=240&fps=25&gop=10", false, &all);
    until(&rig.units, "the refusal of a lens for want of room", || rig.frames.denied());
    let socket = rig.frames.socket().to_owned();
    drop(rig.subscriber);
    until(&rig.units, "a lens that nobody reads to count as refused no more", || !rig.frames.denied());
    rig.subscriber = Subscriber::connect(&socket, Wish::default()).unwrap();
    until(&rig.units, "its refusal when it is read again", || rig.frames.denied());
    all.release(100 << 20);
    take(&mut rig, 5);
}

/// What an earlier opening still delivers claims nothing.
#[test]
fn only_the_present_opening_has_a_claim() {
    let folder = tempfile::tempdir().unwrap();
    let all = Arc::new(Budget::new(None));
    let frames = LensFrames::open(Settings::new(folder.path().join("road.sock")), &all).unwrap();
    let before = frames.feed();
    assert!(frames.admitted(&mut frames.kept(), 7));
    frames.renew();
    assert_eq!((all.claimed(), frames.claimed()), (0, 0));
    assert!(frames.admitted(&mut frames.kept(), 5));
    frames.forget_of(before);
    frames.release_of(before);
    assert_eq!(all.claimed(), 5, "an earlier opening gives back nothing of a later one's");
    drop(frames);
    assert_eq!(all.claimed(), 0);
}

/// Pictures that lie in dmabufs by their type go out as they are: the reader gets the very same memory.
#[test]
fn buffers_of_a_camera_are_passed_on_and_come_back() {
    use gstreamer_allocators::{DmaBufAllocator, DmaBufAllocatorExtManual as _};

    crate::gst::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("road.sock");
    let frames = LensFrames::open(Settings::new(socket.clone()), &Arc::default()).unwrap();
    let pipeline = crate::gst::build("appsrc name=camera format=time ! fakesink name=sink sync=false").unwrap();
    let camera: gstreamer_app::AppSrc = crate::gst::named(&pipeline, "camera").unwrap();
    camera.set_caps(Some(&"video/x-raw,format=NV12,width=64,height=64,framerate=25/1".parse().unwrap()));
    frames.tap(&camera.static_pad("src").unwrap());
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut subscriber = Subscriber::connect(&socket, Wish::default()).unwrap();
    spin_until("the bus to notice its reader", || frames.publisher.wanted());
    let allocator = DmaBufAllocator::new();
    // Luma and chroma in memories of their own, as many drivers have them.
    let pool: Vec<[std::os::fd::OwnedFd; 2]> = (0..3)
        .map(|number: u8| {
            [4096, 2048].map(|size| {
                let fd = mos_frame::sys::memory("camera", size).unwrap();
                let map = mos_frame::sys::Mapping::new(fd.as_fd(), size as usize, true).unwrap();
                // SAFETY: the mapping is that long, and nobody else has it yet.
                unsafe { std::ptr::write_bytes(map.start(), 50 + number, map.len()) };
                fd
            })
        })
        .collect();
    for number in 0..30u8 {
        let fds = &pool[usize::from(number % 3)];
        let mut buffer = gst::Buffer::new();
        for (fd, size) in fds.iter().zip([4096, 2048]) {
            // SAFETY: a descriptor of its own, of that size, which the memory closes.
            let memory = unsafe { allocator.alloc_dmabuf(fd.try_clone().unwrap(), size) }.unwrap();
            buffer.get_mut().unwrap().append_memory(memory);
        }
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(u64::from(number)));
        camera.push_buffer(buffer).unwrap();
        let Some(Received::Frame(frame)) = subscriber.next(LONG).unwrap() else { panic!("a frame") };
        assert!(subscriber.is_dmabuf(&frame) && subscriber.is_intact(&frame));
        let seen: Vec<(u32, u64)> = frame.picture().planes.iter().map(|plane| (plane.memory, plane.offset)).collect();
        assert_eq!((seen, frame.captured()), (vec![(0, 0), (1, 0)], u64::from(number) * 1_000_000));
        for (ours, theirs) in fds.iter().zip(subscriber.descriptors(&frame)) {
            let inode = |fd: &std::os::fd::OwnedFd| nix::sys::stat::fstat(fd).unwrap().st_ino;
            assert_eq!(inode(ours), inode(theirs));
        }
        let chroma = subscriber.plane(&frame, 1).unwrap();
        // SAFETY: mapped as long as the subscriber lives; nobody writes.
        assert_eq!(unsafe { (chroma.len(), chroma.cast::<u8>().read()) }, (2048, 50 + number % 3));
        subscriber.release(frame).unwrap();
        // Returned leases are collected now and then; frames faster than that would revoke what was returned already.
        spin_until("a frame to be given back", || frames.reports().iter().all(|reader| reader.leased == 0));
    }
    let totals = frames.totals();
    assert_eq!((totals.copied, totals.delivered, totals.revoked), (0, 30, 0));
    crate::gst::stop(pipeline);
}

#[test]
fn pools_are_asked_for_what_the_bus_may_hold() {
    crate::gst::init().unwrap();
    let caps: gst::Caps = "video/x-raw,format=NV12,width=64,height=64".parse().unwrap();
    let mut query = gst::query::Allocation::new(Some(&caps), true);
    query.add_allocation_pool(None::<&gst::BufferPool>, 6144, 2, 0);
    query.add_allocation_pool(None::<&gst::BufferPool>, 6144, 1, 3);
    ask_for(query.get_mut().unwrap(), 4);
    let pools: Vec<_> = query.allocation_pools().map(|(_, size, min, max)| (size, min, max)).collect();
    assert_eq!(pools, [(6144, 6, 0), (6144, 5, 7)]);
}

/// The next frame, over connections that end because buffers change; how often they did.
fn next_of(socket: &std::path::Path, subscriber: &mut Subscriber) -> (mos_frame::ReceivedFrame, u32) {
    let mut changes = 0;
    loop {
        match subscriber.next(LONG) {
            Ok(Some(Received::Frame(frame))) => return (frame, changes),
            Ok(Some(Received::Revoked(_))) => {}
            Ok(None) => panic!("a frame in two minutes"),
            Err(mos_frame::SubscribeError::Goodbye(mos_frame::wire::Farewell::Reconfigured)) => {
                changes += 1;
                *subscriber = connected(socket);
            }
            Err(why) => panic!("{why}"),
        }
    }
}

/// A connection; while a lens begins anew its buffers may change once more at that very moment.
fn connected(socket: &std::path::Path) -> Subscriber {
    loop {
        match Subscriber::connect(socket, Wish::default()) {
            Ok(subscriber) => return subscriber,
            Err(mos_frame::SubscribeError::Goodbye(mos_frame::wire::Farewell::Reconfigured)) => {}
            Err(why) => panic!("{why}"),
        }
    }
}

/// R1, R2 and R3, with both sides in one process: the lens is opened twice, its socket stays.
#[test]
fn r3_a_lens_of_another_process_comes_and_goes_while_readers_keep_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("road.sock");
    let frames = LensFrames::open(Settings::new(socket.clone()), &Arc::default()).unwrap();
    let platform = crate::platform::probe();
    let mut subscriber = Subscriber::connect(&socket, Wish::default()).unwrap();
    let mut last = 0;
    for opening in 0..2 {
        frames.renew();
        let relay = Relay::start(&frames).unwrap();
        let there = LensFrames::open_behind(socket_behind(&socket), frames.budget() as usize).unwrap();
        let (tell, _units) = mpsc::channel();
        let sink = there.beside(platform.as_ref(), Arc::new(Recorder(tell)));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new().unwrap());
        let scene = SourceSpec::parse("test:?width=320&height=240&fps=25").unwrap();
        let source = platform.open(&scene, false, clock, sink).unwrap();
        let mut luma = Vec::new();
        if opening > 0 {
            // What is still on its way is of the opening before.
            loop {
                match subscriber.next(LONG) {
                    Ok(Some(_)) => {}
                    Err(mos_frame::SubscribeError::Goodbye(mos_frame::wire::Farewell::Reconfigured)) => break,
                    other => panic!("{other:?}"),
                }
            }
            subscriber = connected(&socket);
        }
        for _ in 0..30 {
            let (frame, changes) = next_of(&socket, &mut subscriber);
            assert_eq!(changes, 0, "only the end of an opening changes buffers");
            assert!(frame.sequence() > last, "{} after {last}", frame.sequence());
            last = frame.sequence();
            assert!(frame.captured() <= mos_frame::sys::monotonic());
            if subscriber.copy_plane(&frame, 0, &mut luma).unwrap() {
                assert!(luma.iter().any(|byte| *byte != luma[0]), "a picture");
            }
            subscriber.release(frame).unwrap();
        }
        let lent = there.totals();
        assert_eq!(lent.revoked, 0, "nothing that is lent on is taken back: {lent:?}");
        drop((source, there, relay));
    }
    drop(subscriber);
    spin_until("the bus to notice that its reader is gone", || !frames.publisher.wanted());
    assert!(frames.totals().delivered >= 60);
}

/// Frames that are refused for want of room go back at once: the other process has but a few to lend.
#[test]
fn r2_refused_frames_of_another_process_go_back_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("road.sock");
    let all = Arc::new(Budget::new(Some(100 << 20)));
    assert!(all.claim(100 << 20));
    let frames = LensFrames::open(Settings::new(socket.clone()), &all).unwrap();
    let subscriber = Subscriber::connect(&socket, Wish::default()).unwrap();
    frames.renew();
    let relay = Relay::start(&frames).unwrap();
    let there = LensFrames::open_behind(socket_behind(&socket), frames.budget() as usize).unwrap();
    let (tell, units) = mpsc::channel();
    let platform = crate::platform::probe();
    let sink = there.beside(platform.as_ref(), Arc::new(Recorder(tell)));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new().unwrap());
    let scene = SourceSpec::parse("test:?width=320&height=240&fps=25").unwrap();
    let source = platform.open(&scene, false, clock, sink).unwrap();
    // More than the other process lends.
    until(&units, "more frames than the other process lends", || there.totals().delivered >= 20);
    assert!(frames.denied() && frames.moved() == 0);
    all.release(100 << 20);
    // R1: nobody subscribes, so a second later nothing is asked for; but half a second later a reader might be back. A busy machine
    // may hold up relay or test: of several readers that go it is right with one.
    let (mut reader, mut asked_for) = (Some(subscriber), Vec::new());
    let held = 0.4..1.2;
    while !asked_for.last().is_some_and(|seconds| held.contains(seconds)) {
        assert!(asked_for.len() < 5, "frames are asked for so many seconds after the last reader went: {asked_for:?}");
        let mut subscriber = reader.take().unwrap_or_else(|| connected(&socket));
        let (frame, _) = next_of(&socket, &mut subscriber);
        subscriber.release(frame).unwrap();
        drop(subscriber);
        let gone = Instant::now();
        while there.publisher.wanted() {
            assert!(gone.elapsed() < LONG.unwrap(), "nobody subscribes, and frames are asked for");
            std::thread::sleep(Duration::from_millis(5));
        }
        asked_for.push(gone.elapsed().as_secs_f64());
    }
    drop((source, there, relay));
}

/// R4: what could shrink below a mapping is refused.
#[test]
fn r4_only_memory_that_cannot_shrink_is_taken() {
    use mos_frame::sys::{is_lasting, memory};
    use nix::sys::memfd::{MFdFlags, memfd_create};

    let sealed = memory("sealed", 4096).unwrap();
    assert!(is_lasting(sealed.as_fd()));
    let open = memfd_create(c"open", MFdFlags::MFD_CLOEXEC).unwrap();
    assert!(!is_lasting(open.as_fd()));
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(!is_lasting(file.as_file().as_fd()));
    // Nobody can map it through this descriptor.
    let blind = std::fs::OpenOptions::new().write(true).open(file.path()).unwrap();
    assert!(is_lasting(blind.as_fd()));
}

#[test]
fn r2_books_behind_have_room_for_all_that_is_lent_on() {
    for budget in 0..=16 {
        let settings = relay::behind("/none".into(), budget);
        // One waits and one is new beside all leases; see the ledger's L2.
        let leases = settings.max_leases as usize;
        assert!(settings.copy_budget >= leases + 2 && leases > budget.min(relay::MOST_LENT));
        assert!(budget == 0 || settings.lease_budget >= leases + 2);
    }
}

#[test]
fn what_is_lent_follows_the_pool_that_is_really_there() {
    assert_eq!([1, 4, 5, 12].map(lendable), [1, 1, 2, 9]);
}
