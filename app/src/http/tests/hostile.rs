//! Requests that nobody means well: mutations of good ones, straight to the router.

use axum::body::Body;
use axum::http::{Method, StatusCode, Uri};
use hyper::Request;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::*;
use crate::access::{Caller, Who};
use crate::fuzzing::tests::mutate;
use crate::http::roles::OPERATIONS;

/// Bodies of each kind that some operation takes.
const BODIES: [&str; 9] = [
    r#"{"from":0.5,"to":1.5,"edges":"exact"}"#,
    r#"{"from_ts":1795168800000000,"to_ts":1795168801000000,"edges":"gop"}"#,
    r#"{"at":0.5,"max_edge":64,"quality":80}"#,
    r#"{"reason":"hit and run","until_ts":1795168800000000}"#,
    r#"{"files":["clips/none.mp4"],"destination":"sftp://fleet@192.0.2.1/{lens}/","host_key":"SHA256:AAAA","credential":{"password":"x"},"options":{"reduce":true,"overwrite":false,"priority":3}}"#,
    r#"{"host_key":"SHA256:AAAA","credential":{"key":"-----BEGIN","passphrase":"x"}}"#,
    r#"{"source":"rtsp://u:p@192.0.2.1/s","width":640,"height":480,"frame_rate":15.5,"bitrate":1000000,"codec":"h264","audio":false}"#,
    r#"{"device":"pci-0000:00:14.0-usb-0:1:1.0-video-index0","mode":"in_place"}"#,
    "",
];

/// Method, path and query, a zero byte, the body.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    // Streams of events do not end.
    for (n, (_, _, method, path)) in OPERATIONS.iter().filter(|o| !o.3.ends_with("/events")).enumerate() {
        let id = if path.contains("snapshots") { "snapshot-1-1" } else { "road-1-1" };
        let id = if path.contains("clips") { "clip-1-1" } else { id };
        let path = path.replace("{id}", id).replace("{lens}", "road");
        for body in [BODIES[n % BODIES.len()], BODIES[(n * 5 + 3) % BODIES.len()]] {
            let query = "?lens=road&from_ts=0&to_ts=1795168900000000&limit=3&after=road-1-0";
            seeds.push(format!("{method} {path}{query}\0{body}").into_bytes());
        }
    }
    seeds
}

#[test]
fn no_request_gets_a_server_error_or_an_answer_in_another_form() {
    let rig = Rig::recorded(5);
    let api = TowerToHyperService::new(local(&rig.services));
    let caller = Arc::new(Caller { who: Who::User(0), role: Some(Role::Admin) });
    let runtime = runtime();
    mutate(&seeds(), |data| {
        let mut parts = data.splitn(2, |byte| *byte == 0);
        let head = String::from_utf8_lossy(parts.next().unwrap()).into_owned();
        let body = parts.next().unwrap_or_default().to_vec();
        let Some((method, uri)) = head.split_once(' ') else { return };
        let (Ok(method), Ok(uri)) = (method.parse::<Method>(), uri.parse::<Uri>()) else { return };
        if uri.path().ends_with("/events") || method == Method::HEAD {
            return;
        }
        let request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
        let mut request = request.body(Body::from(body)).unwrap();
        request.extensions_mut().insert(caller.clone());
        runtime.block_on(async {
            let answer = api.call(request).await.unwrap();
            let status = answer.status();
            let body = axum::body::to_bytes(answer.into_body(), 64 << 20).await.unwrap();
            let text = String::from_utf8_lossy(&body[..body.len().min(4096)]).into_owned();
            assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{text}");
            if !status.is_success() && status != StatusCode::NOT_MODIFIED && status != StatusCode::RANGE_NOT_SATISFIABLE
            {
                let told: Value = serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{status}: {e}: {text:?}"));
                assert!(told["error"]["kind"].is_string() && told["error"]["message"].is_string(), "{status}: {text}");
            }
        });
    });
}
