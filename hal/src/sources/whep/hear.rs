//! What becomes of anything that a WHEP server may answer: for the fuzz targets (`crate::fuzzing`).
//!
//! Calls what the client calls, without a network and without a session. Panics if a promise of this room does not hold.

use hyper::header::HeaderValue;
use url::Url;

use super::certificate;
use super::http::Endpoint;
use super::ice::{self, IceServer};
use super::peer::{judge, read};
use crate::source::{Credentials, Trust};

/// Lines with `Link:` or `Location:` before them, and a description from the first empty line on.
pub(crate) fn answer(data: &[u8]) {
    let cut = data.windows(2).position(|two| two == b"\n\n").unwrap_or(data.len());
    let (head, body) = data.split_at(cut);
    let credentials = Credentials { user: "token".into(), password: String::new() };
    for line in head.split(|byte| *byte == b'\n') {
        if let Some(value) = line.strip_prefix(b"Location:").and_then(|value| HeaderValue::from_bytes(value).ok()) {
            for place in ["https://server:8889/x/whep", "http://server/x"] {
                let Ok(url) = Url::parse(place) else { return };
                let at = Endpoint::new(&url, Some(&credentials), &Trust::default());
                if let Some(next) = at.at(&value) {
                    next.is_allowed(&url);
                }
            }
        }
        if let Some(text) = line.strip_prefix(b"Link:").and_then(|value| std::str::from_utf8(value).ok()) {
            for IceServer::Stun(url) | IceServer::Turn(url) in ice::servers(text) {
                let url = Url::parse(&url).map_err(|e| format!("{url:?}: {e}"));
                assert!(url.is_ok_and(|url| url.has_host() && ["stun", "turn", "turns"].contains(&url.scheme())));
            }
        }
    }
    if crate::gst::init().is_ok()
        && let Ok(description) = read(body.get(2..).unwrap_or_default())
        && let Err(why) = judge(&description).and_then(|()| certificate::named(&description).map(drop))
    {
        assert!(why.len() < 300 && why.chars().all(|c| !c.is_control()), "{why:?}");
    }
}
