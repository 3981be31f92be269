//! Topics, reference parameters, and a subscription from its beginning to its end.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use super::*;

fn read(topic: &str, operation: &str, item: &str) -> Option<(EventKind, bool)> {
    of_source(topic, operation, "", item).map(|event| (event.kind, event.active))
}

fn of_source(topic: &str, operation: &str, source: &str, item: &str) -> Option<Event> {
    let text = format!(
        "<m><Topic>\n {topic} </Topic><Message><t:Message xmlns:t='x' PropertyOperation='{operation}'><t:Source>{source}</t:Source>\
         <t:Data><t:SimpleItem Name='Count' Value='many'/>{item}</t:Data></t:Message></Message></m>"
    );
    let channel = |n| Channel { configuration: Some(format!("v{n}")), source: Some(format!("s{n}")) };
    event(soap::read("x", &text).unwrap().root_element(), &channel(1), &[channel(2)])
}

#[test]
fn inputs_and_channels_are_told_apart() {
    let on = "<t:SimpleItem Name='LogicalState' Value='true'/>";
    let item = |name: &str, value: &str| format!("<t:SimpleItem Name='{name}' Value='{value}'/>");
    let of = |topic, source: &str| of_source(topic, "Changed", source, on).map(|event| event.key);
    let (input, motion) = ("tns1:Device/Trigger/DigitalInput", "tns1:RuleEngine/CellMotionDetector/Motion");
    let first = of(input, &item("InputToken", "1"));
    assert!(first.is_some() && first != of(input, &item("InputToken", "2")));
    assert_eq!(first, of("tns1:Device/tns1:Trigger/tns1:DigitalInput", &item("InputToken", "1")));
    let end = of_source(input, "Deleted", &item("InputToken", "1"), "").unwrap();
    assert_eq!((Some(end.key), end.active), (first, false));
    let (channel, rule) = (item("VideoSourceConfigurationToken", "v1"), item("Rule", "door"));
    let ours = of(motion, &format!("{channel}{rule}"));
    assert!(ours.is_some() && ours != of(motion, &channel));
    assert_eq!(ours, of(motion, &format!("{rule}{channel}")), "in any order");
    assert_ne!(of(motion, &channel), of("tns1:VideoSource/MotionAlarm", &channel));
    assert_eq!(of(motion, &item("VideoSourceConfigurationToken", "v2")), None, "of another channel");
    assert!(of("tns1:VideoSource/MotionAlarm", &item("Source", "s2")).is_none());
}

#[test]
fn who_answers_at_once_is_not_asked_without_pause() {
    let (soon, late) = (Duration::from_millis(3), HASTY);
    let mut haste = Haste::default();
    assert_eq!(haste.rest(soon, true), HASTY);
    let mut haste = Haste::default();
    for _ in 0..HASTY_IN_A_ROW {
        assert_eq!(haste.rest(soon, false), Duration::ZERO, "events that follow each other are heard of at once");
    }
    for _ in 0..1000 {
        assert_eq!(haste.rest(soon, false), HASTY);
    }
    assert_eq!((haste.rest(late, false), haste.rest(soon, false)), (Duration::ZERO, Duration::ZERO));
}

#[test]
fn topics_of_several_makers_are_understood() {
    let on = "<t:SimpleItem Name='State' Value='true'/>";
    for (topic, kind) in [
        ("tns1:RuleEngine/CellMotionDetector/Motion", EventKind::Motion),
        ("tns1:RuleEngine/tns1:MotionRegionDetector/tns1:Motion", EventKind::Motion),
        ("tns1:VideoSource/MotionAlarm", EventKind::Motion),
        ("tns1:Device/Trigger/DigitalInput", EventKind::DigitalInput),
        ("tns1:VideoSource/GlobalSceneChange/ImagingService", EventKind::Tamper),
        ("tns1:RuleEngine/TamperDetector/Tamper", EventKind::Tamper),
    ] {
        assert_eq!(read(topic, "Changed", on), Some((kind, true)), "{topic}");
        assert_eq!(read(topic, "Deleted", on), Some((kind, false)), "{topic}");
    }
    let motion = "tns1:VideoSource/MotionAlarm";
    assert_eq!(
        read(motion, "Initialized", "<t:SimpleItem Name='IsMotion' Value='0'/>"),
        Some((EventKind::Motion, false))
    );
    assert_eq!(read(motion, "Changed", ""), None);
    for topic in ["tns1:Monitoring/ProcessorUsage", "tns1:VideoSource/ImageTooDark/ImagingService"] {
        assert_eq!(read(topic, "Changed", on), None, "{topic}");
    }
}

#[test]
fn reference_parameters_come_back_as_headers() {
    let text = "<r xmlns:d='urn:\"x'><ReferenceParameters><d:SubscriptionId>7&lt;</d:SubscriptionId></ReferenceParameters></r>";
    let document = soap::read("x", text).unwrap();
    let header = addressing(
        "urn:act",
        Some("http://h/?a&b"),
        &echoed(soap::child(document.root_element(), "ReferenceParameters").unwrap()),
    );
    let envelope = soap::envelope(&header.unwrap(), "");
    let envelope = soap::read("x", &envelope).unwrap();
    let header = soap::child(envelope.root_element(), "Header").unwrap();
    let id = soap::child(header, "SubscriptionId").unwrap();
    assert_eq!((id.text(), id.tag_name().namespace()), (Some("7<"), Some("urn:\"x")));
    assert_eq!(text_of(header, "To"), "http://h/?a&b");
}

