//! Events of network cameras as triggers: what a camera reports protects the footage around it.
//!
//! Promises:
//! - G1: while an event is active, and for `after` behind it, every segment of the lens is protected, and so are those of `before`
//!   it; as durably as by Protect, and until the room is wanted by others (`archive/yielding.rs`).
//! - G2: an event that never ends protects for [`LONGEST`] after the camera last reported it; so does one whose camera is lost.
//! - G3: each beginning and end is told to those who follow GetCaptureEvents, once.
//! - G4: nothing here touches the recording: no event, refusal or camera that talks nonsense does.
//! - G5: a kind of event is active for as long as any of its sources is: the end of one input's is not that of another's.
//! - G6: a segment that cannot be protected keeps none of the others from it; it is tried again until it is protected or gone,
//!   and an alarm stands meanwhile.
//!
//! Times are those of arrival here. Whether a camera tells its events stands in the status of its lens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mos_hal::clock::Mono;
use mos_hal::media::LensId;
use mos_hal::onvif::{self, EventKey, EventKind, EventNews, EventWatch};
use mos_hal::source::SourceSpec;
use tokio::sync::Notify;

use crate::alarms::{AlarmKind, Alarms};
use crate::archive::{Archive, ArchiveError, KeepNote, Window};
use crate::capture::{CaptureControlService, EventsStatus, News};

/// An event counts as active for so long after it was last reported.
const LONGEST: Duration = Duration::from_mins(5);
/// From look to look while something is to be protected, and after one that could not protect it all.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Footage is listed so long after its capture at the latest, unless the disk stalls.
const LISTED: Duration = Duration::from_secs(10);
/// Segments that are listed at once.
const PAGE: usize = 1000;
/// Most sources of events of a lens that are told apart.
const MOST_ACTIVE: usize = 64;
/// Most that may be asked for before and behind an event.
pub const LONGEST_AROUND: Duration = Duration::from_hours(1);

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
    alarms: Alarms,
    lenses: Mutex<BTreeMap<LensId, Lens>>,
    changed: Notify,
}

struct Lens {
    plan: TriggerPlan,
    /// When each was last reported.
    active: BTreeMap<(EventKind, EventKey), Mono>,
    span: Option<Span>,
}

/// Footage that is to be protected.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    from: Mono,
    until: Mono,
    why: BTreeSet<EventKind>,
}

