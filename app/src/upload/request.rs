//! What a caller asks for, and the jobs that become of it: all of them or none, before anything is connected.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use super::Access;
use super::book::WayIn;
use super::credential::{Credential, Secret};
use super::destination::Destination;
use super::failure::Refused;
use super::host_key::HostKeyPin;
use super::job::{Job, Priority};
use super::named::NamedDestination;
use super::outbox::{Outbox, Outgoing};
use super::template::{self, Values};

/// What a caller asks for: `POST /uploads`.
#[derive(Clone, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadRequest {
    /// Files under `segments/`, `clips/` or `snapshots/`, absolute or relative to the archive's root.
    pub paths: Vec<String>,
    /// `sftp://user@host[:port]/path`; ending with `/` it is a directory, else the name of the one file.
    /// `/~/path` is relative to the login directory. It may not hold a password. The path may hold tokens such as `{lens}`.
    /// Or the name of a `[[destination]]` of the configuration, which has its own path, host key and credential.
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

/// What the configuration says about destinations.
#[derive(Clone, Debug, Default)]
pub struct Roads {
    /// `[[destination]]`.
    pub destinations: Vec<NamedDestination>,
    /// `[context]`: values of tokens.
    pub context: Values,
}

impl Roads {
    /// The destination of that name.
    pub(super) fn named(&self, name: &str) -> Option<&NamedDestination> {
        self.destinations.iter().find(|destination| destination.name == name)
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
    pub(super) way_in: WayIn,
    pub(super) pin: HostKeyPin,
    pub(super) named: Option<String>,
    pub(super) max_rate: Option<u64>,
    pub(super) files: Vec<(Outgoing, Destination)>,
    /// Times of the files got into their names.
    pub(super) timed: bool,
}

/// Understands a call and pins its files.
pub(super) fn order(request: &UploadRequest, outbox: &Outbox, roads: &Roads) -> Result<Order, Refused> {
    let options = &request.options;
    if options.max_rate.is_some_and(|rate| rate < 1024) {
        return Err(Refused::Options("max_rate must be at least 1024 bytes per second".to_owned()));
    }
    if request.paths.is_empty() {
        return Err(Refused::Path { path: String::new(), why: "name at least one file".to_owned() });
    }
    if request.destination_uri.contains("://") {
        let uri = &request.destination_uri;
        // Before any file is touched: who cannot get in is told so whatever he names.
        let access = access(uri, options)?;
        let pin = access.pin.clone();
        let (files, timed) = files(request, uri, outbox, roads)?;
        let way_in = WayIn::Given(Arc::new(access));
        return Ok(Order { way_in, pin, named: None, max_rate: options.max_rate, files, timed });
    }
    let name = &request.destination_uri;
    let Some(destination) = roads.named(name) else {
        let known: Vec<&str> = roads.destinations.iter().map(|d| d.name.as_str()).collect();
        let known =
            if known.is_empty() { "there are none".to_owned() } else { format!("there are {}", known.join(", ")) };
        return Err(Refused::Destination(format!(
            "give sftp://user@host[:port]/path or the name of a [[destination]] of the configuration; {known}"
        )));
    };
    if options.host_key.is_some() || options.identity.is_some() || options.password.is_some() {
        let why = format!("destination '{name}' has its own host key and credential; give none");
        return Err(Refused::Credential(why));
    }
    let (files, timed) = files(request, &destination.uri(), outbox, roads)?;
    let max_rate = match (options.max_rate, destination.max_rate) {
        (Some(asked), Some(most)) => Some(asked.min(most)),
        (asked, most) => asked.or(most),
    };
    let way_in = WayIn::Named(name.clone());
    Ok(Order { way_in, pin: destination.pin.clone(), named: Some(name.clone()), max_rate, files, timed })
}

/// How a call to a URI gets in.
fn access(uri: &str, options: &UploadOptions) -> Result<Access, Refused> {
    let plain = template::tokens(uri)?.is_empty();
    let endpoint = Destination::parse(if plain { uri } else { template::authority(uri) })?.endpoint();
    let pin = HostKeyPin::parse(options.host_key.as_deref().unwrap_or_default(), &endpoint)?;
    let credential = given(options.identity.as_ref(), options.passphrase.as_ref(), options.password.as_ref())?;
    let credential = credential.ok_or_else(|| {
        Refused::Credential(
            "an upload to a URI needs the private key that the server knows; the daemon lends none of its own"
                .to_owned(),
        )
    })?;
    Ok(Access { endpoint, pin, credential })
}

/// Understands what a call says of its way in; for fuzzing.
pub(crate) fn hear(uri: &str, options: &UploadOptions) {
    if let Ok(access) = access(uri, options) {
        let again = HostKeyPin::parse(&access.pin.stored(), &access.endpoint);
        assert!(again.is_ok_and(|again| again == access.pin), "a pin is another when it was stored");
    }
}

/// Understands the credential of a job that goes on; for fuzzing.
pub(crate) fn hear_again(request: &RetryRequest) {
    let _ = given(request.identity.as_ref(), request.passphrase.as_ref(), request.password.as_ref());
}

/// The files of a call with their destinations; whether times got into these.
fn files(
    request: &UploadRequest,
    uri: &str,
    outbox: &Outbox,
    roads: &Roads,
) -> Result<(Vec<(Outgoing, Destination)>, bool), Refused> {
    let tokens = template::tokens(uri)?;
    if tokens.is_empty() {
        let to = Destination::parse(uri)?;
        if request.paths.len() > 1 && !to.is_dir() {
            let why = "several files need a directory or tokens in their destination: end the URI with '/'";
            return Err(Refused::Destination(why.to_owned()));
        }
    }
    let mut names = HashSet::new();
    let mut files = Vec::with_capacity(request.paths.len());
    for path in &request.paths {
        let outgoing = outbox.take(path)?;
        let mut values = roads.context.clone();
        values.extend(outgoing.values.clone());
        let to = Destination::parse(&template::resolve(uri, &values)?)?.of_file(&outgoing.name);
        if !names.insert(to.remote_path()) {
            return Err(Refused::SameName { name: to.file_name().to_owned() });
        }
        files.push((outgoing, to));
    }
    Ok((files, tokens.iter().any(|token| matches!(*token, "start_ts" | "end_ts" | "start" | "date"))))
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
