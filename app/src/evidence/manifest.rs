//! The manifest of a clip: all that an offline verifier needs, signed by the device.

use std::io;

use mos_mp4::ReadAt;
use serde::{Deserialize, Serialize};

use super::chain::Link;
use super::digest::{Hash, Unit, hash_at};
use super::key::{DeviceKey, is_signed};
use crate::clip::Copied;

/// What a manifest of this form calls itself.
pub const FORMAT: &str = "mos-manifest-2";
/// What it called itself for a while after links began to say how a segment is shown; the same but for the name. Before that
/// this was the name of another form.
const FORMER: &str = "mos-manifest-1";

/// Why a text is no manifest that can be judged.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Of another form.
    #[error(
        "it is of the form {0}, not {FORMAT}: this version does not judge it. The version that made it does; \
         where the recorder still has the clip, `mos manifest` gives a new one"
    )]
    Form(String),
    /// None at all.
    #[error("it is no manifest: {0}")]
    Text(String),
}

/// A manifest with its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// What is signed: the bytes of this member as compact JSON, members in this order.
    pub manifest: Manifest,
    /// The device's public key.
    pub key: String,
    /// Its signature.
    pub signature: String,
}

/// What a clip is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// The clip.
    pub clip: String,
    /// Bytes of its file.
    pub bytes: u64,
    /// Bytes before its media: boxes that say how it is shown.
    pub head_bytes: u32,
    /// Of those.
    pub head_hash: Hash,
    /// Media bytes from `head_bytes` on, one after another.
    pub copies: Vec<Copied>,
    /// The segments that they are from.
    pub segments: Vec<Proof>,
}

/// A segment in its chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Its link.
    pub link: Link,
    /// The units of blocks of which the clip holds something, by the block's number.
    pub blocks: Vec<(u32, Vec<Unit>)>,
}

impl Manifest {
    pub(super) fn new(
        clip: &str,
        file: &dyn ReadAt,
        copies: &[Copied],
        proofs: Vec<(String, Link, Vec<Vec<Unit>>)>,
    ) -> io::Result<Self> {
        let bytes = file.len()?;
        let media = copies.iter().fold(0_u64, |sum, copied| sum.saturating_add(copied.bytes));
        let head = bytes.checked_sub(media).and_then(|head| u32::try_from(head).ok());
        let head_bytes = head.ok_or_else(|| io::Error::other("the clip is shorter than what it was copied from"))?;
        let head_hash = hash_at(file, 0, head_bytes, &mut Vec::new())?;
        let touches = |segment: &str, unit: &Unit| {
            let mut own = copies.iter().filter(|copied| copied.segment == segment);
            own.any(|c| unit.at >= c.from && unit.end() <= c.from.saturating_add(c.bytes))
        };
        let proof = |(segment, link, blocks): (String, Link, Vec<Vec<Unit>>)| {
            let numbered = (0..).zip(blocks);
            let blocks = numbered.filter(|(_, units)| units.iter().any(|unit| touches(&segment, unit))).collect();
            Proof { link, blocks }
        };
        let segments = proofs.into_iter().map(proof).collect();
        let (format, clip) = (FORMAT.to_owned(), clip.to_owned());
        Ok(Self { format, clip, bytes, head_bytes, head_hash, copies: copies.to_vec(), segments })
    }

    fn text(&self) -> Vec<u8> {
        // Numbers and texts only: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

pub(super) fn sign(manifest: Manifest, key: &DeviceKey) -> Signed {
    let signature = key.sign(&manifest.text());
    Signed { manifest, key: key.public(), signature }
}

/// What tells the form, whatever else there is.
#[derive(Deserialize)]
struct AnyForm {
    manifest: Form,
}

#[derive(Deserialize)]
struct Form {
    format: String,
}

impl Signed {
    /// Reads a manifest.
    pub fn read(text: &[u8]) -> Result<Self, Unreadable> {
        let form =
            serde_json::from_slice::<AnyForm>(text).map_err(|e| Unreadable::Text(e.to_string()))?.manifest.format;
        match serde_json::from_slice::<Self>(text) {
            Ok(signed) if form == FORMAT || form == FORMER => Ok(signed),
            Err(e) if form == FORMAT => Err(Unreadable::Text(e.to_string())),
            // The older form of this name has links without a shape.
            _ => Err(Unreadable::Form(form)),
        }
    }

    /// Whether its form is one that can be judged.
    #[must_use]
    pub fn is_known(&self) -> bool {
        [FORMAT, FORMER].contains(&self.manifest.format.as_str())
    }

    /// Whether the signature is that of its key over what it says.
    #[must_use]
    pub fn holds(&self) -> bool {
        is_signed(&self.key, &self.manifest.text(), &self.signature)
    }
}
