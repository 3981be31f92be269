//! Whether systemd's watchdog is fed: by footage that becomes durable, not by a timer.
//!
//! Promises:
//! - D1: while cameras deliver frames that belong on the disk and nothing of them becomes durable for [`BOUND`], nothing is fed,
//!   however lively everything else is.
//! - D2: where nothing has to become durable (no camera delivers, all wait for a keyframe, or the disk is known to be full, failing or
//!   too slow, which is told and accounted for and which no restart would mend), the recorder's tick feeds it.
//! - D3: one lens that gets nothing onto the disk while others do does not end the others' recording: it is logged.
//!
//! Pure: times and figures in, a verdict out.

use std::collections::BTreeMap;
use std::time::Duration;

use mos_hal::clock::Mono;
use mos_hal::media::LensId;

use crate::record::{LensRecording, RecorderStatus};

/// How long frames may come without any of them becoming durable: many times a tick and a slow sync.
pub(super) const BOUND: Duration = Duration::from_secs(10);

/// What was seen when it was asked before.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    ticks: Option<u64>,
    lenses: BTreeMap<LensId, Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    captured: u64,
    stored: u64,
    /// Frames have come since then of which nothing is durable.
    owed_since: Option<Mono>,
    told: bool,
}

impl Watchdog {
    /// Whether it may be fed now. To be asked a few times within the bound.
    pub(super) fn is_fed(&mut self, status: &RecorderStatus, now: Mono) -> bool {
        let ticked = self.ticks.replace(status.ticks) != Some(status.ticks);
        self.lenses.retain(|lens, _| status.lenses.contains_key(lens));
        let (mut progress, mut starved) = (false, false);
        for (lens, recording) in &status.lenses {
            let fresh = Seen { captured: recording.captured, stored: recording.stored, owed_since: None, told: false };
            let seen = self.lenses.entry(lens.clone()).or_insert(fresh);
            if recording.stored > seen.stored || recording.absent.is_some() {
                progress |= recording.stored > seen.stored;
                (seen.owed_since, seen.told) = (None, false);
            } else if owes(recording) && recording.captured > seen.captured {
                seen.owed_since.get_or_insert(now);
            }
            (seen.captured, seen.stored) = (recording.captured, recording.stored);
            let owed = seen.owed_since.is_some_and(|since| now.since(since) >= BOUND.as_nanos() as i64);
            if owed && !std::mem::replace(&mut seen.told, true) {
                log::error!("{lens}: frames have come for {} s and none of them is durable", BOUND.as_secs());
            }
            starved |= owed;
        }
        ticked && (progress || !starved)
    }
}

/// Whether what comes must become durable: of a lens that is absent, the cause is on record.
fn owes(recording: &LensRecording) -> bool {
    recording.absent.is_none()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::archive::GapCause;

    #[derive(Default)]
    struct Rig {
        watchdog: Watchdog,
        status: RecorderStatus,
        now: Mono,
    }

    impl Rig {
        /// A second in which the recorder ticks and lenses capture and store so much.
        fn second(&mut self, lenses: &[(&str, u64, u64)]) -> bool {
            self.now = self.now + Duration::from_secs(1);
            self.status.ticks += 2;
            for (name, captured, stored) in lenses {
                let lens = self.status.lenses.entry(LensId::new(name).unwrap()).or_default();
                lens.captured += captured;
                lens.stored += stored;
            }
            self.watchdog.is_fed(&self.status, self.now)
        }

        fn absent(&mut self, name: &str, cause: Option<GapCause>) {
            self.status.lenses.entry(LensId::new(name).unwrap()).or_default().absent = cause;
        }
    }

    #[test]
    fn d1_frames_of_which_nothing_becomes_durable_starve_it_and_the_first_fragment_feeds_it() {
        let mut rig = Rig::default();
        assert!((0..20).all(|_| rig.second(&[("road", 30, 30), ("cabin", 30, 30)])));
        let fed: Vec<bool> = (0..20).map(|_| rig.second(&[("road", 30, 0), ("cabin", 30, 0)])).collect();
        assert!(fed[..10].iter().all(|fed| *fed) && fed[10..].iter().all(|fed| !fed), "{fed:?}");
        assert!(rig.second(&[("road", 30, 600)]));
    }

    #[test]
    fn d2_where_nothing_is_owed_the_tick_feeds_it_and_without_a_tick_nothing_does() {
        let mut rig = Rig::default();
        assert!((0..30).all(|_| rig.second(&[])), "no cameras");
        assert!((0..30).all(|_| rig.second(&[("road", 0, 0)])), "a silent one");
        for cause in [GapCause::DiskFull, GapCause::DiskError, GapCause::Starting, GapCause::CaptureStopped] {
            rig.absent("road", Some(cause));
            assert!((0..30).all(|_| rig.second(&[("road", 30, 0)])), "{cause:?} is on record");
        }
        rig.absent("road", None);
        assert!(rig.second(&[("road", 30, 30)]));
        assert!(!rig.watchdog.is_fed(&rig.status, rig.now), "no tick since");
        assert!(rig.second(&[]), "frames that do not come are the camera's trouble");
    }

    #[test]
    fn d3_one_starving_lens_does_not_end_the_others() {
        let mut rig = Rig::default();
        assert!((0..40).all(|_| rig.second(&[("road", 30, 30), ("cabin", 30, 0)])));
        rig.status.lenses.clear();
        assert!(rig.second(&[]), "a lens that was taken out owes nothing");
    }
}
