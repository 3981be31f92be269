//! Boxes: writing them nested into one buffer, and walking them in a slice without trusting any size.
//!
//! Used by every other file of this crate. Never allocates for a claimed size.

/// A box type: four characters.
pub type FourCc = [u8; 4];

/// A growing buffer of nested boxes.
#[derive(Debug, Default)]
pub struct BoxWriter {
    bytes: Vec<u8>,
}

impl BoxWriter {
    /// An empty buffer with room for `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    /// The bytes written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes a box; `body` writes its contents. A box over 4 GiB cannot be written here (only `mdat` grows so large,
    /// and its header is written by hand).
    pub fn nested(&mut self, kind: FourCc, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.u32(0);
        self.raw(&kind);
        body(self);
        let size = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.patch_u32(start, size);
    }

    /// Writes a full box (version and 24 bits of flags before the contents).
    pub fn full(&mut self, kind: FourCc, version: u8, flags: u32, body: impl FnOnce(&mut Self)) {
        self.nested(kind, |w| {
            w.u32(u32::from(version) << 24 | (flags & 0x00ff_ffff));
            body(w);
        });
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends `n` zero bytes.
    pub fn zeros(&mut self, n: usize) {
        self.bytes.resize(self.bytes.len() + n, 0);
    }

    /// Appends one byte.
    pub fn u8(&mut self, v: u8) {
        self.bytes.push(v);
    }

    /// Appends a big-endian 16-bit number.
    pub fn u16(&mut self, v: u16) {
        self.raw(&v.to_be_bytes());
    }

    /// Appends a big-endian 32-bit number.
    pub fn u32(&mut self, v: u32) {
        self.raw(&v.to_be_bytes());
    }

    /// Appends a big-endian signed 32-bit number.
    pub fn i32(&mut self, v: i32) {
        self.raw(&v.to_be_bytes());
    }

    /// Appends a big-endian 64-bit number.
    pub fn u64(&mut self, v: u64) {
        self.raw(&v.to_be_bytes());
    }

    /// Appends a big-endian signed 64-bit number.
    pub fn i64(&mut self, v: i64) {
        self.raw(&v.to_be_bytes());
    }

    /// Overwrites the 32-bit number at `at`, which must have been written.
    pub fn patch_u32(&mut self, at: usize, v: u32) {
        if let Some(slot) = self.bytes.get_mut(at..at + 4) {
            slot.copy_from_slice(&v.to_be_bytes());
        }
    }
}

/// Fields of a box, read one after another. Every read past the end gives `None`.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields in `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(n)?;
        self.rest = tail;
        Some(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|a| a[0])
    }

    /// A big-endian 16-bit number.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// A big-endian 32-bit number.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A big-endian signed 32-bit number.
    pub fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    /// A big-endian 64-bit number.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A big-endian signed 64-bit number.
    pub fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// Version and flags of a full box.
    pub fn version_and_flags(&mut self) -> Option<(u8, u32)> {
        let word = self.u32()?;
        Some(((word >> 24) as u8, word & 0x00ff_ffff))
    }

    /// A number of 32 bits in version 0 and 64 bits in version 1.
    pub fn sized(&mut self, version: u8) -> Option<u64> {
        if version == 0 { self.u32().map(u64::from) } else { self.u64() }
    }
}

/// A box header as it stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoxHeader {
    /// The type.
    pub kind: FourCc,
    /// Bytes of the header: 8, or 16 with a 64-bit size.
    pub header_len: u64,
    /// Bytes of the whole box; `None` means "to the end of the file" (size 0).
    pub size: Option<u64>,
}

impl BoxHeader {
    /// Parses a header from the first bytes of `bytes`; `None` if it is cut short or its size is smaller than itself.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut f = Fields::new(bytes);
        let size32 = f.u32()?;
        let kind = f.array()?;
        match size32 {
            0 => Some(Self { kind, header_len: 8, size: None }),
            1 => {
                let size = f.u64()?;
                (size >= 16).then_some(Self { kind, header_len: 16, size: Some(size) })
            }
            2..=7 => None,
            n => Some(Self { kind, header_len: 8, size: Some(u64::from(n)) }),
        }
    }
}

/// The child boxes of a box that is wholly in memory. Ends at the first malformed one.
#[derive(Clone, Debug)]
pub struct Children<'a> {
    rest: &'a [u8],
    broken: bool,
}

impl<'a> Children<'a> {
    /// Walks the boxes in `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, broken: false }
    }

    /// Whether the walk ended at something that is no box.
    #[must_use]
    pub fn broken(&self) -> bool {
        self.broken
    }
}

impl<'a> Iterator for Children<'a> {
    type Item = (FourCc, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let split = BoxHeader::parse(self.rest).and_then(|header| {
            let size = match header.size {
                Some(size) => usize::try_from(size).ok()?,
                None => self.rest.len(),
            };
            let (this, tail) = self.rest.split_at_checked(size)?;
            Some((header.kind, this.get(header.header_len as usize..)?, tail))
        });
        if let Some((kind, body, tail)) = split {
            self.rest = tail;
            Some((kind, body))
        } else {
            self.rest = &[];
            self.broken = true;
            None
        }
    }
}

/// The contents of the first child of `kind`.
#[must_use]
pub fn child(bytes: &[u8], kind: FourCc) -> Option<&[u8]> {
    Children::new(bytes).find(|(k, _)| *k == kind).map(|(_, body)| body)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nested_boxes_read_back() {
        let mut w = BoxWriter::default();
        w.nested(*b"moov", |w| {
            w.full(*b"mvhd", 1, 0x7, |w| w.u64(5));
            w.nested(*b"free", |_| ());
        });
        let bytes = w.into_bytes();
        let moov = child(&bytes, *b"moov").unwrap();
        let kinds: Vec<_> = Children::new(moov).map(|(k, b)| (k, b.len())).collect();
        assert_eq!(kinds, [(*b"mvhd", 12), (*b"free", 0)]);
        let mut f = Fields::new(child(moov, *b"mvhd").unwrap());
        assert_eq!(f.version_and_flags(), Some((1, 7)));
        assert_eq!(f.u64(), Some(5));
        assert_eq!(f.u8(), None);
    }

    #[test]
    fn a_child_that_overruns_its_parent_ends_the_walk() {
        let mut w = BoxWriter::default();
        w.u32(100);
        w.raw(b"trak");
        w.zeros(4);
        let bytes = w.into_bytes();
        let mut walk = Children::new(&bytes);
        assert!(walk.next().is_none());
        assert!(walk.broken());
    }

    #[test]
    fn sizes_smaller_than_the_header_are_refused() {
        for bad in [&b"\0\0\0\x04moov"[..], b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x0f", b"\0\0\0"] {
            assert_eq!(BoxHeader::parse(bad), None);
        }
    }
}
