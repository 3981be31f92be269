//! The way in: TCP, the server's host key, our login. Nothing about files.
//!
//! The order is the promise: the key exchange ends, the server has signed with its host key, that key is the pinned one, and
//! only then is the user's name or a credential sent (RFC 4253 section 8, RFC 4252 section 4).

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::AgentAuthError;
use russh::client::{self, AuthResult, Handle, Msg};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Channel, Disconnect, Preferred, SshId, cipher};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Access;
use super::credential::Credential;
use super::destination::Endpoint;
use super::failure::{Failure, FailureKind};
use super::host_key::HostKeyPin;

/// For name and TCP together.
const CONNECT: Duration = Duration::from_secs(15);
/// For the key exchange, for the login and for opening the channel, each.
const ANSWER: Duration = Duration::from_secs(20);

/// A connection that is logged in.
pub(super) struct Connection {
    handle: Handle<Gate>,
}

/// Lets nobody pass but the pinned server.
struct Gate {
    pin: HostKeyPin,
    /// The fingerprint of a key that was turned away.
    turned_away: Arc<Mutex<Option<String>>>,
}

impl client::Handler for Gate {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let shown = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } if self.pin.matches(key) => return Ok(true),
            PublicKeyOrCertificate::PublicKey { key, .. } => key.fingerprint(HashAlg::Sha256).to_string(),
            PublicKeyOrCertificate::Certificate(_) => "a certificate".to_owned(),
        };
        *self.turned_away.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Ok(false)
    }
}

impl Connection {
    /// Connects and logs in.
    pub(super) async fn open(access: &Access) -> Result<Self, Failure> {
        let mut handle = verified(&access.endpoint, &access.pin).await?;
        login(&mut handle, access).await?;
        Ok(Self { handle })
    }

    /// Opens a channel.
    pub(super) async fn channel(&self, at: &Endpoint) -> Result<Channel<Msg>, Failure> {
        match timeout(ANSWER, self.handle.channel_open_session()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(russh::Error::ChannelOpenFailure(_))) => {
                Err(Failure::new(FailureKind::ServerError, format!("{at} opens no channel for this user")))
            }
            Ok(Err(e)) => Err(lost(at, &e)),
            Err(_) => Err(late(at, "opening a channel")),
        }
    }

    /// Whether the other side is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Says goodbye.
    pub(super) async fn close(&self) {
        let _ = self.handle.disconnect(Disconnect::ByApplication, "", "").await;
    }
}

/// Connects until the server has proved that it is the pinned one. A server shows one key a connection, of the kind that it is
/// asked for; so each kind that the pin may be gets its own attempt.
async fn verified(at: &Endpoint, pin: &HostKeyPin) -> Result<Handle<Gate>, Failure> {
    let turned_away = Arc::new(Mutex::new(None));
    let mut last = None;
    for kinds in pin.algorithms() {
        let gate = Gate { pin: pin.clone(), turned_away: turned_away.clone() };
        match handshake(at, gate, kinds).await? {
            Ok(handle) => return Ok(handle),
            Err(e) => last = Some(e),
        }
    }
    let shown = turned_away.lock().unwrap_or_else(PoisonError::into_inner).take();
    let message = match (shown, last) {
        (Some(shown), _) => format!(
            "{at} showed the host key {shown}, but {pin} is pinned; nothing was sent. \
             Pin the new key only if its owner confirms that it was changed"
        ),
        (None, _) => format!(
            "{at} has no host key of the pinned kind ({pin}); Ed25519 and ECDSA keys are supported; nothing was sent"
        ),
    };
    Err(Failure::new(FailureKind::HostKeyMismatch, message))
}

/// One connection up to the host key. The inner error is a key that does not match, the outer one any other fault.
async fn handshake(
    at: &Endpoint,
    gate: Gate,
    kinds: Vec<Algorithm>,
) -> Result<Result<Handle<Gate>, russh::Error>, Failure> {
    let unreachable = |why: String| Failure::new(FailureKind::Unreachable, format!("cannot reach {at}: {why}"));
    let tcp = match timeout(CONNECT, TcpStream::connect((at.host.as_str(), at.port))).await {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(e)) => return Err(unreachable(e.to_string())),
        Err(_) => return Err(unreachable(format!("no answer within {} s", CONNECT.as_secs()))),
    };
    let _ = tcp.set_nodelay(true);
    let config = Arc::new(client::Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-mos_", env!("CARGO_PKG_VERSION")))),
        // Acknowledgements count as signs of life; on a thin road they come every few seconds.
        keepalive_interval: Some(Duration::from_secs(15)),
        keepalive_max: 4,
        preferred: Preferred {
            key: Cow::Owned(kinds),
            // AES-GCM first: every board has AES instructions, and it is the fastest measured.
            cipher: Cow::Borrowed(&[
                cipher::AES_128_GCM,
                cipher::AES_256_GCM,
                cipher::CHACHA20_POLY1305,
                cipher::AES_256_CTR,
                cipher::AES_128_CTR,
            ]),
            ..Preferred::DEFAULT
        },
        ..client::Config::default()
    });
    match timeout(ANSWER, client::connect_stream(config, tcp, gate)).await {
        Err(_) => Err(late(at, "the key exchange")),
        Ok(Ok(handle)) => Ok(Ok(handle)),
        Ok(Err(e @ (russh::Error::UnknownKey | russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, .. }))) => {
            Ok(Err(e))
        }
        Ok(Err(russh::Error::NoCommonAlgo { kind, .. })) => {
            let message =
                format!("{at} and MOS have no {kind:?} algorithm in common; the server is too old or too strict");
            Err(Failure::new(FailureKind::ServerError, message))
        }
        Ok(Err(russh::Error::Version)) => {
            Err(Failure::new(FailureKind::ServerError, format!("what answers at {at} is no SSH server")))
        }
        Ok(Err(e)) => Err(lost(at, &e)),
    }
}

