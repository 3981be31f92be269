//! What a picture knows about itself: a small JSON text in a comment of the JPEG (COM, ITU-T T.81 section B.2.4.5), which every
//! viewer skips.

use std::io;

use mos_hal::clock::UtcMicros;
use serde::{Deserialize, Serialize};

use crate::archive::disk::DiskFile;

/// How far into a file a note is looked for.
const MOST: usize = 4096;

/// The note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) lens: String,
    /// The segment that the keyframe came from.
    pub(crate) segment: String,
    /// Capture time of the keyframe, UTC microseconds.
    pub(crate) ts: i64,
    /// What the wall clock was worth: `unset`, `rtc`, `ntp` or `gnss`.
    pub(crate) clock: String,
}

impl Note {
    pub(crate) fn time(&self) -> UtcMicros {
        UtcMicros(self.ts)
    }

    /// The comment, and where in `jpeg` it goes: behind the JFIF header, which must be first.
    pub(super) fn place(&self, jpeg: &[u8]) -> (usize, Vec<u8>) {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let mut comment = vec![0xff, 0xfe];
        comment.extend_from_slice(&((text.len() + 2) as u16).to_be_bytes());
        comment.extend_from_slice(&text);
        let behind = match jpeg {
            [0xff, 0xd8, 0xff, 0xe0, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
            _ => 2,
        };
        (behind.min(jpeg.len()), comment)
    }

    /// The note in a file; `None` if it is no picture of this program.
    pub(crate) fn read(file: &dyn DiskFile) -> io::Result<Option<Self>> {
        let mut head = vec![0; MOST];
        let n = file.read_at(0, &mut head)?;
        Ok(find(&head[..n]).and_then(|text| serde_json::from_slice(text).ok()))
    }
}

/// The text of the first comment before the picture's tables.
fn find(head: &[u8]) -> Option<&[u8]> {
    let mut rest = head.strip_prefix(&[0xff, 0xd8])?;
    loop {
        let [0xff, marker, high, low, ..] = rest else { return None };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (segment, after) = rest[2..].split_at_checked(len)?;
        match marker {
            0xfe => return segment.get(2..),
            0xe0..=0xef => rest = after,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_note_is_found_behind_the_header_and_in_nothing_else() {
        let note = Note { lens: "road".into(), segment: "road-1-2".into(), ts: -5, clock: "ntp".into() };
        let jfif = [&[0xff, 0xd8, 0xff, 0xe0, 0, 6, 1, 2, 3, 4][..], &[0xff, 0xdb, 0, 2]].concat();
        let (at, comment) = note.place(&jfif);
        assert_eq!(at, 10);
        let whole = [&jfif[..at], &comment, &jfif[at..]].concat();
        assert_eq!(serde_json::from_slice::<Note>(find(&whole).unwrap()).unwrap(), note);
        assert_eq!(find(&jfif), None);
        for cut in 0..whole.len() {
            let _ = find(&whole[..cut]);
        }
        assert_eq!(note.place(&[0xff, 0xd8, 0xff, 0xdb]).0, 2);
        assert_eq!(note.place(&[]).0, 0);
    }
}
