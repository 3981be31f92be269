//! `[[destination]]` and `[context]`: where uploads go by name, and the values of their tokens.
//!
//! Checked here, so that a wrong path, pin or credential source is found at the start and not on the road: whether the server
//! and the credential are there is seen when they are needed.

use std::collections::HashMap;

use super::entries::Document;
use super::error::{ConfigError, Place};
use super::schema::Section;
use super::values::Fields;
use crate::upload::destination::{Destination, Endpoint, host_and_port};
use crate::upload::host_key::HostKeyPin;
use crate::upload::named::{CredentialSource, NamedDestination};
use crate::upload::template::{self, OF_FILES, Values};

/// `[context]`.
pub(super) fn context(document: &Document) -> Result<Values, ConfigError> {
    let fields = document.section(Section::Context);
    let mut values = Values::new();
    for key in document.keys(Section::Context) {
        let text = fields.text(key)?.unwrap_or_default();
        if text.is_empty() || text.len() > 128 || text.chars().any(char::is_control) {
            return Err(fields.bad(key, "1 to 128 bytes of text without control characters"));
        }
        values.insert(key.to_owned(), text.to_owned());
    }
    Ok(values)
}

/// All `[[destination]]`.
pub(super) fn read(document: &Document) -> Result<Vec<NamedDestination>, ConfigError> {
    let context = context(document)?;
    let mut destinations = Vec::new();
    let mut places: HashMap<String, Place> = HashMap::new();
    for fields in document.all(Section::Destination) {
        let destination = one(&fields, &context)?;
        if let Some(first) = places.insert(destination.name.clone(), fields.place("name")) {
            let accepted = format!("a name that no other destination has; {first} has this one too");
            return Err(fields.bad("name", &accepted));
        }
        destinations.push(destination);
    }
    Ok(destinations)
}

fn one(fields: &Fields<'_>, context: &Values) -> Result<NamedDestination, ConfigError> {
    let text = |key: &str, accepted: &str| fields.text(key)?.ok_or_else(|| fields.missing(key, accepted));
    let accepted = "1 to 32 of a-z, 0-9, _ and -, starting with a letter or digit";
    let name = text("name", accepted)?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !(1..=32).contains(&name.len())
        || !name.bytes().all(|b| plain(b) || b"_-".contains(&b))
        || !name.as_bytes().first().copied().is_some_and(plain)
    {
        return Err(fields.bad("name", accepted));
    }
    let accepted = "a host name or address";
    let host = text("host", accepted)?;
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let (host, _) = host_and_port(&bracketed).map_err(|_| fields.bad("host", accepted))?;
    let port = fields.integer("port", 1..=65_535, 22)? as u16;
    let accepted = "the account at the server";
    let user = text("user", accepted)?;
    if user.is_empty() || user.chars().any(char::is_control) {
        return Err(fields.bad("user", accepted));
    }
    let endpoint = Endpoint { host, port, user: user.to_owned() };
    let accepted = "SHA256:… or the server's known_hosts line";
    let pin = HostKeyPin::parse(text("host_key", accepted)?, &endpoint)
        .map_err(|e| fields.bad("host_key", &format!("{accepted} ({e})")))?;
    let path = path(fields, &endpoint, context)?;
    let credential = credential(fields)?;
    let max_rate = fields.optional_size("max_rate", 1024)?;
    Ok(NamedDestination { name: name.to_owned(), endpoint, pin, path, credential, max_rate })
}

/// A path whose tokens are known and that can become one.
fn path(fields: &Fields<'_>, endpoint: &Endpoint, context: &Values) -> Result<String, ConfigError> {
    let accepted = "a path from / or /~/ on, with known tokens, e.g. \"/in/{vehicle_id}/{lens}/{start_ts}.mp4\"";
    let path = fields.text("path")?.ok_or_else(|| fields.missing("path", accepted))?;
    let refuse = |why: String| fields.bad("path", &format!("{accepted} ({why})"));
    if !path.starts_with('/') {
        return Err(refuse("it does not start with /".to_owned()));
    }
    let mut values = context.clone();
    values.extend(OF_FILES.map(|token| (token.to_owned(), "x".to_owned())));
    let resolved = template::resolve(&format!("{}{path}", endpoint.uri()), &values);
    resolved.and_then(|uri| Destination::parse(&uri)).map_err(|e| refuse(e.to_string()))?;
    Ok(path.to_owned())
}

fn credential(fields: &Fields<'_>) -> Result<CredentialSource, ConfigError> {
    let variable = |key: &str| -> Result<Option<String>, ConfigError> {
        match fields.text(key)? {
            Some(name) if name.is_empty() || name.contains(['=', '\0']) => {
                Err(fields.bad(key, "the name of an environment variable"))
            }
            name => Ok(name.map(str::to_owned)),
        }
    };
    let passphrase = variable("passphrase_env")?;
    let accepted = "exactly one of key_file, key_env, password_env and agent";
    let found =
        (fields.absolute_path("key_file")?, variable("key_env")?, variable("password_env")?, fields.text("agent")?);
    let source = match found {
        (Some(path), None, None, None) => return Ok(CredentialSource::KeyFile { path, passphrase }),
        (None, Some(key), None, None) => return Ok(CredentialSource::KeyVariable { key, passphrase }),
        (None, None, Some(password), None) => CredentialSource::PasswordVariable(password),
        (None, None, None, Some("env")) => CredentialSource::Agent(None),
        (None, None, None, Some(_)) => {
            let socket = fields.absolute_path("agent");
            CredentialSource::Agent(socket.map_err(|_| fields.bad("agent", "an absolute path or \"env\""))?)
        }
        (None, None, None, None) => return Err(fields.missing("key_file", accepted)),
        _ => return Err(fields.bad("key_file", accepted)),
    };
    match passphrase {
        None => Ok(source),
        Some(_) => Err(fields.bad("passphrase_env", "no passphrase without key_file or key_env")),
    }
}
