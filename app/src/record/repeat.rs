//! The group of pictures before a border, kept to be repeated for sources without clean entry points (splitter's B2).
//!
//! Costs memory only for such sources, and never more than its bound: a longer group is not repeated.

use mos_hal::media::FrameKind;

use super::intake::is_entry;
use super::segment_file::Timed;

/// Most bytes of one group.
const LIMIT: usize = 8 << 20;

#[derive(Debug, Default)]
pub(crate) struct Repeat {
    open_source: bool,
    group: Vec<Timed>,
    bytes: usize,
    too_large: bool,
}

impl Repeat {
    /// Sees a unit that was recorded; `clean` if its segment has shown clean entry points.
    pub(crate) fn see(&mut self, timed: &Timed, clean: bool) {
        if clean {
            *self = Self::default();
            return;
        }
        self.open_source |= matches!(timed.unit.kind, FrameKind::Rasl | FrameKind::RecoveryPoint);
        if !self.open_source && !is_entry(timed.unit.kind) {
            return;
        }
        if is_entry(timed.unit.kind) {
            self.clear();
        } else if self.group.is_empty() {
            return;
        }
        self.bytes += timed.unit.data.len();
        self.too_large |= self.bytes > LIMIT;
        if self.too_large {
            self.group.clear();
        } else {
            self.group.push(timed.clone());
        }
    }

    /// Whether a whole group up to now is at hand.
    pub(crate) fn is_ready(&self) -> bool {
        self.open_source && !self.group.is_empty()
    }

    /// Whether the source was seen to have open groups only.
    pub(crate) fn is_open_source(&self) -> bool {
        self.open_source
    }

    /// The group without its leading pictures, which refer to what came before it.
    pub(crate) fn take(&mut self) -> Vec<Timed> {
        let group = std::mem::take(&mut self.group);
        self.clear();
        let Some(first) = group.first().map(|t| t.pts) else { return group };
        group.into_iter().filter(|t| t.pts >= first).collect()
    }

    /// Forgets the group, not what kind of source it is.
    pub(crate) fn clear(&mut self) {
        self.group.clear();
        self.bytes = 0;
        self.too_large = false;
    }
}
