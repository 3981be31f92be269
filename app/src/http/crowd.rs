//! Who is connected: a bounded crowd, in which those who have said who they are cannot be kept out by those who have not.
//!
//! Promise (C1): when all places are taken, the oldest connection that has not shown a token gives its place to the next;
//! who has shown one stays. Whoever opens connections and says nothing costs descriptors for a moment, never the service.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

/// Whether a connection has shown who it belongs to. Handed to the guard as an extension of the request.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Arc<AtomicBool>);

impl Known {
    /// Notes that it has.
    pub(super) fn yes(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The places of a listener.
pub(super) struct Crowd {
    places: Arc<Semaphore>,
    waiting: VecDeque<(Known, AbortHandle)>,
}

impl Crowd {
    pub(super) fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), waiting: VecDeque::new() }
    }

    /// Resolves when there is a place; (C1) makes one if it can. `None` never comes: the semaphore is not closed.
    pub(super) async fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        self.waiting.retain(|(known, task)| !known.get() && !task.is_finished());
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Some(place);
        }
        if let Some((_, oldest)) = self.waiting.pop_front() {
            oldest.abort();
        }
        self.places.clone().acquire_owned().await.ok()
    }

    /// Notes a connection that has not said yet who it is.
    pub(super) fn add(&mut self, known: Known, task: AbortHandle) {
        self.waiting.push_back((known, task));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn c1_the_unknown_make_way_and_the_known_stay() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut crowd = Crowd::new(2);
            let mut tasks = Vec::new();
            let known = [Known::default(), Known::default(), Known::default()];
            known[0].yes();
            for known in &known {
                let place = crowd.place().await.unwrap();
                let task = tokio::spawn(async move {
                    let _place = place;
                    std::future::pending::<()>().await;
                });
                crowd.add(known.clone(), task.abort_handle());
                tasks.push(task);
            }
            assert!(!tasks[0].is_finished() && !tasks[2].is_finished());
            assert!((&mut tasks[1]).await.unwrap_err().is_cancelled());
        });
    }
}
