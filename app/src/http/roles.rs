//! The least role of every operation: one table, and the guard that asks for it before an operation runs.
//!
//! Promises: (R1) no operation runs for a caller below its least role; (R2) an operation that is missing here asks for an
//! admin, and a test that walks the OpenAPI document fails; (R3) a refusal says which role is needed and which the caller has.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::fault::Fault;
use crate::access::{Caller, Role, Who};
use crate::error::Kind;

/// Operation ids as in the OpenAPI document, with method, path and least role.
pub(super) const OPERATIONS: &[(Role, &str, Method, &str)] = &[
    (Role::Viewer, "ListDevices", Method::GET, "/v1/capture/devices"),
    (Role::Viewer, "GetStatus", Method::GET, "/v1/capture/status"),
    (Role::Viewer, "GetCaptureEvents", Method::GET, "/v1/capture/events"),
    (Role::Operator, "StartCapture", Method::POST, "/v1/capture/lenses/{lens}/start"),
    (Role::Operator, "StopCapture", Method::POST, "/v1/capture/lenses/{lens}/stop"),
    (Role::Operator, "ResetCapture", Method::POST, "/v1/capture/lenses/{lens}/reset"),
    (Role::Viewer, "GetPower", Method::GET, "/v1/capture/power"),
    (Role::Operator, "WakeCapture", Method::POST, "/v1/capture/wake"),
    (Role::Operator, "ParkCapture", Method::POST, "/v1/capture/park"),
    (Role::Admin, "ConfigureStream", Method::POST, "/v1/capture/lenses/{lens}/configure"),
    (Role::Admin, "RemoveLens", Method::DELETE, "/v1/capture/lenses/{lens}"),
    (Role::Operator, "ExtractClip", Method::POST, "/v1/segments/{id}/clip"),
    (Role::Operator, "ExtractClipOfLens", Method::POST, "/v1/lenses/{lens}/clip"),
    (Role::Viewer, "GetClip", Method::GET, "/v1/clips/{id}"),
    (Role::Viewer, "GetClipFile", Method::GET, "/v1/clips/{id}/file"),
    (Role::Viewer, "GetEvidence", Method::GET, "/v1/evidence"),
    (Role::Viewer, "GetClipManifest", Method::GET, "/v1/clips/{id}/manifest"),
    (Role::Viewer, "GetEvents", Method::GET, "/v1/events"),
    (Role::Viewer, "GetFrames", Method::GET, "/v1/frames"),
    (Role::Viewer, "GetHealth", Method::GET, "/v1/health"),
    (Role::Viewer, "GetMetrics", Method::GET, "/v1/metrics"),
    (Role::Viewer, "GetOpenApi", Method::GET, "/v1/openapi.json"),
    (Role::Viewer, "GetSegments", Method::GET, "/v1/segments"),
    (Role::Operator, "Protect", Method::PUT, "/v1/segments/{id}/protection"),
    (Role::Admin, "Unprotect", Method::DELETE, "/v1/segments/{id}/protection"),
    (Role::Admin, "Remove", Method::DELETE, "/v1/segments/{id}"),
    (Role::Operator, "Snapshot", Method::POST, "/v1/segments/{id}/snapshot"),
    (Role::Viewer, "GetSnapshotFile", Method::GET, "/v1/snapshots/{id}/file"),
    (Role::Operator, "Upload", Method::POST, "/v1/uploads"),
    (Role::Viewer, "ListUploads", Method::GET, "/v1/uploads"),
    (Role::Viewer, "GetUpload", Method::GET, "/v1/uploads/{id}"),
    (Role::Operator, "CancelUpload", Method::DELETE, "/v1/uploads/{id}"),
    (Role::Operator, "RetryUpload", Method::POST, "/v1/uploads/{id}/retry"),
    (Role::Viewer, "GetUploadEvents", Method::GET, "/v1/uploads/{id}/events"),
];

/// What an operation asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    name: &'static str,
    pub(super) role: Role,
}