fn text_of(node: Node<'_, '_>, name: &str) -> String {
    text(node, &[name]).unwrap().to_owned()
}

/// A camera on loopback: answers each operation once with what `answers` has for it, holds everything else open, and tells
/// every request.
fn camera(answers: &'static [(&str, &str)]) -> (Url, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("onvif://{}/", listener.local_addr().unwrap())).unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut asked = Vec::new();
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let request = request(&mut stream);
            let answer = answers
                .iter()
                .enumerate()
                .find(|(i, (operation, _))| !asked.contains(i) && request.contains(&format!("<{operation} ")));
            if let Some((i, (_, body))) = answer {
                asked.push(i);
                let body = soap::envelope("", body);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).unwrap();
            } else {
                held.push(stream);
            }
            if tell.send(request).is_err() {
                return;
            }
        }
    });
    (url, told)
}

fn request(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

#[test]
fn a_dropped_watch_lifts_its_subscription() {
    let (url, requests) = camera(&[
        ("GetSystemDateAndTime", "<r/>"),
        (
            "GetServices",
            "<r><Service><Namespace>http://www.onvif.org/ver10/events/wsdl</Namespace><XAddr>http://192.0.2.1/ev</XAddr></Service></r>",
        ),
        (
            "CreatePullPointSubscription",
            "<r><SubscriptionReference><a:Address>http://192.0.2.1/s</a:Address><a:ReferenceParameters><d:Id xmlns:d='urn:d'>7</d:Id>\
             </a:ReferenceParameters></SubscriptionReference></r>",
        ),
        (
            "PullMessages",
            "<r><NotificationMessage><Topic>tns1:VideoSource/MotionAlarm</Topic><Message><tt:Message><tt:Data><tt:SimpleItem \
             Name='State' Value='1'/></tt:Data></tt:Message></Message></NotificationMessage></r>",
        ),
        ("Unsubscribe", "<r/>"),
    ]);
    let source = SourceSpec::parse(url.as_str()).unwrap();
    let (tell, told) = mpsc::channel();
    let watch = watch(&source, move |news| drop(tell.send(news))).unwrap().unwrap();
    let patience = Duration::from_mins(1);
    assert_eq!(told.recv_timeout(patience), Ok(EventNews::Subscribed));
    let heard = told.recv_timeout(patience).unwrap();
    assert!(matches!(heard, EventNews::Event { kind: EventKind::Motion, active: true, .. }), "{heard:?}");
    let next = |operation: &str| {
        let request = requests.recv_timeout(patience).unwrap();
        assert!(request.contains(&format!("<{operation} ")), "{operation}: {request}");
        request
    };
    for operation in
        ["GetSystemDateAndTime", "GetServices", "CreatePullPointSubscription", "PullMessages", "PullMessages"]
    {
        next(operation);
    }
    drop(watch);
    let last = next("Unsubscribe");
    assert!(
        last.contains(">http://192.0.2.1/s</a:To>") && last.contains("a:IsReferenceParameter=\"true\">7<"),
        "{last}"
    );
}

#[test]
fn a_subscription_that_failed_is_lifted_before_the_next() {
    const SUBSCRIBED: (&str, &str) = (
        "CreatePullPointSubscription",
        "<r><SubscriptionReference><a:Address>http://192.0.2.1/s</a:Address></SubscriptionReference></r>",
    );
    let (url, requests) = camera(&[
        ("GetSystemDateAndTime", "<r/>"),
        (
            "GetServices",
            "<r><Service><Namespace>http://www.onvif.org/ver10/events/wsdl</Namespace><XAddr>http://192.0.2.1/ev</XAddr></Service></r>",
        ),
        SUBSCRIBED,
        ("PullMessages", "<s:Fault><s:Reason><s:Text>busy</s:Text></s:Reason></s:Fault>"),
        ("Unsubscribe", "<r/>"),
        ("GetSystemDateAndTime", "<r/>"),
    ]);
    let source = SourceSpec::parse(url.as_str()).unwrap();
    let (tell, told) = mpsc::channel();
    let _watch = watch(&source, move |news| drop(tell.send(news))).unwrap().unwrap();
    let patience = Duration::from_mins(1);
    assert_eq!(told.recv_timeout(patience), Ok(EventNews::Subscribed));
    assert!(matches!(told.recv_timeout(patience), Ok(EventNews::Lost(why)) if why.contains("busy")));
    let asked: Vec<String> = std::iter::repeat_with(|| requests.recv_timeout(patience).unwrap()).take(6).collect();
    for (request, operation) in asked.iter().zip([
        "GetSystemDateAndTime",
        "GetServices",
        "CreatePullPointSubscription",
        "PullMessages",
        "Unsubscribe",
        "GetSystemDateAndTime",
    ]) {
        assert!(request.contains(&format!("<{operation} ")), "{operation}: {request}");
    }
}
