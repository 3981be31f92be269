//! What of a segment is attested: who it is, every access unit with its track and times, in blocks that tell where something is
//! wrong, and how it is shown.
//!
//! Blocks begin at the keyframes of the video track and every [`AUDIO_UNITS`] units of sound. How it is shown is the `moov` but for
//! where chunks lie (`mos_mp4::shape`): leaving out dead boxes changes nothing here, an edit list or a time scale does.

use std::io;

use mos_mp4::read::ReadAt;
use mos_mp4::{Identity, Movie, Quality, Sample, SegmentFile};
use ring::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

/// Units of sound in a block: two to three seconds.
pub const AUDIO_UNITS: usize = 128;

/// A SHA-256; base64 as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Of all parts, one after another.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(part);
        }
        Self::take(context.finish().as_ref())
    }

    fn take(bytes: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(&bytes[..32]);
        Self(hash)
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = BASE64.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("a SHA-256 in base64"))
    }
}

/// One access unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its track.
    pub track: u32,
    /// Where it is in the segment; not attested, a copy has it elsewhere.
    pub at: u64,
    /// Its bytes.
    pub size: u32,
    /// Decode time, in ticks of its track since the segment's start.
    pub dts: i64,
    /// Presentation time.
    pub pts: i64,
    /// Of its bytes.
    pub hash: Hash,
}

impl Unit {
    /// Where it ends in the segment.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.at.saturating_add(u64::from(self.size))
    }
}

/// The digest of a block.
#[must_use]
pub fn block(units: &[Unit]) -> Hash {
    let mut bytes = Vec::with_capacity(units.len() * 56 + 12);
    bytes.extend_from_slice(b"mos-block-1");
    for unit in units {
        bytes.extend_from_slice(&unit.track.to_be_bytes());
        bytes.extend_from_slice(&unit.size.to_be_bytes());
        bytes.extend_from_slice(&unit.dts.to_be_bytes());
        bytes.extend_from_slice(&unit.pts.to_be_bytes());
        bytes.extend_from_slice(&unit.hash.0);
    }
    Hash::take(digest(&SHA256, &bytes).as_ref())
}

/// Who a segment is, as its file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// The lens.
    pub lens: String,
    /// The run.
    pub run: u32,
    /// The number within it.
    pub seq: u32,
    /// The boot, in hexadecimal digits.
    pub boot: String,
    /// Monotonic nanoseconds of its start on that boot.
    pub mono_start: i64,
    /// UTC microseconds of its start as then known, and how far the clock could be believed.
    pub utc: Option<(i64, String)>,
}

impl Name {
    /// Of a segment file.
    #[must_use]
    pub fn of(identity: &Identity) -> Self {
        Self {
            lens: identity.lens.clone(),
            run: identity.run,
            seq: identity.seq,
            boot: identity.boot.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")),
            mono_start: identity.mono_start,
            utc: identity.utc.map(|utc| (utc.micros, quality(utc.quality).to_owned())),
        }
    }
}

fn quality(quality: Quality) -> &'static str {
    match quality {
        Quality::Unset => "unset",
        Quality::Rtc => "rtc",
        Quality::Ntp => "ntp",
        Quality::Gnss => "gnss",
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.lens, self.run, self.seq)
    }
}

/// The digest of a segment: who it is, how it is shown, and its blocks.
#[must_use]
pub fn segment(name: &Name, shape: Hash, blocks: &[Hash]) -> Hash {
    // No control character is in a name that was made here; one that was forged fails by its signature.
    let utc = name.utc.as_ref().map_or_else(String::new, |(micros, quality)| format!("{micros} {quality}"));
    let who = format!("mos-segment-2\n{name}\n{}\n{}\n{utc}\n", name.boot, name.mono_start);
    let mut parts: Vec<&[u8]> = vec![who.as_bytes(), &shape.0];
    parts.extend(blocks.iter().map(|block| block.0.as_slice()));
    Hash::of(&parts)
}

/// How a closed segment is shown; `None` if its end is lost.
pub fn shape(file: &dyn ReadAt, content: &SegmentFile) -> io::Result<Option<Hash>> {
    Ok(mos_mp4::shape(file, content)?.map(|bytes| Hash::of(&[b"mos-shape-1", &bytes])))
}

/// Reads all units of a segment, in blocks.
pub fn blocks(file: &dyn ReadAt, movie: &Movie) -> io::Result<Vec<Vec<Unit>>> {
    let mut blocks: Vec<Vec<Unit>> = Vec::new();
    let mut bytes = Vec::new();
    let video = movie.video().map(|track| track.id);
    for track in &movie.tracks {
        let mut fresh = true;
        for sample in &track.table {
            let full = blocks.last().is_some_and(|block| block.len() >= AUDIO_UNITS);
            let begins = if video == Some(track.id) { sample.sync } else { full };
            if begins || fresh {
                blocks.push(Vec::new());
                fresh = false;
            }
            let unit = unit(file, track.id, &sample, &mut bytes)?;
            if let Some(block) = blocks.last_mut() {
                block.push(unit);
            }
        }
    }
    Ok(blocks)
}

fn unit(file: &dyn ReadAt, track: u32, sample: &Sample, bytes: &mut Vec<u8>) -> io::Result<Unit> {
    let hash = hash_at(file, sample.offset, sample.size, bytes)?;
    Ok(Unit { track, at: sample.offset, size: sample.size, dts: sample.dts, pts: sample.pts(), hash })
}

/// The hash of `size` bytes from `at`; fewer if the file ends there.
pub fn hash_at(file: &dyn ReadAt, at: u64, size: u32, bytes: &mut Vec<u8>) -> io::Result<Hash> {
    const PIECE: usize = 256 << 10;
    let mut context = Context::new(&SHA256);
    bytes.resize(PIECE, 0);
    let (mut at, mut left) = (at, size as usize);
    while left > 0 {
        let n = file.read_at(at, &mut bytes[..left.min(PIECE)])?;
        if n == 0 {
            break;
        }
        context.update(&bytes[..n]);
        at = at.saturating_add(n as u64);
        left -= n;
    }
    Ok(Hash::take(context.finish().as_ref()))
}
