//! Sample tables of a `moov`: which bytes of the file its samples are.
//!
//! Counts are believed only as far as the boxes have bytes for them; common sizes are multiplied, never spelled out (D5).

use super::tree::{Node, Tree};
use super::{Live, ReduceError};
use crate::boxes::{Children, Fields};

/// Enters what the samples of all tracks refer to, the defaults of fragments, and what stands in the way.
pub(super) fn survey(tree: &Tree, live: &mut Live) -> Result<(), ReduceError> {
    obstacles(tree, live);
    let tracks: Vec<usize> = tree.children(0, *b"trak").map(|(i, _)| i).collect();
    for trak in tracks {
        track(tree, trak, live)?;
    }
    for (mvex, _) in tree.children(0, *b"mvex") {
        for (_, trex) in tree.children(mvex, *b"trex") {
            let fields =
                default_size(tree.body(trex)).ok_or_else(|| tree.malformed(trex, "a trex that is cut short"))?;
            live.defaults.push(fields);
        }
    }
    live.defaults.sort_unstable();
    Ok(())
}

/// Boxes anywhere in `tree` that name places in a way that is not followed here.
pub(super) fn obstacles(tree: &Tree, live: &mut Live) {
    for node in &tree.nodes {
        let at = tree.place(node.start);
        match &node.kind {
            b"cmov" => live.obstruct(at, "the moov is compressed"),
            b"iloc" if tree.body(node).get(8..).is_some_and(|items| !items.is_empty()) => {
                live.obstruct(at, "an iloc box, whose items may lie anywhere");
            }
            b"gps " => live.obstruct(at, "a 'gps ' box, whose data may lie in free boxes"),
            _ => {}
        }
    }
}

/// Track and default sample size of a `trex`.
fn default_size(body: &[u8]) -> Option<(u32, u32)> {
    let mut f = Fields::new(body);
    f.u32()?;
    let track = f.u32()?;
    f.take(8)?;
    Some((track, f.u32()?))
}

