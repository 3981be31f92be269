//! Certificates for test cameras, made by the `openssl` program.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli;

/// An authority in a temporary folder.
#[derive(Debug)]
pub struct Authority {
    folder: tempfile::TempDir,
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Valid {
    /// It has expired.
    Past,
    /// It is.
    Now,
    /// Not yet.
    Future,
}

/// What `openssl ca` wants to know.
const BOOK: &str = "[ca]\ndefault_ca = book\n[book]\ndatabase = index\nnew_certs_dir = .\nrand_serial = yes\n\
    default_md = sha256\nunique_subject = no\npolicy = any\n[any]\ncommonName = supplied\n";

/// A certificate and its key, as PEM files that live as long as their [`Authority`].
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one that nobody knows.
    #[must_use]
    pub fn new() -> Self {
        let authority = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(authority.folder.path().join("ca.cnf"), BOOK).unwrap();
        std::fs::write(authority.folder.path().join("index"), "").unwrap();
        authority.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 9");
        authority
    }

    /// Its own certificate.
    #[must_use]
    pub fn pem(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate of the authority for `names`, as `IP:127.0.0.1` or `DNS:camera.example`.
    #[must_use]
    pub fn issue(&self, file: &str, names: &str, valid: Valid) -> Certificate {
        let (from, to) = match valid {
            Valid::Past => (2020, 2021),
            Valid::Now => (2020, 2049),
            Valid::Future => (2048, 2049),
        };
        let extensions = format!("subjectAltName={names}\nextendedKeyUsage=serverAuth\n");
        std::fs::write(self.folder.path().join("extensions"), extensions).unwrap();
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {file}.key -out {file}.csr -subj /CN=camera"
        ));
        self.openssl(&format!(
            "ca -batch -notext -config ca.cnf -cert ca.pem -keyfile ca.key -in {file}.csr -out {file}.pem -extfile extensions \
             -startdate {from}0101000000Z -enddate {to}0101000000Z"
        ));
        self.certificate(file)
    }

    /// One that signed itself, with RSA, as cameras make them: for no name and for ten years.
    #[must_use]
    pub fn self_signed(&self, file: &str) -> Certificate {
        self.openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -keyout {file}.key -out {file}.pem -subj /CN=IPCamera -days 3650"
        ));
        self.certificate(file)
    }

    fn certificate(&self, file: &str) -> Certificate {
        let path = |end: &str| self.folder.path().join(format!("{file}.{end}"));
        Certificate { certificate: path("pem"), key: path("key") }
    }

    fn openssl(&self, arguments: &str) -> Vec<u8> {
        cli::tool(Command::new("openssl").args(arguments.split(' ')).current_dir(self.folder.path()))
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificate {
    /// What openssl shows as its SHA-256.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let shown = cli::tool(
            Command::new("openssl").args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(self.path()),
        );
        let shown = String::from_utf8(shown).unwrap();
        shown.trim().split_once('=').expect("sha256 Fingerprint=…").1.to_owned()
    }

    fn path(&self) -> &Path {
        &self.certificate
    }
}
