//! What the pixels of a frame are: format, modifier, size and planes, in the words of DRM.
//!
//! Numbers are carried as they are; a format that this crate has no name for is passed on like any other.

use std::fmt;

use drm_fourcc::{DrmFourcc, DrmModifier};
use heapless::Vec;

/// Planes of a picture, at most (as DRM has it).
pub const MAX_PLANES: usize = 4;

/// The planes of a picture.
pub type Planes = Vec<Plane, MAX_PLANES>;

/// A pixel format code of DRM (`drm_fourcc.h`), e.g. `NV12`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fourcc(pub u32);

impl Fourcc {
    /// Its name, if this crate knows it.
    #[must_use]
    pub fn known(self) -> Option<DrmFourcc> {
        DrmFourcc::try_from(self.0).ok()
    }
}

impl From<DrmFourcc> for Fourcc {
    fn from(code: DrmFourcc) -> Self {
        Self(code as u32)
    }
}

impl fmt::Display for Fourcc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.to_le_bytes();
        if bytes.iter().all(|b| (0x20..0x7f).contains(b)) {
            bytes.iter().try_for_each(|b| write!(f, "{}", *b as char))
        } else {
            write!(f, "{:#010x}", self.0)
        }
    }
}

impl fmt::Debug for Fourcc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How pixels are laid out in memory (`drm_fourcc.h`): linear, or a vendor's tiling or compression.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Modifier(pub u64);

impl Modifier {
    /// Row after row; the CPU may read it.
    pub const LINEAR: Self = Self(0);
    /// Not told.
    pub const INVALID: Self = Self(0x00ff_ffff_ffff_ffff);
}

impl From<DrmModifier> for Modifier {
    fn from(modifier: DrmModifier) -> Self {
        Self(modifier.into())
    }
}

/// One plane of a picture.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plane {
    /// Which of the buffer's memories it lies in, from 0.
    pub memory: u32,
    /// Bytes from one row to the next.
    pub stride: u32,
    /// Bytes from the start of that memory.
    pub offset: u64,
}

/// What the pixels of a buffer are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Picture {
    /// Pixel format.
    pub fourcc: Fourcc,
    /// Memory layout.
    pub modifier: Modifier,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Planes in the format's order.
    pub planes: Planes,
}

impl Picture {
    /// A linear NV12 picture in one memory, rows `stride` bytes apart: luma, then interleaved chroma.
    #[must_use]
    pub fn nv12(width: u32, height: u32, stride: u32) -> Self {
        let mut planes = Vec::new();
        let _ = planes.push(Plane { memory: 0, stride, offset: 0 });
        let _ = planes.push(Plane { memory: 0, stride, offset: u64::from(stride) * u64::from(height) });
        Self { fourcc: DrmFourcc::Nv12.into(), modifier: Modifier::LINEAR, width, height, planes }
    }

    /// A linear picture of three planes with chroma halved both ways (I420), in one memory.
    #[must_use]
    pub fn i420(width: u32, height: u32, strides: [u32; 3], offsets: [u64; 3]) -> Self {
        let plane = |i: usize| Plane { memory: 0, stride: strides[i], offset: offsets[i] };
        let planes = (0..3).map(plane).collect();
        Self { fourcc: DrmFourcc::Yuv420.into(), modifier: Modifier::LINEAR, width, height, planes }
    }

    /// Rows of a plane, as far as the format is known; [`Self::height`] else, which is never too few.
    #[must_use]
    pub fn rows(&self, plane: usize) -> u32 {
        let halved = matches!(
            self.fourcc.known(),
            Some(DrmFourcc::Nv12 | DrmFourcc::Nv21 | DrmFourcc::P010 | DrmFourcc::Yuv420 | DrmFourcc::Yvu420)
        );
        if halved && plane > 0 { self.height.div_ceil(2) } else { self.height }
    }

    /// Bytes of a plane from its offset to the end of its last row; the last row counts as a whole stride.
    #[must_use]
    pub fn bytes(&self, plane: usize) -> u64 {
        self.planes.get(plane).map_or(0, |p| u64::from(p.stride) * u64::from(self.rows(plane)))
    }

    /// Whether every plane lies within memories of these sizes. A vendor's layout is only asked for its offsets.
    #[must_use]
    pub fn fits(&self, memories: &[u64]) -> bool {
        !self.planes.is_empty()
            && self.planes.iter().enumerate().all(|(i, plane)| {
                let Some(&size) = memories.get(plane.memory as usize) else { return false };
                let needed = if self.modifier == Modifier::LINEAR { self.bytes(i) } else { 1 };
                plane.offset.checked_add(needed).is_some_and(|end| end <= size)
            })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn planes_must_lie_within_their_memory() {
        let picture = Picture::nv12(16, 8, 16);
        assert!(picture.fits(&[192]));
        assert!(!picture.fits(&[191]));
        assert!(!picture.fits(&[]));
        let mut far = picture.clone();
        far.planes[1].offset = u64::MAX;
        assert!(!far.fits(&[u64::MAX]));
        let mut elsewhere = picture;
        elsewhere.planes[1].memory = 1;
        assert!(!elsewhere.fits(&[192]));
    }

    #[test]
    fn formats_have_their_names() {
        assert_eq!(Fourcc::from(DrmFourcc::Nv12).to_string(), "NV12");
        assert_eq!(Fourcc(0x3231_564E).known(), Some(DrmFourcc::Nv12));
        assert_eq!(Fourcc(1).to_string(), "0x00000001");
    }
}
