//! Events of network cameras as triggers: what a camera reports protects the footage around it.
//!
//! Promises:
//! - G1: while an event is active, and for `after` behind it, every segment of the lens is protected, and so are those of `before`
//!   it; as by Protect, with the quota and durability of that.
//! - G2: an event that never ends protects for [`LONGEST`] after the camera last reported it; so does one whose camera is lost.
//! - G3: each beginning and end is told to those who follow GetCaptureEvents, once.
//! - G4: nothing here touches the recording: no event, refusal or camera that talks nonsense does.
//!
//! Times are those of arrival here. What is protected is lifted by people only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mos_hal::clock::Mono;
use mos_hal::media::LensId;
use mos_hal::onvif::{self, EventKind, EventNews, EventWatch};
use mos_hal::source::SourceSpec;
use tokio::sync::Notify;

use crate::archive::{Archive, ArchiveError, KeepNote, Window};
use crate::capture::{CaptureControlService, News};

/// An event counts as active for so long after it was last reported.
const LONGEST: Duration = Duration::from_mins(5);
/// From look to look while something is to be protected.
const LOOK: Duration = Duration::from_secs(1);
/// Footage is listed so long after its capture at the latest, unless the disk stalls.
const LISTED: Duration = Duration::from_secs(10);
/// Most segments that one look protects.
const MOST: usize = 1000;

/// Which events of a lens protect how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerPlan {
    /// What counts; nothing: the camera is not asked.
    pub events: BTreeSet<EventKind>,
    /// How much before an event.
    pub before: Duration,
    /// How much behind it.
    pub after: Duration,
}

impl Default for TriggerPlan {
    fn default() -> Self {
        Self { events: BTreeSet::new(), before: Duration::from_secs(10), after: Duration::from_secs(20) }
    }
}

/// The service. Dropping it ends all subscriptions.
pub struct Triggers {
    shared: Arc<Shared>,
    _watches: Vec<EventWatch>,
}

struct Shared {
    archive: Archive,
    capture: CaptureControlService,
    lenses: Mutex<BTreeMap<LensId, Lens>>,
    changed: Notify,
}

struct Lens {
    plan: TriggerPlan,
    active: BTreeMap<EventKind, Mono>,
    span: Option<Span>,
}

/// Footage that is to be protected.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    from: Mono,
    until: Mono,
    why: BTreeSet<EventKind>,
    /// A failure was logged.
    told: bool,
}

impl Triggers {
    /// Begins to ask the cameras of lenses that have a plan with events.
    #[must_use]
    pub fn start(
        archive: &Archive,
        capture: &CaptureControlService,
        lenses: impl IntoIterator<Item = (LensId, SourceSpec, TriggerPlan)>,
    ) -> Self {
        let planned: Vec<_> = lenses.into_iter().filter(|(_, _, plan)| !plan.events.is_empty()).collect();
        let table = planned
            .iter()
            .map(|(id, _, plan)| (id.clone(), Lens { plan: plan.clone(), active: BTreeMap::new(), span: None }));
        let shared = Arc::new(Shared {
            archive: archive.clone(),
            capture: capture.clone(),
            lenses: Mutex::new(table.collect()),
            changed: Notify::new(),
        });
        let watch = |(id, source, _): &(LensId, SourceSpec, TriggerPlan)| {
            let (lens, shared) = (id.clone(), Arc::clone(&shared));
            let watched = onvif::watch(source, move |news| shared.hear(&lens, &news));
            watched.inspect_err(|e| log::warn!("{id}: events of its camera are not followed: {e}")).ok().flatten()
        };
        let watches = planned.iter().filter_map(watch).collect();
        Self { shared, _watches: watches }
    }

    /// Protects what is to be protected, for ever.
    pub async fn follow(&self) {
        loop {
            let shared = Arc::clone(&self.shared);
            // The disk may be waited for.
            let waiting = tokio::task::spawn_blocking(move || shared.step()).await;
            match waiting {
                Ok(true) => tokio::time::sleep(LOOK).await,
                Ok(false) => self.shared.changed.notified().await,
                Err(e) => {
                    log::error!("events of cameras protect nothing any more: {e}");
                    return std::future::pending().await;
                }
            }
        }
    }
}

impl Shared {
    fn lenses(&self) -> MutexGuard<'_, BTreeMap<LensId, Lens>> {
        self.lenses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called on the thread that asks cameras.
    fn hear(&self, id: &LensId, news: &EventNews) {
        let now = self.archive.clock().mono();
        match news {
            EventNews::Subscribed => log::info!("{id}: its camera tells its events"),
            EventNews::Lost(why) => log::warn!("{id}: events of its camera are not heard of: {why}"),
            EventNews::Event(kind, active) => {
                let mut lenses = self.lenses();
                let Some(lens) = lenses.get_mut(id).filter(|lens| lens.plan.events.contains(kind)) else { return };
                let is_new = lens.hear(*kind, *active, now);
                drop(lenses);
                self.changed.notify_one();
                if is_new {
                    self.tell(id, *kind, *active, now);
                }
            }
        }
    }

    fn tell(&self, lens: &LensId, kind: EventKind, active: bool, at: Mono) {
        self.capture.tell(News::Camera { lens: lens.clone(), event: kind, active, at });
    }

