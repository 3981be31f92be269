//! What an access unit is, read from its NAL unit headers.
//!
//! Promises to be right about what may start where, and never to read beyond its input whatever the input holds. Decodes no
//! picture.

use bytes::Bytes;

use crate::media::{FrameKind, VideoCodec};

mod sps;

pub use sps::{Picture, picture};

/// The NAL units of an access unit with 4-byte lengths (ISO/IEC 14496-15). Ends early at a length that does not fit.
#[must_use]
pub fn units(data: &[u8]) -> Units<'_> {
    Units { rest: data }
}

/// Iterator of [`units`].
#[derive(Clone, Debug)]
pub struct Units<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Units<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (unit, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(unit)
    }
}

/// What decoding may do at an access unit with 4-byte lengths.
#[must_use]
pub fn classify(codec: VideoCodec, data: &[u8]) -> FrameKind {
    let mut recovery = false;
    for unit in units(data) {
        let Some(first) = unit.first() else { continue };
        match codec {
            // ITU-T H.264 table 7-1.
            VideoCodec::H264 => match first & 0x1f {
                5 => return FrameKind::Idr,
                1..=4 => break,
                6 => recovery |= has_recovery_point(unit.get(1..).unwrap_or_default()),
                _ => {}
            },
            // ITU-T H.265 table 7-1.
            VideoCodec::H265 => match first >> 1 & 0x3f {
                16..=18 => return FrameKind::Bla,
                19 | 20 => return FrameKind::Idr,
                21 => return FrameKind::Cra,
                8 | 9 => return FrameKind::Rasl,
                0..=31 => break,
                39 => recovery |= has_recovery_point(unit.get(2..).unwrap_or_default()),
                _ => {}
            },
        }
    }
    if recovery { FrameKind::RecoveryPoint } else { FrameKind::Delta }
}

/// Whether a NAL unit is a parameter set.
fn is_parameter_set(codec: VideoCodec, unit: &[u8]) -> bool {
    let Some(first) = unit.first() else { return false };
    match codec {
        // SPS, PPS, SPS extension.
        VideoCodec::H264 => matches!(first & 0x1f, 7 | 8 | 13),
        // VPS, SPS, PPS.
        VideoCodec::H265 => matches!(first >> 1 & 0x3f, 32..=34),
    }
}

/// The access unit as it is stored: without parameter sets, which live in the decoder configuration. Copies only if there
/// are any.
#[must_use]
pub fn stored(codec: VideoCodec, data: Bytes) -> Bytes {
    if !units(&data).any(|u| is_parameter_set(codec, u)) {
        return data;
    }
    let mut kept = Vec::with_capacity(data.len());
    for unit in units(&data).filter(|u| !is_parameter_set(codec, u)) {
        kept.extend_from_slice(&(unit.len() as u32).to_be_bytes());
        kept.extend_from_slice(unit);
    }
    kept.into()
}

/// Whether an SEI payload holds a recovery point message, type 6 in both codecs (H.264 D.1, H.265 D.2.1).
fn has_recovery_point(sei: &[u8]) -> bool {
    let mut bytes = Unescaped { rest: sei, zeros: 0 };
    loop {
        let Some(kind) = bytes.coded() else { return false };
        if kind == 6 {
            return true;
        }
        let Some(size) = bytes.coded() else { return false };
        if (0..size).any(|_| bytes.next().is_none()) {
            return false;
        }
    }
}

/// The bytes of a NAL unit without emulation prevention (H.264 7.3.1, H.265 7.3.1.1).
struct Unescaped<'a> {
    rest: &'a [u8],
    zeros: u8,
}

impl Unescaped<'_> {
    /// A number of an SEI header: bytes of 255 add up until a smaller one ends it. The trailing bits are no header.
    fn coded(&mut self) -> Option<usize> {
        if matches!(self.rest, [] | [0x80]) {
            return None;
        }
        let mut value = 0;
        loop {
            let byte = self.next()?;
            value += usize::from(byte);
            if byte != 255 {
                return Some(value);
            }
        }
    }
}

impl Iterator for Unescaped<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (mut byte, mut rest) = self.rest.split_first()?;
        if self.zeros >= 2 && *byte == 3 {
            self.zeros = 0;
            (byte, rest) = rest.split_first()?;
        }
        self.rest = rest;
        self.zeros = if *byte == 0 { self.zeros.saturating_add(1) } else { 0 };
        Some(*byte)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unit(parts: &[&[u8]]) -> Vec<u8> {
        parts.iter().flat_map(|p| [&(p.len() as u32).to_be_bytes()[..], p].concat()).collect()
    }

    #[test]
    fn h264_entries_are_told_apart() {
        let kind = |parts: &[&[u8]]| classify(VideoCodec::H264, &unit(parts));
        assert_eq!(kind(&[&[9, 0xf0], &[0x65, 1]]), FrameKind::Idr);
        assert_eq!(kind(&[&[0x41, 1]]), FrameKind::Delta);
        // SEI: user data of 2 bytes, then recovery point.
        assert_eq!(kind(&[&[6, 5, 2, 7, 7, 6, 1, 0xc4, 0x80], &[0x41, 1]]), FrameKind::RecoveryPoint);
        assert_eq!(kind(&[&[6, 5, 2, 6, 1, 0x80], &[0x41, 1]]), FrameKind::Delta, "6 inside a payload is no type");
        assert_eq!(kind(&[&[6, 6, 1, 0xc4, 0x80], &[0x65, 1]]), FrameKind::Idr, "an IDR outranks the SEI");
        // A payload of 3 bytes written with emulation prevention: 0 0 [3] 1.
        assert_eq!(kind(&[&[6, 5, 3, 0, 0, 3, 1, 6, 1, 0xc4, 0x80], &[0x41, 1]]), FrameKind::RecoveryPoint);
    }

    #[test]
    fn h265_entries_are_told_apart() {
        let kind = |t: u8| classify(VideoCodec::H265, &unit(&[&[40 << 1, 1], &[t << 1, 1, 0]]));
        assert_eq!([16, 17, 18].map(kind), [FrameKind::Bla; 3]);
        assert_eq!([19, 20].map(kind), [FrameKind::Idr; 2]);
        assert_eq!(kind(21), FrameKind::Cra);
        assert_eq!([8, 9].map(kind), [FrameKind::Rasl; 2]);
        assert_eq!([0, 1, 6, 7].map(kind), [FrameKind::Delta; 4], "RADL pictures decode from the CRA");
        let sei = unit(&[&[39 << 1, 1, 6, 2, 0x10, 0x40, 0x80], &[1 << 1, 1, 0]]);
        assert_eq!(classify(VideoCodec::H265, &sei), FrameKind::RecoveryPoint);
    }

    #[test]
    fn parameter_sets_leave_the_stored_unit() {
        let clean = Bytes::from(unit(&[&[6, 5, 1, 1, 0x80], &[0x65, 9]]));
        assert_eq!(stored(VideoCodec::H264, clean.clone()).as_ptr(), clean.as_ptr(), "nothing to do, nothing copied");
        let full = Bytes::from(unit(&[&[0x67, 1], &[0x68, 1], &[6, 5, 1, 1, 0x80], &[0x65, 9]]));
        assert_eq!(stored(VideoCodec::H264, full), clean);
    }

    proptest! {
        #[test]
        fn hostile_units_are_read_within_bounds(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            for codec in [VideoCodec::H264, VideoCodec::H265] {
                let _ = classify(codec, &data);
                prop_assert!(stored(codec, data.clone().into()).len() <= data.len());
                let framed = unit(&[&data]);
                let _ = classify(codec, &framed);
            }
        }
    }
}
