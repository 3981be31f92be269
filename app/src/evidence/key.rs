//! The device's signing key: Ed25519 (RFC 8032), in a file of its own.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::EvidenceError;

/// What the text of a public key begins with.
const PREFIX: &str = "ed25519:";

/// The key pair.
pub struct DeviceKey {
    pair: Ed25519KeyPair,
    is_new: bool,
}

impl DeviceKey {
    /// Takes the key in a file; makes it if there is none. (V3)
    pub fn load(path: &Path) -> Result<Self, EvidenceError> {
        let bad = |reason: String| EvidenceError::Key { path: path.to_owned(), reason };
        let (mut bytes, mut is_new) = (Vec::new(), false);
        match File::open(path) {
            Ok(mut file) => {
                let mode = file.metadata().map_err(|e| bad(e.to_string()))?.mode();
                if mode & 0o077 != 0 {
                    return Err(bad(format!("others may read it (mode {:o}); chmod 600", mode & 0o777)));
                }
                file.read_to_end(&mut bytes).map_err(|e| bad(e.to_string()))?;
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
                bytes = made.map_err(|_| bad("the system gives no random numbers".to_owned()))?.as_ref().to_vec();
                write_private(path, &bytes).map_err(|e| bad(said(path, &e)))?;
                is_new = true;
                log::info!("a new key signs the evidence of this recorder: {}", path.display());
            }
            Err(e) => return Err(bad(e.to_string())),
        }
        let pair = Ed25519KeyPair::from_pkcs8(&bytes).map_err(|e| bad(format!("no Ed25519 key in PKCS#8: {e}")))?;
        Ok(Self { pair, is_new })
    }

    /// Whether it was made just now.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// The public half, as `ed25519:` and base64.
    #[must_use]
    pub fn public(&self) -> String {
        format!("{PREFIX}{}", BASE64.encode(self.pair.public_key().as_ref()))
    }

    /// Signs; as base64.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> String {
        BASE64.encode(self.pair.sign(message).as_ref())
    }
}

/// Writes a file for its owner only; under its name only when it is whole and durable.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Why nothing can be written beside the key, and what to do about it.
pub(super) fn said(key_file: &Path, error: &std::io::Error) -> String {
    let folder = key_file.parent().unwrap_or(Path::new("/")).display();
    match error.kind() {
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => format!(
            "{error}; the recorder keeps the key and the ledger of its links there, so it must be able to write in {folder}: give it \
             to the recorder's user, and under systemd name it in the unit: ReadWritePaths={folder}"
        ),
        ErrorKind::NotFound => format!("{error}; make the folder {folder}, where the recorder's user can write"),
        _ => error.to_string(),
    }
}

/// Whether `signature` is that of `key` over `message`. Anything that cannot be read is not.
#[must_use]
pub fn is_signed(key: &str, message: &[u8], signature: &str) -> bool {
    let key = key.strip_prefix(PREFIX).and_then(|key| BASE64.decode(key).ok());
    let (Some(key), Ok(signature)) = (key, BASE64.decode(signature)) else { return false };
    UnparsedPublicKey::new(&ED25519, key).verify(message, &signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_write_beside_the_key_is_told_what_to_do() {
        let path = Path::new("/data/keys/mos/device.key");
        for errno in [nix::errno::Errno::EROFS, nix::errno::Errno::EACCES] {
            let what = said(path, &std::io::Error::from(errno));
            assert!(what.contains("ReadWritePaths=/data/keys/mos"), "{what}");
        }
        let what = said(path, &std::io::Error::from(nix::errno::Errno::ENOENT));
        assert!(what.contains("make the folder /data/keys/mos"), "{what}");
    }
}