    /// One look; whether another one is needed.
    fn step(&self) -> bool {
        let now = self.archive.clock().mono();
        let mut lenses = self.lenses();
        let mut over = Vec::new();
        for (id, lens) in lenses.iter_mut() {
            over.extend(lens.forget(now).into_iter().map(|kind| (id.clone(), kind)));
        }
        let spans: Vec<(LensId, Span)> =
            lenses.iter().filter_map(|(id, lens)| Some((id.clone(), lens.span.clone()?))).collect();
        drop(lenses);
        for (id, kind) in over {
            self.tell(&id, kind, false, now);
        }
        for (id, span) in spans {
            let failed = self.protect(&id, &span, now).err();
            let mut lenses = self.lenses();
            let Some(lens) = lenses.get_mut(&id) else { continue };
            if let (Some(why), Some(Span { told: told @ false, .. })) = (failed, lens.span.as_mut()) {
                log::warn!("{id}: what its camera reported is not protected: {why}");
                *told = true;
            }
            lens.done(now);
        }
        self.lenses().values().any(|lens| lens.span.is_some())
    }

    fn protect(&self, id: &LensId, span: &Span, now: Mono) -> Result<(), ArchiveError> {
        let mapping = self.archive.mapping();
        let until = span.until.min(now);
        let window = Window { from: mapping.utc_of(span.from), to: mapping.utc_of(until) };
        let why: Vec<&str> = span.why.iter().map(|kind| kind.name()).collect();
        let note = KeepNote { who: "camera".into(), why: format!("event: {}", why.join(", ")) };
        for found in self.archive.catalog().segments(Some(id), window, 0, MOST) {
            if !found.row.protected {
                self.archive.keep(&found.row.id, &note)?;
            }
        }
        Ok(())
    }
}

impl Lens {
    /// Takes an event; whether it changes anything.
    fn hear(&mut self, kind: EventKind, active: bool, now: Mono) -> bool {
        let was = if active { self.active.insert(kind, now) } else { self.active.remove(&kind) };
        if !active && was.is_none() {
            // An input's state when the subscription began, or an end that was told before.
            return false;
        }
        let (from, until) = (earlier(now, self.plan.before), later(now, self.plan.after));
        let span = self.span.get_or_insert(Span { from, until, why: BTreeSet::new(), told: false });
        (span.from, span.until) = (span.from.min(from), span.until.max(until));
        span.why.insert(kind);
        active == was.is_none()
    }

    /// Forgets events that were not reported for too long, and lets the others go on.
    fn forget(&mut self, now: Mono) -> Vec<EventKind> {
        let old = |since: &Mono| later(*since, LONGEST) < now;
        let over: Vec<EventKind> = self.active.iter().filter(|(_, since)| old(since)).map(|(kind, _)| *kind).collect();
        self.active.retain(|_, since| !old(since));
        if let Some(span) = self.span.as_mut().filter(|_| !self.active.is_empty()) {
            span.until = span.until.max(later(now, self.plan.after));
        }
        over
    }

    /// Lets go of a span that is protected as a whole.
    fn done(&mut self, now: Mono) {
        let Some(span) = &mut self.span else { return };
        if later(span.until, LISTED) < now {
            self.span = None;
        } else if !span.told {
            // What was captured before is listed and protected.
            span.from = span.from.max(earlier(now, self.plan.before + LISTED));
        }
    }
}

fn later(at: Mono, by: Duration) -> Mono {
    Mono(at.0.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
}

fn earlier(at: Mono, by: Duration) -> Mono {
    Mono(at.0.saturating_sub(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    fn lens() -> Lens {
        let plan = TriggerPlan { events: EventKind::ALL.into(), ..TriggerPlan::default() };
        Lens { plan, active: BTreeMap::new(), span: None }
    }

    fn bounds(lens: &Lens) -> Option<(i64, i64)> {
        lens.span.as_ref().map(|span| (span.from.0 / S, span.until.0 / S))
    }

    fn at(seconds: i64) -> Mono {
        Mono(seconds * S)
    }

    #[test]
    fn g1_an_event_is_protected_with_what_is_around_it() {
        let mut lens = lens();
        assert!(!lens.hear(EventKind::Motion, false, at(90)), "an input's state at the beginning is no event");
        assert_eq!(bounds(&lens), None);
        assert!(lens.hear(EventKind::Motion, true, at(100)));
        assert_eq!(bounds(&lens), Some((90, 120)));
        assert!(!lens.hear(EventKind::Motion, true, at(105)), "cameras repeat themselves");
        assert!(lens.forget(at(130)).is_empty());
        assert_eq!(bounds(&lens), Some((90, 150)), "it goes on");
        assert!(
            lens.hear(EventKind::DigitalInput, true, at(131)) && lens.hear(EventKind::DigitalInput, false, at(132))
        );
        assert!(lens.hear(EventKind::Motion, false, at(140)));
        assert!(lens.forget(at(150)).is_empty());
        assert_eq!(bounds(&lens), Some((90, 160)));
        lens.done(at(165));
        assert!(lens.span.is_some());
        lens.done(at(171));
        assert!(lens.span.is_none());
    }

    #[test]
    fn g2_an_event_without_an_end_is_forgotten() {
        let mut lens = lens();
        lens.hear(EventKind::Tamper, true, at(100));
        for now in 101..=400 {
            assert!(lens.forget(at(now)).is_empty());
            lens.done(at(now));
        }
        assert_eq!(bounds(&lens), Some((380, 420)));
        assert_eq!(lens.forget(at(401)), [EventKind::Tamper]);
        assert!(lens.forget(at(402)).is_empty());
        assert_eq!(bounds(&lens), Some((380, 420)));
    }
}
