//! The HTTP of WHEP: an offer is posted, an answer comes back, and the session is deleted at its end.
//!
//! Promises:
//! - H1: over `https` nothing is sent before the certificate was judged (`crate::tls`).
//! - H2: token and password go to the host and port that the configuration names, or over `https` to another port of that host
//!   if they would go in clear else, and once asked over `https` never in clear; a server that points elsewhere gets a request
//!   without them.
//! - H3: an answer has at most [`MAX_ANSWER`] bytes, and no error repeats a server's words at length.
//!
//! Facts: draft-ietf-wish-whep-03, RFC 9725 (WHIP), which it follows. Time is bounded by the caller.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, LINK, LOCATION, USER_AGENT};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::{Position, Url};

use super::ice::{self, IceServer};
use crate::source::{Credentials, SourceError, Trust};
use crate::tls::{self, TlsError};

/// Most bytes of an answer; one with many candidates has 10 KB.
const MAX_ANSWER: usize = 256 << 10;
/// How often a server may point elsewhere.
const REDIRECTS: usize = 5;
const SDP: &str = "application/sdp";

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Absent(String),
    Broken(String),
    Refused(String),
    Unsupported(String),
}

impl Failure {
    pub(super) fn of(self, what: &str) -> SourceError {
        let what = what.to_owned();
        match self {
            Self::Absent(detail) => SourceError::Absent { what, detail },
            Self::Broken(detail) => SourceError::Broken { what, detail },
            Self::Refused(detail) => SourceError::Refused { what, detail },
            Self::Unsupported(detail) => SourceError::Unsupported { what, detail },
        }
    }
}

/// Where offers are posted.
#[derive(Clone)]
pub(super) struct Endpoint {
    url: Url,
    authorization: Option<HeaderValue>,
    /// A token without user name, for errors.
    by_token: bool,
    trust: Trust,
}

/// What a server agreed to.
pub(super) struct Agreed {
    /// Its description.
    pub(super) answer: Bytes,
    /// What is to be deleted at the end.
    pub(super) session: Option<Endpoint>,
    /// It names servers for ICE, now that addresses have been gathered.
    pub(super) late_ice: bool,
}

