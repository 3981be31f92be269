//! What an index needs from a file, in two short reads: the fixed head, and the beginning of the trailing `moov`.
//!
//! Cheap enough for every file of a large archive. Checks little: a file that matters more is read by
//! [`SegmentFile::read`](crate::SegmentFile::read).

use crate::boxes::{BoxHeader, Fields, FourCc};
use crate::close::{SEAL_AT, SUMMARY_TRACK_LEN, SUMMARY_TRACKS, SUMMARY_UUID};
use crate::identity::{FORMAT_VERSION, Identity};
use crate::layout::FREE_OFFSET;
use crate::read::{Head, ReadAt, ReadError, State, fill};
use crate::time::{MOVIE_TIMESCALE, Ticks, Timescale};

/// One track, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackSummary {
    /// Track id.
    pub id: u32,
    /// `avc1`, `hvc1`, `mp4a`, `alaw` or `ulaw`.
    pub codec: FourCc,
    /// Width in pixels, or samples per second.
    pub width_or_rate: u32,
    /// Height in pixels, or channels.
    pub height_or_channels: u32,
    /// Number of samples.
    pub samples: u32,
    /// Number of sync samples.
    pub syncs: u32,
    /// Bytes of all samples.
    pub bytes: u64,
    /// Decode time of the first sample.
    pub first_dts: Ticks,
    /// End of presentation.
    pub presentation_end: Ticks,
    /// Ticks per second of both.
    pub timescale: Timescale,
    /// By how much composition offsets in the `moov` are larger than in the fragments, in ticks.
    pub composition_shift: u32,
}

impl TrackSummary {
    pub(crate) fn parse(f: &mut Fields<'_>) -> Option<Self> {
        let mut f = Fields::new(f.take(SUMMARY_TRACK_LEN)?);
        Some(Self {
            id: f.u32()?,
            codec: f.array()?,
            width_or_rate: f.u32()?,
            height_or_channels: f.u32()?,
            samples: f.u32()?,
            syncs: f.u32()?,
            bytes: f.u64()?,
            first_dts: f.i64()?,
            presentation_end: f.i64()?,
            timescale: Timescale::new(f.u32()?)?,
            composition_shift: f.u32()?,
        })
    }

    /// Whether it carries pictures.
    #[must_use]
    pub fn is_video(&self) -> bool {
        matches!(&self.codec, b"avc1" | b"hvc1")
    }
}

/// A segment, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Who it is; its version may be newer than ours.
    pub identity: Identity,
    /// [`State::Closed`], or [`State::Open`] for anything that needs recovery, or that is newer and not to be touched.
    pub state: State,
    /// Length of the file.
    pub file_len: u64,
    /// First shown moment on the segment's timeline, nanoseconds after the identity's monotonic start.
    pub shown_from: i64,
    /// Shown duration in nanoseconds; 0 unless closed.
    pub duration: i64,
    /// The tracks; none unless closed.
    pub tracks: Vec<TrackSummary>,
}

impl Summary {
    /// The first video track.
    #[must_use]
    pub fn video(&self) -> Option<&TrackSummary> {
        self.tracks.iter().find(|t| t.is_video())
    }

    /// Whether the file is of a newer format than this program knows.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        self.identity.version > FORMAT_VERSION
    }

    /// Reads the summary of `file`.
    pub fn read(file: &dyn ReadAt) -> Result<Self, ReadError> {
        let head = Head::read(file)?;
        let newer = head.identity.version > FORMAT_VERSION;
        let short = match head.mdat.filter(|_| !newer) {
            Some(size) => trailing(file, FREE_OFFSET.saturating_add(size), head.file_len)?,
            None => None,
        };
        let state = if short.is_some() { State::Closed } else { State::Open };
        let (shown_from, duration, tracks) = short.unwrap_or_default();
        Ok(Self {
            identity: head.identity,
            state,
            file_len: head.file_len,
            shown_from: MOVIE_TIMESCALE.nanos(shown_from),
            duration: MOVIE_TIMESCALE.nanos(duration),
            tracks,
        })
    }
}

/// The summary box of the `moov` at `at`; `None` if there is none or it is cut short.
fn trailing(file: &dyn ReadAt, at: u64, file_len: u64) -> Result<Option<(Ticks, Ticks, Vec<TrackSummary>)>, ReadError> {
    const FIXED: usize = SEAL_AT + 24;
    let mut buf = [0; FIXED + SUMMARY_TRACKS * SUMMARY_TRACK_LEN];
    let n = fill(file, at, &mut buf)?;
    let parsed = || {
        let bytes = buf.get(..n)?;
        let whole = BoxHeader::parse(bytes).filter(|h| h.kind == *b"moov").and_then(|h| h.size)?;
        (at.checked_add(whole)? <= file_len).then_some(())?;
        (bytes.get(SEAL_AT - 16..SEAL_AT)? == SUMMARY_UUID).then_some(())?;
        let mut f = Fields::new(bytes.get(SEAL_AT + 4..)?);
        let count = f.u32().filter(|n| *n as usize <= SUMMARY_TRACKS)?;
        let (shown_from, duration) = (f.i64()?, f.i64()?);
        let tracks: Option<Vec<_>> = (0..count).map(|_| TrackSummary::parse(&mut f)).collect();
        Some((shown_from, duration, tracks?))
    };
    Ok(parsed())
}
