//! `http.token`, `http.token_file` and `[[token]]`: who may do what over TCP. Read at the start, and again whenever their files
//! change.
//!
//! Promises: (K1) what is read again is judged as at the start, and only by what speaks of tokens: other settings neither take
//! effect nor stand in the way, unless the file is none of ours any more. Never logs or shows a token.

use std::collections::HashMap;
use std::fs::{File, FileType};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::entries::Document;
use super::error::{ConfigError, Place, passes};
use super::schema::Section;
use super::values::Fields;
use crate::access::{Role, Token, TokenHash};

/// Bytes of a token file that are looked at; a token is shorter.
const MAX_TOKEN_FILE: u64 = 4096;
/// Bytes of a configuration that is read again; it may have grown into anything.
const MAX_CONFIG: u64 = 1024 * 1024;
/// The name of the token of `http.token` and `http.token_file`, which no other can have.
pub const HTTP_TOKEN: &str = "http.token";

/// Where tokens are configured.
#[derive(Clone, Debug)]
pub struct TokenSource {
    file: PathBuf,
    variables: Vec<(String, String)>,
}

/// The tokens that a configuration gives.
#[derive(Debug)]
pub struct Given {
    /// From the configuration itself.
    pub tokens: Vec<Token>,
    /// The file of one more.
    pub file: Option<PathBuf>,
    /// Why that one is not among them.
    pub lacking: Option<Lacking>,
}

/// Why the token of a file is not known.
#[derive(Debug)]
pub struct Lacking {
    /// What is wrong.
    pub why: ConfigError,
    /// It says nothing of the file, and may pass by itself.
    pub passes: bool,
}

impl Given {
    /// All of them, or why one is lacking.
    pub(super) fn all(self) -> Result<Vec<Token>, ConfigError> {
        self.lacking.map_or(Ok(self.tokens), |lacking| Err(lacking.why))
    }
}

impl TokenSource {
    /// In a file, and in variables that are laid over it.
    pub fn new(file: &Path, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let speaks = |name: &str| name.starts_with("MOS_HTTP__") || name.starts_with("MOS_TOKEN__");
        let variables = variables.into_iter().filter(|(name, _)| speaks(name)).collect();
        Self { file: file.to_owned(), variables }
    }

    /// The configuration's file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The tokens that it gives now. (K1)
    pub fn read(&self) -> Result<Given, ConfigError> {
        // A device may stand for an empty one: /dev/null.
        let may_be_read = |kind: FileType| !kind.is_fifo() && !kind.is_socket();
        let text = content(&self.file, may_be_read, MAX_CONFIG).map_err(|e| ConfigError::unreadable(&self.file, &e))?;
        let mut document = Document::read(&self.file, &text)?;
        document.overlay(self.variables.iter().cloned())?;
        read(&document, &document.section(Section::Http))
    }
}

pub(super) fn read(document: &Document, fields: &Fields<'_>) -> Result<Given, ConfigError> {
    let mut given = Given { tokens: Vec::new(), file: None, lacking: None };
    let admin = |plain: &str| Token { name: HTTP_TOKEN.into(), role: Role::Admin, hash: TokenHash::of(plain) };
    match (fields.text("token")?, fields.absolute_path("token_file")?) {
        (None, None) => {}
        (Some(_), Some(_)) => return Err(fields.bad("token_file", "either token or token_file")),
        (Some(token), None) => given.tokens.push(admin(fit(fields, "token", token)?)),
        (None, Some(path)) => {
            let unreadable = |e: io::Error| {
                let why = fields.bad("token_file", &format!("a readable file, but {}: {e}", path.display()));
                Lacking { why, passes: passes(&e) }
            };
            let fit = |text: String| fit(fields, "token_file", text.trim_end()).map(admin);
            let text = content(&path, |kind| kind.is_file(), MAX_TOKEN_FILE).map_err(unreadable);
            match text.and_then(|text| fit(text).map_err(|why| Lacking { why, passes: false })) {
                Ok(token) => given.tokens.push(token),
                Err(lacking) => given.lacking = Some(lacking),
            }
            given.file = Some(path);
        }
    }
    let mut places: HashMap<String, Place> = HashMap::new();
    for fields in document.all(Section::Token) {
        let text = |key: &str, accepted: &str| fields.text(key)?.ok_or_else(|| fields.missing(key, accepted));
        let accepted = "1 to 32 of a-z, 0-9, _ and -";
        let name = text("name", accepted)?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
        if !(1..=32).contains(&name.len()) || !name.bytes().all(plain) {
            return Err(fields.bad("name", accepted));
        }
        if let Some(first) = places.insert(name.to_owned(), fields.place("name")) {
            return Err(fields.bad("name", &format!("a name that no other token has; {first} has this one too")));
        }
        let accepted = "viewer, operator or admin";
        let role = text("role", accepted)?.parse().map_err(|_| fields.bad("role", accepted))?;
        let accepted = "sha256: and 64 hexadecimal digits, as `mos token` prints it";
        let hash = text("hash", accepted)?.parse().map_err(|_| fields.bad("hash", accepted))?;
        given.tokens.push(Token { name: name.into(), role, hash });
    }
    Ok(given)
}

fn fit<'a>(fields: &Fields<'_>, key: &str, token: &'a str) -> Result<&'a str, ConfigError> {
    let fit = token.len() >= 16 && token.bytes().all(|b| b.is_ascii_graphic());
    fit.then_some(token).ok_or_else(|| fields.bad(key, "a token of 16 or more visible ASCII characters"))
}

/// What stands in a file of at most so many bytes. What is none could keep the reader for ever.
fn content(path: &Path, may_be_read: impl Fn(FileType) -> bool, max: u64) -> io::Result<String> {
    if !may_be_read(std::fs::metadata(path)?.file_type()) {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    File::open(path)?.take(max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > max {
        return Err(io::Error::other(format!("it is longer than {max} bytes")));
    }
    Ok(text)
}
