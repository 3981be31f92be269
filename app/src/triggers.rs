//! Events of network cameras as triggers: what a camera reports protects the footage around it.
//!
//! Promises:
//! - G1: while an event is active, and for `after` behind it, every segment of the lens is protected, and so are those of `before`
//!   it; as durably as by Protect, and until the room is wanted by others (`archive/yielding.rs`).
//! - G2: an event that never ends protects for [`LONGEST`] after the camera last reported it; so does one whose camera is lost.
//! - G3: each beginning and end is told to those who follow GetCaptureEvents, once.
//! - G4: nothing here touches the recording: no event, refusal or camera that talks nonsense does.
//! - G5: a kind of event is active for as long as any of its sources is: the end of one input's is not that of another's.
//! - G6: a segment that cannot be protected keeps none of the others from it; it is tried again until it is protected or gone
//!   (of each lens the newest [`MOST_REFUSED`]), and an alarm stands meanwhile. A restart forgets what was not protected yet.
//! - G7: no refusal, however long it lasts, has footage protected at which no event was active.
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
use crate::archive::ids::SegmentId;
use crate::archive::{Archive, ArchiveError, KeepNote, Window};
use crate::capture::{CaptureControlService, EventsStatus, News};

/// An event counts as active for so long after it was last reported.
const LONGEST: Duration = Duration::from_mins(5);
/// From look to look while something is to be protected, and after one that could not protect it all.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Footage is listed so long after its capture at the latest, unless the disk stalls: then what is listed must have come past it, for
/// at most [`LONGEST`].
const LISTED: Duration = Duration::from_secs(10);
/// Segments that are listed at once.
const PAGE: usize = 1000;
/// Most sources of events of a lens that are told apart.
const MOST_ACTIVE: usize = 64;
/// Most spans of a lens that are told apart. There are more than one only while a look takes long: they are let go soon.
const MOST_SPANS: usize = 64;
/// Most segments of a lens that are tried again.
const MOST_REFUSED: usize = 1024;
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
    /// The oldest first, apart from each other.
    spans: Vec<Span>,
    refused: Refused,
}

/// Segments that could not be protected, and for what they should be.
type Refused = BTreeMap<SegmentId, BTreeSet<EventKind>>;

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
        let table = planned.iter().map(|(id, _, plan)| (id.clone(), Lens::new(plan.clone())));
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
        let shared = Arc::clone(&self.shared);
        let fault = |e: &str| {
            log::error!("a look at events of cameras failed: {e}");
            let words = "a fault of the program keeps events from being protected; see the log";
            self.shared.alarms.set(AlarmKind::EventsUnprotected, Some(words.to_owned()));
        };
        match looks(move || shared.step(), &self.shared.changed, LOOK_AGAIN, fault).await {}
    }
}

