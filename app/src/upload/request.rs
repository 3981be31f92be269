//! What a caller asks for, and the jobs that become of it: all of them or none, before anything is connected.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use super::Access;
use super::credential::{Credential, Secret};
use super::destination::Destination;
use super::failure::Refused;
use super::host_key::HostKeyPin;
use super::job::{Job, Priority};
use super::outbox::{Outbox, Outgoing};

/// What a caller asks for: `POST /uploads`.
#[derive(Clone, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadRequest {
    /// Files under `segments/`, `clips/` or `snapshots/`, absolute or relative to the archive's root.
    pub paths: Vec<String>,
    /// `sftp://user@host[:port]/path`; ending with `/` it is a directory, else the name of the one file.
    /// `/~/path` is relative to the login directory. It may not hold a password.
    pub destination_uri: String,
    /// How.
    #[serde(default)]
    pub options: UploadOptions,
}

/// How to upload.
#[derive(Clone, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadOptions {
    /// `SHA256:…` or a known_hosts line. Without it nothing is connected.
    pub host_key: Option<String>,
    /// The text of a private key file in OpenSSH format.
    pub identity: Option<Secret>,
    /// The passphrase of the private key, if it is encrypted.
    pub passphrase: Option<Secret>,
    /// A password, if the server takes no keys.
    pub password: Option<Secret>,
    /// Replace an existing file of that name; otherwise the job fails with `destination_exists`.
    #[serde(default)]
    pub overwrite: bool,
    /// Who goes first: `event`, `normal` or `background`.
    #[serde(default)]
    pub priority: Priority,
    /// Most bytes per second; absent: no limit.
    #[schema(minimum = 1024)]
    pub max_rate: Option<u64>,
    /// Read the whole file back and compare it before it gets its final name, if the server cannot tell its hash.
    #[serde(default)]
    pub read_back: bool,
    /// Leave out of MP4 files what no player needs, while they are sent; every frame stays bit for bit. Other files go whole.
    #[serde(default)]
    pub reduce: bool,
}

/// The credential of a job that goes on: `POST /uploads/{id}/retry`.
#[derive(Clone, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {
    /// The text of a private key file in OpenSSH format.
    pub identity: Option<Secret>,
    /// The passphrase of the private key, if it is encrypted.
    pub passphrase: Option<Secret>,
    /// A password, if the server takes no keys.
    pub password: Option<Secret>,
    /// Another host key, if the server's owner confirms that it was changed.
    pub host_key: Option<String>,
}

impl fmt::Debug for UploadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadRequest").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl fmt::Debug for UploadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadOptions").field("overwrite", &self.overwrite).finish_non_exhaustive()
    }
}

impl fmt::Debug for RetryRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryRequest").finish_non_exhaustive()
    }
}

/// The jobs that one call made, one per path, in the order of the paths.
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct Submitted {
    /// The id that they share.
    pub group: String,
    /// The jobs.
    pub uploads: Vec<Job>,
}

/// A call that was understood: what is sent, where to, and how to get in.
pub(super) struct Order {
    pub(super) access: Arc<Access>,
    pub(super) files: Vec<(Outgoing, Destination)>,
}

/// Understands a call and takes its files out of the archive's reach.
pub(super) fn order(request: &UploadRequest, outbox: &Outbox) -> Result<Order, Refused> {
    let to = Destination::parse(&request.destination_uri)?;
    let endpoint = to.endpoint();
    let options = &request.options;
    let pin = HostKeyPin::parse(options.host_key.as_deref().unwrap_or_default(), &endpoint)?;
    let credential = given(options.identity.as_ref(), options.passphrase.as_ref(), options.password.as_ref())?
        .ok_or_else(|| {
            Refused::Credential(
                "an upload to a URI needs the private key that the server knows; the daemon lends none of its own"
                    .to_owned(),
            )
        })?;
    let access = Arc::new(Access { endpoint, pin, credential });
    if options.max_rate.is_some_and(|rate| rate < 1024) {
        return Err(Refused::Options("max_rate must be at least 1024 bytes per second".to_owned()));
    }
    if request.paths.is_empty() {
        return Err(Refused::Path { path: String::new(), why: "name at least one file".to_owned() });
    }
    if request.paths.len() > 1 && !to.is_dir() {
        let why = "several files need a directory as their destination: end the URI with '/'";
        return Err(Refused::Destination(why.to_owned()));
    }
    let mut names = HashSet::new();
    let mut files = Vec::with_capacity(request.paths.len());
    for path in &request.paths {
        let outgoing = outbox.take(path)?;
        let to = to.of_file(&outgoing.name);
        if !names.insert(to.remote_path()) {
            return Err(Refused::SameName { name: to.file_name().to_owned() });
        }
        files.push((outgoing, to));
    }
    Ok(Order { access, files })
}

/// The credential that came with a call, if one did.
pub(super) fn given(
    identity: Option<&Secret>,
    passphrase: Option<&Secret>,
    password: Option<&Secret>,
) -> Result<Option<Credential>, Refused> {
    match (identity, password) {
        (Some(key), None) => Credential::from_key_text(key, passphrase).map(Some),
        (None, Some(password)) => Ok(Some(Credential::Password(password.clone()))),
        (Some(_), Some(_)) => Err(Refused::Credential("give a key or a password, not both".to_owned())),
        (None, None) => Ok(None),
    }
}
