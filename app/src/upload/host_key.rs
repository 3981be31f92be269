//! The pin: by what the server is known, before anything is told to it.
//!
//! A pin is a `SHA256:…` fingerprint as `ssh-keygen -lf` prints it, or a line of a known_hosts file (host names in the line must
//! match; hashed ones too). Fingerprints of other kinds are refused, as are `@revoked` and `@cert-authority` lines.

use std::fmt;

use base64::Engine as _;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey};

use super::destination::Endpoint;
use super::failure::Refused;

/// What the server's key must be.
#[derive(Clone, PartialEq, Eq)]
pub enum HostKeyPin {
    /// The SHA-256 of the key.
    Fingerprint([u8; 32]),
    /// The key itself.
    Key(Box<PublicKey>),
}

impl HostKeyPin {
    /// Reads a pin that was given for this server.
    pub fn parse(text: &str, for_server: &Endpoint) -> Result<Self, Refused> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Refused::NoHostKey { host: for_server.host.clone() });
        }
        match text.strip_prefix("SHA256:") {
            Some(digest) => fingerprint(digest),
            None => known_hosts_line(text, for_server),
        }
    }

    /// The pin as a text that [`HostKeyPin::parse`] reads for any server.
    #[must_use]
    pub(super) fn stored(&self) -> String {
        match self {
            Self::Fingerprint(_) => self.to_string(),
            Self::Key(key) => format!("* {} {}", key.algorithm(), data_of(key)),
        }
    }

    /// Whether this is the key of the pinned server.
    #[must_use]
    pub fn matches(&self, key: &PublicKey) -> bool {
        match self {
            Self::Fingerprint(pin) => key.fingerprint(HashAlg::Sha256).sha256() == Some(*pin),
            Self::Key(pin) => pin.key_data() == key.key_data(),
        }
    }

    /// The key algorithms to ask the server for, one connection each until one matches.
    ///
    /// A server has a key of each kind and shows the one that is asked for first; a fingerprint does not tell its kind.
    #[must_use]
    pub fn algorithms(&self) -> Vec<Vec<Algorithm>> {
        match self {
            Self::Key(key) => vec![vec![key.algorithm()]],
            Self::Fingerprint(_) => {
                let ecdsa = [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521];
                let ecdsa = ecdsa.map(|curve| Algorithm::Ecdsa { curve });
                vec![vec![Algorithm::Ed25519], ecdsa.to_vec()]
            }
        }
    }
}

impl fmt::Display for HostKeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fingerprint(pin) => {
                write!(f, "SHA256:{}", base64::engine::general_purpose::STANDARD_NO_PAD.encode(pin))
            }
            Self::Key(key) => write!(f, "{}", key.fingerprint(HashAlg::Sha256)),
        }
    }
}

impl fmt::Debug for HostKeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKeyPin({self})")
    }
}

/// The key's data as known_hosts lines have it.
fn data_of(key: &PublicKey) -> String {
    base64::engine::general_purpose::STANDARD.encode(key.to_bytes().unwrap_or_default())
}

fn fingerprint(digest: &str) -> Result<HostKeyPin, Refused> {
    base64::engine::general_purpose::STANDARD_NO_PAD
        .decode(digest.trim_end_matches('='))
        .ok()
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .map(HostKeyPin::Fingerprint)
        .ok_or_else(|| {
            Refused::HostKey("this is no SHA256 fingerprint; it is SHA256: and 43 characters of base64".to_owned())
        })
}

fn known_hosts_line(line: &str, server: &Endpoint) -> Result<HostKeyPin, Refused> {
    let refuse = |why: String| Err(Refused::HostKey(why));
    if line.lines().count() > 1 {
        return refuse("give one line of a known_hosts file".to_owned());
    }
    if line.starts_with("MD5:") || line.starts_with("SHA1:") {
        return refuse("only SHA256 fingerprints are accepted".to_owned());
    }
    if line.starts_with('@') {
        return refuse(
            "certificate authorities and revoked keys cannot be a pin; give the line of the host's own key".to_owned(),
        );
    }
    let mut fields = line.split_ascii_whitespace();
    let (Some(hosts), Some(kind), Some(data)) = (fields.next(), fields.next(), fields.next()) else {
        return refuse("give SHA256:… or a known_hosts line: HOST TYPE KEY".to_owned());
    };
    let Ok(key) = PublicKey::from_openssh(&format!("{kind} {data}")) else {
        return refuse("the key of the known_hosts line cannot be read".to_owned());
    };
    if !matches!(key.algorithm(), Algorithm::Ed25519 | Algorithm::Ecdsa { .. }) {
        return refuse(format!(
            "host keys of type {} are not supported; pin the server's Ed25519 or ECDSA key",
            key.algorithm()
        ));
    }
    let name = if server.port == 22 { server.host.clone() } else { format!("[{}]:{}", server.host, server.port) };
    if hosts_match(hosts, &name) {
        Ok(HostKeyPin::Key(Box::new(key)))
    } else {
        refuse(format!("the known_hosts line is not for {name}"))
    }
}

