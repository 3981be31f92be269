//! Who a segment file is: the fixed-size `uuid` box right after `ftyp`.
//!
//! A file found anywhere tells its lens, run and number, its boot and its monotonic start, without any index. The first 48
//! bytes of the body keep their place in every later format version, so that an older program can list a newer file.

use crate::boxes::{BoxWriter, Fields};

/// The extended type of the identity box.
pub const IDENTITY_UUID: [u8; 16] = *b"\x6d\x6f\x73\x2d\x73\x65\x67\x6d\x80\x1e\x4d\x4f\x53\x00\x00\x01";

/// The format version that this crate writes and fully reads.
pub const FORMAT_VERSION: u32 = 1;

/// Longest lens id in bytes.
pub const LENS_MAX: usize = 32;

/// Bytes of the whole box: header, extended type, body.
pub const IDENTITY_LEN: usize = 8 + 16 + BODY_LEN;

const BODY_LEN: usize = 128;
const CHECKED_LEN: usize = BODY_LEN - 4;

/// Box header and extended type, then the fixed fields of the body.
const MOOV_SUM_AT: usize = 24 + 80;

/// How far the wall clock could be believed when a mapping was taken; the numbers are the file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Quality {
    /// Nobody had set the clock.
    Unset = 0,
    /// From a battery-backed clock.
    Rtc = 1,
    /// Disciplined by NTP.
    Ntp = 2,
    /// Disciplined by satellite.
    Gnss = 3,
}

impl Quality {
    fn from_u8(v: u8) -> Self {
        match v {
            1 => Self::Rtc,
            2 => Self::Ntp,
            3 => Self::Gnss,
            _ => Self::Unset,
        }
    }
}

/// The wall clock at the segment's monotonic start, as it was known when the file was made. Later and better knowledge is
/// in the run's clock file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UtcMapping {
    /// Microseconds since 1970-01-01T00:00:00Z at the monotonic start.
    pub micros: i64,
    /// How good that was.
    pub quality: Quality,
}

/// The contents of the identity box.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Format version of the file; [`FORMAT_VERSION`] for files written here.
    pub version: u32,
    /// Lens id, 1 to [`LENS_MAX`] bytes of `a-z0-9_`.
    pub lens: String,
    /// Run number.
    pub run: u32,
    /// Number within lens and run.
    pub seq: u32,
    /// Boot id.
    pub boot: [u8; 16],
    /// Capture time of decode time 0: `CLOCK_MONOTONIC` nanoseconds of that boot.
    pub mono_start: i64,
    /// The mapping then known.
    pub utc: Option<UtcMapping>,
}

/// Why an identity cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The lens id is empty, too long or has other characters.
    #[error("lens id {0:?} is not 1 to 32 of a-z, 0-9 and _")]
    Lens(String),
    /// The box is missing, cut short or of another kind.
    #[error("no identity box at byte 32: not a segment of this program, or its first sector is lost")]
    Missing,
    /// The checksum does not fit.
    #[error("the identity box is damaged: its checksum does not fit")]
    Checksum,
}

impl Identity {
    /// Writes the box; `moov_sum` is the checksum over the header's `moov`.
    pub(crate) fn write(&self, w: &mut BoxWriter, moov_sum: u32) -> Result<(), IdentityError> {
        if !lens_ok(&self.lens) {
            return Err(IdentityError::Lens(self.lens.clone()));
        }
        let mut body = BoxWriter::with_capacity(BODY_LEN);
        body.u32(FORMAT_VERSION);
        body.u8(self.lens.len() as u8);
        body.u8(u8::from(self.utc.is_some()));
        body.u8(self.utc.map_or(0, |u| u.quality as u8));
        body.u8(0);
        body.raw(self.lens.as_bytes());
        body.zeros(LENS_MAX - self.lens.len());
        body.u32(self.run);
        body.u32(self.seq);
        body.raw(&self.boot);
        body.i64(self.mono_start);
        body.i64(self.utc.map_or(0, |u| u.micros));
        body.u32(moov_sum);
        body.zeros(CHECKED_LEN - body.len());
        let mut body = body.into_bytes();
        let sum = crc32fast::hash(&body);
        body.extend_from_slice(&sum.to_be_bytes());
        w.nested(*b"uuid", |w| {
            w.raw(&IDENTITY_UUID);
            w.raw(&body);
        });
        Ok(())
    }

