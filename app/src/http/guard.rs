//! Who may use the API over TCP: a client that has a token, and no page of another site in somebody's browser. What it may do
//! there is decided by the token's role (`roles.rs`).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::crowd::Known;
use super::fault::Fault;
use super::tokens::Tokens;
use crate::access::{Caller, Token, Who};
use crate::error::Kind;

/// What a TCP listener asks for.
#[derive(Clone, Debug)]
pub struct Door {
    /// The tokens that are accepted, now and whenever they change.
    pub tokens: Tokens,
    /// Names by which the recorder is asked for, besides those of loopback.
    pub host_names: Vec<String>,
    /// Whether it is asked for by any address as well. An address in a Host header is safe: it is no name that somebody
    /// else could lead here.
    pub addresses: bool,
    /// Whether requests come over TLS.
    pub tls: bool,
}

impl Door {
    /// Whether a Host header means this recorder.
    fn serves(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<axum::http::uri::Authority>() else { return false };
        let name = authority.host();
        if host.contains('@') {
            return false;
        }
        let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return self.addresses || address.is_loopback();
        }
        let names = self.host_names.iter().map(String::as_str);
        names.chain(["localhost"]).any(|known| name.eq_ignore_ascii_case(known))
    }
}

/// Lets a request over TCP pass, or answers it. Request and answer last as long as the token that asked. (T1, T2)
pub(super) async fn tcp(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
    let admitted = admitted(&door, request.headers());
    let known = request.extensions().get::<Known>().cloned().unwrap_or_default();
    // Who is refused is nobody, also if its token held until now.
    known.is(admitted.as_ref().ok().map(|token| token.name.clone()));
    match admitted {
        Ok(token) => {
            let caller = Caller { who: Who::Token(token.name.clone()), role: Some(token.role) };
            request.extensions_mut().insert(Arc::new(caller));
            tokio::select! {
                // An operation may have waited for its body or its turn: asked before it goes on.
                biased;
                () = door.tokens.lost(token.clone()) => {
                    known.is(None);
                    let message = "the token was revoked, or has another role, while this was asked";
                    Fault::new(Kind::Unauthorized, message).into_response()
                }
                answer = next.run(request) => answer.map(|body| door.tokens.bound(token, body)),
            }
        }
        Err(fault) => fault.into_response(),
    }
}

/// The token that lets it in.
pub(super) fn admitted(door: &Door, headers: &HeaderMap) -> Result<Token, Fault> {
    // A foreign Host is a browser that was led here by DNS rebinding; a foreign Origin is a page of another site.
    let host = one(headers, &header::HOST)?.unwrap_or_default();
    if !door.serves(host) {
        let message = "this Host is not served; use localhost, 127.0.0.1, [::1], or what http.listen and http.host_names of \
                       the recorder's configuration allow";
        return Err(Fault::new(Kind::Forbidden, message));
    }
    if let Some(origin) = one(headers, &header::ORIGIN)?
        && origin.strip_prefix(if door.tls { "https://" } else { "http://" }) != Some(host)
    {
        return Err(Fault::new(Kind::Forbidden, "requests of pages of another origin are refused"));
    }
    let offered = one(headers, &header::AUTHORIZATION)?.and_then(|value| value.strip_prefix("Bearer "));
    let Some(offered) = offered else {
        return Err(Fault::new(Kind::Unauthorized, "TCP asks for a token: send `Authorization: Bearer TOKEN`"));
    };
    let token = door.tokens.owner(offered);
    token.ok_or_else(|| Fault::new(Kind::Unauthorized, "no such token is known; was it revoked?"))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::access::{Role, TokenHash};

    fn token() -> Token {
        Token { name: "road".into(), role: Role::Operator, hash: TokenHash::of("0123456789abcdef") }
    }

    fn door() -> Door {
        Door { tokens: Tokens::new(vec![token()]), host_names: Vec::new(), addresses: false, tls: false }
    }

    fn verdict(headers: &[(&'static str, &str)]) -> Option<Kind> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        admitted(&door(), &map).err().map(|fault| fault.0.kind)
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

    #[test]
    fn beyond_loopback_addresses_and_configured_names_are_served_and_origins_come_by_tls() {
        let door = Door { host_names: vec!["bus-7.fleet.example".into()], addresses: true, tls: true, ..door() };
        for host in
            ["192.0.2.1:8443", "[2001:db8::1]:8443", "bus-7.fleet.example", "BUS-7.fleet.example:1", "localhost"]
        {
            assert!(door.serves(host), "{host}");
        }
        for host in
            ["evil.example", "bus-7.fleet.example.evil.example", "x@192.0.2.1", "192.0.2.1@evil.example", "", "a b"]
        {
            assert!(!door.serves(host), "{host}");
        }
        let mut map = HeaderMap::new();
        map.append("host", "192.0.2.1".parse().unwrap());
        map.append("authorization", "Bearer 0123456789abcdef".parse().unwrap());
        assert!(admitted(&door, &map).is_ok());
        map.append("origin", "https://192.0.2.1".parse().unwrap());
        assert!(admitted(&door, &map).is_ok());
        map.insert("origin", "http://192.0.2.1".parse().unwrap());
        assert!(admitted(&door, &map).is_err(), "a page without TLS is another origin");
    }
}
