//! Who may use the API over TCP: a client that has a token, and no page of another site in somebody's browser. What it may do
//! there is decided by the token's role (`roles.rs`).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::fault::Fault;
use crate::access::{self, Caller, Token, Who};
use crate::error::Kind;

/// Lets a request over TCP pass, or answers it.
pub(super) async fn tcp(State(tokens): State<Arc<[Token]>>, mut request: Request, next: Next) -> Response {
    match admitted(&tokens, request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(Arc::new(caller));
            next.run(request).await
        }
        Err(fault) => fault.into_response(),
    }
}

fn admitted(tokens: &[Token], headers: &HeaderMap) -> Result<Caller, Fault> {
    // A foreign Host is a browser that was led here by DNS rebinding; a foreign Origin is a page of another site.
    let host = one(headers, &header::HOST)?.unwrap_or_default();
    if !is_loopback(host) {
        return Err(Fault::new(Kind::Forbidden, "this Host is not served; use localhost, 127.0.0.1 or [::1]"));
    }
    if let Some(origin) = one(headers, &header::ORIGIN)?
        && origin.strip_prefix("http://") != Some(host)
    {
        return Err(Fault::new(Kind::Forbidden, "requests of pages of another origin are refused"));
    }
    let offered = one(headers, &header::AUTHORIZATION)?.and_then(|value| value.strip_prefix("Bearer "));
    let Some(offered) = offered else {
        return Err(Fault::new(Kind::Unauthorized, "TCP asks for a token: send `Authorization: Bearer TOKEN`"));
    };
    let token = access::owner(tokens, offered);
    let token = token.ok_or_else(|| Fault::new(Kind::Unauthorized, "no such token is known; was it revoked?"))?;
    Ok(Caller { who: Who::Token(token.name.clone()), role: Some(token.role) })
}

/// The one value of a header that must not be repeated.
fn one<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Result<Option<&'a str>, Fault> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            value.to_str().map(Some).map_err(|_| Fault::bad(format!("the header {name} is not readable")))
        }
        _ => Err(Fault::bad(format!("the header {name} is there twice"))),
    }
}

/// Whether a Host header means this machine itself.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<axum::http::uri::Authority>() else { return false };
    let name = authority.host();
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::access::{Role, TokenHash};

    fn token() -> Token {
        Token { name: "road".into(), role: Role::Operator, hash: TokenHash::of("0123456789abcdef") }
    }

    fn verdict(headers: &[(&'static str, &str)]) -> Option<Kind> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        admitted(&[token()], &map).err().map(|fault| fault.0.kind)
    }

    #[test]
    fn only_the_token_from_this_machine_passes() {
        let token = ("authorization", "Bearer 0123456789abcdef");
        for host in ["localhost:80", "127.0.0.1", "[::1]:8080", "LOCALHOST"] {
            assert_eq!(verdict(&[("host", host), token]), None, "{host}");
        }
        for host in ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.0.2.1", "", "localhost@evil"] {
            assert_eq!(verdict(&[("host", host), token]), Some(Kind::Forbidden), "{host}");
        }
        let host = ("host", "localhost:80");
        assert_eq!(verdict(&[host, token, ("origin", "http://localhost:80")]), None);
        assert_eq!(verdict(&[host, token, ("origin", "http://evil.example")]), Some(Kind::Forbidden));
        assert_eq!(verdict(&[host, token, ("origin", "null")]), Some(Kind::Forbidden));
        assert_eq!(verdict(&[host]), Some(Kind::Unauthorized));
        assert_eq!(verdict(&[host, ("authorization", "Bearer 0123456789abcdeF")]), Some(Kind::Unauthorized));
        assert_eq!(verdict(&[host, ("authorization", "Bearer 0123456789abcdef0")]), Some(Kind::Unauthorized));
        assert_eq!(verdict(&[host, ("authorization", "Basic 0123456789abcdef")]), Some(Kind::Unauthorized));
        assert_eq!(verdict(&[host, host, token]), Some(Kind::BadRequest));
    }
}
