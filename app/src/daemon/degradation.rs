//! Has the degradation ladder look, for ever, and raises its alarm. A look that panics costs itself.

use std::sync::Arc;
use std::time::Duration;

use crate::alarms::AlarmKind;
use crate::http::Services;

/// From look to look: neither heat nor an encoder's backlog changes faster in a way that matters.
const LOOK: Duration = Duration::from_secs(2);

pub(super) async fn follow(services: &Arc<Services>) {
    if !services.degradation.is_enabled() {
        return std::future::pending().await;
    }
    let looking = Arc::clone(services);
    let look = move || looking.degradation.step();
    match looks(LOOK, look, |given| services.retention.alarms().set(AlarmKind::LensesDegraded, given)).await {}
}

/// Looks, and tells of each look that came to an end.
async fn looks<T: Send + 'static>(
    every: Duration,
    look: impl Fn() -> T + Send + Sync + 'static,
    tell: impl Fn(T),
) -> std::convert::Infallible {
    let look = Arc::new(look);
    let mut times = tokio::time::interval(every);
    times.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        times.tick().await;
        let look = Arc::clone(&look);
        // Sensors behind a slow bus and lenses may be waited for.
        match tokio::task::spawn_blocking(move || look()).await {
            Ok(found) => tell(found),
            // Lenses stay where they are until the next one.
            Err(e) => log::error!("a look at heat and encoder failed: {e}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_look_that_panics_is_followed_by_others() {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let count = AtomicU32::new(0);
        let look = move || match count.fetch_add(1, Ordering::Relaxed) {
            1 => panic!("a sensor from hell"),
            n => n,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let seen = runtime.block_on(async {
            let looking = looks(Duration::from_millis(1), look, move |n| tell.send(n).unwrap());
            let third = async { (told.recv().await, told.recv().await) };
            tokio::select! {
                seen = third => seen,
                never = looking => match never {},
            }
        });
        assert_eq!(seen, (Some(0), Some(2)));
    }
}
