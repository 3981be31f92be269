//! What becomes of anything that a camera may answer, whatever it was asked: for the fuzz targets (`crate::fuzzing`).
//!
//! Calls what the client calls, without a network. Panics if a promise of this room does not hold.

use jiff::Timestamp;
use roxmltree::Node;
use url::Url;

use super::client::{Camera, Channel, Profile, choose, describe};
use super::security::ClockOffset;
use super::soap::{self, children, text};
use super::{discovery, events};
use crate::source::{Credentials, Trust};

/// What the camera of the configuration is: nothing that it answers may lead elsewhere.
const HOST: &str = "192.0.2.7";
/// The configured login, which a camera may repeat.
const SECRET: &str = "a-password";

/// An answer of SOAP.
pub(crate) fn answer(text: &str) {
    let credentials = Credentials { user: "operator".into(), password: SECRET.into() };
    for scheme in ["onvif", "onvifs"] {
        let Ok(url) = Url::parse(&format!("{scheme}://{HOST}:8000/")) else { return };
        let Ok(camera) = Camera::unmet(&url, Some(&credentials), &Trust::default()) else { return };
        let read =
            soap::read("Get", text).and_then(|document| soap::body("Get", &document).map(|body| asked(&camera, body)));
        if let Err(e) = read {
            let told = camera.clean(e).to_string();
            is_fit(&told);
            // N1: and no error holds the password, if it is not the camera's own word for something.
            assert!(!told.contains(SECRET), "{told:?}");
        }
    }
}

/// A datagram that answers a search with the id `search`.
pub(crate) fn datagram(data: &[u8]) {
    let from = ([192, 0, 2, 7], 3702).into();
    for found in discovery::read(data, from, "search") {
        is_fit(&found.reference);
        found.addresses.iter().for_each(|address| is_fit(address));
        [&found.name, &found.hardware, &found.location].into_iter().flatten().for_each(|text| is_fit(text));
        assert!(found.addresses.len() <= 8);
    }
}

fn asked(camera: &Camera, body: Node<'_, '_>) {
    let _ = ClockOffset::of(body, Timestamp::now()).map(|offset| (offset.matters(), offset.seconds()));
    let profiles: Vec<Profile> = children(body, "Profiles").filter_map(Profile::read).collect();
    for asked in ["", "main"] {
        match choose(&profiles, asked) {
            Ok(profile) => is_fit(&describe(profile)),
            Err(e) => is_fit(&e.to_string()),
        }
    }
    for node in body.descendants().filter(Node::is_element) {
        for name in ["XAddr", "Uri", "Address"] {
            let Some(place) = text(node, &[name]) else { continue };
            if let Some(reached) = camera.reached(place) {
                assert_eq!(reached.host, HOST, "N2");
                assert_eq!(reached.secure, camera.is_secure(), "N5");
            }
            if let Ok(url) = camera.own("Get", Some(place), &["rtsp", "rtsps"]) {
                assert_eq!((url.host_str(), url.username(), url.password()), (Some(HOST), "", None), "N1, N2: {url}");
            }
        }
        if let Some(event) = events::event(node, &Channel::default(), &[]) {
            is_fit(event.kind.name());
        }
        // What is echoed is one header for each parameter, and nothing of it breaks out.
        let echoed = soap::envelope(&events::echoed(node), "");
        if let Ok(again) = soap::read("Echo", &echoed) {
            let header = soap::child(again.root_element(), "Header");
            assert!(header.is_some_and(|header| header.children().filter(Node::is_element).count() <= 8), "{echoed}");
        }
    }
}

/// Whether a text of ours may be shown: it steers no terminal.
fn is_fit(text: &str) {
    assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
}
