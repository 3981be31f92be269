//! The one way out of a source.
//!
//! Promises the sink that `ended` is called at most once, that no unit follows it, and that nothing at all follows the drop
//! of the source. Any thread of a source may call it.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::{Clock, Mono};
use crate::frames::LensFrames;
use crate::media::AccessUnit;
use crate::source::{LeftOutBy, Share, SourceError, UnitSink};

/// Where all threads of one source deliver.
pub(crate) struct Outlet {
    /// The source as it may be shown.
    pub(crate) what: String,
    pub(crate) clock: Arc<dyn Clock>,
    sink: Arc<dyn UnitSink>,
    /// Whether the source is over. Held during calls of the sink, which return at once.
    over: Mutex<bool>,
    changed: Condvar,
    /// When a warning was last logged, and how many were kept back since.
    warned: Mutex<Option<(Instant, u64)>>,
}

/// At most one warning of a source is logged in this time.
const QUIET: Duration = Duration::from_mins(1);

impl Outlet {
    pub(crate) fn new(what: String, clock: Arc<dyn Clock>, sink: Arc<dyn UnitSink>) -> Arc<Self> {
        Arc::new(Self { what, clock, sink, over: Mutex::new(false), changed: Condvar::new(), warned: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers, unless the source is over.
    pub(crate) fn unit(&self, unit: AccessUnit) {
        let over = self.lock();
        if !*over {
            self.sink.unit(unit);
        }
    }

    /// Who gets the raw pictures.
    pub(crate) fn frames(&self) -> Option<Arc<LensFrames>> {
        self.sink.frames()
    }

    /// Of how many pictures one is coded; see [`UnitSink::one_in`].
    pub(crate) fn one_in(&self) -> u32 {
        self.sink.one_in().max(1)
    }

    /// Tells how many pictures are coded; see [`UnitSink::coded`].
    pub(crate) fn coded(&self, share: Share) {
        let over = self.lock();
        if !*over {
            self.sink.coded(share);
        }
    }

    /// Tells of pictures that were left out; see [`UnitSink::left_out`].
    pub(crate) fn left_out(&self, from: Mono, to: Mono, pictures: u64, by: LeftOutBy) {
        let why = match by {
            LeftOutBy::Encoder => "the encoder is too slow or cannot take them",
            LeftOutBy::Camera => "the camera or its driver did not deliver them",
        };
        self.warn(format_args!("{pictures} pictures left out, {why}"));
        let over = self.lock();
        if !*over {
            self.sink.left_out(from, to, pictures, by);
        }
    }

    /// Ends the source by itself.
    pub(crate) fn end(&self, why: SourceError) {
        let first = !std::mem::replace(&mut *self.lock(), true);
        self.changed.notify_all();
        // Outside of the lock: no unit can follow any more, and a sink may drop the source here.
        if first {
            self.sink.ended(why);
        }
    }

    /// Ends the source because it was dropped: the sink hears nothing more.
    pub(crate) fn silence(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_over(&self) -> bool {
        *self.lock()
    }

    /// Waits until `due`; false as soon as the source is over.
    pub(crate) fn wait_until(&self, due: Mono) -> bool {
        let wait = Duration::from_nanos(u64::try_from(due.since(self.clock.mono())).unwrap_or(0));
        let end = Instant::now() + wait;
        let mut over = self.lock();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if *over || left.is_zero() {
                return !*over;
            }
            (over, _) = self.changed.wait_timeout(over, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Logs, but not more often than every [`QUIET`].
    pub(crate) fn warn(&self, text: impl fmt::Display) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *warned {
            Some((at, kept_back)) if at.elapsed() < QUIET => *kept_back += 1,
            Some((_, 0)) | None => {
                log::warn!("{}: {text}", self.what);
                *warned = Some((Instant::now(), 0));
            }
            Some((_, kept_back)) => {
                log::warn!("{}: {text}; {kept_back} warnings were kept back", self.what);
                *warned = Some((Instant::now(), 0));
            }
        }
    }

    pub(crate) fn broken(&self, detail: impl Into<String>) -> SourceError {
        SourceError::Broken { what: self.what.clone(), detail: detail.into() }
    }

    pub(crate) fn exhausted(&self, detail: impl Into<String>) -> SourceError {
        SourceError::Exhausted { what: self.what.clone(), detail: detail.into() }
    }

    pub(crate) fn unsupported(&self, detail: impl Into<String>) -> SourceError {
        SourceError::Unsupported { what: self.what.clone(), detail: detail.into() }
    }
}
