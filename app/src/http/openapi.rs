//! The OpenAPI document, made from the operations themselves.

use axum::Json;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::roles;
use super::routes::Routes;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "MOS",
        description = "A camera recorder: what it recorded, clips, pictures, protection and uploads. Times are UTC \
                       microseconds (`_ts`), offsets are seconds. Errors are `{\"error\":{\"kind\",\"message\"}}` with \
                       stable kinds. Every operation asks for a role (`x-least-role`): viewer, operator or admin, \
                       each of which may do all that those before it may. Over the Unix socket the role is that of the \
                       peer's user, over TCP that of the token."
    ),
    modifiers(&Doors),
    paths(
        super::capture::list_devices,
        super::capture_control::get_status,
        super::capture_control::configure_stream,
        super::capture_control::start_capture,
        super::capture_control::stop_capture,
        super::capture_control::reset_capture,
        super::capture_control::remove_lens,
        super::capture_events::get_capture_events,
        super::clips::extract_clip,
        super::clips::extract_clip_of_lens,
        super::clips::get_clip,
        super::clips::get_clip_file,
        super::events::get_events,
        super::evidence::get_evidence,
        super::evidence::get_clip_manifest,
        super::frames::get_frames,
        super::health::get_health,
        super::metrics::get_metrics,
        super::power::get_power,
        super::power::wake_capture,
        super::power::park_capture,
        super::segments::get_segments,
        super::segments::protect,
        super::segments::unprotect,
        super::segments::remove,
        super::snapshots::snapshot,
        super::snapshots::get_snapshot_file,
        super::uploads::upload,
        super::uploads::list_uploads,
        super::uploads::get_upload,
        super::uploads::cancel_upload,
        super::uploads::retry_upload,
        super::uploads::get_upload_events,
        get_open_api,
    )
)]
struct Api;

/// What every operation has in common: its least role, and what it says to those who are below it.
struct Doors;

impl Modify for Doors {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
        for (role, _, method, path) in roles::OPERATIONS {
            let item = document.paths.paths.get_mut(*path);
            let slot = item.and_then(|item| match method.as_str() {
                "GET" => item.get.as_mut(),
                "POST" => item.post.as_mut(),
                "PUT" => item.put.as_mut(),
                "DELETE" => item.delete.as_mut(),
                _ => None,
            });
            let Some(operation) = slot else { continue };
            operation.extensions.get_or_insert_default().insert("x-least-role".into(), role.name().into());
            operation.security = Some(vec![SecurityRequirement::new("token", [] as [&str; 0])]);
            refusal(operation, "401", "Over TCP: no token, or one that is not known");
            refusal(operation, "403", &format!("The caller is below the role {role}, or Host or Origin is refused"));
        }
    }
}

fn refusal(operation: &mut Operation, status: &str, why: &str) {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
    let response = ResponseBuilder::new().description(why).content("application/json", body).build();
    operation.responses.responses.insert(status.to_owned(), RefOr::T(response));
}

/// The document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

pub(super) fn routes(routes: &mut Routes) {
    routes.get("/v1/openapi.json", get_open_api);
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", operation_id = "GetOpenApi", tag = "meta",
    responses((status = 200, description = "OpenAPI 3.1")))]
pub(super) async fn get_open_api() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::super::all;
    use super::*;

    /// Method, path and name of every operation in the document.
    fn documented() -> BTreeMap<(String, String), String> {
        let document = serde_json::to_value(document()).unwrap();
        let mut operations = BTreeMap::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap().to_owned();
                operations.insert((method.to_uppercase(), path.clone()), name);
            }
        }
        operations
    }

    #[test]
    fn every_route_is_documented_and_every_documented_one_is_served() {
        let served: Vec<(String, String)> =
            all().listed().iter().map(|(method, path)| (method.to_string(), (*path).to_owned())).collect();
        let documented = documented();
        for route in &served {
            assert!(documented.contains_key(route), "{route:?} is not in the document");
        }
        assert_eq!(served.len(), documented.len());
    }

    #[test]
    fn operations_have_the_names_of_the_services() {
        let names = documented();
        let of = |method: &str, path: &str| names[&(method.to_owned(), format!("/v1{path}"))].clone();
        assert_eq!(of("GET", "/segments"), "GetSegments");
        assert_eq!(of("PUT", "/segments/{id}/protection"), "Protect");
        assert_eq!(of("DELETE", "/segments/{id}/protection"), "Unprotect");
        assert_eq!(of("DELETE", "/segments/{id}"), "Remove");
        assert_eq!(of("POST", "/segments/{id}/clip"), "ExtractClip");
        assert_eq!(of("POST", "/segments/{id}/snapshot"), "Snapshot");
        assert_eq!(of("POST", "/uploads"), "Upload");
        assert_eq!(of("GET", "/capture/devices"), "ListDevices");
        assert_eq!(of("GET", "/capture/status"), "GetStatus");
        assert_eq!(of("POST", "/capture/lenses/{lens}/configure"), "ConfigureStream");
        assert_eq!(of("POST", "/capture/lenses/{lens}/start"), "StartCapture");
        assert_eq!(of("POST", "/capture/lenses/{lens}/stop"), "StopCapture");
        assert_eq!(of("POST", "/capture/lenses/{lens}/reset"), "ResetCapture");
        assert_eq!(of("GET", "/events"), "GetEvents");
    }
}
