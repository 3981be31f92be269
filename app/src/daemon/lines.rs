//! Reads the box's lines for [`crate::power`], and runs its timer.
//!
//! Promises that a recorder without lines, timer or wake under way is not woken for it.

use std::sync::Arc;
use std::time::Duration;

use crate::http::Services;
use crate::power::Levels;

/// From look to look where there are lines: a level counts after two of them.
const LINES: Duration = Duration::from_millis(100);
/// From look to look while a timer runs or a wake is measured.
const TIMER: Duration = Duration::from_millis(250);
/// From look to look while nothing is expected but a request, which is told.
const IDLE: Duration = Duration::from_hours(1);

/// For ever.
pub(super) async fn follow(services: &Arc<Services>) {
    let has_lines = services.pins.levels() != Levels::default();
    loop {
        let wait = match (has_lines, services.power.is_waiting()) {
            (true, _) => LINES,
            (false, true) => TIMER,
            (false, false) => IDLE,
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = services.power.asked.notified() => {}
        }
        let looking = services.clone();
        // Lenses and the disk may be waited for.
        let looked = tokio::task::spawn_blocking(move || looking.power.step(looking.pins.levels())).await;
        if let Err(e) = looked {
            log::error!("the states of ignition and parking are not followed any more: {e}");
            return std::future::pending().await;
        }
    }
}
