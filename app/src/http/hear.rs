//! What becomes of anything that a client may send before an operation looks at what it is about: for the fuzz targets
//! (`crate::fuzzing`).
//!
//! Calls what the operations call, without an archive: bodies, queries, ids, and what a TCP client shows at the door. Panics if a
//! promise of this room does not hold. What comes behind is tried with whole requests in `tests/hostile.rs`.

use std::future::Future;

use axum::body::Body as Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use mos_hal::media::LensId;
use mos_hal::source::SourceSpec;
use tokio::runtime::{Builder, Runtime};

use super::Door;
use super::capture_control::How;
use super::clips::{ClipOfLens, ClipOfSegment};
use super::extract::{Body, Params};
use super::fault::Fault;
use super::guard;
use super::segments::{Cursor, ProtectRequest, SegmentQuery, lens_id, segment_id};
use super::snapshots::SnapshotRequest;
use super::tokens::Tokens;
use crate::access::{Role, Token, TokenHash};
use crate::capture::{Isolation, LensConfig, StreamSettings};
use crate::upload::queue::{self, RetryRequest, UploadRequest};

/// Sources that ConfigureStream is asked about.
const SOURCES: [&str; 4] = ["test:?width=640&height=480", "v4l2:/dev/video0?fps=25", "qmmf:0", "rtsp://192.0.2.7/s"];

/// What a client sends, its kind by the first byte.
pub(crate) fn request(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 12 {
        0 => {
            if let Ok(Body(asked)) = body::<UploadRequest>(data) {
                queue::hear(&asked.destination_uri, &asked.options);
            }
        }
        1 => {
            if let Ok(Body(asked)) = body::<RetryRequest>(data) {
                queue::hear_again(&asked);
            }
        }
        2 => drop(body::<ClipOfSegment>(data)),
        3 => drop(body::<ClipOfLens>(data)),
        4 => drop(body::<SnapshotRequest>(data)),
        5 => drop(body::<ProtectRequest>(data)),
        6 => {
            if let Ok(Body(asked)) = body::<StreamSettings>(data) {
                settings(&asked);
            }
        }
        7 => {
            if let Ok(Params(SegmentQuery { cursor: Some(cursor), .. })) = query(data) {
                let _ = Cursor::read(&cursor);
            }
        }
        8 => drop(query::<How>(data)),
        9 => {
            let text = String::from_utf8_lossy(data);
            if let Ok(id) = segment_id(&text) {
                assert_eq!(segment_id(&id.to_string()).ok(), Some(id.clone()));
                // It becomes a path.
                assert!(id.keep_path().components().all(|c| matches!(c, std::path::Component::Normal(_))), "{id}");
            }
            if let Ok(lens) = lens_id(&text) {
                assert!(!lens.as_str().contains(['/', '\0']) && !["", ".", ".."].contains(&lens.as_str()));
            }
        }
        _ => door(data),
    }
}

fn settings(asked: &StreamSettings) {
    for source in SOURCES {
        let (Ok(source), Ok(id)) = (SourceSpec::parse(source), LensId::new("road")) else { return };
        let base = LensConfig { id, source, audio: false, frames: None, isolation: Isolation::None };
        let all = asked.over(&StreamSettings::default());
        if let Ok(made) = all.apply(&base) {
            // What was taken once is taken again, as at the next start.
            assert!(all.apply(&made).is_ok(), "{asked:?}: {}", made.source);
        }
    }
}

/// Lines of `name: value`. Nobody here has the token.
fn door(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else { continue };
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.trim_ascii())) {
            headers.append(name, value);
        }
    }
    let token = Token { name: "road".into(), role: Role::Viewer, hash: TokenHash::of("what nobody says to a fuzzer") };
    for (host_names, addresses, tls) in [(vec![], false, false), (vec!["bus-7.example".into()], true, true)] {
        let door = Door { tokens: Tokens::new(vec![token.clone()]), host_names, addresses, tls };
        assert!(guard::admitted(&door, &headers).is_err());
    }
}

fn body<T: serde::de::DeserializeOwned>(data: &[u8]) -> Result<Body<T>, Fault> {
    let request = Request::builder().method(Method::POST).header("content-type", "application/json");
    let request = request.body(Bytes::from(data.to_vec())).map_err(|e| Fault::bad(e.to_string()))?;
    at_once(<Body<T> as FromRequest<()>>::from_request(request, &()))
}

fn query<T: serde::de::DeserializeOwned>(data: &[u8]) -> Result<Params<T>, Fault> {
    let uri = format!("/v1/x?{}", String::from_utf8_lossy(data));
    let request = Request::builder().uri(uri).body(Bytes::empty()).map_err(|e| Fault::bad(e.to_string()))?;
    at_once(Params::from_request_parts(&mut request.into_parts().0, &()))
}

thread_local! {
    static RUNTIME: Option<Runtime> = Builder::new_current_thread().enable_time().build().ok();
}

/// What has all that it waits for.
fn at_once<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let runtime = |r: &Option<Runtime>| r.as_ref().map(|runtime| runtime.block_on(work));
    RUNTIME.with(runtime).unwrap_or_else(|| Err(Fault::bad("no runtime")))
}
