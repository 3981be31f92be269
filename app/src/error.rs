//! The stable kinds of failure that a user of the API can tell apart.
//!
//! A kind's name is part of the API and never changes. Services have their own errors; `http/fault.rs` is the one place
//! that turns them into a kind, and a kind into a status code. Messages say what is wrong and what to do; they never hold
//! credentials.

use serde::{Deserialize, Serialize};

use crate::access::Role;

/// What went wrong, as a name to program against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The request is malformed or a value is out of its range.
    BadRequest,
    /// No token, or a wrong one.
    Unauthorized,
    /// The caller's role is too low, the Host or Origin of the request is not allowed, or a path lies outside the archive.
    Forbidden,
    /// No such lens, segment, clip, upload or operation.
    NotFound,
    /// The operation exists, but not by this method.
    MethodNotAllowed,
    /// The segment is protected.
    Protected,
    /// What may be protected is used up.
    ProtectedQuota,
    /// The segment is still being recorded.
    Open,
    /// The segment was written by a newer version of MOS and cannot be worked on by this one.
    Newer,
    /// The asked span holds no frame; it is a gap.
    NoFootage,
    /// The span crosses a change of codec or picture size; the message and `split_points` tell where to split.
    FormatChange,
    /// What is asked cannot be done in the state in which the thing is now.
    Conflict,
    /// The body or the header fields are too large.
    TooLarge,
    /// The storage is full or has failed.
    Storage,
    /// The picture could not be decoded.
    Undecodable,
    /// The service is not ready yet, e.g. the index is being loaded; try again.
    NotReady,
    /// A limit of the service is reached; try again later.
    Busy,
    /// Something that should not happen did; the log tells more.
    Internal,
}

impl Kind {
    /// Its name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Protected => "protected",
            Self::ProtectedQuota => "protected_quota",
            Self::Open => "open",
            Self::Newer => "newer",
            Self::NoFootage => "no_footage",
            Self::FormatChange => "format_change",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::Storage => "storage",
            Self::Undecodable => "undecodable",
            Self::NotReady => "not_ready",
            Self::Busy => "busy",
            Self::Internal => "internal",
        }
    }
}

/// The body of every reply that is no success: `{"error":{"kind","message"}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErrorBody {
    /// The one member.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErrorDetail {
    /// The stable kind.
    pub kind: Kind,
    /// For people: what, where, and what to do.
    pub message: String,
    /// With `format_change` only: where to split the span, in UTC microseconds, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub split_points: Vec<i64>,
    /// With `forbidden` for want of a role only: the least role that is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed_role: Option<Role>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_those_of_the_wire() {
        for kind in [Kind::BadRequest, Kind::MethodNotAllowed, Kind::NoFootage, Kind::Internal, Kind::Open] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