/// Looks, and again when a look said or something changed. One that panics costs itself: after a while comes the next.
async fn looks(
    look: impl Fn() -> Option<Duration> + Send + Sync + 'static,
    changed: &Notify,
    again: Duration,
    fault: impl Fn(&str),
) -> std::convert::Infallible {
    let look = Arc::new(look);
    loop {
        let look = Arc::clone(&look);
        // The disk may be waited for.
        match tokio::task::spawn_blocking(move || look()).await {
            Ok(Some(wait)) => tokio::time::sleep(wait).await,
            Ok(None) => changed.notified().await,
            Err(e) => {
                fault(&e.to_string());
                tokio::time::sleep(again).await;
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
                let news = lens.hear(*kind, *key, *active, now);
                drop(lenses);
                self.changed.notify_one();
                for (kind, active) in news {
                    self.tell(id, kind, active, now);
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
        let wanting = lenses.iter().filter(|(_, lens)| lens.wants());
        let wanted: Vec<(LensId, Vec<Span>, Refused)> =
            wanting.map(|(id, lens)| (id.clone(), lens.spans.clone(), lens.refused.clone())).collect();
        drop(lenses);
        for (id, kind) in over {
            self.tell(&id, kind, false, now);
        }
        let mut trouble = None;
        for (id, spans, refused) in wanted {
            let listed = self.archive.catalog().reaches(&id, self.archive.run());
            let (refused, why) = protect(&self.archive, &id, &spans, refused, now);
            if let Some(lens) = self.lenses().get_mut(&id) {
                lens.done(now, listed, refused);
            }
            trouble = why.map(|why| format!("{id}: what its camera reported is not protected: {why}")).or(trouble);
        }
        let wait = if trouble.is_some() { LOOK_AGAIN } else { LOOK };
        self.alarms.set(AlarmKind::EventsUnprotected, trouble);
        self.lenses().values().any(Lens::wants).then_some(wait)
    }
}

/// Protects what is listed of some spans, and what was refused before; gives what is refused now, and in words how much that is
/// and why the first of it is not protected.
fn protect(archive: &Archive, id: &LensId, spans: &[Span], refused: Refused, now: Mono) -> (Refused, Option<String>) {
    let mut wanted = refused;
    for span in spans {
        for segment in unprotected(archive, id, span, now) {
            wanted.entry(segment).or_default().extend(&span.why);
        }
    }
    let mut first = None;
    wanted.retain(|segment, kinds| {
        let why: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
        let note = KeepNote { who: "camera".into(), why: format!("event: {}", why.join(", ")) };
        match archive.keep_for_event(segment, &note) {
            // What is not protected made room for newer footage, or went meanwhile.
            Ok(_) | Err(ArchiveError::NotFound(_)) => false,
            Err(why) => {
                first.get_or_insert(why);
                true
            }
        }
    });
    let words = first.map(|why| format!("{} segments, the first because {why}", wanted.len()));
    (wanted, words)
}

/// What is listed of a span and not protected.
fn unprotected(archive: &Archive, id: &LensId, span: &Span, now: Mono) -> Vec<SegmentId> {
    let mapping = archive.mapping();
    let window = Window { from: mapping.utc_of(span.from), to: mapping.utc_of(span.until.min(now)) };
    let (mut found, mut skip) = (Vec::new(), 0);
    loop {
        let page = archive.catalog().segments(Some(id), window, skip, PAGE);
        skip += page.len();
        let is_last = page.len() < PAGE;
        found.extend(page.into_iter().filter(|found| !found.row.protected).map(|found| found.row.id));
        if is_last {
            return found;
        }
    }
}

impl Lens {
    fn new(plan: TriggerPlan) -> Self {
        Self { plan, active: BTreeMap::new(), spans: Vec::new(), refused: Refused::new() }
    }

    /// Whether anything of it is to be protected.
    fn wants(&self) -> bool {
        !self.spans.is_empty() || !self.refused.is_empty()
    }

    /// Takes an event; which kinds begin or end to be active by it.
    fn hear(&mut self, kind: EventKind, key: EventKey, active: bool, now: Mono) -> Vec<(EventKind, bool)> {
        let before = self.kinds();
        let goes_on = self.active.values().any(|since| later(*since, LONGEST) >= now);
        let was = if active { self.active.insert((kind, key), now) } else { self.active.remove(&(kind, key)) };
        if !active && was.is_none() {
            // An input's state when the subscription began, or an end that was told before.
            return Vec::new();
        }
        if self.active.len() > MOST_ACTIVE
            && let Some(stalest) = self.active.iter().min_by_key(|(_, since)| **since).map(|(source, _)| *source)
        {
            self.active.remove(&stalest);
        }
        let (from, until) = (earlier(now, self.plan.before), later(now, self.plan.after));
        let full = self.spans.len() >= MOST_SPANS;
        match self.spans.last_mut().filter(|span| goes_on || full || from <= span.until) {
            Some(span) => {
                (span.from, span.until) = (span.from.min(from), span.until.max(until));
                span.why.insert(kind);
            }
            None => self.spans.push(Span { from, until, why: [kind].into() }),
        }
        // The stalest source may have been the only one of its kind.
        let after = self.kinds();
        before.symmetric_difference(&after).map(|kind| (*kind, after.contains(kind))).collect()
    }

    /// Kinds that are active.
    fn kinds(&self) -> BTreeSet<EventKind> {
        self.active.keys().map(|(kind, _)| *kind).collect()
    }

    /// Forgets events that were not reported for too long, and lets the others go on.
    fn forget(&mut self, now: Mono) -> Vec<EventKind> {
        let old = |since: &Mono| later(*since, LONGEST) < now;
        let before = self.kinds();
        self.active.retain(|_, since| !old(since));
        let over = before.difference(&self.kinds()).copied().collect();
        if let Some(span) = self.spans.last_mut().filter(|_| !self.active.is_empty()) {
            span.until = span.until.max(later(now, self.plan.after));
        }
        over
    }

    /// Lets go of spans that were looked through as a whole, while so much was listed: `refused` is what is left of them.
    fn done(&mut self, now: Mono, listed: Option<Mono>, refused: Refused) {
        let comes = |until| listed.is_none_or(|listed| listed < until) && later(until, LONGEST) >= now;
        self.spans.retain(|span| later(span.until, LISTED) >= now || comes(span.until));
        let through = listed.unwrap_or(Mono(i64::MIN)).clamp(earlier(now, LONGEST), now);
        for span in &mut self.spans {
            // What was captured before is listed and was looked at.
            span.from = span.from.max(earlier(through, self.plan.before + LISTED));
        }
        self.refused = refused;
        while self.refused.len() > MOST_REFUSED {
            self.refused.pop_first();
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
