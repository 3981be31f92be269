//! The sample table of one track, in memory: 12 bytes a sample and 32 a chunk.
//!
//! The recorder fills one per track while it writes, the reader fills one from a file, close and clip read them. Samples
//! stand in decoding order; a chunk is a run of samples that lie one behind the other in the file under one sample entry.

use crate::time::Ticks;

/// One sample, as the table gives it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Where its bytes begin.
    pub offset: u64,
    /// Its bytes; less than 2^31.
    pub size: u32,
    /// Decode time in ticks since the segment's start.
    pub dts: Ticks,
    /// Ticks until the next sample's decode time.
    pub duration: u32,
    /// Presentation minus decode time.
    pub cts: i32,
    /// Whether decoding may start here.
    pub sync: bool,
    /// Number of the sample entry, from 1.
    pub description: u32,
}

impl Sample {
    /// Presentation time in ticks.
    #[must_use]
    pub fn pts(&self) -> Ticks {
        self.dts + Ticks::from(self.cts)
    }

    /// First byte behind the sample.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.size)
    }
}

/// Why a sample was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// M3.
    #[error("sample {index} is decoded at {dts}, before its predecessor at {previous}")]
    TimeRunsBackwards {
        /// Number of the sample, from 0.
        index: usize,
        /// Its decode time.
        dts: Ticks,
        /// The one before.
        previous: Ticks,
    },
    /// A field is beyond what a file can hold.
    #[error("sample {index}: {what} is out of range")]
    OutOfRange {
        /// Number of the sample, from 0.
        index: usize,
        /// The field.
        what: &'static str,
    },
}

/// Samples of a track in decoding order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SampleTable {
    entries: Vec<Entry>,
    chunks: Vec<Chunk>,
    last_dts: Ticks,
    last_duration: u32,
    last_pts: Ticks,
    next_offset: u64,
    bytes: u64,
    syncs: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// Size in the low 31 bits, sync in the high one.
    size_and_sync: u32,
    /// Decode time since the chunk's previous sample; 0 for its first.
    delta: u32,
    cts: i32,
}

/// A run of samples that lie one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where its bytes begin.
    pub offset: u64,
    /// Decode time of its first sample.
    pub dts: Ticks,
    /// Number of its first sample, from 0.
    pub first: u32,
    /// Number of the sample entry, from 1.
    pub description: u32,
}

const SYNC: u32 = 1 << 31;

/// Decode times beyond this are refused, so that no sum of times can overflow. 400,000 years at 90 kHz.
const MAX_TICKS: u64 = 1 << 60;

impl SampleTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a sample; its predecessor's duration becomes the distance of their decode times.
    pub fn push(&mut self, s: Sample) -> Result<(), TableError> {
        let index = self.entries.len();
        let out = |what| TableError::OutOfRange { index, what };
        if s.size >= SYNC {
            return Err(out("size"));
        }
        let end = s.offset.checked_add(u64::from(s.size)).ok_or(out("offset"))?;
        if s.dts.unsigned_abs() > MAX_TICKS {
            return Err(out("decode time"));
        }
        let pts = s.pts();
        let first = u32::try_from(index).ok().filter(|n| *n < u32::MAX).ok_or(out("count"))?;
        let previous = self.last_dts;
        if index > 0 && s.dts < previous {
            return Err(TableError::TimeRunsBackwards { index, dts: s.dts, previous });
        }
        let joined = self.chunks.last().filter(|c| index > 0 && c.description == s.description);
        let delta = joined
            .filter(|_| self.next_offset == s.offset)
            .and_then(|_| u32::try_from(s.dts.checked_sub(previous)?).ok());
        if delta.is_none() {
            self.chunks.push(Chunk { offset: s.offset, dts: s.dts, first, description: s.description });
        }
        self.entries.push(Entry {
            size_and_sync: s.size | if s.sync { SYNC } else { 0 },
            delta: delta.unwrap_or(0),
            cts: s.cts,
        });
        self.last_pts = if index == 0 { pts } else { self.last_pts.max(pts) };
        self.last_dts = s.dts;
        self.last_duration = s.duration;
        self.next_offset = end;
        self.bytes += u64::from(s.size);
        self.syncs += u32::from(s.sync);
        Ok(())
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all samples.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of sync samples.
    #[must_use]
    pub fn sync_count(&self) -> u32 {
        self.syncs
    }

    /// Decode time of the first sample, 0 if there is none.
    #[must_use]
    pub fn first_dts(&self) -> Ticks {
        self.chunks.first().map_or(0, |c| c.dts)
    }

    /// Decode time of the last sample, 0 if there is none.
    #[must_use]
    pub fn last_dts(&self) -> Ticks {
        self.last_dts
    }

    /// Decode time at which the last sample ends.
    #[must_use]
    pub fn end(&self) -> Ticks {
        self.last_dts + Ticks::from(self.last_duration)
    }

    /// When the last shown sample stops being shown.
    #[must_use]
    pub fn presentation_end(&self) -> Ticks {
        self.last_pts + Ticks::from(self.last_duration)
    }

    /// Makes the last sample last longer or shorter, for instance once its successor in another file is known.
    pub fn set_last_duration(&mut self, duration: u32) {
        self.last_duration = duration;
    }

    /// The runs of samples, in decoding order.
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// How many samples chunk number `index` has.
    #[must_use]
    pub fn chunk_len(&self, index: usize) -> u32 {
        let end = self.chunks.get(index + 1).map_or(self.entries.len() as u32, |c| c.first);
        self.chunks.get(index).map_or(0, |c| end - c.first)
    }

    /// All samples in decoding order.
    #[must_use]
    pub fn iter(&self) -> Samples<'_> {
        self.iter_from(0)
    }

    /// Samples from number `index` on.
    #[must_use]
    pub fn iter_from(&self, index: usize) -> Samples<'_> {
        let chunk = self.chunks.partition_point(|c| c.first as usize <= index).saturating_sub(1);
        let mut samples = Samples { table: self, index: 0, chunk: 0, offset: 0, dts: 0 };
        if let Some(c) = self.chunks.get(chunk) {
            samples = Samples { table: self, index: c.first as usize, chunk, offset: c.offset, dts: c.dts };
            while samples.index < index && samples.next().is_some() {}
        }
        samples
    }

    /// Sample number `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Sample> {
        self.iter_from(index).next()
    }

    /// Heap bytes held.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.chunks.capacity() * size_of::<Chunk>()
    }
}

