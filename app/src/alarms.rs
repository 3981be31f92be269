//! What needs somebody's attention now: raised and cleared by services, shown by health, metrics and the stream of events.
//!
//! Promises: an alarm is raised once and stays until it is cleared; raising it again changes its words, not its beginning;
//! whoever follows hears every change or, if too slow, that there were more. Anybody may raise one; nothing here blocks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mos_hal::clock::{Clock, UtcMicros};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// What it is about. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// Protected segments take more than the alarm threshold.
    ProtectedAlarm,
    /// Protected segments take all that they may: Protect is refused.
    ProtectedQuota,
    /// What events of cameras should protect is not protected.
    EventsUnprotected,
    /// More room is taken than allowed, and nothing may go.
    StorageShort,
    /// The file system cannot have what the configuration asks for.
    StorageConfig,
    /// The device that carries the archive is near its end or beyond it.
    StorageWorn,
    /// GMSL links that MOS sets up stay dark.
    GmslLinkDark,
    /// Lenses give way to heat or to the limits of the encoder.
    LensesDegraded,
    /// Evidence is not kept, not completely, or somebody harmed it.
    Evidence,
}

impl AlarmKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::ProtectedAlarm,
        Self::ProtectedQuota,
        Self::EventsUnprotected,
        Self::StorageShort,
        Self::StorageConfig,
        Self::StorageWorn,
        Self::GmslLinkDark,
        Self::LensesDegraded,
        Self::Evidence,
    ];

    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ProtectedAlarm => "protected_alarm",
            Self::ProtectedQuota => "protected_quota",
            Self::EventsUnprotected => "events_unprotected",
            Self::StorageShort => "storage_short",
            Self::StorageConfig => "storage_config",
            Self::StorageWorn => "storage_worn",
            Self::GmslLinkDark => "gmsl_link_dark",
            Self::LensesDegraded => "lenses_degraded",
            Self::Evidence => "evidence",
        }
    }
}

/// An alarm that was raised, or that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Alarm {
    /// What it is about.
    pub kind: AlarmKind,
    /// Whether it is raised; `false` in events that clear it.
    pub raised: bool,
    /// What is wrong and what to do, in a sentence.
    pub message: String,
    /// When it was raised or cleared, UTC microseconds as then known.
    pub at_ts: i64,
}

/// Events that may wait for a slow follower.
const BACKLOG: usize = 64;

/// The board of alarms. Clones share it.
#[derive(Clone, Debug)]
pub struct Alarms(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    raised: Mutex<BTreeMap<AlarmKind, Alarm>>,
    events: broadcast::Sender<Alarm>,
}

impl Alarms {
    /// A board without alarms.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let events = broadcast::channel(BACKLOG).0;
        Self(Arc::new(Shared { clock, raised: Mutex::default(), events }))
    }

    /// Raises an alarm with these words, or clears it.
    pub fn set(&self, kind: AlarmKind, message: Option<String>) {
        let UtcMicros(at_ts) = self.0.clock.utc();
        let mut raised = self.lock();
        let event = match (message, raised.get_mut(&kind)) {
            (Some(message), Some(present)) => {
                present.message = message;
                return;
            }
            (Some(message), None) => {
                log::warn!("{}: {message}", kind.name());
                let alarm = Alarm { kind, raised: true, message, at_ts };
                raised.insert(kind, alarm.clone());
                alarm
            }
            (None, Some(_)) => {
                log::info!("{} is over", kind.name());
                let message = raised.remove(&kind).map(|alarm| alarm.message).unwrap_or_default();
                Alarm { kind, raised: false, message, at_ts }
            }
            (None, None) => return,
        };
        // Under the lock, so that followers hear changes in order. Nobody may be listening.
        let _ = self.0.events.send(event);
        drop(raised);
    }

    /// Those that are raised now.
    #[must_use]
    pub fn list(&self) -> Vec<Alarm> {
        self.lock().values().cloned().collect()
    }

    /// Those that are raised now, and every change from now on.
    #[must_use]
    pub fn follow(&self) -> (Vec<Alarm>, broadcast::Receiver<Alarm>) {
        let raised = self.lock();
        (raised.values().cloned().collect(), self.0.events.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AlarmKind, Alarm>> {
        self.0.raised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use mos_hal::clock::{BootId, SimClock};

    use super::*;

    #[test]
    fn an_alarm_begins_once_and_ends_once() {
        let clock = Arc::new(SimClock::new(BootId([1; 16]), UtcMicros(5)));
        let alarms = Alarms::new(clock.clone());
        let (now, mut events) = alarms.follow();
        assert_eq!(now, []);
        let kind = AlarmKind::StorageShort;
        alarms.set(kind, None);
        alarms.set(kind, Some("first".into()));
        clock.advance(Duration::from_secs(1));
        alarms.set(kind, Some("second".into()));
        let present = Alarm { kind, raised: true, message: "second".into(), at_ts: 5 };
        assert_eq!(alarms.list(), std::slice::from_ref(&present));
        assert_eq!(alarms.follow().0, [present]);
        alarms.set(kind, None);
        assert_eq!(alarms.list(), []);
        assert_eq!(events.try_recv().unwrap(), Alarm { kind, raised: true, message: "first".into(), at_ts: 5 });
        let over = Alarm { kind, raised: false, message: "second".into(), at_ts: 1_000_005 };
        assert_eq!(events.try_recv().unwrap(), over);
        assert!(events.try_recv().is_err());
    }

    #[test]
    fn names_are_those_of_the_wire() {
        for kind in AlarmKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
