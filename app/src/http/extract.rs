//! Bodies, queries and path parts of requests; what cannot be read becomes a [`Fault`] like any other.

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::fault::Fault;
use crate::error::Kind;

/// How long a body may take to arrive.
const BODY_TIME: std::time::Duration = std::time::Duration::from_secs(30);

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let read = <axum::Json<T> as FromRequest<S>>::from_request(request, state);
        let read = tokio::time::timeout(BODY_TIME, read).await;
        match read.map_err(|_| Fault::bad("the body did not arrive within 30 s"))? {
            Ok(axum::Json(body)) => Ok(Self(body)),
            Err(JsonRejection::BytesRejection(e)) if e.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE => {
                Err(Fault::new(Kind::TooLarge, format!("the body is larger than {} bytes", super::MAX_BODY)))
            }
            // serde's message names the member and the type that is wanted; it quotes no text of the body but enum names
            // and mistyped values, hence members with credentials are of a type that takes any text.
            Err(e) => Err(Fault::bad(e.body_text())),
        }
    }
}

/// A body may be left out together with its content type.
impl<S: Send + Sync, T: DeserializeOwned> OptionalFromRequest<S> for Body<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Fault> {
        if request.headers().contains_key(CONTENT_TYPE) {
            <Self as FromRequest<S>>::from_request(request, state).await.map(Some)
        } else {
            Ok(None)
        }
    }
}

/// The one variable part of a path.
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let part: Result<Path<String>, _> = Path::from_request_parts(parts, state).await;
        part.map(|Path(text)| Self(text)).map_err(|_| Fault::bad("the path is not valid UTF-8"))
    }
}

/// Query parameters.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        query.map(|Query(params)| Self(params)).map_err(|e| Fault::bad(e.body_text()))
    }
}
