//! Destinations of the configuration, `[[destination]]`: where, what the server must prove, and where our own credential is.
//!
//! Credentials are fetched when a connection is made and never kept on disk by MOS; the configuration holds only where they
//! are. They go to the destination that they are configured for and to no other.

use std::path::PathBuf;

use super::Access;
use super::credential::{Credential, Secret};
use super::destination::Endpoint;
use super::failure::{Failure, FailureKind};
use super::host_key::HostKeyPin;

/// One `[[destination]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedDestination {
    /// Its name: 1 to 32 of `a-z`, `0-9`, `_` and `-`.
    pub name: String,
    /// Server and account.
    pub endpoint: Endpoint,
    /// What the server must prove.
    pub pin: HostKeyPin,
    /// The path at the server, from `/` or `/~/` on, with tokens; ending with `/` it is a directory.
    pub path: String,
    /// Where our credential is.
    pub credential: CredentialSource,
    /// Most bytes per second, unless a call asks for less.
    pub max_rate: Option<u64>,
}

/// Where a credential of the daemon's own is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// A private key file, and the variable with its passphrase if it is encrypted.
    KeyFile {
        /// The file, absolute.
        path: PathBuf,
        /// The variable.
        passphrase: Option<String>,
    },
    /// The variable with the text of a private key, and that with its passphrase.
    KeyVariable {
        /// The variable with the key.
        key: String,
        /// The variable with the passphrase.
        passphrase: Option<String>,
    },
    /// The variable with a password.
    PasswordVariable(String),
    /// The socket of an SSH agent; none: where `SSH_AUTH_SOCK` says (ssh-agent(1)).
    Agent(Option<PathBuf>),
}

impl NamedDestination {
    /// The URI of its files, with tokens.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("{}{}", self.endpoint.uri(), self.path)
    }

    /// How to get in, now. Reads the file or the environment; may wait for the disk.
    pub fn access(&self) -> Result<Access, Failure> {
        let credential = self.credential.fetch().map_err(|why| {
            let message = format!("the credential of destination '{}' cannot be had: {why}", self.name);
            Failure::new(FailureKind::CredentialUnavailable, message)
        })?;
        Ok(Access { endpoint: self.endpoint.clone(), pin: self.pin.clone(), credential })
    }
}

impl CredentialSource {
    fn fetch(&self) -> Result<Credential, String> {
        match self {
            Self::KeyFile { path, passphrase } => {
                let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
                key(&Secret::from(text), passphrase.as_deref())
            }
            Self::KeyVariable { key: variable, passphrase } => key(&of_variable(variable)?, passphrase.as_deref()),
            Self::PasswordVariable(variable) => Ok(Credential::Password(of_variable(variable)?)),
            Self::Agent(Some(socket)) => Ok(Credential::Agent(socket.clone())),
            Self::Agent(None) => Ok(Credential::Agent(of_variable("SSH_AUTH_SOCK")?.expose().into())),
        }
    }
}

fn key(text: &Secret, passphrase: Option<&str>) -> Result<Credential, String> {
    let passphrase = passphrase.map(of_variable).transpose()?;
    Credential::from_key_text(text, passphrase.as_ref()).map_err(|e| e.to_string())
}

fn of_variable(name: &str) -> Result<Secret, String> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => Ok(Secret::from(text)),
        Ok(_) | Err(std::env::VarError::NotPresent) => Err(format!("the environment variable {name} is not set")),
        Err(std::env::VarError::NotUnicode(_)) => Err(format!("the environment variable {name} is no text")),
    }
}
