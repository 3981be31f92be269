//! Connections to network cameras over TLS 1.2 and 1.3.
//!
//! Promises:
//! - Y1: a connection is used only if the certificate is the one that is configured, or comes from an authority that is believed,
//!   is for the host that was asked, and is valid now. There is no way to switch that off.
//! - Y2: a refusal says what is wrong with the certificate, its fingerprint, and what to do.
//! - Y3: with a configured authority this machine's own are not believed; with a fingerprint nothing else counts.
//! - Y4: what only broke off is not told as a refusal: the account of a camera's absence is evidence.
//! - Y5: authorities are read once for many connections and not on the thread that connects; a camera that was judged is known
//!   again by its session for [`JUDGED_ANEW`] at most, then its certificate is looked at again.
//!
//! Used by the sources of `rtsps://` and `onvifs://`. Never falls back to a plain connection.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::{self, CryptoProvider, ring as provider};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use crate::source::{Fingerprint, Trust};

/// Where systems keep the authorities that they trust, in one file: Debian and Yocto, Fedora, OpenSSL.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How long a judgement counts for the sessions that follow it.
const JUDGED_ANEW: Duration = Duration::from_mins(10);
/// Most cameras whose sessions are kept.
const MOST_WAYS: usize = 64;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TlsError {
    /// Nobody answers there.
    #[error("{0}")]
    Absent(String),
    /// It was there and broke off, or this machine could not go on.
    #[error("{0}")]
    Broken(String),
    /// It is not who it should be, or cannot be talked to in confidence.
    #[error("{0}")]
    Refused(String),
}

/// Connects to `host`, a name or an address without brackets.
pub(crate) async fn connect(host: &str, port: u16, trust: &Trust) -> Result<TlsStream<TcpStream>, TlsError> {
    let refused = |why: String| TlsError::Refused(why);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| refused("its host is no name or address".into()))?;
    let config = known_way(trust, host, port, Instant::now()).await?;
    let stream = TcpStream::connect((host, port)).await.map_err(|e| TlsError::Absent(e.to_string()))?;
    // Requests are small and wait for their answers.
    let _ = stream.set_nodelay(true);
    let connected = TlsConnector::from(config).connect(name, stream).await.map_err(|e| failure(&e));
    if connected.is_err() {
        // Another file of authorities may mend it, or a handshake without a session.
        ways().retain(|way| !way.leads(trust, host, port));
    }
    connected
}

/// How a camera is judged, and its sessions.
struct Way {
    trust: Trust,
    host: String,
    port: u16,
    since: Instant,
    config: Arc<ClientConfig>,
}

impl Way {
    fn leads(&self, trust: &Trust, host: &str, port: u16) -> bool {
        self.host == host && self.port == port && self.trust == *trust
    }
}

/// Those of this process, the oldest first.
fn ways() -> MutexGuard<'static, Vec<Way>> {
    static WAYS: Mutex<Vec<Way>> = Mutex::new(Vec::new());
    WAYS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The way to a camera, which is made if there is none or an old one (Y5).
async fn known_way(trust: &Trust, host: &str, port: u16, now: Instant) -> Result<Arc<ClientConfig>, TlsError> {
    let known = {
        let mut ways = ways();
        ways.retain(|way| now.saturating_duration_since(way.since) < JUDGED_ANEW);
        ways.iter().find(|way| way.leads(trust, host, port)).map(|way| Arc::clone(&way.config))
    };
    if let Some(known) = known {
        return Ok(known);
    }
    let (trust, host) = (trust.clone(), host.to_owned());
    // A bundle of authorities is read from disk and has more than a hundred of them.
    let made = tokio::task::spawn_blocking(move || {
        let config = Arc::new(new_way(&trust, &host)?);
        let mut ways = ways();
        ways.retain(|way| !way.leads(&trust, &host, port));
        let excess = ways.len().saturating_sub(MOST_WAYS - 1);
        ways.drain(..excess);
        ways.push(Way { trust, host, port, since: now, config: Arc::clone(&config) });
        Ok(config)
    });
    made.await.map_err(|e| TlsError::Broken(e.to_string()))?.map_err(TlsError::Refused)
}

fn new_way(trust: &Trust, host: &str) -> Result<ClientConfig, String> {
    let judge = Judge::new(trust, host)?;
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&judge.provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(judge))
        .with_no_client_auth();
    // Of one server.
    config.resumption = Resumption::in_memory_sessions(8);
    Ok(config)
}

/// What a handshake ended with.
fn failure(e: &io::Error) -> TlsError {
    let Some(tls) = e.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return TlsError::Broken(format!("it ended the connection before it was encrypted ({e})"));
    };
    TlsError::Refused(match tls {
        Error::InvalidCertificate(CertificateError::Other(why)) => why.to_string(),
        Error::InvalidMessage(_) => "no TLS is spoken at its port; rtsp:// or another port may be meant".into(),
        Error::AlertReceived(AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure) => {
            "it has no cipher or version of TLS that is safe; 1.2 with ECDHE and AES-GCM or ChaCha20, or 1.3, are needed".into()
        }
        e => format!("no connection over TLS: {e}"),
    })
}

/// Judges certificates (Y1).
#[derive(Debug)]
struct Judge {
    provider: Arc<CryptoProvider>,
    host: String,
    pin: Option<Fingerprint>,
    /// By authorities; `None` with a pin.
    chains: Option<Arc<WebPkiServerVerifier>>,
    /// Whose authorities those are.
    believed: String,
}

