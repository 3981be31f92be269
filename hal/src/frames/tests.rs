//! Real pipelines, a real socket, a reader of the bus.
#![allow(clippy::unwrap_used)]

use std::sync::mpsc;
use std::time::Duration;

use mos_frame::{Received, Subscriber, Wish};

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::source::{LensSource, SourceSpec};

const LONG: Option<Duration> = Some(Duration::from_secs(30));

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

struct Rig {
    _folder: tempfile::TempDir,
    frames: Arc<LensFrames>,
    source: Box<dyn LensSource>,
    units: mpsc::Receiver<()>,
    subscriber: Subscriber,
}

/// A source whose frames are shared, or decoded from what it codes, and a reader.
fn rig(source: &str, share: bool) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("road.sock");
    let frames = LensFrames::open(Settings::new(socket.clone())).unwrap();
    let platform = crate::platform::probe();
    let (tell, units) = mpsc::channel();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new().unwrap());
    let sink = frames.beside(platform.as_ref(), Arc::new(Recorder(tell)));
    let source = platform.open(&SourceSpec::parse(source).unwrap(), false, clock, sink).unwrap();
    if share {
        assert!(source.share(&frames));
    }
    let subscriber = Subscriber::connect(&socket, Wish::default()).unwrap();
    Rig { _folder: folder, frames, source, units, subscriber }
}

/// Takes frames and judges them; gives their capture times.
fn take(rig: &mut Rig, count: usize) -> Vec<u64> {
    let mut times = Vec::new();
    let mut luma = Vec::new();
    while times.len() < count {
        let received = rig.subscriber.next(LONG).unwrap().expect("a frame in 30 s");
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
    // Not shared: as if the camera coded by itself.
    let mut rig = rig("test:?width=320&height=240&fps=25&gop=10", false);
    take(&mut rig, 20);
    assert!(rig.units.try_iter().count() > 0, "and it is recorded");
    let Rig { _folder, frames, source, units, subscriber } = rig;
    drop(subscriber);
    while frames.publisher.wanted() {
        units.recv_timeout(LONG.unwrap()).unwrap();
    }
    // The decoder's thread has let go of the lens: only this test and its sink know it, weakly.
    while Arc::strong_count(&frames) > 1 {
        units.recv_timeout(LONG.unwrap()).unwrap();
    }
    drop(source);
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