impl Triggers {
    /// Begins to ask the cameras of lenses that have a plan with events.
    #[must_use]
    pub fn start(
        archive: &Archive,
        capture: &CaptureControlService,
        alarms: &Alarms,
        lenses: impl IntoIterator<Item = (LensId, SourceSpec, TriggerPlan)>,
    ) -> Self {
        let planned: Vec<_> = lenses.into_iter().filter(|(_, _, plan)| !plan.events.is_empty()).collect();
        let table = planned
            .iter()
            .map(|(id, _, plan)| (id.clone(), Lens { plan: plan.clone(), active: BTreeMap::new(), span: None }));
        let shared = Arc::new(Shared {
            archive: archive.clone(),
            capture: capture.clone(),
            alarms: alarms.clone(),
            lenses: Mutex::new(table.collect()),
            changed: Notify::new(),
        });
        let watch = |(id, source, _): &(LensId, SourceSpec, TriggerPlan)| {
            capture.note_events(id, |_| {});
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
                Ok(Some(wait)) => tokio::time::sleep(wait).await,
                Ok(None) => self.shared.changed.notified().await,
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
            EventNews::Subscribed => {
                log::info!("{id}: its camera tells its events");
                self.capture.note_events(id, |events| events.since = Some(now));
            }
            EventNews::Lost(why) => {
                log::warn!("{id}: events of its camera are not heard of: {why}");
                self.capture.note_events(id, |events| {
                    *events = EventsStatus { since: None, last_error: Some((why.clone(), now)) };
                });
            }
            EventNews::Event { kind, key, active } => {
                let mut lenses = self.lenses();
                let Some(lens) = lenses.get_mut(id).filter(|lens| lens.plan.events.contains(kind)) else { return };
                let is_new = lens.hear(*kind, *key, *active, now);
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

    /// One look; when another one is needed.
    fn step(&self) -> Option<Duration> {
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
        let mut trouble = None;
        for (id, span) in spans {
            let failed = protect(&self.archive, &id, &span, now).err();
            if let Some(lens) = self.lenses().get_mut(&id) {
                lens.done(now, failed.is_some());
            }
            trouble = failed.map(|why| format!("{id}: what its camera reported is not protected: {why}")).or(trouble);
        }
        let wait = if trouble.is_some() { LOOK_AGAIN } else { LOOK };
        self.alarms.set(AlarmKind::EventsUnprotected, trouble);
        self.lenses().values().any(|lens| lens.span.is_some()).then_some(wait)
    }
}

/// Protects what is listed of a span; else how much is not, and why the first of it is not.
fn protect(archive: &Archive, id: &LensId, span: &Span, now: Mono) -> Result<(), String> {
    let mapping = archive.mapping();
    let until = span.until.min(now);
    let window = Window { from: mapping.utc_of(span.from), to: mapping.utc_of(until) };
    let why: Vec<&str> = span.why.iter().map(|kind| kind.name()).collect();
    let note = KeepNote { who: "camera".into(), why: format!("event: {}", why.join(", ")) };
    let mut skip = 0;
    let (mut failed, mut first) = (0, None);
    loop {
        let page = archive.catalog().segments(Some(id), window, skip, PAGE);
        skip += page.len();
        let is_last = page.len() < PAGE;
        for found in page.into_iter().filter(|found| !found.row.protected) {
            match archive.keep_for_event(&found.row.id, &note) {
                // What is not protected made room for newer footage, or went meanwhile.
                Ok(_) | Err(ArchiveError::NotFound(_)) => {}
                Err(why) => {
                    failed += 1;
                    first = first.or(Some(why));
                }
            }
        }
        if is_last {
            break;
        }
    }
    first.map_or(Ok(()), |why| Err(format!("{failed} segments, the first because {why}")))
}

impl Lens {
    /// Takes an event; whether its kind begins or ends to be active by it.
    fn hear(&mut self, kind: EventKind, key: EventKey, active: bool, now: Mono) -> bool {
        let before = self.is_active(kind);
        let was = if active { self.active.insert((kind, key), now) } else { self.active.remove(&(kind, key)) };
        if !active && was.is_none() {
            // An input's state when the subscription began, or an end that was told before.
            return false;
        }
        if self.active.len() > MOST_ACTIVE
            && let Some(stalest) = self.active.iter().min_by_key(|(_, since)| **since).map(|(source, _)| *source)
        {
            self.active.remove(&stalest);
        }
        let (from, until) = (earlier(now, self.plan.before), later(now, self.plan.after));
        let span = self.span.get_or_insert(Span { from, until, why: BTreeSet::new() });
        (span.from, span.until) = (span.from.min(from), span.until.max(until));
        span.why.insert(kind);
        before != self.is_active(kind)
    }

    fn is_active(&self, kind: EventKind) -> bool {
        self.active.keys().any(|(active, _)| *active == kind)
    }

    /// Forgets events that were not reported for too long, and lets the others go on.
    fn forget(&mut self, now: Mono) -> Vec<EventKind> {
        let old = |since: &Mono| later(*since, LONGEST) < now;
        let before: BTreeSet<EventKind> = self.active.keys().map(|(kind, _)| *kind).collect();
        self.active.retain(|_, since| !old(since));
        let over = before.into_iter().filter(|kind| !self.is_active(*kind)).collect();
        if let Some(span) = self.span.as_mut().filter(|_| !self.active.is_empty()) {
            span.until = span.until.max(later(now, self.plan.after));
        }
        over
    }

    /// Lets go of a span that is protected as a whole, `failed` if it is not.
    fn done(&mut self, now: Mono, failed: bool) {
        let Some(span) = &mut self.span else { return };
        if failed {
            return;
        }
        if later(span.until, LISTED) < now {
            self.span = None;
        } else {
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
mod tests;
