//! What network cameras have in common: how their packets come, their login, and whose certificate is believed.
//!
//! Promises that no `Debug` shows a user name or a password. Opens nothing.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// How the packets of a network camera come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transport {
    /// In the TCP connection; over UDP where that is refused or keeps failing.
    #[default]
    Auto,
    /// In the TCP connection.
    Tcp,
    /// Over UDP.
    Udp,
}

impl Transport {
    const ALL: [Self; 3] = [Self::Auto, Self::Tcp, Self::Udp];

    /// The name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|transport| transport.name() == name)
    }
}

/// User name and password. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// Whose certificate a camera must show. By default that of an authority that this machine trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// PEM file of the only authorities that are believed.
    pub ca: Option<PathBuf>,
    /// The only certificate that is believed, whatever it says of names, dates and authorities.
    pub fingerprint: Option<Fingerprint>,
    /// An `onvifs://` camera that offers no stream over TLS is recorded in clear, login included.
    pub plain_stream: bool,
}

/// SHA-256 of a certificate in DER, as `openssl x509 -fingerprint -sha256` shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl FromStr for Fingerprint {
    type Err = ();

    /// 64 hexadecimal digits, with or without colons.
    fn from_str(text: &str) -> Result<Self, ()> {
        let digits: Vec<u8> = text.trim().bytes().filter(|b| *b != b':').collect();
        let text = str::from_utf8(&digits).map_err(drop)?;
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(());
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[i * 2..i * 2 + 2], 16).map_err(drop)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if i > 0 { ":" } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::SourceSpec;
    use super::*;

    #[test]
    fn fingerprints_are_read_as_openssl_shows_them() {
        let shown = ["AB"; 32].join(":");
        let read: Fingerprint = shown.parse().unwrap();
        assert_eq!((read.0, read.to_string()), ([0xab; 32], shown.clone()));
        assert_eq!("ab".repeat(32).parse(), Ok(read));
        for bad in ["", "ab", &shown[1..], &"+1".repeat(32), &"g0".repeat(32), &format!("{shown}:00")] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_encrypted_comes_over_tcp_and_only_that_has_a_trust() {
        let source = |text: &str| SourceSpec::parse(text).unwrap();
        let pin = Trust { fingerprint: Some(Fingerprint([7; 32])), ..Trust::default() };
        let secure = source("rtsps://a:b@h/s");
        assert_eq!(secure.to_string(), "rtsps://h/s");
        assert!(secure.clone().over(Transport::Udp).is_none() && secure.clone().over(Transport::Tcp).is_some());
        assert_eq!(secure.trusting(pin.clone()).unwrap().trust(), Some(&pin));
        assert!(
            source("rtsp://h/s").trusting(pin.clone()).is_none() && source("test:").trusting(pin.clone()).is_none()
        );
        // Who asks in clear is told where the stream is by whoever stands in between.
        assert!(source("onvif://h/s").trusting(pin.clone()).is_none() && source("onvif://h/s").trust().is_none());
        assert_eq!(source("ONVIFS://h/s").trusting(pin.clone()).unwrap().trust(), Some(&pin));
    }
}
