//! The HTTP client of the commands: speaks to a daemon over its Unix socket or a TCP address.
//!
//! Promises: one connection per request, a bounded wait for the connection, the daemon's own message in every error. The
//! token is sent, never shown. Used by the commands, the demo and tests; it knows nothing about the daemon's insides.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, version};

use crate::error::{ErrorBody, ErrorDetail};

/// The socket that is tried when nobody says which.
pub const DEFAULT_SOCKET: &str = "/run/mos/mos.sock";
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest reply that is taken into memory, in bytes.
const MAX_REPLY: usize = 256 << 20;

/// Where the daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port` of plain HTTP.
    Tcp(String),
    /// `host:port` of HTTP over TLS.
    Tls(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Tls(authority) => write!(f, "https://{authority}"),
        }
    }
}

impl Address {
    /// Reads `http://host:port` or `https://host:port`; other schemes, paths and user information are refused.
    pub fn from_url(text: &str) -> Result<Self, ClientError> {
        let bad = || ClientError::Url(text.split('@').next_back().unwrap_or_default().to_owned());
        let url = url::Url::parse(text).map_err(|_| bad())?;
        let plain = url.username().is_empty() && url.password().is_none();
        let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        let authority = |default| Some(format!("{}:{}", url.host_str()?, url.port().unwrap_or(default)));
        match url.scheme() {
            "http" if plain && bare => authority(80).map(Self::Tcp).ok_or_else(bad),
            "https" if plain && bare => authority(443).map(Self::Tls).ok_or_else(bad),
            _ => Err(bad()),
        }
    }
}

/// Why there is no answer, or no good one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL of the daemon cannot be used.
    #[error("'{0}' is no address of a daemon: use http://HOST:PORT or https://HOST:PORT")]
    Url(String),
    /// Nobody answers there.
    #[error("no daemon answers at {address}: {reason}; is `mos run` running, and is this its address?")]
    Unreachable {
        /// Where.
        address: Address,
        /// What the system said.
        reason: String,
    },
    /// What TLS needs is not there.
    #[error("{0}")]
    Trust(String),
    /// Who answers is not who was asked for.
    #[error("{address} is not trusted: {reason}; nothing was sent")]
    Untrusted {
        /// Where.
        address: Address,
        /// What is wrong with the certificate or the connection.
        reason: String,
    },
    /// The daemon answered, and it is an error.
    #[error("{}", .0.message)]
    Refused(ErrorDetail),
    /// What was downloaded cannot be written here.
    #[error("cannot write what was downloaded: {0}")]
    Write(std::io::Error),
    /// What came back is not the API of MOS.
    #[error("{address} does not answer as MOS does: {reason}")]
    Garbled {
        /// Where.
        address: Address,
        /// What was seen.
        reason: String,
    },
}

/// A client; cheap to clone, holds no connection.
#[derive(Clone)]
pub struct Client {
    address: Address,
    token: Option<String>,
    tls: Option<TlsConnector>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.address)
    }
}

impl Client {
    /// A client of the daemon at `address`; TCP needs the daemon's token.
    #[must_use]
    pub fn new(address: Address, token: Option<String>) -> Self {
        Self { address, token, tls: None }
    }

    /// The same, trusting daemons whose certificates are signed by one of `authorities`, a PEM file; nobody else is trusted.
    pub fn trusting(mut self, authorities: &Path) -> Result<Self, ClientError> {
        let bad = |why: String| ClientError::Trust(format!("{} cannot be trusted: {why}", authorities.display()));
        let mut roots = RootCertStore::empty();
        for certificate in crate::http::tls::certificates(authorities).map_err(bad)? {
            roots.add(certificate).map_err(|e| bad(e.to_string()))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|e| bad(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        self.tls = Some(TlsConnector::from(Arc::new(config)));
        Ok(self)
    }

    /// Where it connects to.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// `GET path`, e.g. `/v1/segments?lens=road`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(Method::GET, path, None::<&()>).await
    }

    /// `POST path` with a JSON body.
    pub async fn post<B: Serialize + Sync, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, ClientError> {
        self.json(Method::POST, path, Some(body)).await
    }

    /// `PUT path` with a JSON body.
    pub async fn put<B: Serialize + Sync, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, ClientError> {
        self.json(Method::PUT, path, Some(body)).await
    }

    /// `DELETE path`.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(Method::DELETE, path, None::<&()>).await
    }

