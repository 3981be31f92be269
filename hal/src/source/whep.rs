//! `whep+https://` and `whep+http://` in the configuration: WebRTC that is fetched over HTTP.
//!
//! Promises that token, user name, password and query stand in no error and in no `Debug`. Opens nothing.

use url::Url;

use super::network::Trust;
use super::spec::{self, BadSource, SourceSpec};

/// What stands before the URL of the endpoint.
const PREFIX: &str = "whep+";

/// Reads a text that starts with `whep+http:` or `whep+https:`.
pub(super) fn parse(text: &str) -> Result<SourceSpec, BadSource> {
    let (url, credentials) = spec::parse_url(text.get(PREFIX.len()..).unwrap_or_default())?;
    // Both go into a header, where a control character would end it.
    if credentials.as_ref().is_some_and(|c| format!("{}{}", c.user, c.password).chars().any(char::is_control)) {
        return Err(BadSource::Url("token, user name and password have no control characters".to_owned()));
    }
    Ok(SourceSpec::Whep { url, credentials, trust: Trust::default() })
}

/// For people: where it is, without query.
pub(super) fn shown(url: &Url) -> String {
    format!("{PREFIX}{}", spec::redacted(url))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_token_or_a_password_that_never_shows() {
        let spec = SourceSpec::parse("whep+https://hunter2.a-b_c@192.0.2.4:8889/road/whep?key=hunter2").unwrap();
        let SourceSpec::Whep { url, credentials: Some(c), .. } = &spec else { panic!("no token") };
        assert_eq!((&*c.user, &*c.password), ("hunter2.a-b_c", ""));
        assert_eq!(url.as_str(), "https://192.0.2.4:8889/road/whep?key=hunter2");
        assert_eq!(spec.to_string(), "whep+https://192.0.2.4:8889/road/whep?…");
        assert!(!format!("{spec:?}").contains("hunter2") && spec.is_secret());
        let plain = SourceSpec::parse("whep+http://192.0.2.4/whep").unwrap();
        assert!(plain.trust().is_none() && spec.trust().is_some() && plain.trusting(Trust::default()).is_none());
        let SourceSpec::Whep { credentials: None, .. } = SourceSpec::parse("WHEP+http://[::1]/whep").unwrap() else {
            panic!("not WHEP")
        };
    }

    #[test]
    fn what_is_no_endpoint_is_refused_without_a_word_of_it() {
        for bad in [
            "whep+rtsp://hunter2@host/",
            "whep+https://",
            "whep://host/hunter2",
            "whep+hunter2",
            "whep+https://host/@hunter2",
            "whep+https://hunter2%0D%0A@host/",
        ] {
            let e = SourceSpec::parse(bad).unwrap_err();
            assert!(!format!("{e} {e:?}").contains("hunter2"), "{bad}: {e}");
        }
    }
}
