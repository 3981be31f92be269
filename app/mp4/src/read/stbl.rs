//! `stbl` to [`SampleTable`]. Counts are believed only as far as the boxes have bytes for them (M6).

use std::ops::Range;

use crate::boxes::{Fields, child};
use crate::summary::TrackSummary;
use crate::table::{Sample, SampleTable};
use crate::time::Ticks;

/// Reads all samples; decode times begin where the summary says. `None` if the boxes contradict each other or name bytes outside
/// `payload` or sample entries beyond `entries`.
pub(super) fn parse(stbl: &[u8], summary: &TrackSummary, entries: usize, payload: Range<u64>) -> Option<SampleTable> {
    let sizes = Rows::<4>::open(stbl, *b"stsz", 8)?;
    let mut durations = Runs::open(stbl, *b"stts")?;
    let mut offsets_cts = match child(stbl, *b"ctts") {
        Some(_) => Some(Runs::open(stbl, *b"ctts")?),
        None => None,
    };
    let mut syncs = match child(stbl, *b"stss") {
        Some(_) => Some(Rows::<4>::open(stbl, *b"stss", 4)?.peekable()),
        None => None,
    };
    let mut chunks = ChunkRows::open(stbl)?;
    let mut table = SampleTable::new();
    let (mut dts, mut offset, mut left, mut description) = (summary.first_dts, 0_u64, 0_u32, 1_u32);
    for (i, size) in sizes.enumerate() {
        while left == 0 {
            (offset, left, description) = chunks.next()?;
        }
        left -= 1;
        let size = u32::from_be_bytes(size);
        let duration = durations.next()?;
        let moved = match &mut offsets_cts {
            Some(runs) => runs.next()?,
            None => 0,
        };
        let cts = i32::try_from(i64::from(moved) - i64::from(summary.composition_shift)).ok()?;
        let sync = match &mut syncs {
            Some(rows) => rows.next_if(|n| u32::from_be_bytes(*n) as usize == i + 1).is_some(),
            None => true,
        };
        let sample = Sample { offset, size, dts, duration, cts, sync, description };
        let inside = offset >= payload.start && offset.checked_add(u64::from(size))? <= payload.end;
        (inside && (1..=entries).contains(&(description as usize))).then_some(())?;
        table.push(sample).ok()?;
        offset += u64::from(size);
        dts = dts.checked_add(Ticks::from(duration))?;
    }
    let spent = left == 0 && chunks.next().is_none() && durations.next().is_none();
    let syncs_spent = syncs.is_none_or(|mut rows| rows.next().is_none());
    (spent && syncs_spent).then_some(table)
}

/// Fixed-size rows behind a 32-bit count that the box has enough bytes for.
#[derive(Debug)]
struct Rows<'a, const N: usize> {
    rows: std::slice::Iter<'a, [u8; N]>,
}

impl<'a, const N: usize> Rows<'a, N> {
    /// Opens box `kind`; the count is in the four bytes before the rows, which begin `head` bytes behind the flags
    /// (`stsz` has a common sample size before its count, which must be 0).
    fn open(stbl: &'a [u8], kind: [u8; 4], head: usize) -> Option<Self> {
        let body = child(stbl, kind)?.get(4..)?;
        let (fixed, rows) = body.split_at_checked(head)?;
        let (common, count) = fixed.split_at_checked(head - 4)?;
        common.iter().all(|b| *b == 0).then_some(())?;
        let count = u32::from_be_bytes(count.try_into().ok()?) as usize;
        let (rows, rest) = rows.as_chunks::<N>();
        (rows.len() == count && rest.is_empty()).then_some(Self { rows: rows.iter() })
    }
}

impl<const N: usize> Iterator for Rows<'_, N> {
    type Item = [u8; N];

    fn next(&mut self) -> Option<[u8; N]> {
        self.rows.next().copied()
    }
}

/// (run length, value) pairs, spelled out one by one.
#[derive(Debug)]
struct Runs<'a> {
    rows: Rows<'a, 8>,
    left: u32,
    value: u32,
}

impl<'a> Runs<'a> {
    fn open(stbl: &'a [u8], kind: [u8; 4]) -> Option<Self> {
        Some(Self { rows: Rows::open(stbl, kind, 4)?, left: 0, value: 0 })
    }

    fn next(&mut self) -> Option<u32> {
        while self.left == 0 {
            let row = self.rows.next()?;
            let mut f = Fields::new(&row);
            (self.left, self.value) = (f.u32()?, f.u32()?);
        }
        self.left -= 1;
        Some(self.value)
    }
}

/// Chunks with their offsets, lengths in samples and sample entries: `stsc` laid over `stco` or `co64`.
struct ChunkRows<'a> {
    offsets32: Option<Rows<'a, 4>>,
    offsets64: Option<Rows<'a, 8>>,
    spans: std::iter::Peekable<Rows<'a, 12>>,
    number: u32,
    span: (u32, u32),
}

impl<'a> ChunkRows<'a> {
    fn open(stbl: &'a [u8]) -> Option<Self> {
        let offsets64 = match child(stbl, *b"co64") {
            Some(_) => Some(Rows::open(stbl, *b"co64", 4)?),
            None => None,
        };
        let offsets32 = if offsets64.is_none() { Some(Rows::open(stbl, *b"stco", 4)?) } else { None };
        let spans = Rows::open(stbl, *b"stsc", 4)?.peekable();
        Some(Self { offsets32, offsets64, spans, number: 0, span: (0, 0) })
    }

    /// Offset, samples and sample entry of the next chunk.
    fn next(&mut self) -> Option<(u64, u32, u32)> {
        let offset = match (&mut self.offsets64, &mut self.offsets32) {
            (Some(rows), _) => u64::from_be_bytes(rows.next()?),
            (None, Some(rows)) => u64::from(u32::from_be_bytes(rows.next()?)),
            (None, None) => return None,
        };
        self.number = self.number.checked_add(1)?;
        let number = self.number;
        if let Some(row) = self.spans.next_if(|row| row[..4] == number.to_be_bytes()) {
            let mut f = Fields::new(&row[4..]);
            self.span = (f.u32()?, f.u32()?);
        }
        Some((offset, self.span.0, self.span.1))
    }
}