/// What the operation of a route asks for. (R2)
pub(super) fn needs(method: &Method, path: &str) -> Needs {
    let found = OPERATIONS.iter().find(|(_, _, m, p)| (m, *p) == (method, path));
    found.map_or(Needs { name: "this operation", role: Role::Admin }, |(role, name, ..)| Needs { name, role: *role })
}

/// Lets a request pass to its operation, or answers it.
pub(super) async fn guard(State(needs): State<Needs>, request: Request, next: Next) -> Response {
    match admitted(needs, request.extensions().get::<Arc<Caller>>().map(Arc::as_ref)) {
        Ok(()) => next.run(request).await,
        Err(fault) => fault.into_response(),
    }
}

/// (R1)
fn admitted(needs: Needs, caller: Option<&Caller>) -> Result<(), Fault> {
    let Needs { name, role } = needs;
    // Listeners say who asks; nobody is let in where that was forgotten.
    let caller = caller.ok_or_else(|| Fault::new(Kind::Unauthorized, "nobody told who asks"))?;
    if caller.role >= Some(role) {
        return Ok(());
    }
    let has = caller.role.map_or_else(|| "has no role".to_owned(), |has| format!("is {has}"));
    let remedy = match caller.who {
        Who::User(_) => format!("name the user or its group under http.{role}s in the recorder's configuration"),
        Who::Token(_) => format!("use a token with that role (`mos token --role {role}` makes one)"),
    };
    Err(Fault::below(role, format!("{name} needs the role {role}; {caller} {has}: {remedy}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::super::openapi::document;
    use super::*;

    #[test]
    fn r2_every_operation_of_the_document_has_its_role_and_no_other_has() {
        let document = serde_json::to_value(document()).unwrap();
        let mut documented = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap().to_owned();
                let method: Method = method.to_uppercase().parse().unwrap();
                let needs = needs(&method, path);
                assert_eq!(needs.name, name, "{method} {path} is not in the table of roles");
                assert_eq!(operation["x-least-role"], needs.role.name(), "{name}");
                assert_eq!(operation["security"][0]["token"], serde_json::json!([]), "{name}");
                for status in ["401", "403"] {
                    assert!(operation["responses"][status].is_object(), "{name} says what {status} means");
                }
                documented.insert(name);
            }
        }
        let listed: BTreeSet<String> = OPERATIONS.iter().map(|(_, name, ..)| (*name).to_owned()).collect();
        assert_eq!(listed, documented);
        assert_eq!(listed.len(), OPERATIONS.len(), "an operation is listed twice");
        assert_eq!(needs(&Method::PATCH, "/v1/new").role, Role::Admin);
    }

    #[test]
    fn whatever_destroys_or_decides_is_for_admins() {
        for (role, name, method, _) in OPERATIONS {
            let decides = ["Remove", "RemoveLens", "Unprotect", "ConfigureStream"].contains(name);
            assert_eq!(*role == Role::Admin, decides, "{name}");
            assert!(*role != Role::Viewer || method == Method::GET, "{name} changes something");
        }
    }

    #[test]
    fn r1_r3_below_the_least_role_nothing_runs_and_the_refusal_says_what_is_needed() {
        let callers = [Who::User(1000), Who::Token("depot".into())];
        for (role, name, ..) in OPERATIONS {
            for who in &callers {
                for has in [None, Some(Role::Viewer), Some(Role::Operator), Some(Role::Admin)] {
                    let caller = Caller { who: who.clone(), role: has };
                    let verdict = admitted(Needs { name, role: *role }, Some(&caller));
                    assert_eq!(verdict.is_ok(), has >= Some(*role), "{name} by {caller:?}");
                    let Err(Fault(refusal)) = verdict else { continue };
                    assert_eq!((refusal.kind, refusal.needed_role), (Kind::Forbidden, Some(*role)));
                    let words = [*name, role.name(), &caller.to_string()];
                    assert!(words.iter().all(|word| refusal.message.contains(word)), "{}", refusal.message);
                }
            }
            assert!(admitted(Needs { name, role: *role }, None).is_err(), "{name} by nobody");
        }
    }
}
