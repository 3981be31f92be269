//! Whether media come from who answered: the certificate of the DTLS handshake against the fingerprint in the answer.
//!
//! GStreamer before 1.28.5 does not compare them: it takes any certificate. Promises that an answer without a fingerprint that counts
//! is refused, and that media are looked at only after the certificate was found to be the one that was named (RFC 8122 section 5,
//! RFC 8827 section 6.5). Who answered is `http`'s matter.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_sdp::SDPMessageRef;
use ring::digest::{self, Algorithm, digest};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

/// What counts as a fingerprint; SHA-1 and older ones do not.
const HASHES: [(&str, &Algorithm); 3] =
    [("sha-256", &digest::SHA256), ("sha-384", &digest::SHA384), ("sha-512", &digest::SHA512)];
/// Most fingerprints of an answer that are looked at.
const MOST: usize = 8;

/// A fingerprint that an answer names.
#[derive(Clone)]
pub(super) struct Named {
    hash: &'static Algorithm,
    bytes: Vec<u8>,
}

/// Those of an answer: of its pictures, or else of the whole.
pub(super) fn named(answer: &SDPMessageRef) -> Result<Vec<Named>, String> {
    let video = answer.medias().find(|media| media.media() == Some("video"));
    let of = |attributes: &mut dyn Iterator<Item = (&str, Option<&str>)>| -> Vec<Named> {
        attributes.filter(|(key, _)| *key == "fingerprint").filter_map(|(_, value)| read(value?)).take(MOST).collect()
    };
    let own = video.map(|video| of(&mut video.attributes().map(|a| (a.key(), a.value())))).unwrap_or_default();
    let named = if own.is_empty() { of(&mut answer.attributes().map(|a| (a.key(), a.value()))) } else { own };
    if named.is_empty() {
        return Err("its answer names no certificate by SHA-256, so that anybody could send in its place".to_owned());
    }
    Ok(named)
}

/// "sha-256 AB:CD:…".
fn read(value: &str) -> Option<Named> {
    let (name, text) = value.trim().split_once(' ')?;
    let (_, hash) = HASHES.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    let bytes: Option<Vec<u8>> = text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.filter(|bytes| bytes.len() == hash.output_len()).map(|bytes| Named { hash, bytes })
}

/// Whether all that encrypts in a pipeline was agreed with the owner of a certificate that is named.
pub(super) fn is_shown(pipeline: &gst::Pipeline, named: &[Named]) -> Result<(), String> {
    let mut shown = Vec::new();
    let mut elements = pipeline.iterate_recurse();
    loop {
        match elements.next() {
            Ok(Some(element)) if element.factory().is_some_and(|factory| factory.name() == "dtlsdec") => {
                shown.push(element.property::<Option<String>>("peer-pem"));
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(gst::IteratorError::Resync) => {
                shown.clear();
                elements.resync();
            }
            Err(gst::IteratorError::Error) => return Err("its certificate cannot be looked at".to_owned()),
        }
    }
    // A transport that is not in use has shown none.
    let shown: Vec<String> = shown.into_iter().flatten().collect();
    if shown.is_empty() {
        return Err("it has shown no certificate".to_owned());
    }
    if shown.iter().all(|pem| is_named(pem, named)) {
        return Ok(());
    }
    Err("media come from somebody with another certificate than its answer names".to_owned())
}

fn is_named(pem: &str, named: &[Named]) -> bool {
    let Ok(certificate) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return false };
    named.iter().any(|named| digest(named.hash, &certificate).as_ref() == named.bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fmt::Write as _;

    use gstreamer_sdp::SDPMessage;

    use super::*;

    const HEAD: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";
    const VIDEO: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 H264/90000\r\n";
    const PEM: &str = "-----BEGIN CERTIFICATE-----\nAQIDBA==\n-----END CERTIFICATE-----\n";

    fn colons(hash: &'static Algorithm) -> String {
        let mut text = String::new();
        digest(hash, &[1, 2, 3, 4]).as_ref().iter().for_each(|byte| write!(text, ":{byte:02X}").unwrap());
        text.split_off(1)
    }

    fn of(text: &str) -> Result<Vec<Named>, String> {
        gst::init().unwrap();
        named(&SDPMessage::parse_buffer(format!("{HEAD}{text}").as_bytes()).unwrap())
    }

    #[test]
    fn only_who_is_named_is_taken() {
        for (name, hash) in HASHES {
            let line = format!("a=fingerprint:{} {}\r\n", name.to_uppercase(), colons(hash).to_lowercase());
            for answer in [format!("{line}{VIDEO}"), format!("{VIDEO}{line}")] {
                assert!(is_named(PEM, &of(&answer).unwrap()), "{answer}");
                assert!(!is_named(&PEM.replace("AQID", "AQIE"), &of(&answer).unwrap()), "{answer}");
            }
            // That of the pictures counts.
            let other = line.replace(&colons(hash)[..2].to_lowercase(), "00");
            assert!(!is_named(PEM, &of(&format!("{line}{VIDEO}{other}")).unwrap()), "{other}");
        }
        assert!(!is_named("", &of(&format!("a=fingerprint:sha-256 {}\r\n{VIDEO}", colons(&digest::SHA256))).unwrap()));
    }

    #[test]
    fn an_answer_that_names_nobody_is_refused() {
        let sha1 = colons(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        for none in [String::new(), format!("a=fingerprint:sha-1 {sha1}\r\n"), "a=fingerprint:sha-256 AB:CD\r\n".into()]
        {
            assert!(of(&format!("{VIDEO}{none}")).is_err_and(|why| why.contains("names no certificate")), "{none}");
        }
    }
}
