//! What an access unit is, read from its NAL unit headers.
//!
//! Promises to be right about what may start where, and never to read beyond its input whatever the input holds. Decodes no
//! picture.

use crate::media::{FrameKind, VideoCodec};

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
