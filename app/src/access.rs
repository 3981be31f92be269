//! Who may do what: roles, tokens and the users of this machine.
//!
//! Promises: (X1) of a token only its SHA-256 is kept, and it is told apart from a wrong one in a time that does not depend on
//! where they differ; (X2) who is not known has no more than the role that the configuration gives to everybody. Used by
//! the configuration and the API. Never logs or shows a token.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What somebody may do. Each role may do all that those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks: state, listings, and the files of clips and pictures that others asked for.
    Viewer,
    /// Works: has clips and pictures made, protects, uploads, starts and stops cameras.
    Operator,
    /// Decides: removes footage, lifts protections, changes how cameras are captured.
    Admin,
}

/// The roles by name.
const ROLES: [(&str, Role); 3] = [("viewer", Role::Viewer), ("operator", Role::Operator), ("admin", Role::Admin)];

impl Role {
    /// Its name in configuration and API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = ROLES.iter().find(|(name, _)| *name == text);
        found.map(|(_, role)| *role).ok_or("a role is viewer, operator or admin")
    }
}

/// The SHA-256 of a token. Enough for tokens that nobody can guess: [`fresh_token`] makes such.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Of a token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// (X1) Takes the same time wherever the first difference is.
    fn is(&self, other: &Self) -> bool {
        let different = self.0.iter().zip(other.0).fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(different) == 0
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

impl FromStr for TokenHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = "sha256: and 64 hexadecimal digits, as `mos token` prints it";
        let digits = text.strip_prefix("sha256:").filter(|digits| digits.len() == 64).ok_or(bad)?;
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or(bad)?;
        }
        Ok(Self(hash))
    }
}

/// A new token: 256 random bits as 43 characters.
pub fn fresh_token() -> Result<String, &'static str> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system gives no random numbers")?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// A token that is accepted over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is called in notes and errors.
    pub name: Arc<str>,
    /// What whoever has it may do.
    pub role: Role,
    /// Its hash.
    pub hash: TokenHash,
}

/// Who a presented token belongs to. All are compared, whichever it is.
#[must_use]
pub fn owner<'a>(tokens: &'a [Token], offered: &str) -> Option<&'a Token> {
    let offered = TokenHash::of(offered);
    tokens.iter().fold(None, |found, token| if token.hash.is(&offered) { Some(token) } else { found })
}

/// Users and groups, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Users.
    pub users: Vec<u32>,
    /// Groups.
    pub groups: Vec<u32>,
}

impl Members {
    fn have(&self, user: u32, groups: &[u32]) -> bool {
        self.users.contains(&user) || groups.iter().any(|group| self.groups.contains(group))
    }
}

/// What users of this machine may do over the Unix socket, if its file mode lets them in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalUsers {
    /// Admins, besides root and the user of the daemon.
    pub admins: Members,
    /// Operators.
    pub operators: Members,
    /// Viewers.
    pub viewers: Members,
    /// All others; `None`: nothing.
    pub others: Option<Role>,
}

impl Default for LocalUsers {
    fn default() -> Self {
        Self {
            admins: Members::default(),
            operators: Members::default(),
            viewers: Members::default(),
            others: Some(Role::Viewer),
        }
    }
}

impl LocalUsers {
    /// (X2) The highest role of a user.
    #[must_use]
    pub fn role(&self, user: u32, groups: &[u32]) -> Option<Role> {
        if user == 0 || user == nix::unistd::geteuid().as_raw() || self.admins.have(user, groups) {
            Some(Role::Admin)
        } else if self.operators.have(user, groups) {
            Some(Role::Operator).max(self.others)
        } else if self.viewers.have(user, groups) {
            Some(Role::Viewer).max(self.others)
        } else {
            self.others
        }
    }
}

/// Who asks. Handed to handlers as an extension of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who it is.
    pub who: Who,
    /// What they may do; `None`: nothing.
    pub role: Option<Role>,
}

/// By what somebody is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A process of this machine, over the Unix socket, with its user id.
    User(u32),
    /// Somebody who has a token, over TCP; its name.
    Token(Arc<str>),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::User(uid) => write!(f, "uid {uid}"),
            Who::Token(name) => write!(f, "token {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn x1_a_token_is_known_by_its_hash_alone() {
        let secret = fresh_token().unwrap();
        assert_eq!(secret.len(), 43);
        assert_ne!(secret, fresh_token().unwrap());
        let hash = TokenHash::of(&secret);
        assert_eq!(hash.to_string().parse(), Ok(hash));
        let token = |name: &str, hash| Token { name: name.into(), role: Role::Viewer, hash };
        let tokens = [token("a", TokenHash::of("another")), token("b", hash), token("c", TokenHash::of("third"))];
        assert_eq!(&*owner(&tokens, &secret).unwrap().name, "b");
        assert_eq!(owner(&tokens, &secret[1..]), None);
        assert_eq!(owner(&tokens, ""), None);
        assert!(!format!("{tokens:?}").contains(&hash.to_string()[7..]));
        // NIST's example for SHA-256 of one block.
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(TokenHash::of("abc").to_string(), abc);
        for bad in [&abc[7..], &abc[..70], "sha256:", &abc.replace("ba78", "+a78"), &format!("{abc}0")] {
            assert!(bad.parse::<TokenHash>().is_err(), "{bad}");
        }
    }

    #[test]
    fn x2_a_user_has_the_highest_role_that_is_given() {
        let members = |users: &[u32], groups: &[u32]| Members { users: users.into(), groups: groups.into() };
        let mut local = LocalUsers {
            admins: members(&[], &[50]),
            operators: members(&[1001], &[60]),
            viewers: members(&[1002], &[]),
            others: None,
        };
        let strangers = 4_000_000_000;
        assert_eq!(local.role(0, &[]), Some(Role::Admin));
        assert_eq!(local.role(nix::unistd::geteuid().as_raw(), &[]), Some(Role::Admin));
        assert_eq!(local.role(1001, &[1, 50]), Some(Role::Admin));
        assert_eq!(local.role(1001, &[]), Some(Role::Operator));
        assert_eq!(local.role(strangers, &[60]), Some(Role::Operator));
        assert_eq!(local.role(1002, &[]), Some(Role::Viewer));
        assert_eq!(local.role(strangers, &[1001]), None, "a group is no user");
        local.others = Some(Role::Operator);
        assert_eq!(local.role(1002, &[]), Some(Role::Operator));
        assert_eq!(LocalUsers::default().role(strangers, &[]), Some(Role::Viewer));
    }

    #[test]
    fn roles_have_an_order_and_names() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        for (name, role) in ROLES {
            assert_eq!((name.parse(), role.name(), serde_json::to_value(role).unwrap()), (Ok(role), name, name.into()));
        }
        assert!("root".parse::<Role>().is_err());
    }
}
