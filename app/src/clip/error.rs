//! Why there is no clip, with the stable kind that the API shows.

use mos_mp4::{ClipError, ReadError};

use crate::archive::ArchiveError;
use crate::archive::ids::SegmentId;
use crate::error::Kind;

/// Why a clip was not cut or is not there.
#[derive(Debug, thiserror::Error)]
pub enum ClipFailure {
    /// The range is empty, beyond the segment, or too long.
    #[error("{0}")]
    BadRange(String),
    /// Nothing was recorded in the range.
    #[error("nothing was recorded in this range; `mos segments` lists what there is, with the gaps")]
    NoFootage,
    /// The format changes within the range.
    #[error("the picture's format changes within the range; ask for the parts before and after each split point")]
    SplitNeeded {
        /// First moments of the new formats, UTC microseconds, ascending.
        at: Vec<i64>,
    },
    /// No such clip.
    #[error("there is no clip '{0}'")]
    NoClip(String),
    /// A newer version of MOS wrote the segment.
    #[error("segment {0} was written by a newer version of MOS; update, or copy the file as it is")]
    Newer(SegmentId),
    /// A segment's file cannot be understood.
    #[error("segment {id} cannot be read: {error}; run `mos check ROOT`")]
    Unreadable {
        /// The segment.
        id: SegmentId,
        /// What is wrong.
        error: ReadError,
    },
    /// The plan found the tables of a segment wanting.
    #[error("cannot cut: {0}")]
    Unplannable(ClipError),
    /// The archive or the disk said no.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl ClipFailure {
    pub(super) fn from_plan(error: ClipError) -> Self {
        match error {
            ClipError::BadRange(_) => Self::BadRange("the range is empty or longer than a year".to_owned()),
            ClipError::Nothing(_) => Self::NoFootage,
            ClipError::SplitNeeded { at } => {
                Self::SplitNeeded { at: at.into_iter().map(|ns| ns.div_euclid(1000)).collect() }
            }
            ClipError::Overlap { .. } | ClipError::Damaged { .. } => Self::Unplannable(error),
        }
    }

    /// The stable kind in the API.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::BadRange(_) => Kind::BadRequest,
            Self::NoFootage => Kind::NoFootage,
            Self::SplitNeeded { .. } => Kind::FormatChange,
            Self::NoClip(_) | Self::Archive(ArchiveError::NotFound(_)) => Kind::NotFound,
            Self::Archive(ArchiveError::StillListing(_)) => Kind::NotReady,
            Self::Newer(_) => Kind::Newer,
            Self::Archive(ArchiveError::Io { .. }) => Kind::Storage,
            Self::Unreadable { .. } | Self::Unplannable(_) | Self::Archive(_) => Kind::Internal,
        }
    }

    /// Where to split the range, UTC microseconds; only for [`ClipFailure::SplitNeeded`].
    #[must_use]
    pub fn split_points(&self) -> &[i64] {
        match self {
            Self::SplitNeeded { at } => at,
            _ => &[],
        }
    }
}
