//! Replies that are no success, and the one place that gives a kind its status code.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::access::Role;
use crate::error::{ErrorBody, ErrorDetail, Kind};

/// A failed operation, on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub ErrorDetail);

impl Fault {
    /// A failure of `kind`; `message` says what, where and what to do.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(ErrorDetail { kind, message: message.into(), split_points: Vec::new(), needed_role: None })
    }

    /// A value of the request is refused.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, message)
    }

    /// The caller's role is below `needed`.
    pub fn below(needed: Role, message: impl Into<String>) -> Self {
        let mut fault = Self::new(Kind::Forbidden, message);
        fault.0.needed_role = Some(needed);
        fault
    }

    /// No such thing.
    pub fn absent(what: &str, id: &str) -> Self {
        Self::new(Kind::NotFound, format!("there is no {what} '{id}'"))
    }

    /// What should not happen. The details go to the log, not to the client.
    pub fn internal(what: &str, details: impl std::fmt::Display) -> Self {
        log::error!("{what} failed unexpectedly: {details}");
        Self::new(Kind::Internal, format!("{what} failed unexpectedly; the daemon's log tells more"))
    }
}

/// The status code of a kind.
#[must_use]
pub fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::BadRequest => StatusCode::BAD_REQUEST,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Kind::Protected | Kind::Open | Kind::Newer | Kind::NoFootage | Kind::FormatChange | Kind::Conflict => {
            StatusCode::CONFLICT
        }
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::Undecodable => StatusCode::UNPROCESSABLE_ENTITY,
        // A quota that is used up is told as RFC 4331 tells it.
        Kind::Storage | Kind::ProtectedQuota => StatusCode::INSUFFICIENT_STORAGE,
        Kind::NotReady | Kind::Busy => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let kind = self.0.kind;
        let mut response = (status(kind), Json(ErrorBody { error: self.0 })).into_response();
        if kind == Kind::Unauthorized {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