async fn login(handle: &mut Handle<Gate>, access: &Access) -> Result<(), Failure> {
    let (user, at) = (access.endpoint.user.clone(), &access.endpoint);
    let (proof, answer) = match &access.credential {
        Credential::Key(key) => {
            let proof = format!("the key {}", key.public_key().fingerprint(HashAlg::Sha256));
            let key = PrivateKeyWithHashAlg::new(key.clone(), None);
            (proof, timeout(ANSWER, handle.authenticate_publickey(user, key)).await)
        }
        Credential::Password(password) => {
            let answer = handle.authenticate_password(user, password.expose());
            ("the password".to_owned(), timeout(ANSWER, answer).await)
        }
        Credential::Agent(socket) => return login_by_agent(handle, at, socket).await,
    };
    match answer {
        Err(_) => Err(late(at, "the login")),
        Ok(Err(e)) => Err(lost(at, &e)),
        Ok(Ok(answer)) => judged(handle, at, &answer, &proof),
    }
}

/// Offers the keys of an agent one after another; the agent signs, the keys stay with it.
async fn login_by_agent(handle: &mut Handle<Gate>, at: &Endpoint, socket: &Path) -> Result<(), Failure> {
    let unavailable = |why: String| {
        let message = format!("the SSH agent at {} cannot be used: {why}", socket.display());
        Failure::new(FailureKind::CredentialUnavailable, message)
    };
    let agent =
        timeout(ANSWER, AgentClient::connect_uds(socket)).await.map_err(|_| unavailable("no answer".to_owned()))?;
    let mut agent = agent.map_err(|e| unavailable(e.to_string()))?;
    let keys = timeout(ANSWER, agent.request_identities()).await.map_err(|_| unavailable("no answer".to_owned()))?;
    let keys = keys.map_err(|e| unavailable(e.to_string()))?;
    let mut last = Err(unavailable("it holds no key of a kind that is supported".to_owned()));
    for key in keys {
        let AgentIdentity::PublicKey { key, .. } = key else { continue };
        let proof = format!("the agent's key {}", key.fingerprint(HashAlg::Sha256));
        let answer = handle.authenticate_publickey_with(at.user.clone(), key, None, &mut agent);
        last = match timeout(ANSWER, answer).await {
            Err(_) => return Err(late(at, "the login")),
            Ok(Err(AgentAuthError::Send(_))) => {
                return Err(Failure::new(
                    FailureKind::ConnectionLost,
                    format!("the connection to {at} broke off during the login"),
                ));
            }
            Ok(Err(AgentAuthError::Key(e))) => Err(unavailable(e.to_string())),
            Ok(Ok(answer)) => judged(handle, at, &answer, &proof),
        };
        match &last {
            Err(refused) if refused.kind != FailureKind::ConnectionLost => {}
            _ => break,
        }
    }
    last
}

/// What the server's answer to a login means.
fn judged(handle: &Handle<Gate>, at: &Endpoint, answer: &AuthResult, proof: &str) -> Result<(), Failure> {
    match answer {
        AuthResult::Success => Ok(()),
        // The library's answer to a connection that ended before the server's.
        AuthResult::Failure { remaining_methods, .. } if remaining_methods.is_empty() && handle.is_closed() => {
            Err(Failure::new(FailureKind::ConnectionLost, format!("the connection to {at} broke off during the login")))
        }
        AuthResult::Failure { .. } => {
            let message = format!("{at} does not accept {proof} for user '{}'", at.user.escape_default());
            Err(Failure::new(FailureKind::AuthFailed, message))
        }
    }
}

fn lost(at: &Endpoint, e: &russh::Error) -> Failure {
    Failure::new(FailureKind::ConnectionLost, format!("the connection to {at} broke off: {e}"))
}

fn late(at: &Endpoint, what: &str) -> Failure {
    Failure::new(FailureKind::TimedOut, format!("{at} did not finish {what} within {} s", ANSWER.as_secs()))
}