impl Judge {
    fn new(trust: &Trust, host: &str) -> Result<Self, String> {
        let provider = Arc::new(provider::default_provider());
        let judge = |chains, believed| Self {
            provider: Arc::clone(&provider),
            host: host.to_owned(),
            pin: trust.fingerprint,
            chains,
            believed,
        };
        if trust.fingerprint.is_some() {
            return Ok(judge(None, String::new()));
        }
        let (file, believed) = match &trust.ca {
            Some(file) => (file.clone(), format!("an authority of {}", file.display())),
            None => (of_this_machine()?, "an authority that this machine trusts".into()),
        };
        let chains = authorities(&file, trust.ca.is_some(), &provider)?;
        Ok(judge(Some(chains), believed))
    }

    /// What is wrong with a certificate, and what to do.
    fn words(&self, error: &Error, shown: Fingerprint) -> String {
        let pin = format!("if it is the camera's own, set tls_fingerprint = \"{shown}\"");
        let host = &self.host;
        let Error::InvalidCertificate(why) = error else {
            return format!("its certificate cannot be judged ({error}); {pin}");
        };
        let date = |time: UnixTime| {
            let seconds = i64::try_from(time.as_secs()).ok().and_then(|s| Timestamp::from_second(s).ok());
            seconds.map_or_else(|| "an unknown time".to_owned(), |time| time.to_string())
        };
        match why {
            CertificateError::ExpiredContext { not_after, .. } => {
                let end = date(*not_after);
                format!("its certificate has expired at {end}; give the camera a new one, or, {pin}")
            }
            CertificateError::NotValidYetContext { time, not_before } => {
                let (begin, now) = (date(*not_before), date(*time));
                format!(
                    "its certificate is valid from {begin} on, and it is {now} here: set this machine's clock, or, {pin}"
                )
            }
            CertificateError::NotValidForNameContext { presented, .. } => {
                let names =
                    presented.iter().take(4).map(|name| super::onvif::shown(name)).collect::<Vec<_>>().join(", ");
                let names = if names.is_empty() { "no name".to_owned() } else { names };
                format!(
                    "its certificate is for {names} and not for {host}; name the camera as its certificate does, or, {pin}"
                )
            }
            CertificateError::UnknownIssuer => format!(
                "its certificate is not signed by {}; set tls_ca to the PEM file of who signed it, or, {pin}",
                self.believed
            ),
            _ => format!(
                "its certificate is its own authority, or nothing that can be judged ({}); {pin}",
                super::onvif::shown(&format!("{why:?}"))
            ),
        }
    }
}

/// A refusal in words, as the TLS library passes it through.
#[derive(Debug)]
struct Words(String);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Words {}

fn refusal(words: String) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Words(words)))))
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let hash = digest(&SHA256, certificate);
        let shown = Fingerprint(hash.as_ref().try_into().unwrap_or([0; 32]));
        if let Some(pin) = self.pin {
            if pin == shown {
                return Ok(ServerCertVerified::assertion());
            }
            return Err(refusal(format!(
                "its certificate is not the one of tls_fingerprint but {shown}: the camera has a new one, or somebody stands in between"
            )));
        }
        let Some(chains) = &self.chains else { return Err(refusal("nobody is believed".into())) };
        let judged = chains.verify_server_cert(certificate, chain, name, ocsp, now);
        judged.map_err(|e| refusal(self.words(&e, shown)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A file of authorities as it was when it was read, for as long as somebody uses it.
struct Known {
    file: PathBuf,
    state: Option<(SystemTime, u64)>,
    chains: Weak<WebPkiServerVerifier>,
}

/// The authorities of a file, at least one; shared by all cameras until it changes.
fn authorities(
    file: &Path,
    configured: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, String> {
    static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());
    // Held while the file is read: who comes meanwhile wants the same.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|known| known.chains.strong_count() > 0);
    let state = std::fs::metadata(file).ok().and_then(|now| Some((now.modified().ok()?, now.len())));
    let same = known.iter().find(|known| known.file == file && known.state == state && state.is_some());
    if let Some(chains) = same.and_then(|known| known.chains.upgrade()) {
        return Ok(chains);
    }
    let (before, after) = if configured { ("tls_ca: ", "") } else { ("", "; set tls_ca or tls_fingerprint") };
    let roots = read(file).map_err(|e| format!("{before}{} cannot be read: {e}{after}", file.display()))?;
    if roots.is_empty() {
        return Err(format!("{before}{} holds no certificate in PEM{after}", file.display()));
    }
    let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    let chains = chains.map_err(|e| format!("the authorities cannot be used: {e}"))?;
    known.push(Known { file: file.to_owned(), state, chains: Arc::downgrade(&chains) });
    Ok(chains)
}

/// The file of authorities that this machine trusts: `SSL_CERT_FILE`, else its bundle.
fn of_this_machine() -> Result<PathBuf, String> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let file = named.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|file| file.exists()));
    let none = || "this machine trusts no authorities (ca-certificates); set tls_ca or tls_fingerprint".to_owned();
    file.ok_or_else(none)
}

fn read(file: &Path) -> Result<RootCertStore, String> {
    let certificates = CertificateDer::pem_file_iter(file).map_err(|e| e.to_string())?;
    let mut roots = RootCertStore::empty();
    // A bundle may hold what cannot be an authority here; that one is not believed, the others are.
    roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    Ok(roots)
}

#[cfg(test)]
mod tests;
