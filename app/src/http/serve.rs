//! The listeners: a Unix socket and, if configured, TCP, beyond loopback with TLS.
//!
//! Promises: a socket that somebody serves is never taken over, a stale one is replaced; requests are bounded in header
//! size, header time, body size and number of connections; a connection that says nothing keeps nobody out, and no user of this
//! machine another (`crowd.rs`). Never touches recording.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use super::crowd::{Answer, Busy, Crowd, From, Known, Present};
use super::peer;
use crate::access::{Caller, LocalUsers, Who};

/// Connections at a time on each listener; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// Bytes of request line and header fields.
const MAX_HEADER: usize = 16 << 10;
/// How long a client may take to send the header; also ends idle keep-alive connections.
const HEADER_TIME: Duration = Duration::from_secs(15);
/// How long a client may take to agree on keys.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another daemon has it.
    #[error("{} is served by another process; stop it or choose another http.unix_socket", .0.display())]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{} exists and is no socket; remove it or choose another http.unix_socket", .0.display())]
    NoSocket(PathBuf),
    /// The system says no.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Where.
        address: String,
        /// What the system said.
        reason: io::Error,
    },
}

/// A Unix socket, taken and ready to be served. Its file goes when it is dropped, if it was made here.
#[derive(Debug)]
pub struct UnixEndpoint {
    listener: UnixListener,
    made: Option<PathBuf>,
}

/// Takes a Unix socket, mode 0660. Must be called within a runtime.
pub fn bind_unix(path: &Path) -> Result<UnixEndpoint, ServeError> {
    let fail = |reason| ServeError::Listen { address: path.display().to_string(), reason };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(fail(e)),
        Ok(found) if !found.file_type().is_socket() => return Err(ServeError::NoSocket(path.to_owned())),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(ServeError::InUse(path.to_owned())),
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(fail)?,
            Err(e) => return Err(fail(e)),
        },
    }
    // Bound under another name and moved when its mode is set: nobody meets it with a wider one.
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).map_err(fail)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o660)).map_err(fail)?;
    std::fs::rename(&fresh, path).map_err(fail)?;
    Ok(UnixEndpoint { listener, made: Some(path.to_owned()) })
}

/// Takes a Unix socket that somebody else made and holds; mode and file are theirs. Must be called within a runtime.
pub fn held_unix(socket: std::os::unix::net::UnixListener) -> io::Result<UnixEndpoint> {
    Ok(UnixEndpoint { listener: UnixListener::from_std(socket)?, made: None })
}

impl Drop for UnixEndpoint {
    fn drop(&mut self) {
        if let Some(path) = &self.made {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Takes a TCP address.
pub async fn bind_tcp(address: std::net::SocketAddr) -> Result<TcpListener, ServeError> {
    let fail = |reason| ServeError::Listen { address: address.to_string(), reason };
    TcpListener::bind(address).await.map_err(fail)
}

/// Serves until dropped. What a peer may do is decided by what the kernel says of it.
pub async fn unix(endpoint: &UnixEndpoint, users: &LocalUsers, api: Router) {
    let mut crowd = Crowd::new(MAX_CONNECTIONS);
    loop {
        let (stream, caller) = match endpoint.listener.accept().await {
            Ok((stream, _)) => match peer::caller(&stream, users) {
                Ok(caller) => (stream, caller),
                Err(e) => {
                    log::warn!("a connection to the API does not say whose it is: {e}");
                    continue;
                }
            },
            Err(e) => {
                refused(&e).await;
                continue;
            }
        };
        let Who::User(uid) = caller.who else { continue };
        let from = From::User(uid, caller.role.is_some());
        let Some(permit) = crowd.place(from).await else {
            log::debug!("uid {uid} has too many connections to the API");
            continue;
        };
        let (known, busy) = (Known::default(), Busy::default());
        let task = connection(stream, api.clone(), As::Peer(Arc::new(caller)), busy.clone(), permit);
        crowd.add(Present { from, known, busy, task });
    }
}

/// Serves until dropped, with TLS if there is an acceptor. The API must ask for tokens by itself.
pub async fn tcp(listener: &TcpListener, tls: Option<&TlsAcceptor>, api: Router) {
    let mut crowd = Crowd::new(MAX_CONNECTIONS);
    loop {
        let (stream, from) = match listener.accept().await {
            Ok((stream, peer)) => (stream, From::address(peer.ip())),
            Err(e) => {
                refused(&e).await;
                continue;
            }
        };
        let Some(permit) = crowd.place(from).await else { continue };
        let _ = stream.set_nodelay(true);
        let (api, known, busy) = (api.clone(), Known::default(), Busy::default());
        let shown = As::Unknown(known.clone());
        let task = match tls {
            None => connection(stream, api, shown, busy.clone(), permit),
            Some(tls) => {
                let (agreed, busy) = (tls.accept(stream), busy.clone());
                let task = tokio::spawn(async move {
                    match tokio::time::timeout(HANDSHAKE_TIME, agreed).await {
                        Ok(Ok(stream)) => exchange(stream, api, shown, busy, permit).await,
                        Ok(Err(e)) => log::debug!("a connection to the API could not agree on keys: {e}"),
                        Err(_) => log::debug!("a connection to the API took too long to agree on keys"),
                    }
                });
                task.abort_handle()
            }
        };
        crowd.add(Present { from, known, busy, task });
    }
}

/// Out of descriptors or memory: the next attempt waits, so that the loop does not spin.
async fn refused(error: &io::Error) {
    log::warn!("a connection to the API could not be accepted: {error}");
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// As whom requests of a connection come.
enum As {
    /// As a process of this machine.
    Peer(Arc<Caller>),
    /// As nobody yet: each request shows a token.
    Unknown(Known),
}

fn connection<S>(stream: S, api: Router, caller: As, busy: Busy, permit: OwnedSemaphorePermit) -> AbortHandle
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(exchange(stream, api, caller, busy, permit)).abort_handle()
}

/// Serves one connection to its end; its place is free then.
async fn exchange<S>(stream: S, api: Router, caller: As, busy: Busy, _place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let api = TowerToHyperService::new(api);
    let api = service_fn(move |mut request: Request<Incoming>| {
        match &caller {
            As::Peer(caller) => drop(request.extensions_mut().insert(caller.clone())),
            As::Unknown(known) => drop(request.extensions_mut().insert(known.clone())),
        }
        let (serving, answer) = (busy.serve(), api.call(request));
        async move { answer.await.map(|answer| answer.map(|body| Body::new(Answer::new(body, serving)))) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(stream), api)
        .await;
    if let Err(e) = served {
        log::debug!("a connection to the API ended early: {e}");
    }
}
