//! `sftp://user@host[:port]/path` taken apart, with everything that could surprise refused.
//!
//! A URI never carries a password: it would show in process lists, logs and the API. One that does is refused, and no text
//! made here repeats any part of what was given before the host.
//!
//! `/path` is absolute at the server; `/~/path` is relative to the directory in which the login ends. `%xx` is decoded once.

use std::fmt;

use super::failure::Refused;

/// Most bytes of a URI, with tokens or without.
pub(super) const LONGEST: usize = 4096;

/// Where to. `Display` is the canonical URI, fit for logs and the API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    host: String,
    port: u16,
    user: String,
    path: RemotePath,
}

/// A path at the server: no `.` and `..`, no empty parts, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RemotePath {
    /// From `/` on, or from the login directory.
    absolute: bool,
    parts: Vec<String>,
    /// The URI ended with `/`: a directory into which files go under their own names.
    is_dir: bool,
}

/// The server and the account: what one worker serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Login name.
    pub user: String,
}

impl Destination {
    /// Reads a URI.
    pub fn parse(uri: &str) -> Result<Self, Refused> {
        let refuse = |why: &str| Err(Refused::Destination(why.to_owned()));
        if uri.len() > LONGEST {
            return refuse(&format!("it is longer than {LONGEST} bytes"));
        }
        if uri.chars().any(char::is_control) {
            return refuse("it holds control characters");
        }
        let Some(rest) = uri.strip_prefix("sftp://") else {
            return refuse("only sftp://user@host[:port]/path is supported");
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains(['?', '#']) || path.contains(['?', '#']) {
            return refuse("'?' and '#' must be written as %3F and %23");
        }
        let Some((userinfo, host_port)) = authority.rsplit_once('@') else {
            return refuse("the user is missing; write sftp://user@host/path");
        };
        if userinfo.contains(':') {
            return refuse("a URI may not hold a password; give a key (identity) instead");
        }
        let Some(user) = percent_decode(userinfo).filter(|u| is_plain(u)) else {
            return refuse("the user name is empty or holds what cannot be decoded");
        };
        let (host, port) = host_and_port(host_port)?;
        Ok(Self { host, port, user, path: RemotePath::parse(path)? })
    }

    /// Whether files go in under their own names; otherwise the URI names the one file.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.path.is_dir
    }

    /// The destination of a file: its own name is added if this is a directory.
    #[must_use]
    pub fn of_file(&self, name: &str) -> Self {
        let mut to = self.clone();
        if to.path.is_dir {
            to.path.parts.push(name.to_owned());
            to.path.is_dir = false;
        }
        to
    }

    /// The same path at another server.
    #[must_use]
    pub fn at(self, endpoint: &Endpoint) -> Self {
        let Endpoint { host, port, user } = endpoint.clone();
        Self { host, port, user, ..self }
    }

    /// The server and the account.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { host: self.host.clone(), port: self.port, user: self.user.clone() }
    }

    /// The path as SFTP wants it.
    #[must_use]
    pub fn remote_path(&self) -> String {
        let root = if self.path.absolute { "/" } else { "" };
        format!("{root}{}", self.path.parts.join("/"))
    }

    /// The last part of the path; empty only for a directory at the root.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.path.parts.last().map_or("", String::as_str)
    }

    /// The directories that must exist, outermost first, without `/` and the login directory themselves.
    #[must_use]
    pub fn parents(&self) -> Vec<String> {
        let root = if self.path.absolute { "/" } else { "" };
        let dirs = self.path.parts.len().saturating_sub(1);
        (1..=dirs).map(|n| format!("{root}{}", self.path.parts[..n].join("/"))).collect()
    }

    /// `name` beside the file, in its directory.
    #[must_use]
    pub fn sibling(&self, name: &str) -> String {
        match self.parents().last() {
            Some(dir) => format!("{dir}/{name}"),
            None if self.path.absolute => format!("/{name}"),
            None => name.to_owned(),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.endpoint().uri())?;
        f.write_str(if self.path.absolute { "/" } else { "/~/" })?;
        let parts: Vec<String> = self.path.parts.iter().map(|p| percent_encode(p)).collect();
        f.write_str(&parts.join("/"))?;
        f.write_str(if self.path.is_dir && !parts.is_empty() { "/" } else { "" })
    }
}

impl Endpoint {
    /// `sftp://user@host[:port]`.
    #[must_use]
    pub fn uri(&self) -> String {
        let port = if self.port == 22 { String::new() } else { format!(":{}", self.port) };
        format!("sftp://{}@{}{port}", percent_encode(&self.user), bracketed(&self.host))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", bracketed(&self.host), self.port)
    }
}

impl RemotePath {
    fn parse(path: &str) -> Result<Self, Refused> {
        let refuse = |why: &str| Err(Refused::Destination(why.to_owned()));
        let (absolute, path) = match path.strip_prefix("/~") {
            Some("") => (false, ""),
            Some(rest) if rest.starts_with('/') => (false, &rest[1..]),
            _ => (true, path.strip_prefix('/').unwrap_or(path)),
        };
        let is_dir = path.is_empty() || path.ends_with('/');
        let inner = path.strip_suffix('/').unwrap_or(path);
        let mut parts = Vec::new();
        for part in inner.split('/').filter(|_| !path.is_empty()) {
            match percent_decode(part) {
                Some(p) if p == "." || p == ".." => {
                    return refuse("the path may not hold '.' or '..'");
                }
                Some(p) if is_plain(&p) && !p.contains('/') && p.len() <= 255 => parts.push(p),
                _ => {
                    return refuse(
                        "each part of the path must be 1 to 255 bytes of text without control characters; write others as %xx",
                    );
                }
            }
        }
        Ok(Self { absolute, parts, is_dir })
    }
}