/// The place of a track's `stbl`, if it has one.
pub(super) fn sample_table(tree: &Tree, trak: usize) -> Result<Option<usize>, ReduceError> {
    let mut at = trak;
    for kind in [b"mdia", b"minf", b"stbl"] {
        match tree.only(at, *kind)? {
            Some((i, _)) => at = i,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

fn track(tree: &Tree, trak: usize, live: &mut Live) -> Result<(), ReduceError> {
    let Some(stbl) = sample_table(tree, trak)? else { return Ok(()) };
    for (_, saio) in tree.children(stbl, *b"saio") {
        for place in aux_places(tree.body(saio)).ok_or_else(|| tree.malformed(saio, "a saio that is cut short"))?.1 {
            if !tree.range().contains(&place) {
                live.obstruct(tree.place(saio.start), "auxiliary sample data outside of the moov");
            }
        }
    }
    let Some((chunk_box, chunks)) = Chunks::open(tree, stbl)? else { return Ok(()) };
    if chunks.len() == 0 {
        return Ok(());
    }
    let malformed = |what| tree.malformed(chunk_box, what);
    if elsewhere(tree, stbl)? {
        live.obstruct(tree.place(chunk_box.start), "a track whose samples lie in another file");
        return Ok(());
    }
    let (_, stsc) = tree.only(stbl, *b"stsc")?.ok_or(malformed("chunks without stsc"))?;
    let mut spans = Spans::open(tree.body(stsc)).ok_or(tree.malformed(stsc, "an stsc that contradicts itself"))?;
    let (size_box, mut sizes) = Sizes::open(tree, stbl)?.ok_or(malformed("chunks without sample sizes"))?;
    if sizes.may_be_units() && is_sound(tree, trak) {
        live.all = true;
    }
    for (number, offset) in (1_u32..).zip(chunks.iter()) {
        let count = spans.of(number).ok_or(tree.malformed(stsc, "stsc does not fit the number of chunks"))?;
        let len = sizes.next(count).ok_or(tree.malformed(size_box, "fewer samples than the chunks hold"))?;
        let end = offset.checked_add(len).ok_or(malformed("a chunk that ends nowhere"))?;
        live.ranges.push(offset, end);
    }
    if sizes.left() > 0 {
        return Err(tree.malformed(size_box, "more samples than the chunks hold"));
    }
    Ok(())
}

/// Whether a track may count its samples in units of its own, as QuickTime does with sound; a track that does not say what
/// it is may be sound.
fn is_sound(tree: &Tree, trak: usize) -> bool {
    let hdlr = tree.children(trak, *b"mdia").find_map(|(mdia, _)| tree.children(mdia, *b"hdlr").next());
    hdlr.is_none_or(|(_, n)| tree.body(n).get(8..12) == Some(b"soun"))
}

/// Whether any of a track's samples may lie in another file.
fn elsewhere(tree: &Tree, stbl: usize) -> Result<bool, ReduceError> {
    let Some(minf) = tree.parent(stbl) else { return Ok(false) };
    let Some((dinf, _)) = tree.only(minf, *b"dinf")? else { return Ok(false) };
    let Some((_, dref)) = tree.only(dinf, *b"dref")? else { return Ok(false) };
    let entries = tree.body(dref).get(8..).ok_or_else(|| tree.malformed(dref, "a dref that is cut short"))?;
    // Flag 1: in this file.
    Ok(Children::new(entries).any(|(_, entry)| entry.get(3).is_none_or(|flags| flags & 1 == 0)))
}

/// Where an `stco` or `co64` says that chunks begin.
pub(super) enum Chunks<'a> {
    Short(&'a [[u8; 4]]),
    Long(&'a [[u8; 8]]),
}

impl<'a> Chunks<'a> {
    /// Those of the one that `stbl` has.
    pub(super) fn open(tree: &'a Tree, stbl: usize) -> Result<Option<(&'a Node, Self)>, ReduceError> {
        let (short, long) = (tree.only(stbl, *b"stco")?, tree.only(stbl, *b"co64")?);
        let (node, chunks) = match (short, long) {
            (None, None) => return Ok(None),
            (Some((_, node)), None) => (node, rows(tree.body(node)).map(Self::Short)),
            (None, Some((_, node))) => (node, rows(tree.body(node)).map(Self::Long)),
            (Some(_), Some((_, node))) => return Err(tree.malformed(node, "both stco and co64")),
        };
        match chunks {
            Some(chunks) => Ok(Some((node, chunks))),
            None => Err(tree.malformed(node, "fewer chunks than it says")),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Short(rows) => rows.len(),
            Self::Long(rows) => rows.len(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        let (short, long): (&[_], &[_]) = match self {
            Self::Short(rows) => (rows, &[]),
            Self::Long(rows) => (&[], rows),
        };
        short
            .iter()
            .map(|row| u64::from(u32::from_be_bytes(*row)))
            .chain(long.iter().map(|row| u64::from_be_bytes(*row)))
    }
}

/// Rows of a full box behind their count.
fn rows<const N: usize>(body: &[u8]) -> Option<&[[u8; N]]> {
    let mut f = Fields::new(body.get(4..)?);
    let count = f.u32()? as usize;
    f.rest().as_chunks::<N>().0.get(..count)
}

/// Samples per chunk.
struct Spans<'a> {
    rows: std::iter::Peekable<std::slice::Iter<'a, [u8; 12]>>,
    samples: Option<u32>,
}

impl<'a> Spans<'a> {
    fn open(body: &'a [u8]) -> Option<Self> {
        let rows = rows::<12>(body)?;
        let first = |row: &[u8; 12]| row.first_chunk().map(|b| u32::from_be_bytes(*b));
        rows.is_sorted_by(|a, b| first(a) < first(b)).then(|| Self { rows: rows.iter().peekable(), samples: None })
    }

    /// Those of chunk `number`, asked for one after another from 1.
    fn of(&mut self, number: u32) -> Option<u32> {
        if let Some(row) = self.rows.next_if(|row| row.starts_with(&number.to_be_bytes())) {
            let mut f = Fields::new(row);
            f.u32()?;
            self.samples = f.u32();
        }
        self.samples
    }
}

/// Sizes of samples in order.
struct Sizes<'a> {
    kind: SizeKind<'a>,
    next: u64,
    count: u64,
}

enum SizeKind<'a> {
    Common(u32),
    Rows(&'a [[u8; 4]]),
    /// `stz2`, with 4, 8 or 16 bits each.
    Compact(&'a [u8], u8),
}

impl<'a> Sizes<'a> {
    fn open(tree: &'a Tree, stbl: usize) -> Result<Option<(&'a Node, Self)>, ReduceError> {
        let (node, sizes) = match (tree.only(stbl, *b"stsz")?, tree.only(stbl, *b"stz2")?) {
            (None, None) => return Ok(None),
            (Some((_, node)), None) => (node, Self::stsz(tree.body(node))),
            (None, Some((_, node))) => (node, Self::stz2(tree.body(node))),
            (Some(_), Some((_, node))) => return Err(tree.malformed(node, "both stsz and stz2")),
        };
        match sizes {
            Some(sizes) => Ok(Some((node, sizes))),
            None => Err(tree.malformed(node, "fewer sample sizes than it says")),
        }
    }

    fn stsz(body: &'a [u8]) -> Option<Self> {
        let mut f = Fields::new(body.get(4..)?);
        let (common, count) = (f.u32()?, f.u32()?);
        let kind = match common {
            0 => SizeKind::Rows(f.rest().as_chunks::<4>().0.get(..count as usize)?),
            common => SizeKind::Common(common),
        };
        Some(Self { kind, next: 0, count: count.into() })
    }

    fn stz2(body: &'a [u8]) -> Option<Self> {
        let mut f = Fields::new(body.get(4..)?);
        let (bits, count) = (f.u32()?, f.u32()?);
        let bits = u8::try_from(bits & 0xff).ok().filter(|b| matches!(b, 4 | 8 | 16))?;
        let bytes = (u64::from(count) * u64::from(bits)).div_ceil(8);
        Some(Self {
            kind: SizeKind::Compact(f.take(usize::try_from(bytes).ok()?)?, bits),
            next: 0,
            count: count.into(),
        })
    }

    /// Whether the sizes may be counted in something else than bytes.
    fn may_be_units(&self) -> bool {
        matches!(self.kind, SizeKind::Common(_))
    }

    fn left(&self) -> u64 {
        self.count - self.next
    }

    /// Bytes of the next `n` samples.
    fn next(&mut self, n: u32) -> Option<u64> {
        let (from, to) = (self.next, self.next + u64::from(n));
        if to > self.count {
            return None;
        }
        self.next = to;
        let (first, last) = (usize::try_from(from).ok()?, usize::try_from(to).ok()?);
        Some(match &self.kind {
            SizeKind::Common(size) => u64::from(*size) * u64::from(n),
            SizeKind::Rows(rows) => rows.get(first..last)?.iter().map(|r| u64::from(u32::from_be_bytes(*r))).sum(),
            SizeKind::Compact(bytes, bits) => (first..last).map(|i| compact(bytes, *bits, i)).sum::<Option<u64>>()?,
        })
    }
}

fn compact(bytes: &[u8], bits: u8, i: usize) -> Option<u64> {
    Some(match bits {
        4 => u64::from(if i.is_multiple_of(2) { bytes.get(i / 2)? >> 4 } else { bytes.get(i / 2)? & 15 }),
        8 => u64::from(*bytes.get(i)?),
        _ => u64::from(u16::from_be_bytes(bytes.get(2 * i..2 * i + 2)?.try_into().ok()?)),
    })
}

/// Where the places of a `saio` begin in its body, and those places; entries are of 4 bytes in version 0, else of 8.
pub(super) fn aux_places(body: &[u8]) -> Option<(usize, Vec<u64>)> {
    let mut f = Fields::new(body);
    let (version, flags) = f.version_and_flags()?;
    if flags & 1 != 0 {
        f.take(8)?;
    }
    let count = f.u32()?;
    let from = body.len() - f.rest().len();
    let width = if version == 0 { 4 } else { 8 };
    (f.rest().len() as u64 >= u64::from(count) * width).then_some(())?;
    let places = (0..count).map(|_| f.sized(version)).collect::<Option<_>>()?;
    Some((from, places))
}
