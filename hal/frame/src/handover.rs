//! How a frame gets from the camera's thread into the books, without waiting for the thread that holds them.
//!
//! The camera's thread tries the lock. As a rule it gets it and delivers the frame itself. If the thread of the bus holds it
//! just then, the frame waits in the one place there is, and that thread, which is to be woken, delivers it.
//!
//! - H1: publishing waits for nobody.
//! - H2: every frame is delivered once or given back (dropped), in the order of publishing; those that were given back
//!   undelivered are counted.
//! - H3: at most one frame waits; a newer one takes its place. So the bus holds one frame more than its budget at most.
//! - H4: a frame that waits is delivered by the next call of either thread; if there is none to come, [`Handover::publish`]
//!   has asked to wake the thread of the bus after the frame was put there.

use std::sync::{PoisonError, TryLockError};

use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// `S` is what is behind the lock, `F` a frame.
pub(crate) struct Handover<S, F> {
    state: Mutex<S>,
    /// Locked for an exchange only, by the camera's thread, or by whoever holds the lock of `state`.
    waiting: Mutex<Option<F>>,
    overtaken: AtomicU64,
}

impl<S, F> Handover<S, F> {
    pub(crate) fn new(state: S) -> Self {
        Self { state: Mutex::new(state), waiting: Mutex::new(None), overtaken: AtomicU64::new(0) }
    }

    /// Delivers a frame, and before it the one that waits; or lets it wait. True if the thread of the bus is to be woken.
    pub(crate) fn publish(&self, frame: F, mut deliver: impl FnMut(&mut S, F) -> bool) -> bool {
        if let Some(mut state) = attempt(&self.state) {
            let older = self.take();
            let wake = older.is_some_and(|older| deliver(&mut state, older));
            return deliver(&mut state, frame) || wake;
        }
        let undelivered = match attempt(&self.waiting) {
            Some(mut waiting) => waiting.replace(frame),
            // The thread of the bus is just taking the older one.
            None => Some(frame),
        };
        if undelivered.is_some() {
            self.overtaken.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// The lock, for everybody but the camera's thread.
    pub(crate) fn lock(&self) -> MutexGuard<'_, S> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The frame that waits. To be called with the lock held, which keeps frames in order.
    pub(crate) fn take(&self) -> Option<F> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Frames that were given back undelivered.
    pub(crate) fn overtaken(&self) -> u64 {
        self.overtaken.load(Ordering::Relaxed)
    }
}

/// The lock, if nobody has it.
fn attempt<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
