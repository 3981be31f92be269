//! Names with tokens: `sftp://fleet@vault/{vehicle_id}/{lens}/{start_ts}.mp4`.
//!
//! Promises:
//! - N1: a token that nobody knows is refused before anything is connected, and the refusal lists those that are known.
//! - N2: whatever a value holds, it stays within its part of the path: all but letters, digits and `-._` is written as `%xx` into
//!   the name itself, so that different values stay different names; a part that comes out empty, as `.`, as `..` or, at the
//!   beginning, as `~` is refused.
//! - N3: tokens stand in the path only. Nobody's value decides about a host or a user.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::destination::LONGEST;
use super::failure::Refused;

/// Values by token.
pub type Values = BTreeMap<String, String>;

/// Tokens that a file brings along; `[context]` may not have keys of these names.
pub const OF_FILES: [&str; 12] =
    ["kind", "id", "name", "ext", "lens", "run", "seq", "start_ts", "end_ts", "start", "date", "clock"];

/// Whether a text can be a token: 1 to 32 of `a-z`, `0-9`, `_`.
#[must_use]
pub fn is_token(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// A URI up to its path.
#[must_use]
pub fn authority(uri: &str) -> &str {
    let authority = uri.find("://").map_or(0, |at| at + 3);
    let path = uri[authority..].find('/').map_or(uri.len(), |at| authority + at);
    &uri[..path]
}

/// What comes behind it.
fn path(uri: &str) -> &str {
    &uri[authority(uri).len()..]
}

/// The tokens of a text, or what is wrong with it.
pub fn tokens(text: &str) -> Result<Vec<&str>, Refused> {
    let mut found = Vec::new();
    split(
        text,
        |_| {},
        |token| {
            found.push(token);
            Ok(())
        },
    )?;
    Ok(found)
}

/// Puts the values in, ready to be read as a URI.
pub fn resolve(uri: &str, values: &Values) -> Result<String, Refused> {
    let out = std::cell::RefCell::new(String::with_capacity(uri.len() + 64));
    split(
        uri,
        |literal| out.borrow_mut().push_str(literal),
        |token| {
            let Some(value) = values.get(token) else {
                let known = values.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                return Err(Refused::Destination(format!("there is no {{{token}}} for this file; known are: {known}")));
            };
            out.borrow_mut().push_str(&escaped(value));
            Ok(())
        },
    )?;
    let out = out.into_inner();
    // N2: a `/` at the end means a folder, `/~` at the beginning that of the login; only the template says either.
    let turns_into = |is: fn(&str) -> bool| is(path(&out)) && !is(path(uri));
    if turns_into(|path| path.ends_with('/')) || turns_into(|path| path == "/~" || path.starts_with("/~/")) {
        // Without what came before the path, which may hold a password.
        let came = path(&out);
        return Err(Refused::Destination(format!(
            "with the values of this file its path is {came}: one of them is empty"
        )));
    }
    Ok(out)
}

/// Goes through a text; refuses braces that are none of tokens, and tokens before the path.
fn split<'a>(
    uri: &'a str,
    mut literal: impl FnMut(&str),
    mut token: impl FnMut(&'a str) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let refuse = |why: &str| Err(Refused::Destination(why.to_owned()));
    // Before values are put in, which may be many times as long as their tokens.
    if uri.len() > LONGEST {
        return refuse(&format!("it is longer than {LONGEST} bytes"));
    }
    if authority(uri).contains(['{', '}']) {
        return refuse("tokens may stand in the path only, not in the user or host");
    }
    let mut rest = uri;
    while let Some(at) = rest.find(['{', '}']) {
        literal(&rest[..at]);
        let named = rest[at..].strip_prefix('{').and_then(|after| after.split_once('}'));
        match named {
            Some((name, after)) if is_token(name) => {
                token(name)?;
                rest = after;
            }
            _ => return refuse("a token is {name}, of a-z, 0-9 and _; write other braces as %7B and %7D"),
        }
    }
    literal(rest);
    Ok(())
}

/// N2, and once more as a URI has it: `%` becomes `%25`.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if c.is_alphanumeric() || matches!(c, '-' | '.' | '_') {
            out.push(c);
        } else {
            let mut bytes = [0; 4];
            for b in c.encode_utf8(&mut bytes).bytes() {
                let _ = write!(out, "%25{b:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::upload::destination::Destination;

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn path(uri: &str, pairs: &[(&str, &str)]) -> Result<String, Refused> {
        Ok(Destination::parse(&resolve(uri, &values(pairs))?)?.remote_path())
    }

    #[test]
    fn values_take_the_place_of_tokens() {
        let pairs = [("vehicle_id", "bus 7/9"), ("lens", "road"), ("start_ts", "1795168800250000")];
        let uri = "sftp://u@h:2222/in/{vehicle_id}/{lens}/{start_ts}-{lens}.mp4";
        assert_eq!(path(uri, &pairs).unwrap(), "/in/bus%207%2F9/road/1795168800250000-road.mp4");
        assert_eq!(tokens(uri).unwrap(), ["vehicle_id", "lens", "start_ts", "lens"]);
        assert_eq!(path("sftp://u@h/~/Köln/{vehicle_id}", &[("vehicle_id", "Ürzig")]).unwrap(), "Köln/Ürzig");
    }

    #[test]
    fn what_is_too_long_is_refused_before_values_are_put_in() {
        let uri = |count: usize| format!("sftp://u@h/f{}", "{x}".repeat(count));
        assert_eq!(path(&uri(1000), &[("x", "")]).unwrap(), "/f");
        let refused = resolve(&uri(2000), &values(&[("x", "")])).unwrap_err();
        assert!(refused.to_string().contains("longer than 4096 bytes"), "{refused}");
    }

    /// N1 and N3.
    #[test]
    fn what_is_no_known_token_of_the_path_is_refused() {
        for uri in [
            "sftp://u@h/{nothing}",
            "sftp://u@h/{lens",
            "sftp://u@h/lens}",
            "sftp://u@h/{}",
            "sftp://u@h/{Lens}",
            "sftp://u@h/{{lens}}",
            "sftp://{lens}@h/x",
            "sftp://u@{lens}/x",
            "sftp://u@h:{lens}/x",
            "{lens}/x",
        ] {
            let refused = path(uri, &[("lens", "road")]).unwrap_err();
            assert!(matches!(refused, Refused::Destination(_)), "{uri}");
        }
        let text = path("sftp://u@h/{nothing}", &[("lens", "road"), ("run", "7")]).unwrap_err().to_string();
        assert!(text.contains("{nothing}") && text.contains("lens, run"), "{text}");
    }

    /// N2.
    #[test]
    fn a_value_that_would_leave_its_part_is_refused() {
        for value in [".", "..", ""] {
            assert!(path("sftp://u@h/in/{v}/x", &[("v", value)]).is_err(), "{value:?}");
            assert!(path("sftp://u@h/in/{v}", &[("v", value)]).is_err(), "{value:?}");
            assert!(path("sftp://u@h/{v}/", &[("v", value)]).is_err(), "{value:?}");
            assert!(path("sftp://u@h/~/{v}/", &[("v", value)]).is_err(), "{value:?}");
        }
        for uri in
            ["sftp://u@h/in/{v}{v}", "sftp://u@h/{v}", "sftp://u@h/~/{v}", "sftp://u@h/~{v}/x", "sftp://u@h/~{v}"]
        {
            let refused = path(uri, &[("v", "")]).unwrap_err().to_string();
            assert!(refused.contains("one of them is empty"), "{uri}: {refused}");
        }
        assert_eq!(path("sftp://u@h/~/in/{v}/", &[("v", "a")]).unwrap(), "in/a");
        assert_eq!(path("sftp://u@h/~/x{v}", &[("v", "")]).unwrap(), "x");
        assert_eq!(path("sftp://u@h/in/{v}/x", &[("v", "../../etc")]).unwrap(), "/in/..%2F..%2Fetc/x");
        assert_eq!(path("sftp://u@h/in/{v}/x", &[("v", "a\n\0b")]).unwrap(), "/in/a%0A%00b/x");
    }

    proptest! {
        /// N2: any two values, one part each, and different if they are.
        #[test]
        fn values_stay_in_their_part_and_differ(a in "\\PC{1,20}|[./%{}\\x00-\\x1f]{1,8}", b in "\\PC{1,20}|[./%{}]{1,8}") {
            let one = |v: &str| path("sftp://u@h/in/x{v}/f", &[("v", v)]);
            let (Ok(pa), Ok(pb)) = (one(&a), one(&b)) else { return Err(TestCaseError::fail("refused")) };
            for p in [&pa, &pb] {
                prop_assert!(p.starts_with("/in/x") && p.ends_with("/f") && p.matches('/').count() == 3, "{}", p);
                prop_assert!(!p.chars().any(char::is_control));
            }
            prop_assert_eq!(pa == pb, a == b);
        }
    }
}
