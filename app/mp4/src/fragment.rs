//! Fragments: `moof` and the header of the `mdat` behind it. The payload itself never passes through here.
//!
//! A fragment's payload is the samples of its first track, then those of its second, and so on, in the order given. The
//! `moof` ends with a `uuid` box that holds a checksum over itself and one over the payload (M2): after a power cut the
//! length of a file may have become durable without its contents. That box also pads the fragment to a multiple of 8
//! bytes, so that what follows begins with one aligned 8-byte word.

use crate::boxes::BoxWriter;
use crate::movie::{Movie, push};
use crate::table::{Sample, TableError};
use crate::time::Ticks;

/// The extended type of the checksum box in each `moof`.
pub const CHECKSUM_UUID: [u8; 16] = *b"\x6d\x6f\x73\x2d\x66\x72\x61\x67\x80\x1e\x4d\x4f\x53\x00\x00\x02";

/// `sample_flags` of a sample where decoding may start: depends on no other.
pub(crate) const FLAGS_SYNC: u32 = 0x0200_0000;

/// `sample_flags` of any other sample: depends on others, no sync sample.
pub(crate) const FLAGS_DELTA: u32 = 0x0101_0000;

/// The bit of `sample_flags` that says "no sync sample".
pub(crate) const FLAG_NON_SYNC: u32 = 0x0001_0000;

/// One sample of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentSample {
    /// Its bytes.
    pub size: u32,
    /// Ticks until the next sample's decode time.
    pub duration: u32,
    /// Presentation minus decode time.
    pub cts: i32,
    /// Whether decoding may start here.
    pub sync: bool,
}

/// What one track puts into a fragment.
#[derive(Clone, Copy, Debug)]
pub struct FragmentTrack<'a> {
    /// Track id.
    pub id: u32,
    /// Sample entry, from 1.
    pub description: u32,
    /// Decode time of the first sample.
    pub dts: Ticks,
    /// The samples in decoding order; a track without samples is left out.
    pub samples: &'a [FragmentSample],
}

/// Running checksum over a fragment's payload (CRC-32, IEEE).
#[derive(Clone, Debug, Default)]
pub struct Checksum(crc32fast::Hasher);

impl Checksum {
    /// Over nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next bytes of the payload.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum.
    #[must_use]
    pub fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// Why a fragment cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// No track has a sample.
    #[error("a fragment without samples")]
    Empty,
    /// A decode time before the segment's start.
    #[error("track {0}: negative decode time")]
    NegativeTime(u32),
    /// More payload than a 32-bit box holds.
    #[error("{0} bytes of payload in one fragment; at most 2^31 fit")]
    TooLarge(u64),
    /// A track that the movie does not have.
    #[error("track {0} is not in this movie")]
    UnknownTrack(u32),
    /// A sample does not fit into the table.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// A fragment's boxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// `moof` and the header of `mdat`; the payload follows.
    pub head: Vec<u8>,
    /// Bytes of payload.
    pub payload: u64,
}

