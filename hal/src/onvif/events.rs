//! Events of a camera by a PullPoint subscription: motion, digital inputs, tampering.
//!
//! Promises that a camera which is gone, refuses or talks nonsense is subscribed to again with growing delay, for as long as the
//! watch lives; that a subscription which is dropped or failed is lifted if the camera can still be asked; that a camera which
//! answers at once whatever it is asked is not asked without pause; that events of other channels of the same device are not
//! told; and that nothing here has to do with the recording: another connection, another thread. An event is told when it
//! arrives, for a camera's clock may be wrong by any amount (N4).
//!
//! Facts: ONVIF Core specification, section 9 (event handling: CreatePullPointSubscription, PullMessages, Renew, Unsubscribe,
//! message format), WS-BaseNotification 1.3, WS-Addressing 1.0 SOAP binding section 3.1 (reference parameters); topics of the
//! Imaging, Device IO and Analytics service specifications.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use roxmltree::Node;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use super::client::{self, Camera, Channel};
use super::http::Endpoint;
use super::soap::{self, children, escaped, text};
use super::{OnvifError, runtime, security, shown};
use crate::source::{Credentials, SourceSpec, Trust};

/// How long a camera may hold a question for events open.
const PULL: Duration = Duration::from_secs(20);
/// How long a subscription lives without being renewed; its end is the camera's matter if we die.
const LIFE: Duration = Duration::from_mins(1);
/// When it is renewed.
const RENEW: Duration = Duration::from_secs(25);
/// An answer that comes sooner may be one of a camera that does not hold questions open; the next question waits as long.
const HASTY: Duration = Duration::from_millis(500);
/// Answers with events in a row that may come sooner: a door and the light behind it.
const HASTY_IN_A_ROW: u32 = 4;
/// How long a camera that failed may take to lift the subscription that it failed with.
const LIFTING: Duration = Duration::from_secs(4);
/// Until the next attempt, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// Most events of one answer that are looked at.
const MOST: usize = 256;

const EVENTS: &str = "http://www.onvif.org/ver10/events/wsdl";
const NOTIFICATION: &str = "http://docs.oasis-open.org/wsn/b-2";
const ANONYMOUS: &str = "http://www.w3.org/2005/08/addressing/anonymous";

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// Something moves.
    Motion,
    /// An input of the camera, as a door contact.
    DigitalInput,
    /// The camera was covered, turned away or defocused. That it is dark does not count: it is so every night.
    Tamper,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Motion, Self::DigitalInput, Self::Tamper];

    /// The name in configuration and API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Motion => "motion",
            Self::DigitalInput => "digital_input",
            Self::Tamper => "tamper",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Of a topic without prefixes; `None` for what is none of these.
    fn of(topic: &str) -> Option<Self> {
        let plain: Vec<&str> = topic.split('/').map(|part| part.rsplit(':').next().unwrap_or(part).trim()).collect();
        match plain.as_slice() {
            ["RuleEngine", "CellMotionDetector" | "MotionRegionDetector", "Motion"]
            | ["VideoSource", "MotionAlarm", ..]
            | ["VideoAnalytics", "MotionDetection" | "Motion", ..] => Some(Self::Motion),
            ["Device", "Trigger", "DigitalInput", ..] => Some(Self::DigitalInput),
            ["VideoSource", "GlobalSceneChange" | "ImageTooBlurry", ..] | ["RuleEngine", "TamperDetector", ..] => {
                Some(Self::Tamper)
            }
            _ => None,
        }
    }
}

/// Which of a camera's sources of a kind an event is of: its topic and what it names, as an input or a rule. Those of one
/// are told apart from those of another, whose end is not its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey(pub u64);

