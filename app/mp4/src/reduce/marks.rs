//! Fields that hold a place in the file or the size of a box, and what they say once the cuts are made.

use super::cuts::{Cuts, Ranges};
use super::fragments::trafs;
use super::outline::TopBox;
use super::pieces::Edits;
use super::samples::{Chunks, aux_places, sample_table};
use super::tree::{Tree, put, put_size};
use super::{ReduceError, read_box};
use crate::boxes::Fields;
use crate::close::reseal;
use crate::read::{ReadAt, fill};

/// Enters the new fields of `top`.
pub(super) fn enter(
    file: &dyn ReadAt,
    top: &TopBox,
    cuts: &Cuts,
    defaults: &[(u32, u32)],
    edits: &mut Edits,
) -> Result<(), ReduceError> {
    match &top.kind {
        b"mdat" => return media(file, top, cuts, edits),
        b"sidx" => return segment_index(file, top, cuts, edits),
        b"moov" | b"moof" | b"mfra" | b"meta" | b"udta" | b"meco" => {}
        _ => return Ok(()),
    }
    let tree = Tree::read(file, top, &mut Ranges::default())?;
    let mut new = tree.bytes.clone();
    match &top.kind {
        b"moov" => movie(&tree, cuts, &mut new)?,
        b"moof" => fragment(&tree, cuts, defaults, &mut new)?,
        b"mfra" => random_access(&tree, cuts, &mut new)?,
        _ => {}
    }
    tree.enter_sizes(&mut new, |range| cuts.map(range.end) - cuts.map(range.start));
    let inner = cuts.within(tree.range());
    if new == tree.bytes && inner.is_empty() {
        return Ok(());
    }
    if top.kind == *b"moov" && inner.is_empty() {
        reseal(&tree.bytes, &mut new);
    }
    edits.replace(top.start, &tree.bytes, &new, inner);
    Ok(())
}

/// The size of an `mdat`.
fn media(file: &dyn ReadAt, top: &TopBox, cuts: &Cuts, edits: &mut Edits) -> Result<(), ReduceError> {
    let size = cuts.map(top.end) - cuts.map(top.start);
    if top.open_ended || size == top.end - top.start {
        return Ok(());
    }
    let mut old = vec![0; usize::from(top.header_len)];
    fill(file, top.start, &mut old)?;
    let mut new = old.clone();
    put_size(&mut new, 0, old.len(), size);
    edits.replace(top.start, &old, &new, &[]);
    Ok(())
}

/// `stco`, `co64` and `saio` of all tracks.
fn movie(tree: &Tree, cuts: &Cuts, new: &mut [u8]) -> Result<(), ReduceError> {
    for (trak, _) in tree.children(0, *b"trak") {
        let Some(stbl) = sample_table(tree, trak)? else { continue };
        if let Some((node, chunks)) = Chunks::open(tree, stbl)? {
            let wide = matches!(chunks, Chunks::Long(_));
            places(new, node.body + 8, wide, chunks.iter().map(|place| cuts.map(place)));
        }
        for (_, saio) in tree.children(stbl, *b"saio") {
            let body = tree.body(saio);
            if let Some((from, old)) = aux_places(body) {
                let wide = body.first() != Some(&0);
                places(new, saio.body + from, wide, old.iter().map(|place| cuts.map(*place)));
            }
        }
    }
    Ok(())
}

/// `tfhd`, `trun` and `saio` of a fragment.
fn fragment(tree: &Tree, cuts: &Cuts, defaults: &[(u32, u32)], new: &mut [u8]) -> Result<(), ReduceError> {
    // A run without a data offset begins where the one before it ends, also afterwards: samples are never cut.
    for traf in trafs(tree, defaults)? {
        if let Some((at, place)) = traf.base_at {
            put(new, at, &cuts.map(place).to_be_bytes());
        }
        for run in &traf.runs {
            let Some(at) = run.offset_at else { continue };
            let offset = i32::try_from(cuts.map(run.start).cast_signed() - cuts.map(run.base).cast_signed());
            let what = "a run that lies too far from its fragment";
            let offset = offset.map_err(|_| ReduceError::Unsupported { offset: tree.place(at), what })?;
            put(new, at, &offset.to_be_bytes());
        }
        for aux in &traf.aux {
            let base = cuts.map(aux.base);
            let moved = aux.places.iter().map(|p| cuts.map(aux.base.saturating_add(*p)).saturating_sub(base));
            places(new, aux.at, aux.wide, moved);
        }
    }
    Ok(())
}