impl Fragment {
    /// Builds fragment number `sequence` (from 1). `checksum` is over the payload in the order described above.
    pub fn new(sequence: u32, tracks: &[FragmentTrack<'_>], checksum: u32) -> Result<Self, FragmentError> {
        let sizes = || tracks.iter().flat_map(|t| t.samples).map(|s| u64::from(s.size));
        let payload: u64 = sizes().sum();
        if sizes().next().is_none() {
            return Err(FragmentError::Empty);
        }
        if payload >= 1 << 31 {
            return Err(FragmentError::TooLarge(payload));
        }
        if let Some(t) = tracks.iter().find(|t| t.dts < 0) {
            return Err(FragmentError::NegativeTime(t.id));
        }
        let samples: usize = tracks.iter().map(|t| t.samples.len()).sum();
        let mut w = BoxWriter::with_capacity(128 + 80 * tracks.len() + 16 * samples);
        let mut patches = Vec::with_capacity(tracks.len());
        w.nested(*b"moof", |w| {
            w.full(*b"mfhd", 0, 0, |w| w.u32(sequence));
            let mut before = 0_u32;
            for t in tracks.iter().filter(|t| !t.samples.is_empty()) {
                patches.push((write_traf(w, t), before));
                before += t.samples.iter().map(|s| s.size).sum::<u32>();
            }
            w.nested(*b"uuid", |w| {
                w.raw(&CHECKSUM_UUID);
                w.u32(checksum);
                let unpadded = w.len() as u64 + 4 + 8 + payload;
                w.zeros((unpadded.next_multiple_of(8) - unpadded) as usize);
                w.u32(0);
            });
        });
        let moof_len = w.len() as u32;
        for (at, before) in patches {
            w.patch_u32(at, moof_len + 8 + before);
        }
        let mut head = w.into_bytes();
        let end = head.len() - 4;
        let sum = crc32fast::hash(&head[..end]);
        head[end..].copy_from_slice(&sum.to_be_bytes());
        head.extend_from_slice(&(payload as u32 + 8).to_be_bytes());
        head.extend_from_slice(b"mdat");
        Ok(Self { head, payload })
    }

    /// Bytes of the whole fragment.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.head.len() as u64 + self.payload
    }

    /// Never: a fragment has samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payload == 0 && self.head.is_empty()
    }

    /// Enters the samples into the movie's tables; `at` is where the `moof` begins in the file. Call it once the
    /// fragment was written, with the same tracks.
    pub fn enter(&self, movie: &mut Movie, at: u64, tracks: &[FragmentTrack<'_>]) -> Result<(), FragmentError> {
        let mut offset = at + self.head.len() as u64;
        for t in tracks {
            let mut dts = t.dts;
            for s in t.samples {
                let sample = Sample {
                    offset,
                    size: s.size,
                    dts,
                    duration: s.duration,
                    cts: s.cts,
                    sync: s.sync,
                    description: t.description,
                };
                if !push(movie, t.id, sample)? {
                    return Err(FragmentError::UnknownTrack(t.id));
                }
                offset += u64::from(s.size);
                dts += Ticks::from(s.duration);
            }
        }
        Ok(())
    }
}

/// Writes a `traf` and tells where its data offset is to be patched in.
fn write_traf(w: &mut BoxWriter, t: &FragmentTrack<'_>) -> usize {
    const DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;
    const DESCRIPTION_PRESENT: u32 = 0x2;
    // Data offset, then per sample duration, size, flags and composition offset (8.8.8).
    const OFFSET: u32 = 0x1;
    const DURATION: u32 = 0x100;
    const SIZE: u32 = 0x200;
    const FLAGS: u32 = 0x400;
    const CTS: u32 = 0x800;

    let with_cts = t.samples.iter().any(|s| s.cts != 0);
    let flags = OFFSET | DURATION | SIZE | FLAGS | if with_cts { CTS } else { 0 };
    let mut patch_at = 0;
    w.nested(*b"traf", |w| {
        let described = if t.description == 1 { 0 } else { DESCRIPTION_PRESENT };
        w.full(*b"tfhd", 0, DEFAULT_BASE_IS_MOOF | described, |w| {
            w.u32(t.id);
            if described != 0 {
                w.u32(t.description);
            }
        });
        w.full(*b"tfdt", 1, 0, |w| w.i64(t.dts));
        w.full(*b"trun", 1, flags, |w| {
            w.u32(t.samples.len() as u32);
            patch_at = w.len();
            w.u32(0);
            for s in t.samples {
                w.u32(s.duration);
                w.u32(s.size);
                w.u32(if s.sync { FLAGS_SYNC } else { FLAGS_DELTA });
                if with_cts {
                    w.i32(s.cts);
                }
            }
        });
    });
    patch_at
}
