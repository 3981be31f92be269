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

/// A request to each operation as it is meant: its query, its body, and the kind of refusal if the rig has not what it asks for.
fn meant(operation: &str) -> (&'static str, &'static str, Option<&'static str>) {
    match operation {
        "ListDevices" => ("?network=false", "", None),
        "GetSegments" => ("?lens=road&start_ts=1795168800000000&end_ts=1795168802000000&limit=3", "", None),
        "ExtractClip" => ("", r#"{"start_offset":0.5,"end_offset":1.5,"edges":"exact"}"#, None),
        "ExtractClipOfLens" => ("", r#"{"start_ts":1795168800500000,"end_ts":1795168801500000,"edges":"gop"}"#, None),
        // What the rig recorded is no picture.
        "Snapshot" => ("", r#"{"keyframe_offset":0.5,"quality":80,"width":64,"height":48}"#, Some("undecodable")),
        "Protect" => ("", r#"{"who":"depot","why":"hit and run"}"#, None),
        "Upload" => {
            let body = r#"{"paths":["segments/road/1/0.mp4"],"destination_uri":"sftp://fleet@192.0.2.1/{lens}/","options":{"host_key":
                "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","password":"x","overwrite":true,"priority":"event",
                "max_rate":4096,"read_back":true,"reduce":true}}"#;
            ("", body, None)
        }
        "RetryUpload" => {
            ("", r#"{"password":"x","host_key":"SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#, None)
        }
        // It has no camera.
        "ConfigureStream" => {
            let body = r#"{"width":640,"height":480,"frame_rate":15,"codec":"h264","bitrate":1000000,"gop":15,"rotation":90,"audio":false}"#;
            ("?from_file=false", body, Some("not_found"))
        }
        "StartCapture" | "StopCapture" | "ResetCapture" | "RemoveLens" | "GetSnapshotFile" => {
            ("", "", Some("not_found"))
        }
        // It has no key to sign one with.
        "GetClipManifest" => ("", "", Some("conflict")),
        "WakeCapture" | "ParkCapture" => ("", "{}", None),
        _ => ("", "", None),
    }
}

/// The router of a rig that has an upload, and its id.
fn api(rig: &Rig, runtime: &tokio::runtime::Runtime) -> (TowerToHyperService<Router>, String) {
    let api = TowerToHyperService::new(local(&rig.services));
    let (_, body, _) = meant("Upload");
    let begun = request(format!("POST /v1/uploads\0{body}").as_bytes()).unwrap();
    let listed = runtime.block_on(async {
        assert_eq!(answered(&api, begun).await.1, None);
        let listed = api.call(request(b"GET /v1/uploads\0").unwrap()).await.unwrap();
        axum::body::to_bytes(listed.into_body(), 1 << 20).await.unwrap()
    });
    let listed: Value = serde_json::from_slice(&listed).unwrap();
    let id = listed["uploads"][0]["id"].as_str().expect("an upload").to_owned();
    (api, id)
}

/// Such requests: what removes something comes last.
fn seeds(upload: &str) -> Vec<(&'static str, Vec<u8>)> {
    // Streams of events do not end.
    let mut operations: Vec<_> = OPERATIONS.iter().filter(|o| !o.3.ends_with("/events")).collect();
    operations.sort_by_key(|(_, name, ..)| {
        let order = ["Upload", "RetryUpload", "CancelUpload", "Unprotect", "Remove", "RemoveLens"];
        order.iter().position(|last| last == name).map_or(0, |at| at + 1)
    });
    operations
        .into_iter()
        .map(|(_, name, method, path)| {
            let id = match path.split('/').nth(2) {
                Some("clips") => "clip-1-1",
                Some("snapshots") => "snapshot-1-1",
                Some("uploads") => upload,
                // The upload may not have let go of the other yet.
                _ if *name == "Remove" => "road-1-1",
                _ => "road-1-0",
            };
            let path = path.replace("{id}", id).replace("{lens}", "road");
            let (query, body, _) = meant(name);
            (*name, format!("{method} {path}{query}\0{body}").into_bytes())
        })
        .collect()
}

/// A request of method, path and query, a zero byte and a body; `None` if those are none.
fn request(data: &[u8]) -> Option<Request<Body>> {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let head = String::from_utf8_lossy(parts.next()?).into_owned();
    let body = parts.next().unwrap_or_default().to_vec();
    let (method, uri) = head.split_once(' ')?;
    let (method, uri) = (method.parse::<Method>().ok()?, uri.parse::<Uri>().ok()?);
    if uri.path().ends_with("/events") || method == Method::HEAD {
        return None;
    }
    let request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
    let mut request = request.body(Body::from(body)).ok()?;
    request.extensions_mut().insert(Arc::new(Caller { who: Who::User(0), role: Some(Role::Admin) }));
    Some(request)
}

/// What comes of one: status, and the kind of a refusal. Fails if a promise of the API does not hold.
async fn answered(api: &TowerToHyperService<Router>, request: Request<Body>) -> (StatusCode, Option<String>) {
    let answer = api.call(request).await.unwrap();
    let status = answer.status();
    let body = axum::body::to_bytes(answer.into_body(), 64 << 20).await.unwrap();
    let text = String::from_utf8_lossy(&body[..body.len().min(4096)]).into_owned();
    assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{text}");
    if status.is_success() || status == StatusCode::NOT_MODIFIED || status == StatusCode::RANGE_NOT_SATISFIABLE {
        return (status, None);
    }
    let told: Value = serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{status}: {e}: {text:?}"));
    assert!(told["error"]["message"].is_string(), "{status}: {text}");
    (status, Some(told["error"]["kind"].as_str().expect("a kind").to_owned()))
}

/// Else mutations of them would try nothing but the first check.
#[test]
fn requests_as_they_are_meant_reach_what_they_ask_for() {
    let (rig, runtime) = (Rig::recorded(5), runtime());
    let (api, upload) = api(&rig, &runtime);
    let mut wrong = Vec::new();
    for (name, data) in seeds(&upload) {
        let request = request(&data).expect("a request");
        let (status, kind) = runtime.block_on(answered(&api, request));
        if kind.as_deref() != meant(name).2 || kind.is_none() && !status.is_success() {
            wrong.push(format!("{name}: {status} {kind:?}, {}", data.escape_ascii()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_request_gets_a_server_error_or_an_answer_in_another_form() {
    let (rig, runtime) = (Rig::recorded(5), runtime());
    let (api, upload) = api(&rig, &runtime);
    let seeds: Vec<Vec<u8>> = seeds(&upload).into_iter().map(|(_, data)| data).collect();
    mutate(&seeds, |data| {
        if let Some(request) = request(data) {
            runtime.block_on(answered(&api, request));
        }
    });
}
