//! The boxes of the file itself, one after another.

use super::ReduceError;
use crate::boxes::{BoxHeader, FourCc};
use crate::read::{ReadAt, fill};

/// Most boxes at the top of a file: days of fragments.
const MAX_BOXES: usize = 1 << 20;

/// A box and its place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TopBox {
    pub(super) kind: FourCc,
    pub(super) start: u64,
    pub(super) end: u64,
    /// 8, or 16 with a 64-bit size.
    pub(super) header_len: u8,
    /// Its size says "to the end of the file" and needs no change.
    pub(super) open_ended: bool,
}

impl TopBox {
    /// Where its contents begin.
    pub(super) fn body(&self) -> u64 {
        self.start + u64::from(self.header_len)
    }
}

/// All boxes of a file, which cover it without a hole.
#[derive(Debug)]
pub(super) struct Outline {
    pub(super) boxes: Vec<TopBox>,
    pub(super) file_len: u64,
}

impl Outline {
    pub(super) fn read(file: &dyn ReadAt) -> Result<Self, ReduceError> {
        let file_len = file.len().map_err(|source| ReduceError::Io { offset: 0, source })?;
        let mut boxes = Vec::new();
        let mut at = 0;
        while at < file_len {
            let malformed = |what| ReduceError::Malformed { offset: at, what };
            if boxes.len() == MAX_BOXES {
                return Err(ReduceError::TooLarge { offset: at, what: "more than a million boxes" });
            }
            let mut head = [0; 16];
            let n = fill(file, at, &mut head)?;
            let header = BoxHeader::parse(&head[..n]).ok_or(malformed("no box begins here"))?;
            let size = header.size.unwrap_or(file_len - at);
            let end = at.checked_add(size).filter(|end| *end <= file_len);
            let end = end.ok_or(malformed("the box that begins here ends behind the end of the file"))?;
            if header.kind == [0; 4] {
                return Err(malformed("a box without a type"));
            }
            let (header_len, open_ended) = (header.header_len as u8, header.size.is_none());
            boxes.push(TopBox { kind: header.kind, start: at, end, header_len, open_ended });
            at = end;
        }
        Ok(Self { boxes, file_len })
    }

    /// The one `moov`.
    pub(super) fn moov(&self) -> Result<&TopBox, ReduceError> {
        let mut found = self.boxes.iter().filter(|b| b.kind == *b"moov");
        match (found.next(), found.next()) {
            (Some(moov), None) => Ok(moov),
            (None, _) => {
                Err(ReduceError::Malformed { offset: self.file_len, what: "the file ends without a moov box" })
            }
            (_, Some(second)) => Err(ReduceError::Malformed { offset: second.start, what: "a second moov box" }),
        }
    }
}