impl<'a> IntoIterator for &'a SampleTable {
    type Item = Sample;
    type IntoIter = Samples<'a>;

    fn into_iter(self) -> Samples<'a> {
        self.iter()
    }
}

/// Iterator over samples in decoding order.
#[derive(Clone, Debug)]
pub struct Samples<'a> {
    table: &'a SampleTable,
    /// Of the next sample.
    index: usize,
    /// Chunk of the next sample.
    chunk: usize,
    /// Where the next sample begins, if it is in this chunk.
    offset: u64,
    /// Decode time of the next sample.
    dts: Ticks,
}

impl Iterator for Samples<'_> {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        let t = self.table;
        let entry = t.entries.get(self.index)?;
        let chunk = t.chunks.get(self.chunk)?;
        let (offset, dts) = (self.offset, self.dts);
        let size = entry.size_and_sync & !SYNC;
        self.index += 1;
        let next_chunk = t.chunks.get(self.chunk + 1).filter(|c| c.first as usize == self.index);
        let next_dts = if let Some(c) = next_chunk {
            self.chunk += 1;
            self.offset = c.offset;
            c.dts
        } else {
            self.offset = offset + u64::from(size);
            t.entries.get(self.index).map_or(t.end(), |e| dts + Ticks::from(e.delta))
        };
        self.dts = next_dts;
        Some(Sample {
            offset,
            size,
            dts,
            duration: u32::try_from(next_dts - dts).unwrap_or(u32::MAX),
            cts: entry.cts,
            sync: entry.size_and_sync & SYNC != 0,
            description: chunk.description,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.table.entries.len().saturating_sub(self.index);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Samples<'_> {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_pushed_comes_out(raw in prop::collection::vec((0_u32..100_000, 0_u64..2, 0_u32..9000, -9000_i32..9000, any::<bool>(), 1_u32..3), 1..80)) {
            let (mut t, mut expected) = (SampleTable::new(), Vec::new());
            let (mut offset, mut dts) = (200_u64, 0);
            for (size, hole, duration, cts, sync, description) in raw {
                offset += hole * 24;
                let s = Sample { offset, size, dts, duration, cts, sync, description };
                t.push(s).unwrap();
                expected.push(s);
                offset += u64::from(size);
                dts += Ticks::from(duration);
            }
            prop_assert_eq!(t.iter().collect::<Vec<_>>(), expected.clone());
            for (i, s) in expected.iter().enumerate() {
                prop_assert_eq!(t.get(i), Some(*s));
            }
            prop_assert_eq!(t.get(expected.len()), None);
            prop_assert_eq!((0..t.chunks().len()).map(|c| t.chunk_len(c) as usize).sum::<usize>(), expected.len());
        }
    }

    #[test]
    fn an_hour_stays_small() {
        let mut t = SampleTable::new();
        let mut offset = 0;
        for i in 0..108_000_i64 {
            offset += if i % 15 == 0 { 300 } else { 0 };
            t.push(Sample {
                offset,
                size: 20_000,
                dts: i * 3000,
                duration: 3000,
                cts: 0,
                sync: i % 30 == 0,
                description: 1,
            })
            .unwrap();
            offset += 20_000;
        }
        assert!(t.memory() <= 24 * t.len() + 4096, "{} bytes for {} samples", t.memory(), t.len());
        assert_eq!(t.end(), 3600 * 90_000);
    }

    #[test]
    fn m3_time_must_not_run_backwards() {
        let mut t = SampleTable::new();
        let s = Sample { offset: 0, size: 1, dts: 10, duration: 1, cts: 0, sync: true, description: 1 };
        t.push(s).unwrap();
        assert_eq!(
            t.push(Sample { dts: 9, ..s }),
            Err(TableError::TimeRunsBackwards { index: 1, dts: 9, previous: 10 })
        );
        assert!(t.push(Sample { offset: u64::MAX, dts: 11, ..s }).is_err());
    }
}
