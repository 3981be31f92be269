//! How a closed segment is shown, as bytes that can be compared: its trailing `moov` but for where chunks lie.
//!
//! Leaving out dead boxes or media bytes without a sample moves chunks and renews the checksum, and nothing else. So whoever keeps a
//! hash of these bytes, and hashes of the samples, notices every change of what a player shows, whatever box it is in: edit
//! lists, time scales, sample entries, matrices, boxes that this program does not know.

use std::io;

use crate::boxes::{Children, FourCc};
use crate::close::{GUARD_LEN, SUMMARY_UUID};
use crate::read::{ReadAt, ReadError, SegmentFile, State, fill};

/// Boxes on the way to the places of chunks, each inside the one before: hostile files cannot nest deeper.
const CONTAINERS: [&FourCc; 4] = [b"trak", b"mdia", b"minf", b"stbl"];

/// The bytes to compare; `None` for a file whose close was not committed, or is damaged.
pub fn shape(file: &dyn ReadAt, content: &SegmentFile) -> io::Result<Option<Vec<u8>>> {
    if content.state != State::Closed {
        return Ok(None);
    }
    let at = content.end.saturating_add(GUARD_LEN as u64);
    let len = usize::try_from(content.used.saturating_sub(at)).map_err(io::Error::other)?;
    let mut moov = vec![0; len];
    let n = fill(file, at, &mut moov).map_err(|e| match e {
        ReadError::Io { source, .. } => source,
        other => io::Error::other(other),
    })?;
    let mut told = Vec::with_capacity(n);
    tell(moov.get(8..n).unwrap_or(&[]), 0, &mut told);
    Ok(Some(told))
}

/// Appends boxes with their lengths, so that no two lists give the same bytes.
fn tell(body: &[u8], depth: usize, told: &mut Vec<u8>) {
    let mut children = Children::new(body);
    for (kind, body) in children.by_ref() {
        let begun = told.len();
        told.extend_from_slice(&kind);
        told.extend_from_slice(&[0; 8]);
        match &kind {
            kind if CONTAINERS.get(depth) == Some(&kind) => tell(body, depth + 1, told),
            // Version, flags and count.
            b"stco" | b"co64" => told.extend_from_slice(body.get(..8).unwrap_or(body)),
            b"uuid" if body.starts_with(&SUMMARY_UUID) => {
                told.extend_from_slice(&SUMMARY_UUID);
                // Behind the checksum.
                told.extend_from_slice(body.get(20..).unwrap_or(&[]));
            }
            _ => told.extend_from_slice(body),
        }
        let len = (told.len() - begun) as u64;
        told[begun + 4..begun + 12].copy_from_slice(&len.to_be_bytes());
    }
    if children.broken() {
        told.extend_from_slice(b"rest");
        told.extend_from_slice(body);
    }
}
