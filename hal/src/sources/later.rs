//! A source that is being prepared on another thread before it becomes what delivers.
//!
//! Promises that opening returns at once, that what was dropped meanwhile never begins, and that no lock is held while a
//! source is opened or dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::outlet::Outlet;
use crate::source::{LensSource, SourceError};

/// The source as its holder sees it. `work` is dropped with it.
pub(super) struct Later<W> {
    stage: Arc<Mutex<Stage>>,
    outlet: Arc<Outlet>,
    _work: W,
}

/// Where the prepared source goes.
pub(super) struct Place {
    stage: Arc<Mutex<Stage>>,
    outlet: Arc<Outlet>,
}

enum Stage {
    Preparing,
    Running(Box<dyn LensSource>),
    Over,
}

fn lock(stage: &Mutex<Stage>) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins; `prepare` starts the work that fills the place.
pub(super) fn begin<W: Send + 'static>(
    outlet: &Arc<Outlet>,
    prepare: impl FnOnce(Place) -> std::io::Result<W>,
) -> Result<Later<W>, SourceError> {
    let stage = Arc::new(Mutex::new(Stage::Preparing));
    let work = prepare(Place { stage: Arc::clone(&stage), outlet: Arc::clone(outlet) });
    let work = work.map_err(|e| outlet.broken(format!("no thread: {e}")))?;
    Ok(Later { stage, outlet: Arc::clone(outlet), _work: work })
}

impl Place {
    /// Keeps a source that was opened, unless nobody wants it any more; an error ends it.
    pub(super) fn fill(&self, opened: Result<Box<dyn LensSource>, SourceError>) {
        match opened {
            Ok(source) => {
                let mut stage = lock(&self.stage);
                let unwanted = match *stage {
                    Stage::Preparing => {
                        *stage = Stage::Running(source);
                        None
                    }
                    Stage::Running(_) | Stage::Over => Some(source),
                };
                drop(stage);
                drop(unwanted);
            }
            Err(why) => self.outlet.end(why),
        }
    }
}

impl<W: Send> LensSource for Later<W> {
    fn request_keyframe(&self) -> bool {
        match &*lock(&self.stage) {
            Stage::Running(source) => source.request_keyframe(),
            Stage::Preparing | Stage::Over => false,
        }
    }

    fn awaits_caller(&self) -> bool {
        match &*lock(&self.stage) {
            Stage::Running(source) => source.awaits_caller(),
            Stage::Preparing | Stage::Over => false,
        }
    }
}

impl<W> Drop for Later<W> {
    fn drop(&mut self) {
        self.outlet.silence();
        let last = std::mem::replace(&mut *lock(&self.stage), Stage::Over);
        drop(last);
    }
}
