//! What a source pushes into: counts, remembers the format, and hands on to the lens's intake.
//!
//! One sink per opened source. A retired sink ignores what a source that is being dropped still delivers.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mos_hal::clock::{Clock, Mono};
use mos_hal::media::{AccessUnit, FrameKind, Rotation, TrackFormat, VideoFormat};
use mos_hal::source::{LeftOutBy, Share, SourceError, UnitSink};

use crate::archive::gaps::GapCause;
use crate::record::Intake;
use crate::record::intake::{LeftOut, is_entry};

use super::bell::Bell;

/// Counters of one lens over all its sources.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) frames: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) discontinuities: AtomicU64,
    pub(crate) audio_units: AtomicU64,
    /// Pictures that were left out because coding them was too slow.
    pub(crate) encoder_left_out: AtomicU64,
    /// Of so many pictures one is to be coded; 0 and 1 for all.
    pub(crate) one_in: AtomicU32,
    /// How many really are, if its source tells.
    share: Mutex<Option<Share>>,
    video: Mutex<Option<Arc<TrackFormat>>>,
    /// Capture time of the newest entry point, and how far it was from the one before; monotonic nanoseconds, 0 for unknown.
    entry: AtomicI64,
    entry_interval: AtomicI64,
    /// Capture time of the newest picture, 0 for unknown.
    newest: AtomicI64,
}

impl Tally {
    /// From keyframe to keyframe, as last seen.
    pub(crate) fn keyframe_interval(&self) -> Option<Duration> {
        let span = u64::try_from(self.entry_interval.load(Ordering::Relaxed)).ok().filter(|ns| *ns > 0)?;
        Some(Duration::from_nanos(span))
    }

    /// Capture time of the newest picture.
    pub(crate) fn newest(&self) -> Option<Mono> {
        Some(self.newest.load(Ordering::Relaxed)).filter(|at| *at != 0).map(Mono)
    }

    /// How many pictures are coded, if the source tells.
    pub(crate) fn share(&self) -> Option<Share> {
        *self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_share(&self, share: Option<Share>) {
        *self.share.lock().unwrap_or_else(PoisonError::into_inner) = share;
    }

    fn note_entry(&self, at: Mono) {
        let before = self.entry.swap(at.0, Ordering::Relaxed);
        let span = if before == 0 { 0 } else { at.0 - before };
        self.entry_interval.store(span, Ordering::Relaxed);
    }

    pub(crate) fn video_format(&self) -> Option<Arc<TrackFormat>> {
        self.video.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Debug)]
pub(crate) struct LensSink {
    intake: Arc<Intake>,
    tally: Arc<Tally>,
    clock: Arc<dyn Clock>,
    bell: Arc<Bell>,
    /// Held while something is handed on, so that nothing of this source comes after it was retired.
    retired: Mutex<bool>,
    /// Arrival of the newest picture, monotonic nanoseconds; `i64::MIN` before the first.
    last_unit: AtomicI64,
    /// Which format object was seen last; compared only, never followed.
    format_seen: AtomicUsize,
    end: Mutex<Option<(SourceError, Mono)>>,
    /// How its pictures are to be shown.
    rotation: Rotation,
    /// The newest format as it came, and as it is recorded.
    turned: Mutex<Option<(Arc<TrackFormat>, Arc<TrackFormat>)>>,
}

impl LensSink {
    pub(crate) fn new(
        intake: Arc<Intake>,
        tally: Arc<Tally>,
        clock: Arc<dyn Clock>,
        bell: Arc<Bell>,
        rotation: Rotation,
    ) -> Self {
        Self {
            intake,
            tally,
            clock,
            bell,
            retired: Mutex::new(false),
            last_unit: AtomicI64::new(i64::MIN),
            format_seen: AtomicUsize::new(0),
            end: Mutex::new(None),
            rotation,
            turned: Mutex::new(None),
        }
    }

    /// From now on nothing of this source counts.
    pub(crate) fn retire(&self) {
        *self.retired() = true;
    }

