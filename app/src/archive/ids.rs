//! Names that stay: runs, sequence numbers and segment ids. They never depend on the wall clock.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use mos_hal::media::LensId;

/// One life of the recorder on one boot, numbered from 1 over the life of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u32);

/// A segment's number within its lens and run, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u32);

/// `{lens}-{run}-{seq}`: stable for ever, never reused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// The lens.
    pub lens: LensId,
    /// The run.
    pub run: RunId,
    /// The number within the run.
    pub seq: Seq,
}

/// Text that is no segment id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no segment id: use LENS-RUN-SEQ as `mos segments` prints it")]
pub struct BadSegmentId(pub String);

impl SegmentId {
    /// `segments/{lens}/{run}`, relative to the archive's root.
    #[must_use]
    pub fn run_dir(lens: &LensId, run: RunId) -> PathBuf {
        PathBuf::from(format!("segments/{lens}/{}", run.0))
    }

    /// `segments/{lens}/{run}/{seq}.mp4`, relative to the archive's root.
    #[must_use]
    pub fn media_path(&self) -> PathBuf {
        Self::run_dir(&self.lens, self.run).join(format!("{}.mp4", self.seq.0))
    }

    /// `segments/{lens}/{run}/{seq}.keep`, relative to the archive's root.
    #[must_use]
    pub fn keep_path(&self) -> PathBuf {
        Self::run_dir(&self.lens, self.run).join(format!("{}.keep", self.seq.0))
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.lens, self.run.0, self.seq.0)
    }
}

impl FromStr for SegmentId {
    type Err = BadSegmentId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadSegmentId(text.to_owned());
        let mut parts = text.rsplitn(3, '-');
        let seq = number(parts.next().ok_or_else(bad)?).ok_or_else(bad)?;
        let run = number(parts.next().ok_or_else(bad)?).ok_or_else(bad)?;
        let lens = LensId::new(parts.next().ok_or_else(bad)?).map_err(|_| bad())?;
        Ok(Self { lens, run: RunId(run), seq: Seq(seq) })
    }
}

/// A decimal number in its one canonical spelling, so that an id has one text only.
pub(crate) fn number(text: &str) -> Option<u32> {
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    if canonical { text.parse().ok() } else { None }
}
