//! Evidence: the device's key, and the manifest of a clip.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use prometheus_client::encoding::DescriptorEncoder;
use serde::{Deserialize, Serialize};

use super::Services;
use super::extract::Id;
use super::fault::Fault;
use super::routes::Routes;
use super::segments::blocking;
use super::storage_metrics::counter;
use crate::clip::ClipId;
use crate::error::{ErrorBody, Kind};
use crate::evidence::manifest::Signed;
use crate::evidence::{Counts, EvidenceError, ManifestFailure};

/// Whether evidence is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EvidenceView {
    /// The public key that signs it, `ed25519:` and base64; none while no evidence is kept: it is switched off, or the key cannot be used (alarm `evidence`).
    pub key: Option<String>,
}

pub(super) fn routes(routes: &mut Routes) {
    routes.get("/v1/evidence", get_evidence);
    routes.get("/v1/clips/{id}/manifest", get_clip_manifest);
}

/// Whether evidence is kept, and by which key.
#[utoipa::path(get, path = "/v1/evidence", operation_id = "GetEvidence", tag = "evidence",
    responses((status = 200, body = EvidenceView)))]
pub(super) async fn get_evidence(State(services): State<Arc<Services>>) -> Json<EvidenceView> {
    Json(EvidenceView { key: services.evidence.as_ref().and_then(crate::evidence::Evidence::key) })
}

/// What an offline verifier needs to judge a clip, signed by the device. `mos verify` is one.
#[utoipa::path(get, path = "/v1/clips/{id}/manifest", operation_id = "GetClipManifest", tag = "evidence",
    params(("id" = String, Path, description = "The clip")),
    responses((status = 200, body = Object, description = "A signed manifest, mos-manifest-2"),
        (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(super) async fn get_clip_manifest(
    State(services): State<Arc<Services>>,
    Id(id): Id,
) -> Result<Json<Signed>, Fault> {
    let turn = match &services.evidence {
        Some(evidence) => evidence.turn().await,
        None => None,
    };
    let made = blocking(move || {
        let _turn = turn;
        let clip = services.clips.get(&id)?.id;
        made(&services, clip)
    });
    Ok(Json(made.await??))
}

pub(super) fn encode(counts: &Counts, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Segments that this run linked to their chains, those of earlier runs too";
    counter(encoder, "evidence_linked_segments", help, counts.linked)?;
    let help = "Segments of earlier runs that this run linked";
    counter(encoder, "evidence_late_segments", help, counts.late)?;
    let help = "Numbers of segments that did not close and were passed over";
    counter(encoder, "evidence_skipped_segments", help, counts.skipped)?;
    let help = "Segments that get no link: they cannot be read, or their chain is harmed";
    counter(encoder, "evidence_given_up_segments", help, counts.given_up)
}

fn made(services: &Services, clip: ClipId) -> Result<Signed, Fault> {
    let evidence = services.evidence.as_ref();
    let evidence = evidence.ok_or_else(|| Fault::new(Kind::Conflict, "no evidence is kept; switch [evidence] on"))?;
    evidence.manifest(clip).map_err(|e| match e {
        ManifestFailure::Clip(e) => e.into(),
        ManifestFailure::Evidence(e @ EvidenceError::NotYet(_)) => Fault::new(Kind::NotReady, e.to_string()),
        ManifestFailure::Evidence(
            e @ (EvidenceError::NoSources(_)
            | EvidenceError::Gone(..)
            | EvidenceError::OtherKey(..)
            | EvidenceError::Key { .. }),
        ) => Fault::new(Kind::Conflict, e.to_string()),
        ManifestFailure::Evidence(e @ EvidenceError::File { .. }) => Fault::new(Kind::Storage, e.to_string()),
    })
}