impl EventKey {
    /// Of a topic without prefixes and pairs of names and values, in any order.
    fn of(topic: &str, items: &mut [(&str, &str)]) -> Self {
        items.sort_unstable();
        let mut hash = DefaultHasher::new();
        for part in topic.split('/') {
            part.rsplit(':').next().unwrap_or(part).trim().hash(&mut hash);
        }
        items.hash(&mut hash);
        Self(hash.finish())
    }
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventNews {
    /// The camera tells its events from now on.
    Subscribed,
    /// It does not any more, or not yet. Told once for each stretch of time without a subscription.
    Lost(String),
    /// Something began, goes on (cameras repeat themselves) or is over.
    Event {
        /// What it is about.
        kind: EventKind,
        /// Of which source of that.
        key: EventKey,
        /// Not over.
        active: bool,
    },
}

/// A watch; its end is that of the subscription.
#[derive(Debug)]
pub struct EventWatch {
    _end: oneshot::Sender<()>,
}

/// Watches the camera of an `onvif://` source; `None` for any other. `told` is called on the thread that talks ONVIF and must not
/// wait.
pub fn watch(source: &SourceSpec, told: impl Fn(EventNews) + Send + Sync + 'static) -> io::Result<Option<EventWatch>> {
    let SourceSpec::Onvif { url, credentials, trust, .. } = source else { return Ok(None) };
    let (end, ended) = oneshot::channel();
    let asked = Asked { url: url.clone(), credentials: credentials.clone(), trust: trust.clone() };
    runtime::detach(follow(asked, Arc::new(told), ended))?;
    Ok(Some(EventWatch { _end: end }))
}

struct Asked {
    url: Url,
    credentials: Option<Credentials>,
    trust: Trust,
}

type Told = Arc<dyn Fn(EventNews) + Send + Sync>;

/// Subscribes again and again until the watch is dropped.
async fn follow(asked: Asked, told: Told, mut ended: oneshot::Receiver<()>) {
    let (mut delay, mut lost) = (AGAIN.0, false);
    loop {
        let begun = Instant::now();
        let mut subscribed = None;
        let why = tokio::select! {
            // Resolves when the sender is dropped.
            _ = &mut ended => None,
            why = follow_once(&asked, &told, &mut subscribed) => Some(why),
        };
        let Some(why) = why else {
            if let Some(subscription) = subscribed {
                subscription.lift().await;
            }
            return;
        };
        let had_one = subscribed.is_some();
        // It counts against what the camera can hold until its end, and some hold four.
        if let Some(subscription) =
            subscribed.filter(|_| !matches!(why, OnvifError::Unreachable(_) | OnvifError::BrokeOff(_)))
        {
            let _ = timeout(LIFTING, subscription.lift()).await;
        }
        if had_one || !lost {
            told(EventNews::Lost(why.to_string()));
        }
        lost = true;
        delay = if had_one && begun.elapsed() > AGAIN.1 { AGAIN.0 } else { delay };
        tokio::select! {
            _ = &mut ended => return,
            () = sleep(delay) => {}
        }
        delay = (delay * 2).min(AGAIN.1);
    }
}

/// One subscription to its end.
async fn follow_once(asked: &Asked, told: &Told, place: &mut Option<Subscription>) -> OnvifError {
    let subscription = match Subscription::begin(asked).await {
        Ok(subscription) => place.insert(subscription),
        Err(e) => return e,
    };
    told(EventNews::Subscribed);
    let mut renewed = Instant::now();
    let mut haste = Haste::default();
    loop {
        let begun = Instant::now();
        let events = match subscription.pull().await {
            Ok(events) => events,
            Err(e) => return e,
        };
        let rest = haste.rest(begun.elapsed(), events.is_empty());
        for Event { kind, key, active } in events {
            told(EventNews::Event { kind, key, active });
        }
        sleep(rest).await;
        if renewed.elapsed() > RENEW {
            match subscription.renew().await {
                // Those without Renew keep a subscription for as long as it is pulled from.
                Ok(()) | Err(OnvifError::Fault { .. } | OnvifError::Nonsense { .. }) => renewed = Instant::now(),
                Err(e) => return e,
            }
        }
    }
}

/// Answers in a row that came too soon.
#[derive(Default)]
struct Haste(u32);

impl Haste {
    /// How long the next question waits behind an answer that took so long.
    fn rest(&mut self, took: Duration, empty: bool) -> Duration {
        if took >= HASTY {
            self.0 = 0;
            return Duration::ZERO;
        }
        self.0 = self.0.saturating_add(1);
        if empty || self.0 > HASTY_IN_A_ROW { HASTY } else { Duration::ZERO }
    }
}

/// A subscription at the camera.
struct Subscription {
    camera: Camera,
    at: Endpoint,
    /// Its address as the camera wrote it, and what it wants to see in each request.
    to: String,
    parameters: String,
    /// Whose events are told, and whose are not.
    channel: Channel,
    others: Vec<Channel>,
}

impl Subscription {
    async fn begin(asked: &Asked) -> Result<Self, OnvifError> {
        let operation = "CreatePullPointSubscription";
        let mut camera = Camera::meet(&asked.url, asked.credentials.as_ref(), &asked.trust).await?;
        let at = camera.events().ok_or_else(|| OnvifError::NoStream("it has no event service".into()))?;
        let (channel, others) = client::channels(&mut camera, &asked.url).await?;
        let action = format!("{EVENTS}/EventPortType/{operation}Request");
        let header = addressing(&action, None, "")?;
        let body = format!(
            "<{operation} xmlns=\"{EVENTS}\"><InitialTerminationTime>PT{}S</InitialTerminationTime></{operation}>",
            LIFE.as_secs()
        );
        let read = |body: Node<'_, '_>| {
            let reference = soap::child(body, "SubscriptionReference");
            let to = reference.and_then(|r| text(r, &["Address"])).map(str::to_owned);
            let to = to.ok_or_else(|| OnvifError::Nonsense { operation, reason: "no address".into() })?;
            let parameters = reference.and_then(|r| soap::child(r, "ReferenceParameters"));
            Ok((to, parameters.map(echoed).unwrap_or_default()))
        };
        let (to, parameters) = camera.ask_with(&at, operation, &header, &body, None, read).await?;
        // Some name no address that can be read; then it is that of the service.
        let at = camera.reached(&to).unwrap_or(at);
        Ok(Self { camera, at, to, parameters, channel, others })
    }