/// Whether the first field of a known_hosts line names the host (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
fn hosts_match(field: &str, name: &str) -> bool {
    if let Some(hashed) = field.strip_prefix("|1|") {
        return hashed_match(hashed, name).unwrap_or(false);
    }
    let mut found = false;
    for pattern in field.split(',') {
        match pattern.strip_prefix('!') {
            Some(not) if glob(not.as_bytes(), name.as_bytes()) => return false,
            Some(_) => {}
            None => found |= glob(&pattern.to_ascii_lowercase().into_bytes(), name.as_bytes()),
        }
    }
    found
}

/// `|1|salt|hash` holds HMAC-SHA1(salt, name).
fn hashed_match(hashed: &str, name: &str) -> Option<bool> {
    let decode = |s: &str| base64::engine::general_purpose::STANDARD.decode(s).ok();
    let (salt, hash) = hashed.split_once('|')?;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &decode(salt)?);
    Some(ring::hmac::verify(&key, name.as_bytes(), &decode(hash)?).is_ok())
}

/// `*` and `?` as known_hosts has them. Linear in each star's run, so that a hostile pattern costs nothing.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    fn server(host: &str, port: u16) -> Endpoint {
        Endpoint { host: host.to_owned(), port, user: "u".to_owned() }
    }

    fn is_for(hosts: &str, host: &str, port: u16) -> bool {
        HostKeyPin::parse(&format!("{hosts} {KEY} comment"), &server(host, port)).is_ok()
    }

    #[test]
    fn a_line_is_for_the_hosts_that_it_names() {
        assert!(is_for("vault.example", "vault.example", 22));
        assert!(is_for("a,*.Example,b", "vault.example", 22));
        assert!(is_for("[vault.example]:2222", "vault.example", 2222));
        assert!(is_for("192.0.2.?", "192.0.2.7", 22));
        assert!(!is_for("vault.example", "vault.example", 2222));
        assert!(!is_for("vault.example", "evil.example", 22));
        assert!(!is_for("*,!evil.example", "evil.example", 22));
        assert!(!is_for("vault.example.", "vault.example", 22));
        assert!(!is_for("", "vault.example", 22));
    }

    /// The hosts field was made by `ssh-keygen -H` from `vault.example`.
    #[test]
    fn a_hashed_line_is_for_its_host_only() {
        let hosts = "|1|N7M49kp7NMV7zP8v6fcRtcwKt+o=|4mX1WE157DTGUFws0paqOMbYCQk=";
        assert!(is_for(hosts, "vault.example", 22));
        assert!(!is_for(hosts, "vault.example", 2222));
        assert!(!is_for(hosts, "other.example", 22));
    }

    #[test]
    fn a_fingerprint_is_that_of_its_key_alone() {
        let key = PublicKey::from_openssh(KEY).unwrap();
        let pin = HostKeyPin::parse(&key.fingerprint(HashAlg::Sha256).to_string(), &server("h", 22)).unwrap();
        assert!(pin.matches(&key));
        assert_eq!(pin.to_string(), key.fingerprint(HashAlg::Sha256).to_string());
        let other = crate::demo::sftp_server::fresh_key().unwrap();
        assert!(!pin.matches(other.public_key()));
    }

    #[test]
    fn a_stored_pin_is_the_same_pin() {
        let at = server("vault.example", 2222);
        let key = PublicKey::from_openssh(KEY).unwrap();
        for given in [key.fingerprint(HashAlg::Sha256).to_string(), format!("[vault.example]:2222 {KEY}")] {
            let pin = HostKeyPin::parse(&given, &at).unwrap();
            assert_eq!(HostKeyPin::parse(&pin.stored(), &server("other", 22)).unwrap(), pin);
        }
    }

    #[test]
    fn stars_match_as_they_should() {
        for (pattern, text, matches) in [
            ("*", "", true),
            ("*.b", "a.b", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("?", "", false),
            ("**", "x", true),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), matches, "{pattern} {text}");
        }
    }
}
