//! Secrets that come with a call. They live as long as their job, are wiped from memory when dropped, and have no `Display`;
//! `Debug` shows that there is one, never what.

use std::fmt;

use russh::keys::{Algorithm, PrivateKey};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::failure::Refused;

/// A text that must not be seen.
#[derive(Clone, Deserialize, utoipa::ToSchema)]
#[serde(from = "String")]
#[schema(value_type = String, format = Password)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text, for the one who needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What proves to the server who we are.
#[derive(Clone)]
pub enum Credential {
    /// A private key; `ssh-key` wipes it on drop.
    Key(std::sync::Arc<PrivateKey>),
    /// A password.
    Password(Secret),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key(..)",
            Self::Password(_) => "Password(..)",
        })
    }
}

impl Credential {
    /// Reads the text of a private key file (OpenSSH format, not encrypted).
    pub fn from_key_text(text: &Secret) -> Result<Self, Refused> {
        let refuse = |why: &str| Err(Refused::Credential(why.to_owned()));
        if !text.expose().contains("PRIVATE KEY-----") {
            return refuse("this is no private key; give the text of an OpenSSH private key file");
        }
        if !text.expose().contains("BEGIN OPENSSH PRIVATE KEY") {
            return refuse("only keys in OpenSSH's own format are read; convert it: ssh-keygen -p -N '' -f KEYFILE");
        }
        let Ok(key) = PrivateKey::from_openssh(text.expose().trim()) else {
            return refuse("the private key is damaged or of an unknown type; Ed25519 and ECDSA keys are read");
        };
        if key.is_encrypted() {
            return refuse(
                "the private key is encrypted with a passphrase, which cannot be asked for here; use a key made for uploads",
            );
        }
        if !matches!(key.algorithm(), Algorithm::Ed25519 | Algorithm::Ecdsa { .. }) {
            return refuse("keys of this type are not supported; use an Ed25519 or ECDSA key");
        }
        Ok(Self::Key(std::sync::Arc::new(key)))
    }
}