    /// `GET path` as text, e.g. the metrics.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let body = self.collect(self.send(Method::GET, path, None).await?).await?;
        String::from_utf8(body.into()).map_err(|e| self.garbled(e))
    }

    /// `GET path` as bytes, handed to `take` as they come; returns how many they were.
    pub async fn download(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<u64, ClientError> {
        let response = self.checked(self.send(Method::GET, path, None).await?).await?;
        let (mut body, mut bytes) = (response.into_body(), 0);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| self.unreachable(e))?;
            let Some(data) = frame.data_ref() else { continue };
            take(data).map_err(ClientError::Write)?;
            bytes += data.len() as u64;
        }
        Ok(bytes)
    }

    /// `GET path` as server-sent events.
    pub async fn events(&self, path: &str) -> Result<Events, ClientError> {
        let response = self.checked(self.send(Method::GET, path, None).await?).await?;
        Ok(Events { client: self.clone(), body: response.into_body(), waiting: BytesMut::new() })
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, ClientError> {
        let body = body.map(serde_json::to_vec).transpose().map_err(|e| self.garbled(e))?;
        let reply = self.collect(self.send(method, path, body).await?).await?;
        // Operations without a result answer 204 and an empty body, which reads as `null`.
        let text = if reply.is_empty() { &b"null"[..] } else { &reply[..] };
        serde_json::from_slice(text).map_err(|e| self.garbled(e))
    }

    async fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Response<Incoming>, ClientError> {
        let connected = tokio::time::timeout(CONNECT, async {
            match &self.address {
                Address::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
                Address::Tcp(authority) | Address::Tls(authority) => {
                    Ok::<_, std::io::Error>(Stream::Tcp(TcpStream::connect(authority).await?))
                }
            }
        });
        let stream = match connected.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(self.unreachable(e)),
            Err(_) => return Err(self.unreachable("no connection within 5 s")),
        };
        let request = self.request(method, path, body)?;
        match stream {
            Stream::Unix(s) => self.exchange(s, request).await,
            Stream::Tcp(s) => match &self.address {
                Address::Tls(authority) => self.exchange(self.agree(authority, s).await?, request).await,
                _ => self.exchange(s, request).await,
            },
        }
    }

    /// Agrees on keys with who answers there, if it is who was asked for. Nothing but the name is told before.
    async fn agree(&self, authority: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, ClientError> {
        let untrusted = |reason: String| ClientError::Untrusted { address: self.address.clone(), reason };
        let Some(tls) = &self.tls else {
            let why = "https needs the certificate of who signed the recorder's: --ca FILE or MOS_CA";
            return Err(ClientError::Trust(why.to_owned()));
        };
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(|e| untrusted(e.to_string()))?;
        match tokio::time::timeout(CONNECT, tls.connect(name, stream)).await {
            Ok(agreed) => agreed.map_err(|e| untrusted(e.to_string())),
            Err(_) => Err(self.unreachable("no TLS within 5 s")),
        }
    }

    fn request(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Request<Full<Bytes>>, ClientError> {
        let host = match &self.address {
            Address::Unix(_) => "localhost",
            Address::Tcp(authority) | Address::Tls(authority) => authority,
        };
        let mut request = Request::builder().method(method).uri(path).header("host", host);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        request.body(Full::from(body.unwrap_or_default())).map_err(|e| self.garbled(e))
    }

    async fn exchange<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.unreachable(e))?;
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|e| self.unreachable(e))
    }

    /// The response if it is a success; its error otherwise.
    async fn checked(&self, response: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = self.read(response.into_body()).await?;
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => Err(ClientError::Refused(body.error)),
            Err(_) => Err(self.garbled(format!("status {status} without a MOS error"))),
        }
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = self.checked(response).await?.into_body();
        self.read(body).await
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, ClientError> {
        let limited = http_body_util::Limited::new(body, MAX_REPLY);
        Ok(limited.collect().await.map_err(|e| self.garbled(e))?.to_bytes())
    }

    fn unreachable(&self, reason: impl fmt::Display) -> ClientError {
        ClientError::Unreachable { address: self.address.clone(), reason: reason.to_string() }
    }

    fn garbled(&self, reason: impl fmt::Display) -> ClientError {
        ClientError::Garbled { address: self.address.clone(), reason: reason.to_string() }
    }
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A stream of server-sent events (WHATWG HTML, "Server-sent events").
#[derive(Debug)]
pub struct Events {
    client: Client,
    body: Incoming,
    waiting: BytesMut,
}

impl Events {
    /// The data of the next event as JSON; `None` when the daemon has closed the stream.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.waiting.windows(2).position(|w| w == b"\n\n") {
                let event = self.waiting.split_to(end);
                self.waiting.advance(2);
                let Some(data) = data_of(&event) else { continue };
                return serde_json::from_str(&data).map(Some).map_err(|e| self.client.garbled(e));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => self.waiting.extend_from_slice(frame.data_ref().map_or(&[], |d| &d[..])),
                Some(Err(e)) => return Err(self.client.unreachable(e)),
            }
            if self.waiting.len() > MAX_REPLY {
                return Err(self.client.garbled("an endless event"));
            }
        }
    }
}

/// The `data` lines of one event; a comment (keep-alive) has none.
fn data_of(event: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(event);
    let lines: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(|data| data.strip_prefix(' ').unwrap_or(data))
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_with_credentials_or_paths_are_refused() {
        assert_eq!(Address::from_url("http://127.0.0.1:8080/").unwrap(), Address::Tcp("127.0.0.1:8080".into()));
        assert_eq!(Address::from_url("http://[::1]:8080").unwrap(), Address::Tcp("[::1]:8080".into()));
        assert_eq!(Address::from_url("https://a.example").unwrap(), Address::Tls("a.example:443".into()));
        for bad in ["ftp://a:1", "http://a/v1", "a:1", "", "http://u:secret@a:1"] {
            let error = Address::from_url(bad).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn events_may_have_several_lines_and_comments_are_no_events() {
        assert_eq!(data_of(b"event: x\ndata: {\"a\":\ndata: 1}").unwrap(), "{\"a\":\n1}");
        assert_eq!(data_of(b": keep-alive"), None);
    }
}
