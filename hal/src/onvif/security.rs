//! WS-UsernameToken with a digest, in the camera's own time (N1, N4).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use ring::rand::{SecureRandom, SystemRandom};
use roxmltree::Node;

use super::soap::{at, escaped, text};
use crate::source::Credentials;

const NAMESPACE: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss";

/// The camera's clock minus ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ClockOffset(SignedDuration);

impl ClockOffset {
    /// Of an answer to GetSystemDateAndTime; `None` if it does not tell UTC.
    pub(super) fn of(answer: Node<'_, '_>, now: Timestamp) -> Option<Self> {
        let utc = at(answer, &["SystemDateAndTime", "UTCDateTime"])?;
        let number = |path: [&str; 2]| text(utc, &path)?.parse::<i16>().ok();
        let small = |path| i8::try_from(number(path)?).ok();
        let date = Date::new(number(["Date", "Year"])?, small(["Date", "Month"])?, small(["Date", "Day"])?).ok()?;
        // A leap second is the second after it.
        let second = small(["Time", "Second"])?.min(59);
        let time = Time::new(small(["Time", "Hour"])?, small(["Time", "Minute"])?, second, 0).ok()?;
        let camera = TimeZone::UTC.to_timestamp(DateTime::from_parts(date, time)).ok()?;
        Some(Self(camera.duration_since(now)))
    }

    /// Whether a token without it could be refused as too old or too new.
    pub(super) fn matters(self) -> bool {
        self.0.abs() >= SignedDuration::from_secs(5)
    }

    /// Whole seconds.
    pub(super) fn seconds(self) -> i64 {
        self.0.as_secs()
    }
}

/// The header of a request.
pub(super) fn header(login: &Credentials, offset: ClockOffset) -> Result<String, String> {
    let mut nonce = [0; 16];
    SystemRandom::new().fill(&mut nonce).map_err(|_| "no random numbers here")?;
    let created = Timestamp::now().checked_add(offset.0).unwrap_or_else(|_| Timestamp::now());
    Ok(token(login, nonce, &created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()))
}

/// WSS UsernameToken Profile 1.1, section 3.1: Base64(SHA-1(nonce + created + password)).
fn token(login: &Credentials, nonce: [u8; 16], created: &str) -> String {
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for part in [&nonce[..], created.as_bytes(), login.password.as_bytes()] {
        hash.update(part);
    }
    format!(
        "<w:Security s:mustUnderstand=\"1\" xmlns:w=\"{NAMESPACE}-wssecurity-secext-1.0.xsd\" \
         xmlns:u=\"{NAMESPACE}-wssecurity-utility-1.0.xsd\"><w:UsernameToken><w:Username>{}</w:Username>\
         <w:Password Type=\"{NAMESPACE}-username-token-profile-1.0#PasswordDigest\">{}</w:Password>\
         <w:Nonce EncodingType=\"{NAMESPACE}-soap-message-security-1.0#Base64Binary\">{}</w:Nonce>\
         <u:Created>{created}</u:Created></w:UsernameToken></w:Security>",
        escaped(&login.user),
        STANDARD.encode(hash.finish()),
        STANDARD.encode(nonce),
    )
}

/// A new `urn:uuid:` for a message (RFC 9562, version 4).
pub(super) fn message_id() -> Result<String, String> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "no random numbers here")?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    Ok(format!("urn:uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::onvif::soap;

    /// The example of the ONVIF Application Programmer's Guide 1.0, section 6.1.1.3.
    #[test]
    fn the_digest_is_that_of_the_guide() {
        let nonce = STANDARD.decode("LKqI6G/AikKCQrN0zqZFlg==").unwrap().try_into().unwrap();
        let login = Credentials { user: "user".into(), password: "userpassword".into() };
        let token = token(&login, nonce, "2010-09-16T07:50:45Z");
        assert!(token.contains(">tuOSpGlFlIXsozq4HFNeeGeFLEI=<"), "{token}");
        assert!(!token.contains("userpassword"));
    }

    #[test]
    fn a_camera_in_another_year_is_met_in_its_own_time() {
        let answer = "<r><SystemDateAndTime><UTCDateTime><Time><Hour>23</Hour><Minute>59</Minute><Second>60</Second></Time>\
            <Date><Year>2001</Year><Month>1</Month><Day>1</Day></Date></UTCDateTime></SystemDateAndTime></r>";
        let document = soap::read("x", answer).unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let offset = ClockOffset::of(document.root_element(), now).unwrap();
        assert_eq!(now.checked_add(offset.0).unwrap().to_string(), "2001-01-01T23:59:59Z");
        assert!(offset.matters() && offset.seconds() < 0);
        for bad in [answer.replace("2001", "x"), answer.replace("<Month>1<", "<Month>13<"), "<r/>".into()] {
            let document = soap::read("x", &bad).unwrap();
            assert_eq!(ClockOffset::of(document.root_element(), now), None);
        }
    }

    #[test]
    fn message_ids_are_uuids_and_differ() {
        let (a, b) = (message_id().unwrap(), message_id().unwrap());
        assert_ne!(a, b);
        assert_eq!((a.len(), a.as_bytes()[23]), (45, b'4'), "{a}");
    }
}
