//! A receiver that GStreamer's threads deliver to.
//!
//! Promises what [`Receiver`] promises, from any thread, and that what the opening of a session holds leaves at the latest when no
//! other unit has come for [`PROBE`] (O3). A unit without a time goes as it came; the recorder finds one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::opening::{PROBE, Raw};
use super::outlet::Outlet;
use super::receiver::Receiver;
use crate::clock::Mono;
use crate::media::AccessUnit;

/// The way of one session's units.
pub(super) struct Received {
    outlet: Arc<Outlet>,
    receiver: Mutex<Receiver>,
}

impl Received {
    /// Of a session that was opened at `opened`.
    pub(super) fn new(outlet: &Arc<Outlet>, opened: Mono) -> Arc<Self> {
        let receiver = Mutex::new(Receiver::new(outlet, opened));
        Arc::new(Self { outlet: Arc::clone(outlet), receiver })
    }

    fn lock(&self) -> MutexGuard<'_, Receiver> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a unit on, or holds it; its time is that of the stream's own clock.
    pub(super) fn unit(self: &Arc<Self>, track: usize, mut unit: AccessUnit) {
        let Some(Mono(media)) = unit.pts.take() else {
            self.settle();
            self.outlet.unit(unit);
            return;
        };
        let held = {
            let mut receiver = self.lock();
            receiver.pass(Raw { track, media, unit });
            receiver.held()
        };
        if held == 0 {
            return;
        }
        let this = Arc::downgrade(self);
        let clock = gst::SystemClock::obtain();
        let probe = gst::ClockTime::from_nseconds(PROBE.as_nanos() as u64);
        let _ = clock.new_single_shot_id(clock.time() + probe).wait_async(move |_, _, _| {
            let Some(this) = this.upgrade() else { return };
            let mut receiver = this.lock();
            if receiver.held() == held {
                receiver.settle();
            }
        });
    }

    /// The opening is over.
    pub(super) fn settle(&self) {
        self.lock().settle();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::clock::SystemClock;
    use crate::media::FrameKind;
    use crate::source::{SourceError, UnitSink};
    use crate::sources::opening::tests::unit;

    struct Recorder(mpsc::Sender<AccessUnit>);

    impl UnitSink for Recorder {
        fn unit(&self, unit: AccessUnit) {
            let _ = self.0.send(unit);
        }
        fn ended(&self, _: SourceError) {}
    }

    /// A camera that sends one picture and then none for long, as at night: the picture is not kept back until the next.
    #[test]
    fn o3_a_single_picture_is_not_held() {
        crate::gst::init().unwrap();
        let (tell, units) = mpsc::channel();
        let clock = Arc::new(SystemClock::new().unwrap());
        let outlet = Outlet::new("rtsp://h/s".into(), clock, Arc::new(Recorder(tell)));
        let arrival = outlet.clock.mono();
        let received = Received::new(&outlet, arrival);
        received.unit(0, unit(FrameKind::Idr, Some(Mono(0)), arrival));
        assert!(units.recv_timeout(Duration::from_secs(30)).unwrap().pts.is_some());
        assert!(received.lock().is_settled());
    }
}