pub(crate) fn host_and_port(text: &str) -> Result<(String, u16), Refused> {
    let bad_host = || Refused::Destination("the host is missing or no name or address".to_owned());
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(bad_host)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| bad_host())?;
            (host, port)
        }
        None => match text.find(':') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        },
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || host.starts_with('-') || !host.chars().all(is_name) {
        return Err(bad_host());
    }
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => 22,
        Some(p) if p.bytes().all(|b| b.is_ascii_digit()) => match p.parse::<u16>() {
            Ok(p) if p > 0 => p,
            _ => return Err(Refused::Destination("the port must be 1 to 65535".to_owned())),
        },
        _ => return Err(Refused::Destination("the port must be 1 to 65535".to_owned())),
    };
    Ok((host.to_ascii_lowercase(), port))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        bytes.push(if b == b'%' {
            let hex = |b: u8| char::from(b).to_digit(16);
            let (hi, lo) = (hex(rest.next()?)?, hex(rest.next()?)?);
            (hi * 16 + lo) as u8
        } else {
            b
        });
    }
    String::from_utf8(bytes).ok()
}

/// Encodes all but RFC 3986's unreserved characters and a few that are safe in a path part.
fn percent_encode(text: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b',' | b'=') {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn takes_a_uri_apart() {
        let d = Destination::parse("sftp://fleet%40x@Vault.example:2222/in/a%20b%3F.mp4").unwrap();
        assert_eq!(d.endpoint(), Endpoint { host: "vault.example".into(), port: 2222, user: "fleet@x".into() });
        assert_eq!(d.remote_path(), "/in/a b?.mp4");
        assert_eq!(d.parents(), ["/in"]);
        assert_eq!(d.sibling(".p"), "/in/.p");
        assert_eq!(d.file_name(), "a b?.mp4");
        assert_eq!(d.to_string(), "sftp://fleet%40x@vault.example:2222/in/a%20b%3F.mp4");
        assert_eq!(Destination::parse(&d.to_string()).unwrap(), d);
    }

    #[test]
    fn a_trailing_slash_means_a_directory() {
        for (uri, path) in [
            ("sftp://u@h", "/x.mp4"),
            ("sftp://u@h/", "/x.mp4"),
            ("sftp://u@h/in/", "/in/x.mp4"),
            ("sftp://u@h/~", "x.mp4"),
            ("sftp://u@h/~/", "x.mp4"),
            ("sftp://u@h/~/in/", "in/x.mp4"),
            ("sftp://u@[::1]:22/in/", "/in/x.mp4"),
        ] {
            let d = Destination::parse(uri).unwrap();
            assert!(d.is_dir(), "{uri}");
            let f = d.of_file("x.mp4");
            assert_eq!(f.remote_path(), path, "{uri}");
            assert!(!f.is_dir());
            assert_eq!(Destination::parse(&f.to_string()).unwrap(), f);
            assert_eq!(Destination::parse(&d.to_string()).unwrap(), d);
        }
        let f = Destination::parse("sftp://u@h/~/one.mp4").unwrap();
        assert_eq!(f.of_file("x.mp4").remote_path(), "one.mp4");
        assert_eq!(f.sibling(".p"), ".p");
        assert!(f.parents().is_empty());
    }

    #[test]
    fn what_could_surprise_is_refused() {
        for uri in [
            "",
            "sftp:",
            "sftp://",
            "sftp://h/x",
            "sftp://@h/x",
            "ftp://u@h/x",
            "sftp://u@/x",
            "sftp://u@h:0/x",
            "sftp://u@h:65536/x",
            "sftp://u@h:+22/x",
            "sftp://u@h:/x",
            "sftp://u@h/a/../b",
            "sftp://u@h/a/%2e%2e/b",
            "sftp://u@h/./b",
            "sftp://u@h/a//b",
            "sftp://u@h//",
            "sftp://u@h/~//",
            "sftp://u@h/a%2Fb",
            "sftp://u@h/a%00b",
            "sftp://u@h/a%0ab",
            "sftp://u@h/a\nb",
            "sftp://u@h/a?b",
            "sftp://u@h/a#b",
            "sftp://u@h/a%zz",
            "sftp://u@h/a%f",
            "sftp://u@h/%ff",
            "sftp://u@-oProxyCommand/x",
            "sftp://u@h x/x",
            "sftp://u@[::1/x",
            "sftp://u@[zz]/x",
            "sftp://%0a@h/x",
        ] {
            assert!(Destination::parse(uri).is_err(), "{uri:?}");
        }
    }

    /// Invariant 2: no secret leaves in a text.
    #[test]
    fn a_password_is_refused_and_not_repeated() {
        for uri in [
            "sftp://u:hunter2@h/x",
            "sftp://u:hunter2@h",
            "sftp://hunter2@h:hunter2/x",
            "sftp:/u:hunter2@h/x",
            "sftp://u:hunter2@h/../x",
            "sftp://u:hunter2\n@h/x",
            "sftp://u:hun/ter2@h/x",
        ] {
            let e = Destination::parse(uri).unwrap_err();
            assert!(!format!("{e} {e:?}").contains("ter2"), "{e}");
        }
    }
}
