//! One JSON object with its own CRC, the form of all small state beside the segments.
//!
//! A sealed text is `{…,"crc":"89abcdef"}`: the CRC-32 (IEEE 802.3) of everything before `,"crc"`. Callers get
//! either the object as it was sealed or nothing.

use serde::Serialize;
use serde::de::DeserializeOwned;

const MARK: &str = ",\"crc\":\"";

/// Seals `value`, which must serialize to an object with at least one field. No newline is added.
pub(crate) fn seal<T: Serialize>(value: &T) -> String {
    let mut text = serde_json::to_string(value).unwrap_or_else(|_| String::from("{}"));
    text.pop();
    let crc = crc32(text.as_bytes());
    text + &format!("{MARK}{crc:08x}\"}}")
}

/// Opens a sealed text; `None` if it is torn, altered or of another shape.
pub(crate) fn unseal<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(text).ok()?.trim_end();
    let cut = text.rfind(MARK)?;
    let body = &text[..cut];
    let crc = text[cut + MARK.len()..].strip_suffix("\"}")?;
    if crc.len() != 8 || u32::from_str_radix(crc, 16).ok()? != crc32(body.as_bytes()) {
        return None;
    }
    serde_json::from_str(&format!("{body}}}")).ok()
}

/// CRC-32 as of IEEE 802.3 (reflected, polynomial 0x04C11DB7).
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde::Deserialize;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Sample {
        a: u32,
        text: String,
    }

    #[test]
    fn crc_is_the_ieee_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn sealed_text_opens_and_no_altered_byte_does() {
        let sample = Sample { a: 7, text: "x,\"crc\":\"00000000\"} é".into() };
        let sealed = seal(&sample);
        assert_eq!(unseal::<Sample>(sealed.as_bytes()), Some(sample));
        for i in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[i] ^= 1;
            assert_eq!(unseal::<Sample>(&bytes), None, "byte {i}");
            assert_eq!(unseal::<Sample>(&sealed.as_bytes()[..i]), None, "cut at {i}");
        }
    }
}