/// `tfra` and `mfro`.
fn random_access(tree: &Tree, cuts: &Cuts, new: &mut [u8]) -> Result<(), ReduceError> {
    for (_, tfra) in tree.children(0, *b"tfra") {
        let entries = access_places(tree.body(tfra)).ok_or(tree.malformed(tfra, "a tfra that is cut short"))?;
        for (at, wide, place) in entries {
            places(new, tfra.body + at, wide, std::iter::once(cuts.map(place)));
        }
    }
    let range = tree.range();
    let size = cuts.map(range.end) - cuts.map(range.start);
    for (_, mfro) in tree.children(0, *b"mfro") {
        if tree.body(mfro).get(4..8) == Some(&(tree.bytes.len() as u32).to_be_bytes()) {
            put(new, mfro.body + 4, &(size as u32).to_be_bytes());
        }
    }
    Ok(())
}

/// Where in a `tfra` the places of fragments stand, whether with 64 bits, and those places.
fn access_places(body: &[u8]) -> Option<Vec<(usize, bool, u64)>> {
    let mut f = Fields::new(body);
    let (version, _) = f.version_and_flags()?;
    f.u32()?;
    let lengths = f.u32()?;
    let numbers: usize = [0, 2, 4].iter().map(|shift| 1 + (lengths >> shift & 3) as usize).sum();
    let count = f.u32()? as usize;
    let wide = version != 0;
    let width = if wide { 16 } else { 8 } + numbers;
    (f.rest().len() >= count.checked_mul(width)?).then_some(())?;
    (0..count)
        .map(|_| {
            f.sized(version)?;
            let at = body.len() - f.rest().len();
            let place = f.sized(version)?;
            f.take(numbers)?;
            Some((at, wide, place))
        })
        .collect()
}

/// A `sidx`: the distance from its end to what it refers to first, and the bytes of each reference from there on.
fn segment_index(file: &dyn ReadAt, top: &TopBox, cuts: &Cuts, edits: &mut Edits) -> Result<(), ReduceError> {
    let old = read_box(file, top)?;
    let mut new = old.clone();
    let cut_short = ReduceError::Malformed { offset: top.start, what: "a sidx that is cut short" };
    references(&old, usize::from(top.header_len), top.end, cuts, &mut new).ok_or(cut_short)?;
    edits.replace(top.start, &old, &new, &[]);
    Ok(())
}

fn references(old: &[u8], header: usize, anchor: u64, cuts: &Cuts, new: &mut [u8]) -> Option<()> {
    let mut f = Fields::new(old.get(header..)?);
    let here = |f: &Fields<'_>| old.len() - f.rest().len();
    let (version, _) = f.version_and_flags()?;
    f.take(8)?;
    f.sized(version)?;
    let first_at = here(&f);
    let mut place = anchor.checked_add(f.sized(version)?)?;
    places(new, first_at, version != 0, std::iter::once(cuts.map(place) - cuts.map(anchor)));
    f.take(2)?;
    for _ in 0..f.u16()? {
        let at = here(&f);
        let word = f.u32()?;
        f.take(8)?;
        let next = place.checked_add(u64::from(word & 0x7fff_ffff))?;
        let size = (cuts.map(next) - cuts.map(place)) as u32;
        put(new, at, &(word & 0x8000_0000 | size).to_be_bytes());
        place = next;
    }
    Some(())
}

/// Writes places one after another, with 64 bits each if `wide`.
fn places(new: &mut [u8], at: usize, wide: bool, list: impl Iterator<Item = u64>) {
    let width = if wide { 8 } else { 4 };
    for (i, place) in list.enumerate() {
        let at = at + i * width;
        if wide {
            put(new, at, &place.to_be_bytes());
        } else {
            put(new, at, &(place as u32).to_be_bytes());
        }
    }
}
