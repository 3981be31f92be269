//! A network camera whose cable is pulled: nothing refuses, nothing ends, packets just stop. With the real recorder and archive.

use tokio::sync::broadcast::error::TryRecvError;

use super::*;
use crate::archive::disk::RealDisk;
use crate::archive::{Archive, ArchiveOptions, Window};
use crate::record::{Recorder, RecorderOptions};

/// The bound of K6.
const BOUND: i64 = 10_000_000_000;

/// When it was told how, in nanoseconds after the last picture.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    event: Option<i64>,
    status: Option<i64>,
    gap: Option<i64>,
}

/// `phase` in tenths of a second between the recorder's tick, the service's look and the last picture.
fn pulled(phase: u32) -> Told {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(SimClock::new(BootId([3; 16]), UtcMicros(1_795_168_800_000_000)));
    let as_clock: Arc<dyn Clock> = clock.clone();
    let disk = Arc::new(RealDisk::open(folder.path()).unwrap());
    let options = ArchiveOptions { sync_threads: 0, ..ArchiveOptions::default() };
    let archive = Archive::open(disk, as_clock.clone(), &options).unwrap();
    archive.load().unwrap();
    let lens = LensId::new("road").unwrap();
    let ids = std::slice::from_ref(&lens);
    let recorder = Recorder::new(archive.clone(), as_clock.clone(), &RecorderOptions::default(), ids);
    let source = SourceSpec::parse("rtsp://192.0.2.1/a").unwrap();
    let name = source.to_string();
    let platform = Arc::new(Scripted::default());
    let config = LensConfig { id: lens.clone(), source, audio: false, frames: None, isolation: Isolation::None };
    let lenses = vec![(config, recorder.intake(&lens).unwrap())];
    let service = CaptureControlService::new(platform.clone(), None, &as_clock, lenses, DropMode::InPlace);
    let (_, mut news) = service.follow();
    service.step();
    let format = crate::record::testing::video_format(0);
    let pull = 120 + phase;
    let (mut last, mut told) = (Mono(0), Told::default());
    for tick in 0..pull + 150 {
        clock.advance(Duration::from_millis(100));
        let now = clock.mono();
        if tick <= pull {
            let sink = lock(&platform.open)[&name].clone();
            sink.unit(crate::record::testing::unit_at(&format, Some(now.0), now.0, FrameKind::Idr));
            last = now;
        }
        if tick % 5 == 0 {
            service.step();
        }
        if tick % 5 == phase % 5 {
            recorder.step();
        }
        let after = now.since(last);
        loop {
            match news.try_recv() {
                Ok(News::Lens(change)) if tick > pull && change.to != CaptureState::Stalled => {
                    told.event.get_or_insert(after);
                }
                Ok(_) => {}
                Err(TryRecvError::Empty) => break,
                Err(e) => panic!("{e}"),
            }
        }
        let up = matches!(service.status()[0].state, CaptureState::Streaming | CaptureState::Stalled);
        if tick > pull && !up {
            told.status.get_or_insert(after);
        }
        let gaps = archive.catalog().gaps(None, Window::ALL);
        if gaps.iter().any(|gap| gap.cause == GapCause::CameraStalled) {
            told.gap.get_or_insert(after);
        }
    }
    told
}

#[test]
fn k6_a_camera_whose_cable_is_pulled_is_an_event_a_metric_and_a_gap_within_ten_seconds() {
    for phase in 0..5 {
        let told = pulled(phase);
        for (what, at) in [("event", told.event), ("status, of which metrics are made", told.status), ("gap", told.gap)]
        {
            assert!(at.is_some_and(|at| at <= BOUND), "{what} in phase {phase}: {told:?}");
        }
    }
}
