//! HTTP/1.1 to a camera, over TLS where it is asked so: one request for each connection, Digest where it is asked for.
//!
//! Promises that an answer has at most [`MAX_ANSWER`] bytes, that a request ends in the time it is given, and that the
//! password leaves only in a digest: a camera that wants Basic over a plain connection is refused (N1). Who does not answer is
//! told with the port that was tried.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_auth::{PasswordClient, PasswordParams};
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{OnvifError, shown};
use crate::source::{Credentials, Trust};
use crate::tls::{self, TlsError};

/// Most bytes of an answer. Profiles of a recorder with 64 channels have about 300 KB.
const MAX_ANSWER: usize = 2 << 20;

/// A place to send requests to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Name or address, IPv6 without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query.
    pub(super) path: String,
    /// Over TLS.
    pub(super) secure: bool,
}

impl Endpoint {
    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) text: String,
    /// The address that the host's name led to.
    pub(super) from: Option<IpAddr>,
}

/// The login over several requests, so that one challenge serves for many.
#[derive(Default)]
pub(super) struct Login(Option<PasswordClient>);

impl Login {
    /// The authorization for a request, once there has been a challenge.
    fn answer(&mut self, credentials: &Credentials, path: &str, body: &str) -> Option<Result<String, OnvifError>> {
        let client = self.0.as_mut()?;
        let parameters = PasswordParams {
            username: &credentials.user,
            password: &credentials.password,
            uri: path,
            method: "POST",
            body: Some(body.as_bytes()),
        };
        let unanswerable = |_| OnvifError::Refused("it asks for a login in a way that cannot be answered".into());
        Some(client.respond(&parameters).map_err(unanswerable))
    }
}

/// Sends a request and reads its answer; logs in if there are credentials and the camera asks for them.
pub(super) async fn post(
    to: &Endpoint,
    trust: &Trust,
    body: &str,
    credentials: Option<&Credentials>,
    login: &mut Login,
    limit: Duration,
) -> Result<Answer, OnvifError> {
    let work = async {
        let authorization = credentials.and_then(|c| login.answer(c, &to.path, body)).transpose()?;
        let (answer, headers) = exchange(to, trust, body, authorization).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let Some(credentials) = credentials else {
            return Err(OnvifError::Refused("it wants a user name and password".into()));
        };
        login.0 = Some(challenge(&headers)?);
        let authorization = login.answer(credentials, &to.path, body).transpose()?;
        let (answer, _) = exchange(to, trust, body, authorization).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            return Err(OnvifError::Refused("it does not accept this user name and password".into()));
        }
        Ok(answer)
    };
    let late = |_| OnvifError::Unreachable(format!("nothing within {} s", limit.as_secs()));
    tokio::time::timeout(limit, work).await.map_err(late).flatten().map_err(|e| match e {
        OnvifError::Unreachable(why) => OnvifError::Unreachable(format!("{why} (port {})", to.port)),
        OnvifError::BrokeOff(why) => OnvifError::BrokeOff(format!("{why} (port {})", to.port)),
        e => e,
    })
}

/// The best challenge that keeps the password.
fn challenge(headers: &HeaderMap) -> Result<PasswordClient, OnvifError> {
    let mut clear = false;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        for challenge in value.to_str().ok().and_then(|v| http_auth::parse_challenges(v).ok()).into_iter().flatten() {
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                clear = true;
            } else if let Ok(client) = PasswordClient::builder().challenge(&challenge).build() {
                return Ok(client);
            }
        }
    }
    let why = if clear {
        "it wants the password in clear (Basic); switch Digest on in the camera"
    } else {
        "it does not accept this user name and password, or asks for a login in an unknown way"
    };
    Err(OnvifError::Refused(why.into()))
}

async fn exchange(
    to: &Endpoint,
    trust: &Trust,
    body: &str,
    authorization: Option<String>,
) -> Result<(Answer, HeaderMap), OnvifError> {
    let broken = |e: hyper::Error| OnvifError::BrokeOff(format!("no answer over HTTP: {}", shown(&e.to_string())));
    let address = |stream: &TcpStream| stream.peer_addr().ok().map(|at| at.ip().to_canonical());
    let (from, stream): (_, Box<dyn Stream>) = if to.secure {
        let stream = tls::connect(&to.host, to.port, trust).await.map_err(|e| match e {
            TlsError::Absent(why) => OnvifError::Unreachable(why),
            TlsError::Broken(why) => OnvifError::BrokeOff(why),
            TlsError::Refused(why) => OnvifError::Refused(why),
        })?;
        (address(stream.get_ref().0), Box::new(stream))
    } else {
        let stream = TcpStream::connect((to.host.as_str(), to.port));
        let stream = stream.await.map_err(|e| OnvifError::Unreachable(e.to_string()))?;
        (address(&stream), Box::new(stream))
    };
    // What follows are liberties that cameras take with HTTP.
    let mut client = hyper::client::conn::http1::Builder::new();
    client
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    let (mut sender, connection) = client.handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.map_err(broken)?;
    let mut request = Request::post(&to.path)
        .header(HOST, to.authority())
        .header(CONTENT_TYPE, "application/soap+xml; charset=utf-8")
        .header(USER_AGENT, concat!("mos/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close");
    if let Some(authorization) = authorization {
        let refused = |_| OnvifError::Refused("its challenge cannot be answered".into());
        let mut value = HeaderValue::try_from(authorization).map_err(refused)?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let bad = |_| OnvifError::Unreachable("its address is none".into());
    let request = request.body(Full::from(body.to_owned())).map_err(bad)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|e| OnvifError::BrokeOff(format!("no whole answer: {}", shown(&e.to_string()))))?;
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Ok((Answer { status: head.status, text, from }, head.headers))
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
