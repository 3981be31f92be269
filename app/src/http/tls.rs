//! TLS of the TCP listener: the recorder's certificate and key, from PEM files.
//!
//! Promises: TLS 1.3 only, so nothing can be talked down; a certificate that does not fit its key, or none at all, ends the
//! start. What a certificate is worth is judged by the client; a client without one is known by its token.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, version};

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM of the kind that is wanted.
    #[error("{}: no PEM {wanted} can be read: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// What was found. Never bytes of the file.
        reason: String,
    },
    /// Certificate and key cannot be used.
    #[error("the certificate {} cannot be served with its key: {reason}", file.display())]
    Unusable {
        /// The certificate.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Takes certificate chain and private key.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let bad = |file: &Path, wanted, reason| TlsError::File { file: file.to_owned(), wanted, reason };
    let chain = certificates(certificate).map_err(|reason| bad(certificate, "certificate", reason))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(key, "private key", e.to_string()))?;
    let unusable =
        |e: tokio_rustls::rustls::Error| TlsError::Unusable { file: certificate.to_owned(), reason: e.to_string() };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// All certificates of a PEM file; at least one.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(chain) if chain.is_empty() => Err("there is none in it".to_owned()),
        Ok(chain) => Ok(chain),
        Err(e) => Err(e.to_string()),
    }
}
