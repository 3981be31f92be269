//! `[http]`: where the API is served, and what users of this machine may do there. For tokens see `tokens.rs`.

use std::net::SocketAddr;
use std::path::PathBuf;

use nix::unistd::{Group, User};

use super::entries::Document;
use super::error::ConfigError;
use super::schema::Section;
use super::tokens;
use super::values::Fields;
use crate::access::{LocalUsers, Members, Token};

/// `[http]`: where the API is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The Unix socket.
    pub unix_socket: PathBuf,
    /// What users of this machine may do there.
    pub users: LocalUsers,
    /// A TCP address, if any, and what it asks for.
    pub tcp: Option<Tcp>,
}

/// The API on TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// The address; port 0 takes a free one. Beyond loopback there is TLS, or plain text was asked for by name.
    pub listen: SocketAddr,
    /// Certificate chain and key for TLS, PEM files.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Names by which clients ask for the recorder.
    pub host_names: Vec<String>,
    /// The tokens that are accepted; at least one.
    pub tokens: Vec<Token>,
}

pub(super) fn read(document: &Document) -> Result<Http, ConfigError> {
    let fields = &document.section(Section::Http);
    // Linux takes 107 bytes and a NUL (`sockaddr_un`, unix(7)).
    let unix_socket = match fields.absolute_path("unix_socket")? {
        Some(path) if path.as_os_str().len() > 107 => {
            return Err(fields.bad("unix_socket", "an absolute path of at most 107 bytes"));
        }
        Some(path) => path,
        None => PathBuf::from(crate::cli::client::DEFAULT_SOCKET),
    };
    let users = LocalUsers {
        admins: members(fields, "admins")?,
        operators: members(fields, "operators")?,
        viewers: members(fields, "viewers")?,
        others: match fields.text("other_users")? {
            None => LocalUsers::default().others,
            Some("none") => None,
            Some(role) => {
                let accepted = "none, viewer, operator or admin";
                Some(role.parse().map_err(|_| fields.bad("other_users", accepted))?)
            }
        },
    };
    let tokens = tokens::read(document, fields)?.all()?;
    let tcp = tcp(fields, tokens)?;
    Ok(Http { unix_socket, users, tcp })
}

fn tcp(fields: &Fields<'_>, tokens: Vec<Token>) -> Result<Option<Tcp>, ConfigError> {
    let tls = match (fields.absolute_path("tls_certificate")?, fields.absolute_path("tls_key")?) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(_), None) => return Err(fields.missing("tls_key", "the PEM file of the certificate's private key")),
        (None, Some(_)) => return Err(fields.missing("tls_certificate", "the PEM file of the certificate")),
    };
    let plain_text = fields.boolean("plain_text", false)?;
    let mut host_names = Vec::new();
    for name in fields.text("host_names")?.unwrap_or_default().split_whitespace() {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
        if name.len() > 253 || !name.bytes().all(plain) {
            return Err(fields.bad("host_names", "names of this machine, without ports, with spaces between"));
        }
        host_names.push(name.to_owned());
    }
    let Some(listen) = fields.text("listen")? else { return Ok(None) };
    let accepted = "an address and a port, e.g. 127.0.0.1:8080; beyond loopback with tls_certificate and tls_key";
    let listen: SocketAddr = listen.parse().map_err(|_| fields.bad("listen", accepted))?;
    if !listen.ip().is_loopback() && tls.is_none() && !plain_text {
        let accepted = "127.0.0.1:PORT or [::1]:PORT; beyond loopback tls_certificate and tls_key besides, or plain_text = \
                        true if whoever listens on the way may read footage and tokens";
        return Err(fields.bad("listen", accepted));
    }
    if tokens.is_empty() {
        let accepted =
            "16 or more visible ASCII characters, or token_file, or a [[token]]; TCP always asks for a token";
        return Err(fields.missing("token", accepted));
    }
    Ok(Some(Tcp { listen, tls, host_names, tokens }))
}

fn members(fields: &Fields<'_>, key: &str) -> Result<Members, ConfigError> {
    let accepted = "users and @groups of this machine, by name or number, with spaces between";
    let mut members = Members::default();
    for name in fields.text(key)?.unwrap_or_default().split_whitespace() {
        let (known, kind) = if let Some(name) = name.strip_prefix('@') {
            let known = || Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
            (name.parse().ok().or_else(known), &mut members.groups)
        } else {
            let known = || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
            (name.parse().ok().or_else(known), &mut members.users)
        };
        kind.push(known.ok_or_else(|| fields.bad(key, accepted))?);
    }
    Ok(members)
}
