//! Has the degradation ladder look, for ever, and raises its alarm.

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
    let mut times = tokio::time::interval(LOOK);
    times.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        times.tick().await;
        let looking = services.clone();
        // Sensors behind a slow bus and lenses may be waited for.
        match tokio::task::spawn_blocking(move || looking.degradation.step()).await {
            Ok(given) => services.retention.alarms().set(AlarmKind::LensesDegraded, given),
            Err(e) => {
                log::error!("heat and encoder are not watched any more: {e}");
                return std::future::pending().await;
            }
        }
    }
}