impl Endpoint {
    pub(super) fn new(url: &Url, credentials: Option<&Credentials>, trust: &Trust) -> Self {
        let by_token = credentials.is_some_and(|c| c.password.is_empty());
        let authorization = credentials.and_then(|c| {
            let text = if by_token {
                format!("Bearer {}", c.user)
            } else {
                format!("Basic {}", STANDARD.encode(format!("{}:{}", c.user, c.password)))
            };
            let mut value = HeaderValue::try_from(text).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Self { url: url.clone(), authorization, by_token, trust: trust.clone() }
    }

    /// Another place that this one names, with the credentials if it may have them (H2); `None` if it makes no sense.
    pub(super) fn at(&self, place: &HeaderValue) -> Option<Self> {
        let url = self.url.join(place.to_str().ok()?).ok()?;
        let downgraded = self.url.scheme() == "https" && url.scheme() != "https";
        if !matches!(url.scheme(), "http" | "https") || downgraded || !url.has_host() {
            return None;
        }
        let authorization = self.authorization.clone().filter(|_| is_confidant(&self.url, &url));
        Some(Self { url, authorization, by_token: self.by_token, trust: self.trust.clone() })
    }

    /// Panics if it is not where what was asked at `asked` may lead (H2).
    pub(super) fn is_allowed(&self, asked: &Url) {
        let url = &self.url;
        assert!(url.scheme() == "https" || asked.scheme() == "http" && url.scheme() == "http", "{url}");
        assert!(self.authorization.is_none() || is_confidant(asked, url), "{url}");
    }

    /// The servers for ICE that it names beforehand. Whoever does not know the question, in whatever way, names none; whoever
    /// cannot be reached or believed fails here already.
    pub(super) async fn ice_servers(&self) -> Result<Vec<IceServer>, Failure> {
        let mut place = self.clone();
        for _ in 0..=REDIRECTS {
            let stream = connect(&place).await?;
            let Ok((status, headers, _)) = speak(&place, Method::OPTIONS, None, stream).await else { break };
            if !points_elsewhere(status) {
                return Ok(if status.is_success() { named(&headers) } else { Vec::new() });
            }
            let Ok(next) = place.next(&headers) else { break };
            place = next;
        }
        Ok(Vec::new())
    }

    /// Posts an offer.
    pub(super) async fn offer(self, offer: &str) -> Result<Agreed, Failure> {
        let mut place = self;
        for _ in 0..=REDIRECTS {
            let stream = connect(&place).await?;
            let (status, headers, body) = speak(&place, Method::POST, Some(offer), stream).await?;
            if !points_elsewhere(status) {
                return place.agreed(status, &headers, body);
            }
            place = place.next(&headers)?;
        }
        Err(Failure::Unsupported(format!("it points elsewhere more than {REDIRECTS} times")))
    }

    /// Where an answer that points elsewhere points to.
    fn next(&self, headers: &HeaderMap) -> Result<Self, Failure> {
        let next = headers.get(LOCATION).and_then(|location| self.at(location));
        next.ok_or_else(|| Failure::Unsupported("it points to no usable address".to_owned()))
    }

    fn agreed(&self, status: StatusCode, headers: &HeaderMap, answer: Bytes) -> Result<Agreed, Failure> {
        match status {
            StatusCode::CREATED | StatusCode::OK => {
                let session = headers.get(LOCATION).and_then(|location| self.at(location));
                Ok(Agreed { answer, session, late_ice: !named(headers).is_empty() })
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let why = match (&self.authorization, self.by_token) {
                    (None, _) => "it wants a token, or a user name and password",
                    (Some(_), true) => "it does not accept this token",
                    (Some(_), false) => "it does not accept this user name and password",
                };
                Err(Failure::Refused(format!("{why} ({})", status.as_u16())))
            }
            StatusCode::NOT_FOUND => Err(Failure::Refused("it has no stream of that path (404)".to_owned())),
            StatusCode::NOT_ACCEPTABLE => {
                Err(Failure::Unsupported("it wants to make the offer itself, which MOS does not take (406)".to_owned()))
            }
            status if status.is_server_error() => Err(Failure::Broken(format!("it has a fault ({})", status.as_u16()))),
            status => Err(Failure::Refused(format!("it answers {} to the offer", status.as_u16()))),
        }
    }

    /// Ends the session that this is. Its answer changes nothing.
    pub(super) async fn delete(self) {
        let done = async { speak(&self, Method::DELETE, None, connect(&self).await?).await };
        if let Err(why) = done.await {
            log::debug!("a WHEP session cannot be deleted: {why:?}");
        }
    }
}

fn points_elsewhere(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 307 | 308)
}

/// Whether `asked`'s token and password may go to `url` (H2).
fn is_confidant(asked: &Url, url: &Url) -> bool {
    let secured = asked.scheme() == "http" && url.scheme() == "https";
    url.origin() == asked.origin() || secured && url.host_str() == asked.host_str()
}

/// Servers for ICE in the headers of an answer.
fn named(headers: &HeaderMap) -> Vec<IceServer> {
    headers.get_all(LINK).iter().filter_map(|v| v.to_str().ok()).flat_map(ice::servers).collect()
}

/// Either kind of connection.
trait Way: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Way for T {}

async fn connect(to: &Endpoint) -> Result<Box<dyn Way>, Failure> {
    let port = to.url.port_or_known_default().unwrap_or_default();
    let host = to.url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    if to.url.scheme() == "https" {
        let stream = tls::connect(host, port, &to.trust).await.map_err(|e| match e {
            TlsError::Absent(why) => Failure::Absent(why),
            TlsError::Broken(why) => Failure::Broken(why),
            TlsError::Refused(why) => Failure::Refused(why),
        })?;
        Ok(Box::new(stream))
    } else {
        let stream = TcpStream::connect((host, port)).await.map_err(|e| Failure::Absent(e.to_string()))?;
        Ok(Box::new(stream))
    }
}

async fn speak(
    to: &Endpoint,
    method: Method,
    body: Option<&str>,
    stream: Box<dyn Way>,
) -> Result<(StatusCode, HeaderMap, Bytes), Failure> {
    let broken = |e: hyper::Error| Failure::Broken(format!("no answer over HTTP: {e}"));
    let handshake = hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(broken)?;
    let mut request = Request::builder()
        .method(method)
        .uri(&to.url[Position::BeforePath..Position::AfterQuery])
        .header(HOST, &to.url[Position::BeforeHost..Position::AfterPort])
        .header(ACCEPT, SDP)
        .header(USER_AGENT, concat!("mos/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close");
    if let Some(authorization) = &to.authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    if body.is_some() {
        request = request.header(CONTENT_TYPE, SDP);
    }
    let request = request.body(Full::from(body.unwrap_or_default().to_owned()));
    let request = request.map_err(|_| Failure::Unsupported("its address cannot be asked".to_owned()))?;
    let answer = async {
        let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|e| Failure::Broken(format!("no whole answer over HTTP: {e}")))?;
        Ok((head.status, head.headers, body.to_bytes()))
    };
    // The connection is driven until the answer is there; its own end comes before only if the answer does not.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn endpoint(url: &str, user: &str, password: &str) -> Endpoint {
        let credentials = Credentials { user: user.into(), password: password.into() };
        Endpoint::new(&Url::parse(url).unwrap(), Some(&credentials), &Trust::default())
    }

    /// H2.
    #[test]
    fn credentials_stay_with_their_host_and_are_never_sent_in_clear_after_tls() {
        let at = |place: &'static str| endpoint("https://a:8889/x/whep", "t", "").at(&HeaderValue::from_static(place));
        let same = at("/x/whep/1234").unwrap();
        assert_eq!((same.url.as_str(), same.authorization.is_some()), ("https://a:8889/x/whep/1234", true));
        let other = at("https://b/x").unwrap();
        assert!(other.authorization.is_none());
        assert!(at("https://a:8890/x").unwrap().authorization.is_none(), "another port is another user's");
        let upgraded = endpoint("http://a:8889/x", "t", "").at(&HeaderValue::from_static("https://a/x")).unwrap();
        assert!(upgraded.authorization.is_some());
        for bad in ["http://a:8889/x", "rtsp://a/x", "file:///x", "https://"] {
            assert!(at(bad).is_none(), "{bad}");
        }
        assert_eq!(endpoint("http://a/", "u", "p").authorization.unwrap(), "Basic dTpw");
        assert_eq!(endpoint("http://a/", "u", "").authorization.unwrap(), "Bearer u");
    }

    #[test]
    fn a_refusal_says_what_to_change() {
        let answered = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            endpoint("http://a/", "t", "").agreed(status, &HeaderMap::new(), Bytes::new()).err()
        };
        assert_eq!(answered(401), Some(Failure::Refused("it does not accept this token (401)".into())));
        assert!(matches!(answered(404), Some(Failure::Refused(why)) if why.contains("no stream of that path")));
        assert!(matches!(answered(406), Some(Failure::Unsupported(_))));
        assert!(matches!(answered(503), Some(Failure::Broken(_))));
        assert_eq!(answered(201), None);
    }
}
