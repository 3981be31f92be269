//! Secrets that come with a call. They live as long as their job, are wiped from memory when dropped, and have no `Display`;
//! `Debug` shows that there is one, never what.

use std::fmt;

use russh::keys::ssh_key::Kdf;
use russh::keys::{Algorithm, PrivateKey};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::failure::Refused;

/// Most rounds of a key's passphrase: `ssh-keygen` does 16 to 24 unless it is told otherwise, at some 10 ms each. The file says how
/// many; what it may say would keep a processor busy for years.
const MOST_ROUNDS: u32 = 256;

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

impl PartialEq for Secret {
    /// In a time that tells nothing about where they differ.
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

/// What proves to the server who we are.
#[derive(Clone, PartialEq)]
pub enum Credential {
    /// A private key; `ssh-key` wipes it on drop.
    Key(std::sync::Arc<PrivateKey>),
    /// A password.
    Password(Secret),
    /// Whatever keys the SSH agent at this socket holds, one after another. Only for destinations of the configuration.
    Agent(std::path::PathBuf),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key(..)",
            Self::Password(_) => "Password(..)",
            Self::Agent(_) => "Agent(..)",
        })
    }
}

impl Credential {
    /// Reads the text of a private key file in OpenSSH format, with its passphrase if it is encrypted.
    pub fn from_key_text(text: &Secret, passphrase: Option<&Secret>) -> Result<Self, Refused> {
        let refuse = |why: &str| Err(Refused::Credential(why.to_owned()));
        if !text.expose().contains("PRIVATE KEY-----") {
            return refuse("this is no private key; give the text of an OpenSSH private key file");
        }
        if !text.expose().contains("BEGIN OPENSSH PRIVATE KEY") {
            return refuse("only keys in OpenSSH's own format are read; convert it: ssh-keygen -p -N '' -f KEYFILE");
        }
        let Ok(mut key) = PrivateKey::from_openssh(text.expose().trim()) else {
            return refuse("the private key is damaged or of an unknown type; Ed25519 and ECDSA keys are read");
        };
        if key.is_encrypted() {
            let Some(passphrase) = passphrase else {
                return refuse("the private key is encrypted; give its passphrase as well");
            };
            if matches!(key.kdf(), Kdf::Bcrypt { rounds, .. } if *rounds > MOST_ROUNDS) {
                return Err(Refused::Credential(format!(
                    "the passphrase of the private key takes more than {MOST_ROUNDS} rounds to try; lock it with fewer: \
                     ssh-keygen -p -a 24 -f KEYFILE"
                )));
            }
            key = match key.decrypt(passphrase.expose()) {
                Ok(key) => key,
                Err(_) => return refuse("the passphrase does not open the private key"),
            };
        }
        if !matches!(key.algorithm(), Algorithm::Ed25519 | Algorithm::Ecdsa { .. }) {
            return refuse("RSA and DSA keys are not supported; use an Ed25519 or ECDSA key");
        }
        Ok(Self::Key(std::sync::Arc::new(key)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use russh::keys::ssh_key::LineEnding;

    use super::*;

    /// A key that is locked with `word`, but for the rounds: 4,294,967,295 of them. Made here, so that no private key lies in the
    /// repository.
    fn endless() -> String {
        let mut rng = russh::keys::key::safe_rng();
        let key = PrivateKey::random(&mut rng, russh::keys::Algorithm::Ed25519).unwrap();
        let text = key.encrypt(&mut rng, "word").unwrap().to_openssh(LineEnding::LF).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let [first, body @ .., last] = lines.as_slice() else { panic!("no key: {lines:?}") };
        let mut bytes = BASE64.decode(body.concat()).unwrap();
        // PROTOCOL.key of OpenSSH: the name of the function, its options with their length, the salt with its length, the rounds.
        let rounds = bytes.windows(6).position(|name| name == b"bcrypt").unwrap() + 6 + 4 + 4 + 16;
        bytes[rounds..rounds + 4].fill(0xff);
        let changed = BASE64.encode(bytes);
        let width = body[0].len();
        let body: Vec<&str> =
            (0..changed.len()).step_by(width).map(|at| &changed[at..changed.len().min(at + width)]).collect();
        [&[*first], body.as_slice(), &[*last]].concat().join("\n")
    }

    #[test]
    fn a_key_whose_passphrase_takes_years_to_try_is_refused_at_once() {
        let refused = Credential::from_key_text(&endless().into(), Some(&"word".to_owned().into())).unwrap_err();
        assert!(refused.to_string().contains("256 rounds"), "{refused}");
    }
}