    /// Parses the whole box, header included. A newer format version is no error here: look at [`Identity::version`];
    /// what is beyond run and number is then not to be relied on.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdentityError> {
        let mut f = Fields::new(bytes);
        let head = f.u32().zip(f.array::<4>()).zip(f.array::<16>()).ok_or(IdentityError::Missing)?;
        let ((size, kind), uuid) = head;
        let body_len = usize::try_from(size).unwrap_or(0).checked_sub(24).ok_or(IdentityError::Missing)?;
        if kind != *b"uuid" || uuid != IDENTITY_UUID || body_len < BODY_LEN {
            return Err(IdentityError::Missing);
        }
        let body = f.take(BODY_LEN).ok_or(IdentityError::Missing)?;
        let (checked, sum) = body.split_at(CHECKED_LEN);
        let mut f = Fields::new(checked);
        let parsed = Self::fields(&mut f).ok_or(IdentityError::Missing)?;
        let sum_fits = crc32fast::hash(checked).to_be_bytes() == *sum;
        if !sum_fits && parsed.version <= FORMAT_VERSION {
            return Err(IdentityError::Checksum);
        }
        let size_fits = body_len == BODY_LEN || parsed.version > FORMAT_VERSION;
        if !lens_ok(&parsed.lens) || parsed.version == 0 || !size_fits {
            return Err(IdentityError::Missing);
        }
        Ok(parsed)
    }

    /// Checksum over the header's `moov`, from the whole box.
    pub(crate) fn moov_sum(bytes: &[u8]) -> Option<u32> {
        Fields::new(bytes.get(MOOV_SUM_AT..)?).u32()
    }

    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let version = f.u32()?;
        let lens_len = usize::from(f.u8()?);
        let has_utc = f.u8()? == 1;
        let quality = Quality::from_u8(f.u8()?);
        f.u8()?;
        let lens = f.take(LENS_MAX)?.get(..lens_len)?;
        let lens = String::from_utf8(lens.to_vec()).ok()?;
        let (run, seq) = (f.u32()?, f.u32()?);
        let boot = f.array()?;
        let mono_start = f.i64()?;
        let micros = f.i64()?;
        let utc = has_utc.then_some(UtcMapping { micros, quality });
        Some(Self { version, lens, run, seq, boot, mono_start, utc })
    }
}

fn lens_ok(lens: &str) -> bool {
    (1..=LENS_MAX).contains(&lens.len())
        && !lens.starts_with('_')
        && lens.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample() -> Identity {
        Identity {
            version: FORMAT_VERSION,
            lens: "road".into(),
            run: 7,
            seq: 4_000_000_000,
            boot: [9; 16],
            mono_start: 123_456_789_012,
            utc: Some(UtcMapping { micros: 1_795_000_000_000_000, quality: Quality::Ntp }),
        }
    }

    fn bytes(id: &Identity) -> Vec<u8> {
        let mut w = BoxWriter::default();
        id.write(&mut w, 0x0102_0304).unwrap();
        w.into_bytes()
    }

    #[test]
    fn round_trip_and_fixed_size() {
        for id in [sample(), Identity { lens: "x".repeat(32), utc: None, mono_start: -1, ..sample() }] {
            let b = bytes(&id);
            assert_eq!(b.len(), IDENTITY_LEN);
            assert_eq!(Identity::moov_sum(&b), Some(0x0102_0304));
            assert_eq!(Identity::parse(&b), Ok(id));
        }
    }

    #[test]
    fn every_single_damaged_byte_is_noticed() {
        let good = bytes(&sample());
        for i in 0..good.len() {
            let mut b = good.clone();
            b[i] ^= 0x10;
            assert!(Identity::parse(&b).is_err() || Identity::parse(&b).unwrap().version != FORMAT_VERSION, "byte {i}");
        }
        for n in 0..good.len() {
            assert_eq!(Identity::parse(&good[..n]), Err(IdentityError::Missing));
        }
    }

    #[test]
    fn lens_ids_that_could_leave_the_folder_are_refused() {
        for lens in ["", "..", "a/b", "Road", "_x", &"y".repeat(33)] {
            let mut w = BoxWriter::default();
            let id = Identity { lens: lens.into(), ..sample() };
            assert_eq!(id.write(&mut w, 0), Err(IdentityError::Lens(lens.into())));
        }
    }
}