    fn retired(&self) -> MutexGuard<'_, bool> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn last_unit(&self) -> Option<Mono> {
        Some(self.last_unit.load(Ordering::Relaxed)).filter(|t| *t != i64::MIN).map(Mono)
    }

    /// A format of pictures with the rotation that was configured; the same object for the same object.
    fn turned(&self, format: &Arc<TrackFormat>) -> Arc<TrackFormat> {
        let TrackFormat::Video(video) = &**format else { return Arc::clone(format) };
        if self.rotation == Rotation::None {
            return Arc::clone(format);
        }
        let mut turned = self.turned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, recorded)) = turned.as_ref().filter(|(came, _)| Arc::ptr_eq(came, format)) {
            return Arc::clone(recorded);
        }
        let recorded = Arc::new(TrackFormat::Video(VideoFormat { rotation: self.rotation, ..video.clone() }));
        *turned = Some((Arc::clone(format), Arc::clone(&recorded)));
        recorded
    }

    /// Why and when the source ended, once.
    pub(crate) fn take_end(&self) -> Option<(SourceError, Mono)> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl UnitSink for LensSink {
    fn unit(&self, mut unit: AccessUnit) {
        let retired = self.retired();
        if *retired {
            return;
        }
        self.tally.bytes.fetch_add(unit.data.len() as u64, Ordering::Relaxed);
        if unit.kind == FrameKind::Audio {
            self.tally.audio_units.fetch_add(1, Ordering::Relaxed);
        } else {
            unit.format = self.turned(&unit.format);
            // Sound alone keeps no lens alive: a camera whose picture has stopped is stalled.
            self.last_unit.store(unit.arrival.0, Ordering::Relaxed);
            self.tally.frames.fetch_add(1, Ordering::Relaxed);
            // Pictures come in decoding order.
            self.tally.newest.fetch_max(unit.pts.unwrap_or(unit.arrival).0, Ordering::Relaxed);
            if is_entry(unit.kind) {
                self.tally.note_entry(unit.pts.unwrap_or(unit.arrival));
            }
            let seen = Arc::as_ptr(&unit.format) as usize;
            if self.format_seen.swap(seen, Ordering::Relaxed) != seen {
                let mut video = self.tally.video.lock().unwrap_or_else(PoisonError::into_inner);
                *video = Some(Arc::clone(&unit.format));
            }
        }
        if unit.discontinuity {
            self.tally.discontinuities.fetch_add(1, Ordering::Relaxed);
        }
        self.intake.push(unit);
    }

    fn left_out(&self, from: Mono, to: Mono, pictures: u64, by: LeftOutBy) {
        let retired = self.retired();
        if !*retired {
            if by == LeftOutBy::Encoder {
                self.tally.encoder_left_out.fetch_add(pictures, Ordering::Relaxed);
            }
            self.intake.left_out(LeftOut { from, to, pictures, cause: cause_of_skip(by) });
        }
    }

    fn one_in(&self) -> u32 {
        self.tally.one_in.load(Ordering::Relaxed).max(1)
    }

    fn coded(&self, share: Share) {
        let retired = self.retired();
        if !*retired {
            self.tally.set_share(Some(share));
        }
    }

    fn ended(&self, why: SourceError) {
        let mut retired = self.retired();
        if std::mem::replace(&mut *retired, true) {
            return;
        }
        let now = self.clock.mono();
        self.intake.down(cause_of(&why), now);
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some((why, now));
        self.bell.ring();
    }
}

fn cause_of_skip(by: LeftOutBy) -> GapCause {
    match by {
        LeftOutBy::Encoder => GapCause::EncoderSlow,
        LeftOutBy::Camera => GapCause::CameraSkipped,
    }
}

/// The cause of the gap that an error opens.
pub(crate) fn cause_of(error: &SourceError) -> GapCause {
    match error {
        SourceError::Absent { .. } => GapCause::CameraAbsent,
        SourceError::Refused { .. } | SourceError::Unsupported { .. } => GapCause::CameraRefused,
        SourceError::Exhausted { .. } => GapCause::Degraded,
        SourceError::Broken { .. } => GapCause::CameraBrokeOff,
        SourceError::Ended { .. } => GapCause::SourceEnded,
    }
}