    /// What happened; waits until something does.
    async fn pull(&mut self) -> Result<Vec<Event>, OnvifError> {
        let seconds = PULL.as_secs();
        let body = format!(
            "<PullMessages xmlns=\"{EVENTS}\"><Timeout>PT{seconds}S</Timeout><MessageLimit>64</MessageLimit></PullMessages>"
        );
        let action = format!("{EVENTS}/PullPointSubscription/PullMessagesRequest");
        let (channel, others) = (self.channel.clone(), self.others.clone());
        self.ask("PullMessages", &action, &body, Some(PULL), |body| {
            let messages = children(body, "NotificationMessage").take(MOST);
            Ok(messages.filter_map(|message| event(message, &channel, &others)).collect())
        })
        .await
    }

    async fn renew(&mut self) -> Result<(), OnvifError> {
        let life = LIFE.as_secs();
        let body = format!("<Renew xmlns=\"{NOTIFICATION}\"><TerminationTime>PT{life}S</TerminationTime></Renew>");
        let action = "http://docs.oasis-open.org/wsn/bw-2/SubscriptionManager/RenewRequest";
        self.ask("Renew", action, &body, None, |_| Ok(())).await
    }

    async fn lift(mut self) {
        let body = format!("<Unsubscribe xmlns=\"{NOTIFICATION}\"/>");
        let action = "http://docs.oasis-open.org/wsn/bw-2/SubscriptionManager/UnsubscribeRequest";
        if let Err(e) = self.ask("Unsubscribe", action, &body, None, |_| Ok(())).await {
            log::debug!("onvif: a subscription is left to end by itself: {e}");
        }
    }

    async fn ask<T>(
        &mut self,
        operation: &'static str,
        action: &str,
        body: &str,
        held: Option<Duration>,
        read: impl FnOnce(Node<'_, '_>) -> Result<T, OnvifError>,
    ) -> Result<T, OnvifError> {
        let header = addressing(action, Some(&self.to), &self.parameters)?;
        self.camera.ask_with(&self.at, operation, &header, body, held, read).await
    }
}

/// What tells a camera which of its subscriptions is meant.
fn addressing(action: &str, to: Option<&str>, parameters: &str) -> Result<String, OnvifError> {
    let id = security::message_id().map_err(OnvifError::Unreachable)?;
    let to = to.map(|to| format!("<a:To s:mustUnderstand=\"1\">{}</a:To>", escaped(to))).unwrap_or_default();
    Ok(format!(
        "<a:Action s:mustUnderstand=\"1\">{action}</a:Action><a:MessageID>{id}</a:MessageID>\
         <a:ReplyTo><a:Address>{ANONYMOUS}</a:Address></a:ReplyTo>{to}{parameters}"
    ))
}

/// Reference parameters as headers: texts in elements of their names; nested ones are not in use.
pub(super) fn echoed(parameters: Node<'_, '_>) -> String {
    let mut out = String::new();
    for parameter in parameters.children().filter(Node::is_element).take(8) {
        let (name, namespace) = (parameter.tag_name().name(), parameter.tag_name().namespace().unwrap_or_default());
        let (namespace, value) = (escaped(namespace), escaped(parameter.text().unwrap_or_default()));
        let _ = write!(out, "<p:{name} xmlns:p=\"{namespace}\" a:IsReferenceParameter=\"true\">{value}</p:{name}>");
    }
    out
}

/// What a notification tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: EventKind,
    key: EventKey,
    active: bool,
}

/// What a notification tells; `None` for what is of no interest, or of another channel than `channel`.
pub(super) fn event(message: Node<'_, '_>, channel: &Channel, others: &[Channel]) -> Option<Event> {
    let topic = text(message, &["Topic"])?;
    let kind = EventKind::of(topic)?;
    let told = soap::at(message, &["Message", "Message"])?;
    let parts = ["Source", "Key"].into_iter().filter_map(|part| soap::child(told, part));
    let named = parts.flat_map(|part| children(part, "SimpleItem")).take(MOST);
    let mut named: Vec<_> =
        named.filter_map(|item| Some((item.attribute("Name")?, item.attribute("Value")?))).collect();
    if named.iter().any(|(name, value)| channel.is_foreign(others, name, value)) {
        return None;
    }
    let key = EventKey::of(topic, &mut named);
    if told.attribute("PropertyOperation") == Some("Deleted") {
        return Some(Event { kind, key, active: false });
    }
    let mut items = soap::child(told, "Data").into_iter().flat_map(|data| children(data, "SimpleItem"));
    // IsMotion, State or LogicalState, by topic and maker: the first that is a truth value.
    let active = items.find_map(|item| truth(item.attribute("Value")?));
    if active.is_none() {
        log::debug!("onvif: an event of {} without a state", shown(topic));
    }
    Some(Event { kind, key, active: active? })
}

fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "active" => Some(true),
        "false" | "0" | "inactive" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
