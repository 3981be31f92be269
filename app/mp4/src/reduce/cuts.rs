//! Ranges of a file, and where a byte comes to lie when some of them are left out.

use std::ops::Range;

/// Ranges in any order; those that continue the last one grow it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    list: Vec<Range<u64>>,
}

impl Ranges {
    /// Adds a range; an empty one is nothing.
    pub(super) fn push(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        match self.list.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => self.list.push(start..end),
        }
    }

    /// Bytes in all, if none overlap.
    pub(super) fn total(&self) -> u64 {
        self.list.iter().map(|r| r.end - r.start).sum()
    }

    /// In order, without overlaps.
    pub(super) fn merged(&self) -> Vec<Range<u64>> {
        let mut sorted = self.list.clone();
        sorted.sort_unstable_by_key(|r| r.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        merged
    }
}

/// What is left out.
#[derive(Debug)]
pub(super) struct Cuts {
    /// In order, disjoint.
    list: Vec<Range<u64>>,
    /// Bytes left out before each of them.
    before: Vec<u64>,
}

impl Cuts {
    pub(super) fn new(mut free: Ranges, dead: Ranges) -> Self {
        free.list.extend(dead.list);
        let list = free.merged();
        let mut sum = 0;
        let before = list
            .iter()
            .map(|r| {
                let so_far = sum;
                sum += r.end - r.start;
                so_far
            })
            .collect();
        Self { list, before }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.list.iter()
    }

    /// The cuts within `range`, which none may cross.
    pub(super) fn within(&self, range: Range<u64>) -> &[Range<u64>] {
        let from = self.list.partition_point(|r| r.start < range.start);
        let to = self.list.partition_point(|r| r.start < range.end);
        self.list.get(from..to).unwrap_or(&[])
    }

    /// Where the byte at `place` comes to lie; of one that is left out, where the next that stays does.
    pub(super) fn map(&self, place: u64) -> u64 {
        let after = self.list.partition_point(|r| r.start < place);
        let Some(last) = after.checked_sub(1) else { return place };
        let (Some(cut), Some(before)) = (self.list.get(last), self.before.get(last)) else { return place };
        place - before - (place.min(cut.end) - cut.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_move_by_what_is_left_out_before_them() {
        let (mut free, mut dead) = (Ranges::default(), Ranges::default());
        free.push(10, 20);
        dead.push(20, 25);
        dead.push(40, 41);
        let cuts = Cuts::new(free, dead);
        let moved = [0, 10, 15, 25, 26, 40, 41, 1000].map(|p| cuts.map(p));
        assert_eq!(moved, [0, 10, 10, 10, 11, 25, 25, 984]);
        assert_eq!(cuts.within(10..41).len(), 2);
        assert_eq!(cuts.within(11..40).len(), 0);
    }
}
