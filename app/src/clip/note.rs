//! What a clip knows about itself: a small JSON text in a box of its `moov`.

use std::io;

use mos_hal::clock::UtcMicros;
use mos_hal::media::LensId;
use mos_mp4::Edges;
use mos_mp4::clip::{NOTE_OFFSET, note_len};
use serde::{Deserialize, Serialize};

use super::{Clip, ClipId};
use crate::archive::disk::DiskFile;
use crate::archive::{GapCause, GapRow, Window};

/// Longest note that is read.
const MOST: usize = 4 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    lens: String,
    exact: bool,
    frames: u32,
    asked: [i64; 2],
    shown: [i64; 2],
    payload: [i64; 2],
    gaps: Vec<(i64, i64, GapCause)>,
    /// What its media bytes were copied from, one after another; only while evidence is kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    copies: Vec<Copied>,
}

/// A range of a segment that a clip holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// The segment.
    pub segment: String,
    /// Where it begins there.
    pub from: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl Note {
    pub(super) fn of(clip: &Clip, copies: Vec<Copied>) -> Self {
        let pair = |w: Window| [w.from.0, w.to.0];
        Self {
            lens: clip.lens.to_string(),
            exact: clip.edges == Edges::Exact,
            frames: clip.frames,
            asked: pair(clip.asked),
            shown: pair(clip.shown),
            payload: pair(clip.payload),
            gaps: clip.gaps.iter().map(|g| (g.start_ts.0, g.end_ts.0, g.cause)).collect(),
            copies,
        }
    }

    /// What it was copied from.
    pub(super) fn copies(&self) -> &[Copied] {
        &self.copies
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // Plain numbers and texts: this cannot fail, and a clip without its note would still play.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The note in a file; `None` if it is no clip of this program.
    pub(super) fn read(file: &dyn DiskFile) -> io::Result<Option<Self>> {
        let mut header = [0; 24];
        let n = file.read_at(NOTE_OFFSET, &mut header)?;
        let Some(len) = note_len(&header[..n]).filter(|len| *len <= MOST) else { return Ok(None) };
        let mut text = vec![0; len];
        let n = file.read_at(NOTE_OFFSET + 24, &mut text)?;
        Ok(serde_json::from_slice(&text[..n]).ok())
    }

    pub(super) fn into_clip(self, id: ClipId, bytes: u64) -> Option<Clip> {
        let window = |[from, to]: [i64; 2]| Window { from: UtcMicros(from), to: UtcMicros(to) };
        let lens = LensId::new(&self.lens).ok()?;
        let gap = |(from, to, cause): &(i64, i64, GapCause)| GapRow {
            lens: lens.clone(),
            start_ts: UtcMicros(*from),
            end_ts: UtcMicros(*to),
            cause: *cause,
        };
        Some(Clip {
            id,
            path: id.path(),
            bytes,
            edges: if self.exact { Edges::Exact } else { Edges::Gop },
            frames: self.frames,
            asked: window(self.asked),
            shown: window(self.shown),
            payload: window(self.payload),
            gaps: self.gaps.iter().map(gap).collect(),
            lens,
        })
    }
}
